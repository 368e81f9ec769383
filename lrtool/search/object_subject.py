"""Objects that the caller has as the subject of a search: one model, put back to its start."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrtool.components.schedules import named_schedule
from lrtool.data import batches
from lrtool.engine.preserve import keep
from lrtool.engine.randomness import random_states, restore_random_states, seed_everything
from lrtool.engine.step import make_step
from lrtool.search.subject import Trainee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import nn

    from lrtool.components.schedules import Schedule
    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction


class ObjectSubject:
    """A model, its optimizer and a loader; to be used inside `preserved` alone.

    The first attempt has the random states that the caller has now, so its first batches and its
    dropout are those of the training that would follow. Every other one has states derived from
    these: however far the attempt before it ran, the next one sees the same.

    Args:
        model: on the runtime's device.
        optimizer: over its parameters.
        loss_fn: None: the model's own loss.
        scaler: of gradients, for fp16.
        loader: of training batches; it can be iterated again and again.
        validation: of validation batches, likewise; None without.
        runtime: device and precision.
        generators: that the loaders draw from.
        accumulate: batches for each update.
        clip_norm: gradients are scaled down to this 2-norm.
        sweeps: how many there will be.
        sweep_steps: updates of each.
        schedule_name: of the training that the rate is meant for.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFunction | None,
        *,
        scaler: torch.amp.GradScaler | None,
        loader: Iterable[Any],
        validation: Iterable[Any] | None,
        runtime: Runtime,
        generators: Sequence[torch.Generator],
        accumulate: int,
        clip_norm: float | None,
        sweeps: int,
        sweep_steps: int,
        schedule_name: str,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.scaler = scaler
        self.loader = loader
        self.validation = validation
        self.runtime = runtime
        self.generators = generators
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.sweeps = sweeps
        self.sweep_batches = sweep_steps * accumulate
        self.schedule_name = schedule_name
        self.restart = self.rest()
        self.random = random_states(generators)
        self.entropy = int(torch.randint(2**62, ()))

    def seed(self, attempt: int) -> int:
        """Return the attempt's number: the random states are the caller's own."""
        return attempt

    def fresh(self, attempt: int) -> Trainee:
        """Put everything back to its start."""
        self.restart()
        restore_random_states(self.random, self.generators)
        if attempt:
            words = np.random.SeedSequence([self.entropy, attempt]).generate_state(2)
            seed_everything(int(words[0]))
            for generator in self.generators:
                generator.manual_seed(int(words[1]))
        if not self.model.training:
            self.model.train()
        step = make_step(
            self.model,
            self.loss_fn,
            self.optimizer,
            self.runtime,
            clip_norm=self.clip_norm,
            scaler=self.scaler,
        )
        return Trainee(self.model, self.loss_fn, self.optimizer, step, self.generators)

    def rest(self) -> Callable[[], None]:
        """Copy all that training changes; return what puts it back."""
        return keep(self.model, self.optimizer, loss_fn=self.loss_fn, scaler=self.scaler)

    def batches(self, attempt: int, epoch: int, skip: int) -> Iterator[Sequence[Any]]:
        """Return the batches of each update in one pass over the loader.

        A loader that does not shuffle would show each sweep the same batches: the later ones begin
        where the sweep before would have ended.
        """
        begins = attempt * self.sweep_batches if epoch == 0 and attempt < self.sweeps else 0
        made = batches.one_pass(self.loader, self.runtime.device)
        for _ in range(begins):
            if next(made, None) is None:
                made = batches.one_pass(self.loader, self.runtime.device)
                next(made)
        if skip:
            next(islice(made, skip - 1, None), None)
        return batches.micro_batches(made, self.accumulate)

    def held_out(self, most: int) -> list[Any] | None:
        """Return batches of the validation loader."""
        if self.validation is None:
            return None
        restore_random_states(self.random, self.generators)
        return batches.held_out(self.validation, most, self.runtime.device) or None

    def schedule(self, steps: int) -> Schedule:
        """Return the schedule of this name over so many steps."""
        return named_schedule(self.schedule_name, steps)

    def probe(self, trainee: Trainee) -> None:  # noqa: ARG002  (a configuration's may have one)
        """Objects have none: a sweep's losses are those of its batches."""
        return
