"""Anchors of the curve, the first update and what is known of the optimizer → the best rate.

Each anchor plus its offset estimates the logarithm of the best rate. Their errors correlate, and
the estimate is the one of least variance among their weighted means (best linear unbiased
estimator; Bates & Granger 1969, "The combination of forecasts"), none with a weight below 0.
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
    from lrtool.records import FirstUpdate

PRIOR_FULL, PRIOR_NONE = 1.0, 2.0  # decades between anchors and prior: full weight, no weight


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of log10 of the best rate.

    Attributes:
        mean: the estimate.
        spread: its standard deviation, decades.
        conflict: decades from the prior to the anchors where they contradict each other, else 0.
    """

    mean: float
    spread: float
    conflict: float


def places(anchors: Anchors | None, first: FirstUpdate | None) -> dict[str, float]:
    """Return log10 of the rate at each anchor that there is, by the names of the constants."""
    found: dict[str, float | None] = {}
    if anchors is not None:
        found |= {
            "minimum": anchors.minimum,
            "rise": anchors.rise,
            "divergence": anchors.divergence,
        }
    if first is not None:
        found |= {"critical": _log(first.critical_lr), "ratio": _log(first.ratio_lr)}
    return {name: place for name, place in found.items() if place is not None}


def estimate(
    found: Mapping[str, float],
    *,
    per_decade: float,
    optimizer: str | None,
    family: str | None,
    schedule: str,
    steps: int | None,
    constants: Constants | None = None,
) -> Estimate | None:
    """Combine the anchors that there are with the prior; None where nothing is known at all.

    Args:
        found: log10 of the rate at each anchor.
        per_decade: steps of a sweep per decade of rate.
        optimizer: a lower-case name, such as "adamw", "sgd" or "sgd_momentum".
        family: "adaptive" (the update does not grow with the gradient) or "proportional", used
            for an optimizer that is not known by name.
        schedule: of the training.
        steps: of the training; None: not known.
        constants: those of this version by default.
    """
    constants = constants or c.fitted()
    level, key = knowledge(optimizer, family)
    density = np.log10(per_decade / c.PER_DECADE)
    moved = constants.schedules[c.LIKE[schedule]] + constants.length * lengthening(steps)
    names = [name for name in constants.anchors if name in found]
    means = [
        found[name] + constants.offsets[name][key] + constants.density.get(name, 0.0) * density
        for name in names
    ]
    alone = _combined(names, means, level, constants) if names else None
    if key == "pooled" or key in {"adaptive", "proportional"}:
        if alone is None:
            return None
        return Estimate(alone[0] + moved, alone[1], 0.0)
    prior = constants.offsets["prior"][key]
    with_prior = _combined([*names, "prior"], [*means, prior], level, constants)
    if alone is None:
        return Estimate(with_prior[0] + moved, with_prior[1], 0.0)
    distance = prior - alone[0]
    trust = float(np.clip((PRIOR_NONE - abs(distance)) / (PRIOR_NONE - PRIOR_FULL), 0, 1))
    mean, spread = trust * np.array(with_prior) + (1 - trust) * np.array(alone)
    return Estimate(float(mean) + moved, float(spread), 0.0 if trust else distance)


def lengthening(steps: int | None) -> float:
    """Return by how many decades a training is longer than those of the constants."""
    return float(np.log10(steps / c.STEPS)) if steps else 0.0


def knowledge(optimizer: str | None, family: str | None) -> tuple[str, str]:
    """Return which row of `spreads` and which of `offsets` to use."""
    name = canonical(optimizer)
    if name is not None and name in c.fitted().offsets["prior"]:
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
    names: list[str], means: list[float], level: str, constants: Constants
) -> tuple[float, float]:
    """Return the mean of least variance with weights of at least 0, and its standard deviation."""
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
