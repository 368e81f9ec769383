"""A full trial: one training as long as the real one, where short trials may mislead.

That is where they overfit, or where they tell little and the higher rate seems better: a short
training prefers higher rates than a long one that sees its samples again. Overfitting begins after
about the same sum of rates over steps, whatever the rate: half the rate overfits twice as late. So
where the validation loss was lowest after a share of that sum, the rate that is best at the end is
lower by that share.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from lrtool.curve.race import WHOLE
from lrtool.curve.trials import noise, overfit, position_of
from lrtool.curve.verdict import RACE, Doubt

if TYPE_CHECKING:
    from lrtool.report.records import FullTrial, Race

OVERFITS: Final = 0.1  # decades by which trials overfit where a full one is made
NOISY: Final = 0.05  # share of their descent that it is known to, where trials tell little
MEASUREMENTS: Final = 10  # of its validation loss
LOWEST: Final = -1.0  # decades: one training cannot tell more

NEVER_BELOW = Doubt("the whole training was never below its untrained loss", RACE)
FROM_THE_START = Doubt("the whole training overfits almost from its start", RACE)


def is_due(trials: Race, training: int | None, passes: float | None) -> bool:
    """Tell whether a training is to be tried as a whole.

    Args:
        trials: with their losses.
        training: steps of the training; None: without end, which cannot be tried as a whole.
        passes: how many times it sees each sample; None: unknown, which may be often.
    """
    seen_once = passes is not None and passes <= 1  # nothing to overfit on
    if training is None or training > WHOLE or seen_once or trials.measure != "validation":
        return False
    position = position_of(trials)
    if position is None:
        return False
    return overfit(trials) > OVERFITS or (position > 0 and noise(trials) > NOISY)


def moments(steps: int) -> list[int]:
    """Return after how many of its steps a full trial is measured, the last one included."""
    count = min(MEASUREMENTS, steps)
    return [round(steps * part / count) for part in range(1, count + 1)]


def lowest(full: FullTrial) -> int | None:
    """Return at which measurement the loss was lowest; of equal ones the last; None: at none."""
    order = [(loss, -place) for place, loss in enumerate(full.validation) if math.isfinite(loss)]
    return -min(order)[1] if order else None


def correct(log_lr: float, full: FullTrial | None) -> float:
    """Return log10 of a rate, no higher than a full trial at one near it allows."""
    lower = 0.0 if full is None else lowering(full)
    if full is None or lower == 0:
        return log_lr
    return min(log_lr, math.log10(full.lr) + lower)


def lowering(full: FullTrial) -> float:
    """Return by how many decades the rate of a full trial is too high: 0 or less.

    0 where its validation loss was lowest at its end, and where it did not get there.
    """
    if full.interrupted:
        return 0.0
    place = lowest(full)
    if place is None:
        return LOWEST
    share = full.share[place] if _is_below(full, place) else full.share[0] / 2
    return max(math.log10(share), LOWEST)


def doubts(full: FullTrial | None) -> list[Doubt]:
    """Return what a full trial says against any rate near its own."""
    if full is None or full.interrupted:
        return []
    place = lowest(full)
    if place is None or not _is_below(full, place):
        return [NEVER_BELOW]
    return [FROM_THE_START] if place == 0 or lowering(full) == LOWEST else []


def _is_below(full: FullTrial, place: int) -> bool:
    """Tell whether the loss at a measurement lies below the untrained one."""
    return full.validation[place] < full.untrained_loss
