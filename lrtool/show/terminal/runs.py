"""Runs at a glance: a table, or plain facts for a program."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lrtool.report.report import TrainReport
from lrtool.report.runs import RUNS, find_runs, name_of, short_names
from lrtool.report.summary import rate_of
from lrtool.show import words
from lrtool.show.terminal.console import print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.report.summary import Summary


def facts(summary: Summary) -> dict[str, Any]:
    """Return what `lrtool runs --json` prints of a run."""
    report = summary.report
    best = report.best if isinstance(report, TrainReport) else None
    return {
        "name": name_of(summary.run),
        "path": str(summary.run),
        "command": summary.command,
        "learning_rate": rate_of(report),
        "verdict": report.suggestion.verdict if report and report.suggestion else None,
        "best": None if best is None else asdict(best),
        "status": summary.status,
        "reason": summary.problem or (report.reason if report else None),
        "time": None if summary.time is None else summary.time.isoformat(timespec="seconds"),
        "age_s": _age(summary),
    }


def print_runs(found: Sequence[Summary]) -> None:
    """Print a table on stdout, a row for each run, with names that a command takes."""
    short = short_names(find_runs(RUNS))
    print_rows([_row(each, short.get(each.run, name_of(each.run))) for each in found])


def _row(summary: Summary, name: str) -> dict[str, Any]:
    report, age = summary.report, _age(summary)
    return {
        "name": name,
        "command": summary.command,
        "rate": None if report is None else _rate(report),
        "verdict": report.suggestion.verdict if report and report.suggestion else None,
        "best": words.best(report) if isinstance(report, TrainReport) and report.best else None,
        "status": words.name(summary.status),
        "age": None if age is None else words.age(age),
    }


def _rate(report: Any) -> str | None:
    if isinstance(report, TrainReport):
        return words.learning_rate(report).partition(",")[0] if report.learning_rate else None
    rate = rate_of(report)
    return None if rate is None else words.rate(rate)


def _age(summary: Summary) -> float | None:
    if summary.time is None:
        return None
    return max(round((datetime.now(UTC) - summary.time).total_seconds(), 1), 0.0)
