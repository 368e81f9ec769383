"""What a find does, from the first update to the race: the one place that knows the order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from math import log10
from typing import TYPE_CHECKING, Any, Literal

from lrtool.components import optimizers
from lrtool.components.schedules import SCHEDULES
from lrtool.curve import race as decisions
from lrtool.curve import trials
from lrtool.curve.race import average, conclude, too_expensive, usual_rate, without_race
from lrtool.curve.suggest import suggest
from lrtool.engine.device import synchronize
from lrtool.engine.first_update import first_update
from lrtool.engine.step import samples_in
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.errors import InterruptedRunError
from lrtool.report.records import RaceRow, SweepRow, TrialRow
from lrtool.search.race import Contest, judge, open_race, open_trials, run_race, run_trials
from lrtool.search.subject import updates

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.report.records import Finding, FirstUpdate, Race, Sweep
    from lrtool.search.subject import Subject

Row = SweepRow | TrialRow | RaceRow


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What is asked of a search.

    Attributes:
        start: first rate of a sweep.
        end: its last rate.
        steps: updates of a sweep.
        mode: "exponential" or "linear" distances between its rates.
        repeats: sweeps, each another attempt.
        method: "auto", or a rule of the literature.
        verify: whether to race; "auto": where that is a small part of the training.
        schedule: name of the schedule that the rate is meant for.
        training: steps of the training that it is meant for; None: not known.
    """

    start: float
    end: float
    steps: int
    mode: str
    repeats: int
    method: str
    verify: bool | str
    schedule: str
    training: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found, however it ended.

    Attributes:
        sweeps: with their raw losses.
        first_update: what the first update told; None if the search ended before.
        finding: the suggestion: that of the race, if there was one; None if the search failed
            before its sweeps had all been made.
        trials: two short trainings beside the estimate; None without them.
        race: None without one.
        timing: the report's.
        interrupted: why it was asked to stop; None: it was not.
        failure: what ended it; None: nothing did.
    """

    sweeps: tuple[Sweep, ...]
    first_update: FirstUpdate | None
    finding: Finding | None
    trials: Race | None
    race: Race | None
    timing: dict[str, Any]
    interrupted: str | None = None
    failure: Exception | SystemExit | None = None


@dataclass(slots=True)
class _Search:
    """A search under way, which can be concluded whenever it rests."""

    subject: Subject
    plan: SearchPlan
    watch: Stopwatch
    optimizer: str | None = None
    family: Literal["adaptive", "proportional"] | None = None
    first_update: FirstUpdate | None = None
    rows: list[SweepRow] = field(default_factory=list)
    swept: Finding | None = None
    trials: Contest | None = None
    race: Contest | None = None
    no_race: str | None = None


def search(subject: Subject, plan: SearchPlan, watch: Stopwatch) -> Generator[Row, None, Found]:
    """Search for a rate: yield a row for each update, return what was found.

    Whoever pulls may throw `InterruptedRunError` into it: the search ends there. What an exception
    has ended returns too, with what had been found until then.
    """
    state = _Search(subject, plan, watch)
    interrupted, failure = None, None
    try:
        yield from _rows(state)
    except InterruptedRunError as stop:
        interrupted = str(stop)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whoever asked decides what it means)
        failure = error
    return _found(state, interrupted, failure)


def _rows(state: _Search) -> Iterator[Row]:
    """Sweep, try two rates, and race where that is wanted; keep in `state` what there is."""
    plan = state.plan
    for steps in {trials.length(plan.training), candidate_steps(plan)}:
        state.subject.schedule(steps)  # what it lacks shows before anything is trained
    samples = _first_update(state)
    for repeat in range(plan.repeats):
        for row in _sweep(state, repeat):
            state.rows.append(row)
            yield row
    finding = state.swept = _suggest(state, None)
    if finding.trial_rates is not None:
        state.trials = open_trials(state.subject, plan.repeats, samples, plan.training)
        yield from run_trials(state.trials, finding.trial_rates, state.watch)
        finding = _suggest(state, _trials_of(state))
    contest = _open_race(state, samples)
    if contest is None:
        return
    if finding.centre is None:
        state.no_race = "there is no suggestion to race around"
        return
    state.race = contest
    yield from run_race(contest, log10(finding.centre), usual_rate(state.optimizer), state.watch)


def candidate_steps(plan: SearchPlan) -> int:
    """Return how many updates a candidate of the race makes, or a trial where there is no race."""
    raced = plan.verify is True or (plan.verify and too_expensive(plan.training, 0.0) is None)
    return decisions.length(plan.training) if raced else trials.length(plan.training)


def _first_update(state: _Search) -> int:
    """Make the first update of the first sweep and measure it; return its samples."""
    subject = state.subject
    trainee = subject.fresh(0)
    step = state.watch.counted(trainee.step)
    batches = next(updates(subject, 0))
    update = first_update(step, trainee.model, trainee.loss_fn, batches, subject.runtime)
    optimizer = trainee.optimizer
    state.first_update = replace(update, opening=optimizers.opening(optimizer))
    state.optimizer, state.family = optimizers.kind(optimizer), optimizers.family(optimizer)
    return sum(map(samples_in, batches))


def _sweep(state: _Search, repeat: int) -> Iterator[SweepRow]:
    """Yield the rows of one sweep, with weights and data order of its own."""
    subject, plan, watch = state.subject, state.plan, state.watch
    rates = sweep_rates(plan.start, plan.end, plan.steps, plan.mode)
    trainee = subject.fresh(repeat)
    probe = subject.probe(trainee)
    step, batches = watch.counted(trainee.step), updates(subject, repeat)
    yield from watch.timed(sweep(step, batches, rates, repeat=repeat, probe=probe))
    synchronize(subject.runtime.device)


def _open_race(state: _Search, samples: int) -> Contest | None:
    """Return the race to run; None where there is none, with the reason in `state`."""
    verify, training = state.plan.verify, state.plan.training
    if verify is False:
        return None
    if verify == "auto":
        state.no_race = too_expensive(training, 0.0)
        if state.no_race is not None:
            return None
    contest = open_race(state.subject, state.plan.repeats + 1, samples, training)
    if verify == "auto":
        state.no_race = too_expensive(training, contest.evaluation())
    return None if state.no_race else contest


def _to_sweeps(state: _Search) -> tuple[Sweep, ...]:
    return tuple(
        to_sweep(list(group), seed=state.subject.seed(repeat), planned=state.plan.steps)
        for repeat, group in groupby(state.rows, key=lambda row: row.repeat)
    )


def _trials_of(state: _Search) -> Race | None:
    judged = None if state.trials is None else judge(state.trials)
    return None if judged is None else judged[0]


def _suggest(state: _Search, tried: Race | None) -> Finding:
    """Make a suggestion of what there is."""
    return suggest(
        _to_sweeps(state),
        first=state.first_update,
        trials=tried,
        method=state.plan.method,
        optimizer=state.optimizer,
        family=state.family,
        schedule=state.plan.schedule,
        like=SCHEDULES[state.plan.schedule].like,
        steps=state.plan.training,
    )


def _found(
    state: _Search, interrupted: str | None, failure: Exception | SystemExit | None
) -> Found:
    """Conclude from what there is: all of it, but nothing from sweeps that failed."""
    finding, tried, race = None, _trials_of(state), None
    if state.rows and (failure is None or state.swept is not None):
        finding = _suggest(state, tried)
    if finding is not None and state.swept is not None:
        named = {**finding.suggestions, "sweep": state.swept.suggestions["auto"]}
        finding = replace(finding, suggestions=named)
        raced = None if state.race is None else judge(state.race)
        if raced is not None:
            race, choice = raced
            assert finding.centre, "a race stands around an estimate"
            finding = conclude(finding, average(choice, log10(finding.centre), race), race)
        elif state.no_race is not None:
            finding = without_race(finding, state.no_race)
    return Found(
        sweeps=_to_sweeps(state),
        first_update=state.first_update,
        finding=finding,
        trials=tried,
        race=race,
        timing=state.watch.timing(),
        interrupted=interrupted,
        failure=failure,
    )
