"""Landmarks of a smoothed curve, and the literature's rules, all in log lr.

Any reader of the plot would point at an anchor. It is not the best rate: how far that lies from it
depends on the optimizer (see `combine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.report.records import MethodSuggestion

if TYPE_CHECKING:
    from lrtool.curve.smooth import Array, Fit

SIGNIFICANT = 5.0  # standard deviations by which the loss must fall somewhere
SIGNIFICANT_END = 4.0  # or rise at the end: at one place less happens by chance
BASIN = 0.05  # share of the descent by which the basin around the lowest loss rises above it
SLIDE_WIDTH = 1.2  # decades: 15 steps of a sweep of 100 steps over 8 decades
SLIDE_TOLERANCE = 0.03  # share of the descent, per decade; 0.005 a step where a loss falls by 2
RULES = ("valley", "slide", "steep", "minimum")


@dataclass(frozen=True, slots=True)
class Anchors:
    """Places on one curve, as log10 of a rate; None where the curve does not have them.

    Attributes:
        initial: the loss before training, from the plateau at the smallest rates.
        descent: how far the loss fell below it; 0 if that is no more than noise.
        start: where the loss has fallen by a tenth of the descent, for good.
        steepest: the fastest fall per decade, between start and minimum.
        valley: the middle of the fall, half-way between start and minimum.
        minimum: the middle of the basin in which the loss is within 5% of the descent from its
            lowest. Where in a flat basin the very lowest point lies is noise.
        rise: the rate beyond the minimum at which the loss has first risen by half of the descent;
            None if the sweep ends before.
        divergence: the rate beyond the minimum above which the loss exceeds the initial loss; None
            if the sweep ends before.
    """

    initial: float
    descent: float
    start: float | None = None
    steepest: float | None = None
    valley: float | None = None
    minimum: float | None = None
    rise: float | None = None
    divergence: float | None = None


def locate(fit: Fit, loss: Array) -> Anchors:
    """Return the anchors of `loss`, the curve of `fit` or one of its replicates, shape (G,)."""
    log_lr = fit.log_lr
    lowest = int(np.argmin(loss))
    initial = float(np.median(loss[: lowest // 4 + 1]))
    descent = initial - float(loss[lowest])
    if descent <= SIGNIFICANT * float(np.hypot(fit.noise[lowest], fit.noise[lowest // 8])):
        # no descent: a plateau, up to where the loss rises for good, if it does
        initial = float(min(np.median(loss), np.median(loss[: loss.size // 10 + 1])))
        rises = loss[-1] - initial > SIGNIFICANT_END * fit.noise[-1]
        level = initial + 3 * float(np.median(fit.noise))
        return Anchors(
            initial, 0.0, divergence=_last_crossing(log_lr, loss, level) if rises else None
        )
    rim = float(loss[lowest]) + BASIN * descent
    higher = np.flatnonzero(loss[lowest:] > rim)
    x, y = log_lr[: lowest + 1], loss[: lowest + 1]
    right = float(log_lr[lowest + higher[0]] if higher.size else log_lr[-1])
    minimum = (_last_crossing(x, y, rim) + right) / 2
    start = _last_crossing(x, y, initial - 0.1 * descent)
    falling = x >= start
    rise: float | None = None
    half = float(loss[lowest]) + descent / 2
    risen = np.flatnonzero(loss[lowest:] > half)
    if risen.size:
        end = lowest + int(risen[0]) + 1
        rise = _last_crossing(log_lr[lowest:end], loss[lowest:end], half)
    divergence: float | None = None
    high = np.flatnonzero(loss[lowest:] > (initial + fit.ceiling) / 2)
    if high.size:
        # the last place: noise, or a short burst of high losses, may cross the level before
        end = lowest + int(high[-1]) + 1
        divergence = _last_crossing(log_lr[lowest:end], loss[lowest:end], initial)
    elif fit.blew_up:
        divergence = float(log_lr[-1])  # NaN or infinity without a rise before
    return Anchors(
        initial=initial,
        descent=descent,
        start=start,
        steepest=float(x[falling][np.argmin(np.gradient(loss, log_lr)[: lowest + 1][falling])]),
        valley=(start + minimum) / 2,
        minimum=minimum,
        rise=rise,
        divergence=divergence,
    )


def rules(fit: Fit, loss: Array) -> dict[str, float | None]:
    """Return log10 of the rate that each rule of the literature gives for `loss`, shape (G,).

    * valley: the middle of the longest valley, the stretch over which the loss falls (fastai's
      default since pull request 3377, after ESRI's ArcGIS).
    * slide: an interval of fixed width slides down from the largest rate until the slopes at its
      two ends agree; its lower end (Novetta's interval slide rule, in fastai).
    * steep: the steepest descent (Smith 2018, arXiv 1803.09820, and fastai).
    * minimum: a tenth of the rate with the lowest loss (fastai).

    All four are None where the loss did not fall.
    """
    anchors = locate(fit, loss)
    if anchors.minimum is None:
        return dict.fromkeys(RULES)
    return {
        "valley": anchors.valley,
        "slide": _slide(fit.log_lr, loss, anchors.descent),
        "steep": anchors.steepest,
        "minimum": anchors.minimum - 1,
    }


def suggestions(fit: Fit) -> dict[str, MethodSuggestion]:
    """Return what each rule of the literature says about the smoothed curve."""
    reason = "the loss never fell clearly below its initial value"
    if locate(fit, fit.loss).minimum is not None:  # all rules but slide then have a rate
        reason = f"the slopes at the ends of an interval of {SLIDE_WIDTH:g} decades never agree"
    return {
        name: MethodSuggestion(None, reason) if rate is None else MethodSuggestion(10.0**rate)
        for name, rate in rules(fit, fit.loss).items()
    }


def _last_crossing(log_lr: Array, loss: Array, level: float) -> float:
    """Return the last place where the curve crosses `level`, or its first rate if it never does."""
    above = loss > level
    changes = np.flatnonzero(above[1:] != above[:-1])
    if not changes.size:
        return float(log_lr[0])
    i = int(changes[-1])
    share = (level - loss[i]) / (loss[i + 1] - loss[i])
    return float(log_lr[i] + share * (log_lr[i + 1] - log_lr[i]))


def _slide(log_lr: Array, loss: Array, descent: float) -> float | None:
    slope = np.gradient(loss, log_lr)
    right = log_lr >= log_lr[0] + SLIDE_WIDTH
    left = log_lr[right] - SLIDE_WIDTH
    difference = (slope[right] - np.interp(left, log_lr, slope))[::-1]
    agree = np.abs(difference) <= SLIDE_TOLERANCE * descent
    agree[1:] |= np.sign(difference[1:]) != np.sign(difference[:-1])  # passed between two points
    return float(left[::-1][np.argmax(agree)]) if agree.any() else None
