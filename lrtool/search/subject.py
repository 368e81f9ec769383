"""What a search is about: something that can be trained from its start, again and again.

A configuration is one subject (`experiment_subject`), objects that the caller has are another
(`object_subject`). The search knows neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import nn

    from lrtool.engine.device import Runtime
    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.step import LossFunction, Step


@dataclass(frozen=True, slots=True)
class Trainee:
    """A model at its start, with all that trains it.

    Attributes:
        model: in training mode, on the device.
        loss_fn: None for a model that computes its own loss.
        optimizer: over the model's parameters.
        step: makes an update of this model.
        generators: that the loaders draw from, at their start too.
    """

    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: torch.optim.Optimizer
    step: Step
    generators: Sequence[torch.Generator]


class Subject(Protocol):
    """What is asked of a subject.

    An *attempt* numbers the starts: sweeps come first, then the trials, then the race. Every start
    of the same attempt has the same weights, the same random states and the same batches, whatever
    was trained between them.

    Attributes:
        runtime: device and precision.
    """

    runtime: Runtime

    def seed(self, attempt: int) -> int:
        """Return what the report says of an attempt's seed."""

    def fresh(self, attempt: int) -> Trainee:
        """Return the model at its start, with the random states put to those of the attempt."""

    def rest(self) -> Callable[[], None]:
        """Keep what the last fresh trainee has become; return what brings it back."""

    def batches(self, attempt: int, epoch: int, skip: int) -> Iterator[Sequence[Any]]:
        """Return the batches of each update in an epoch, without `skip` batches at its start.

        Those are skipped before this returns. Raises `DataError` where the data have no batch.
        """

    def held_out(self, most: int) -> list[Any] | None:
        """Return batches of at least `most` validation samples, or all; None without any."""

    def schedule(self, steps: int) -> RateSchedule:
        """Return the schedule of the training, compressed to so many steps."""

    def probe(self, trainee: Trainee) -> Callable[[], torch.Tensor] | None:
        """Return what a sweep's loss is read from in place of the batch; None: from the batch."""


def updates(subject: Subject, attempt: int) -> Iterator[Sequence[Any]]:
    """Yield the batches of each update, epoch after epoch, for ever."""
    for epoch in count():
        yield from subject.batches(attempt, epoch, 0)
