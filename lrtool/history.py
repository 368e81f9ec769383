"""`metrics.jsonl` of a training: a line for each update and each epoch, appended as they come."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict
from math import isfinite, isnan
from typing import IO, TYPE_CHECKING, Any

from lrtool.errors import LrtoolWarning
from lrtool.records import EpochRow, StepRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def reopen(path: Path, size: int) -> IO[bytes]:
    """Open the file to append to its first `size` bytes; what is beyond them is forgotten.

    Rows beyond those that a checkpoint knows of will be made again, the same ones.

    Warns:
        LrtoolWarning: it is shorter than that, so rows are missing.

    Raises:
        OSError: it cannot be written.
    """
    file = path.open("ab")
    held = file.tell()
    if held < size:
        warnings.warn(
            f"{path} has lost rows: {held:,} bytes are left of {size:,}; the plots will lack them",
            LrtoolWarning,
            stacklevel=2,
        )
    file.truncate(min(size, held))
    return file


def append(file: IO[bytes], rows: Sequence[StepRow | EpochRow]) -> None:
    """Write rows as JSON, a line each, and hand them to the system at once."""
    file.write(b"".join(_line(row) for row in rows))
    file.flush()


def synced_size(file: IO[bytes]) -> int:
    """Bring what was written to the disk and return the file's size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _line(row: StepRow | EpochRow) -> bytes:
    values = asdict(row)
    if isinstance(row, EpochRow):
        values |= values.pop("metrics")
    kind = "step" if isinstance(row, StepRow) else "epoch"
    flags = {name: _flag(value) for name, value in values.items() if _flag(value)}
    plain = {name: None if name in flags else value for name, value in values.items()}
    line = {"kind": kind, **plain, **({"not_finite": flags} if flags else {})}
    return (json.dumps(line, ensure_ascii=False) + "\n").encode()


def _flag(value: Any) -> str | None:
    """JSON knows no NaN: null stands in its place, and a flag beside it."""
    if not isinstance(value, float) or isfinite(value):
        return None
    return "nan" if isnan(value) else "inf" if value > 0 else "-inf"


def read(path: Path) -> Iterator[StepRow | EpochRow]:
    """Yield the rows of a file, if it is there; a last line that was cut off is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            kind = values.pop("kind")
            for name, flag in values.pop("not_finite", {}).items():
                values[name] = float(flag)
            yield StepRow(**values) if kind == "step" else _epoch(values)


def _epoch(values: dict[str, Any]) -> EpochRow:
    own = {name: values.pop(name) for name in ("epoch", "step", "lr")}
    losses = {name: values.pop(name) for name in ("train_loss", "validation_loss")}
    return EpochRow(**own, **losses, metrics=values)
