"""The run directory: where a command leaves what it made, and never over another run."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from lrtool.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

RUN_FILES = (
    "report.json",
    "report.html",
    "plot.png",
    "plot.svg",
    "config.yaml",
    "metrics.jsonl",
    "model.safetensors",
)
CHECKPOINTS = "checkpoints"


def check(directory: Path, *, overwrite: bool) -> None:
    """Refuse a directory that cannot become this run's, before anything is computed.

    Raises:
        UserError: it holds a run and `overwrite` is not set, or it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output {directory}: is a file; give a directory")
    if not overwrite and (held := _held(directory)):
        raise UserError(
            f"--output {directory}: holds a run already ({held[0].name}); choose another "
            "directory, or --overwrite"
        )


def create(directory: Path) -> Path:
    """Make the directory, or empty it of an earlier run's files; others' files stay.

    Raises:
        UserError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in _held(directory):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        (directory / "metrics.jsonl").touch(exist_ok=False)  # one of two processes comes first
    except FileExistsError as error:
        raise UserError(f"--output {directory}: another process is using it") from error
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return directory


def create_new(parent: Path, command: str) -> Path:
    """Make `<parent>/<UTC time>-<command>`, with a number added when it exists.

    Raises:
        UserError: the parent cannot be written.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            directory = parent / (name if number == 1 else f"{name}-{number}")
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            return directory
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    raise AssertionError("counting never ends")


def _held(directory: Path) -> list[Path]:
    paths = (directory / name for name in (*RUN_FILES, CHECKPOINTS))
    return [path for path in paths if path.exists()]
