"""The page of a comparison: several runs in a table and on one axis, and how they differ."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.config.differences import differences
from lrtool.config.spelling import number, spell
from lrtool.errors import key_path
from lrtool.report.report import TrainReport
from lrtool.show import words
from lrtool.show.page.about import short
from lrtool.show.page.axis import Axis
from lrtool.show.page.bins import binned, size_of
from lrtool.show.page.plot import COLOURS, Mark, Series, plot
from lrtool.show.page.render import METRIC_DIGITS, POINTS, first_that_fits, render
from lrtool.show.plots.common_axis import (
    joined,
    least,
    losses_of,
    of_all_rates,
    part_of,
    settled,
    steps_per_epoch,
)
from lrtool.show.plots.limits import numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from lrtool.report.report import AnyReport, FindReport

MOST_DRAWN = 21  # runs: three of each colour
MOST_BESIDE = 20  # runs with a column of their own
MOST_KEYS = 200
LONGEST = 40  # letters of a name: of a longer one the end, where names differ


def draw(reports: Mapping[str, AnyReport], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page as HTML.

    Args:
        reports: by the names of the runs.
        rows: of the table, from `show.terminal.compare.comparison`.
    """
    return first_that_fits(_draw(reports, rows, points) for points in POINTS)


def _draw(reports: Mapping[str, AnyReport], rows: Sequence[Mapping[str, Any]], points: int) -> str:
    names = _short_names([*reports])
    drawn = dict([*reports.items()][:MOST_DRAWN])
    finds = {names[n]: r for n, r in drawn.items() if not isinstance(r, TrainReport)}
    trainings = {names[n]: r for n, r in drawn.items() if isinstance(r, TrainReport)}
    beside = [*reports][:MOST_BESIDE]
    return render(
        "compare.html",
        title=f"{len(reports)} run{'s' * (len(reports) != 1)} compared",
        lead=_lead(reports, names),
        heads=[words.name(key) for key in rows[0]] if rows else [],
        rows=[[_cell(key, value, names) for key, value in row.items()] for row in rows],
        plots=[
            *([_losses(trainings, points), _rates(trainings, points)] if trainings else []),
            *([_curves(finds, points)] if finds else []),
        ],
        not_drawn=len(reports) - len(drawn),
        hidden=_hidden(_lines(trainings, finds)),
        beside=[names[name] for name in beside],
        not_beside=len(reports) - len(beside),
        differences=_differences([reports[name] for name in beside]),
        most_keys=MOST_KEYS,
        failures=[
            (names[name], words.name(report.status), report.reason or "")
            for name, report in reports.items()
            if report.status != "completed"
        ],
    )


def _short_names(runs: Sequence[str]) -> dict[str, str]:
    """Return number and name of each run, without the folder that all lie in."""
    parents = {PurePath(run).parent for run in runs}
    apart = len(parents) > 1
    names = [run if apart else PurePath(run).name or run for run in runs]
    return {
        run: f"{index} {name if len(name) <= LONGEST else f'…{name[1 - LONGEST :]}'}"
        for index, (run, name) in enumerate(zip(runs, names, strict=True), 1)
    }


def _lead(reports: Mapping[str, AnyReport], names: Mapping[str, str]) -> str:
    """Say which training was the best, if they can be compared."""
    trainings = {n: r for n, r in reports.items() if isinstance(r, TrainReport)}
    best = {
        name: min(
            (loss for epoch in report.epochs if (loss := epoch.validation_loss) is not None),
            key=lambda loss: loss if np.isfinite(loss) else np.inf,
            default=np.nan,
        )
        for name, report in trainings.items()
    }
    found = {name: loss for name, loss in best.items() if np.isfinite(loss)}
    if len(found) < 2:
        return ""
    first = min(found.values())
    leaders = [names[name] for name, loss in found.items() if loss == first]
    compared = [report for name, report in trainings.items() if name in found]
    datas = {_data_of(report) for report in compared}
    losses = {_loss_of(report) for report in compared}
    said = f"Lowest validation loss: {words.value(first)}, of run {' and '.join(leaders[:3])}."
    if len(losses) > 1:
        return f"{said} But the runs minimise different losses ({', '.join(sorted(losses))})."
    return f"{said} But the runs have different data." if len(datas) > 1 else said


def _data_of(report: TrainReport) -> str:
    """Return what tells data apart: what they hold or, not in memory, how they are made."""
    known = report.data.hash if report.data else None
    made = [words.setting(report, "data", key) for key in ("source", "args", "validation")]
    return known or json.dumps([made, report.data and report.data.samples], sort_keys=True)


def _loss_of(report: TrainReport) -> str:
    """Name a loss, with its arguments if it has any; a model's own with the model."""
    name = str(words.setting(report, "loss", "name"))
    owner = words.setting(report, "model", "name") if name == "own" else None
    args = words.setting(report, "loss", "args")
    told = ", ".join(f"{key} {spell(value)}" for key, value in (args or {}).items())
    return f"{name} of {owner}" if owner else f"{name} ({told})" if told else name


def _cell(key: str, value: Any, names: Mapping[str, str]) -> tuple[str, str]:
    """Return a cell's text, and what it is sorted by."""
    if value is None:
        return "–", ""
    if key == "name":
        return names[value], names[value].partition(" ")[0]
    if key == "interval":
        return value, value.partition(" ")[0]  # its lower end
    if key == "status":
        return words.name(value), words.name(value)
    if isinstance(value, float):
        text = f"{value:.1f}" if key == "seconds" else number(value, METRIC_DIGITS)
        return text, repr(value)
    return (f"{value:,}", str(value)) if isinstance(value, int) else (str(value), str(value))


def _losses(trainings: Mapping[str, TrainReport], most: int) -> Markup:
    epochs = all(report.epochs and report.epochs[-1].step for report in trainings.values())
    found = {name: losses_of(report) for name, report in trainings.items()}
    core = [settled(trainings[name], loss) for name, (_, loss) in found.items()]
    limits = joined(core, [loss for _, loss in found.values()])
    points = max(round(2 * most / (len(found) + 1)), 8)
    series, right, marks, sizes = [], 1.0, [], set()
    parts = {part_of(report) for report in trainings.values()}
    for index, (name, (steps, loss)) in enumerate(found.items()):
        report = trainings[name]
        x = (steps / (steps_per_epoch(report) if epochs else 1.0)).round(3)
        right = max([right, *x[-1:].tolist()])
        note = " (training loss)" * (len(parts) > 1 and part_of(report) == "training")
        line = binned(x.tolist(), loss, points)
        band = {"band": f"{name}: lowest and highest"} if "low" in line else {}
        sizes.add(size_of(len(x), points))
        colour = 1 + index % COLOURS
        series.append(Series(name=f"{name}{note}", colour=colour, **{**line, **band}))
        if report.status == "diverged" and x.size:
            marks.append(Mark(f"{name} diverged", float(x[-1]), "dashed"))
    low = min((x for each in series for x in each.x), default=0.0)
    low = 0.0 if not epochs or low == right else low
    return plot(
        f"{' or '.join(sorted(parts, reverse=True)).capitalize()} losses of the trainings",
        Axis("epoch" if epochs else "step", low, right, whole=True),
        Axis("loss", limits.bottom, limits.top, log=limits.log),
        series,
        note=_note(max(sizes)),
        marks=marks,
        tall=True,
        zoom=True,
    )


def _note(size: int) -> str:
    if size == 1:
        return ""
    return (
        f"A point stands for up to {size:,} values and is the first of them; the shade reaches "
        "from the lowest to the highest."
    )


def _rates(trainings: Mapping[str, TrainReport], most: int) -> Markup:
    points = max(round(most / (len(trainings) + 1)), 8)
    limits = of_all_rates([*trainings.values()])
    series = []
    for index, (name, report) in enumerate(trainings.items()):
        line = binned(report.steps.step, numbers(report.steps.lr), points)
        colour = 1 + index % COLOURS
        series.append(Series(name=name, x=line["x"], y=line["y"], shape="levels", colour=colour))
    last = max(words.last_step(report) for report in trainings.values())
    same = _hidden({n: (r.steps.step, r.steps.lr) for n, r in trainings.items()})
    return plot(
        "Learning rates of the trainings",
        Axis("step", 0, max(last, 1), whole=True),
        Axis("learning rate", limits.bottom, limits.top, log=limits.log),
        series,
        note=" ".join(f"{hidden} had exactly the rates of {first}." for hidden, first in same),
        zoom=True,
    )


def _curves(finds: Mapping[str, FindReport], most: int) -> Markup:
    """Return the smoothed losses of finds over the rate, with the rates that they suggest."""
    curves = {name: report.curve for name, report in finds.items() if report.curve}
    losses = {name: numbers(curve.loss) for name, curve in curves.items()}
    limits = joined([loss[: least(loss) + 1] for loss in losses.values()], [*losses.values()])
    points = max(round(2 * most / (len(finds) + 1)), 8)
    series, marks = [], []
    suggested: dict[float, list[str]] = {}
    for index, (name, report) in enumerate(finds.items()):
        if report.curve:
            there = np.isfinite(losses[name])
            lr = np.asarray(report.curve.lr)[there].tolist()
            stride = size_of(len(lr), points)
            colour = 1 + index % COLOURS
            loss = losses[name][there][::stride].tolist()
            series.append(Series(name=name, x=lr[::stride], y=loss, colour=colour))
        if report.suggestion and report.suggestion.lr:
            suggested.setdefault(report.suggestion.lr, []).append(name)
    for rate, named in suggested.items():
        numbers_of = ", ".join(name.partition(" ")[0] for name in named)
        marks.append(Mark(f"suggested by {numbers_of}", rate, "dashed", label=numbers_of))
    rates = [x for each in series for x in each.x] + [mark.x for mark in marks]
    low, high = min(rates, default=1e-6), max(rates, default=1.0)
    return plot(
        "Smoothed losses of the finds over the rate",
        Axis("learning rate", low, high if high > low else 10 * low, log=True),
        Axis("loss", limits.bottom, limits.top, log=limits.log),
        series,
        marks=marks,
        tall=True,
    )


def _lines(
    trainings: Mapping[str, TrainReport], finds: Mapping[str, FindReport]
) -> dict[str, object]:
    """Return what is drawn of each run, to compare."""
    lines: dict[str, object] = {
        name: ("train", *(repr(each.tolist()) for each in losses_of(report)))
        for name, report in trainings.items()
    }
    curves = {name: report.curve for name, report in finds.items() if report.curve}
    return lines | {name: ("find", c.lr, repr(c.loss)) for name, c in curves.items()}


def _hidden(lines: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return runs whose line is exactly that of one before them, and that one."""
    seen: dict[object, list[str]] = {}
    for name, line in lines.items():
        seen.setdefault(line, []).append(name)
    return [(", ".join(same[1:]), same[0]) for same in seen.values() if len(same) > 1]


def _differences(reports: Sequence[AnyReport]) -> list[tuple[str, ...]]:
    """Return a row for each key of the configurations that differs: the key, then each value."""
    first = reports[0].config
    paths = {
        change.path: None for other in reports[1:] for change in differences(first, other.config)
    }
    rows = []
    for path in [*paths][:MOST_KEYS]:
        values = [words.setting(each, *map(str, path)) for each in reports]
        cells = ["–" if value is None else short(spell(value)) for value in values]
        rows.append((short(key_path(path)), *cells))
    return rows
