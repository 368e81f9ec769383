"""What every panel of a plot has in common: its axes, its frame, the title above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.markers import CARETDOWN, CARETUP
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from lrtool.config.spelling import number
from lrtool.show import words
from lrtool.show.plots.canvas import BEYOND, GREY, INK, RULE, drawable, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from lrtool.report.records import Steps
    from lrtool.show.plots.span import Span


def number_axis(axes: Axes, ticks: int = 6) -> str:
    """Put plain numbers on a linear y axis and return their common factor, "1e−9", or ""."""
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_powerlimits((-4, 6))
    axes.yaxis.set_major_locator(MaxNLocator(ticks))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.get_offset_text().set_visible(False)  # the label says it
    formatter.set_locs(axes.get_yticks().tolist())
    return formatter.get_offset()


def say(axes: Axes, text: str) -> None:
    """Write in the middle of a panel that has nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", size=12)
    axes.set_yticks([])


def legend_entries(axes: Axes) -> dict[str, Any]:
    """Return the first handle of each label."""
    entries: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        entries.setdefault(label, handle)
    return entries


def open_frame(axes: Axes) -> None:
    """Draw a faint grid beneath the data and only the left and the lower edge."""
    axes.grid(color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)


def set_y(axes: Axes, limits: Span, ticks: int = 6) -> str:
    """Set the y axis; return what the panel's title must add."""
    if limits.log:
        axes.set_yscale("log")
        axes.set_ylim(limits.bottom, limits.top)
        wide = limits.top > 1e3 * limits.bottom
        subs = (1.0,) if wide or ticks < 6 else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=ticks + 3))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.rate(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return " (log scale)"
    axes.set_ylim(limits.bottom, limits.top)
    unit = number_axis(axes, ticks)
    return f" (× {unit})" * bool(unit)


def set_rates_y(axes: Axes, limits: Span) -> str:
    """Set the y axis of a small panel of learning rates; return what its title must add."""
    unit = set_y(axes, limits, ticks=3)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 6)))
    return unit * limits.log  # no common factor: each tick is spelled whole


def rate_axis(axes: Axes) -> None:
    """Spell learning rates under an x axis: decades on a long log scale, or round numbers."""
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    left, right = axes.get_xlim()
    if axes.get_xscale() == "log" and right > 30 * left:
        axes.xaxis.set_major_locator(LogLocator(numticks=13))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.rate(value)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 6)))


def count(axes: Axes) -> None:
    """Spell whole numbers under an x axis."""
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def rate_levels(steps: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps and rates to draw as levels, each from the update before to its own."""
    x, lr = np.array(steps.step, dtype=float), np.array(steps.lr, dtype=float)
    return np.append(x - 1, x[-1:]), np.append(lr, lr[-1:])


def mark_edges(
    axes: Axes, x: NDArray[np.float64], values: NDArray[np.float64], limits: Span, color: str
) -> None:
    """Mark values beyond the axis, or NaN, at its edge."""
    style: dict[str, Any] = {"ms": 5, "mew": 0, "ls": "none", "color": color, "clip_on": False}
    style |= {"transform": axes.get_xaxis_transform(), "label": BEYOND}
    above, below = np.isnan(values) | (values > limits.top), values < limits.bottom
    for there, height, marker in ((above, 0.985, CARETUP), (below, 0.015, CARETDOWN)):
        if there.any():
            axes.plot(x[there], np.full(there.sum(), height), marker=marker, **style)


def write_title(axes: Axes, left: str, right: str = "") -> None:
    """Write a bold title above a panel, and a grey remark at its right end."""
    style: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "parse_math": False}
    at = 1 + 0.07 / (axes.bbox.height / axes.figure.dpi)
    axes.text(0, at, drawable(shortened(left, 70)), weight="bold", ha="left", **style)
    axes.text(1, at, right, color=GREY, ha="right", **style)
