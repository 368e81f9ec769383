"""When a sweep has to stop: a pure function of the raw losses so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from lrtool.report.records import StopReason

RUN = 3  # steps in a row above the ceiling: one or two wild batches do not stop a sweep
OPENING = 5  # steps whose median is the initial loss
NOISES = 10.0  # height of the ceiling above the initial loss, at least, in units of batch noise
STUCK = 8  # skipped steps in a row with losses that are not finite: the forward pass overflows
NEAR = 5  # steps on each side of one, over which its noise is taken
GROWN = 4.0  # times the opening's noise, halfway: a network that says nothing at first
SILENT = 0.01  # share of the initial loss up to which the noise of such a network grows
RESOLUTION = 32 * float(np.finfo(np.float32).eps)  # losses are computed in float32


def find_stop(
    losses: Sequence[float] | NDArray[np.float64],
    skipped: ArrayLike | None = None,
    without_targets: ArrayLike | None = None,
) -> tuple[int, StopReason] | None:
    """Return the first step at which a sweep must stop, and why; None if it may go on.

    A sweep stops at the first step t with

        loss[t−2], loss[t−1], loss[t] > initial + max(initial − best, 10 noise),

    where everything on the right comes from the losses up to t. So every prefix that contains t
    gives the same answer. Scaling the losses by a positive factor or shifting them changes nothing:
    negative losses are fine. The loss may rise above its initial value by as much as it fell.

    Args:
        losses: the raw losses of the steps so far, before each update, in the order of the steps.
        skipped: which steps the gradient scaler skipped, one for each loss; none by default. Their
            losses are ignored, but 8 in a row that are not finite are a divergence: the forward
            pass overflows, and no scale can help.
        without_targets: which steps have no loss, as all of their targets are ignored; none by
            default. They are as if they had not been made.
    """
    values = np.asarray(losses, dtype=float)
    steps = np.arange(values.size)
    if without_targets is not None:
        steps = np.flatnonzero(~np.asarray(without_targets, dtype=bool))
    stuck = None
    if skipped is not None:
        marks = np.asarray(skipped, dtype=bool)[steps]
        late = _stuck(marks & ~np.isfinite(values[steps]))
        stuck = None if late is None else int(steps[late])
        steps = steps[~marks]
    stop = _first(values[steps], steps)
    if stuck is None or (stop is not None and stop[0] < stuck):
        return stop
    return stuck, "diverged"


def _stuck(lost: NDArray[np.bool_]) -> int | None:
    """Return the first step that completes a run of lost ones."""
    if lost.size < STUCK:
        return None
    runs = np.convolve(lost, np.ones(STUCK, dtype=int), mode="valid") == STUCK
    return int(np.argmax(runs)) + STUCK - 1 if runs.any() else None


def _first(values: NDArray[np.float64], steps: NDArray[np.intp]) -> tuple[int, StopReason] | None:
    """Return the first of `steps`, with losses `values`, at which the sweep must stop."""
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        first = int(broken[0])
        diverged = _diverged(values[:first])
        if diverged is None:
            return int(steps[first]), "nan" if np.isnan(values[first]) else "inf"
        return int(steps[diverged]), "diverged"
    diverged = _diverged(values)
    return None if diverged is None else (int(steps[diverged]), "diverged")


def _diverged(losses: NDArray[np.float64]) -> int | None:
    """Return the index of the first of the finite `losses` that completes a divergence."""
    if losses.size <= OPENING:
        return None
    # the first loss counts too: a sweep that diverges at once has no other sound one
    initial = min(float(np.median(losses[:OPENING])), float(losses[0]))
    # max and min over runs of three: a single spike, up or down, moves neither
    a, b, c = losses[:-2], losses[1:-1], losses[2:]
    lowest = np.minimum(np.minimum(a, b), c)
    best = np.minimum.accumulate(np.maximum(np.maximum(a, b), c))
    with np.errstate(over="ignore", invalid="ignore"):  # of losses near the largest number
        noise = np.maximum(_noise(losses)[: lowest.size], RESOLUTION * abs(initial))
        above = lowest > initial + np.maximum(initial - best, NOISES * noise)
    above[: OPENING - RUN + 1] = False  # the initial loss is known from the fifth step on
    return int(np.argmax(above)) + RUN - 1 if above.any() else None


def _noise(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise of a batch before each loss, from the differences between earlier ones.

    They end before the run of three that begins there, so that a divergence does not count as
    noise. The fourth power of the mean fourth root is 0.86 standard deviations for normal noise and
    hardly moves with a spike; a running median would be slow.

    A network may say nothing at first, as one with a head of zeros. Then all batches have the same
    loss, and their noise grows with the weights: only the latest tells.
    """
    total = np.append(0.0, np.cumsum(np.sqrt(np.sqrt(np.abs(np.diff(losses))))))

    def between(first: NDArray[np.intp] | int, end: NDArray[np.intp]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = (total[end] - total[first]) / (end - first)
        return mean**4

    end = np.arange(1, losses.size)
    middle = end // 2
    opening = between(0, np.minimum(NEAR, end))
    halfway = between(np.maximum(middle - NEAR, 0), np.minimum(middle + NEAR, end))
    lately = between(np.maximum(end - 2 * NEAR, 0), end)
    silent = halfway > GROWN * opening
    grown = np.where(silent, np.minimum(lately, SILENT * abs(losses[0])), 0.0)
    return np.append(np.inf, np.maximum(between(0, end), grown))
