"""Several runs side by side: rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrtool.report.records import finite_or_none
from lrtool.report.report import TrainReport
from lrtool.show import words
from lrtool.show.terminal.console import (
    PIPED_WIDTH,
    new_console,
    print_line,
    print_rows,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from lrtool.report.report import AnyReport, FindReport


def comparison(reports: Mapping[str, AnyReport]) -> list[dict[str, Any]]:
    """Return a row for each run; their keys are those for which any run has a value.

    A training's metrics are those of its best epoch, or of its last one if none is best. Without a
    validation set they are those of the training set: `train_accuracy`.

    Args:
        reports: by the names of the runs.
    """
    facts = {
        name: _training(report) if isinstance(report, TrainReport) else _finding(report)
        for name, report in reports.items()
    }
    metrics = {
        metric: None
        for report in reports.values()
        if isinstance(report, TrainReport)
        for metric in _metrics(report)
    }
    rows = []
    for name, report in reports.items():
        row: dict[str, Any] = {"name": name, "command": report.command, "status": report.status}
        row |= dict.fromkeys(("learning_rate", "verdict", "interval"))
        row |= dict.fromkeys(("epochs", "steps", "final_train_loss", "best_validation_loss"))
        rows.append(row | metrics | facts[name] | {"seconds": report.timing.total_s})
    used = [key for key in rows[0] if any(row[key] is not None for row in rows)] if rows else []
    return [{key: row[key] for key in used} for row in rows]


def print_comparison(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of `comparison`; where a terminal is too narrow, a column for each run."""
    console = new_console()
    if not console.is_terminal or _width(table_of(rows, console), console) <= console.width:
        print_rows(rows)
        return
    for number, row in enumerate(rows, 1):
        print_line(console, f"{number}  {row['name']}")
    first = 0
    while first < len(rows):
        table, end = _turned(rows, first, first + 1, console), first + 1
        while end < len(rows):
            wider = _turned(rows, first, end + 1, console)
            if _width(wider, console) > console.width:
                break
            table, end = wider, end + 1
        console.print()
        console.print(table)
        first = end


def _turned(rows: Sequence[Mapping[str, Any]], first: int, end: int, console: Console) -> Table:
    """Return a table with a column for each of some runs, under their numbers."""
    return table_of(
        [
            {"run": words.name(key)}
            | {f"{number + 1}": rows[number][key] for number in range(first, end)}
            for key in rows[0]
            if key != "name"
        ],
        console,
    )


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=PIPED_WIDTH)).maximum


def _finding(report: FindReport) -> dict[str, Any]:
    suggestion = report.suggestion
    return {
        "learning_rate": suggestion.lr if suggestion else None,
        "verdict": suggestion.verdict if suggestion else None,
        "interval": words.interval(suggestion) if suggestion else None,
        "steps": report.timing.steps,
    }


def _training(report: TrainReport) -> dict[str, Any]:
    validation = [finite_or_none(epoch.validation_loss) for epoch in report.epochs]
    return {
        "learning_rate": report.learning_rate.value if report.learning_rate else None,
        "epochs": report.epochs[-1].epoch if report.epochs else None,
        "steps": words.last_step(report),
        "final_train_loss": finite_or_none(report.epochs[-1].train_loss) if report.epochs else None,
        "best_validation_loss": min(
            (loss for loss in validation if loss is not None), default=None
        ),
        **_metrics(report),
    }


def _metrics(report: TrainReport) -> dict[str, float | None]:
    best = report.best.step if report.best else None
    chosen = [epoch for epoch in report.epochs if epoch.step == best] or report.epochs[-1:]
    part = "" if words.validated(report) else "train_"
    metrics = chosen[0].metrics if chosen else {}
    return {f"{part}{name}": finite_or_none(value) for name, value in metrics.items()}
