"""Long series in few points, of which no extreme is lost."""

from __future__ import annotations

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
    """Return x, y, low and high of a `Series` of at most `most` points.

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
    starts = np.arange(0, len(x), size)
    first = y[starts] if len(x) else y
    with np.errstate(invalid="ignore"):
        sound = np.isfinite(low) & np.isfinite(high) & np.isfinite(y)
        whole = np.logical_and.reduceat(sound, starts) if len(x) else sound
        least = np.minimum.reduceat(low, starts) if len(x) else low
        most_of = np.maximum.reduceat(high, starts) if len(x) else high
    return {
        "x": [x[index] for index in starts.tolist()],
        "y": np.where(whole, first, np.nan).tolist(),
        "low": [v if ok else None for v, ok in zip(least.tolist(), whole.tolist(), strict=True)],
        "high": [v if ok else None for v, ok in zip(most_of.tolist(), whole.tolist(), strict=True)],
    }


def some_of(count: int, most: int, always: Sequence[int] = ()) -> list[int]:
    """Return indices of a long table: the first, the last, every n-th, and those of `always`."""
    if not count:
        return []
    stride = size_of(count, most)
    return sorted({*range(0, count, stride), count - 1, *always})
