"""Trials: two short trainings beside an estimate, which tell on which side the best rate lies.

They cost as much as another sweep and tell more: a sweep shows a rate for a few steps, a trial
where it leads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from lrtool.curve import constants as c
from lrtool.curve.combine import Estimate, lengthening
from lrtool.curve.stopping import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.curve.constants import Constants
    from lrtool.report.records import Candidate, Race

    Array = NDArray[np.float64]

STEPS: Final = 90  # of a trial, unless the training itself is shorter
REACH: Final = 0.5  # decades from the estimate to a trial
# A trial that is worse by this share of the descent counts e times less. Two trials that differ in
# their batches alone are about as far apart.
TEMPERATURE: Final = 0.05
SIGNIFICANT: Final = 5.0  # standard errors by which a loss must fall
LEAST: Final = 10  # losses that a trial needs to show it
LEAST_CHUNKS: Final = 4  # validation batches from which the error of a descent is known
MATERIAL: Final = 0.25  # standard deviations of a batch's loss by which a validation loss must fall


def length(training: int | None) -> int:
    """Return the steps of each trial, for a training of `training` steps."""
    return STEPS if training is None else min(STEPS, training)


def lean(losses: Sequence[float], untrained: float) -> float:
    """Return which of the trials is better, from −1, the lower rate, to 1, the higher one.

    The mean of −1 and 1 with weights exp(−excess / `TEMPERATURE`). A trial's excess is its loss
    above the better trial's, as a share of the better one's descent. A trial that diverged counts
    as untrained; if both did, the best rate lies below them.

    Args:
        losses: at the end of the lower and of the higher trial.
        untrained: the loss before training.
    """
    ends = np.minimum(np.where(np.isfinite(losses), losses, np.inf), untrained)
    descent = untrained - ends.min()
    if descent <= 0:
        return -1.0
    weights = np.exp(-(ends - ends.min()) / descent / TEMPERATURE)
    return float(weights @ (-1.0, 1.0) / weights.sum())


def lean_of(trials: Race) -> float | None:
    """Return which of two trials was better; None where neither shows anything."""
    comparable = math.isfinite(trials.untrained_loss) and not trials.interrupted
    if not comparable or not (fell(trials) or rose(trials)):
        return None
    return lean(_ends(trials), trials.untrained_loss)


def rose(trials: Race) -> bool:
    """Tell whether both trials ended above the loss before training."""
    level = trials.untrained_loss
    return math.isfinite(level) and not any(end <= level for end in _ends(trials))


def _ends(trials: Race) -> list[float]:
    return [math.nan if one.final_loss is None else one.final_loss for one in trials.candidates]


def fell(trials: Race, least: float = 0.0) -> bool:
    """Tell whether a trial's loss fell by more than its noise.

    Either its training losses fell, or its validation loss did: by five standard errors of its own
    descent, and by a share of the noise of a batch. The standard error alone is not enough: where
    all samples descend alike, it is smaller than the smallest descent. Where it is not known, as
    for a single validation batch, the noise of a training batch stands in for it.

    Args:
        trials: with their losses.
        least: by which a validation loss must fall in any case.
    """
    least = max(least, RESOLUTION * abs(trials.untrained_loss))
    return fell_in_training(trials) or any(
        one.final_loss is not None
        and trials.untrained_loss - one.final_loss > max(least, _noise(one, _last(loss)))
        for one, loss in _complete(trials)
    )


def _noise(trial: Candidate, loss: Array) -> float:
    """Return by how much a trial's validation loss may fall by chance.

    Args:
        trial: what it ended at.
        loss: of its last batches.
    """
    batch = float(loss.std(ddof=1))
    error = batch if trial.descent_error is None else trial.descent_error
    return max(SIGNIFICANT * error, MATERIAL * batch)


def fell_in_training(trials: Race) -> bool:
    """Tell whether a trial's training losses fell."""
    return any(_training_fell(loss, _last(loss)) for _, loss in _complete(trials))


def _complete(trials: Race) -> Iterator[tuple[Candidate, Array]]:
    """Yield the trials with enough losses, finite to the end, and these training losses."""
    for one in trials.candidates:
        loss = np.array(one.loss)
        if loss.size >= LEAST and np.isfinite(_last(loss)).all():
            yield one, loss


def _last(loss: Array) -> Array:
    return loss[-max(2, loss.size // 3) :]


def _training_fell(loss: Array, after: Array) -> bool:
    """Compare the losses of the first tenth with those of the last third (Welch 1947).

    The first tenth may have done most of the falling: so the very first loss is compared too.
    """
    before = loss[: max(2, loss.size // 10)]
    error = np.sqrt(before.var(ddof=1) / before.size + after.var(ddof=1) / after.size)
    if before.mean() - after.mean() > SIGNIFICANT * error:
        return True
    alone = after.std(ddof=1) * np.sqrt(1 + 1 / after.size)
    return bool(after.size >= LEAST and loss[0] - after.mean() > SIGNIFICANT * alone)


def weight(steps: int | None) -> float:
    """Return how much trials count for a training of `steps` steps, from 1 to 0.

    1 up to 300 steps, on which the constants were fitted; 0 from 3,000: a short training prefers
    higher rates than a long one (Wu et al. 2018, arXiv 1803.02021), and cannot tell by how much.
    """
    return float(np.clip(1 - lengthening(steps), 0, 1))


def correct(
    estimate: Estimate, leaning: float, steps: int | None, constants: Constants | None = None
) -> Estimate:
    """Return an estimate corrected by its trials, along a line fitted on development cells."""
    constants = constants or c.fitted()
    share, unit = weight(steps), estimate.spread
    return Estimate(
        estimate.mean + share * unit * (constants.trial_shift + constants.trial_gain * leaning),
        share * unit * constants.trial_spread + (1 - share) * unit,
        estimate.conflict,
    )
