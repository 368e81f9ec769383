"""Numbers fitted on development cells, read from `constants.json` beside this file.

Only `python -m research fit` writes that file, with where it comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME: Final = "constants.json"


@dataclass(frozen=True)
class Constants:
    """What `combine` knows. Logarithms are to base 10; distances are decades.

    Attributes:
        anchors: what estimates the best rate.
        offsets: log(best / anchor) for each anchor, by optimizer, by family, and "pooled"; of
            "prior", the optimizer's usual rate, log(best) itself.
        spreads: standard deviation of the best rate around anchor + offset, for each anchor, where
            the "optimizer" is known, its "family", or neither ("pooled").
        correlation: between the errors of two anchors, in the order of `anchors`.
        density: by how much an anchor moves down when a sweep has ten times the steps a decade.
        held: how far the best rate of a constant schedule lies above that of one that falls, whose
            mean is half of its base rate, by optimizer, by family, and "pooled".
        length: by how much the best rate rises when training is ten times as long.
        trial_gain: by how much the best rate rises with the position of its trials.
        trial_shift: how far above the estimate it lies where that is the middle, decades, by
            optimizer, by family, and "pooled".
        trial_overfit: by how much it rises with what the trials tell of overfitting.
        half_width: of the 80% interval: after the sweep alone ("swept"), in standard deviations;
            after trials ("tried") or a race ("raced"), in units of their noise.
        certain: the noise of trials or race up to which a suggestion is confident.
        window: half of the range of rates that train almost as well as the best (a normalised
            regret below 2%), in the median, decades.
    """

    anchors: tuple[str, ...]
    offsets: Mapping[str, Mapping[str, float]]
    spreads: Mapping[str, Mapping[str, float]]
    correlation: tuple[tuple[float, ...], ...]
    density: Mapping[str, float]
    held: Mapping[str, float]
    length: float
    trial_gain: float
    trial_shift: Mapping[str, float]
    trial_overfit: float
    half_width: Mapping[str, float]
    certain: float
    window: float

    def half(self, source: str, noise: float) -> float:
        """Return half of the 80% interval, in decades.

        Args:
            source: "tried" or "raced".
            noise: of the trials or the race, as a share of their descent.
        """
        return min(max(self.half_width[source] * noise, LEAST_HALF), MOST_HALF)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Return the constants of a JSON file."""
        values = {name: data[name] for name in cls.__dataclass_fields__}
        values["anchors"] = tuple(data["anchors"])
        values["correlation"] = tuple(map(tuple, data["correlation"]))
        return cls(**values)


@cache
def fitted() -> Constants:
    """Return the constants of this version."""
    text = resources.files(__package__).joinpath(FILE_NAME).read_text("utf-8")
    return Constants.from_plain(json.loads(text))


LEAST_HALF: Final = 0.05  # decades: a narrower interval would mean nothing
MOST_HALF: Final = 0.25  # decades: trials and races never know less than that
PER_DECADE: Final = 12.5  # steps per decade of the sweeps that the constants were fitted on
STEPS: Final = 300  # of the trainings

# Names as in torch.optim, and "lion" and "+momentum". Optimizers whose updates have the same size
# per unit of rate share constants.
ALIKE: Final[dict[str, str]] = {
    "sgd": "sgd",
    "asgd": "sgd",
    "sgd_momentum": "sgd_momentum",
    "sgd_nesterov": "sgd_momentum",
    "adam": "adamw",
    "adamw": "adamw",
    "adamax": "adamw",
    "nadam": "adamw",
    "radam": "adamw",
    "sparseadam": "adamw",
    "adagrad": "adagrad",
    "lion": "lion",
    "signsgd": "lion",
}
FAMILIES: Final[dict[str, str]] = {
    "sgd": "proportional",
    "sgd_momentum": "proportional",
    "adamw": "adaptive",
    "adagrad": "adaptive",
    "lion": "adaptive",
    "rmsprop": "adaptive",
    "muon": "adaptive",
    "adafactor": "adaptive",
}
