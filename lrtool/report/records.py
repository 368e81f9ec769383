"""What a run leaves: rows, the lines of metrics.jsonl, and records, the parts of report.json.

The curve code computes with these records too. Learning rates are positive. Losses are what was
measured: NaN and infinity in memory are null in report.json, and null is read as NaN, or as None
where that is allowed.
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
    """Return a number as JSON can hold it: None for NaN and infinity."""
    return value if value is not None and isfinite(value) else None


def _nan_for_null(value: Any) -> Any:
    return nan if value is None else value


Count = Annotated[int, Field(ge=0, le=2**53)]
FromOne = Annotated[int, Field(ge=1, le=2**53)]
Rate = Annotated[float, Field(gt=0)]
RateOrZero = Annotated[float, Field(ge=0)]  # schedules may begin or end at zero
Loss = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_nan_for_null),
    PlainSerializer(finite_or_none, return_type=float | None, when_used="json"),
]

# Types are strict, unknown keys are refused, all numbers but a `Loss` are finite, and all keys are
# written.
RECORD = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    json_schema_serialization_defaults_required=True,
)


# Rows of a find. They are made at each update, so nothing is validated.


@dataclasses.dataclass(frozen=True, slots=True)
class SweepRow:
    """One step of a sweep.

    Attributes:
        repeat: which sweep of the run, from 0.
        step: which step of the sweep, from 0.
        lr: the rate of this step's update.
        loss: of this step's batch (or of the probe), *before* this step's update.
        skipped: the gradients overflowed, and the scaler made no update.
        denominator: what the loss is a mean over, as in a `StepRow`.
    """

    repeat: int
    step: int
    lr: float
    loss: float
    skipped: bool
    denominator: float | None = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class TrialRow:
    """One update of a trial.

    Attributes:
        trial: 0 is the one at the lower rate, 1 the other of the first two.
        step: updates made, this one included.
        lr: the trial's base rate, which the schedule multiplies.
        loss: as in a `RaceRow`.
    """

    trial: int
    step: int
    lr: float
    loss: float


@dataclasses.dataclass(frozen=True, slots=True)
class FullTrialRow:
    """One update of a full trial.

    Attributes:
        step: updates made, this one included.
        lr: its base rate, which the schedule multiplies.
        loss: as in a `RaceRow`.
    """

    step: int
    lr: float
    loss: float


@dataclasses.dataclass(frozen=True, slots=True)
class RaceRow:
    """One update of a candidate in a race.

    Attributes:
        candidate: which one, from 0.
        step: updates made, this one included.
        lr: the candidate's base rate, which the schedule multiplies.
        loss: of its batches as of one, *before* the update; NaN or infinite only in a candidate's
            last row, or where all targets are ignored.
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
        loss: of its batches as of one, *before* the update; NaN or infinite only in a training's
            last row, or where all targets are ignored.
        samples: how many samples these were.
        grad_norm: 2-norm of all gradients before clipping; None without clipping.
        skipped: the gradients overflowed, and the scaler made no update.
        denominator: what the loss is a mean over: samples, targets that are not ignored, or the
            weights of their classes. 0: all targets are ignored, so there is no loss and the
            gradients are 0. None: the loss is a sum.
    """

    step: int
    epoch: int
    lr: float
    loss: float
    samples: int
    grad_norm: float | None
    skipped: bool
    denominator: float | None = 1.0


# A model, because each metric is a further key: EpochRow(epoch=1, …, accuracy=0.9).
class EpochRow(BaseModel):
    """One epoch; or a part of one, where a training ended within it and was made longer later.

    Each metric is a further key under its own name: on the validation set, or on the training set
    where there is no other. null means NaN or infinite, such as AUROC of one class, and for
    `validation_loss` also that there is no validation set.
    """

    model_config = ConfigDict(**{**RECORD, "extra": "allow"}, frozen=True)
    __pydantic_extra__: dict[str, Loss]

    epoch: FromOne
    step: Count = Field(description="steps since the training began")
    lr: RateOrZero = Field(description="the base learning rate of the last step")
    train_loss: Loss = Field(
        description="of its batches as of one, each before the step it took part in"
    )
    validation_loss: Loss | None = Field(
        description="on the validation set, with the weights at the end of the epoch, or with "
        "their moving average"
    )

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric by its name."""
        return self.__pydantic_extra__


# What a find leaves.


@dataclass(config=RECORD, frozen=True, slots=True)
class FirstUpdate:
    """What the direction of the very first update says about the learning rate."""

    critical_lr: Annotated[
        Rate | None,
        Field(
            description="the highest rate that does not raise the loss of its own batch; null: none"
        ),
    ]
    ratio_lr: Annotated[
        Rate | None,
        Field(
            description="the rate at which the update has the norm of the weights, the median "
            "over matrices, of their rows with a gradient; null: none of these is other than 0"
        ),
    ]
    steps: Annotated[
        float, Field(ge=0, description="its cost in training steps; a forward pass counts a third")
    ]
    opening: Annotated[
        float,
        Field(gt=0, description="its size over that of later updates for the same gradient"),
    ] = 1.0


@dataclass(config=RECORD, frozen=True, slots=True)
class Sweep:
    """One sweep: `loss[i]` belongs to the batch seen with `lr[i]`, before that update."""

    seed: int
    lr: tuple[Rate, ...]
    loss: Annotated[
        tuple[Loss, ...],
        Field(
            description="the raw losses; null: NaN or infinite, see stop_reason, or a step without "
            "targets"
        ),
    ]
    skipped: Annotated[
        tuple[Count, ...],
        Field(description="the steps, from 0, that the gradient scaler skipped"),
    ]
    stop_reason: StopReason
    without_targets: Annotated[
        tuple[Count, ...],
        Field(description="the steps, from 0, whose targets are all ignored: they have no loss"),
    ] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        left_out = (*self.skipped, *self.without_targets)
        if len(self.lr) != len(self.loss) or max(left_out, default=-1) >= len(self.lr):
            raise ValueError("a sweep has one loss for each rate, and skips only steps it has")
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class Curve:
    """The smoothed loss after a step at each rate, with an 80% band; null: not known there."""

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
            description="lower end of the interval, which reaches the rates that train almost as "
            "well as the best one with a probability of 80%"
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
            description="suggestion: the estimate of the best rate; lower, higher: half a decade "
            "from it, trials 0.4 decades; prior: the optimizer's usual rate; outward: beyond the "
            "best candidate"
        ),
    ]
    loss: Annotated[
        tuple[Loss, ...],
        Field(description="the loss of each step, before its update; null: NaN or infinite"),
    ]
    half_loss: Annotated[
        Loss | None,
        Field(
            description="the loss that is compared, half-way; null: not measured, NaN or infinite"
        ),
    ]
    final_loss: Annotated[Loss | None, Field(description="the same at the end")]
    standard_error: Annotated[
        float | None,
        Field(description="of the difference between its loss and that of the best candidate"),
    ]
    outcome: Annotated[
        RaceOutcome,
        Field(
            description="won: the lowest final loss; dropped: out half-way; unfinished: the race "
            "was interrupted"
        ),
    ]
    descent_error: Annotated[
        float | None,
        Field(
            description="of the difference between its final loss and the untrained one, over the "
            "same validation samples; null: not measured, or on too few batches of them"
        ),
    ] = None


@dataclass(config=RECORD, frozen=True, slots=True)
class Race:
    """Trainings at several rates, from the same weights over the same batches.

    Short ones, or whole ones of up to 300 steps.
    """

    seed: Annotated[int, Field(description="of weights and batches; no sweep has the same")]
    steps: Annotated[
        FromOne, Field(description="steps of each candidate that was not dropped half-way")
    ]
    steps_spent: Annotated[
        float, Field(ge=0, description="steps of all together; a forward pass counts a third")
    ]
    measure: Annotated[
        Literal["validation", "training"],
        Field(
            description="what was compared: the loss on validation samples, or the last training "
            "losses"
        ),
    ]
    examples: Annotated[Count, Field(description="how many samples that is")]
    untrained_loss: Annotated[Loss, Field(description="the same loss before the first step")]
    candidates: Annotated[
        tuple[Candidate, ...], Field(description="in the order in which they raced")
    ]
    interrupted: Annotated[bool, Field(description="it did not get to its end")]


@dataclass(config=RECORD, frozen=True, slots=True)
class FullTrial:
    """One training as long as the real one, where trials may mislead: when does it overfit?"""

    seed: Annotated[int, Field(description="of weights and batches; nothing else has the same")]
    lr: Annotated[Rate, Field(description="the estimate after the trials")]
    steps: Annotated[FromOne, Field(description="of the training")]
    steps_spent: Annotated[
        float, Field(ge=0, description="with its measurements; a forward pass counts a third")
    ]
    examples: Annotated[Count, Field(description="how many validation samples it is measured on")]
    untrained_loss: Annotated[Loss, Field(description="their loss before the first step")]
    step: Annotated[tuple[FromOne, ...], Field(description="steps made at each measurement")]
    share: Annotated[
        tuple[float, ...],
        Field(description="of the sum of all rates over the steps, until each measurement"),
    ]
    validation: Annotated[
        tuple[Loss, ...],
        Field(description="the validation loss measured there; null: NaN or infinite"),
    ]
    loss: Annotated[
        tuple[Loss, ...],
        Field(description="the loss of each step, before its update; null: NaN or infinite"),
    ]
    interrupted: Annotated[bool, Field(description="it did not get to its end")]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What a search makes of its sweeps.

    Attributes:
        suggestion: the rate to train with.
        suggestions: what every method says, by its name; "sweep" is "auto" before trials.
        curve: the smoothed loss; None without enough steps.
        centre: the rate around which to race: the suggested one or, where trials found none, the
            estimate before them. None if there is none either.
        trial_rates: for the next trials: two beside it, then one outwards at a time; None where
            trials could not tell anything more.
        full_trial_rate: for a full trial; None where there is none to make.
    """

    suggestion: Suggestion
    suggestions: dict[str, MethodSuggestion]
    curve: Curve | None
    centre: float | None = None
    trial_rates: tuple[float, ...] | None = None
    full_trial_rate: float | None = None


# What a training leaves.


@dataclass(config=RECORD, frozen=True, slots=True)
class LearningRate:
    """The base learning rate of the schedule, and where it comes from."""

    value: Rate
    origin: Annotated[
        Literal["flag", "config", "find", "run", "optimizer"],
        Field(description="find: found by this run; run: from the run that --lr-from named"),
    ]
    run: Annotated[
        str | None, Field(description="the directory of the search or the run that it comes from")
    ]


@dataclass(config=RECORD, frozen=True, slots=True)
class BestEpoch:
    """The epoch whose weights are the best ones, and the value that says so."""

    epoch: FromOne
    step: Count
    metric: Annotated[str, Field(description="validation_loss, train_loss, or a metric")]
    value: float


@dataclass(config=RECORD, frozen=True, slots=True)
class ClassFacts:
    """How well a class, or a label of several, was told on the validation set."""

    name: str
    support: Annotated[Count, Field(description="how many samples are of it")]
    predicted: Annotated[Count, Field(description="for how many it was predicted")]
    right: Annotated[Count, Field(description="for how many of these rightly")]
    precision: Annotated[float | None, Field(description="right / predicted; null: 0 / 0")]
    recall: Annotated[float | None, Field(description="right / support; null: 0 / 0")]
    f1: Annotated[float | None, Field(description="2 right / (predicted + support); null: 0 / 0")]


@dataclass(config=RECORD, frozen=True, slots=True)
class ValueFacts:
    """What was predicted for one number of each sample, in its own units.

    A residual is predicted minus actual.
    """

    name: Annotated[str | None, Field(description="of its column")]
    actual: Annotated[
        tuple[float, ...], Field(description="of at most 300 samples, drawn by the seed")
    ]
    predicted: Annotated[tuple[float, ...], Field(description="of the same samples")]
    mean_residual: Annotated[float, Field(description="over all samples")]
    rmse: Annotated[float, Field(description="root of the mean square of all residuals")]
    edges: Annotated[
        tuple[float, ...], Field(description="of the bins of the residuals of all samples")
    ]
    counts: Annotated[tuple[Count, ...], Field(description="of the residuals in each bin")]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.actual) != len(self.predicted) or len(self.edges) != len(self.counts) + 1:
            raise ValueError("each actual value has a predicted one, and each bin two edges")
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class PredictionFacts:
    """What the weights of the best epoch predict on the validation set: classes or values."""

    samples: Annotated[Count, Field(description="that were counted")]
    classes: Annotated[
        tuple[ClassFacts, ...], Field(description="in the order of the outputs; empty: no classes")
    ] = ()
    matrix: Annotated[
        tuple[tuple[Count, ...], ...],
        Field(
            description="the confusion matrix: matrix[i][j] samples of class i were taken for "
            "class j; empty for labels of which a sample may have several, and for many classes"
        ),
    ] = ()
    values: Annotated[
        tuple[ValueFacts, ...], Field(description="one for each output; empty: no regression")
    ] = ()
    reason: Annotated[
        str | None, Field(description="what is left out and why; null: nothing is")
    ] = None


@dataclass(config=RECORD, frozen=True, slots=True)
class Reached:
    """How far a training has come."""

    epoch: Annotated[Count, Field(description="begun, from 1; 0: none")]
    step: Annotated[Count, Field(description="updates made")]


@dataclass(config=RECORD, frozen=True, slots=True)
class Steps:
    """The steps of a training, but for those without targets; of more than 2,000 a selection."""

    step: tuple[Count, ...]
    epoch: tuple[Count, ...]
    lr: tuple[RateOrZero, ...]
    loss: Annotated[
        tuple[Loss, ...], Field(description="the loss before the update; null: NaN or infinite")
    ]
    lowest: Annotated[
        tuple[Loss, ...],
        Field(
            description="the lowest loss from each of these steps up to the next; empty: no step "
            "is left out, or an older report"
        ),
    ] = ()
    highest: Annotated[
        tuple[Loss, ...], Field(description="the highest; null: one is NaN or infinite")
    ] = ()
    grad_norm: Annotated[
        tuple[Loss | None, ...],
        Field(
            description="the highest norm of the gradients before clipping, from each of these "
            "steps up to the next; empty: they are not clipped, or an older report"
        ),
    ] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        count = len(self.step)
        if not count == len(self.epoch) == len(self.lr) == len(self.loss):
            raise ValueError("steps have one epoch, one lr and one loss for each step")
        if {len(self.lowest), len(self.highest)} not in ({0}, {count}):
            raise ValueError("steps have a lowest and a highest loss each, or none has")
        if len(self.grad_norm) not in {0, count}:
            raise ValueError("steps have a norm of gradients each, or none has")
        return self


# What every run was made of.


@dataclass(config=RECORD, frozen=True, slots=True)
class TargetScale:
    """How the target y of a regression was standardised: (y − mean) / deviation.

    Losses are of that; metrics are in the units of y.
    """

    name: Annotated[str | None, Field(description="of its column")]
    mean: float
    deviation: Annotated[float, Field(gt=0)]


@dataclass(config=RECORD, frozen=True, slots=True)
class ColumnFacts:
    """How a column of a table was read."""

    name: str
    use: Literal["input", "target", "left out"]
    kind: Annotated[
        Literal["number", "words"] | None,
        Field(description="words: an input, or a class, for each; null: left out"),
    ] = None
    low: Annotated[float | None, Field(description="the lowest number")] = None
    high: Annotated[float | None, Field(description="the highest number")] = None
    words: Annotated[
        Count | None, Field(description="how many different words, or classes of the target")
    ] = None
    missing: Annotated[Count, Field(description="how many fields are missing")] = 0
    reason: Annotated[str | None, Field(description="why it is left out")] = None


@dataclass(config=RECORD, frozen=True, slots=True)
class DataFacts:
    """Facts of the data: samples of each part (train, validation), and shapes of one sample.

    A part whose size is not known is left out; one that does not exist has 0 samples.
    """

    samples: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    hash: Annotated[str | None, Field(description="null: too large, or made as it is read")]
    target: Annotated[
        TargetScale | None, Field(description="null: it was not standardised, or is a class")
    ] = None
    columns: Annotated[
        tuple[ColumnFacts, ...], Field(description="of a table; empty for other data")
    ] = ()
    samples_per_update: Annotated[
        FromOne | None,
        Field(description="over all ranks: a batch, times train.accumulate; null: an older report"),
    ] = None


@dataclass(config=RECORD, frozen=True, slots=True)
class CheckpointFacts:
    """The pretrained weights that a model starts from; a module's name stands for all in it."""

    path: Annotated[str, Field(description="of the file, or of the run's checkpoint")]
    hash: Annotated[str, Field(description="SHA-256 of all names and values in the file")]
    loaded: Annotated[Count, Field(description="tensors of the file that the model has taken")]
    fresh: Annotated[
        tuple[str, ...], Field(description="what of the model has none of them (partial: true)")
    ] = ()
    unused: Annotated[
        tuple[str, ...], Field(description="what of the file the model lacks (partial: true)")
    ] = ()
    notes: Annotated[
        tuple[str, ...], Field(description="what was said about them, one sentence each")
    ] = ()


@dataclass(config=RECORD, frozen=True, slots=True)
class RateFacts:
    """What is trained at one rate; the name of a module stands for all that it trains."""

    lr_ratio: Annotated[float, Field(description="its learning rate, divided by the base rate")]
    parameters: Annotated[Count, Field(description="numbers in them")]
    parts: tuple[str, ...]


@dataclass(config=RECORD, frozen=True, slots=True)
class ModelFacts:
    """What is trained; the name of a module stands for all parameters in it."""

    name: str
    parameters: int
    trainable: int
    checkpoint: Annotated[
        CheckpointFacts | None, Field(description="null: the weights were random at the start")
    ] = None
    trained: Annotated[
        tuple[str, ...], Field(description="what of the model is trained; empty: an older report")
    ] = ()
    frozen: Annotated[tuple[str, ...], Field(description="what is not")] = ()
    rates: Annotated[
        tuple[RateFacts, ...],
        Field(description="of what is trained, if it has several (layer_decay, lr_ratio)"),
    ] = ()


@dataclass(config=RECORD, frozen=True, slots=True)
class RankFacts:
    """One of several processes that share the work."""

    host: Annotated[str, Field(description="name of its machine")]
    device: str


@dataclass(config=RECORD, frozen=True, slots=True)
class Environment:
    """Where the numbers were computed; device and threads are those of rank 0."""

    lrtool: str
    torch: str
    python: str
    platform: str
    device: str
    device_name: str
    threads: int
    world_size: Annotated[FromOne, Field(description="number of ranks")] = 1
    backend: Annotated[
        str | None, Field(description="gloo or nccl, by which ranks meet; null: one process")
    ] = None
    ranks: Annotated[
        tuple[RankFacts, ...], Field(description="in their order; empty for one process")
    ] = ()


@dataclass(config=RECORD, frozen=True, slots=True)
class Timing:
    """Seconds, and steps and samples per second in the loop alone, without set-up and plots."""

    total_s: float
    setup_s: float | None
    steps: int
    steps_per_s: float | None
    samples_per_s: float | None
