"""What speaks against a suggestion, and what to change about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.config.spelling import number
from lrtool.curve.smooth import LEAST_POINTS, effects

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lrtool.curve.anchors import Anchors
    from lrtool.curve.smooth import Fit
    from lrtool.report.records import Sweep

WIDE = 0.5  # decades: a wider interval is uncertain
TOO_FAR = 0.5  # decades: an estimate further outside the sweep's rates is a guess
COARSE = 64  # float32 roundings: a loss that changes by less is too coarse to read
KNOWN_STEPS = 100, 10_000  # of the trainings that the constants are fitted on
EDGE = 0.1  # decades from the end of the range
PLATEAU = 0.25  # share of the decades up to the minimum for which the loss must stay level
ONSET = 1.0  # decades: a loss that rises without a longer plateau diverged at once


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that speaks against a suggestion: a clause, and a sentence on what to do."""

    reason: str
    advice: str


LOWER_START = "Start the sweep lower (find.start)."
RACE = "Compare rates in a race (find.verify)."
MORE_VALIDATION = "Use a larger validation set (data.validation)."
LET_SWEEP_END = "Let the sweep run to its end."
USE_AUTO = "Use find.method auto."
CHECK_LOSS = "Check the data and the loss function, or start the sweep lower (find.start)."

BELOW_RANGE = Doubt("the best rate seems to lie below the range of the sweep", LOWER_START)
ABOVE_RANGE = Doubt("the best rate seems to lie above the range of the sweep", "Raise find.end.")
FELL_IN_TRIALS_ONLY = Doubt("the loss fell only in the trials, not in the sweep", RACE)
UNKNOWN_OPTIMIZER = Doubt("no training with this optimizer was measured", RACE)
PERHAPS_FLAT = Doubt(
    "the loss fell neither in the sweep nor, by more than its noise, in the trials", RACE
)
TRIALS_FLAT = Doubt("the loss did not fall clearly in any trial", RACE)

# What a training may follow already, so that nobody is told to do it.
WARMUP, VALIDATION, FULL_BATCH = "a warm-up", "a validation set", "full batches"


NOT_COMPARED = Doubt(
    "the losses of the trials could not be compared",
    "Check that the validation loss is a number before any training.",
)
NO_TRIALS = Doubt("the trials did not come to an end", "Let the trials run to their end.")


def noisy(noise: float, where: str, advice: str) -> Doubt:
    """Doubt a rate where losses are too noisy to tell others near it apart."""
    return Doubt(f"the descent in the {where} is only known to within {noise:.1%}", advice)


def unvalidated(measure: str) -> Doubt:
    """Doubt a rate where no noise of a validation loss is known, nor where training leads.

    Args:
        measure: "training" or "validation": what the trials, or the race, were compared by.
    """
    if measure == "training":
        return Doubt("no validation loss was measured", "Use a validation set (data.validation).")
    return Doubt("the noise of so few validation batches is not known", MORE_VALIDATION)


def trials_rose(followed: Collection[str]) -> Doubt:
    """Doubt a rate between two at which the loss rose."""
    remedies = ["train for more steps", "compare rates in a race (find.verify)"]
    if WARMUP not in followed:
        remedies.insert(0, "add a warm-up (train.schedule.warmup)")
    advice = f"{', '.join(remedies[:-1])}{',' * (len(remedies) > 2)} or {remedies[-1]}."
    return Doubt("all trials ended above the untrained loss", advice[0].upper() + advice[1:])


def nothing_fell(followed: Collection[str]) -> Doubt:
    """Say why there is no rate where no loss fell."""
    remedies = {
        FULL_BATCH: "a larger batch (data.batch_size)",
        VALIDATION: "a validation set (data.validation)",
    }
    left = " or ".join(text for what, text in remedies.items() if what not in followed)
    advice = f"; {left} shows a smaller descent" if left else ""
    return Doubt(
        "the loss fell neither in the sweep nor in the trials",
        f"Check the data and the loss function{advice}.",
    )


def too_short(sweeps: Sequence[Sweep]) -> Doubt:
    """Say why no sweep has enough usable steps."""
    longest = max(sweeps, key=lambda sweep: effects(sweep)[0].size)
    count, steps = effects(longest)[0].size, len(longest.loss)
    few = f"fewer than the {LEAST_POINTS} that a curve needs"
    if len(longest.skipped) > steps / 2:
        return Doubt(
            f"the gradient scaler skipped {len(longest.skipped)} of {steps} steps",
            "Use runtime.precision bf16 or fp32, or look for losses too large for fp16.",
        )
    if len(longest.without_targets) > steps / 2:
        return Doubt(
            f"all targets of {len(longest.without_targets)} of {steps} steps are ignored",
            "Use larger batches (data.batch_size), or leave out samples without targets.",
        )
    match longest.stop_reason:
        case "nan" | "inf":
            word = "NaN" if longest.stop_reason == "nan" else "infinite"
            return Doubt(
                f"the loss was {word} at step {steps - 1}, after {count} usable steps",
                CHECK_LOSS if count else "Check the data and the loss function.",
            )
        case "diverged":
            return Doubt(f"the loss diverged at once, after {count} usable steps", LOWER_START)
        case "interrupted":
            return Doubt(
                f"the sweep was interrupted after {count} usable steps, {few}", LET_SWEEP_END
            )
    return Doubt(
        f"the sweep has {count} usable steps, {few}", "Take more steps in the sweep (find.steps)."
    )


def obstacle(fit: Fit, anchors: Anchors, sweeps: Sequence[Sweep]) -> Doubt | None:
    """Return why a curve without a descent gives no suggestion at all; None if it may."""
    if anchors.minimum is not None:
        return None
    start, end = (number(lr, 2) for lr in 10 ** fit.log_lr[[0, -1]])
    if anchors.divergence is not None:
        if anchors.divergence - fit.log_lr[0] > ONSET:
            return None
        return Doubt(
            f"the loss never fell: it rises right from the first rate, {start}", LOWER_START
        )
    reasons = {sweep.stop_reason for sweep in sweeps}
    if reasons & {"nan", "inf"}:
        return Doubt(
            f"the loss never fell, and became NaN or infinite at a rate of about {end}", CHECK_LOSS
        )
    if "interrupted" in reasons:
        return Doubt("the sweep was interrupted before the loss fell", LET_SWEEP_END)
    flat = Doubt(
        f"the loss is flat from {start} to {end}: no rate changed it beyond its noise",
        "Raise find.end, or take more steps or repeats; check that the gradients reach the model.",
    )
    return coarse(fit) if is_coarse(sweeps) else flat


def is_coarse(sweeps: Sequence[Sweep]) -> bool:
    """Tell whether a loss changes by hardly more than float32 resolves at its size.

    In the first half of a sweep by its noise, and from its start to its lowest by its descent.
    """
    for sweep in _usable(sweeps):
        loss = np.array(sweep.loss)
        loss = loss[np.isfinite(loss)]
        early = loss[: max(2, loss.size // 2)]
        least = COARSE * float(np.abs(early).max()) * float(np.finfo(np.float32).eps)
        if not 0 < np.ptp(early) < least or loss[0] - loss.min() >= least:
            return False
    return True


def coarse(fit: Fit) -> Doubt:
    """Doubt a curve of such losses."""
    return Doubt(
        f"the loss is about {number(float(fit.loss[0]), 2)} and changes by little more than "
        "float32 resolves at that size",
        "Subtract the constant part of the loss, or rescale it.",
    )


def noise(sweeps: Sequence[Sweep]) -> float:
    """Return the standard deviation of a batch's loss in flat sweeps, whatever its outliers."""
    losses = [np.quantile(effects(sweep)[1], (0.16, 0.84)) for sweep in _usable(sweeps)]
    return float(np.mean([(high - low) / 2 for low, high in losses]))


def _usable(sweeps: Sequence[Sweep]) -> list[Sweep]:
    """Return the sweeps that the curve is made of."""
    return [sweep for sweep in sweeps if effects(sweep)[0].size >= LEAST_POINTS]


def trial_doubts(*, fell: bool, rose: bool, followed: Collection[str]) -> list[Doubt]:
    """Return what trials say against the rate."""
    if rose:
        return [trials_rose(followed)]
    return [] if fell else [TRIALS_FLAT]


def unusual_length(steps: int | None) -> Doubt | None:
    """Doubt a rate for a training far shorter or longer than those the constants come from."""
    least, most = KNOWN_STEPS
    if steps is None or least <= steps <= most:
        return None
    return Doubt(
        f"the estimate was fitted on trainings of 100 to 10,000 steps, not of {steps:,}", RACE
    )


def curve_doubts(fit: Fit, anchors: Anchors, sweeps: Sequence[Sweep]) -> list[Doubt]:
    """Return what the curve itself says against any suggestion made from it."""
    doubts = [coarse(fit)] if is_coarse(sweeps) else []
    if anchors.minimum is None:
        doubts.append(
            Doubt(
                "the loss never fell clearly: only the rate at which it diverges is known",
                "Take more steps in the sweep (find.steps), or more repeats (find.repeats).",
            )
        )
        return doubts
    plateau = PLATEAU * (anchors.minimum - fit.log_lr[0])
    if anchors.start is not None and anchors.start - fit.log_lr[0] < plateau:
        doubts.append(
            Doubt(
                "the loss falls from the first rate on, so its initial level is not known",
                LOWER_START,
            )
        )
    interrupted = any(sweep.stop_reason == "interrupted" for sweep in sweeps)
    if fit.log_lr[np.argmin(fit.loss)] > fit.log_lr[-1] - EDGE and not fit.blew_up:
        doubts.append(
            Doubt(
                "the loss still falls at the last rate of the sweep",
                LET_SWEEP_END if interrupted else "Raise find.end.",
            )
        )
    elif interrupted:
        doubts.append(Doubt("a sweep was interrupted", LET_SWEEP_END))
    return doubts


def silent(method: str, reason: str) -> Doubt:
    """Say that a rule has no rate for this curve."""
    return Doubt(f"{method} has no rate: {reason}", "Use find.method auto, or repeat the sweep.")


def rule(method: str) -> Doubt:
    """Doubt the rate of a rule of the literature, of which no curve tells how well it trains."""
    return Doubt(
        f"the interval says how well the rule {method} repeats, not how well its rate trains",
        USE_AUTO,
    )


def unsteady(method: str, share: float) -> Doubt:
    """Doubt a rule that has no rate for many of the bootstrap's replicates."""
    return Doubt(
        f"{method} has no rate on {share:.0%} of the curve's bootstrap replicates",
        "Use find.method auto, or repeat the sweep (find.repeats).",
    )


def contradiction(conflict: float) -> Doubt:
    """Doubt anchors far from where the optimizer's best rate usually is."""
    side = "below" if conflict > 0 else "above"
    return Doubt(
        f"the curve puts the rate {abs(conflict):.1f} decades {side} the optimizer's usual one",
        RACE,
    )


def place_and_width(
    known_range: tuple[float, float], log_lr: float, interval: tuple[float, float]
) -> list[Doubt]:
    """Doubt a rate, log10, outside the known range, and an interval wider than half a decade."""
    doubts = []
    if log_lr < known_range[0]:
        doubts.append(BELOW_RANGE)
    if log_lr > known_range[1]:
        doubts.append(ABOVE_RANGE)
    width = interval[1] - interval[0]
    if width > WIDE + np.finfo(float).eps:
        doubts.append(Doubt(f"the interval spans {width:.2f} decades", RACE))
    return doubts
