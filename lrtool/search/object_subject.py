"""The caller's objects as the subject of a search: one model, put back to its start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lrtool.batch import samples_in
from lrtool.components.schedules import named_schedule
from lrtool.curve.constants import STEPS
from lrtool.data import batches
from lrtool.data.rank_shares import own_batches
from lrtool.engine.copies import copied
from lrtool.engine.data_parallel import DataParallel
from lrtool.engine.evaluation import failure_without_gradients
from lrtool.engine.lightning import attach
from lrtool.engine.preserve import keep
from lrtool.engine.randomness import random_states, restore_random_states, seed_everything
from lrtool.engine.step import batch_loss, make_step, set_mode
from lrtool.errors import DataError, LrtoolWarning, said
from lrtool.search.first_look import look
from lrtool.search.held_out import together
from lrtool.search.subject import Trainee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    from lrtool.components.schedules import Schedule
    from lrtool.engine.device import Runtime
    from lrtool.engine.randomness import RandomStates
    from lrtool.engine.step import LossFunction
    from lrtool.search.search import SearchPlan


@dataclass(slots=True)
class ObjectSubject:
    """A model, its optimizer and a loader. To be used inside `preserved`.

    The first attempt starts from the caller's random states, so its batches and its dropout are
    those of the training that would follow. Each other attempt has states derived from these, so
    it does not depend on how far the attempt before it ran.

    Attributes:
        plan: the settings of the search.
        model: on the runtime's device.
        optimizer: over the model's parameters.
        loss_fn: None for a model that computes its own loss.
        scaler: gradient scaler for fp16.
        loader: of training batches; can be iterated again and again.
        validation: likewise, of validation batches; None without any.
        runtime: device and precision.
        generators: that the loaders draw from.
        accumulate: batches for each update.
        clip_norm: gradients are scaled down to this 2-norm.
        wrapper: the caller's, of the model, if ranks share it.
        parallel: the losses of all ranks; None for one process alone.
        restart: puts model and optimizer back to their start.
        random: the caller's random states.
        entropy: that the seeds of the other attempts are derived from.
        has_end: a training of unknown length is taken to have an end.
        passed: the loaders that have yielded a batch, by the names of the arguments.
    """

    plan: SearchPlan
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: LossFunction | None
    scaler: torch.amp.GradScaler | None
    loader: Iterable[Any]
    validation: Iterable[Any] | None
    runtime: Runtime
    generators: Sequence[torch.Generator]
    accumulate: int
    clip_norm: float | None
    wrapper: DistributedDataParallel | None = None
    parallel: DataParallel | None = field(init=False, default=None)
    restart: Callable[[], object] = field(init=False)
    random: RandomStates = field(init=False)
    entropy: int = field(init=False)
    has_end: bool = field(init=False, default=True)
    passed: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.restart = self.rest()
        self.random = random_states(self.generators)
        self.entropy = int(torch.randint(2**62, (), device="cpu"))
        if self.runtime.ranks.several:
            loss_of = partial(batch_loss, self.model, self.loss_fn)
            modules = (self.model, self.loss_fn)
            self.parallel = DataParallel(loss_of, modules, self.runtime, self.wrapper)

    def close(self) -> None:
        """Leave the model to the caller's own wrapper."""
        if self.parallel is not None:
            self.parallel.close()

    def alone(self) -> ObjectSubject:
        """Return itself, as nothing asks: ranks that share a caller's objects share each batch."""
        return self

    def samples(self) -> int:
        """Count the samples of the first update; look at it, so that oddities are said first."""
        restore_random_states(self.random, self.generators)
        group = next(self.batches(0, 0, 0))
        if self.loss_fn is not None and self.parallel is None:
            self.fresh(0)
            look(self.model, self.loss_fn, self.optimizer, copied(group[0]), self.runtime)
        return sum(map(samples_in, group))

    def seed(self, attempt: int) -> int:
        """Return the attempt's number: the caller's random states have no seed."""
        return attempt

    def fresh(self, attempt: int) -> Trainee:
        """Put everything back to its start."""
        self.restart()
        restore_random_states(self.random, self.generators)
        if attempt:
            words = np.random.SeedSequence([self.entropy, attempt]).generate_state(2)
            seed_everything(int(words[0]))
            for generator in self.generators:
                seed = int(words[1])
                if self.runtime.ranks.several:
                    # Where ranks draw a common order from generators of one state, they go on so.
                    twin = _fresh(generator)
                    own = int(torch.randint(2**62, (), generator=twin, device=twin.device))
                    seed = int(np.random.SeedSequence([own, attempt]).generate_state(1)[0])
                generator.manual_seed(seed)
        if not self.model.training:
            self.model.train()
        attach(self.model, self.optimizer)
        step = make_step(
            self.model,
            self.loss_fn,
            self.optimizer,
            self.runtime,
            clip_norm=self.clip_norm,
            scaler=self.scaler,
            parallel=self.parallel,
        )
        return Trainee(self.model, self.loss_fn, self.optimizer, step, self.generators)

    def rest(self) -> Callable[[], object]:
        """Copy all that training changes; return a function that puts it back."""
        return keep(self.model, self.optimizer, loss_fn=self.loss_fn, scaler=self.scaler)

    def batches(self, attempt: int, epoch: int, skip: int) -> Iterator[Sequence[Any]]:
        """Return the batches of each update in one pass over the loader.

        A later sweep starts where the one before would have ended: a loader that does not shuffle
        would show all sweeps the same batches.
        """
        in_sweep = epoch == 0 and attempt < self.plan.repeats
        offset = attempt * self.plan.steps * self.accumulate if in_sweep else 0
        made = self._one_pass()
        for _ in range(offset):
            if next(made, None) is None:
                made = self._one_pass()
                next(made)
        if skip:
            next(islice(made, skip - 1, None), None)
        return batches.micro_batches(made, self.accumulate)

    def _one_pass(self) -> Iterator[Any]:
        """Return the batches of one pass over the loader; of several ranks, over each one's."""
        made = self._pass_over("loader", self.loader)
        ranks = self.runtime.ranks
        return own_batches(made, ranks) if ranks.several else made

    def _pass_over(self, name: str, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches of one pass, the caller's own as copies: a model may change them.

        Raises:
            DataError: there are none.
        """
        try:
            for batch in batches.one_pass(loader, self.runtime.device):
                self.passed.add(name)
                yield batch if _makes_batches(loader) else copied(batch)
        except DataError as error:
            if name not in self.passed:
                raise
            raise DataError(
                f"a further pass over {name} yields no batch: what it goes through is used up; "
                "give an iterable that begins anew each time, or an iterator, whose batches are "
                "kept"
            ) from error

    def held_out(self, most: int, *, whole: bool = False) -> list[Any] | None:
        """Return batches of the validation loader; the same ones on all ranks."""
        if self.validation is None:
            return None
        attach(self.model, self.optimizer)
        restore_random_states(self.random, self.generators)
        if self.runtime.ranks.several:
            found = together(partial(self._held_out, whole=whole), most, self.runtime)
        else:
            found = self._held_out(most, whole=whole)
        if whole:
            return found
        if found and not self.runtime.gradients:
            set_mode(self.optimizer, training=False)  # the next step sets it back
            error = failure_without_gradients(self.model, self.loss_fn, found[0], self.runtime)
            if error is not None:
                self.runtime = replace(self.runtime, gradients=True)
                warnings.warn(
                    f"evaluation without gradients fails here ({type(error).__name__}: "
                    f"{said(error)}): the model is evaluated with gradients switched on",
                    LrtoolWarning,
                    stacklevel=2,
                )
        return found or None

    def _held_out(self, most: int, *, whole: bool) -> list[Any]:
        """Return batches of this process's own validation loader."""
        assert self.validation is not None, "asked for only where there is one"
        if whole:
            return batches.at_least(self._pass_over("validation", self.validation), most)
        ranks = self.runtime.ranks
        found = batches.held_out(self.validation, most, self.runtime.device, ranks=ranks)
        self.passed.add("validation")
        return found

    def schedule(self, steps: int) -> Schedule:
        """Return the plan's schedule, compressed to so many steps."""
        training = self.plan.training or STEPS  # as `find_lr` assumes
        return named_schedule(self.plan.schedule, training_steps=training, steps=steps)

    def probe(self, trainee: Trainee) -> None:  # noqa: ARG002  (a configuration may ask for one)
        """Return None: a sweep's losses are those of its batches."""
        return


def _makes_batches(loader: Iterable[Any]) -> bool:
    """Tell whether batches are new ones each time, not those that the caller holds."""
    return isinstance(loader, DataLoader) and loader.batch_sampler is not None


def _fresh(generator: torch.Generator) -> torch.Generator:
    """Return a generator of the same state, to draw from."""
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def again(loader: Iterable[Any]) -> Iterable[Any]:
    """Return an iterable that can be repeated: the loader, or an iterator with its batches kept."""
    return _Repeatable(loader) if isinstance(loader, Iterator) else loader


class _Repeatable:
    """An iterator's batches, kept so that they can be yielded again.

    The iterator has random states of its own: what it yields must not depend on how many numbers
    were drawn before, by dropout say.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._seen: list[Any] = []
        self._random = random_states()

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches seen before, then new ones."""
        for index in count():
            if index == len(self._seen):
                outside = random_states()
                restore_random_states(self._random)
                try:
                    self._seen.append(next(self._iterator))
                except StopIteration:
                    return
                finally:
                    self._random = random_states()
                    restore_random_states(outside)
            yield self._seen[index]
