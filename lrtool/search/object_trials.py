"""Two short trainings of objects that the caller has, one after the other, for `find_lr`."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

import numpy as np

from lrtool.components.schedules import SCHEDULES, build_schedule
from lrtool.config import schema as config
from lrtool.curve.race import diverged
from lrtool.errors import ComponentError, LrtoolWarning
from lrtool.report.records import Candidate, Race
from lrtool.search.runner import advance, last_losses, untrained_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.components.schedules import Schedule
    from lrtool.engine.device import Runtime
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.report.records import RaceOrigin, RaceOutcome
    from lrtool.search.runner import Epoch, Runner

ORIGINS: tuple[RaceOrigin, RaceOrigin] = ("lower", "higher")


def schedule_of(name: str, steps: int) -> Schedule:
    """Build a schedule over so many steps from its name; "constant" where that is not enough."""
    parameters = [*inspect.signature(SCHEDULES[name]).parameters.values()][1:]
    if any(parameter.default is parameter.empty for parameter in parameters):
        name = "constant"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LrtoolWarning)  # of what so short a training is without
            return build_schedule(config.Schedule(name=name), steps=steps, steps_per_epoch=None)
    except ComponentError:
        return build_schedule(config.Schedule(), steps=steps, steps_per_epoch=None)


def tried(
    rates: tuple[float, float],
    steps: int,
    runner: Callable[[int, float], Runner],
    epoch: Epoch,
    watch: Stopwatch,
    *,
    runtime: Runtime,
    seed: int,
) -> Race:
    """Train at a lower and at a higher rate, and compare the losses of the last steps.

    Args:
        rates: the two.
        steps: of each.
        runner: puts everything back to its start, and returns what trains with a number and a rate.
        epoch: the batches of an epoch; the same ones for the same random states.
        watch: times the updates.
        runtime: device and precision.
        seed: what the record says.
    """
    untrained, cost = untrained_loss(runner(0, rates[0]), steps, epoch, runtime)
    runners, ends, examples = [], [], 0
    for number, lr in enumerate(rates):
        one = runner(number, lr)
        for _ in watch.timed(advance(one, steps, epoch)):
            pass
        losses, sizes = last_losses(one)
        runners.append(one)
        ends.append(float(np.average(losses, weights=sizes)))
        examples = max(examples, int(sum(sizes)))
    out = diverged(ends, untrained)
    best = min((end for end, gone in zip(ends, out, strict=True) if not gone), default=None)

    def candidate(one: Runner, origin: RaceOrigin, end: float) -> Candidate:
        outcome: RaceOutcome = "won" if end == best else "lost"
        if out[one.number]:
            outcome = "diverged"
        return Candidate(one.lr, origin, tuple(one.loss), None, end, None, outcome)

    return Race(
        seed=seed,
        steps=steps,
        steps_spent=sum(len(one.loss) for one in runners) + cost,
        measure="training",
        examples=examples,
        untrained_loss=untrained,
        candidates=tuple(map(candidate, runners, ORIGINS, ends)),
        interrupted=False,
    )
