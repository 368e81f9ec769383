"""Two short trainings beside an estimate say on which side of it the best rate lies.

They cost as much as another sweep and tell more: a sweep sees how a rate acts for a few steps, a
short training what it comes to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from lrtool.curve import constants as c
from lrtool.curve.combine import Estimate, lengthening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.curve.constants import Constants
    from lrtool.report.records import Candidate, Race

    Array = NDArray[np.float64]

STEPS: Final = 90  # of a trial, unless the training itself is shorter
REACH: Final = 0.5  # decades from the estimate to a trial
# Of the descent: by how much one trial must be worse than the other to count e times less. It is
# about what two trials with other batches differ by.
TEMPERATURE: Final = 0.05
SIGNIFICANT: Final = 5.0  # standard errors that a training loss must fall by to have fallen
LEAST: Final = 10  # losses that say whether it did
MATERIAL: Final = 0.25  # standard deviations of a batch's loss that a validation loss must fall by


def length(training: int | None) -> int:
    """Return the steps of each trial, for a training of so many."""
    return STEPS if training is None else min(STEPS, training)


def lean(losses: Sequence[float], untrained: float) -> float:
    """Return which of the trials is better, from −1, the lower rate, to 1, the higher one.

    The mean of −1 and 1 with weights exp(−excess / `TEMPERATURE`), where a trial's excess is its
    loss above the better one's as a share of what that one has descended. A trial that diverged
    counts as untrained; where both have, the best rate lies below them.

    Args:
        losses: at the end of the lower and of the higher trial.
        untrained: the same loss before.
    """
    ends = np.minimum(np.where(np.isfinite(losses), losses, np.inf), untrained)
    descent = untrained - ends.min()
    if descent <= 0:
        return -1.0
    weights = np.exp(-(ends - ends.min()) / descent / TEMPERATURE)
    return float(weights @ (-1.0, 1.0) / weights.sum())


def lean_of(tried: Race) -> float | None:
    """Return which of two trials was better; None where neither shows anything."""
    comparable = math.isfinite(tried.untrained_loss) and not tried.interrupted
    if not comparable or not (fell(tried) or rose(tried)):
        return None
    return lean(_ends(tried), tried.untrained_loss)


def rose(tried: Race) -> bool:
    """Tell whether both trials ended above the loss before training."""
    level = tried.untrained_loss
    return math.isfinite(level) and not any(end <= level for end in _ends(tried))


def _ends(tried: Race) -> list[float]:
    return [math.nan if one.final_loss is None else one.final_loss for one in tried.candidates]


def fell(tried: Race) -> bool:
    """Tell whether a trial's loss fell by more than its noise.

    Its training losses tell, or the loss on validation examples: that must fall by five paired
    errors between the two trials, and by a share of what one batch's loss differs from another's,
    for the least descent is beyond all error where every example takes part in it.
    """
    errors = [one.standard_error for one in tried.candidates if one.standard_error]
    error = SIGNIFICANT * max(errors, default=math.inf)
    return fell_in_training(tried) or any(
        one.final_loss is not None
        and tried.untrained_loss - one.final_loss > max(error, MATERIAL * _last(loss).std(ddof=1))
        for one, loss in _whole(tried)
    )


def fell_in_training(tried: Race) -> bool:
    """Tell whether a trial's training losses fell, the loss of each batch taken as it is."""
    return any(_training_fell(loss, _last(loss)) for _, loss in _whole(tried))


def _whole(tried: Race) -> Iterator[tuple[Candidate, Array]]:
    """Yield the trials, with their training losses, that came to a good end."""
    for one in tried.candidates:
        loss = np.array(one.loss)
        if loss.size >= LEAST and np.isfinite(_last(loss)).all():
            yield one, loss


def _last(loss: Array) -> Array:
    return loss[-max(2, loss.size // 3) :]


def _training_fell(loss: Array, after: Array) -> bool:
    """Compare the losses of the first tenth and the last third by Welch's statistic (1947).

    Where the first tenth has done most of the falling already, the very first loss with the last
    third.
    """
    before = loss[: max(2, loss.size // 10)]
    error = np.sqrt(before.var(ddof=1) / before.size + after.var(ddof=1) / after.size)
    if before.mean() - after.mean() > SIGNIFICANT * error:
        return True
    alone = after.std(ddof=1) * np.sqrt(1 + 1 / after.size)
    return bool(after.size >= LEAST and loss[0] - after.mean() > SIGNIFICANT * alone)


def weight(steps: int | None) -> float:
    """Return how much trials count for a training of so many steps.

    All of it up to the length of the trainings that the constants were fitted on, nothing for ten
    times as much: a training of `STEPS` steps prefers higher rates than one a thirty-fold as long
    (Wu et al. 2018, arXiv 1803.02021), and cannot see by how much.
    """
    return float(np.clip(1 - lengthening(steps), 0, 1))


def moved(
    found: Estimate, leaning: float, steps: int | None, constants: Constants | None = None
) -> Estimate:
    """Return an estimate after its trials, by a line that was fitted on development cells."""
    constants = constants or c.fitted()
    share, unit = weight(steps), found.spread
    return Estimate(
        found.mean + share * unit * (constants.trial_shift + constants.trial_gain * leaning),
        share * unit * constants.trial_spread + (1 - share) * unit,
        found.conflict,
    )
