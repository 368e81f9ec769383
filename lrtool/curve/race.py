"""The decisions of a race: which rates take part, which go on, which one wins.

The candidates train for a few steps each, from the same weights over the same batches, so that
differences between their losses are paired. All rates here are log10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from lrtool.config.spelling import number, sentence
from lrtool.curve import constants as c
from lrtool.curve.combine import canonical
from lrtool.curve.verdict import Doubt
from lrtool.report.records import MethodSuggestion

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lrtool.report.records import Finding, Race, RaceOrigin, Suggestion

    Array = NDArray[np.float64]

SPACING: Final = 0.5  # decades between a candidate and the next
PRIOR_APART: Final = 0.25  # decades from all others from which on the usual rate is worth a run
PRIOR_NEAR: Final = 1.0  # decades from the centre within which it is believed
LEAST_STEPS: Final = 100  # of each candidate, but no more than the training has
SHARE: Final = 50  # a candidate takes this part of the training's steps
USUAL: Final = 4  # candidates: three at and beside the centre, and often one more
MEASURED: Final = 1 + 2 * USUAL  # times a loss is measured: before, half-way and at the end
AFFORDABLE: Final = 0.1  # share of the training's steps that a race which nobody asked for may take
WORSE: Final = 0.5  # of the way from the best loss to the untrained one: clearly worse
WINS: Final = 1.0  # standard errors above the minimum that the smallest good rate may lie
LOWEST: Final = 0.15  # decades that it may lie below the minimum: few examples must not decide more
LENGTH_EXPONENT: Final = -0.32  # of the best rate in the length of a training


@dataclass(frozen=True, slots=True)
class Choice:
    """What a race decides.

    Attributes:
        log_lr: log10 of the rate to train with; None if nothing could be compared.
        best: which candidate has the lowest loss.
        errors: of each candidate, the standard error of its difference to the best one's loss; NaN
            where there is none.
        doubts: what speaks against the rate.
    """

    log_lr: float | None
    best: int | None
    errors: Array
    doubts: list[Doubt]


def length(training: int | None) -> int:
    """Return the steps of each candidate, for a training of so many."""
    if training is None:
        return LEAST_STEPS
    return min(max(LEAST_STEPS, training // SHARE), training)


def lengthening(training: int | None, steps: int) -> float:
    """Return by how much the best rate of a whole training lies above that of a race, in decades.

    Below, that is: best rates fall with length like T^−.32 (Bjorck et al. 2024, arXiv 2409.19913).
    """
    return LENGTH_EXPONENT * float(np.log10(training / steps)) if training else 0.0


def lengthened(choice: Choice, training: int | None, steps: int) -> Choice:
    """Move what a race decided to where it is for the whole training."""
    if choice.log_lr is None:
        return choice
    return replace(choice, log_lr=choice.log_lr + lengthening(training, steps))


def averaged(choice: Choice, centre: float, race: Race) -> Choice:
    """Return the mean of what a race decided, for the whole training, and of the estimate before.

    They err about equally far and for other reasons: on development cells the mean of the two does
    better than either. But it stays nearer to what the race decided than to the next candidate, and
    an estimate that dropped out of the race does not count.
    """
    if choice.log_lr is None:
        return choice
    out = {one.outcome for one in race.candidates if one.origin == "suggestion"}
    if out & {"diverged", "dropped"}:
        return choice
    away = float(np.clip((centre - choice.log_lr) / 2, -SPACING / 2, SPACING / 2))
    return replace(choice, log_lr=choice.log_lr + away)


def too_expensive(training: int | None, measuring: float) -> str | None:
    """Say why a race that nobody asked for takes too long; None if it does not.

    The cost is that of the usual number of candidates, measured half-way and at the end.

    Args:
        training: its steps.
        measuring: what it costs to measure a candidate's loss once, in steps.
    """
    steps = length(training)
    if training is None:
        return "how long the training is, and so what a race may cost, is not known; see --verify"
    if USUAL * steps + MEASURED * measuring <= AFFORDABLE * training:
        return None
    return (
        f"a race of {USUAL} × {steps:,} steps takes, with its evaluations, more than "
        f"{AFFORDABLE:.0%} of the training's {training:,}; --verify asks for it"
    )


def usual_rate(optimizer: str | None) -> float | None:
    """Return the rate that this optimizer's best one is usually near, if that is known."""
    return c.fitted().offsets["prior"].get(canonical(optimizer) or "")


def candidates(centre: float, prior: float | None) -> list[tuple[float, RaceOrigin]]:
    """Return the rates that race and where they come from.

    Args:
        centre: the estimate of the best rate.
        prior: the optimizer's usual rate, which races if it is neither near another nor far away.
    """
    found: list[tuple[float, RaceOrigin]] = [
        (centre - SPACING, "lower"),
        (centre, "suggestion"),
        (centre + SPACING, "higher"),
    ]
    if prior is not None and abs(prior - centre) <= PRIOR_NEAR:
        apart = min(abs(prior - log_lr) for log_lr, _ in found)
        if apart >= PRIOR_APART:
            found.append((prior, "prior"))
    return found


def diverged(losses: ArrayLike, untrained: float) -> NDArray[np.bool_]:
    """Tell which candidates have diverged: a loss that is not finite, or above the untrained."""
    losses = np.asarray(losses, dtype=float)
    out: NDArray[np.bool_] = ~np.isfinite(losses) | (losses > untrained)
    return out


def survivors(losses: ArrayLike, untrained: float) -> NDArray[np.bool_]:
    """Tell which candidates go on half-way: neither diverged nor clearly worse than the best."""
    losses = np.asarray(losses, dtype=float)
    sound = ~diverged(losses, untrained)
    if not sound.any():
        return sound
    best = losses[sound].min()
    kept: NDArray[np.bool_] = sound & ~(losses > best + WORSE * (untrained - best))
    return kept


def outward(log_lr: ArrayLike, losses: ArrayLike) -> tuple[float, RaceOrigin] | None:
    """Return one more candidate, beyond the best one where that is the lowest or the highest.

    Args:
        log_lr: of all that were tried.
        losses: their final ones; NaN for those that did not get so far.
    """
    log_lr, losses = np.asarray(log_lr, dtype=float), np.asarray(losses, dtype=float)
    if not np.isfinite(losses).any():
        return None
    best = log_lr[np.nanargmin(losses)]
    if best == log_lr.max():
        return float(best) + SPACING, "outward"
    if best == log_lr.min():
        return float(best) - SPACING, "outward"
    return None


def choose(
    log_lr: ArrayLike, losses: ArrayLike, sizes: ArrayLike, *, interrupted: bool = False
) -> Choice:
    """Choose the smallest rate that may be as good as the best one.

    A parabola goes through the best candidate and its neighbours. The rate is the smallest one
    whose fitted loss lies within one standard error of the minimum: of two rates that the race
    cannot tell apart the lower one is safer. Without a neighbour on either side it is the best
    candidate's own.

    Args:
        log_lr: of all candidates, in any order.
        losses: of each candidate and chunk of examples, (candidates, chunks); NaN for a candidate
            that is out.
        sizes: examples of each chunk.
        interrupted: the race did not get to its end.
    """
    log_lr, losses = np.asarray(log_lr, dtype=float), np.asarray(losses, dtype=float)
    weights = np.asarray(sizes, dtype=float)
    means = losses @ weights / weights.sum()
    finished = np.isfinite(means)
    if not finished.any():
        nothing = np.full(means.shape, np.nan)
        return Choice(None, None, nothing, [_nothing_left(interrupted)])
    order = np.lexsort((log_lr, means))  # NaN comes last; of equal losses the lower rate is first
    best = int(order[0])
    errors = np.array([standard_error(row - losses[best], weights) for row in losses])
    se = float(errors[order[1]]) if finished.sum() > 1 else np.nan
    doubts = _doubts(log_lr, best, int(finished.sum()), interrupted=interrupted)
    place = _parabola(log_lr[finished], means[finished], float(log_lr[best]), se)
    return Choice(place, best, errors, doubts)


def standard_error(differences: ArrayLike, weights: ArrayLike) -> float:
    """Return the standard error of a weighted mean; 0 where there is only one value."""
    values = np.asarray(differences, dtype=float)
    if values.size < 2:
        return 0.0 if np.isfinite(values).all() else np.nan
    shares = np.asarray(weights, dtype=float) / np.sum(weights)
    squares = (shares * (values - shares @ values)) ** 2
    return float(np.sqrt(squares.sum() * values.size / (values.size - 1)))


def _parabola(log_lr: Array, loss: Array, best: float, se: float) -> float:
    """Return the rate to train with, from the candidates that finished."""
    order = np.argsort(log_lr)
    x, y = log_lr[order], loss[order]
    middle = int(np.searchsorted(x, best))
    if not 0 < middle < x.size - 1:
        return best  # what lies between is nobody's
    lower, upper = float(x[middle - 1]), float(x[middle + 1])
    down, up = np.diff(y[middle - 1 : middle + 2]) / np.diff(x[middle - 1 : middle + 2])
    curvature = float(up - down) / (upper - lower)
    if not curvature > 0:
        return best
    lowest = float(np.clip((lower + best) / 2 - down / (2 * curvature), lower, upper))
    return max(lowest - min(float(np.sqrt(WINS * se / curvature)), LOWEST), lower)


def _doubts(log_lr: Array, best: int, finished: int, *, interrupted: bool) -> list[Doubt]:
    found = []
    if interrupted:
        found.append(Doubt("the race was interrupted", "Let the race run to its end."))
    rate = number(10 ** float(log_lr[best]), 2)
    for side, edge in (("lowest", log_lr.min()), ("highest", log_lr.max())):
        if log_lr[best] == edge:
            found.append(
                Doubt(
                    f"the best rate of the race, {rate}, is the {side} that it tried",
                    f"Train with rates beyond {rate} as well, and compare.",
                )
            )
    if finished == 1 and not interrupted:
        found.append(
            Doubt(
                f"{rate} alone was left at the end of the race",
                "Train with rates near it as well, and compare.",
            )
        )
    return found


def _nothing_left(interrupted: bool) -> Doubt:  # noqa: FBT001  (it is all that is asked)
    if interrupted:
        return Doubt(
            "the race was interrupted before there was anything to compare",
            "Let the race run to its end.",
        )
    return Doubt(
        "every rate that raced diverged",
        "Give the training a warm-up (train.schedule.warmup) or clip its gradients "
        "(train.gradient_clip_norm); check the data and the loss.",
    )


def settled(finding: Finding, choice: Choice, race: Race) -> Finding:
    """Return what was found after a race: its rate in place of the one that it tried.

    A race that was interrupted before it could compare anything changes nothing.
    """
    if choice.log_lr is None:
        why = choice.doubts[0]
        changed = unraced(finding, why.reason)
        if race.interrupted:
            return changed
        lost = replace(
            finding.suggestion,
            lr=None,
            low=None,
            high=None,
            verdict="none",
            reason=sentence([why.reason]),
            advice=(why.advice,),
        )
        return replace(changed, suggestion=lost)
    lr, half = 10.0**choice.log_lr, c.fitted().half_width["raced"]
    said: Suggestion = replace(
        finding.suggestion,
        lr=lr,
        low=10.0 ** (choice.log_lr - half),
        high=10.0 ** (choice.log_lr + half),
        verdict="uncertain" if choice.doubts else "confident",
        reason=sentence(
            [
                _outcome(choice, race, finding.suggestion.for_steps),
                *(doubt.reason for doubt in choice.doubts),
            ]
        ),
        advice=tuple(dict.fromkeys(doubt.advice for doubt in choice.doubts)),
    )
    named = {**finding.suggestions, "race": MethodSuggestion(lr)}
    return replace(finding, suggestion=said, suggestions=named)


def unraced(finding: Finding, reason: str) -> Finding:
    """Return what was found, with the reason why no race has a rate."""
    named = {**finding.suggestions, "race": MethodSuggestion(None, reason)}
    return replace(finding, suggestions=named)


def _outcome(choice: Choice, race: Race, training: int | None) -> str:
    """Say what was raced, which rate came out best, and why a lower one is named."""
    assert choice.best is not None, "a race with a rate has a best candidate"
    best = race.candidates[choice.best]
    word = "confirmed" if best.origin == "suggestion" else "corrected"
    steps = race.steps // 2 if best.final_loss is None else race.steps
    rates = [number(lr, 2) for lr in sorted(one.lr for one in race.candidates)]
    longer = training is not None and training > race.steps
    return (
        f"{word} by racing {len(rates)} rates from {rates[0]} to {rates[-1]}: after {steps:,} "
        f"steps the {race.measure} loss is lowest at {number(best.lr, 2)}"
        + (f", and {training:,} steps want less" if longer else "")
    )
