"""A candidate under way: a training moved on a little, then another one, each as if it were alone.

Between two legs a candidate rests, and its random states with it. So its losses are those of a real
training to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from lrtool.curve.stopping import find_stop
from lrtool.engine.evaluation import losses
from lrtool.engine.loop import Position, failed, train_epoch
from lrtool.engine.randomness import RandomStates, random_states, restore_random_states
from lrtool.engine.step import batch_loss, samples_in
from lrtool.errors import LrtoolError
from lrtool.report.records import RaceRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.report.records import StepRow
    from lrtool.search.subject import Subject, Trainee

LAST_SHARE = 4  # without a validation set the last quarter of the steps is what is measured
FORWARD = 1 / 3  # of a step: what a forward pass costs


@dataclass(slots=True)
class Runner:
    """A candidate: not begun yet, on its way, at rest, or at its end.

    Attributes:
        subject: what trains.
        attempt: which start of it.
        number: which candidate, from 0.
        lr: the base rate.
        schedule: of the rate, over the whole of the candidate's steps.
        trainee: None before it begins and after its end: then its model takes no memory.
        random: the random states where it rests.
        epoch_random: the random states at the start of the epoch under way.
        position: where it stands.
        loss: of each update.
        samples: of each update.
        skipped: which updates the gradient scaler skipped.
        broken: its losses or gradients are no longer finite, or its weights broke the model.
        wake: brings it back after others have trained; None where it need not be.
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
    loss: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    broken: bool = False
    wake: Callable[[], None] | None = None

    def begin(self) -> None:
        """Take the subject's model at its start."""
        self.trainee = self.subject.fresh(self.attempt)
        self.random = self.epoch_random = random_states(self.trainee.generators)

    def ready(self) -> Trainee:
        """Return the model, which has begun and is not at its end."""
        assert self.trainee is not None, "a candidate that moves on has a model"
        return self.trainee

    def rest(self) -> None:
        """Let others train before the next leg."""
        self.wake = self.subject.rest()

    def end(self) -> None:
        """Let the model go."""
        self.trainee = self.wake = None


def advance(runner: Runner, steps: int, watch: Stopwatch) -> Iterator[RaceRow]:
    """Train a candidate until it has made so many updates, or breaks; yield a row for each.

    An exception from the step after its losses have diverged breaks it as well: diverged weights
    break models in ways that say nothing new.
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
                _batches(runner),
                position,
                lr=runner.lr,
                schedule=runner.schedule,
                optimizer=trainee.optimizer,
                max_steps=steps,
            ):
                yield from _noted(runner, rows)
        except LrtoolError:
            raise
        except Exception:
            if not _has_diverged(runner):
                raise
            runner.broken = True
        if position.exhausted:
            position.next_epoch()
        runner.random = random_states(trainee.generators)


def _batches(runner: Runner) -> Iterator[Sequence[Any]]:
    """Return what is left of the epoch under way, with the random states put back."""
    position, generators = runner.position, runner.ready().generators
    if not position.batches:
        restore_random_states(runner.random, generators)
        runner.epoch_random = runner.random
        return runner.subject.batches(runner.attempt, position.epoch, 0)
    restore_random_states(runner.epoch_random, generators)
    rest = runner.subject.batches(runner.attempt, position.epoch, position.batches)
    restore_random_states(runner.random, generators)
    return rest


def _noted(runner: Runner, rows: Sequence[StepRow]) -> Iterator[RaceRow]:
    for row in rows:
        runner.loss.append(row.loss)
        runner.samples.append(row.samples)
        runner.skipped.append(row.skipped)
        runner.broken = failed(row, runner.position)
    for row in rows:
        yield RaceRow(runner.number, row.step, runner.lr, row.loss)


def _has_diverged(runner: Runner) -> bool:
    return find_stop(runner.loss, runner.skipped) is not None


def untrained_loss(runner: Runner, steps: int) -> tuple[float, float]:
    """Return the mean training loss before any update, and what it cost, in steps.

    Over as many updates' batches as `last_losses` of a candidate of so many steps: a single batch
    would make a judgement of chance. The candidate, which has just begun, is spent afterwards.
    """
    trainee, subject = runner.ready(), runner.subject
    restore_random_states(runner.random, trainee.generators)
    found, sizes, updates = [], [], 0
    with torch.no_grad(), subject.runtime.autocast():
        first = subject.batches(runner.attempt, 0, 0)
        for group in islice(first, max(1, steps // LAST_SHARE)):
            for batch in group:
                found.append(batch_loss(trainee.model, trainee.loss_fn, batch))
                sizes.append(samples_in(batch))
            updates += 1
    read = torch.stack(found).tolist()  # once, not for each batch
    total = sum(loss * size for loss, size in zip(read, sizes, strict=True))
    return total / sum(sizes), FORWARD * updates


def last_losses(runner: Runner) -> tuple[list[float], list[float]]:
    """Return the losses of the last quarter of a candidate's updates, and their samples.

    They are NaN if it is broken.
    """
    last = max(1, runner.position.step // LAST_SHARE)
    sizes = [float(count) for count in runner.samples[-last:]]
    return [math.nan] * len(sizes) if runner.broken else runner.loss[-last:], sizes


def measure(runner: Runner, batches: Sequence[Any], random: RandomStates) -> list[float]:
    """Return a candidate's mean loss on each batch; NaN where diverged weights break the model.

    Args:
        runner: left as it is.
        batches: the same for all candidates.
        random: what a model that draws numbers while it is evaluated begins with.
    """
    trainee = runner.ready()
    restore_random_states(random, trainee.generators)
    try:
        return losses(trainee.model, trainee.loss_fn, batches, runner.subject.runtime)
    except LrtoolError:
        raise
    except Exception:
        if not _has_diverged(runner):
            raise
        return [math.nan] * len(batches)
