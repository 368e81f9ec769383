"""The report of a run: `report.json` as typed, frozen objects. Plots and tables read nothing else.

No number is ever NaN or infinite: null stands in its place, and `stop_reason` says what it was.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from lrtool.errors import UserError, key_path
from lrtool.files import write_text
from lrtool.records import StopReason, Verdict  # noqa: TC001  (pydantic reads annotations)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lrtool import records

SCHEMA_VERSION: Literal[1] = 1
FILE_NAME = "report.json"

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


class Data(Part):
    """What the samples are: counts by part (train, validation), shapes without the batch."""

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


class Report(Part):
    """Everything a run has to say."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: Literal["find"]
    status: Status
    reason: str | None = Field(description="one sentence: why this status")
    suggestion: Suggestion | None
    suggestions: dict[str, Candidate] = Field(description="every method by its name")
    sweeps: tuple[Sweep, ...]
    curve: Curve | None
    config: Annotated[dict[str, JsonValue], BeforeValidator(_spell_non_finite)]
    config_hash: str
    data: Data | None = Field(description="null: the run failed before it was read")
    model: Model | None = Field(description="null: the run failed before it was built")
    environment: Environment
    seed: int | None = Field(description="null: the caller's own random state")
    timing: Timing


def from_finding(
    finding: records.Finding | None,
    sweeps: Iterable[records.Sweep],
    *,
    status: Status,
    reason: str | None = None,
    config: Mapping[str, Any],
    config_hash: str,
    seed: int | None,
    data: Data | None,
    model: Model | None,
    environment: Environment,
    timing: Timing,
) -> Report:
    """Return the report of a `find`.

    Args:
        finding: what the curve module makes of the sweeps; None if the run ended before that.
        sweeps: the sweeps with their raw losses, also one that was interrupted.
        status: how the run ended.
        reason: why, in one sentence; by default the suggestion's own reason.
        config: the resolved configuration, or the arguments of a call, as plain data.
        config_hash: `Config.digest()` of it.
        seed: the run's seed.
        data: facts of the data.
        model: facts of the model.
        environment: versions and the device.
        timing: durations and speeds.
    """
    said = finding.suggestion if finding else None
    return Report(
        command="find",
        status=status,
        reason=reason or (said.reason if said else None),
        suggestion=_suggestion(said) if said else None,
        suggestions={
            name: Candidate(lr=candidate.lr, reason=candidate.reason)
            for name, candidate in (finding.suggestions if finding else {}).items()
        },
        sweeps=tuple(_sweep(sweep) for sweep in sweeps),
        curve=_curve(finding.curve) if finding and finding.curve else None,
        config=dict(config),
        config_hash=config_hash,
        data=data,
        model=model,
        environment=environment,
        seed=seed,
        timing=timing,
    )


def _suggestion(said: records.Suggestion) -> Suggestion:
    return Suggestion(
        lr=said.lr,
        low=said.low,
        high=said.high,
        verdict=said.verdict,
        method=said.method,
        advice=said.advice,
        for_schedule=said.for_schedule,
        for_steps=said.for_steps,
    )


def _sweep(sweep: records.Sweep) -> Sweep:
    return Sweep(
        seed=sweep.seed,
        lr=sweep.lr,
        loss=_nulls(sweep.loss),
        skipped=tuple(index for index, skipped in enumerate(sweep.skipped) if skipped),
        stop_reason=sweep.stop_reason,
    )


def _curve(curve: records.Curve) -> Curve:
    return Curve(
        lr=curve.lr, loss=_nulls(curve.loss), low=_nulls(curve.low), high=_nulls(curve.high)
    )


def _nulls(values: Iterable[float]) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in values)


def to_json(report: Report) -> str:
    """Return the report as JSON: indented for people, each list of numbers on one line."""
    return _spell(report.model_dump(mode="json"), "") + "\n"


def _spell(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{_scalar(key)}: {_spell(item, deeper)}" for key, item in value.items()]
        brackets = "{}"
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = [_spell(item, deeper) for item in value]
        brackets = "[]"
    else:
        return _scalar(value)
    lines = f",\n{deeper}".join(items)
    return f"{brackets[0]}\n{deeper}{lines}\n{indent}{brackets[1]}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write(report: Report, directory: Path) -> Path:
    """Write `report.json`, whole, and return its path.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    path = directory / FILE_NAME
    write_text(path, to_json(report))
    return path


def read(path: Path) -> Report:
    """Read a report that `write` wrote.

    Raises:
        UserError: the file cannot be read, is no report, or comes from a newer lrtool.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
    for detail in details:
        version = detail["input"]
        if detail["loc"] == ("schema_version",) and isinstance(version, int) and version > 1:
            raise UserError(
                f"{path}: written by a newer lrtool (schema version {version}; this one reads "
                f"{SCHEMA_VERSION}): update lrtool"
            )
    first = details[0]
    place = f"{key_path(first['loc'])}: " if first["loc"] else ""
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    raise UserError(f"{path}: not a report of lrtool: {place}{first['msg']}{more}")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
