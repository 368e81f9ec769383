"""The subject of a search: something that can be trained from its start again and again.

A configuration is one (`experiment_subject`), the caller's objects are another (`object_subject`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from lrtool.engine.lightning import placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import nn

    from lrtool.engine.device import Runtime
    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.step import LossFunction, Step


@dataclass(frozen=True, slots=True)
class Trainee:
    """A model at its start, with its loss, optimizer and step.

    Attributes:
        model: in training mode, on the device.
        loss_fn: None for a model that computes its own loss.
        optimizer: over the model's parameters.
        step: makes an update.
        generators: the loaders' own, at their start.
    """

    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: torch.optim.Optimizer
    step: Step
    generators: Sequence[torch.Generator]


class Subject(Protocol):
    """What a search needs of a subject.

    An *attempt* is the number of a start: the sweeps come first, then the trials, then the race.
    The same attempt always has the same weights, random states and batches.

    Attributes:
        runtime: device and precision.
        has_end: the schedule is that of a whole training, however few its steps.
    """

    runtime: Runtime
    has_end: bool

    def alone(self) -> Subject:
        """Return the subject as one process trains it, though it may be one of several ranks."""

    def samples(self) -> int:
        """Return the number of samples of an update."""

    def seed(self, attempt: int) -> int:
        """Return an attempt's seed, for the report."""

    def fresh(self, attempt: int) -> Trainee:
        """Return the model at its start, and set the random states of the attempt."""

    def rest(self) -> Callable[[], object]:
        """Keep the state of the last trainee; return a function that restores it."""

    def batches(self, attempt: int, epoch: int, skip: int) -> Iterator[Sequence[Any]]:
        """Return the batches of each update of an epoch, after its first `skip` batches.

        These are skipped before this returns. Raises `DataError` if the data have no batch.
        """

    def held_out(self, most: int, *, whole: bool = False) -> list[Any] | None:
        """Return batches of at least `most` validation samples, or of all; None without any.

        They are small chunks, or `whole`: as an evaluation would see them.
        """

    def schedule(self, steps: int) -> RateSchedule:
        """Return the training's schedule, compressed to so many steps."""

    def probe(self, trainee: Trainee) -> Callable[[], torch.Tensor] | None:
        """Return a function that measures a sweep's loss; None: the batch's own loss is taken."""


def updates(subject: Subject, attempt: int, model: nn.Module) -> Iterator[Sequence[Any]]:
    """Yield the batches of each update, epoch after epoch, without end; `model` sees them."""
    step = 0
    for epoch in count():
        groups = placed(model, subject.batches(attempt, epoch, 0), step=step, epoch=epoch)
        for group in groups:
            step += 1
            yield group
