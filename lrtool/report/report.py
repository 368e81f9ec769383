"""The report of a run, `report.json`. Plots and tables read nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from lrtool.errors import UserError, key_path
from lrtool.report.files import write_text
from lrtool.report.records import (
    RECORD,
    BestEpoch,
    Curve,
    DataFacts,
    Environment,
    EpochRow,
    FirstUpdate,
    FullTrial,
    LearningRate,
    MethodSuggestion,
    ModelFacts,
    PredictionFacts,
    Race,
    Reached,
    Steps,
    Suggestion,
    Sweep,
    Timing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lrtool.report.records import StepRow

FILE_NAME = "report.json"
SCHEMA_VERSION: Literal[1] = 1
MOST_STEPS = 2_000  # what a plot can show

Status = Literal["completed", "no_suggestion", "diverged", "interrupted", "failed"]


def _spell_non_finite(value: Any) -> Any:
    """Spell NaN and infinity as YAML does: a configuration may hold them, JSON may not."""
    if isinstance(value, dict):
        return {key: _spell_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_non_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return value


class RunReport(BaseModel):
    """What the reports of all commands have in common."""

    model_config = ConfigDict(**RECORD, frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str
    status: Status
    reason: str | None = Field(description="one sentence: why this status")
    suggestion: Suggestion | None
    suggestions: dict[str, MethodSuggestion] = Field(
        {}, description='what each method says; "sweep" is "auto" before trials and race'
    )
    sweeps: tuple[Sweep, ...] = ()
    curve: Curve | None = None
    config: Annotated[dict[str, JsonValue], BeforeValidator(_spell_non_finite)] = Field(
        description="the resolved configuration, or the arguments of find_lr"
    )
    config_hash: str
    data: DataFacts | None = Field(description="null: the run failed before the data were read")
    model: ModelFacts | None = Field(description="null: the run failed before the model was built")
    environment: Environment
    seed: int | None = Field(description="null for find_lr, which uses the caller's random state")
    timing: Timing


class FindReport(RunReport):
    """Everything a `find` has to say."""

    command: Literal["find"] = "find"
    first_update: FirstUpdate | None = Field(None, description="null: it was not measured")
    trials: Race | None = Field(
        None, description="two trials or three, in the form of a race; null: there were none"
    )
    full_trial: FullTrial | None = Field(
        None, description="null: there was none, as trials sufficed, or it would take too long"
    )
    race: Race | None = Field(None, description="null: there was none")


class TrainReport(RunReport):
    """Everything a `train` has to say; a find that chose the rate left its suggestion."""

    command: Literal["train"] = "train"
    learning_rate: LearningRate | None = Field(description="null: the run failed before it had one")
    epochs: tuple[EpochRow, ...]
    best: BestEpoch | None = Field(description="null: no epoch has a finite value")
    checkpoint: str | None = Field(
        description="the newest good checkpoint, relative to the run directory"
    )
    steps: Steps
    predictions: PredictionFacts | None = Field(
        None, description="of the best epoch's weights; null: there are none, or an older report"
    )
    reached: Reached | None = Field(
        None, description="where it ended; null: it did not begin, or an older report"
    )


AnyReport = FindReport | TrainReport
KINDS: dict[str, type[AnyReport]] = {"find": FindReport, "train": TrainReport}


@dataclass(slots=True)
class _Kept:
    """A step that is kept, and the extremes of it and of those left out after it."""

    row: StepRow
    lowest: float
    highest: float
    grad_norm: float | None

    def join(self, other: _Kept) -> None:
        """Add the extremes of steps that follow. NaN and infinity are the highest of all."""
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)
        norms = [norm for norm in (self.grad_norm, other.grad_norm) if norm is not None]
        self.grad_norm = max(norms, default=None)


def _kept(row: StepRow) -> _Kept:
    loss = row.loss if math.isfinite(row.loss) else math.inf
    norm = math.inf if row.grad_norm is not None and math.isnan(row.grad_norm) else row.grad_norm
    return _Kept(row, loss, loss, norm)


def _halve(kept: list[_Kept]) -> None:
    for first, second in zip(kept[::2], kept[1::2], strict=False):
        first.join(second)
    del kept[1::2]


def thin(rows: Iterable[StepRow], most: int = MOST_STEPS) -> Steps:
    """Return at most `most` of the rows, evenly spaced, with the first and the last.

    Of those between, the lowest and the highest loss and the highest norm of gradients are kept.
    The rows are read once and at most `most` are in memory: a generator may yield millions.

    Args:
        rows: in the order of their steps.
        most: at least 3.
    """
    kept: list[_Kept] = []
    stride, last = 1, None
    for index, row in enumerate(row for row in rows if row.denominator != 0):
        last = _kept(row)
        if index % stride == 0 and len(kept) == most:
            _halve(kept)
            stride *= 2
        if index % stride == 0:
            kept.append(last)
        else:
            kept[-1].join(last)
    if last is not None and last is not kept[-1]:
        if len(kept) == most:
            _halve(kept)
        kept.append(last)
    norms = tuple(each.grad_norm for each in kept)
    return Steps(
        step=tuple(each.row.step for each in kept),
        epoch=tuple(each.row.epoch for each in kept),
        lr=tuple(each.row.lr for each in kept),
        loss=tuple(each.row.loss for each in kept),
        lowest=tuple(each.lowest for each in kept) if stride > 1 else (),
        highest=tuple(each.highest for each in kept) if stride > 1 else (),
        grad_norm=norms if any(norm is not None for norm in norms) else (),
    )


def to_json(report: AnyReport) -> str:
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


def write(report: AnyReport, directory: Path) -> Path:
    """Write `report.json`, whole, and return its path.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    path = directory / FILE_NAME
    write_text(path, to_json(report))
    return path


class _Head(BaseModel):
    """The keys that tell the kind and version of a report."""

    model_config = ConfigDict(strict=True)

    schema_version: int
    command: str


def read(path: Path) -> AnyReport:
    """Read a report that `write` wrote.

    Raises:
        UserError: the file cannot be read, is not a report, or comes from a newer lrtool.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        head = _Head.model_validate_json(content)
        if head.schema_version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: written by a newer lrtool (schema version {head.schema_version}; this "
                f"one reads {SCHEMA_VERSION}): update lrtool"
            )
        if kind := KINDS.get(head.command):
            return kind.model_validate_json(content)
        raise UserError(
            f"{path}: not a report of lrtool: command: must be {' or '.join(KINDS)}, not "
            f"{head.command!r}"
        )
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
    first = details[0]
    place = f"{key_path(first['loc'])}: " if first["loc"] else ""
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    raise UserError(f"{path}: not a report of lrtool: {place}{first['msg']}{more}")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`: of a `find` or of a `train`."""
    either: TypeAdapter[AnyReport] = TypeAdapter(
        Annotated[AnyReport, Field(discriminator="command")]
    )
    schema = either.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
