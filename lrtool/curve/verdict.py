"""What speaks against a suggestion, and what to change about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.config.spelling import number
from lrtool.curve.smooth import LEAST_POINTS, effects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.curve.anchors import Anchors
    from lrtool.curve.smooth import Fit
    from lrtool.report.records import Sweep

WIDE = 0.5  # decades: a wider interval is uncertain
BELOW = 0.5  # decades below the first rate of a sweep from which on a rate is a guess
COARSE = 64  # roundings of single precision that a loss must change by to be told
KNOWN_STEPS = 100, 10_000  # the constants are fitted on trainings of 300 and 3,000
EDGE = 0.1  # decades from the end of the range
PLATEAU = 0.25  # share of the decades up to the minimum that the loss must stay level
ONSET = 1.0  # decades: a loss that rises without a longer plateau before it diverged at once


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that speaks against a suggestion: a clause, and a sentence on what to do."""

    reason: str
    advice: str


def too_short(sweeps: Sequence[Sweep]) -> Doubt:
    """Say why no sweep has enough usable steps."""
    longest = max(sweeps, key=lambda sweep: effects(sweep)[0].size)
    count, taken = effects(longest)[0].size, len(longest.loss)
    few = f"fewer than the {LEAST_POINTS} that a curve needs"
    if len(longest.skipped) > taken / 2:
        return Doubt(
            f"the gradient scaler skipped {len(longest.skipped)} of {taken} steps",
            "Use runtime.precision bf16 or fp32, or look for losses too large for fp16.",
        )
    match longest.stop_reason:
        case "nan" | "inf":
            word = {"nan": "NaN", "inf": "infinite"}[longest.stop_reason]
            return Doubt(
                f"the loss was {word} at step {taken - 1}, after {count} usable steps",
                "Check the data and the loss function, or start the sweep lower (find.start).",
            )
        case "diverged":
            return Doubt(
                f"the loss diverged at once, after {count} usable steps",
                "Start the sweep lower (find.start).",
            )
        case "interrupted":
            return Doubt(
                f"the sweep was interrupted after {count} usable steps, {few}",
                "Let the sweep run to its end.",
            )
    return Doubt(
        f"the sweep has {count} usable steps, {few}",
        "Take more steps in the sweep (find.steps).",
    )


def obstacle(fit: Fit, anchors: Anchors, sweeps: Sequence[Sweep]) -> Doubt | None:
    """Return why a curve without a descent gives no suggestion at all; None if it may."""
    if anchors.minimum is not None:
        return None
    start, end = 10 ** fit.log_lr[[0, -1]]
    if anchors.divergence is not None:
        if anchors.divergence - fit.log_lr[0] > ONSET:
            return None
        return Doubt(
            f"the loss never fell: it rises from about the first rate, {number(start, 2)}, on",
            "Start the sweep lower (find.start).",
        )
    reasons = {sweep.stop_reason for sweep in sweeps}
    if reasons & {"nan", "inf"}:
        return Doubt(
            f"the loss became NaN or infinite at a rate of about {number(end, 2)} without "
            "falling before",
            "Check the data and the loss function, or start the sweep lower (find.start).",
        )
    if "interrupted" in reasons:
        return Doubt(
            "the sweep was interrupted before the loss fell",
            "Let the sweep run to its end.",
        )
    return rounded(fit) if coarse(sweeps) else _flat(start, end)


def _flat(start: float, end: float) -> Doubt:
    return Doubt(
        f"the loss is flat from {number(start, 2)} to {number(end, 2)}: no rate changed it beyond "
        "its noise",
        "Raise find.end, or take more steps or repeats; check that the gradients reach the model.",
    )


def coarse(sweeps: Sequence[Sweep]) -> bool:
    """Tell whether a loss changes by hardly more than single precision can hold at its level.

    In the first half of a sweep by its noise, and from its start to its lowest by its descent.
    """
    for sweep in sweeps:
        loss = np.array(sweep.loss)
        loss = loss[np.isfinite(loss)]
        early = loss[: max(2, loss.size // 2)]
        least = COARSE * float(np.abs(early).max()) * float(np.finfo(np.float32).eps)
        if not 0 < np.ptp(early) < least or loss[0] - loss.min() >= least:
            return False
    return True


def rounded(fit: Fit) -> Doubt:
    """Doubt what such a loss shows."""
    return Doubt(
        f"the loss is about {number(float(fit.loss[0]), 2)}, and changes by little more than "
        "single precision can tell there",
        "Take a constant part off the loss, or compute it in another scale.",
    )


def is_flat(anchors: Anchors, sweeps: Sequence[Sweep]) -> bool:
    """Tell whether nothing happened in a sweep at all, so that longer training may show more."""
    ended = all(sweep.stop_reason == "completed" for sweep in sweeps)
    return anchors.minimum is None and anchors.divergence is None and ended


def seen_by_trials_alone() -> Doubt:
    """Doubt a rate at which only longer training than a sweep's lowered the loss."""
    return Doubt(
        "the loss did not fall in the sweep, only in short trainings at one rate",
        "Compare rates in longer training runs (find.verify).",
    )


def nothing_fell() -> Doubt:
    """Say that neither sweep nor trials show a descent."""
    return Doubt(
        "the loss fell neither in the sweep nor in two short trainings",
        "Check the data and the loss function; a larger batch (data.batch_size), or a validation "
        "part (data.validation), shows a smaller descent.",
    )


def trials_against(*, rose: bool) -> Doubt:
    """Doubt a rate that two short trainings do not bear out."""
    if rose:
        return Doubt(
            "two short trainings beside it both ended above the untrained loss",
            "Give the training a warm-up (train.schedule.warmup) or more steps, or race rates "
            "(find.verify).",
        )
    return Doubt(
        "the loss did not fall clearly in two short trainings beside it",
        "Compare rates in longer training runs (find.verify).",
    )


def length(steps: int | None) -> Doubt | None:
    """Doubt a rate for a training whose length is far from all that was measured."""
    least, most = KNOWN_STEPS
    if steps is None or least <= steps <= most:
        return None
    return Doubt(
        f"how rates change with length is known from 300 and 3,000 steps, not for {steps:,}",
        "Compare rates in training runs (find.verify).",
    )


def doubts(fit: Fit, anchors: Anchors, sweeps: Sequence[Sweep]) -> list[Doubt]:
    """Return what the curve itself says against any suggestion made from it."""
    found = [rounded(fit)] if coarse(sweeps) else []
    if anchors.minimum is None:
        found.append(
            Doubt(
                "the loss never fell clearly, so that only the rate at which it diverges is known",
                "Take more steps in the sweep (find.steps), or more repeats (find.repeats).",
            )
        )
    elif anchors.start is not None and anchors.start - fit.log_lr[0] < PLATEAU * (
        anchors.minimum - fit.log_lr[0]
    ):
        found.append(
            Doubt(
                "the loss falls from the first rate on, so that its initial level is not known",
                "Start the sweep lower (find.start).",
            )
        )
    lowest = fit.log_lr[np.argmin(fit.loss)]
    if anchors.minimum is not None and lowest > fit.log_lr[-1] - EDGE and not fit.blew_up:
        interrupted = any(sweep.stop_reason == "interrupted" for sweep in sweeps)
        found.append(
            Doubt(
                "the loss still falls at the last rate of the sweep",
                "Let the sweep run to its end." if interrupted else "Raise find.end.",
            )
        )
    return found


def outside(known_range: tuple[float, float], log_lr: float) -> Doubt | None:
    """Doubt a rate, log10, that was never tried."""
    if log_lr < known_range[0]:
        return below()
    if log_lr > known_range[1]:
        return Doubt("the best rate seems to lie above the range of the sweep", "Raise find.end.")
    return None


def below() -> Doubt:
    """Say that a sweep starts too high."""
    return Doubt(
        "the best rate seems to lie below the range of the sweep",
        "Start the sweep lower (find.start).",
    )


def silent(method: str, reason: str) -> Doubt:
    """Say that a rule has no rate for this curve."""
    return Doubt(f"{method} has no rate: {reason}", "Use find.method auto, or repeat the sweep.")


def unsteady(method: str, share: float) -> Doubt:
    """Doubt a rule that has no rate for many of the bootstrap's replicates."""
    return Doubt(
        f"{method} has no rate for {share:.0%} of the curves that the noise allows",
        "Use find.method auto, or repeat the sweep (find.repeats).",
    )


def contradiction(conflict: float) -> Doubt:
    """Doubt anchors far from where the optimizer's best rate usually is."""
    side = "below" if conflict > 0 else "above"
    return Doubt(
        f"the curve puts the rate {abs(conflict):.1f} decades {side} the optimizer's usual one",
        "Compare rates in short training runs.",
    )


def wide(low: float, high: float) -> Doubt | None:
    """Doubt an interval, in log10, wider than half a decade."""
    if high - low <= WIDE + np.finfo(float).eps:
        return None
    return Doubt(
        f"the interval spans {high - low:.2f} decades",
        "Compare rates in short training runs (find.verify).",
    )
