"""Several runs in one picture: curves of finds over the rate, losses and rates of trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from lrtool.report.report import TrainReport
from lrtool.show.plots import canvas, panels
from lrtool.show.plots.canvas import BEYOND, INK, LEFT, WIDTH
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
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lrtool.report.report import AnyReport, FindReport

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))  # after all colours, the next dash
LARGE, SMALL = 3.0, 1.1  # inches: how high a panel is
TITLE, LABELS, LEGEND_ROW = 0.36, 0.5, 0.21  # inches: above a panel, below it, a row of the legend
NAME = 42  # letters of a run's name in the legend
SHORT_NAME = 20  # where all are as short as this, three runs share a row


def save_comparison(reports: Mapping[str, AnyReport], directory: Path) -> list[Path]:
    """Draw the runs, at least one, into `comparison.png` and `comparison.svg`.

    The reports go by the names of the runs; the files are written as `canvas.save` does.
    """
    return canvas.save(draw(reports), directory, "comparison")


def draw(reports: Mapping[str, AnyReport]) -> Figure:
    """Return the plot of several runs: 9 inches wide, a panel or two for each kind of run."""
    styles = {name: _style(index) for index, name in enumerate(reports)}
    finds = {n: r for n, r in reports.items() if not isinstance(r, TrainReport)}
    trainings = {n: r for n, r in reports.items() if isinstance(r, TrainReport)}
    shown = [("find", LARGE)] * bool(finds)
    shown += [("losses", LARGE), ("rates", SMALL)] if trainings else []
    labels = _labels(reports)
    columns = 3 if all(len(label) <= SHORT_NAME for label in labels) else 2
    rows = -(-len(reports) // columns)
    height = 0.55 + sum(high + TITLE + LABELS for _, high in shown) + LEGEND_ROW * rows + 0.1
    with canvas.applied():
        figure = canvas.new_figure(height)
        canvas.write_header(figure, f"{len(reports)} run{'s' * (len(reports) != 1)} compared", ())
        axes, top = {}, height - 0.55
        for name, high in shown:
            top -= TITLE + high
            axes[name] = figure.add_axes((LEFT, top / height, WIDTH, high / height), label=name)
            top -= LABELS
        if finds:
            _draw_finds(axes["find"], finds, styles)
        if trainings:
            _draw_trainings(axes["losses"], axes["rates"], trainings, styles)
        _draw_legend(figure, labels, styles, columns)
    return figure


def _style(index: int) -> dict[str, Any]:
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "ls": dashes, "lw": 1.8}


def _draw_finds(
    axes: Axes, finds: Mapping[str, FindReport], styles: Mapping[str, dict[str, Any]]
) -> None:
    """Draw each smoothed curve over the rate, its suggestion as a dot on it."""
    curves = {name: report.curve for name, report in finds.items() if report.curve}
    losses = {name: numbers(curve.loss) for name, curve in curves.items()}
    before = [loss[: least(loss) + 1] for loss in losses.values()]
    limits = joined(before, [*losses.values()])
    for name, curve in curves.items():
        axes.plot(curve.lr, losses[name], **styles[name])
    axes.set_xscale("log")
    unit = panels.set_y(axes, limits)
    for name, report in finds.items():
        suggestion = report.suggestion
        if not suggestion or not suggestion.lr:
            continue
        axes.axvline(suggestion.lr, ymax=0.06, **{**styles[name], "ls": "-"})
        if report.curve and np.isfinite(losses[name]).any():
            height = np.interp(np.log(suggestion.lr), np.log(report.curve.lr), losses[name])
            style = {"color": styles[name]["color"], "mec": INK, "mew": 1, "ms": 7, "zorder": 5}
            axes.plot([suggestion.lr], [height], marker="o", gid=f"suggestion {name}", **style)
    if not curves:
        panels.say(axes, "no curve")
    panels.rate_axis(axes)
    panels.open_frame(axes)
    axes.set_xlabel("learning rate (log scale)")
    panels.write_title(
        axes, f"find: smoothed loss{unit}", "dot, and line below: the suggested rate"
    )


def _draw_trainings(
    losses: Axes,
    rates: Axes,
    trainings: Mapping[str, TrainReport],
    styles: Mapping[str, dict[str, Any]],
) -> None:
    """Draw each training's validation loss, or its training loss without one, and its rate."""
    epochs = all(report.epochs and report.epochs[-1].step for report in trainings.values())
    series = {name: losses_of(report) for name, report in trainings.items()}
    core = [settled(trainings[name], loss) for name, (_, loss) in series.items()]
    limits = joined(core, [loss for _, loss in series.values()])
    for name, (steps, loss) in series.items():
        report = trainings[name]
        per = steps_per_epoch(report) if epochs else 1.0
        few: dict[str, Any] = {"marker": "o", "ms": 4, "mew": 0} if len(steps) <= 30 else {}
        losses.plot(steps / per, loss, **styles[name], **few)
        panels.mark_edges(losses, steps / per, loss, limits, styles[name]["color"])
        if report.status == "diverged" and steps.size:
            seen = np.flatnonzero((loss >= limits.bottom) & (loss <= limits.top))
            x, y, system = steps[-1], 0.98, losses.get_xaxis_transform()
            if seen.size:
                x, y, system = steps[seen[-1]], loss[seen[-1]], losses.transData
            style = {"color": styles[name]["color"], "marker": "X", "ms": 9, "mec": INK}
            style |= {"transform": system, "zorder": 5, "gid": f"diverged {name}"}
            losses.plot([x / per], [y], **style)
        x, lr = panels.rate_levels(report.steps)
        rates.plot(x / per, lr, drawstyle="steps-post", **{**styles[name], "lw": 1.4})
    parts = sorted({part_of(report) for report in trainings.values()}, reverse=True)
    name = f"train: {' or '.join(parts)} loss{panels.set_y(losses, limits)}"
    crosses = any(report.status == "diverged" for report in trainings.values())
    edges = any(line.get_label() == BEYOND for line in losses.lines)
    marks = ["cross: diverged"] * crosses + [f"triangle: {BEYOND}"] * edges
    panels.write_title(losses, name, " · ".join(marks))
    unit = panels.set_rates_y(rates, of_all_rates([*trainings.values()]))
    panels.write_title(rates, f"train: learning rate{unit}")
    for axes in (losses, rates):
        panels.count(axes)
        panels.open_frame(axes)
        axes.set_xlabel("epoch" if epochs else "step")
    if not any(np.isfinite(loss).any() for _, loss in series.values()):
        panels.say(losses, "no finite loss")
    right = max(losses.get_xlim()[1], rates.get_xlim()[1], 1.0)
    losses.set_xlim(0, right)
    rates.set_xlim(0, right)


def _labels(reports: Mapping[str, AnyReport]) -> list[str]:
    """Return each run's name; of a long one the end, where names differ.

    A training loss is marked as such if other runs show a validation loss.
    """
    parts = [part_of(r) if isinstance(r, TrainReport) else None for r in reports.values()]
    labels = []
    for name, part in zip(reports, parts, strict=True):
        called = " (training loss)" * (part == "training" and "validation" in parts)
        room = NAME - len(called)
        labels.append((name if len(name) <= room else f"…{name[1 - room :]}") + called)
    return labels


def _draw_legend(
    figure: Figure, labels: Sequence[str], styles: Mapping[str, dict[str, Any]], columns: int
) -> None:
    """List the runs under the panels."""
    handles = [Line2D([], [], **style) for style in styles.values()]
    names = [canvas.drawable(label).replace("$", r"\$") for label in labels]
    anchor, style = (LEFT, 0.06 / figure.get_figheight()), {"frameon": False, "handlelength": 3.2}
    figure.legend(
        handles, names, loc="lower left", bbox_to_anchor=anchor, ncols=columns, borderpad=0, **style
    )
