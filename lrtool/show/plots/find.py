"""The learning-rate plot, drawn from a report alone, without a display and without pyplot.

A ribbon above the losses names the regions, one below them shows the usual guideline, and the
legend is underneath, so no label lies on the data. A race has two panels below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.markers import CARETDOWN, CARETUP

from lrtool.show import words
from lrtool.show.plots import canvas, panels
from lrtool.show.plots import race as race_plot
from lrtool.show.plots.canvas import (
    BEYOND,
    CURVE,
    GOOD,
    INK,
    LEFT,
    SERIES,
    VECTOR_POINTS,
    WIDTH,
)
from lrtool.show.plots.limits import Limits, choose, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from lrtool.report.records import Race, Suggestion, Sweep
    from lrtool.report.report import FindReport

GUIDELINE = (1e-4, 1e-2)  # the rates that textbooks name

HEIGHT = 6.4  # inches: of the sweeps' part
REGIONS = {"too low": "#d6eaf6", "good": GOOD, "too high": "#f8d9c4"}
SMOOTH, BAND = "expected loss after an update, with its 80% band", "band"
SKIPPED = "update skipped"
LEGEND_SWEEPS = 4  # more share one entry


def save(report: FindReport, directory: Path) -> list[Path]:
    """Draw the report into `plot.png` and `plot.svg`, as `canvas.save` does."""
    return canvas.save(draw(report), directory)


def draw(report: FindReport) -> canvas.Plot:
    """Return the plot of a report: 9 × 6.4 inches, losses over rates; higher with a race."""
    with canvas.applied():
        figure = canvas.new_figure(HEIGHT + race_plot.HEIGHT * bool(report.race))
        limits = choose(report)
        losses = figure.add_axes(_box(figure, 0.205, 0.525), label="losses")
        _write_header(figure, report)
        _set_axes(losses, report, limits)
        _draw_sweeps(losses, report.sweeps, limits)
        _draw_curve(losses, report)
        _draw_guideline(_ribbon(figure, 0.165, "guideline"), limits)
        suggestion = report.suggestion
        if suggestion and suggestion.lr:
            ribbon = _ribbon(figure, 0.73, "regions")
            _draw_regions(losses, ribbon, suggestion, limits)
            _draw_rate(losses, ribbon, suggestion.lr, limits)
            if report.trials and not report.trials.interrupted:
                _draw_trials(losses, ribbon, report.trials, limits)
        _draw_legend(figure, losses)
        if report.race:
            race_plot.draw(figure, report.race, suggestion)
    return figure


def _box(figure: Figure, bottom: float, height: float) -> tuple[float, float, float, float]:
    """Return a place in the figure, from fractions of the sweeps' part."""
    return LEFT, _up(figure, bottom), WIDTH, height * HEIGHT / figure.get_figheight()


def _up(figure: Figure, bottom: float) -> float:
    """Return a height in the figure, from a fraction of the sweeps' part, its upper one."""
    return 1 - (1 - bottom) * HEIGHT / figure.get_figheight()


def _write_header(figure: Figure, report: FindReport) -> None:
    suggestion = report.suggestion
    title, lines = "No trustworthy suggestion", []
    if suggestion and suggestion.lr:
        title = f"Learning rate {words.rate(suggestion.lr)}: {suggestion.verdict}"
        between = words.interval(suggestion)
        purpose = f"for a {words.purpose(suggestion)}"
        lines.append(f"Interval {between}, {purpose}" if between else purpose.capitalize())
    if report.status in {"interrupted", "failed"}:
        title += f" ({report.status})"
    if report.reason:
        lines += canvas.wrapped(report.reason)
    lines.append(canvas.shortened(words.subject(report)))
    canvas.write_header(figure, title, lines)


def _set_axes(axes: Axes, report: FindReport, limits: Limits) -> None:
    axes.set_xscale("log" if limits.log else "linear")
    axes.set_xlim(limits.left, limits.right)
    axes.set_ylim(limits.bottom, limits.top)
    panels.rate_axis(axes)
    unit = panels.number_axis(axes)
    panels.open_frame(axes)
    axes.tick_params(axis="x", pad=21)  # below the guideline's ribbon
    axes.set_xlabel(f"learning rate ({'log' if limits.log else 'linear'} scale)")
    probe = words.setting(report, "find", "loss") == "probe"
    name = "validation loss (probe)" if probe else "training loss"
    axes.set_ylabel(f"{name}, before the update" + f" (× {unit})" * bool(unit))


def _draw_sweeps(axes: Axes, sweeps: tuple[Sweep, ...], limits: Limits) -> None:
    """Draw every raw loss; those beyond the axis, or NaN, are marked at its edge."""
    many = len(sweeps) > LEGEND_SWEEPS
    bitmap = sum(len(sweep.lr) for sweep in sweeps) > VECTOR_POINTS
    edge: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
    for index, sweep in enumerate(sweeps):
        color, marker = SERIES[index % len(SERIES)]
        name = f"{len(sweeps)} sweeps" if many else f"sweep {index + 1}"
        lr, loss = np.array(sweep.lr), numbers(sweep.loss)
        without = np.isin(np.arange(len(lr)), sweep.without_targets)
        above = (np.isnan(loss) & ~without) | (loss > limits.top)
        below = loss < limits.bottom
        skipped = np.isin(np.arange(len(lr)), sweep.skipped) & ~(above | below)
        inside = ~(above | below | skipped | without)
        low, high = np.full(len(lr), 0.015), np.full(len(lr), 0.985)
        for there, height, label, style in (
            (inside, loss, name, {"marker": marker, "ms": 3.8, "mew": 0, "alpha": 0.55}),
            (skipped, loss, SKIPPED, {"marker": "x", "ms": 5, "mew": 1.2}),
            (above, high, BEYOND, {"marker": CARETUP, "ms": 4, "mew": 0, **edge}),
            (below, low, BEYOND, {"marker": CARETDOWN, "ms": 4, "mew": 0, **edge}),
        ):
            if there.any():
                style |= {"color": color, "ls": "none", "rasterized": bitmap, "label": label}
                axes.plot(lr[there], height[there], **style)


def _draw_curve(axes: Axes, report: FindReport) -> None:
    if report.curve:
        lr = np.array(report.curve.lr)
        low, high = numbers(report.curve.low), numbers(report.curve.high)
        axes.fill_between(lr, low, high, color=CURVE, alpha=0.2, lw=0, zorder=3, label=BAND)
        axes.plot(lr, numbers(report.curve.loss), color=CURVE, lw=2.2, zorder=4, label=SMOOTH)
    if not any(np.isfinite(numbers(sweep.loss)).any() for sweep in report.sweeps):
        panels.say(axes, "no finite loss")


def _ribbon(figure: Figure, bottom: float, label: str) -> Axes:
    """Add a strip as wide as the losses; both axes go from 0 to 1."""
    axes = figure.add_axes(_box(figure, bottom, 0.036), label=label, xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()
    return axes


def _draw_guideline(ribbon: Axes, limits: Limits) -> None:
    left, right = (min(max(limits.fraction(lr), 0.0), 1.0) for lr in GUIDELINE)
    ribbon.axvspan(0, 1, color="#f5f5f5", lw=0)
    ribbon.axvspan(left, right, color="#cccccc", lw=0, label="guideline")
    text = "usual guideline: {} to {}".format(*map(words.rate, GUIDELINE))
    if left >= 1:
        text = f"{text} →"
    if right <= 0:
        text = f"← {text}"
    name = _name(ribbon, text, (left + right) / 2)
    half = _half_width(name)
    if 2 * half > right - left:  # beside the band
        name.set_x(right + 1.1 * half if right + 2.2 * half < 1 else left - 1.1 * half)


def _draw_regions(losses: Axes, ribbon: Axes, suggestion: Suggestion, limits: Limits) -> None:
    """Shade and name the rates that are too low, good and too high; draw the interval as a bar."""
    region = words.good(suggestion)
    if region is None or suggestion.low is None or suggestion.high is None:
        return
    low, high = (min(max(limits.fraction(lr), 0.0), 1.0) for lr in region)
    paper = {"boxstyle": "square,pad=0.1", "facecolor": REGIONS["good"], "edgecolor": "none"}
    good = _name(ribbon, "good", (low + high) / 2, weight="bold", zorder=5, bbox=paper)
    half, centre = _half_width(good), good.get_position()[0]
    for name, left, right in (
        ("too low", limits.left, region[0]),
        ("good", *region),
        ("too high", region[1], limits.right),
    ):
        ribbon.axvspan(limits.fraction(left), limits.fraction(right), color=REGIONS[name], lw=0)
        losses.axvspan(left, right, color=REGIONS[name], alpha=0.3, lw=0, zorder=0, gid=name)
    for text, left, right in (
        ("too low", 0.0, min(low, centre - half)),
        ("too high", max(high, centre + half), 1.0),
    ):
        beside = _name(ribbon, text, (left + right) / 2)
        if 2.2 * _half_width(beside) > right - left:
            beside.remove()
    ends = [limits.fraction(suggestion.low), limits.fraction(suggestion.high)]
    ribbon.plot(ends, [0.96, 0.96], color=INK, lw=3, solid_capstyle="butt", gid="interval")


def _draw_rate(losses: Axes, ribbon: Axes, lr: float, limits: Limits) -> None:
    losses.axvline(lr, color=INK, lw=1.5, zorder=6, gid="suggestion")
    here = limits.fraction(lr)
    ribbon.plot([here, here], [0, 1.15], color=INK, lw=1.5, zorder=4, clip_on=False)
    flag = _name(ribbon, words.rate(lr), here, weight="bold", color="white", zorder=7)
    flag.set(y=1.65, bbox={"boxstyle": "round,pad=0.3", "facecolor": INK, "edgecolor": "none"})


def _draw_trials(losses: Axes, ribbon: Axes, trials: Race, limits: Limits) -> None:
    """Mark the trials at the bottom of the ribbon."""
    style: dict[str, Any] = {"marker": "D", "mfc": "white", "mec": INK, "mew": 1.1, "ls": "none"}
    for trial in trials.candidates:
        here = limits.fraction(trial.lr)
        if 0 <= here <= 1:
            ribbon.plot([here], [0], ms=5, zorder=6, clip_on=False, gid="trial", **style)
    losses.plot([], [], ms=4, label=f"trials of {trials.steps:,} steps", **style)


def _name(ribbon: Axes, text: str, centre: float, **style: Any) -> Text:
    """Write on a ribbon, around `centre` but not beyond its ends."""
    name = ribbon.text(centre, 0.46, text, va="center", ha="center", size=9, **style)
    half = _half_width(name)
    name.set_x(min(max(centre, 1.2 * half), 1 - 1.2 * half))
    return name


def _half_width(text: Text) -> float:
    """Return half of a text's width, as a fraction of its ribbon."""
    assert text.axes is not None
    return text.get_window_extent().width / text.axes.bbox.width / 2


def _draw_legend(figure: Figure, losses: Axes) -> None:
    """List each kind of mark under the plot: the sweeps, then the others."""
    entries = panels.legend_entries(losses)
    if BAND in entries:
        entries[SMOOTH] = (entries.pop(BAND), entries.pop(SMOOTH))  # one on top of the other
    others = {label: entries.pop(label) for label in (SMOOTH, SKIPPED, BEYOND) if label in entries}
    for row, bottom in ((entries, 0.045), (others, 0.008)):
        style: dict[str, Any] = {"ncols": max(len(row), 1), "frameon": False, "markerscale": 1.4}
        anchor = (0.5, _up(figure, bottom))
        figure.legend([*row.values()], [*row], loc="lower center", bbox_to_anchor=anchor, **style)
