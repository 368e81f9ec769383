"""Trials: short trainings beside an estimate, which tell on which side the best rate lies.

There are two, and a third one outwards where one of them wins outright. They tell more than more
sweeps would: a sweep shows a rate for a few steps, a trial where it leads.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from lrtool.curve import constants as c
from lrtool.curve.combine import lengthening
from lrtool.curve.stopping import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lrtool.curve.combine import Estimate
    from lrtool.curve.constants import Constants
    from lrtool.report.records import Candidate, Race

    Array = NDArray[np.float64]

MOST: Final = 3  # trials in all
OUTRIGHT: Final = 0.1  # share of a trial's descent by which the other one is clearly worse
STEPS: Final = 75  # of a trial, unless the training itself is shorter
REACH: Final = 0.4  # decades from the estimate to the first two
STRIDE: Final = 0.5  # decades from the better one to the third
# A trial that is worse by this share of the descent counts e times less.
TEMPERATURE: Final = 0.03
SIGNIFICANT: Final = 5.0  # standard errors by which training losses must fall
VALIDATED: Final = 2.5  # fewer for a validation loss: its samples are the same before and after
OVERFITS: Final = 30  # passes over the data from which trials are made however long the training
PERHAPS: Final = 1.5  # of those that may be a descent where nothing else shows one
LEAST: Final = 10  # losses that a trial needs to show it
LEAST_CHUNKS: Final = 4  # validation batches from which the error of a descent is known
MATERIAL: Final = 0.25  # standard deviations of a batch's loss by which a validation loss must fall
CLEAR: Final = 0.5  # the same after a flat sweep
SHARE: Final = 0.03  # or by this share of the untrained loss, where that is less


def length(training: int | None) -> int:
    """Return the steps of each trial, for a training of `training` steps."""
    return STEPS if training is None else min(STEPS, training)


def position(places: Sequence[float], losses: Sequence[float], untrained: float) -> float:
    """Return where between trials the best rate seems to lie, in the units of `places`.

    The mean of the places with weights exp(−excess / `TEMPERATURE`). A trial's excess is its loss
    above the best trial's, as a share of the best one's descent. A trial that diverged counts as
    untrained; if all did, the best rate lies below them.

    Args:
        places: log10 of the rates of the trials.
        losses: at their ends.
        untrained: the loss before training.
    """
    excess = _excess(losses, untrained)
    if excess is None:
        return min(places)
    weights = np.exp(-excess / TEMPERATURE)
    return float(weights @ np.asarray(places) / weights.sum())


def _excess(losses: Sequence[float], untrained: float) -> Array | None:
    """Return by which share of the best one's descent each loss lies above it; None without one."""
    ends = np.minimum(np.where(np.isfinite(losses), losses, np.inf), untrained)
    descent = untrained - ends.min()
    if descent <= 0:
        return None
    excess: Array = (ends - ends.min()) / descent
    return excess


def position_of(trials: Race) -> float | None:
    """Return where trials put the best rate, in decades above the middle of the first two.

    None where none of them shows anything.
    """
    tried = ended(trials)
    if len(tried) < 2 or not math.isfinite(trials.untrained_loss):
        return None
    if not (fell(trials) or rose(trials)):
        return None
    places = [math.log10(one.lr) for one in tried]
    place = position(places, _ends(tried), trials.untrained_loss)
    return place - (places[0] + places[1]) / 2


def overfitting(trials: Race, passes: float | None) -> float:
    """Return how much a training will overfit: as its trials do, times the decades of passes.

    0 where the number of passes is not known.

    Args:
        trials: with their losses.
        passes: how many times the training sees each sample; None: unknown.
    """
    return 0.0 if passes is None or passes <= 1 else overfit(trials) * math.log10(passes)


def overfit(trials: Race) -> float:
    """Return by how many decades training losses prefer a higher rate than validation losses do.

    0 where they prefer a lower one, and where there are no validation losses.
    """
    tried = ended(trials)
    if trials.measure != "validation" or len(tried) < 2:
        return 0.0
    training = [_training(one) for one in tried]
    untrained = float(training[0][0])  # of the same batch for all
    trained = [float(_last(loss).mean()) for loss in training]
    if not math.isfinite(untrained):
        return 0.0
    places = [math.log10(one.lr) for one in tried]
    lower = position(places, _ends(tried), trials.untrained_loss)
    higher = position(places, trained, untrained)
    return max(higher - lower, 0.0)


def ended(trials: Race) -> list[Candidate]:
    """Return the trials that came to an end: an interruption may have left one without."""
    return [one for one in trials.candidates if one.outcome != "unfinished"]


def outward(trials: Race) -> float | None:
    """Return log10 of the rate of one more trial; None where it would tell nothing."""
    tried = ended(trials)
    if trials.interrupted or len(tried) < 2 or not math.isfinite(trials.untrained_loss):
        return None
    places, ends = [math.log10(one.lr) for one in tried], _ends(tried)
    if position_of(trials) is not None:
        return next_place(places, ends, trials.untrained_loss)
    if len(places) >= MOST:
        return None
    # nothing fell: the rates are too low, unless one of them let the loss rise
    return min(places) - STRIDE if any(_rose(trials)) else max(places) + STRIDE


def next_place(places: Sequence[float], losses: Sequence[float], untrained: float) -> float | None:
    """Return where to go on after trials; None: the best rate lies between them.

    That is beyond the best trial, if it is the lowest or the highest and its neighbour is worse by
    more than `OUTRIGHT` of its descent.

    Args:
        places: log10 of the rates of the trials.
        losses: at their ends.
        untrained: the loss before training.
    """
    if len(places) >= MOST:
        return None
    excess = _excess(losses, untrained)
    if excess is None:
        return min(places) - STRIDE
    order = np.argsort(places)
    first, second, *_ = order
    last, before = order[-1], order[-2]
    if excess[last] == 0 and excess[before] > OUTRIGHT:
        return max(places) + STRIDE
    if excess[first] == 0 and excess[second] > OUTRIGHT:
        return min(places) - STRIDE
    return None


def rose(trials: Race) -> bool:
    """Tell whether all trials ended above the loss before training, by more than their noise."""
    return math.isfinite(trials.untrained_loss) and all(_rose(trials))


def _rose(trials: Race) -> list[bool]:
    """Tell which trials ended above the untrained loss by more than the noise of the calmest.

    That of a trial that blew up is large itself.
    """
    tried = ended(trials)
    errors = [one.descent_error for one in tried if one.descent_error is not None]
    if not errors:
        errors = [_error_in_training(trials, loss) for _, loss in _complete(trials)]
    most = trials.untrained_loss + VALIDATED * min(errors, default=0.0)
    return [not end <= most for end in _ends(tried)]


def _error_in_training(trials: Race, loss: Array) -> float:
    """Return a standard error for a descent whose own is not known, by the training losses.

    It is that of their own descent, where this is what is measured; else the noise of a batch, as
    for a single validation batch.
    """
    last = _last(loss)
    if trials.measure == "training":
        return _training_descent(loss, last)[1]
    return float(last.std(ddof=1))


def _ends(tried: Sequence[Candidate]) -> list[float]:
    return [math.nan if one.final_loss is None else one.final_loss for one in tried]


def fell(trials: Race, least: float = 0.0, errors: float = VALIDATED) -> bool:
    """Tell whether a trial's loss fell by more than its noise.

    Either its training losses fell, or its validation loss did: by some standard errors of its own
    descent, or by as many together with the training losses. The standard errors alone are not
    enough: where all samples descend alike, they are smaller than the smallest descent. So it must
    fall by a share of the noise of a batch too, or of the untrained loss if that is less: a few
    outliers may outweigh all that there is to learn.

    Args:
        trials: with their losses.
        least: stands in for the share of the noise of a batch, if it is more.
        errors: of a validation loss.
    """
    level = abs(trials.untrained_loss)
    return fell_in_training(trials) or any(
        _validation_fell(
            one,
            trials.untrained_loss - one.final_loss,
            loss,
            least=least,
            level=level,
            errors=errors,
        )
        for one, loss in _complete(trials, least=2)
        if one.final_loss is not None
    )


def _validation_fell(
    trial: Candidate, descent: float, loss: Array, *, least: float, level: float, errors: float
) -> bool:
    """Tell whether a descent is material and beyond noise.

    Where its standard error is not known, as for a single validation batch, the noise of a training
    batch stands in for it.

    Args:
        trial: what it ended at.
        descent: of its validation loss.
        loss: of its training batches.
        least: for the descent to be material.
        level: of the untrained loss.
        errors: by how many of them it must fall.
    """
    batch = float(_last(loss).std(ddof=1))
    material = min(max(least, MATERIAL * batch), SHARE * level)
    if not descent > max(material, RESOLUTION * level):
        return False
    enough = loss.size >= LEAST  # of training losses to tell anything by themselves
    if trial.descent_error is None:
        return enough and descent > SIGNIFICANT * batch
    fall, noise = _training_descent(loss, _last(loss)) if enough else (0.0, 1.0)
    # Samples of both sets are independent, so the sum of two scores, each of variance 1, has a
    # variance of 2 (Stouffer et al. 1949).
    training = max(fall, 0.0) / noise if noise > 0 else 0.0
    needed = min(errors, math.sqrt(2) * errors - training)
    return descent > needed * trial.descent_error


def noise(trials: Race) -> float:
    """Return the standard error of the best trial's descent, as a share of it: 0 to 1.

    It tells how well rates near the best one can be told apart. Without validation batches it is
    that of the training losses.
    """
    best = _best(trials)
    if best is None:
        return 1.0
    end, one = best
    descent, error = trials.untrained_loss - end, one.descent_error
    if error is None:
        losses = [loss for other, loss in _complete(trials) if other is one]
        if not losses:
            return 1.0
        descent, error = _training_descent(losses[0], _last(losses[0]))
    return min(error / descent, 1.0) if descent > 0 else 1.0


def is_validated(trials: Race) -> bool:
    """Tell whether the noise is that of a validation loss: training losses stand in for it."""
    best = _best(trials)
    return best is not None and best[1].descent_error is not None


def _best(trials: Race) -> tuple[float, Candidate] | None:
    """Return the lowest loss at an end, and whose it is; None without any."""
    measured = [
        (one.final_loss, one)
        for one in trials.candidates
        if one.final_loss is not None and math.isfinite(one.final_loss)
    ]
    return min(measured, key=lambda pair: pair[0]) if measured else None


def fell_in_training(trials: Race) -> bool:
    """Tell whether a trial's training losses fell."""
    return any(_training_fell(loss, _last(loss)) for _, loss in _complete(trials))


def _complete(trials: Race, least: int = LEAST) -> Iterator[tuple[Candidate, Array]]:
    """Yield the trials with enough losses, finite to the end, and these training losses."""
    for one in trials.candidates:
        loss = _training(one)
        if loss.size >= least and np.isfinite(_last(loss)).all():
            yield one, loss


def _training(one: Candidate) -> Array:
    """Return a trial's training losses.

    An update whose targets are all ignored has none. In a trial that broke, NaN is a loss too.
    """
    loss = np.array(one.loss)
    broke = one.final_loss is None or not math.isfinite(one.final_loss)
    return loss if broke else loss[np.isfinite(loss)]


def _last(loss: Array) -> Array:
    return loss[-max(2, loss.size // 3) :]


def _training_fell(loss: Array, after: Array) -> bool:
    """Compare the losses of the first tenth with those of the last third.

    The first tenth may have done most of the falling: so the very first loss is compared too.
    """
    fall, noise = _training_descent(loss, after)
    if fall > SIGNIFICANT * noise:
        return True
    alone = after.std(ddof=1) * np.sqrt(1 + 1 / after.size)
    return bool(after.size >= LEAST and loss[0] - after.mean() > SIGNIFICANT * alone)


def _training_descent(loss: Array, after: Array) -> tuple[float, float]:
    """Return by how much the training losses fell, and its standard error (Welch 1947)."""
    before = loss[: max(2, loss.size // 10)]
    error = np.sqrt(before.var(ddof=1) / before.size + after.var(ddof=1) / after.size)
    return float(before.mean() - after.mean()), float(error)


def weight(steps: int | None) -> float:
    """Return how much trials count for a training of `steps` steps, from 1 to 0.

    1 up to 300 steps, on which the constants were fitted; 0 from 3,000: a short training prefers
    higher rates than a long one (Wu et al. 2018, arXiv 1803.02021), and cannot tell by how much.
    """
    return float(np.clip(1 - lengthening(steps), 0, 1))


def correct(
    estimate: Estimate,
    position: float,
    overfitting: float,
    share: float,
    constants: Constants | None = None,
) -> Estimate:
    """Return an estimate corrected by its trials, as fitted on development cells.

    Args:
        estimate: of the best rate.
        position: where trials put it, in decades above the middle of the first two.
        overfitting: what they tell of it: see `overfitting`.
        share: how much the position counts, from 1 to 0: see `weight`. Overfitting always does.
        constants: those of this version by default.
    """
    constants = constants or c.fitted()
    shift = constants.trial_shift[estimate.key]
    moved = share * (shift + constants.trial_gain * position)
    return replace(estimate, mean=estimate.mean + moved + constants.trial_overfit * overfitting)


def worthwhile(share: float, passes: float | None) -> bool:
    """Tell whether trials would move an estimate: by their position, or by overfitting."""
    return share > 0 or (passes is not None and passes >= OVERFITS)
