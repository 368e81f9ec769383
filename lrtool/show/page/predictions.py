"""What the best weights predict: confusion matrix, figures of classes, values and residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.show import words
from lrtool.show.page.about import short
from lrtool.show.page.axis import Axis
from lrtool.show.page.plot import Series, plot
from lrtool.show.plots.span import span

if TYPE_CHECKING:
    from markupsafe import Markup

    from lrtool.report.records import ClassFacts, PredictionFacts, ValueFacts
    from lrtool.report.report import TrainReport

MOST_IN_MATRIX = 30  # classes: more are too wide to read; report.json has them
MOST_CONFUSIONS = 15
SHADES = 6

Rows = list[tuple[str, ...]]


def predictions(report: TrainReport) -> dict[str, Any] | None:
    """Return what `predictions.html` shows; None where there is nothing to say."""
    facts, best = report.predictions, report.best
    if facts is None or best is None:
        return None
    names = [short(each.name) for each in facts.classes]
    return {
        "epoch": f"{best.epoch:,}",
        "samples": f"{facts.samples:,}",
        "reason": facts.reason,
        "names": names if len(names) <= MOST_IN_MATRIX and facts.matrix else [],
        "matrix": _shaded(facts) if len(names) <= MOST_IN_MATRIX else [],
        "confusions": _confusions(facts, names),
        "labels": bool(facts.classes) and not facts.matrix,
        "classes": [_class(each) for each in facts.classes],
        "regressions": [
            _values(each, index, len(facts.values)) for index, each in enumerate(facts.values)
        ],
    }


def _shaded(facts: PredictionFacts) -> list[list[tuple[int, int]]]:
    """Return each count with its shade, 0 for none, by the share of the class's samples."""
    rows = []
    for row in facts.matrix:
        total = max(sum(row), 1)
        rows.append([(count, -(-count * SHADES // total)) for count in row])
    return rows


def _confusions(facts: PredictionFacts, names: list[str]) -> Rows:
    """Return the classes that are most often taken for another one."""
    found = [
        (count, true, predicted)
        for true, row in enumerate(facts.matrix)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    found.sort(key=lambda each: (-each[0], each[1:]))
    return [
        (names[true], names[predicted], f"{count:,}", _percent(count, facts.classes[true].support))
        for count, true, predicted in found[:MOST_CONFUSIONS]
    ]


def _class(each: ClassFacts) -> tuple[str, ...]:
    shares = (each.precision, each.recall, each.f1)
    return (
        short(each.name),
        f"{each.support:,}",
        f"{each.predicted:,}",
        f"{each.right:,}",
        *("–" if share is None else f"{share:.3f}" for share in shares),
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"


def _values(facts: ValueFacts, index: int, count: int) -> dict[str, Any]:
    name = short(facts.name) if facts.name else f"output {index + 1}" if count > 1 else "target"
    return {
        "name": name,
        "mean_residual": words.value(facts.mean_residual),
        "rmse": words.value(facts.rmse),
        "plots": [_predicted(facts, name), _residuals(facts, name)],
        "shown": f"{len(facts.actual):,}",
    }


def _predicted(facts: ValueFacts, name: str) -> Markup:
    both = span(np.array([*facts.actual, *facts.predicted]))
    low, high = both.bottom, both.top
    order = sorted(range(len(facts.actual)), key=facts.actual.__getitem__)
    return plot(
        f"{name}: predicted over actual",
        Axis("actual", low, high, log=both.log),
        Axis("predicted", low, high, log=both.log),
        [
            Series(
                name="predicted = actual", x=[low, high], y=[low, high], colour=7, only_drawn=True
            ),
            Series(
                name="a sample",
                x=[facts.actual[i] for i in order],
                y=[facts.predicted[i] for i in order],
                shape="dots",
                faint=True,
            ),
        ],
        tall=True,
    )


def _residuals(facts: ValueFacts, name: str) -> Markup:
    low, high = facts.edges[0], facts.edges[-1]
    if not high > low:
        low, high = low - abs(low or 1), high + abs(high or 1)
    top = max(facts.counts)
    return plot(
        f"{name}: residuals, predicted minus actual",
        Axis("residual", low, high),
        Axis("samples", 0, top * 1.05, whole=True),
        [
            Series(
                name="samples in a bin, by its lower edge",
                x=facts.edges,
                y=[*facts.counts, None],  # the last edge ends a bin and begins none
                shape="levels",
                colour=3,
            )
        ],
    )
