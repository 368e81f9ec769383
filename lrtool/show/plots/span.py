"""Which range of values a panel shows, and on which scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.show.plots.limits import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lrtool.report.report import TrainReport

FEW = 5  # steps: fewer before the rise are no training to look at
WIDE = 50  # a largest value so many times the smallest is drawn on a log scale


@dataclass(frozen=True, slots=True)
class Span:
    """The ends of a y axis, and whether it is logarithmic."""

    bottom: float
    top: float
    log: bool


def span(core: NDArray[np.float64], values: NDArray[np.float64] | None = None) -> Span:
    """Return an axis that holds all of `core`, and as much of `values` as lies near it.

    Args:
        core: what must be seen; NaN and infinity are left out.
        values: what may lie beyond the axis: half of the core's range is added for it at most, or
            the core's size if it has no range.
    """
    core = core[np.isfinite(core)]
    values = core if values is None else values[np.isfinite(values)]
    if not core.size:
        core = values
    if not core.size:
        return Span(0.0, 1.0, log=False)
    if not values.size:  # such as norms of gradients that are all NaN, beside their limit
        values = core
    log = bool(min(core.min(), values.min()) > 0 and core.max() / core.min() > WIDE)
    if log:
        core, values = np.log10(core), np.log10(values)
    reach = 0.5 * (core.max() - core.min()) or abs(core.max())
    bottom = min(max(values.min(), core.min() - reach), core.min())
    top = max(min(values.max(), core.max() + reach), core.max())
    margin = 0.06 * (top - bottom) or 0.05 * (abs(top) or 1.0)
    bottom, top = float(bottom - margin), float(top + margin)
    return Span(10**bottom, 10**top, log=True) if log else Span(bottom, top, log=False)


def of_losses(report: TrainReport) -> Span:
    """Return an axis for a training's losses that neither spikes nor a diverged end squash.

    It shows every epoch's losses, 98% of the steps' and the first one, but none above the
    `ceiling`. If a training diverged after a fifth of its steps or more, only the losses up to the
    smallest count. If it rose from the start, its rise is shown, on a log scale.
    """
    steps = numbers(report.steps.loss)
    epochs = np.array(
        [numbers((epoch.train_loss, epoch.validation_loss)) for epoch in report.epochs]
    ).reshape(-1, 2)
    everything = np.concatenate((steps, epochs.ravel()))
    if report.status == "diverged" and np.isfinite(steps).any():
        least = int(np.nanargmin(steps))
        rise = everything[np.isfinite(everything)]
        if least + 1 < max(FEW, 0.2 * steps.size) and rise.max() > WIDE * rise.min() > 0:
            return span(rise)
        if least + 1 >= 0.2 * steps.size:
            before = report.steps.step[least]
            steps = steps[: least + 1]
            epochs = epochs[[epoch.step <= before for epoch in report.epochs]]
    highest = ceiling(report)
    steps = steps[np.isfinite(steps) & (steps <= highest)]
    epochs = epochs[epochs <= highest]
    if steps.size:
        low, high = np.quantile(steps, (0.01, 0.99))
        steps = np.array((min(steps[0], low), high))
    return span(np.concatenate((steps, epochs)), everything)


def ceiling(report: TrainReport) -> float:
    """Return the loss above which a training has blown up; infinity if no step was finite.

    Ten times the loss of the first step; or ten times the median loss, if that is larger and the
    training did not diverge.
    """
    steps = numbers(report.steps.loss)
    steps = steps[np.isfinite(steps)]
    if not steps.size:
        return np.inf
    sane = steps[0] if report.status == "diverged" else max(steps[0], np.median(steps))
    return float(sane + 9 * abs(sane))


def of_rates(rates: NDArray[np.float64]) -> Span:
    """Return an axis for learning rates: logarithmic if a linear one would hide most of them."""
    if not rates.size:
        return Span(0.0, 1.0, log=False)
    low, middle, high = rates.min(), np.median(rates), rates.max()
    if low > 0 and middle - low < 0.1 * (high - low) and high / low > WIDE:
        return span(rates)
    top = float(high) * 1.08 or 1.0
    return Span(-0.05 * top, top, log=False)
