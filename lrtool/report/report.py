"""The report of a run: `report.json` as typed, frozen objects. Plots and tables read nothing else.

No number is ever NaN or infinite: null stands in its place, and `stop_reason` or `status` says what
it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lrtool.errors import UserError, key_path
from lrtool.report.files import write_text
from lrtool.report.parts import (
    SCHEMA_VERSION,
    Candidate,
    Curve,
    Data,
    Environment,
    Facts,
    FirstUpdate,
    Model,
    Race,
    Racer,
    RunReport,
    Status,
    Suggestion,
    Sweep,
    Timing,
    null,
    nulls,
)
from lrtool.report.train_report import TrainReport, from_training

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lrtool.report import records

__all__ = [
    "FILE_NAME",
    "AnyReport",
    "Candidate",
    "Curve",
    "Data",
    "Environment",
    "FirstUpdate",
    "Model",
    "Race",
    "Racer",
    "Report",
    "Status",
    "Suggestion",
    "Sweep",
    "Timing",
    "TrainReport",
    "from_finding",
    "from_training",
    "json_schema",
    "read",
    "to_json",
    "write",
]

FILE_NAME = "report.json"


class Report(RunReport):
    """Everything a `find` has to say."""

    command: Literal["find"]
    first_update: FirstUpdate | None = Field(None, description="null: not measured")
    trials: Race | None = Field(
        None, description="two short trainings beside the estimate; null: there were none"
    )
    race: Race | None = Field(None, description="null: there was none")


AnyReport = Report | TrainReport
KINDS: dict[str, type[AnyReport]] = {"find": Report, "train": TrainReport}


def from_finding(
    finding: records.Finding | None,
    sweeps: Iterable[records.Sweep],
    *,
    update: records.FirstUpdate | None = None,
    trials: records.Race | None = None,
    race: records.Race | None = None,
    status: Status,
    reason: str | None = None,
    **facts: Unpack[Facts],
) -> Report:
    """Return the report of a `find`.

    Args:
        finding: what the curve module makes of the sweeps; None if the run ended before that.
        sweeps: the sweeps with their raw losses, also one that was interrupted.
        update: what the first update told, if it was measured.
        trials: two short trainings beside the estimate, if there were some.
        race: of the candidates, if there was one.
        status: how the run ended.
        reason: why, in one sentence; by default the suggestion's own reason.
        facts: of the run.
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
        first_update=FirstUpdate(**asdict(update)) if update else None,
        trials=_race(trials) if trials else None,
        race=_race(race) if race else None,
        **facts,
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
        loss=nulls(sweep.loss),
        skipped=tuple(index for index, skipped in enumerate(sweep.skipped) if skipped),
        stop_reason=sweep.stop_reason,
    )


def _curve(curve: records.Curve) -> Curve:
    return Curve(lr=curve.lr, loss=nulls(curve.loss), low=nulls(curve.low), high=nulls(curve.high))


def _race(race: records.Race) -> Race:
    return Race(
        seed=race.seed,
        steps=race.steps,
        steps_spent=race.steps_spent,
        measure=race.measure,
        examples=race.examples,
        untrained_loss=null(race.untrained_loss),
        candidates=tuple(_racer(racer) for racer in race.candidates),
        interrupted=race.interrupted,
    )


def _racer(racer: records.Racer) -> Racer:
    return Racer(
        lr=racer.lr,
        origin=racer.origin,
        loss=nulls(racer.loss),
        half_loss=None if racer.half_loss is None else null(racer.half_loss),
        final_loss=None if racer.final_loss is None else null(racer.final_loss),
        standard_error=racer.standard_error,
        outcome=racer.outcome,
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
    """What tells which report a file holds."""

    model_config = ConfigDict(strict=True)

    schema_version: int
    command: str


def read(path: Path) -> AnyReport:
    """Read a report that `write` wrote: a `Report` of find, a `TrainReport` of train.

    Raises:
        UserError: the file cannot be read, is no report, or comes from a newer lrtool.
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
        Annotated[Report | TrainReport, Field(discriminator="command")]
    )
    schema = either.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
