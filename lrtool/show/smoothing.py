"""Noisy values made smooth, for the eye alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTH = 15  # a running mean goes over one in so many of the steps


def running_mean(loss: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the mean over a window around each of `steps`.

    It is narrower at the start, where a loss falls fast. At the end it only goes back, since a few
    noisy losses would look like a last dip.

    NaN and infinity make all means NaN that hold one, and those after them.
    """
    reach = max(steps // SMOOTH, 1) // 2
    sums = np.cumsum(np.append(0.0, np.where(np.isfinite(loss), loss, np.nan)))
    here = np.arange(loss.size)
    before = np.minimum(here, reach)
    after = np.minimum(before, loss.size - 1 - here)
    totals = sums[here + after + 1] - sums[here - before]
    mean: NDArray[np.float64] = totals / (before + after + 1)
    return mean
