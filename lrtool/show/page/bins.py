"""Long series in few points, of which no extreme is lost."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def size_of(points: int, most: int) -> int:
    """Return how many neighbours make a bin, so that there are at most so many bins."""
    return max(-(-points // most), 1)


def binned(
    x: Sequence[float],
    y: Floats,
    most: int,
    low: Floats | None = None,
    high: Floats | None = None,
) -> dict[str, Any]:
    """Return x, y, low and high of a `Series` of at most `most` points, and the last one.

    Each point is the first one of its bin; the band reaches from the lowest value in the bin to the
    highest. A bin with a value that is no number is none itself. Without need of bins there is no
    band, unless one is given.

    Args:
        x: where the values are.
        y: the values.
        most: points.
        low: the lowest value that each y stands for already; None: y itself.
        high: the highest.
    """
    size = size_of(len(x), most)
    if size == 1 and low is None:
        return {"x": list(x), "y": y.tolist()}
    low, high = y if low is None else low, y if high is None else high
    if not len(x):
        return {"x": [], "y": []}
    starts = np.arange(0, len(x), size)
    with np.errstate(invalid="ignore"):
        sound = np.isfinite(low) & np.isfinite(high) & np.isfinite(y)
        whole = np.logical_and.reduceat(sound, starts)
        lowest = np.where(whole, np.minimum.reduceat(low, starts), np.nan)
        highest = np.where(whole, np.maximum.reduceat(high, starts), np.nan)
    shown, bins = starts, np.arange(len(starts))
    if starts[-1] != len(x) - 1:
        shown, bins = np.append(starts, len(x) - 1), np.append(bins, bins[-1])
    return {
        "x": [x[index] for index in shown.tolist()],
        "y": np.where(whole[bins], y[shown], np.nan).tolist(),
        "low": [None if isnan(value) else value for value in lowest[bins].tolist()],
        "high": [None if isnan(value) else value for value in highest[bins].tolist()],
    }


def some_of(count: int, most: int, always: Sequence[int] = ()) -> list[int]:
    """Return indices of a long table: the first, the last, every n-th, and those of `always`."""
    if not count:
        return []
    stride = size_of(count, most)
    return sorted({*range(0, count, stride), count - 1, *always})
