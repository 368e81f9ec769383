"""`metrics.jsonl`: a line for each update and each epoch of a run, appended as they come."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import fields
from math import inf, isfinite, isnan
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from lrtool.errors import LrtoolWarning
from lrtool.report.files import whole_path
from lrtool.report.records import EpochRow, FullTrialRow, RaceRow, StepRow, SweepRow, TrialRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = SweepRow | TrialRow | FullTrialRow | RaceRow | StepRow | EpochRow
AnyRow = TypeVar("AnyRow", SweepRow, TrialRow, FullTrialRow, RaceRow, StepRow, EpochRow)

KINDS: dict[str, type[Row]] = {
    "sweep": SweepRow,
    "trial": TrialRow,
    "full_trial": FullTrialRow,
    "race": RaceRow,
    "step": StepRow,
    "epoch": EpochRow,
}
_KIND_OF = {row: kind for kind, row in KINDS.items()}
_NAMES = {
    row: [field.name for field in fields(row)]
    for row in (SweepRow, TrialRow, FullTrialRow, RaceRow, StepRow)
}
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_HUGE = 2**53


def _types_in_json(annotation: Any) -> tuple[type, ...]:
    return get_args(annotation) or ((float, int) if annotation is float else (annotation,))


_TYPES = {
    row: {name: _types_in_json(annotation) for name, annotation in get_type_hints(row).items()}
    for row in _NAMES
}


def reopen(path: Path | None, size: int) -> IO[bytes]:
    """Open the file to append to its first `size` bytes; the others are cut off.

    They are rows since the checkpoint, which the resumed training makes again. Without a path, as
    on the ranks that do not write, nothing is kept.

    Warns:
        LrtoolWarning: the file is shorter, so rows are missing.

    Raises:
        OSError: it cannot be written.
    """
    if path is None:
        return Path(os.devnull).open("wb")
    if path.exists() and path.stat().st_nlink > 1:  # hard links, such as those of a backup
        with whole_path(path) as own:
            shutil.copyfile(path, own)
    file = path.open("a+b")
    left = file.tell()
    if left < size:
        warnings.warn(
            f"{path} has lost rows: {left:,} bytes are left of {size:,}; the plots will lack them",
            LrtoolWarning,
            stacklevel=2,
        )
        file.seek(0)
        size = file.read().rfind(b"\n") + 1  # a new row must not join one that was cut off
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return file


def append(file: IO[bytes], rows: Sequence[Row]) -> None:
    """Write rows as JSON, a line each, and flush."""
    file.write("".join(f"{_line(row)}\n" for row in rows).encode())
    file.flush()


def synced_size(file: IO[bytes]) -> int:
    """Sync the file and return its size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _line(row: Row) -> str:
    values: dict[str, Any] = {"kind": _KIND_OF[type(row)]}
    if isinstance(row, EpochRow):
        values |= row.model_dump()
    else:
        values |= {name: getattr(row, name) for name in _NAMES[type(row)]}
    try:
        return _ENCODER.encode(values)
    except ValueError:  # NaN or infinity: null, with a flag beside it
        flags = {name: flag for name, value in values.items() if (flag := _flag(value))}
        finite = {name: None if name in flags else value for name, value in values.items()}
        return _ENCODER.encode({**finite, "not_finite": flags})


def _flag(value: Any) -> str | None:
    """Return "nan", "inf" or "-inf" for a number that JSON cannot hold."""
    if not isinstance(value, float) or isfinite(value):
        return None
    return "nan" if isnan(value) else "inf" if value > 0 else "-inf"


def read(path: Path, kind: type[AnyRow]) -> Iterator[AnyRow]:
    """Yield the rows of one kind, if the file exists; an incomplete last line is left out.

    Lines of other kinds are not parsed: a long training has a million steps.

    Warns:
        LrtoolWarning: another line is damaged and left out.
    """
    if not path.exists():
        return
    others = tuple(f'{{"kind": "{name}"'.encode() for name, row in KINDS.items() if row is not kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            if line.startswith(others):
                continue
            try:
                row = _row(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                warnings.warn(
                    f"{path}:{number}: this row is damaged and left out",
                    LrtoolWarning,
                    stacklevel=2,
                )
            else:
                if isinstance(row, kind):
                    yield row


def _row(values: dict[str, Any]) -> Row:
    kind = KINDS[values.pop("kind")]
    for name, flag in values.pop("not_finite", {}).items():
        values[name] = float(flag)
    row = kind(**values)
    if not isinstance(row, EpochRow):  # which looks at its own values
        _check(row)
    return row


def _check(row: SweepRow | TrialRow | FullTrialRow | RaceRow | StepRow) -> None:
    """Raise an error if a value is not one that a run writes."""
    for name, types in _TYPES[type(row)].items():
        value = getattr(row, name)
        if type(value) not in types:
            raise TypeError(f"{name} is of another type")
        if isinstance(value, int) and abs(value) > _HUGE:
            raise ValueError(f"{name} is huge")
        if name not in {"loss", "grad_norm"} and value is not None and not 0 <= value < inf:
            raise ValueError(f"{name} is out of its range")
