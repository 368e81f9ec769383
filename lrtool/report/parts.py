"""What reports are made of: typed, frozen mappings, which `find` and `train` share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from lrtool.report.records import RaceOrigin, RaceOutcome, StopReason, Verdict  # noqa: TC001  (pydantic reads annotations)

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Literal[1] = 1

Status = Literal["completed", "no_suggestion", "diverged", "interrupted", "failed"]
Rate = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """A mapping of the report: strict types, no unknown keys, immutable, every number finite."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,  # every key is always written
    )


class Suggestion(Part):
    """The rate to train with; `lr`, `low` and `high` are null when the verdict is "none"."""

    lr: Rate | None
    low: Rate | None
    high: Rate | None
    verdict: Verdict
    method: str
    advice: tuple[str, ...] = Field(description="what to do next, one sentence each")
    for_schedule: str
    for_steps: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _rate_or_none(self) -> Self:
        if (self.lr is None) != (self.verdict == "none"):
            raise ValueError('a suggestion has a rate, or the verdict "none"')
        return self


class Candidate(Part):
    """What one method says: a rate, or the reason why it has none."""

    lr: Rate | None
    reason: str | None


class Sweep(Part):
    """One sweep: `loss[i]` belongs to the batch seen with `lr[i]`, before that update."""

    seed: int
    lr: tuple[Rate, ...]
    loss: tuple[float | None, ...] = Field(
        description="raw losses; null: NaN or infinite, see stop_reason"
    )
    skipped: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="indices of the steps whose update the gradient scaler skipped"
    )
    stop_reason: StopReason

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.lr) != len(self.loss) or max(self.skipped, default=-1) >= len(self.lr):
            raise ValueError("a sweep has one loss for each rate, and skips only steps it has")
        return self


class Curve(Part):
    """The smoothed loss after an update with each rate, with an 80% band; null: not known there."""

    lr: tuple[Rate, ...]
    loss: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not len(self.lr) == len(self.loss) == len(self.low) == len(self.high):
            raise ValueError("a curve has one loss, one low and one high for each rate")
        return self


class FirstUpdate(Part):
    """What the direction of the very first update tells of the rate."""

    critical_lr: Rate | None = Field(description="from which on it raises its own batch's loss")
    ratio_lr: Rate | None = Field(description="at which it is as long as the weights")
    steps: float = Field(ge=0, description="what that cost; a forward pass counts a third")
    opening: float = Field(
        1.0, gt=0, description="its length over that of later updates, for a steady gradient"
    )


class Racer(Part):
    """One candidate of a race."""

    lr: Rate
    origin: RaceOrigin = Field(
        description="suggestion: the estimate of the best rate; lower, higher: on either side of "
        "it; prior: the optimizer's usual rate; outward: beyond the best one"
    )
    loss: tuple[float | None, ...] = Field(
        description="of each update's batches, before it; null: NaN or infinite"
    )
    half_loss: float | None = Field(description="half-way; null: not there, NaN or infinite")
    final_loss: float | None = Field(description="at the end; null: as half-way")
    standard_error: float | None = Field(
        description="of the difference between its loss and the best one's"
    )
    outcome: RaceOutcome


class Race(Part):
    """Short trainings at several rates, from the same weights over the same batches."""

    seed: int
    steps: int = Field(ge=1, description="of each candidate that was not dropped half-way")
    steps_spent: float = Field(ge=0, description="of all; a forward pass counts a third of a step")
    measure: Literal["validation", "training"] = Field(
        description="which losses were compared: of examples of the validation part, or the last "
        "ones of training"
    )
    examples: int = Field(ge=0, description="how many these are")
    untrained_loss: float | None = Field(description="the same before the first update")
    candidates: tuple[Racer, ...]
    interrupted: bool


class Data(Part):
    """What the samples are: counts by part (train, validation), shapes without the batch.

    A part that does not tell how many it has is left out; one that is not there has 0.
    """

    samples: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    hash: str | None = Field(description="null: too large, or made as it is read")


class Model(Part):
    """What is trained."""

    name: str
    parameters: int
    trainable: int


class Environment(Part):
    """Where the numbers were computed."""

    lrtool: str
    torch: str
    python: str
    platform: str
    device: str
    device_name: str
    threads: int


class Timing(Part):
    """Seconds; the two rates count the loop alone, without set-up, plots and writing."""

    total_s: float
    setup_s: float | None
    steps: int
    steps_per_s: float | None
    samples_per_s: float | None


def _spell_non_finite(value: Any) -> Any:
    """Spell NaN and infinity as YAML does: a configuration may hold them, JSON may not."""
    if isinstance(value, dict):
        return {key: _spell_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return value


class RunReport(Part):
    """What every run has to say."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str
    status: Status
    reason: str | None = Field(description="one sentence: why this status")
    suggestion: Suggestion | None
    suggestions: dict[str, Candidate] = Field(
        description='every method by its name; "sweep": auto before trials and race'
    )
    sweeps: tuple[Sweep, ...]
    curve: Curve | None
    config: Annotated[dict[str, JsonValue], BeforeValidator(_spell_non_finite)]
    config_hash: str
    data: Data | None = Field(description="null: the run failed before it was read")
    model: Model | None = Field(description="null: the run failed before it was built")
    environment: Environment
    seed: int | None = Field(description="null: the caller's own random state")
    timing: Timing


class Facts(TypedDict):
    """What every run knows of itself, whatever came of it.

    Attributes:
        config: the resolved configuration, or the arguments of a call, as plain data.
        config_hash: `Config.digest()` of it.
        seed: the run's seed; None: the caller's own random state.
        data: facts of the data.
        model: facts of the model.
        environment: versions and the device.
        timing: durations and speeds.
    """

    config: dict[str, Any]
    config_hash: str
    seed: int | None
    data: Data | None
    model: Model | None
    environment: Environment
    timing: Timing


def null(value: float) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON does not know."""
    return value if math.isfinite(value) else None


def nulls(values: Iterable[float]) -> tuple[float | None, ...]:
    """Return the numbers with None for NaN and infinity."""
    return tuple(map(null, values))
