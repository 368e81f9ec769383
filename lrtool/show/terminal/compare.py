"""Several runs side by side: rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrtool.report.records import finite_or_none
from lrtool.report.report import TrainReport
from lrtool.show import words

if TYPE_CHECKING:
    from collections.abc import Mapping

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
