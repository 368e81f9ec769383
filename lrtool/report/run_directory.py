"""The run directory: where a command leaves its files, and never over another run's."""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG, METRICS, MODEL = "config.yaml", "metrics.jsonl", "model.safetensors"
ENCODING = "encoding.json"
PLOTS = ("plot.png", "plot.svg", "comparison.png", "comparison.svg")
RUN_FILES = ("report.json", *PLOTS, CONFIG, ENCODING, METRICS, MODEL)
CHECKPOINTS, FIND, TENSORBOARD = "checkpoints", "find", "tensorboard"
LOCK = ".lock"


def check(directory: Path, *, overwrite: bool) -> None:
    """Refuse a directory that holds a run or is a file, before anything is computed.

    Raises:
        UserError: it is a file, or holds a run and `overwrite` is not set.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--output {directory}: is a file; give a directory")
    if not overwrite and (files := _files_of_a_run(directory)):
        raise UserError(
            f"--output {directory}: holds a run already ({files[0].name}); choose another "
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
        output: the directory, which is made if need be; None for a new one,
            `<parent>/<UTC time>-<command>`.
        parent: where new ones are made.
        command: of the run.
        keep: leave an earlier run's files there.
        overwrite: remove an earlier run's files rather than refuse the directory; other files stay.

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
    return bool(_files_of_a_run(directory))


def _remove(run: Path) -> None:
    """Remove an earlier run's files, and its folders if nothing else is in them."""
    files = _files_of_a_run(run)
    for path in files:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for folder in {path.parent for path in files} - {run}:
        with suppress(OSError):  # it holds other files
            folder.rmdir()


def _new(parent: Path, command: str) -> Path:
    """Make `<parent>/<UTC time>-<command>`, with a number added when it exists."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    parent.mkdir(parents=True, exist_ok=True)
    directory, number = parent / name, 1
    while True:
        try:
            directory.mkdir()
        except FileExistsError:
            number += 1
            directory = parent / f"{name}-{number}"
        else:
            return directory


def _files_of_a_run(directory: Path) -> list[Path]:
    """Return the files and folders of an earlier run, but none that may be the user's."""
    files = [directory / name for name in RUN_FILES]
    folders = [directory / CHECKPOINTS / name for name in ("last", "previous", "best", ".new")]
    search = [directory / FIND / name for name in RUN_FILES]
    events = (directory / TENSORBOARD).glob("events.out.tfevents.*")
    return [path for path in (*files, *folders, *search, *events) if path.exists()]
