"""What a run produced: plain frozen records, without torch.

Learning rates are positive floats; losses are floats, and the last one of a sweep may be NaN or
infinite, never a made-up number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StopReason = Literal["completed", "diverged", "nan", "inf", "interrupted"]
Verdict = Literal["confident", "uncertain", "none"]
RaceOrigin = Literal["lower", "suggestion", "higher", "prior", "outward"]
RaceOutcome = Literal["won", "lost", "dropped", "diverged", "unfinished"]


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One step of a sweep: a line of `metrics.jsonl`.

    Attributes:
        repeat: which sweep of the run, from 0.
        step: which step of the sweep, from 0.
        lr: the rate of this step's update.
        loss: mean loss of this step's batch (or of the probe), *before* this step's update.
        skipped: the gradient scaler found overflowing gradients and made no update.
    """

    repeat: int
    step: int
    lr: float
    loss: float
    skipped: bool


@dataclass(frozen=True, slots=True)
class StepRow:
    """One update of a training: a line of `metrics.jsonl`.

    Attributes:
        step: updates made, this one included.
        epoch: which epoch it belongs to, from 1.
        lr: the base rate of this update; parameter groups keep their ratios to it.
        loss: mean over the samples of its batches, *before* the update; NaN or infinite only in a
            training's last row.
        samples: how many samples these were.
        grad_norm: 2-norm of all gradients before clipping; None without clipping.
        skipped: the gradient scaler found overflowing gradients and made no update.
    """

    step: int
    epoch: int
    lr: float
    loss: float
    samples: int
    grad_norm: float | None
    skipped: bool


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch of a training, or what was trained of it: a line of `metrics.jsonl`.

    Attributes:
        epoch: which one, from 1.
        step: updates made since the training began.
        lr: the base rate of the last update.
        train_loss: sum of the losses of all its samples, seen while training, over their number.
        validation_loss: the same of the validation part, with the weights at the epoch's end (their
            moving average where there is one); None without that part.
        metrics: each metric of the validation part by its name; of the training part where there is
            no other. NaN where a metric has no value, such as AUROC of one class.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    validation_loss: float | None
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class RaceRow:
    """One update of a candidate in a race: a line of `metrics.jsonl`.

    Attributes:
        candidate: which one of the race, from 0.
        step: updates made, this one included.
        lr: the candidate's base rate, which the schedule multiplies.
        loss: mean over the samples of its batches, *before* the update; NaN or infinite only in a
            candidate's last row.
    """

    candidate: int
    step: int
    lr: float
    loss: float


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One update of one of the two trials beside an estimate: a line of `metrics.jsonl`.

    Attributes:
        trial: which of them: 0 is the one at the lower rate.
        step: updates made, this one included.
        lr: the trial's base rate, which the schedule multiplies.
        loss: as in a `RaceRow`.
    """

    trial: int
    step: int
    lr: float
    loss: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep: `loss[i]` belongs to the batch seen with `lr[i]`, before that update."""

    seed: int
    lr: tuple[float, ...]
    loss: tuple[float, ...]
    skipped: tuple[bool, ...]
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class FirstUpdate:
    """What the direction of the very first update tells of the rate.

    Attributes:
        critical_lr: the rate from which on that update raises its own batch's loss; None if none
            does.
        ratio_lr: the rate at which the update is as long as the weights, the median over all
            matrices; None if nothing moved.
        steps: what that cost, in training steps; a forward pass counts a third.
        opening: how many times as large it is as later ones, if the gradient stays the same.
    """

    critical_lr: float | None
    ratio_lr: float | None
    steps: float
    opening: float = 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """A smoothed loss over the rate, with an 80% band; one value each per rate.

    `loss[i]` is the loss expected *after* an update with `lr[i]`.
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one method says: a rate, or the reason why it has none."""

    lr: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The rate to train with.

    Attributes:
        lr: the rate, or None when `verdict` is "none".
        low: lower end of the 80% interval: so probably it reaches into the stretch of rates that
            train almost as well as the best one.
        high: upper end of that interval.
        verdict: "confident", "uncertain" (the interval is wider than half a decade) or "none".
        method: the name of the method that chose the rate.
        reason: one sentence: why this verdict.
        advice: what to do next, one sentence each.
        for_schedule: the schedule that the rate is meant for.
        for_steps: the number of training steps that it is meant for, if known.
    """

    lr: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    method: str
    reason: str
    advice: tuple[str, ...]
    for_schedule: str
    for_steps: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the curve module makes of some sweeps.

    Attributes:
        suggestion: the rate to train with.
        suggestions: what every method says, by its name; "sweep" is "auto" before trials.
        curve: the smoothed loss; None without enough steps.
        centre: the estimate of the best rate, around which to race: not lowered, as the suggestion
            is, because too high costs more than too low. None without a suggestion.
        trials: the two rates beside it that short trainings should try; None where they could not
            tell anything.
    """

    suggestion: Suggestion
    suggestions: dict[str, Candidate]
    curve: Curve | None
    centre: float | None = None
    trials: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Racer:
    """A candidate of a race.

    Attributes:
        lr: its base rate.
        origin: what it is among the candidates: "suggestion" is the sweeps' estimate of the best
            rate, "lower" and "higher" stand on either side of it, "prior" is the optimizer's usual
            rate, "outward" was added beyond the best one.
        loss: the raw losses of its steps, before each update.
        half_loss: what it was measured at half-way; None if it did not get there.
        final_loss: the same at the end.
        standard_error: of the difference between its loss and the best one's.
        outcome: "won" (the lowest final loss), "lost", "dropped" half-way, "diverged" or
            "unfinished", when the race was interrupted.
    """

    lr: float
    origin: RaceOrigin
    loss: tuple[float, ...]
    half_loss: float | None
    final_loss: float | None
    standard_error: float | None
    outcome: RaceOutcome


@dataclass(frozen=True, slots=True)
class Race:
    """Short trainings at several rates, from the same weights over the same batches.

    Attributes:
        seed: of weights and batches, which no sweep had.
        steps: of each candidate that was not dropped.
        steps_spent: of all together; a forward pass over as many samples counts a third.
        measure: of which part the losses are that were compared.
        examples: how many these were.
        untrained_loss: the same loss before the first update.
        candidates: in the order in which they raced.
        interrupted: it did not get to its end.
    """

    seed: int
    steps: int
    steps_spent: float
    measure: Literal["validation", "training"]
    examples: int
    untrained_loss: float
    candidates: tuple[Racer, ...]
    interrupted: bool
