"""The smoothed curve as a small plot of characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from uniplot import plot_to_string

from lrtool.config.spelling import number
from lrtool.show import words
from lrtool.show.plots.limits import Limits, choose, numbers

if TYPE_CHECKING:
    from lrtool.report.records import Suggestion
    from lrtool.report.report import FindReport

HEIGHT = 10  # lines of the plotting region
LABEL = 8  # columns for a rate below the frame
LOSSES = 11  # columns for the frame and the losses beside it
FRAME = str.maketrans("│─┌┐└┘━▲×", "|-++++=^x")


def draw(report: FindReport, width: int, *, ascii_only: bool = False) -> str | None:
    """Draw the curve with the suggestion as a vertical line, its interval below.

    Args:
        report: any report.
        width: columns to fill, at most 100.
        ascii_only: for terminals without UTF-8.

    Returns:
        Lines of text, or None without a curve to draw.
    """
    if report.curve is None or len(report.curve.lr) < 2:
        return None
    limits, suggestion = choose(report), report.suggestion
    x = np.array([limits.fraction(lr) for lr in report.curve.lr])
    y = numbers(report.curve.loss)
    if not np.isfinite(y).any():
        return None
    width = max(min(width, 100), 30)
    largest = max(abs(limits.bottom), abs(limits.top))
    unit = 1.0 if 1e-3 <= largest < 1e6 else 10.0 ** np.floor(np.log10(largest))
    picture = plot_to_string(
        xs=x[np.isfinite(y)],
        ys=y[np.isfinite(y)] / unit,
        lines=True,
        width=width - LOSSES,
        line_length_hard_cap=width,  # long losses leave less for the curve
        height=HEIGHT,
        x_min=0.0,
        x_max=1.0,
        y_min=limits.bottom / unit,
        y_max=limits.top / unit,
        x_gridlines=[limits.fraction(suggestion.lr)] if suggestion and suggestion.lr else [],
        y_gridlines=[],
        x_labels=False,
        color=False,
        character_set="ascii" if ascii_only else "braille",
    )
    lines = picture.splitlines()
    columns = len(lines[0]) - 2
    scale = f" (× {number(unit, 1)})" if unit != 1 else ""
    lines = [f"loss over learning rate{scale}", *lines, " " + _rates(limits, columns)]
    if suggestion and suggestion.lr:
        lines.insert(-1, " " + _marker(suggestion, suggestion.lr, limits, columns))
    text = "\n".join(line.rstrip() for line in lines)
    return text.translate(FRAME) if ascii_only else text


def _rates(limits: Limits, columns: int) -> str:
    """Write rates under their columns: decades, as many as fit, or fifths of the axis."""
    ticks = []
    if limits.log:
        first, last = int(np.ceil(np.log10(limits.left))), int(np.log10(limits.right) // 1)
        stride = -((last - first + 1) * LABEL // -columns)  # rounded up
        ticks = [10.0**power for power in range(first, last + 1) if power % stride == 0]
    if len(ticks) < 2:  # a linear axis, or less than two decades
        spaced = np.geomspace if limits.log else np.linspace
        ticks = spaced(limits.left, limits.right, 6)[1:-1].tolist()
    line = ""
    for tick in ticks:
        label = words.rate(tick)
        start = max(_column(tick, limits, columns) - len(label) // 2, 0)
        if start > len(line) or not line:
            line = line.ljust(start) + label
    return line


def _marker(suggestion: Suggestion, lr: float, limits: Limits, columns: int) -> str:
    """Draw the interval and point at the rate: ━━▲━ 0.0032."""
    here = _column(lr, limits, columns)
    low = _column(suggestion.low, limits, columns) if suggestion.low else here
    high = _column(suggestion.high, limits, columns) if suggestion.high else here
    bar = "━" * (here - low) + "▲" + "━" * (high - here)
    label = words.rate(lr)
    if high + 1 + len(label) < columns:
        return " " * low + f"{bar} {label}"
    return f"{label} ".rjust(low) + bar


def _column(lr: float, limits: Limits, columns: int) -> int:
    return min(int(limits.fraction(lr) * columns), columns - 1)
