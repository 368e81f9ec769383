"""The run directory: where a command leaves what it made, and never over another run."""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG, METRICS, MODEL = "config.yaml", "metrics.jsonl", "model.safetensors"
PLOTS = ("plot.png", "plot.svg", "comparison.png", "comparison.svg")
RUN_FILES = ("report.json", *PLOTS, CONFIG, METRICS, MODEL)
CHECKPOINTS, FIND, TENSORBOARD = "checkpoints", "find", "tensorboard"
LOCK = ".lock"


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


@contextmanager
def opened(
    output: Path | None,
    parent: Path,
    command: str,
    *,
    keep: bool = False,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Yield a run directory that no other process can use inside the block.

    Args:
        output: the directory, which is made, or emptied of an earlier run's files; others' files
            stay. None for a new one, `<parent>/<UTC time>-<command>`.
        parent: where new ones are made.
        command: of the run.
        keep: leave an earlier run's files there.
        overwrite: remove them, and refuse no directory that holds some.

    Raises:
        UserError: it cannot be written, another process is using it, or it holds a run.
    """
    try:
        directory = output or _new(parent, command)
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, blocking=False)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{directory}: another process is using it") from error
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    try:
        if not keep:
            check(directory, overwrite=overwrite)  # again: a run may have come there meanwhile
            _remove(directory)
        yield directory
    finally:
        lock.release()


def holds_run(directory: Path) -> bool:
    """Tell whether a run has left anything in a directory."""
    return bool(_held(directory))


def _remove(run: Path) -> None:
    """Remove what an earlier run left, and its folders where nothing else is in them."""
    held = _held(run)
    for path in held:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for folder in {path.parent for path in held} - {run}:
        with suppress(OSError):  # it holds what is someone else's
            folder.rmdir()


def _new(parent: Path, command: str) -> Path:
    """Make `<parent>/<UTC time>-<command>`, with a number added when it exists."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        directory = parent / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise AssertionError("counting never ends")


def _held(directory: Path) -> list[Path]:
    """Return what an earlier run left, and nothing that could be someone else's."""
    folders = (directory / CHECKPOINTS / name for name in ("last", "previous", "best", ".new"))
    own = [directory / name for name in RUN_FILES]
    found = [directory / FIND / name for name in RUN_FILES]
    events = (directory / TENSORBOARD).glob("events.out.tfevents.*")
    return [path for path in (*own, *folders, *found, *events) if path.exists()]
