"""A run at a glance: what `lrtool runs` shows of its report, and of one that has none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from lrtool.errors import UserError
from lrtool.report import marker, run_directory
from lrtool.report import report as reports
from lrtool.report.report import FILE_NAME, Status, TrainReport
from lrtool.report.runs import find_runs

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.report import AnyReport


@dataclass(frozen=True, slots=True)
class Summary:
    """A run at a glance.

    Attributes:
        run: its directory.
        command: that made it; None if not even that is known.
        status: of its report; or "running", "unfinished" (it was killed before it wrote one) or
            "damaged".
        report: the newest one; None if there is none, or it cannot be read.
        problem: what is wrong with the report; None if nothing is.
        time: when it ended, or was begun if it has not; None if that cannot be read.
    """

    run: Path
    command: str | None
    status: Status | Literal["running", "unfinished", "damaged"]
    report: AnyReport | None
    problem: str | None
    time: datetime | None


def summaries(folder: Path) -> list[Summary]:
    """Return all runs under a folder, the newest ones first."""
    found = [summarise(run) for run in find_runs(folder)]
    return sorted(found, key=lambda each: (each.time is not None, each.time), reverse=True)


def summarise(run: Path) -> Summary:
    """Look at a run, without changing anything in it."""
    path, report, problem = run / FILE_NAME, None, None
    found = marker.read(run)
    begun = found is not None and found.files is None
    running = begun and run_directory.is_in_use(run)
    status: Status | Literal["running", "unfinished", "damaged"]
    if path.exists():
        try:
            report = reports.read(path)
            status = report.status
            if _has_changed(run):
                problem = f"{path}: changed since the run ended"
        except UserError as error:
            status, problem = "damaged", str(error)
    elif begun:
        status = "unfinished"
    else:
        status, problem = "damaged", f"{run}: holds no {FILE_NAME}"
    if running:
        status = "running"
    time = _time_of(run / marker.MARKER if running or report is None else path)
    command = found.command if found else report.command if report else marker.command_of(run)
    return Summary(run, command, status, report, problem, time)


def _has_changed(run: Path) -> bool:
    try:
        return FILE_NAME in marker.changed(run)
    except OSError:
        return False


def _time_of(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def rate_of(report: AnyReport | None) -> float | None:
    """Return the rate that a run found or trained with."""
    if isinstance(report, TrainReport):
        return report.learning_rate.value if report.learning_rate else None
    return report.suggestion.lr if report and report.suggestion else None
