"""From anchors of the curve and the first update to an estimate of the best rate.

Each anchor plus its optimizer's offset estimates the logarithm of the best rate. Their errors
correlate. The estimate is the weighted mean of least variance (best linear unbiased estimator;
Bates & Granger 1969, "The combination of forecasts"), with no weight below 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.curve import constants as c

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from lrtool.curve.anchors import Anchors
    from lrtool.curve.constants import Constants
    from lrtool.report.records import FirstUpdate

FIRST_UPDATE = ("critical", "ratio")  # anchors from the first update
MISLED = 1.0  # decades by which the first update's estimate may lie above the curve's
CONTRADICTION = 2.0  # decades between the estimate and the optimizer's usual rate


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of log10 of the best rate.

    Attributes:
        mean: the estimate.
        spread: its standard deviation, decades.
        key: the optimizer, family or "pooled" whose constants it was made with.
        conflict: decades to the optimizer's usual rate where the two contradict each other, else 0.
    """

    mean: float
    spread: float
    key: str
    conflict: float = 0.0


def places(anchors: Anchors | None, first: FirstUpdate | None) -> dict[str, float]:
    """Return log10 of the rate at each anchor that there is, by the names of the constants."""
    log_lr: dict[str, float | None] = {}
    if anchors is not None:
        log_lr |= {name: getattr(anchors, name) for name in ("minimum", "rise", "divergence")}
    if first is not None:
        log_lr |= {"critical": _log(first.critical_lr), "ratio": _log(first.ratio_lr)}
    return {name: place for name, place in log_lr.items() if place is not None}


def estimate(
    anchors: Mapping[str, float],
    *,
    per_decade: float,
    optimizer: str | None,
    family: str | None,
    level: float,
    steps: int | None,
    opening: float = 1.0,
    constants: Constants | None = None,
) -> Estimate | None:
    """Combine anchors; without any, take the optimizer's usual rate, if known.

    Args:
        anchors: log10 of the rate at each anchor.
        per_decade: steps of a sweep per decade of rate.
        optimizer: a lower-case name, such as "adamw", "sgd" or "sgd_momentum".
        family: "adaptive" (the update does not grow with the gradient) or "proportional", used
            for an optimizer that is not known by name.
        level: the mean of the training's schedule, as a share of its base rate: 1 if it is
            constant, 1/2 for a cosine. A schedule that stays high needs a lower rate.
        steps: of the training; None: not known.
        opening: the size of the first update over that of later ones. It corrects the adaptive
            family alone, whose known members have none larger.
        constants: those of this version by default.
    """
    constants = constants or c.fitted()
    known, key = knowledge(optimizer, family, constants)
    density = np.log10(per_decade / c.PER_DECADE)
    shift = constants.held[key] * held(level) + constants.length * lengthening(steps)
    if key == "adaptive":
        anchors = {
            name: place + np.log10(opening) if name in FIRST_UPDATE else place
            for name, place in anchors.items()
        }
    means = {
        name: anchors[name]
        + constants.offsets[name][key]
        + constants.density.get(name, 0.0) * density
        for name in constants.anchors
        if name in anchors
    }
    prior = constants.offsets["prior"].get(key)
    if not means:
        if prior is None:
            return None
        return Estimate(prior + shift, constants.spreads[known]["prior"], key)
    curve = {name: mean for name, mean in means.items() if name not in FIRST_UPDATE}
    first = {name: mean for name, mean in means.items() if name in FIRST_UPDATE}
    gap = 0.0
    if first and curve.keys() & {"rise", "divergence"}:  # it has seen rates that are too high
        gap = _combined(first, known, constants)[0] - _combined(curve, known, constants)[0]
    # Where few parameters have a gradient at first, the first update bears a rate far too high.
    mean, spread = _combined(curve if gap > MISLED else means, known, constants)
    distance = 0.0 if prior is None else prior - mean
    conflict = distance if abs(distance) > CONTRADICTION else 0.0
    return Estimate(mean + shift, spread, key, conflict)


def held(level: float) -> float:
    """Return how far a schedule is from one that falls (0) to a constant one (1).

    Args:
        level: its mean, as a share of its base rate.
    """
    return min(max(2 * level - 1, 0.0), 1.0)


def lengthening(steps: int | None) -> float:
    """Return by how many decades a training is longer than those of the constants."""
    return float(np.log10(steps / c.STEPS)) if steps else 0.0


def knowledge(optimizer: str | None, family: str | None, constants: Constants) -> tuple[str, str]:
    """Return which row of `spreads` and which of `offsets` to use."""
    name = canonical(optimizer)
    if name is not None and name in constants.offsets["prior"]:
        return "optimizer", name
    family = c.FAMILIES.get(name, family) if name is not None else family
    return ("family", family) if family is not None else ("pooled", "pooled")


def canonical(optimizer: str | None) -> str | None:
    """Return the optimizer of the development cells that `optimizer` resembles, or its name."""
    if optimizer is None:
        return None
    name = optimizer.lower().replace("+", "_")
    return c.ALIKE.get(name, name)


def _log(rate: float | None) -> float | None:
    return None if rate is None else float(np.log10(rate))


def _combined(
    estimates: Mapping[str, float], level: str, constants: Constants
) -> tuple[float, float]:
    """Return the mean of least variance with weights of at least 0, and its standard deviation."""
    names, means = list(estimates), list(estimates.values())
    rows = [constants.anchors.index(name) for name in names]
    spreads = np.array([constants.spreads[level][name] for name in names])
    covariance = np.array(constants.correlation)[np.ix_(rows, rows)] * np.outer(spreads, spreads)
    kept = list(range(len(names)))
    while True:
        inverse: NDArray[np.float64] = np.linalg.inv(covariance[np.ix_(kept, kept)])
        weights = inverse.sum(axis=1) / inverse.sum()
        if len(kept) == 1 or weights.min() >= 0:
            mean = float(weights @ np.array(means)[kept])
            return mean, float(1 / np.sqrt(inverse.sum()))
        kept.pop(int(np.argmin(weights)))
