"""A race: candidates moved on in two legs, measured and compared; so are the trials.

The trials are a race of two that go straight to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, log10, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.curve import race as decisions
from lrtool.curve import trials
from lrtool.engine.step import samples_in
from lrtool.report.records import Candidate, Race, TrialRow
from lrtool.search.runner import FORWARD, Runner, advance, last_losses, measure, untrained_loss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.curve.race import Choice
    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.randomness import RandomStates
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.report.records import RaceOrigin, RaceOutcome, RaceRow
    from lrtool.search.subject import Subject

    Array = NDArray[np.float64]

SAMPLES = 1024  # of the validation set that candidates are measured on, at most
TRIAL_UPDATES = 8  # of the training's, for trials: an evaluation must not cost as much as they do
TRIAL_SAMPLES = 256  # at least


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate's loss on each chunk of samples, and how many these are."""

    losses: Array
    sizes: Array

    @property
    def mean(self) -> float:
        """The loss over all of them."""
        return float(self.losses @ self.sizes / self.sizes.sum())


@dataclass(slots=True)
class Entry:
    """A candidate as the race sees it.

    Attributes:
        log_lr: log10 of its base rate.
        origin: where it comes from.
        runner: its training.
        half: its loss half-way; None before.
        final: its loss at the end.
        outcome: why it is out; None: it is not.
    """

    log_lr: float
    origin: RaceOrigin
    runner: Runner
    half: Measured | None = None
    final: Measured | None = None
    outcome: RaceOutcome | None = None


@dataclass(slots=True)
class Contest:
    """A race, or the two trials, under way.

    Attributes:
        subject: what trains.
        attempt: which start of it: weights, random states and batches that no sweep had.
        steps: of each candidate.
        training: steps of the training that the rate is meant for; None: not known.
        schedule: of the rate, over the candidate's steps.
        samples: of an update.
        held_out: batches of validation samples; None: the last training losses are compared.
        random: what evaluations begin with.
        untrained: the loss before the first update.
        measured: what all evaluations cost, in steps.
        entries: the candidates.
        over: it got to its end.
    """

    subject: Subject
    attempt: int
    steps: int
    training: int | None
    schedule: RateSchedule
    samples: int
    held_out: list[Any] | None
    random: RandomStates = field(default_factory=dict)
    untrained: float = nan
    measured: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    over: bool = False

    def evaluation(self) -> float:
        """Return what one evaluation costs, in steps."""
        return FORWARD * sum(map(samples_in, self.held_out or ())) / self.samples


def open_trials(subject: Subject, attempt: int, samples: int, training: int | None) -> Contest:
    """Choose what two short trainings beside an estimate consist of.

    Args:
        subject: what trains.
        attempt: a start that no sweep had.
        samples: of an update.
        training: steps of the training that the rate is meant for; None: not known.
    """
    most = min(max(TRIAL_UPDATES * samples, TRIAL_SAMPLES), SAMPLES)
    steps = trials.length(training)
    held_out, schedule = subject.held_out(most), subject.schedule(steps)
    return Contest(subject, attempt, steps, training, schedule, samples, held_out)


def open_race(subject: Subject, attempt: int, samples: int, training: int | None) -> Contest:
    """Choose what a race consists of; the arguments are those of `open_trials`."""
    steps = decisions.length(training)
    held_out, schedule = subject.held_out(SAMPLES), subject.schedule(steps)
    return Contest(subject, attempt, steps, training, schedule, samples, held_out)


def run_trials(
    contest: Contest, rates: tuple[float, float], watch: Stopwatch
) -> Iterator[TrialRow]:
    """Train at a lower and at a higher rate, to the end; yield a row for each update.

    Args:
        contest: kept up to date; `judge` may be asked of it at any time.
        rates: the two.
        watch: counts the updates.
    """
    origins: tuple[RaceOrigin, RaceOrigin] = ("lower", "higher")
    for lr, origin in zip(rates, origins, strict=True):
        entry = _enter(contest, log10(lr), origin)
        for row in _to(entry, contest.steps, watch):
            yield TrialRow(row.candidate, row.step, row.lr, row.loss)
        _finish(contest, entry)
    contest.over = True


def run_race(
    contest: Contest, centre: float, prior: float | None, watch: Stopwatch
) -> Iterator[RaceRow]:
    """Race candidates around a rate; yield a row for each of their updates.

    Args:
        contest: kept up to date; `judge` may be asked of it at any time.
        centre: log10 of the estimate of the best rate of the whole training.
        prior: log10 of the optimizer's usual one.
        watch: counts the updates.
    """
    shorter = decisions.lengthening(contest.training, contest.steps)
    first = decisions.candidates(centre - shorter, prior)
    yield from _heat(contest, [_enter(contest, *each) for each in first], watch)
    more = decisions.outward([e.log_lr for e in contest.entries], _finals(contest))
    if more is not None:
        yield from _heat(contest, [_enter(contest, *more)], watch)
    contest.over = True


def _enter(contest: Contest, log_lr: float, origin: RaceOrigin) -> Entry:
    """Add a candidate: every one begins with the same weights and random states."""
    if not contest.entries:
        _measure_untrained(contest)
    entry = Entry(log_lr, origin, _runner(contest, log_lr))
    contest.entries.append(entry)
    return entry


def _runner(contest: Contest, log_lr: float) -> Runner:
    number = len(contest.entries)
    return Runner(contest.subject, contest.attempt, number, 10.0**log_lr, contest.schedule)


def _measure_untrained(contest: Contest) -> None:
    """Measure the loss before training, with a start that is spent on it."""
    spent = _runner(contest, 0.0)
    spent.begin()
    contest.random = spent.random
    if contest.held_out is not None:
        contest.untrained = _measured(contest, spent).mean
        return
    contest.untrained, cost = untrained_loss(spent, contest.steps)
    contest.measured += cost


def _heat(contest: Contest, entries: Sequence[Entry], watch: Stopwatch) -> Iterator[RaceRow]:
    """Move candidates on to half-way, drop those that are out, and move the others to the end."""
    for entry in entries:
        yield from _to(entry, max(1, contest.steps // 2), watch)
        entry.half = _measured(contest, entry.runner)
        entry.runner.rest()
    _drop(contest, entries)
    for entry in entries:
        if entry.outcome is None:
            yield from _to(entry, contest.steps, watch)
            _finish(contest, entry)


def _finish(contest: Contest, entry: Entry) -> None:
    """Measure a candidate that has come to its end, and let its model go."""
    entry.final = _measured(contest, entry.runner)
    entry.runner.end()
    if decisions.diverged([entry.final.mean], contest.untrained)[0]:
        entry.outcome = "diverged"


def _to(entry: Entry, steps: int, watch: Stopwatch) -> Iterator[RaceRow]:
    return watch.timed(advance(entry.runner, steps, watch))


def _measured(contest: Contest, runner: Runner) -> Measured:
    """Measure a candidate where it stands: on the held-out batches, or by its training losses."""
    if contest.held_out is None:
        losses, sizes = last_losses(runner)
    else:
        sizes = [float(samples_in(batch)) for batch in contest.held_out]
        losses = [nan] * len(sizes)
        if not runner.broken:
            losses = measure(runner, contest.held_out, contest.random)
            contest.measured += contest.evaluation()
    return Measured(np.array(losses), np.array(sizes))


def _drop(contest: Contest, entries: Sequence[Entry]) -> None:
    """Say of these candidates which are out half-way, and let their models go."""
    halves = [entry.half.mean if entry.half else nan for entry in contest.entries]
    goes_on = decisions.survivors(halves, contest.untrained)
    diverged = decisions.diverged(halves, contest.untrained)
    for entry in entries:
        number = entry.runner.number
        if not goes_on[number]:
            entry.outcome = "diverged" if diverged[number] else "dropped"
            entry.runner.end()


def _finals(contest: Contest) -> list[float]:
    """Return the final losses of all candidates; NaN for those that are out."""
    return [
        entry.final.mean if entry.final is not None and entry.outcome is None else nan
        for entry in contest.entries
    ]


def judge(contest: Contest) -> tuple[Race, Choice] | None:
    """Choose among what has been measured so far; return the race as a record with the choice.

    None if it ended before the first candidate.
    """
    if not contest.entries:
        return None
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
    choice = decisions.lengthen(choice, contest.training, contest.steps)
    made = sum(len(entry.runner.loss) for entry in contest.entries)
    race = Race(
        seed=contest.subject.seed(contest.attempt),
        steps=contest.steps,
        steps_spent=made + contest.measured,
        measure="training" if contest.held_out is None else "validation",
        examples=int(sizes.sum()) if measured else 0,
        untrained_loss=contest.untrained,
        candidates=tuple(
            _record(entry, float(error), best=entry.runner.number == choice.best)
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


def _record(entry: Entry, error: float, *, best: bool) -> Candidate:
    outcome = entry.outcome
    if outcome is None:
        outcome = "unfinished" if entry.final is None else "won" if best else "lost"
    return Candidate(
        lr=10.0**entry.log_lr,
        origin=entry.origin,
        loss=tuple(entry.runner.loss),
        half_loss=None if entry.half is None else entry.half.mean,
        final_loss=None if entry.final is None else entry.final.mean,
        standard_error=error if isfinite(error) else None,
        outcome=outcome,
    )
