"""What each command does with a configuration, from top to bottom."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from math import isfinite, log10
from typing import TYPE_CHECKING, Any

from lrtool import __version__
from lrtool.components import optimizers
from lrtool.config import document as documents
from lrtool.config.spelling import number
from lrtool.curve.race import averaged, settled, too_expensive, unraced, usual_rate
from lrtool.curve.suggest import suggest
from lrtool.engine import device as runtimes
from lrtool.engine.first_update import first_update
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.errors import InterruptedRunError, LrtoolWarning
from lrtool.experiment.experiment import (
    Task,
    build,
    probe_of,
    repeat_seed,
    resolved,
    rewound,
    step_of,
    training_steps,
    updates,
)
from lrtool.experiment.failures import concluded
from lrtool.report import files
from lrtool.report import report as reports
from lrtool.report.records import RaceRow, SweepRow, TrialRow
from lrtool.search import racing
from lrtool.show.plots import find as plot

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from lrtool.experiment.preflight import FirstBatch
    from lrtool.report.records import Finding, FirstUpdate, Race, Sweep
    from lrtool.report.report import Report, Status
    from lrtool.search.racing import Contest


Row = SweepRow | RaceRow | TrialRow


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        sweeps: with their raw losses.
        update: what the first update told; None if the search ended before.
        finding: the suggestion: that of the race, if there was one.
        tried: two short trainings beside the estimate; None without them.
        race: None without one.
        timing: the report's.
    """

    sweeps: tuple[Sweep, ...]
    update: FirstUpdate | None
    finding: Finding
    tried: Race | None
    race: Race | None
    timing: dict[str, Any]


@dataclass(slots=True)
class _Search:
    """A search under way, which can be concluded whenever it rests."""

    task: Task
    first: FirstBatch
    watch: Stopwatch
    update: FirstUpdate | None = None
    rows: list[SweepRow] = field(default_factory=list)
    swept: Finding | None = None
    trials: Contest | None = None
    contest: Contest | None = None


def search(task: Task, first: FirstBatch) -> Generator[Row, None, Found]:
    """Sweep, suggest, and race where the configuration asks for it; leave no file.

    Yields each update, returns what was found.
    """
    search = _Search(task, first, Stopwatch(task.started))
    yield from _rows(search)
    return _found(search)


def find(task: Task, first: FirstBatch, directory: Path) -> Generator[Row | Report]:
    """Search for a rate: yields each row, and the report last.

    Whoever pulls may throw `InterruptedRunError` into it: the search ends there, and the report of
    what there is follows. Everything is in `directory` when the report is yielded.

    Raises:
        UserError, OutOfMemoryError: from a step; a report with status `failed` has been written.
    """
    files.write_text(directory / "config.yaml", documents.dump(resolved(task)))
    search = _Search(task, first, Stopwatch(task.started))

    def conclude(status: Status | None, reason: str | None = None) -> Report:
        report = _report(search, status=status, reason=reason)
        reports.write(report, directory)
        plot.save(report, directory)
        if status == "failed" and report.suggestion and report.suggestion.lr:
            warnings.warn(_left_over(search, report.suggestion.lr), LrtoolWarning, stacklevel=2)
        return report

    try:
        with (directory / "metrics.jsonl").open("w", buffering=1) as log:
            for row in _rows(search):
                log.write(json.dumps(_finite(asdict(row))) + "\n")
                yield row
    except InterruptedRunError as stop:
        yield conclude("interrupted", str(stop))
        return
    except GeneratorExit:
        conclude("interrupted", "closed before the last step")
        raise
    except (Exception, SystemExit) as error:
        raise concluded(task, error, partial(conclude, "failed")) from error
    yield conclude(None)


def _rows(search: _Search) -> Iterator[Row]:
    """Sweep, try two rates, and race where that is wanted; keep in `search` what there is."""
    task, first = search.task, search.first
    race = racing.open_race(task) if wants_race(task) else None  # what it lacks shows here
    trials = racing.open_trials(task)
    search.update = _first_update(task, search.watch)
    for row in _sweeps(task, search.watch):
        search.rows.append(row)
        yield row
    finding = search.swept = _suggest(search, None)
    if search.swept.trials is not None:
        search.trials = trials
        yield from racing.tried(trials, search.swept.trials, search.watch)
        finding = _suggest(search, racing.judged(trials)[0])
    if race is not None and finding.centre is not None:
        search.contest = race
        prior = usual_rate(first.optimizer)
        yield from racing.race(race, log10(finding.centre), prior, search.watch)


def _first_update(task: Task, watch: Stopwatch) -> FirstUpdate:
    """Make the first update of the first sweep with a throwaway model, and measure it."""
    built = build(task, task.config.seed)
    step = watch.counted(step_of(task, built, task.runtime.scaler()))
    batches = next(updates(task, task.config.seed))
    update = first_update(step, built.model, built.loss_fn, batches, task.runtime)
    return replace(update, opening=optimizers.opening(built.optimizer))


def wants_race(task: Task) -> bool:
    """Tell whether a suggestion is to be raced: asked for, or affordable."""
    verify = task.config.find.verify
    return verify is True or (verify == "auto" and _too_expensive(task) is None)


def _too_expensive(task: Task) -> str | None:
    return too_expensive(training_steps(task), racing.measuring(task))


def _sweeps(task: Task, watch: Stopwatch) -> Iterator[SweepRow]:
    """Yield the rows of all repeats, each with weights and data order from a seed of its own."""
    find, runtime = task.config.find, task.runtime
    rates = sweep_rates(find.start, find.end, find.steps, find.mode)
    rewound(task)
    for repeat in range(find.repeats):
        seed = repeat_seed(task.config.seed, repeat)
        built = build(task, seed)
        probe = probe_of(task, built) if find.loss == "probe" else None
        step = watch.counted(step_of(task, built, runtime.scaler()))
        rows = sweep(step, updates(task, seed), rates, repeat=repeat, probe=probe)
        yield from watch.timed(rows)
        runtimes.synchronize(runtime.device)


def _to_sweeps(search: _Search) -> tuple[Sweep, ...]:
    config = search.task.config
    return tuple(
        to_sweep(list(group), seed=repeat_seed(config.seed, repeat), planned=config.find.steps)
        for repeat, group in groupby(search.rows, key=lambda row: row.repeat)
    )


def _suggest(search: _Search, tried: Race | None) -> Finding:
    """Make a suggestion of what there is."""
    task, first = search.task, search.first
    return suggest(
        _to_sweeps(search),
        first=search.update,
        tried=tried,
        method=task.config.find.method,
        optimizer=first.optimizer,
        family=first.family,
        schedule=task.config.train.schedule.name,
        steps=training_steps(task),
    )


def _found(search: _Search) -> Found:
    """Conclude from what there is."""
    tried = race = None
    if search.trials is not None:
        tried = racing.judged(search.trials)[0]
    finding = _suggest(search, tried)
    if search.swept is not None:
        named = {**finding.suggestions, "sweep": search.swept.suggestions["auto"]}
        finding = replace(finding, suggestions=named)
    if search.contest is not None:
        race, choice = racing.judged(search.contest)
        assert finding.centre, "a race stands around an estimate"
        finding = settled(finding, averaged(choice, log10(finding.centre), race), race)
    elif search.swept is not None and (why := _why_no_race(search.task, finding)):
        finding = unraced(finding, why)
    return Found(
        sweeps=_to_sweeps(search),
        update=search.update,
        finding=finding,
        tried=tried,
        race=race,
        timing=search.watch.timing(),
    )


def _why_no_race(task: Task, finding: Finding) -> str | None:
    """Say why there is no race, if one was wanted."""
    if task.config.find.verify is False:
        return None
    if not wants_race(task):
        return _too_expensive(task)
    return "there is no suggestion to race around" if finding.centre is None else None


def _report(search: _Search, *, status: Status | None, reason: str | None) -> Report:
    """Put together what there is; without a status, the suggestion decides it.

    A sweep that failed says nothing; what failed after it leaves what it said.
    """
    finding = race = tried = None
    if status != "failed" or search.swept is not None:
        found = _found(search)
        finding, race, tried = found.finding, found.race, found.tried
        none = finding.suggestion.lr is None
        status = status or ("no_suggestion" if none else "completed")
        if status == "interrupted" and reason and race and race.interrupted:
            reason = f"{reason} during the race. {_so_far(finding)}"
    return reports.from_finding(
        finding,
        _to_sweeps(search),
        update=search.update,
        trials=tried,
        race=race,
        status=status,
        reason=reason,
        timing=reports.Timing(**search.watch.timing()),
        **facts(search.task, search.first),
    )


def _left_over(search: _Search, lr: float) -> str:
    """Say what a search leaves that failed after its sweeps."""
    where = "short training runs" if search.contest is None else "race (--no-verify leaves it out)"
    return f"the search failed in its {where}; the rate found so far, {number(lr, 2)}, is reported"


def _so_far(finding: Finding) -> str:
    """Say what an interrupted race leaves."""
    if finding.suggestions["race"].lr is None:
        return "Nothing was compared yet: the rate is that before the race."
    return finding.suggestion.reason


def facts(task: Task, first: FirstBatch) -> dict[str, Any]:
    """Return what the reports of all commands say alike: what was computed, and where."""
    config, data = task.config, task.data
    return {
        "config": resolved(task),
        "config_hash": config.digest(),
        "seed": config.seed,
        "data": reports.Data(
            samples={k: n for k, n in data.samples.items() if n is not None},
            shapes=data.shapes,
            hash=data.digest,
        ),
        "model": reports.Model(
            name=config.model.name, parameters=first.parameters, trainable=first.trainable
        ),
        "environment": reports.Environment(
            lrtool=__version__, **runtimes.environment(task.runtime.device)
        ),
    }


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: null, and the sweep's stop_reason says which it was."""
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}
