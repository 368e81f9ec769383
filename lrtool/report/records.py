"""What a run leaves: rows, the lines of metrics.jsonl, and records, the parts of report.json.

The curve code computes with the records, and they are written as they are. Learning rates are
positive floats. A loss is what was measured, never a made-up number: NaN and infinity are floats in
memory and null in report.json, and null is read as NaN, or as None where that is allowed.
"""

from __future__ import annotations

import dataclasses
from math import isfinite, nan
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic.dataclasses import dataclass

StopReason = Literal["completed", "diverged", "nan", "inf", "interrupted"]
Verdict = Literal["confident", "uncertain", "none"]
RaceOrigin = Literal["lower", "suggestion", "higher", "prior", "outward"]
RaceOutcome = Literal["won", "lost", "dropped", "diverged", "unfinished"]


def finite_or_none(value: float | None) -> float | None:
    """Return a number as JSON can hold it: None, which is null, for NaN and infinity."""
    return value if value is not None and isfinite(value) else None


def _nan_for_null(value: Any) -> Any:
    return nan if value is None else value


Count = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
RateOrZero = Annotated[float, Field(ge=0)]  # schedules may begin or end at zero
Loss = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_nan_for_null),
    PlainSerializer(finite_or_none, return_type=float | None, when_used="json"),
]

# Types are strict, unknown keys are refused, every number but a `Loss` is finite, and every key is
# always written.
RECORD = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    json_schema_serialization_defaults_required=True,
)


# Rows of a find. One is made at each update, so nothing is checked.


@dataclasses.dataclass(frozen=True, slots=True)
class SweepRow:
    """One step of a sweep.

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


@dataclasses.dataclass(frozen=True, slots=True)
class TrialRow:
    """One update of one of the two trials beside an estimate.

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


@dataclasses.dataclass(frozen=True, slots=True)
class RaceRow:
    """One update of a candidate in a race.

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


# Rows of a training.


@dataclasses.dataclass(frozen=True, slots=True)
class StepRow:
    """One update of a training.

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


# A model, because each metric is a further key: EpochRow(epoch=1, …, accuracy=0.9).
class EpochRow(BaseModel):
    """One epoch, or the part of it at whose end a training stopped that was made longer later.

    Each metric is a further key under its own name: of the validation part, or of the training part
    where there is no other. null: NaN or infinite, such as AUROC of one class; and
    `validation_loss` where there is no validation part.
    """

    model_config = ConfigDict(**{**RECORD, "extra": "allow"}, frozen=True)
    __pydantic_extra__: dict[str, Loss]

    epoch: FromOne
    step: Count = Field(description="updates made since the training began")
    lr: RateOrZero = Field(description="the base rate of the last update")
    train_loss: Loss = Field(description="mean over all its samples, as they were seen in training")
    validation_loss: Loss | None = Field(
        description="of the validation part, with the weights at the epoch's end, or their moving "
        "average"
    )

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric by its name."""
        return self.__pydantic_extra__


# What a find leaves.


@dataclass(config=RECORD, frozen=True, slots=True)
class FirstUpdate:
    """What the direction of the very first update tells of the rate."""

    critical_lr: Annotated[
        Rate | None, Field(description="from which on it raises its own batch's loss; null: none")
    ]
    ratio_lr: Annotated[
        Rate | None,
        Field(
            description="at which it is as long as the weights, the median over all matrices; "
            "null: nothing moved"
        ),
    ]
    steps: Annotated[
        float, Field(ge=0, description="what that cost; a forward pass counts a third")
    ]
    opening: Annotated[
        float,
        Field(gt=0, description="its length over that of later updates, for a steady gradient"),
    ] = 1.0


@dataclass(config=RECORD, frozen=True, slots=True)
class Sweep:
    """One sweep: `loss[i]` belongs to the batch seen with `lr[i]`, before that update."""

    seed: int
    lr: tuple[Rate, ...]
    loss: Annotated[
        tuple[Loss, ...],
        Field(description="raw losses; null: NaN or infinite, see stop_reason"),
    ]
    skipped: Annotated[
        tuple[Count, ...],
        Field(description="indices of the steps whose update the gradient scaler skipped"),
    ]
    stop_reason: StopReason

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.lr) != len(self.loss) or max(self.skipped, default=-1) >= len(self.lr):
            raise ValueError("a sweep has one loss for each rate, and skips only steps it has")
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class Curve:
    """The smoothed loss after an update with each rate, with an 80% band; null: not known there."""

    lr: tuple[Rate, ...]
    loss: tuple[Loss, ...]
    low: tuple[Loss, ...]
    high: tuple[Loss, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not len(self.lr) == len(self.loss) == len(self.low) == len(self.high):
            raise ValueError("a curve has one loss, one low and one high for each rate")
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class MethodSuggestion:
    """What one method says: a rate, or the reason why it has none."""

    lr: Rate | None
    reason: str | None = None


@dataclass(config=RECORD, frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The rate to train with; `lr`, `low` and `high` are null when the verdict is "none"."""

    lr: Rate | None
    low: Annotated[
        Rate | None,
        Field(
            description="lower end of the 80% interval: so probably it reaches into the stretch of "
            "rates that train almost as well as the best one"
        ),
    ]
    high: Annotated[Rate | None, Field(description="upper end of that interval")]
    verdict: Verdict
    method: Annotated[str, Field(description="which method chose the rate")]
    reason: Annotated[str, Field(description="one sentence: why this verdict")] = (
        ""  # older reports lack it
    )
    advice: Annotated[tuple[str, ...], Field(description="what to do next, one sentence each")]
    for_schedule: Annotated[str, Field(description="the schedule that the rate is meant for")]
    for_steps: Annotated[
        FromOne | None, Field(description="the training steps that it is meant for, if known")
    ]

    @model_validator(mode="after")
    def _rate_or_none(self) -> Self:
        if (self.lr is None) != (self.verdict == "none"):
            raise ValueError('a suggestion has a rate, or the verdict "none"')
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class Candidate:
    """One candidate of a race."""

    lr: Rate
    origin: Annotated[
        RaceOrigin,
        Field(
            description="suggestion: the estimate of the best rate; lower, higher: on either side "
            "of it; prior: the optimizer's usual rate; outward: beyond the best one"
        ),
    ]
    loss: Annotated[
        tuple[Loss, ...],
        Field(description="of each update's batches, before it; null: NaN or infinite"),
    ]
    half_loss: Annotated[
        Loss | None, Field(description="half-way; null: not there, NaN or infinite")
    ]
    final_loss: Annotated[Loss | None, Field(description="at the end; null: as half-way")]
    standard_error: Annotated[
        float | None, Field(description="of the difference between its loss and the best one's")
    ]
    outcome: Annotated[
        RaceOutcome,
        Field(
            description="won: the lowest final loss; dropped: half-way; unfinished: the race was "
            "interrupted"
        ),
    ]


@dataclass(config=RECORD, frozen=True, slots=True)
class Race:
    """Short trainings at several rates, from the same weights over the same batches."""

    seed: Annotated[int, Field(description="of weights and batches, which no sweep had")]
    steps: Annotated[FromOne, Field(description="of each candidate that was not dropped half-way")]
    steps_spent: Annotated[
        float, Field(ge=0, description="of all; a forward pass counts a third of a step")
    ]
    measure: Annotated[
        Literal["validation", "training"],
        Field(
            description="which losses were compared: of examples of the validation part, or the "
            "last ones of training"
        ),
    ]
    examples: Annotated[Count, Field(description="how many these are")]
    untrained_loss: Annotated[Loss, Field(description="the same before the first update")]
    candidates: Annotated[
        tuple[Candidate, ...], Field(description="in the order in which they raced")
    ]
    interrupted: Annotated[bool, Field(description="it did not get to its end")]


@dataclasses.dataclass(frozen=True, slots=True)
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
    suggestions: dict[str, MethodSuggestion]
    curve: Curve | None
    centre: float | None = None
    trials: tuple[float, float] | None = None


# What a training leaves.


@dataclass(config=RECORD, frozen=True, slots=True)
class LearningRate:
    """The rate that the schedule starts from, and who chose it."""

    value: Rate
    origin: Annotated[
        Literal["flag", "config", "find", "run", "optimizer"],
        Field(description="find: of this very run; run: of the run that --lr-from named"),
    ]
    run: Annotated[
        str | None, Field(description="directory of the find or the run that it came from")
    ]


@dataclass(config=RECORD, frozen=True, slots=True)
class BestEpoch:
    """The epoch whose weights are the best ones, and the value that says so."""

    epoch: FromOne
    step: Count
    metric: Annotated[str, Field(description="validation_loss, train_loss, or a metric")]
    value: float


@dataclass(config=RECORD, frozen=True, slots=True)
class Steps:
    """Updates, evenly spaced where there were too many, always with the first and the last."""

    step: tuple[Count, ...]
    epoch: tuple[Count, ...]
    lr: tuple[RateOrZero, ...]
    loss: Annotated[tuple[Loss, ...], Field(description="before the update; null: NaN or infinite")]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not len(self.step) == len(self.epoch) == len(self.lr) == len(self.loss):
            raise ValueError("steps have one epoch, one lr and one loss for each step")
        return self


# What every run was made of.


@dataclass(config=RECORD, frozen=True, slots=True)
class DataFacts:
    """What the samples are: counts by part (train, validation), shapes without the batch.

    A part that does not tell how many it has is left out; one that is not there has 0.
    """

    samples: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    hash: Annotated[str | None, Field(description="null: too large, or made as it is read")]


@dataclass(config=RECORD, frozen=True, slots=True)
class ModelFacts:
    """What is trained."""

    name: str
    parameters: int
    trainable: int


@dataclass(config=RECORD, frozen=True, slots=True)
class Environment:
    """Where the numbers were computed."""

    lrtool: str
    torch: str
    python: str
    platform: str
    device: str
    device_name: str
    threads: int


@dataclass(config=RECORD, frozen=True, slots=True)
class Timing:
    """Seconds; the two rates count the loop alone, without set-up, plots and writing."""

    total_s: float
    setup_s: float | None
    steps: int
    steps_per_s: float | None
    samples_per_s: float | None
