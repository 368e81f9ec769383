"""A search from the first update to the race: the one place that knows the order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from math import fsum, log10
from typing import TYPE_CHECKING, Any, Literal

from lrtool.components import optimizers
from lrtool.curve.combine import knowledge
from lrtool.curve.constants import fitted
from lrtool.curve.race import average, conclude, too_expensive, usual_rate, without_race
from lrtool.curve.suggest import suggest
from lrtool.curve.verdict import UNKNOWN_OPTIMIZER, unusual_length
from lrtool.engine import rate_effect
from lrtool.engine.denominator import reduction_of
from lrtool.engine.device import synchronize
from lrtool.engine.first_update import first_update
from lrtool.engine.lightning import placed
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.errors import InterruptedRunError, UserError, cause_of
from lrtool.ranks import ALONE
from lrtool.report.records import FullTrialRow, RaceRow, SweepRow, TrialRow
from lrtool.search.candidates import (
    Contest,
    judge,
    judge_full_trial,
    open_full_trial,
    open_race,
    open_trials,
    run_full_trial,
    run_race,
    run_trials,
)
from lrtool.search.subject import updates

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import torch

    from lrtool.curve.verdict import Doubt
    from lrtool.engine.step import Step
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.ranks import Ranks
    from lrtool.report.records import Finding, FirstUpdate, FullTrial, Race, Sweep
    from lrtool.search.subject import Subject, Trainee

Row = SweepRow | TrialRow | FullTrialRow | RaceRow
Parallel = Literal["data", "candidates"]
Stage = Literal["first update", "sweep", "trials", "full trial", "race"]


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The settings of a search.

    Attributes:
        start: first rate of a sweep.
        end: last rate of a sweep.
        steps: updates of a sweep.
        mode: "exponential" or "linear" spacing of the rates.
        repeats: number of sweeps.
        method: "auto", or a rule of the literature.
        verify: whether to race; "auto": if a race is cheap compared with the training.
        schedule: name of the schedule of the training.
        training: steps of the training that the rate is meant for; None: unknown.
        passes: how many times it sees each sample; None: unknown.
        parallel: what several ranks share: "data", each batch; or "candidates", one on each rank.
        followed: advice that the training follows already, as in `curve.verdict`.
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
    passes: float | None
    parallel: Parallel = "data"
    followed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search, however it ended.

    Attributes:
        sweeps: with their raw losses.
        first_update: None if the search ended before it.
        finding: the suggestion, after the race if there was one; None if the search failed
            before the end of its sweeps.
        trials: None without trials.
        full_trial: None without one.
        race: None without a race.
        timing: for the report.
        samples_per_update: over all ranks; None if the search ended before it knew.
        stage: the last one that it came to.
        interrupted: why it was asked to stop; None: it was not.
        failure: the exception that ended it; None: there was none.
    """

    sweeps: tuple[Sweep, ...]
    first_update: FirstUpdate | None
    finding: Finding | None
    trials: Race | None
    full_trial: FullTrial | None
    race: Race | None
    timing: dict[str, Any]
    samples_per_update: int | None
    stage: Stage
    interrupted: str | None
    failure: Exception | SystemExit | None


@dataclass(slots=True)
class _SearchState:
    """A search under way; `_result` can be called after any row."""

    subject: Subject
    plan: SearchPlan
    watch: Stopwatch
    stage: Stage = "first update"
    samples_per_update: int | None = None
    optimizer: str | None = None
    family: Literal["adaptive", "proportional"] | None = None
    level: float = 1.0
    first_update: FirstUpdate | None = None
    rows: list[SweepRow] = field(default_factory=list)
    sweep_finding: Finding | None = None
    trials: Contest | None = None
    full_trial: Contest | None = None
    race: Contest | None = None
    no_race: str | None = None


def search(
    subject: Subject, plan: SearchPlan, watch: Stopwatch
) -> Generator[Row, None, SearchResult]:
    """Search for a learning rate: yield a row for each update, return the result.

    The caller may throw `InterruptedRunError` into it to end the search. An exception does not
    leave it either: it is part of the result, beside all that came before.
    """
    state = _SearchState(subject, plan, watch)
    interrupted, failure = None, None
    try:
        yield from _rows(state)
    except InterruptedRunError as stop:
        interrupted = str(stop)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the caller decides what it means)
        failure = cause_of(error)
    return _result(state, interrupted, failure)


def run_search(subject: Subject, plan: SearchPlan, watch: Stopwatch) -> SearchResult:
    """Search to the end, without showing anything."""
    rows = search(subject, plan, watch)
    while True:
        try:
            next(rows)
        except StopIteration as end:
            result: SearchResult = end.value
            return result


def _rows(state: _SearchState) -> Iterator[Row]:
    """Make the sweeps, the trials and the race, and keep their results in `state`."""
    subject, plan, watch = state.subject, state.plan, state.watch

    # A schedule that cannot be built, or validation data that cannot be read, fails here, before
    # anything is trained.
    samples = state.samples_per_update = subject.samples()
    trials = open_trials(subject, plan.repeats, samples, plan.training, _ranks(state))
    state.level = _level(trials)
    race = _open_race(state, samples)

    # The first update, then the sweeps, give an estimate of the rate.
    _first_update(state)
    state.stage = "sweep"
    for repeat in range(plan.repeats):
        for row in _sweep(state, repeat):
            state.rows.append(row)
            yield row
    finding = state.sweep_finding = _suggest(state)

    # Two short trainings, at a lower and at a higher rate, correct the estimate; where one of them
    # wins outright, another one goes on in that direction.
    while finding.trial_rates is not None:
        state.stage, state.trials = "trials", trials
        yield from run_trials(trials, [log10(lr) for lr in finding.trial_rates], watch)
        finding = _suggest(state)

    # Where they may mislead, one training as long as the real one shows when overfitting begins.
    if finding.full_trial_rate is not None:
        assert plan.training is not None, "only a training with an end is tried as a whole"
        attempt, ranks = plan.repeats + 2, _ranks(state)
        state.stage = "full trial"
        state.full_trial = open_full_trial(subject, attempt, samples, plan.training, ranks)
        yield from run_full_trial(state.full_trial, log10(finding.full_trial_rate), watch)
        finding = _suggest(state)

    # A race around the estimate confirms or corrects it.
    if race is None:
        return
    if finding.centre is None:
        state.no_race = "there is no suggestion to race around"
        return
    state.stage, state.race = "race", race
    yield from run_race(race, log10(finding.centre), usual_rate(state.optimizer), watch)


def _ranks(state: _SearchState) -> Ranks:
    """Return the ranks that train a candidate each; one alone where each of them trains all."""
    return state.subject.runtime.ranks if state.plan.parallel == "candidates" else ALONE


def _level(trials: Contest) -> float:
    """Return the mean of the schedule, as a share of its base rate.

    Of a training without an end only the warm-up might be seen: it counts as constant.
    """
    if not trials.subject.has_end:
        return 1.0
    return fsum(trials.schedule.factor(step, 0) for step in range(trials.steps)) / trials.steps


def _first_update(state: _SearchState) -> None:
    """Make the first update of the first sweep and measure it."""
    subject = state.subject
    _refuse_ignored_rate(subject)
    trainee = subject.fresh(0)
    step = state.watch.counted(trainee.step)
    batches = _first_with_targets(subject, trainee)
    optimizer = trainee.optimizer
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    update = first_update(
        step, trainee.model, trainee.loss_fn, batches, subject.runtime, optimized=optimized
    )
    state.first_update = replace(update, opening=optimizers.opening(optimizer))
    state.optimizer, state.family = optimizers.kind(optimizer), optimizers.family(optimizer)


def _first_with_targets(subject: Subject, trainee: Trainee) -> Sequence[Any]:
    """Return the batches of the first update that has a target which is not ignored.

    Raises:
        DataError: there is none in the first epoch.
    """
    reduction = reduction_of(trainee.loss_fn, trainee.model)
    for group in placed(trainee.model, subject.batches(0, 0, 0), step=0, epoch=0):
        counts = bool(reduction.of_group(group) != 0)
        if subject.runtime.ranks.any(flag=counts):
            return group
    raise reduction.no_targets("the first epoch")


def _refuse_ignored_rate(subject: Subject) -> None:
    """Refuse an optimizer whose updates do not depend on the rate.

    Raises:
        UserError: they do not.
    """
    trainee = subject.fresh(0)
    if optimizers.is_known(trainee.optimizer):
        return
    batches = next(updates(subject, 0, trainee.model))

    def fresh() -> tuple[torch.optim.Optimizer, Step]:
        again = subject.fresh(0)
        return again.optimizer, again.step

    if rate_effect.ignores_rate(fresh, batches):
        raise UserError(f"{rate_effect.words(trainee.optimizer)}; there is no rate to find")


def _sweep(state: _SearchState, repeat: int) -> Iterator[SweepRow]:
    """Yield the rows of one sweep."""
    subject, plan, watch = state.subject, state.plan, state.watch
    rates = sweep_rates(plan.start, plan.end, plan.steps, plan.mode)
    trainee = subject.fresh(repeat)
    probe = subject.probe(trainee)
    step, batches = watch.counted(trainee.step), updates(subject, repeat, trainee.model)
    ranks = subject.runtime.ranks
    rows = sweep(step, batches, rates, repeat=repeat, probe=probe, ranks=ranks)
    yield from watch.timed(rows)
    synchronize(subject.runtime.device)


def _open_race(state: _SearchState, samples: int) -> Contest | None:
    """Return the race to run; None for no race, with the reason in `state` if it is too long."""
    verify, training = state.plan.verify, state.plan.training
    if verify is False:
        return None
    if verify == "auto":
        state.no_race = too_expensive(training, 0.0)
        if state.no_race is not None:
            return None
    attempt = state.plan.repeats + 1
    contest = open_race(state.subject, attempt, samples, training, _ranks(state))
    if verify == "auto":
        state.no_race = too_expensive(training, contest.cost_of_evaluation())
    return None if state.no_race else contest


def _sweeps(state: _SearchState) -> tuple[Sweep, ...]:
    return tuple(
        to_sweep(list(group), seed=state.subject.seed(repeat), planned=state.plan.steps)
        for repeat, group in groupby(state.rows, key=lambda row: row.repeat)
    )


def _trials(state: _SearchState) -> Race | None:
    decision = None if state.trials is None else judge(state.trials)
    return None if decision is None else decision[0]


def _full_trial(state: _SearchState) -> FullTrial | None:
    return None if state.full_trial is None else judge_full_trial(state.full_trial)


def _suggest(state: _SearchState, *, failed: bool = False, cut_short: bool = False) -> Finding:
    """Suggest a rate from the sweeps and trials so far; `cut_short`: more were due."""
    finding = suggest(
        _sweeps(state),
        first=state.first_update,
        trials=_trials(state),
        full_trial=_full_trial(state),
        method=state.plan.method,
        optimizer=state.optimizer,
        family=state.family,
        schedule=state.plan.schedule,
        level=state.level,
        steps=state.plan.training,
        passes=state.plan.passes,
        cut_short=cut_short,
        followed=state.plan.followed,
    )
    if failed:  # nothing may be exchanged, as not all ranks may have
        return finding
    return state.subject.runtime.ranks.from_first(finding)  # machines may round differently


def _result(
    state: _SearchState, interrupted: str | None, failure: Exception | SystemExit | None
) -> SearchResult:
    """Make the result of all that there is."""
    try:
        finding, trials, race = _conclusion(state, failed=failure is not None)
    except Exception as error:  # noqa: BLE001  (what the sweeps have found must not be lost)
        finding, trials, race, failure = state.sweep_finding, None, None, failure or error
    return SearchResult(
        sweeps=_sweeps(state),
        first_update=state.first_update,
        finding=finding,
        trials=trials,
        full_trial=_full_trial(state),
        race=race,
        timing=state.watch.timing(),
        samples_per_update=state.samples_per_update,
        stage=state.stage,
        interrupted=interrupted,
        failure=failure,
    )


def _lasting(state: _SearchState, race: Race) -> list[Doubt]:
    """Return the doubts that a race leaves, unless it was the whole training."""
    training = state.plan.training
    if race.steps == training:
        return []
    doubts = [unusual_length(training)]
    if knowledge(state.optimizer, state.family, fitted())[0] != "optimizer":
        doubts.append(UNKNOWN_OPTIMIZER)
    return [doubt for doubt in doubts if doubt is not None]


def _conclusion(
    state: _SearchState, *, failed: bool
) -> tuple[Finding | None, Race | None, Race | None]:
    """Return the finding, the trials and the race. Sweeps that failed give no finding."""
    trials = _trials(state)
    if not state.rows or (failed and state.sweep_finding is None):
        return None, trials, None
    finding, race = _suggest(state, failed=failed), None
    if finding.trial_rates is not None or finding.full_trial_rate is not None:
        finding = _suggest(state, failed=failed, cut_short=True)
    if state.sweep_finding is not None:
        suggestions = {**finding.suggestions, "sweep": state.sweep_finding.suggestions["auto"]}
        finding = replace(finding, suggestions=suggestions)
        decision = None if state.race is None else judge(state.race)
        if decision is not None and failed and decision[0].interrupted:
            race, finding = decision[0], without_race(finding, "the race failed")
        elif decision is not None:
            race, choice = decision
            assert finding.centre, "a race stands around an estimate"
            choice = average(choice, log10(finding.centre), race)
            finding = conclude(finding, choice, race, _lasting(state, race))
        elif state.no_race is not None:
            finding = without_race(finding, state.no_race)
    return finding, trials, race
