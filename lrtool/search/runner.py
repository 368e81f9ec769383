"""The race: several trainings, each moved on a little after the other, as if it were alone.

A candidate is a training with all that the trainer's has; between two rungs it rests, and its
random states with it. So its losses are those of a real training to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    from torch import nn

    from lrtool.engine.device import Runtime
    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.step import LossFunction, Step
    from lrtool.report.records import StepRow

LAST_SHARE = 4  # without a validation part the last quarter of the steps is what is measured
FORWARD = 1 / 3  # of a step: what a forward pass costs

# The batches of each update in an epoch, counted from 0, without so many batches at its start.
Epoch = Callable[[int, int], Iterator[Sequence[Any]]]


@dataclass(slots=True)
class Runner:
    """A candidate at rest, or on its way to the next rung.

    Attributes:
        number: which one of the race, from 0.
        lr: the base rate.
        model: trained by `step`, with `loss_fn` and `optimizer`.
        schedule: of the rate, over the race.
        generators: that the user's own loaders draw from.
        random: the random states where it rests.
        epoch_random: the random states at the start of the epoch under way.
        position: where it stands.
        loss: of each update.
        samples: of each update.
        skipped: which updates the gradient scaler skipped.
        broken: its losses or gradients are no longer finite, or its weights broke the model.
    """

    number: int
    lr: float
    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: torch.optim.Optimizer
    step: Step
    schedule: RateSchedule
    generators: Sequence[torch.Generator]
    random: RandomStates
    epoch_random: RandomStates
    position: Position = field(default_factory=Position)
    loss: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    broken: bool = False


def advance(runner: Runner, steps: int, epoch: Epoch) -> Iterator[RaceRow]:
    """Train a candidate until it has made so many updates, or breaks; yield a row for each.

    An exception from the step after its losses have diverged breaks it as well: diverged weights
    break models in ways that say nothing new.
    """
    position = runner.position
    while position.step < steps and not runner.broken:
        try:
            for rows in train_epoch(
                runner.step,
                _batches(runner, epoch),
                position,
                lr=runner.lr,
                schedule=runner.schedule,
                optimizer=runner.optimizer,
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
        runner.random = random_states(runner.generators)


def _batches(runner: Runner, epoch: Epoch) -> Iterator[Sequence[Any]]:
    """Return what is left of the epoch under way, with the random states put back."""
    position = runner.position
    if not position.batches:
        restore_random_states(runner.random, runner.generators)
        runner.epoch_random = runner.random
        return epoch(position.epoch, 0)
    restore_random_states(runner.epoch_random, runner.generators)
    rest = epoch(position.epoch, position.batches)
    restore_random_states(runner.random, runner.generators)
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


def untrained_loss(
    runner: Runner, steps: int, epoch: Epoch, runtime: Runtime
) -> tuple[float, float]:
    """Return the mean training loss before any update, and what it cost, in steps.

    Over as many updates' batches as `last_losses` of a candidate of so many steps: a single batch
    would make a judgement of chance. The candidate is spent afterwards.
    """
    restore_random_states(runner.random, runner.generators)
    losses, sizes, updates = [], [], 0
    with torch.no_grad(), runtime.autocast():
        for group in islice(epoch(0, 0), max(1, steps // LAST_SHARE)):
            for batch in group:
                losses.append(batch_loss(runner.model, runner.loss_fn, batch))
                sizes.append(samples_in(batch))
            updates += 1
    read = torch.stack(losses).tolist()  # once, not for each batch
    total = sum(loss * size for loss, size in zip(read, sizes, strict=True))
    return total / sum(sizes), FORWARD * updates


def last_losses(runner: Runner) -> tuple[list[float], list[float]]:
    """Return the losses of the last quarter of a resting candidate's updates, and their samples.

    They are NaN if it is broken.
    """
    last = max(1, runner.position.step // LAST_SHARE)
    sizes = [float(count) for count in runner.samples[-last:]]
    return [math.nan] * len(sizes) if runner.broken else runner.loss[-last:], sizes


def measure(
    runner: Runner, batches: Sequence[Any], runtime: Runtime, random: RandomStates
) -> list[float]:
    """Return a resting candidate's mean loss on each batch; NaN where diverged weights break it.

    Args:
        runner: left as it is.
        batches: the same for all candidates.
        runtime: device and precision.
        random: what a model that draws numbers while it is evaluated begins with.
    """
    restore_random_states(random, runner.generators)
    try:
        return losses(runner.model, runner.loss_fn, batches, runtime)
    except LrtoolError:
        raise
    except Exception:
        if not _has_diverged(runner):
            raise
        return [math.nan] * len(batches)
