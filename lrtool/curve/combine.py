"""Anchors and what is known of the optimizer → an estimate of the best rate.

Each anchor plus its offset estimates the logarithm of the best rate; the estimates are weighted by
their inverse variance on the development cells, beside a weak prior for the optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.curve import constants as c

if TYPE_CHECKING:
    from lrtool.curve.anchors import Anchors


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


def estimate(
    anchors: Anchors, *, per_decade: float, optimizer: str | None, family: str | None
) -> Estimate:
    """Combine the anchors that the curve has.

    Args:
        anchors: of a curve with a valley, a divergence, or both.
        per_decade: steps of a sweep per decade of rate.
        optimizer: a lower-case name, such as "adamw", "sgd" or "sgd_momentum".
        family: "adaptive" (the update does not grow with the gradient) or "proportional", used
            for an optimizer that is not known by name.
    """
    name = canonical(optimizer)
    level, key = _knowledge(name, family)
    density = np.log10(per_decade / c.PER_DECADE)
    means, spreads = [], []
    for anchor, place in (("valley", anchors.valley), ("divergence", anchors.divergence)):
        if place is not None:
            means.append(place + c.DENSITY[anchor] * density + c.OFFSETS[anchor][key])
            spreads.append(c.SPREADS[anchor][level])
    assert means, "a curve without valley and divergence says nothing"
    mean, spread = _weighted(means, spreads, [1.0] * len(means))
    if name not in c.PRIORS:
        return Estimate(mean, spread, 0.0)
    distance = c.PRIORS[name] - mean
    trust = float(np.clip((c.PRIOR_NONE - abs(distance)) / (c.PRIOR_NONE - c.PRIOR_FULL), 0, 1))
    if trust == 0:
        return Estimate(mean, spread, distance)
    mean, spread = _weighted(
        [*means, c.PRIORS[name]], [*spreads, c.PRIOR_SPREAD], [1.0] * len(means) + [trust]
    )
    return Estimate(mean, spread, 0.0)


def canonical(optimizer: str | None) -> str | None:
    """Return the optimizer of the development cells that `optimizer` resembles, or its name."""
    if optimizer is None:
        return None
    name = optimizer.lower().replace("+", "_")
    return c.ALIKE.get(name, name)


def _knowledge(name: str | None, family: str | None) -> tuple[str, str]:
    """Return which row of `SPREADS` and which of `OFFSETS` to use."""
    if name in c.PRIORS:
        return "optimizer", name
    family = c.FAMILIES.get(name, family) if name is not None else family
    return ("family", family) if family is not None else ("pooled", "pooled")


def _weighted(means: list[float], spreads: list[float], trust: list[float]) -> tuple[float, float]:
    """Return the mean with inverse-variance weights, and its standard deviation.

    The errors are taken to correlate equally: var = (1 − ρ) Σ w²σ² + ρ (Σ wσ)².
    """
    sigma = np.array(spreads)
    weight = np.array(trust) / sigma**2
    weight /= weight.sum()
    alone = float(np.sum((weight * sigma) ** 2))
    together = float(np.sum(weight * sigma)) ** 2
    spread = float(np.sqrt((1 - c.CORRELATION) * alone + c.CORRELATION * together))
    return float(weight @ np.array(means)), spread
