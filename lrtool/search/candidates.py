"""A race: candidates trained in two halves, measured and compared.

The trials are a race of two that train straight to the end, a full trial has one, measured on the
way. Candidates train one after another, or side by side on several ranks, to the same losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import fsum, isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.batch import samples_in
from lrtool.curve import full_trial, trials
from lrtool.curve import race as decisions
from lrtool.engine.denominator import reduction_of, to_numbers
from lrtool.engine.step import set_mode
from lrtool.engine.stopwatch import Stopwatch
from lrtool.ranks import ALONE, Ranks
from lrtool.report.records import (
    Candidate,
    FullTrial,
    FullTrialRow,
    Race,
    RaceRow,
    TrialRow,
)
from lrtool.search.held_out import usable
from lrtool.search.runner import (
    FORWARD,
    Runner,
    advance,
    held_out_losses,
    last_losses,
    untrained_loss,
)
from lrtool.search.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.curve.race import Choice
    from lrtool.engine.loop import RateSchedule
    from lrtool.engine.randomness import RandomStates
    from lrtool.report.records import RaceOrigin, RaceOutcome, StepRow
    from lrtool.search.subject import Subject

    Array = NDArray[np.float64]

TRIAL_UPDATES = 16  # trials: as many samples as so many updates, so that evaluations stay cheap
TRIAL_SAMPLES = 256  # but at least so many


@dataclass(frozen=True, slots=True)
class Measurement:
    """A candidate's loss on each chunk of samples.

    Attributes:
        losses: of each chunk.
        sizes: what each is a mean over.
        samples: in all chunks.
        cost: of the measurement, in steps.
    """

    losses: Array
    sizes: Array
    samples: int
    cost: float = 0.0

    @property
    def mean(self) -> float:
        """The loss of all chunks as of one."""
        return float(self.losses @ self.sizes / self.sizes.sum())


@dataclass(slots=True)
class Entry:
    """A candidate as the race sees it.

    Attributes:
        log_lr: log10 of its base rate.
        origin: why this rate.
        runner: its training.
        half: its loss half-way, or where it was measured last before its end; None before.
        final: its loss at the end; None before.
        outcome: why it is out of the race; None while it is in.
    """

    log_lr: float
    origin: RaceOrigin
    runner: Runner
    half: Measurement | None = None
    final: Measurement | None = None
    outcome: RaceOutcome | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a candidate did since its last turn.

    Attributes:
        number: which candidate.
        rows: of its updates.
        measurement: of its loss, in its last turn before it pauses or ends; else None.
        spent: on the updates.
    """

    number: int
    rows: Sequence[StepRow]
    measurement: Measurement | None
    spent: Stopwatch


@dataclass(slots=True)
class Contest:
    """A race, or the trials, under way.

    Attributes:
        subject: what is trained.
        attempt: which start of it; one that no sweep used.
        steps: updates of each candidate.
        training: steps of the training that the rate is meant for; None: unknown.
        schedule: of the rate, over a candidate's steps.
        samples: in an update.
        held_out: validation batches; None: the last training losses are compared instead.
        ranks: that train one candidate each.
        random: random states at the start of each evaluation.
        untrained: loss before the first update.
        before: the measurement of it on the held-out batches; None without these.
        evaluation_cost: of all measurements so far, in steps.
        entries: the candidates.
        measured: a full trial's measurements, with the steps made until each.
        finished: it was not interrupted.
    """

    subject: Subject
    attempt: int
    steps: int
    training: int | None
    schedule: RateSchedule
    samples: int
    held_out: list[Any] | None
    ranks: Ranks = ALONE
    random: RandomStates = field(default_factory=dict)
    untrained: float = nan
    before: Measurement | None = None
    evaluation_cost: float = 0.0
    entries: list[Entry] = field(default_factory=list)
    measured: list[tuple[int, Measurement]] = field(default_factory=list)
    finished: bool = False

    def cost_of_evaluation(self) -> float:
        """Return the cost of one evaluation, in steps."""
        return FORWARD * sum(map(samples_in, self.held_out or ())) / self.samples

    def is_own(self, entry: Entry) -> bool:
        """Tell whether this rank trains a candidate."""
        return entry.runner.number % self.ranks.world_size == self.ranks.rank


def open_trials(
    subject: Subject, attempt: int, samples: int, training: int | None, ranks: Ranks = ALONE
) -> Contest:
    """Set up the trials: how long they are, and what they are measured on.

    Args:
        subject: what is trained.
        attempt: a start that no sweep used.
        samples: in an update.
        training: steps of the training that the rate is meant for; None: unknown.
        ranks: that train one candidate each, by itself; one alone trains all of them.
    """
    steps, most = trials.length(training), _few(samples)
    return _open(subject, attempt, samples, training, ranks, steps=steps, most=most)


def open_full_trial(
    subject: Subject, attempt: int, samples: int, training: int, ranks: Ranks = ALONE
) -> Contest:
    """Set up a full trial, with the arguments of `open_trials`."""
    most = _few(samples)
    return _open(subject, attempt, samples, training, ranks, steps=training, most=most)


def open_race(
    subject: Subject, attempt: int, samples: int, training: int | None, ranks: Ranks = ALONE
) -> Contest:
    """Set up a race, with the arguments of `open_trials`."""
    steps, most = decisions.length(training), decisions.SAMPLES
    return _open(subject, attempt, samples, training, ranks, steps=steps, most=most)


def _few(samples: int) -> int:
    """Return how many validation samples trials are measured on, for updates of so many."""
    return min(max(TRIAL_UPDATES * samples, TRIAL_SAMPLES), decisions.SAMPLES)


def _open(
    subject: Subject,
    attempt: int,
    samples: int,
    training: int | None,
    ranks: Ranks,
    *,
    steps: int,
    most: int,
) -> Contest:
    """Set up candidates of `steps` steps, measured on about `most` validation samples."""
    subject = subject.alone() if ranks.several else subject
    held_out, schedule = subject.held_out(most), subject.schedule(steps)
    return Contest(subject, attempt, steps, training, schedule, samples, held_out, ranks)


def run_trials(contest: Contest, places: Sequence[float], watch: Stopwatch) -> Iterator[TrialRow]:
    """Train at two rates, or at one more that lies outwards; yield a row for each update.

    Args:
        contest: kept up to date, so `judge` can be called at any time.
        places: log10 of the rates.
        watch: counts the updates.
    """
    contest.finished = False
    origins: list[RaceOrigin] = ["outward"] * len(places)
    if not contest.entries:
        origins[:2] = ["lower", "higher"]
    entries = [_enter(contest, *each) for each in zip(places, origins, strict=True)]
    for row in _train(contest, entries, contest.steps, watch):
        yield TrialRow(row.candidate, row.step, row.lr, row.loss)
    contest.finished = True


def run_full_trial(contest: Contest, place: float, watch: Stopwatch) -> Iterator[FullTrialRow]:
    """Train once at a rate, as long as the real training; yield a row for each update.

    Args:
        contest: kept up to date, so `judge_full_trial` can be called at any time.
        place: log10 of the rate.
        watch: counts the updates.
    """
    entry = _enter(contest, place, "suggestion")
    for steps in full_trial.moments(contest.steps):
        last = steps == contest.steps
        for row in _train(contest, [entry], steps, watch, half=not last):
            yield FullTrialRow(row.step, row.lr, row.loss)
        measurement = entry.final if last else entry.half
        assert measurement is not None, "a candidate is measured where it pauses"
        contest.measured.append((steps, measurement))
    contest.finished = True


def run_race(
    contest: Contest, centre: float, prior: float | None, watch: Stopwatch
) -> Iterator[RaceRow]:
    """Race candidates around a rate; yield a row for each of their updates.

    Args:
        contest: kept up to date, so `judge` can be called at any time.
        centre: log10 of the estimated best rate of the whole training.
        prior: log10 of the optimizer's usual rate; None: unknown.
        watch: counts the updates.
    """
    shorter = decisions.lengthening(contest.training, contest.steps)
    first = decisions.candidates(centre - shorter, prior)
    yield from _heat(contest, [_enter(contest, *each) for each in first], watch)
    more = decisions.outward([e.log_lr for e in contest.entries], _finals(contest))
    if more is not None:
        yield from _heat(contest, [_enter(contest, *more)], watch)
    contest.finished = True


def _enter(contest: Contest, log_lr: float, origin: RaceOrigin) -> Entry:
    """Add a candidate. All start from the same weights and random states."""
    if not contest.entries:
        _measure_untrained(contest)
    entry = Entry(log_lr, origin, _runner(contest, log_lr))
    contest.entries.append(entry)
    return entry


def _runner(contest: Contest, log_lr: float) -> Runner:
    number = len(contest.entries)
    return Runner(contest.subject, contest.attempt, number, 10.0**log_lr, contest.schedule)


def _measure_untrained(contest: Contest) -> None:
    """Measure the loss before any update, with a model that is thrown away."""
    runner = _runner(contest, 0.0)
    runner.begin()
    contest.random = runner.random
    if contest.held_out is not None:
        trainee, subject = runner.ready(), contest.subject
        set_mode(trainee.optimizer, training=False)  # the next step sets it back
        whole = partial(subject.held_out, sum(map(samples_in, contest.held_out)), whole=True)
        contest.held_out = usable(
            trainee.model, trainee.loss_fn, subject.runtime, contest.held_out, whole
        )
        contest.before = contest.ranks.from_first(_measure(contest, runner))
        untrained, cost = contest.before.mean, contest.before.cost
    else:
        untrained, cost = untrained_loss(runner, contest.steps)
    contest.untrained = contest.ranks.from_first(untrained)
    contest.evaluation_cost = cost


def _heat(contest: Contest, entries: Sequence[Entry], watch: Stopwatch) -> Iterator[RaceRow]:
    """Train candidates half-way, drop the bad ones, and train the others to the end."""
    yield from _train(contest, entries, max(1, contest.steps // 2), watch, half=True)
    _drop(contest, entries)
    rest = [entry for entry in entries if entry.outcome is None]
    yield from _train(contest, rest, contest.steps, watch)


def _train(
    contest: Contest,
    entries: Sequence[Entry],
    steps: int,
    watch: Stopwatch,
    *,
    half: bool = False,
) -> Iterator[RaceRow]:
    """Train candidates up to so many updates, and measure them half-way or at their end.

    They train one after another, or one on each rank. All ranks yield the same rows, and know the
    same of all candidates.
    """
    own = (
        turn
        for entry in entries
        if contest.is_own(entry)
        for turn in _turns(contest, entry, steps, half=half)
    )
    for turns in side_by_side(contest.ranks, own):
        watch.add([turn.spent for turn in turns])
        for turn in turns:
            _note(contest, contest.entries[turn.number], turn, half=half)
        for turn in turns:
            lr = contest.entries[turn.number].runner.lr
            for row in turn.rows:
                yield RaceRow(turn.number, row.step, lr, row.loss)


def _turns(contest: Contest, entry: Entry, steps: int, *, half: bool) -> Iterator[Turn]:
    """Train one candidate and measure it; then let it rest half-way, or free its model."""
    runner, watch = entry.runner, Stopwatch()
    for rows in watch.timed(advance(runner, steps, watch)):
        yield Turn(runner.number, rows, None, watch.lap())
    measurement = _measure(contest, runner)
    if half:
        runner.rest()
    else:
        runner.end()
    yield Turn(runner.number, (), measurement, watch.lap())


def _note(contest: Contest, entry: Entry, turn: Turn, *, half: bool) -> None:
    """Keep what a candidate did, on this rank or another."""
    if not contest.is_own(entry):
        entry.runner.rows += turn.rows
    if turn.measurement is None:
        return
    contest.evaluation_cost += turn.measurement.cost
    if half:
        entry.half = turn.measurement
        return
    entry.final = turn.measurement
    if decisions.diverged([entry.final.mean], contest.untrained)[0]:
        entry.outcome = "diverged"


def _measure(contest: Contest, runner: Runner) -> Measurement:
    """Measure a candidate on the held-out batches, or by its last training losses."""
    cost = 0.0
    if contest.held_out is None:
        losses, sizes, samples = last_losses(runner)
    else:
        samples = sum(map(samples_in, contest.held_out))
        trainee = runner.ready()
        reduction = reduction_of(trainee.loss_fn, trainee.model)
        denominators = to_numbers([reduction.denominator(batch) for batch in contest.held_out])
        each: list[float | None] = [nan] * len(denominators)
        if not runner.broken:
            each = held_out_losses(runner, contest.held_out, contest.random)
            cost = contest.cost_of_evaluation()
        counted = [
            (loss, size, samples_in(batch))
            for loss, size, batch in zip(each, denominators, contest.held_out, strict=True)
            if size != 0 and loss is not None
        ]
        if not counted:
            raise reduction.no_targets("the validation data")
        # Sums are added. So that chunks of other sizes can be told apart by more than these, each
        # counts as if all samples were like its own.
        whole = sum(own for *_, own in counted)
        losses = [loss if size else loss * whole / own for loss, size, own in counted]
        sizes = [float(size or own) for _, size, own in counted]
    return Measurement(np.array(losses), np.array(sizes), samples, cost)


def _drop(contest: Contest, entries: Sequence[Entry]) -> None:
    """Take candidates that are diverged or clearly worse half-way out, and free their models."""
    halves = [entry.half.mean if entry.half else nan for entry in contest.entries]
    survives = decisions.survivors(halves, contest.untrained)
    diverged = decisions.diverged(halves, contest.untrained)
    for entry in entries:
        number = entry.runner.number
        if not survives[number]:
            entry.outcome = "diverged" if diverged[number] else "dropped"
            entry.runner.end()


def _finals(contest: Contest) -> list[float]:
    """Return the final loss of each candidate; NaN for those that are out."""
    return [
        entry.final.mean if entry.final is not None and entry.outcome is None else nan
        for entry in contest.entries
    ]


def judge(contest: Contest) -> tuple[Race, Choice] | None:
    """Choose a rate by the measurements so far; return the race's record and the choice.

    None if the race ended before its first candidate.
    """
    if not contest.entries:
        return None
    measurements, half_way = _comparable(contest)
    present = [each for each in measurements if each is not None]
    sizes = present[0].sizes if present else np.ones(1)
    out = np.full(sizes.shape, nan)
    choice = decisions.choose(
        [entry.log_lr for entry in contest.entries],
        np.array([out if each is None else each.losses for each in measurements]),
        sizes,
        interrupted=not contest.finished,
    )
    choice = decisions.lengthen(choice, contest.training, contest.steps)
    updates = sum(len(entry.runner.rows) for entry in contest.entries)
    race = Race(
        seed=contest.subject.seed(contest.attempt),
        steps=contest.steps,
        steps_spent=updates + contest.evaluation_cost,
        measure="training" if contest.held_out is None else "validation",
        examples=present[0].samples if present else 0,
        untrained_loss=contest.untrained,
        candidates=tuple(
            _record(
                contest,
                entry,
                float(error),
                best=entry.runner.number == choice.best,
                half_way=half_way,
            )
            for entry, error in zip(contest.entries, choice.errors, strict=True)
        ),
        interrupted=not contest.finished,
    )
    return race, choice


def judge_full_trial(contest: Contest) -> FullTrial | None:
    """Return the record of a full trial so far; None if it ended before it was measured."""
    if not contest.measured:
        return None
    (entry,), (_, first) = contest.entries, contest.measured[0]
    factors = [contest.schedule.factor(step, 0) for step in range(contest.steps)]
    return FullTrial(
        seed=contest.subject.seed(contest.attempt),
        lr=10.0**entry.log_lr,
        steps=contest.steps,
        steps_spent=len(entry.runner.rows) + contest.evaluation_cost,
        examples=first.samples,
        untrained_loss=contest.untrained,
        step=tuple(steps for steps, _ in contest.measured),
        share=tuple(fsum(factors[:steps]) / fsum(factors) for steps, _ in contest.measured),
        validation=tuple(measurement.mean for _, measurement in contest.measured),
        loss=tuple(row.loss for row in entry.runner.rows),
        interrupted=not contest.finished,
    )


def _comparable(contest: Contest) -> tuple[list[Measurement | None], bool]:
    """Return each candidate's final loss; if some are missing, each one's half-way; or none.

    A candidate that is out has none, nor has the outward one before its end. The second value tells
    whether they are those half-way.
    """
    entries = contest.entries
    remaining = [entry for entry in entries if entry.outcome is None]
    if all(entry.final for entry in remaining if entry.origin != "outward"):
        return [entry.final if entry.outcome is None else None for entry in entries], False
    if all(entry.half for entry in entries):
        return [entry.half if entry.outcome is None else None for entry in entries], True
    return [None] * len(entries), False


def _record(
    contest: Contest, entry: Entry, error: float, *, best: bool, half_way: bool
) -> Candidate:
    """Return the record of a candidate; where they are compared half-way, none has won or lost."""
    outcome = entry.outcome
    if outcome is None:
        ended = entry.final is not None and not half_way
        outcome = "unfinished" if not ended else "won" if best else "lost"
    return Candidate(
        lr=10.0**entry.log_lr,
        origin=entry.origin,
        loss=tuple(row.loss for row in entry.runner.rows),
        half_loss=None if entry.half is None else entry.half.mean,
        final_loss=None if entry.final is None else entry.final.mean,
        standard_error=error if isfinite(error) else None,
        outcome=outcome,
        descent_error=_descent_error(contest.before, entry.final),
    )


def _descent_error(before: Measurement | None, after: Measurement | None) -> float | None:
    """Return the standard error of a loss's descent, by pairs of its chunks; None: not known."""
    if before is None or after is None or not np.array_equal(before.sizes, after.sizes):
        return None
    if before.sizes.size < trials.LEAST_CHUNKS:
        return None
    error = decisions.standard_error(before.losses - after.losses, before.sizes)
    return error if isfinite(error) else None
