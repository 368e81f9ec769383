"""A candidate under way: a short training that may pause while others train.

While it pauses its random states are kept, so its losses equal those of a training that runs
alone, to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from lrtool.engine import evaluation
from lrtool.engine.batch_norm import statistics_of
from lrtool.engine.denominator import LossTotal, reduction_of, to_numbers
from lrtool.engine.lightning import placed
from lrtool.engine.loop import Position, failed, train_epoch
from lrtool.engine.randomness import RandomStates, random_states, restore_random_states
from lrtool.engine.step import all_skipped, batch_loss, set_mode
from lrtool.engine.sweep import stop_of
from lrtool.errors import LrtoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.report.records import StepRow
    from lrtool.search.subject import Subject, Trainee

LAST_SHARE = 4  # without a validation set, the last quarter of the training losses is compared
FORWARD = 1 / 3  # cost of a forward pass, in steps


@dataclass(slots=True)
class Runner:
    """A candidate's training.

    Attributes:
        subject: what is trained.
        attempt: which start of it.
        number: which candidate, from 0.
        lr: base rate.
        schedule: of the rate, over all of the candidate's steps.
        trainee: None before the start and after the end, so that no memory is used.
        random: random states at its last pause.
        epoch_random: random states at the start of the current epoch.
        position: steps and batches so far.
        rows: of all updates.
        broken: losses or gradients are no longer finite, or the weights broke the model.
        wake: restores it after others have trained; None if not needed.
    """

    subject: Subject
    attempt: int
    number: int
    lr: float
    schedule: RateSchedule
    trainee: Trainee | None = None
    random: RandomStates = field(default_factory=dict)
    epoch_random: RandomStates = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    rows: list[StepRow] = field(default_factory=list)
    broken: bool = False
    wake: Callable[[], object] | None = None

    def begin(self) -> None:
        """Take the subject's model at its start."""
        self.trainee = self.subject.fresh(self.attempt)
        self.random = self.epoch_random = random_states(self.trainee.generators)

    def ready(self) -> Trainee:
        """Return the model under way."""
        assert self.trainee is not None, "a candidate that trains has a model"
        return self.trainee

    def rest(self) -> None:
        """Pause, so that others can train."""
        self.wake = self.subject.rest()

    def end(self) -> None:
        """Free the model."""
        self.trainee = self.wake = None


def advance(runner: Runner, steps: int, watch: Stopwatch) -> Iterator[list[StepRow]]:
    """Train a candidate up to so many updates, or until it breaks; yield rows, several at a time.

    An exception after its losses have diverged counts as broken too: diverged weights can make a
    model raise anything.
    """
    if runner.trainee is None:
        runner.begin()
    trainee, position = runner.ready(), runner.position
    if runner.wake is not None:
        runner.wake()
        runner.wake = None
    step = watch.counted(trainee.step)
    while position.step < steps and not runner.broken:
        try:
            for rows in train_epoch(
                step,
                placed(
                    trainee.model,
                    _batches(runner),
                    step=position.step,
                    epoch=position.epoch,
                    batch=position.batches,
                ),
                position,
                lr=runner.lr,
                schedule=runner.schedule,
                optimizer=trainee.optimizer,
                max_steps=steps,
                ranks=runner.subject.runtime.ranks,
            ):
                runner.rows += rows
                runner.broken = failed(rows[-1], position)
                yield rows
        except LrtoolError:
            raise
        except Exception:
            if not _has_diverged(runner):
                raise
            runner.broken = True
        if position.exhausted:
            if not position.samples:
                raise all_skipped()
            position.next_epoch()
        runner.random = random_states(trainee.generators)


def _batches(runner: Runner) -> Iterator[Sequence[Any]]:
    """Return the rest of the current epoch, with the random states put back."""
    position, generators = runner.position, runner.ready().generators
    if not position.batches:
        restore_random_states(runner.random, generators)
        runner.epoch_random = runner.random
        return runner.subject.batches(runner.attempt, position.epoch, 0)
    restore_random_states(runner.epoch_random, generators)
    rest = runner.subject.batches(runner.attempt, position.epoch, position.batches)
    restore_random_states(runner.random, generators)
    return rest


def _has_diverged(runner: Runner) -> bool:
    return stop_of(runner.rows) is not None


def untrained_loss(runner: Runner, steps: int) -> tuple[float, float]:
    """Return the training loss before any update, and the cost of this, in steps.

    It is that of the batches of as many updates as `last_losses` has for a candidate of `steps`
    steps: one batch would be too noisy. The runner must be at its start, and is used up.
    """
    trainee, subject = runner.ready(), runner.subject
    restore_random_states(runner.random, trainee.generators)
    reduction, total = reduction_of(trainee.loss_fn, trainee.model), LossTotal()
    batch_losses, denominators, updates = [], [], 0
    with subject.runtime.autocast():  # with gradients, as in a step
        first = subject.batches(runner.attempt, 0, 0)
        for group in islice(first, max(1, steps // LAST_SHARE)):
            for batch in group:
                denominator = reduction.denominator(batch)
                with statistics_of(batch, trainee.model, subject.runtime):
                    loss = batch_loss(trainee.model, trainee.loss_fn, batch)
                if loss is not None:
                    batch_losses.append(loss.detach())
                    denominators.append(denominator)
            updates += 1
    if not batch_losses:
        raise all_skipped()
    values = torch.stack(batch_losses).tolist()  # one wait for the device
    for loss, denominator in zip(values, to_numbers(denominators), strict=True):
        total.add(loss, denominator)
    total = total.over(subject.runtime.ranks)
    mean = total.mean()
    return mean / updates if total.denominator is None else mean, FORWARD * updates


def last_losses(runner: Runner) -> tuple[list[float], list[float], int]:
    """Return the losses of a candidate's last quarter of updates, their denominators, and samples.

    Updates without targets do not count. Losses that are sums are averaged over updates, since
    there are more of them at the end than half-way. All are NaN if the candidate is broken.
    """
    last = max(1, runner.position.step // LAST_SHARE)
    rows = [row for row in runner.rows if row.denominator != 0][-last:]
    denominators = [1.0 if row.denominator is None else row.denominator for row in rows]
    losses = [math.nan if runner.broken else row.loss for row in rows]
    return losses, denominators, sum(row.samples for row in rows)


def held_out_losses(
    runner: Runner, batches: Sequence[Any], random: RandomStates
) -> list[float | None]:
    """Return a candidate's mean loss on each batch; NaN if diverged weights break the model.

    It is None for a batch that the model skips.

    Args:
        runner: left unchanged.
        batches: the same for all candidates.
        random: random states to evaluate from, for models that draw numbers in evaluation mode.
    """
    trainee = runner.ready()
    restore_random_states(random, trainee.generators)
    try:
        set_mode(trainee.optimizer, training=False)  # the next step sets it back
        return evaluation.losses(trainee.model, trainee.loss_fn, batches, runner.subject.runtime)
    except LrtoolError:
        raise
    except Exception:
        if not _has_diverged(runner):
            raise
        return [math.nan] * len(batches)
