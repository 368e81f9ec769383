"""Noisy values made smooth, for the eye alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTH = 15  # a running mean goes over one in so many of the steps


def running_mean(loss: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the mean over a window around each of `steps`, narrower at the ends.

    NaN and infinity make all means NaN that hold one, and those after them.
    """
    reach = max(steps // SMOOTH, 1) // 2
    sums = np.cumsum(np.append(0.0, np.where(np.isfinite(loss), loss, np.nan)))
    here = np.arange(loss.size)
    near = np.minimum(np.minimum(here, loss.size - 1 - here), reach)
    mean: NDArray[np.float64] = (sums[here + near + 1] - sums[here - near]) / (2 * near + 1)
    return mean
