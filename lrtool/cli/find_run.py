"""The run of a find: a search with its log, its report and its plots."""

from __future__ import annotations

import warnings
from functools import partial
from math import isfinite
from typing import IO, TYPE_CHECKING, Any

from lrtool.config import document as documents
from lrtool.config.spelling import number
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import InterruptedRunError, LrtoolWarning
from lrtool.experiment.experiment import facts, open_task, resolved, training_steps
from lrtool.experiment.failures import concluded
from lrtool.experiment.preflight import try_one_batch, try_training
from lrtool.report import files, metrics_log
from lrtool.report import report as reports
from lrtool.report.records import Timing
from lrtool.report.report import FindReport
from lrtool.report.run_directory import CONFIG, METRICS
from lrtool.search.experiment_subject import ExperimentSubject
from lrtool.search.search import SearchPlan, search
from lrtool.show.plots import find as plot

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Task
    from lrtool.experiment.preflight import FirstBatch
    from lrtool.report.records import Finding
    from lrtool.report.report import Status
    from lrtool.search.search import Found, Row


def plan_of(task: Task) -> SearchPlan:
    """Return what a configuration asks of a search."""
    find = task.config.find
    return SearchPlan(
        start=find.start,
        end=find.end,
        steps=find.steps,
        mode=find.mode,
        repeats=find.repeats,
        method=find.method,
        verify=find.verify,
        schedule=task.config.train.schedule.name,
        training=training_steps(task),
    )


def find(task: Task, first: FirstBatch, directory: Path) -> Generator[Row, None, FindReport]:
    """Search for a rate: yield each row, return the report.

    Everything is in `directory` when it returns, also after an interruption that was thrown in.

    Raises:
        UserError, OutOfMemoryError: from a step; a report with status `failed` has been written.
    """
    files.write_text(directory / CONFIG, documents.dump(resolved(task)))
    searching = search(ExperimentSubject(task), plan_of(task), Stopwatch(task.started))
    with metrics_log.reopen(directory / METRICS, 0) as log:
        found = yield from _logged(searching, log)
    if found.failure is None:
        return _conclude(task, first, found, directory)
    conclude = partial(_conclude, task, first, found, directory)
    raise concluded(task, found.failure, conclude) from found.failure


def _logged(searching: Generator[Row, None, Found], log: IO[bytes]) -> Generator[Row, None, Found]:
    """Write each row before it is shown."""
    interruption: Exception | None = None
    while True:
        try:
            row = next(searching) if interruption is None else searching.throw(interruption)
        except StopIteration as end:
            found: Found = end.value
            return found
        interruption = None
        metrics_log.append(log, [row])
        try:
            yield row
        except GeneratorExit:
            interruption = InterruptedRunError("closed before the last step")
        except Exception as error:  # noqa: BLE001  (the search answers it)
            interruption = error


def _conclude(
    task: Task,
    first: FirstBatch,
    found: Found,
    directory: Path,
    failure: str | None = None,
) -> FindReport:
    """Write the report of what there is, and its plots."""
    finding, reason = found.finding, failure
    nothing = finding is None or finding.suggestion.lr is None
    status: Status = "no_suggestion" if nothing else "completed"
    if failure is not None:
        status = "failed"
    if found.interrupted is not None:
        status, reason = "interrupted", found.interrupted
        if finding is not None and found.race is not None and found.race.interrupted:
            reason = f"{reason} during the race. {_so_far(finding)}"
    said = finding.suggestion if finding else None
    report = FindReport(
        status=status,
        reason=reason or (said.reason if said else None),
        suggestion=said,
        suggestions=finding.suggestions if finding else {},
        sweeps=found.sweeps,
        curve=finding.curve if finding else None,
        first_update=found.first_update,
        trials=found.trials,
        race=found.race,
        timing=Timing(**found.timing),
        **facts(task, first),
    )
    reports.write(report, directory)
    plot.save(report, directory)
    if status == "failed" and report.suggestion and report.suggestion.lr:
        warnings.warn(left_over(found, report.suggestion.lr), LrtoolWarning, stacklevel=2)
    return report


def left_over(found: Found, lr: float) -> str:
    """Say what a search leaves that failed after its sweeps."""
    where = "short training runs" if found.race is None else "race (--no-verify leaves it out)"
    return f"the search failed in its {where}; the rate found so far, {number(lr, 2)}, is reported"


def _so_far(finding: Finding) -> str:
    """Say what an interrupted race leaves."""
    if finding.suggestions["race"].lr is None:
        return "Nothing was compared yet: the rate is that before the race."
    return finding.suggestion.reason


def check(config: Config, document: Document) -> dict[str, Any]:
    """Build what the configuration names, send one batch through, and return the facts.

    Raises:
        UserError, OutOfMemoryError: something does not fit, in words.
    """
    task = open_task(config, document)
    first = try_one_batch(task)
    try_training(task)
    return {
        "config": document.name,
        "config_hash": config.digest(),
        "device": str(task.runtime.device),
        "samples": task.data.samples,
        "batch_size": task.data.batch_size,
        "inputs": first.inputs,
        "targets": first.targets,
        "outputs": first.outputs,
        "loss": first.loss if isfinite(first.loss) else None,
        "parameters": first.parameters,
        "trainable": first.trainable,
        "training_steps": training_steps(task),
    }
