"""The decisions of a race: which rates take part, which go on, which one wins.

All candidates train for a few steps from the same weights over the same batches, so differences
between their losses are paired. All rates here are log10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from lrtool.config.spelling import count, number, sentence
from lrtool.curve import constants as c
from lrtool.curve.combine import canonical
from lrtool.curve.trials import fell, fell_in_training, is_validated, noise, rose
from lrtool.curve.verdict import MORE_VALIDATION, Doubt, noisy, unvalidated
from lrtool.report.records import MethodSuggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from lrtool.report.records import Finding, Race, RaceOrigin

    Array = NDArray[np.float64]

SPACING: Final = 0.5  # decades between a candidate and the next
PRIOR_APART: Final = 0.25  # decades between the usual rate and the others for it to take part
PRIOR_NEAR: Final = 1.0  # decades between it and the centre, at most
WHOLE: Final = 300  # steps: a training of no more is tried and raced as a whole
LEAST_STEPS: Final = 100  # of each candidate of a longer one
SHARE: Final = 50  # a candidate makes one in so many of the training's steps
USUAL: Final = 4  # candidates: three at and beside the centre, and often one more
EVALUATIONS: Final = 1 + 2 * USUAL  # before training, and half-way and at the end of each candidate
AFFORDABLE: Final = 0.1  # share of the training's steps that verify: auto may spend
WORSE: Final = 0.5  # of the way from the best loss to the untrained one: clearly worse
WINS: Final = 1.0  # standard errors above the minimum within which a lower rate is chosen
LOWEST: Final = 0.15  # decades below the minimum, at most: few samples must not decide more
LENGTH_EXPONENT: Final = -0.32  # of the best rate in the length of a training

SAMPLES: Final = 1024  # of the validation set that candidates are measured on, at most

LET_RACE_END = "Let the race run to its end."
NOTHING_YET = Doubt("the race was interrupted before there was anything to compare", LET_RACE_END)
FELL_IN_RACE_ONLY = Doubt(
    "the loss fell in the race only, neither in the sweep nor in the trials", MORE_VALIDATION
)
CALM_DOWN = (
    "Give the training a warm-up (train.schedule.warmup) or clip its gradients "
    "(train.gradient_clip_norm); check the data and the loss."
)
ALL_DIVERGED = Doubt("every candidate of the race diverged", CALM_DOWN)
ALL_ROSE = Doubt("every candidate of the race ended above the loss before training", CALM_DOWN)
NOT_COMPARED = Doubt(
    "the losses of the race could not be compared",
    "Check that the validation loss is a number before any training.",
)
NEVER_BELOW = Doubt(
    "no candidate of the race ended below the loss before training", MORE_VALIDATION
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a race decides.

    Attributes:
        log_lr: log10 of the rate to train with; None if nothing could be compared.
        best: which candidate has the lowest loss.
        errors: of each candidate, the standard error of the difference between its loss and the
            best one's; NaN where there is none.
        doubts: what speaks against the rate.
    """

    log_lr: float | None
    best: int | None
    errors: Array
    doubts: list[Doubt]


def length(training: int | None) -> int:
    """Return the steps of each candidate, for a training of `training` steps."""
    if training is None:
        return LEAST_STEPS
    return training if training <= WHOLE else max(LEAST_STEPS, training // SHARE)


def lengthening(training: int | None, steps: int) -> float:
    """Return the best rate of a whole training minus that of a race, in decades: 0 or less.

    A training of an unknown length counts as one of 300 steps, as in the estimate.
    Best rates fall with the length T like T^−0.32 (Bjorck et al. 2024, arXiv 2409.19913).
    """
    return LENGTH_EXPONENT * float(np.log10((training or c.STEPS) / steps))


def lengthen(choice: Choice, training: int | None, steps: int) -> Choice:
    """Move the rate that a race chose to where it is for the whole training."""
    if choice.log_lr is None:
        return choice
    return replace(choice, log_lr=choice.log_lr + lengthening(training, steps))


def average(choice: Choice, centre: float, race: Race) -> Choice:
    """Return the mean of the race's rate, for the whole training, and the estimate before it.

    Their errors are about equally large and have other causes: on development cells the mean does
    better than either. It moves by half the distance to the next candidate at most. An estimate
    that dropped out of the race does not count.
    """
    if choice.log_lr is None:
        return choice
    outcomes = {one.outcome for one in race.candidates if one.origin == "suggestion"}
    if outcomes & {"diverged", "dropped"}:
        return choice
    away = float(np.clip((centre - choice.log_lr) / 2, -SPACING / 2, SPACING / 2))
    return replace(choice, log_lr=choice.log_lr + away)


def too_expensive(training: int | None, evaluation: float) -> str | None:
    """Say why verify: auto does not race; None if the race is cheap enough.

    It is for the usual number of candidates, evaluated half-way and at the end.

    Args:
        training: its steps.
        evaluation: the cost of measuring a candidate's loss once, in steps.
    """
    steps = length(training)
    if training is None:
        return "the length of the training is not known, so a race may cost too much; see --verify"
    if USUAL * steps + EVALUATIONS * evaluation <= AFFORDABLE * training:
        return None
    return (
        f"a race of {USUAL} × {steps:,} steps and its evaluations would take more than "
        f"{AFFORDABLE:.0%} of the training's {training:,} steps; --verify runs it anyway"
    )


def usual_rate(optimizer: str | None) -> float | None:
    """Return the optimizer's usual best rate, if known."""
    return c.fitted().offsets["prior"].get(canonical(optimizer) or "")


def candidates(centre: float, prior: float | None) -> list[tuple[float, RaceOrigin]]:
    """Return the rates of a race's candidates and where they come from.

    Args:
        centre: the estimate of the best rate.
        prior: the optimizer's usual rate; a candidate if it is neither near another nor far away.
    """
    rates: list[tuple[float, RaceOrigin]] = [
        (centre - SPACING, "lower"),
        (centre, "suggestion"),
        (centre + SPACING, "higher"),
    ]
    if prior is not None and abs(prior - centre) <= PRIOR_NEAR:
        apart = min(abs(prior - log_lr) for log_lr, _ in rates)
        if apart >= PRIOR_APART:
            rates.append((prior, "prior"))
    return rates


def diverged(losses: ArrayLike, untrained: float) -> NDArray[np.bool_]:
    """Tell which candidates have diverged: a loss that is not finite, or above the untrained."""
    losses = np.asarray(losses, dtype=float)
    out: NDArray[np.bool_] = ~np.isfinite(losses) | (losses > untrained)
    return out


def survivors(losses: ArrayLike, untrained: float) -> NDArray[np.bool_]:
    """Tell which candidates go on half-way: neither diverged nor clearly worse than the best.

    Where none is below the untrained loss, the other half may still bring them there.
    """
    losses = np.asarray(losses, dtype=float)
    sound = ~diverged(losses, untrained)
    if not sound.any():
        finite: NDArray[np.bool_] = np.isfinite(losses)
        return finite
    best = losses[sound].min()
    kept: NDArray[np.bool_] = sound & ~(losses > best + WORSE * (untrained - best))
    return kept


def outward(log_lr: ArrayLike, losses: ArrayLike) -> tuple[float, RaceOrigin] | None:
    """Return one more candidate beyond the best one, if that is the lowest or the highest.

    Args:
        log_lr: of all candidates.
        losses: their final losses; NaN for those that did not get so far.
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
    cannot tell apart the lower one is safer. If the best candidate is the lowest or the highest,
    the rate is its own.

    Args:
        log_lr: of all candidates, in any order.
        losses: of each candidate and chunk of samples, (candidates, chunks); NaN for a candidate
            that is out.
        sizes: samples of each chunk.
        interrupted: the race did not get to its end.
    """
    log_lr, losses = np.asarray(log_lr, dtype=float), np.asarray(losses, dtype=float)
    weights = np.asarray(sizes, dtype=float)
    means = losses @ weights / weights.sum()
    finished = np.isfinite(means)
    if not finished.any():
        errors = np.full(means.shape, np.nan)
        return Choice(None, None, errors, [NOTHING_YET if interrupted else ALL_DIVERGED])
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
        return best
    lower, upper = float(x[middle - 1]), float(x[middle + 1])
    down, up = np.diff(y[middle - 1 : middle + 2]) / np.diff(x[middle - 1 : middle + 2])
    curvature = float(up - down) / (upper - lower)
    if not curvature > 0:
        return best
    lowest = float(np.clip((lower + best) / 2 - down / (2 * curvature), lower, upper))
    return max(lowest - min(float(np.sqrt(WINS * se / curvature)), LOWEST), lower)


def _doubts(log_lr: Array, best: int, finished: int, *, interrupted: bool) -> list[Doubt]:
    doubts = []
    if interrupted:
        doubts.append(Doubt("the race was interrupted", LET_RACE_END))
    rate = number(10 ** float(log_lr[best]), 2)
    for end, edge, way in (("lowest", log_lr.min(), "below"), ("highest", log_lr.max(), "above")):
        if log_lr[best] == edge:
            doubts.append(
                Doubt(
                    f"the best rate of the race, {rate}, is also its {end}",
                    f"Train with rates {way} {rate} as well, and compare.",
                )
            )
    if finished == 1 and not interrupted:
        doubts.append(
            Doubt(
                f"only {rate} was left at the end of the race",
                "Train with rates near it as well, and compare.",
            )
        )
    return doubts


def conclude(
    finding: Finding, choice: Choice, race: Race, lasting: Sequence[Doubt] = ()
) -> Finding:
    """Return a finding with the rate of its race.

    A race that was interrupted before it could compare anything changes nothing. One in which no
    candidate ended below the untrained loss takes the rate away, unless training losses fell, or
    it ended above it by noise alone: then it is in doubt.

    Args:
        finding: before the race.
        choice: of the race.
        race: its record.
        lasting: doubts that no race takes away.
    """
    if finding.suggestion.lr is None and not fell(race):
        flat = "the loss did not fall clearly in the race either"
        return without_race(finding, NOTHING_YET.reason if race.interrupted else flat)
    if choice.log_lr is None:
        return _without_winner(finding, choice.doubts[0], race)
    lr, known, share = 10.0**choice.log_lr, c.fitted(), noise(race)
    half, doubts = known.half("raced", share), choice.doubts
    if finding.suggestion.lr is None:
        doubts = [FELL_IN_RACE_ONLY, *doubts]
    if not race.interrupted:
        if share > known.certain:
            doubts = [*doubts, noisy(share, "race", _against_noise(race))]
        elif not is_validated(race):
            doubts = [*doubts, unvalidated(race.measure)]
    doubts = [*doubts, *lasting]
    outcome = _outcome(choice, race, finding.suggestion.for_steps)
    suggestion = replace(
        finding.suggestion,
        lr=lr,
        low=10.0 ** (choice.log_lr - half),
        high=10.0 ** (choice.log_lr + half),
        verdict="uncertain" if doubts else "confident",
        reason=sentence([outcome, *(doubt.reason for doubt in doubts)]),
        advice=tuple(dict.fromkeys(doubt.advice for doubt in doubts)),
    )
    by_method = {**finding.suggestions, "race": MethodSuggestion(lr)}
    return replace(finding, suggestion=suggestion, suggestions=by_method)


def _without_winner(finding: Finding, doubt: Doubt, race: Race) -> Finding:
    before = finding.suggestion
    if race.interrupted:
        return without_race(finding, doubt.reason)
    compared = bool(np.isfinite(race.untrained_loss))
    if before.lr is not None and ((compared and not rose(race)) or fell_in_training(race)):
        never = NEVER_BELOW if compared else NOT_COMPARED
        after = replace(
            before,
            verdict="uncertain",
            reason=f"{sentence([never.reason])} {before.reason}",
            advice=tuple(dict.fromkeys((never.advice, *before.advice))),
        )
        return replace(without_race(finding, never.reason), suggestion=after)
    ends = [one.final_loss for one in race.candidates]
    if any(end is not None and np.isfinite(end) for end in ends):
        doubt = ALL_ROSE
    no_rate = replace(
        before,
        lr=None,
        low=None,
        high=None,
        verdict="none",
        reason=sentence([doubt.reason]),
        advice=(doubt.advice,),
    )
    return replace(without_race(finding, doubt.reason), suggestion=no_rate)


def _against_noise(race: Race) -> str:
    """Say what makes the losses of a race less noisy."""
    if race.measure == "training":
        return "Use a validation set (data.validation)."
    return MORE_VALIDATION if race.examples < SAMPLES else "Train at rates beside it, and compare."


def without_race(finding: Finding, reason: str) -> Finding:
    """Return a finding with the reason why no race has a rate."""
    by_method = {**finding.suggestions, "race": MethodSuggestion(None, reason)}
    return replace(finding, suggestions=by_method)


def _outcome(choice: Choice, race: Race, training: int | None) -> str:
    """Say which rates raced, which one was best, and why the suggestion may be lower."""
    assert choice.best is not None, "a race with a rate has a best candidate"
    best = race.candidates[choice.best]
    word = "confirmed" if best.origin == "suggestion" else "corrected"
    steps = race.steps // 2 if best.outcome == "unfinished" else race.steps
    rates = [number(lr, 2) for lr in sorted(one.lr for one in race.candidates)]
    text = (
        f"{word} by racing {len(rates)} rates from {rates[0]} to {rates[-1]}: after "
        f"{count(steps, 'step')} the {race.measure} loss is lowest at {number(best.lr, 2)}"
    )
    if (training or c.STEPS) > race.steps:
        longer = f"{training:,} steps" if training else f"the {c.STEPS} steps that are assumed"
        text += f", and {longer} need a lower rate"
    return text
