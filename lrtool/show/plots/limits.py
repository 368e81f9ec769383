"""Which part of the losses a plot shows: a diverged tail must not squash the descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lrtool.report.report import FindReport

LARGEST = 1e150  # squares of larger differences overflow


@dataclass(frozen=True, slots=True)
class Limits:
    """The ends of both axes, and whether the rate's is logarithmic."""

    left: float
    right: float
    bottom: float
    top: float
    log: bool

    def fraction(self, lr: float) -> float:
        """Return where `lr` lies between the left end, 0, and the right end, 1."""
        left, right, here = self.left, self.right, lr
        if self.log:
            left, right, here = np.log10([left, right, here])
        return float((here - left) / (right - left))


def choose(report: FindReport) -> Limits:
    """Choose axes that hold every rate, the suggestion, and the losses around the descent."""
    rates = [rate for sweep in report.sweeps for rate in sweep.lr]
    suggestion = report.suggestion
    if suggestion:
        rates += [
            rate for rate in (suggestion.lr, suggestion.low, suggestion.high) if rate is not None
        ]
    left, right = (min(rates), max(rates)) if rates else (1e-5, 1.0)
    log = not any(_is_linear(sweep.lr) for sweep in report.sweeps)
    if log:
        margin = (right / left) ** 0.02 if right > left else 10.0
        left, right = left / margin, right * margin
    else:
        margin = 0.02 * (right - left)
        left, right = left - margin, right + margin
    bottom, top = _losses(report)
    return Limits(left, right, bottom, top, log=log)


def _is_linear(rates: tuple[float, ...]) -> bool:
    steps = np.diff(rates)
    return steps.size >= 2 and bool(np.allclose(steps, steps[0], rtol=1e-3, atol=0))


def _losses(report: FindReport) -> tuple[float, float]:
    """Choose the range of the losses before the curve's minimum, and half as much around it.

    That is enough to see divergence begin.
    """
    lr = np.array([rate for sweep in report.sweeps for rate in sweep.lr])
    loss = numbers([loss for sweep in report.sweeps for loss in sweep.loss])
    lr, loss = lr[np.isfinite(loss)], loss[np.isfinite(loss)]
    if not loss.size:
        return 0.0, 1.0
    curve = numbers(report.curve.loss) if report.curve else np.empty(0)
    before = np.zeros(lr.size, dtype=bool)
    if report.curve and np.isfinite(curve).any():
        before = lr <= report.curve.lr[int(np.nanargmin(curve))]
    if before.mean() >= 0.2:
        low, high = np.quantile(loss[before], (0.01, 0.99))
    else:  # only the lower half of the losses tells where a diverged tail begins
        low, middle, high = np.quantile(loss, (0.01, 0.5, 0.99))
        high = min(high, middle + 2 * (middle - low))
    reach = 0.5 * (high - low)
    bottom, top = max(loss.min(), low - reach), min(loss.max(), high + reach)
    margin = 0.06 * (top - bottom) or 0.05 * max(abs(top), 1.0)
    return float(bottom - margin), float(top + margin)


def numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Return an array: NaN for null and what is not finite, infinity for what is too large."""
    array = np.array(values, dtype=np.float64)
    array[~np.isfinite(array)] = np.nan  # report.json does not tell which it was
    return np.where(np.abs(array) > LARGEST, np.copysign(np.inf, array), array)
