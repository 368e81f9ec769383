"""`metrics.jsonl` of a training: a line for each update and each epoch, appended as they come."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import fields
from math import isfinite, isnan
from typing import IO, TYPE_CHECKING, Any, TypeVar

from lrtool.errors import LrtoolWarning
from lrtool.report.records import EpochRow, StepRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Row = TypeVar("Row", StepRow, EpochRow)

_BEGINS = {StepRow: b'{"kind": "step"', EpochRow: b'{"kind": "epoch"'}  # what `_line` begins with
_STEP = [field.name for field in fields(StepRow)]
_EPOCH = [field.name for field in fields(EpochRow) if field.name != "metrics"]
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def reopen(path: Path, size: int) -> IO[bytes]:
    """Open the file to append to its first `size` bytes; what is beyond them is forgotten.

    Rows beyond those that a checkpoint knows of will be made again, the same ones.

    Warns:
        LrtoolWarning: it is shorter than that, so rows are missing.

    Raises:
        OSError: it cannot be written.
    """
    file = path.open("a+b")
    held = file.tell()
    if held < size:
        warnings.warn(
            f"{path} has lost rows: {held:,} bytes are left of {size:,}; the plots will lack them",
            LrtoolWarning,
            stacklevel=2,
        )
        file.seek(0)
        size = file.read().rfind(b"\n") + 1  # a new row must not join one that was cut off
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return file


def append(file: IO[bytes], rows: Sequence[StepRow | EpochRow]) -> None:
    """Write rows as JSON, a line each, and hand them to the system at once."""
    file.write("".join(f"{_line(row)}\n" for row in rows).encode())
    file.flush()


def synced_size(file: IO[bytes]) -> int:
    """Bring what was written to the disk and return the file's size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _line(row: StepRow | EpochRow) -> str:
    if isinstance(row, StepRow):
        values = {"kind": "step", **{name: getattr(row, name) for name in _STEP}}
    else:
        values = {"kind": "epoch", **{name: getattr(row, name) for name in _EPOCH}, **row.metrics}
    try:
        return _ENCODER.encode(values)
    except ValueError:  # a number that JSON does not know
        flags = {name: flag for name, value in values.items() if (flag := _flag(value))}
        finite = {name: None if name in flags else value for name, value in values.items()}
        return _ENCODER.encode({**finite, "not_finite": flags})


def _flag(value: Any) -> str | None:
    """JSON knows no NaN: null stands in its place, and a flag beside it."""
    if not isinstance(value, float) or isfinite(value):
        return None
    return "nan" if isnan(value) else "inf" if value > 0 else "-inf"


def read(path: Path, kind: type[Row]) -> Iterator[Row]:
    """Yield the steps or the epochs of a file, if it is there; a last line cut off is left out.

    Lines of the other kind are passed over unread: a long training has a million steps.

    Warns:
        LrtoolWarning: another line is damaged, and left out.
    """
    if not path.exists():
        return
    other = _BEGINS[EpochRow if kind is StepRow else StepRow]
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            if line.startswith(other):
                continue
            try:
                row = _row(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                warnings.warn(
                    f"{path}:{number}: this row is damaged and left out",
                    LrtoolWarning,
                    stacklevel=2,
                )
            else:
                if isinstance(row, kind):
                    yield row


def _row(values: dict[str, Any]) -> StepRow | EpochRow:
    kind = values.pop("kind")
    for name, flag in values.pop("not_finite", {}).items():
        values[name] = float(flag)
    return StepRow(**values) if kind == "step" else _epoch(values)


def _epoch(values: dict[str, Any]) -> EpochRow:
    own = {name: values.pop(name) for name in ("epoch", "step", "lr")}
    losses = {name: values.pop(name) for name in ("train_loss", "validation_loss")}
    return EpochRow(**own, **losses, metrics=values)
