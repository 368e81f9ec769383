"""A race wired up: candidates built from the task, moved on in two rungs, measured, compared.

So are the trials, a race of two that go straight to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, isfinite, log10, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.curve import race as decisions
from lrtool.curve import trials
from lrtool.data import batches
from lrtool.engine.randomness import random_states
from lrtool.engine.step import samples_in
from lrtool.engine.stopwatch import Stopwatch
from lrtool.experiment.experiment import (
    build,
    repeat_seed,
    rewound,
    seed_everything,
    step_of,
    training_steps,
)
from lrtool.report.records import Candidate, Race, TrialRow
from lrtool.search.compression import compressed_schedule
from lrtool.search.runner import FORWARD, Runner, advance, last_losses, measure, untrained_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.components.schedules import Schedule
    from lrtool.curve.race import Choice
    from lrtool.data.part import Part
    from lrtool.engine.randomness import RandomStates
    from lrtool.experiment.experiment import Task
    from lrtool.report.records import RaceOrigin, RaceOutcome, RaceRow
    from lrtool.search.runner import Epoch

    Array = NDArray[np.float64]

EXAMPLES = 1024  # of the validation part that candidates are measured on, at most
TRIAL_BATCHES = 8  # of the training's, for trials: an evaluation must not cost as much as they do
TRIAL_EXAMPLES = 256  # at least
CHUNK = 64  # examples of a chunk, between which losses are paired
LEAST_CHUNKS = 16  # of a small validation part


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate's loss on each chunk of examples, and how many these are."""

    losses: Array
    sizes: Array

    @property
    def mean(self) -> float:
        """The loss over all of them."""
        return float(self.losses @ self.sizes / self.sizes.sum())


@dataclass(slots=True)
class Entry:
    """A candidate of a race under way.

    Attributes:
        number: which one of the race, from 0.
        log_lr: log10 of its base rate.
        origin: where it comes from.
        loss: of each of its updates.
        runner: its training; None once it is over, so that its model takes no more memory.
        half: its loss half-way; None before.
        final: its loss at the end.
        outcome: why it is out; None: it is not.
    """

    number: int
    log_lr: float
    origin: RaceOrigin
    loss: list[float]
    runner: Runner | None
    half: Measured | None = None
    final: Measured | None = None
    outcome: RaceOutcome | None = None


@dataclass(slots=True)
class Contest:
    """A race under way.

    Attributes:
        task: what trains.
        seed: of weights and data order.
        steps: of each candidate.
        schedule: of the rate, compressed to these steps.
        examples: batches of validation samples; None: the last training losses are compared.
        random: what evaluations begin with.
        untrained: the loss before the first update.
        measured: what all evaluations cost, in steps.
        entries: the candidates.
        over: it got to its end.
    """

    task: Task
    seed: int
    steps: int
    schedule: Schedule
    examples: list[Any] | None
    random: RandomStates
    untrained: float = nan
    measured: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    over: bool = False


def steps_of(task: Task, *, race: bool) -> int:
    """Return the steps of each candidate of a race, or of each of two trials."""
    training = training_steps(task)
    return decisions.length(training) if race else trials.length(training)


def measuring(task: Task) -> float:
    """Return what it costs to measure a candidate of a race once, in steps."""
    part = task.data.validation
    if part is None:
        return 0.0
    return FORWARD * _examined(part, EXAMPLES) / _samples(task)


def _examined(part: Part, most: int) -> int:
    """Return how many examples of a part are measured; as many as wanted where its size is open."""
    return most if part.size is None else min(part.size, most)


def _samples(task: Task) -> int:
    """Return the samples of an update."""
    return task.data.batch_size * task.config.train.accumulate


def open_trials(task: Task) -> Contest:
    """Choose what two short trainings beside an estimate consist of, before they begin.

    Raises:
        ConfigError: there is no schedule for them.
    """
    examples = min(max(TRIAL_BATCHES * _samples(task), TRIAL_EXAMPLES), EXAMPLES)
    return _open(task, steps_of(task, race=False), task.config.find.repeats, examples)


def open_race(task: Task) -> Contest:
    """Choose what a race consists of, before it begins.

    Raises:
        ConfigError: there is no schedule for it.
    """
    return _open(task, steps_of(task, race=True), task.config.find.repeats + 1, EXAMPLES)


def _open(task: Task, steps: int, repeat: int, examples: int) -> Contest:
    """Choose steps and schedule, and a seed that no sweep has had."""
    seed = repeat_seed(task.config.seed, repeat)
    schedule = compressed_schedule(task, steps)
    seed_everything(seed)
    return Contest(
        task=task,
        seed=seed,
        steps=steps,
        schedule=schedule,
        examples=_examples(task, examples),
        random=random_states(rewound(task)),
    )


def _examples(task: Task, most: int) -> list[Any] | None:
    """Return random batches of the validation part; None without one."""
    part = task.data.validation
    if part is None:
        return None
    count = _examined(part, most)
    made = batches.epoch(
        part,
        batch_size=min(CHUNK, ceil(count / LEAST_CHUNKS)),
        seed=task.config.seed,
        epoch=0,
        device=task.runtime.device,
    )
    found, seen = [], 0
    for batch in made:
        found.append(batch)
        seen += samples_in(batch)
        if seen >= most:
            break
    return found or None


def tried(contest: Contest, rates: tuple[float, float], watch: Stopwatch) -> Iterator[TrialRow]:
    """Train at a lower and at a higher rate, to the end; yield a row for each update.

    Args:
        contest: kept up to date; `judged` may be asked of it at any time.
        rates: the two.
        watch: counts the updates.
    """
    origins: tuple[RaceOrigin, RaceOrigin] = ("lower", "higher")
    for lr, origin in zip(rates, origins, strict=True):
        entry = _enter(contest, log10(lr), origin, watch)
        for row in _to(contest, entry, contest.steps, watch):
            yield TrialRow(row.candidate, row.step, row.lr, row.loss)
        _finish(contest, entry)
    contest.over = True


def race(
    contest: Contest, centre: float, prior: float | None, watch: Stopwatch
) -> Iterator[RaceRow]:
    """Race candidates around a rate; yield a row for each of their updates.

    Args:
        contest: kept up to date; `judged` may be asked of it at any time.
        centre: log10 of the estimate of the best rate of the whole training.
        prior: log10 of the optimizer's usual one.
        watch: counts the updates.
    """
    shorter = decisions.lengthening(training_steps(contest.task), contest.steps)
    first = decisions.candidates(centre - shorter, prior)
    yield from _heat(contest, [_enter(contest, *each, watch) for each in first], watch)
    more = decisions.outward([e.log_lr for e in contest.entries], _finals(contest))
    if more is not None:
        yield from _heat(contest, [_enter(contest, *more, watch)], watch)
    contest.over = True


def _enter(contest: Contest, log_lr: float, origin: RaceOrigin, watch: Stopwatch) -> Entry:
    """Build a candidate: every one has the same weights and random states."""
    if not contest.entries:
        _measure_untrained(contest)
    runner = _runner(contest, log_lr, watch)
    entry = Entry(runner.number, log_lr, origin, runner.loss, runner)
    contest.entries.append(entry)
    return entry


def _runner(contest: Contest, log_lr: float, watch: Stopwatch) -> Runner:
    task = contest.task
    built = build(task, contest.seed)
    generators = rewound(task)
    random = random_states(generators)
    return Runner(
        number=len(contest.entries),
        lr=10.0**log_lr,
        model=built.model,
        loss_fn=built.loss_fn,
        optimizer=built.optimizer,
        step=watch.counted(step_of(task, built, task.runtime.scaler())),
        schedule=contest.schedule,
        generators=generators,
        random=random,
        epoch_random=random,
    )


def _measure_untrained(contest: Contest) -> None:
    """Measure the loss before training, with a model that is thrown away."""
    spent = _runner(contest, 0.0, Stopwatch())
    if contest.examples is not None:
        contest.untrained = _measured(contest, spent).mean
        return
    contest.untrained, cost = untrained_loss(
        spent, contest.steps, _epochs(contest), contest.task.runtime
    )
    contest.measured += cost


def _heat(contest: Contest, entries: Sequence[Entry], watch: Stopwatch) -> Iterator[RaceRow]:
    """Move candidates on to half-way, drop those that are out, and move the others to the end."""
    for entry in entries:
        yield from _to(contest, entry, max(1, contest.steps // 2), watch)
        entry.half = _measured(contest, entry.runner)
    _drop(contest, entries)
    for entry in entries:
        if entry.outcome is None:
            yield from _to(contest, entry, contest.steps, watch)
            _finish(contest, entry)


def _finish(contest: Contest, entry: Entry) -> None:
    """Measure a candidate that has come to its end, and let its model go."""
    entry.final, entry.runner = _measured(contest, entry.runner), None
    if decisions.diverged([entry.final.mean], contest.untrained)[0]:
        entry.outcome = "diverged"


def _to(contest: Contest, entry: Entry, steps: int, watch: Stopwatch) -> Iterator[RaceRow]:
    assert entry.runner is not None, "a candidate that moves on is in the race"
    return watch.timed(advance(entry.runner, steps, _epochs(contest)))


def _epochs(contest: Contest) -> Epoch:
    """Return what gives the batches of an epoch."""
    task = contest.task

    def epoch(number: int, skip: int) -> Iterator[list[Any]]:
        made = batches.epoch(
            task.data.train,
            batch_size=task.data.batch_size,
            seed=contest.seed,
            epoch=number,
            device=task.runtime.device,
            skip=skip,
        )
        groups = batches.micro_batches(made, task.config.train.accumulate)
        return groups if skip else _some(groups, number)

    return epoch


def _some(groups: Iterator[list[Any]], epoch: int) -> Iterator[list[Any]]:
    """Yield the batches of an epoch, which must have some."""
    empty = True
    for group in groups:
        empty = False
        yield group
    if empty:
        raise batches.empty_epoch(epoch)


def _measured(contest: Contest, runner: Runner | None) -> Measured:
    """Measure a candidate where it stands: on the examples, or by its last training losses."""
    assert runner is not None, "a candidate that is measured is in the race"
    if contest.examples is None:
        losses, sizes = last_losses(runner)
    else:
        sizes = [float(samples_in(batch)) for batch in contest.examples]
        losses = [nan] * len(sizes)
        if not runner.broken:
            losses = measure(runner, contest.examples, contest.task.runtime, contest.random)
            contest.measured += FORWARD * sum(sizes) / _samples(contest.task)
    return Measured(np.array(losses), np.array(sizes))


def _drop(contest: Contest, entries: Sequence[Entry]) -> None:
    """Say of these candidates which are out half-way, and let their models go."""
    halves = [entry.half.mean if entry.half else nan for entry in contest.entries]
    goes_on = decisions.survivors(halves, contest.untrained)
    diverged = decisions.diverged(halves, contest.untrained)
    for entry in entries:
        if not goes_on[entry.number]:
            entry.outcome = "diverged" if diverged[entry.number] else "dropped"
            entry.runner = None


def _finals(contest: Contest) -> list[float]:
    """Return the final losses of all candidates; NaN for those that are out."""
    return [
        entry.final.mean if entry.final is not None and entry.outcome is None else nan
        for entry in contest.entries
    ]


def judged(contest: Contest) -> tuple[Race, Choice]:
    """Choose among what has been measured so far; return the race as a record with it."""
    compared = _compared(contest)
    measured = [each for each in compared if each is not None]
    sizes = measured[0].sizes if measured else np.ones(1)
    out = np.full(sizes.shape, nan)
    choice = decisions.choose(
        [entry.log_lr for entry in contest.entries],
        np.array([out if each is None else each.losses for each in compared]),
        sizes,
        interrupted=not contest.over,
    )
    choice = decisions.lengthened(choice, training_steps(contest.task), contest.steps)
    made = sum(len(entry.loss) for entry in contest.entries)
    race = Race(
        seed=contest.seed,
        steps=contest.steps,
        steps_spent=made + contest.measured,
        measure="training" if contest.examples is None else "validation",
        examples=int(sizes.sum()) if measured else 0,
        untrained_loss=contest.untrained,
        candidates=tuple(
            _candidate(entry, float(error), best=entry.number == choice.best)
            for entry, error in zip(contest.entries, choice.errors, strict=True)
        ),
        interrupted=not contest.over,
    )
    return race, choice


def _compared(contest: Contest) -> list[Measured | None]:
    """Return the final losses, those half-way where the final ones are not all there, or nothing.

    None stands for a candidate that is out, and for the outward one while it is under way.
    """
    entries = contest.entries
    in_it = [entry for entry in entries if entry.outcome is None]
    if all(entry.final for entry in in_it if entry.origin != "outward"):
        return [entry.final if entry.outcome is None else None for entry in entries]
    if all(entry.half for entry in entries):
        return [entry.half if entry.outcome is None else None for entry in entries]
    return [None] * len(entries)


def _candidate(entry: Entry, error: float, *, best: bool) -> Candidate:
    outcome = entry.outcome
    if outcome is None:
        outcome = "unfinished" if entry.final is None else "won" if best else "lost"
    return Candidate(
        lr=10.0**entry.log_lr,
        origin=entry.origin,
        loss=tuple(entry.loss),
        half_loss=None if entry.half is None else entry.half.mean,
        final_loss=None if entry.final is None else entry.final.mean,
        standard_error=error if isfinite(error) else None,
        outcome=outcome,
    )
