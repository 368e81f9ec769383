"""The plot of a training: losses and metrics over epochs, the rate over steps.

All panels share one axis, the updates made. A training loss is drawn before its update, an epoch's
mean in the middle of the epoch, validation loss and metrics at its end: points above each other
belong to about the same weights.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lrtool.report.records import finite_or_none
from lrtool.show import words
from lrtool.show.plots import canvas, panels
from lrtool.show.plots.canvas import BEYOND, CURVE, INK, LEFT, WIDTH
from lrtool.show.plots.limits import numbers
from lrtool.show.plots.span import of_losses, of_rates, span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lrtool.report.report import TrainReport

RAW, VALIDATION, METRIC = "#56B4E9", "#D55E00", "#009E73"
MOST_METRICS = 4  # panels; report.json has the others
MOST_MARKERS = 60  # epochs; more are lines without markers
EPOCH_LABELS = 12
LOSSES, SMALL = 2.9, 0.95  # inches: how high a panel is
TITLE, LABELS, LEGEND_ROW = 0.36, 0.44, 0.22  # inches: above a panel, below it, a row of a legend


def save(report: TrainReport, directory: Path) -> list[Path]:
    """Draw the report into `plot.png` and `plot.svg`, as `canvas.save` does."""
    return canvas.save(draw(report), directory)


def draw(report: TrainReport) -> Figure:
    """Return the plot of a training: 9 inches wide, higher with more metrics."""
    metrics = _metrics(report)
    shown = metrics[:MOST_METRICS]
    title, lines = _header(report, len(metrics) - len(shown))
    above = 0.45 + 0.19 * len(lines) + 0.12 + 2 * LEGEND_ROW
    heights = [("losses", LOSSES), *((name, SMALL) for name in shown), ("rate", SMALL)]
    height = above + sum(high + TITLE for _, high in heights) + 2 * LABELS - TITLE + 0.06
    with canvas.applied():
        figure = canvas.new_figure(height)
        canvas.write_header(figure, title, lines)
        top, axes = height - above, {}
        for name, high in heights:
            top -= high
            area = (LEFT, top / height, WIDTH, high / height)
            axes[name] = figure.add_axes(area, label=name)
            top -= TITLE + (LABELS if name == "losses" else 0)
        _draw_losses(axes["losses"], report)
        for name in shown:
            _draw_metric(axes[name], report, name)
        _draw_rate(axes["rate"], report)
        for name, panel in axes.items():
            _set_x(panel, report, name)
            _draw_marks(panel, report)
        _draw_legend(figure, axes["losses"])
    return figure


def _metrics(report: TrainReport) -> list[str]:
    """Return the metrics: the one of the best epoch first, those without any value last."""
    names: dict[str, bool] = {}
    for epoch in report.epochs:
        for name, value in epoch.metrics.items():
            names[name] = names.get(name, False) or isfinite(value)
    best = report.best.metric if report.best else None
    return sorted(names, key=lambda name: (name != best, not names[name]))


def _header(report: TrainReport, left_out: int) -> tuple[str, list[str]]:
    title = f"Best {words.best(report)}" if report.best else "No best epoch"
    if report.status == "diverged":
        title = f"Diverged at step {words.last_step(report):,}"
    elif report.status != "completed":
        title += f" ({report.status})"
    lines = []
    if report.learning_rate:
        lines.append(canvas.shortened(f"Learning rate {words.learning_rate(report)}"))
    schedule = words.schedule(report)
    facts = [schedule[:1].upper() + schedule[1:], words.progress(report)]
    if left_out:
        facts.append(f"{left_out} more metrics in report.json")
    lines.append(canvas.shortened(" · ".join(facts)))
    if report.reason:
        lines += canvas.wrapped(report.reason, 4)
    if report.status == "diverged" and report.best:
        lines.append(f"Best {words.best(report)}")
    lines.append(canvas.shortened(words.subject(report)))
    return title, lines


def _draw_losses(axes: Axes, report: TrainReport) -> None:
    """Draw the losses of steps and epochs, and mark those beyond the axis."""
    limits = of_losses(report)
    ends, middles = _positions(report)
    steps = np.array(report.steps.step, dtype=float) - 1
    few = len(steps) <= MOST_MARKERS
    raw: dict[str, Any] = {
        "color": RAW,
        "marker": "o",
        "ls": "none",
        "mew": 0,
        "ms": 4 if few else 2.4,
    }
    train: dict[str, Any] = {"color": CURVE, "marker": "o", **_line(len(ends))}
    validation: dict[str, Any] = {"color": VALIDATION, "marker": "s", **_line(len(ends))}
    for x, values, label, style in (
        (steps, report.steps.loss, "each step", {**raw, "alpha": 0.75 if few else 0.5}),
        (middles, [e.train_loss for e in report.epochs], "training, mean of an epoch", train),
        (ends, [e.validation_loss for e in report.epochs], "validation", validation),
    ):
        loss = numbers(values)
        if label == "validation" and not words.validated(report):
            continue
        panels.mark_edges(axes, x, loss, limits, style["color"])
        inside = np.where((loss >= limits.bottom) & (loss <= limits.top), loss, np.nan)
        if len(x):
            axes.plot(x, inside, label=label, **style)
    unit = panels.set_y(axes, limits)
    if not np.isfinite(numbers(report.steps.loss)).any() and not report.epochs:
        panels.say(axes, "no finite loss")
    panels.write_title(axes, f"loss{unit}")


def _draw_metric(axes: Axes, report: TrainReport, name: str) -> None:
    epochs = [epoch for epoch in report.epochs if name in epoch.metrics]
    ends = np.array([epoch.step for epoch in epochs], dtype=float)
    values = numbers([epoch.metrics[name] for epoch in epochs])
    limits = span(values)
    panels.mark_edges(axes, ends, values, limits, METRIC)
    axes.plot(ends, values, color=METRIC, marker="o", **_line(len(ends)))
    unit = panels.set_y(axes, limits, ticks=3)
    if not np.isfinite(values).any():
        axes.set_yticks([])
    title = words.metric(name, validated=words.validated(report))
    last = words.value(finite_or_none(epochs[-1].metrics[name]))
    panels.write_title(axes, f"{title}{unit}", f"last {last}")


def _draw_rate(axes: Axes, report: TrainReport) -> None:
    rates = np.array(report.steps.lr, dtype=float)
    if rates.size:
        axes.plot(*panels.rate_levels(report.steps), color=INK, lw=1.6, drawstyle="steps-post")
    unit = panels.set_rates_y(axes, of_rates(rates))
    last = f"last {words.rate(rates[-1])}" if rates.size else ""
    panels.write_title(axes, f"learning rate{unit}", last)


def _positions(report: TrainReport) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the step at each epoch's end, and the middle of the steps before its updates."""
    ends = np.array([epoch.step for epoch in report.epochs], dtype=float)
    starts = np.concatenate(([0.0], ends[:-1]))[: len(ends)]
    return ends, np.maximum(starts + ends - 1, 2 * starts) / 2


def _line(points: int) -> dict[str, Any]:
    return {"lw": 1.8, "ms": 4.5 if points <= MOST_MARKERS else 0, "mew": 0}


def _set_x(axes: Axes, report: TrainReport, name: str) -> None:
    """Count epochs on the x axis; steps under the rate, and if no epoch has ended."""
    panels.open_frame(axes)
    right = max(words.last_step(report), 1)
    axes.set_xlim(-0.012 * right, 1.012 * right)
    if name == "rate" or not report.epochs:
        panels.count(axes)
        if name in {"losses", "rate"}:
            axes.set_xlabel("step")
    else:
        ticks = _epoch_ticks([epoch.epoch for epoch in report.epochs])
        at = {epoch.epoch: epoch.step for epoch in report.epochs} | {0: 0}
        axes.set_xticks([at[tick] for tick in ticks if tick in at])
        axes.set_xticklabels([f"{tick:,}" for tick in ticks if tick in at])
        if name == "losses":
            axes.set_xlabel("epoch")
    if name not in {"losses", "rate"}:
        axes.tick_params(labelbottom=False)


def _epoch_ticks(epochs: Sequence[int]) -> list[int]:
    """Return round numbers of epochs, from 0."""
    locator = MaxNLocator(EPOCH_LABELS, integer=True, steps=[1, 2, 5, 10])
    return [int(tick) for tick in locator.tick_values(0, epochs[-1]) if tick == int(tick)]


def _draw_marks(axes: Axes, report: TrainReport) -> None:
    """Mark the best epoch, and where a training diverged, in every panel."""
    best = report.best
    if best:
        label = f"best: epoch {best.epoch:,}"
        axes.axvline(best.step, color=INK, lw=1, ls=":", zorder=1.5, gid="best", label=label)
        ends, middles = _positions(report)
        steps = [epoch.step for epoch in report.epochs]
        panel = "losses" if best.metric in {"train_loss", "validation_loss"} else best.metric
        if panel == axes.get_label() and best.step in steps:  # rows may have been lost
            x = (middles if best.metric == "train_loss" else ends)[steps.index(best.step)]
            style: dict[str, Any] = {"ms": 9, "mfc": "none", "mec": INK, "mew": 1.3, "zorder": 5}
            bottom, top = axes.get_ylim()
            if bottom <= best.value <= top:
                axes.plot([x], [best.value], marker="o", gid="best", clip_on=False, **style)
    if report.status == "diverged":
        step = words.last_step(report)
        style = {"color": INK, "lw": 1.2, "ls": "--", "zorder": 1.5, "gid": "diverged"}
        axes.axvline(step, label=f"diverged at step {step:,}", **style)


def _draw_legend(figure: Figure, losses: Axes) -> None:
    """List each kind of mark above the losses: the series, and above them the marks."""
    entries = panels.legend_entries(losses)
    marks = {
        label: entries.pop(label)
        for label in [*entries]
        if label == BEYOND or entries[label].get_gid() in {"best", "diverged"}
    }
    if len(marks) == 1:
        entries, marks = entries | marks, {}
    right, top = losses.get_position().x1, losses.get_position().y1
    for number, row in enumerate((entries, marks)):
        style: dict[str, Any] = {"ncols": max(len(row), 1), "frameon": False, "markerscale": 1.2}
        style |= {"borderaxespad": 0, "borderpad": 0, "columnspacing": 1.6, "loc": "lower right"}
        anchor = (right, top + (0.07 + LEGEND_ROW * number) / figure.get_figheight())
        figure.legend([*row.values()], [*row], bbox_to_anchor=anchor, **style)
