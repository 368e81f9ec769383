"""The run directory: where a command leaves its files, and never at the cost of other files.

A directory is written into if it is new or empty, or if it is proven a run (`report.marker`). What
lrtool did not write stays, and so does what the command reads. A run that replaces another one is
made in `.new` inside its directory, and takes the place of the old one when it has ended: whenever
the process is killed, one of the two is whole. Links are not followed out of the directory.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lrtool.errors import LrtoolWarning, UserError
from lrtool.report import marker
from lrtool.report.files import sync_directory
from lrtool.report.marker import (
    CHECKPOINTS,
    COMPARISON,
    CONFIG,
    ENCODING,
    FIND,
    FOLDERS,
    MARKER,
    METRICS,
    MODEL,
    RUN_FILES,
    TENSORBOARD,
    Command,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["CHECKPOINTS", "CONFIG", "ENCODING", "FIND", "METRICS", "MODEL", "TENSORBOARD"]

LOCK, NEW, COPY = ".lock", ".new", ".copy."
WAIT_S = 0.2  # for the lock: `is_in_use` may have it for a moment
_NAMES = "|".join(map(re.escape, (*RUN_FILES, *COMPARISON, MARKER, "manifest.json", "state.pt")))
_TEMPORARY = re.compile(rf"\.({_NAMES})\.[a-z0-9_]{{8}}\.tmp")  # as `files.whole_path` names them


def check(
    directory: Path, command: Command, *, overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Refuse a directory that a run must not be written into, before anything is computed.

    Args:
        directory: of `--output`.
        command: of the run.
        overwrite: a run that is there may be replaced.
        inputs: files and directories that the command reads.

    Raises:
        UserError: it is no directory, holds other files or a run, or is in the way of an input.
    """
    for path in inputs:
        if path.is_dir() and marker.command_of(path) and is_within(directory, path):
            where = "is" if is_within(path, directory) else "lies in"
            raise UserError(f"{directory}: {where} {path}, which is read; choose another directory")
    if not _is_there(directory):
        return
    _refuse_links(directory)
    own = _own_files(directory)
    if own and not overwrite:
        raise UserError(
            f"{directory}: holds a run already ({own[0]}); choose another directory, or --overwrite"
        )
    for path in inputs if own else ():
        if is_within(path, directory):
            raise UserError(
                f"{directory}: holds {path}, which is read; --overwrite would replace it: choose "
                "another directory"
            )
    _refuse_others(directory, marker.named(directory, command), own)


@contextmanager
def opened(
    output: Path | None,
    parent: Path,
    command: Command,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> Iterator[Path]:
    """Yield a run directory that no other process can use inside the block.

    What a killed process left there half-done is finished or removed first.

    Args:
        output: the directory, which is made if need be; None for a new one,
            `<parent>/<UTC time>-<command>`.
        parent: where new ones are made.
        command: of the run.
        resume: go on with the run that is there; call `marker.begin` before it is changed.
        overwrite: replace the run that is there: what is yielded is then a directory inside it,
            whose files take their place in `finish`.
        inputs: files and directories that the command reads, as in `check`.

    Raises:
        UserError: it cannot be written, another process is using it, or `check` refuses it.

    Warns:
        LrtoolWarning: the run was to replace another one, and has not ended.
    """
    try:
        directory = output or _new(parent, command)
        directory.mkdir(parents=True, exist_ok=True)
        _refuse_links(directory)
        lock = FileLock(directory / LOCK, timeout=WAIT_S)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{directory}: another process is using it") from error
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    try:
        _clean(directory)
        if resume:
            run = unfinished(directory)
            own = marker.own_files(run)
            written = set(marker.named(run, command)).intersection(marker.FOR_PEOPLE)
            _refuse_others(run, sorted(written), own)
            yield run
            return
        check(directory, command, overwrite=overwrite, inputs=inputs)  # again: under the lock
        run = _successor(directory) if marker.own_files(directory) else directory
        marker.begin(run, command)
        try:
            yield run
        except BaseException:
            if run != directory and not marker.has_checkpoint(run):
                _remove_run(run)
            raise
        finally:
            if run != directory and run.exists():
                resumable = command == "train" and marker.has_checkpoint(run)
                warnings.warn(
                    f"{directory} keeps the run that was there; this one is in {run} until it ends"
                    + f": --resume {directory} goes on with it" * resumable,
                    LrtoolWarning,
                    stacklevel=3,
                )
    finally:
        lock.release()


def finish(run: Path) -> Path:
    """Mark a run as ended, and give it the place of the one that it replaces; return its directory.

    Raises:
        UserError: a file came there meanwhile that lrtool did not write.
        OSError: it cannot be written.
    """
    marker.end(run)
    if run.name != NEW:
        return run
    _promote(run.parent)
    return run.parent


@contextmanager
def rewriting(directory: Path, name: str) -> Iterator[Path]:
    """Yield the path of one of a run's files for people, to write it anew or for the first time.

    Raises:
        UserError: another process is using the run, it cannot be written, or the file is not as
            lrtool wrote it.
    """
    path = directory / name
    try:
        _refuse_links(directory)
        with FileLock(directory / LOCK, blocking=False):
            if path.exists():
                _refuse_others(directory, [name], marker.own_files(directory))
            yield path
            marker.add(directory, name)
    except Timeout as error:
        raise UserError(f"{directory}: another process is using it") from error
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error


def place(run: Path) -> Path:
    """Return where the files of a run, or of a search inside it, will be when it has ended."""
    if run.parent.name == NEW:
        return run.parent.parent / run.name
    return run.parent if run.name == NEW else run


def unfinished(directory: Path) -> Path:
    """Return the run to go on with: one that is to replace that of a directory, or that itself.

    The former counts from its first checkpoint on.
    """
    new = directory / NEW
    return new if marker.read(new) is not None and marker.has_checkpoint(new) else directory


def is_in_use(run: Path) -> bool:
    """Tell whether a process is making a run; False also where that cannot be known."""
    lock = place(run) / LOCK
    try:
        if lock.is_file():  # no lock is left where none was
            with FileLock(lock, blocking=False):
                pass
    except Timeout:
        return True
    except OSError:
        return False
    return False


def settle(directory: Path) -> None:
    """Finish a replacement that was killed while files were moved, before a run is read.

    One under way, and one that cannot be finished here, is left alone.

    Warns:
        LrtoolWarning: the report or the configuration is not as it was at the run's end.
    """
    if _has_ended(directory / NEW):
        with suppress(OSError, UserError, Timeout), FileLock(directory / LOCK, blocking=False):
            _promote(directory)
    with suppress(OSError):  # whoever needs the file says so
        for name in marker.changed(directory):
            warnings.warn(
                f"{directory / name}: damaged, or changed since the run ended",
                LrtoolWarning,
                stacklevel=3,
            )


def is_within(path: Path, directory: Path) -> bool:
    """Tell whether a path is a directory or lies in it, however the two are spelled."""
    try:
        known = directory.stat()
    except OSError:
        return False
    real = Path(os.path.realpath(path))  # `resolve` raises for links that go round
    for step in (real, *real.parents):
        with suppress(OSError):
            found = step.stat()
            if (found.st_dev, found.st_ino) == (known.st_dev, known.st_ino):
                return True
    return False


def _new(parent: Path, command: Command) -> Path:
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


def _is_there(directory: Path) -> bool:
    """Tell whether a directory is there; refuse what is in its place."""
    if directory.is_symlink() and not directory.exists():
        raise UserError(f"{directory}: is a link that leads nowhere")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is a file; a run needs a directory")
    return directory.exists()


def _own_files(directory: Path) -> list[str]:
    """Return the files of a run; refuse a directory that holds other files and is none."""
    if marker.command_of(directory) is None:
        others = sorted(path.name for path in directory.iterdir() if path.name[0] != ".")
        if others:
            raise UserError(
                f"{directory}: holds {others[0]}{' and others' * (len(others) > 1)}, but "
                "no run; choose a new or an empty directory"
            )
    return marker.own_files(directory)


def _refuse_links(directory: Path) -> None:
    """Refuse links in the places of lrtool's own files and folders: nothing is written outside."""
    names = (LOCK, MARKER, NEW, *RUN_FILES, *COMPARISON, *FOLDERS)
    folders = [directory / CHECKPOINTS / name for name in ("last", "previous", "best", ".new")]
    for path in (*(directory / name for name in names), *folders):
        if path.is_symlink():
            raise UserError(
                f"{path}: is a link; lrtool writes through none inside of a run directory: remove "
                "it, or choose another directory"
            )


def _refuse_others(directory: Path, names: Iterable[str], own: Sequence[str]) -> None:
    """Refuse to write over files that lrtool did not write, or that were changed afterwards."""
    for name in names:
        if name not in own:
            raise UserError(
                f"{directory / name}: is not as lrtool wrote it, and would be replaced; move it "
                "away, or choose another directory"
            )


def _successor(directory: Path) -> Path:
    """Make the directory of a run that is to replace the one in `directory`."""
    new = directory / NEW
    if marker.read(new) is not None:
        _remove_run(new)
    new.mkdir(exist_ok=True)
    if any(new.iterdir()):
        raise UserError(f"{new}: holds files that lrtool did not write; move them away")
    return new


def _has_ended(new: Path) -> bool:
    found = marker.read(new)
    return found is not None and found.files is not None


def _promote(directory: Path) -> None:
    """Move a run that has ended from `.new` into the place of the old one.

    Wherever this is interrupted, the new run is whole once it is done again: `.new` keeps its list
    of files until all are moved.
    """
    new = directory / NEW
    found = marker.read(new)
    assert found is not None, "only a run that has ended is moved"
    names, old = list(found.files or ()), marker.own_files(directory)
    to_move = [name for name in names if (new / name).is_file()]
    _refuse_links(directory)
    for name in to_move:
        if (directory / name).exists() and name not in old:
            raise UserError(
                f"{directory / name}: came there while the run was under way, and is not lrtool's; "
                f"the run is whole in {new}: move either away"
            )
    for name in to_move:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).replace(directory / name)
    _remove(directory, [name for name in old if name not in names])
    _remove_folders(new)
    (new / MARKER).replace(directory / MARKER)
    sync_directory(directory)
    with suppress(OSError):  # something else is in it
        new.rmdir()


def forget_weights(run: Path) -> None:
    """Remove the weights that a start without a checkpoint has left.

    Raises:
        OSError: they cannot be removed.
    """
    own = [name for name in marker.own_files(run) if name.startswith(f"{CHECKPOINTS}/")]
    _remove(run, own)


def _remove_run(run: Path) -> None:
    """Remove what lrtool wrote of a run, its marker last; and its folders, where they are empty."""
    _remove(run, marker.own_files(run))
    (run / MARKER).unlink(missing_ok=True)
    with suppress(OSError):
        run.rmdir()


def _remove(run: Path, names: Iterable[str]) -> None:
    for name in names:
        (run / name).unlink()
    _remove_folders(run)


def _remove_folders(run: Path) -> None:
    """Remove the folders of a run that hold nothing."""
    for folder in FOLDERS:
        for path in (*(run / folder).glob("*"), run / folder):
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()


def _clean(directory: Path) -> None:
    """Finish or remove what a killed process left in a run: a replacement, temporary files."""
    if marker.command_of(directory) is None:
        return
    if _has_ended(directory / NEW):
        _promote(directory)
    for run in (directory, directory / NEW):
        for folder in (run, run / FIND, *(run / CHECKPOINTS).glob("*")):
            for path in folder.glob(".*.tmp"):
                if _TEMPORARY.fullmatch(path.name) and not marker.links_to(path, run):
                    path.unlink(missing_ok=True)
        for path in run.glob(f"{COPY}*"):
            named = re.fullmatch(r"\.copy\.[a-z0-9_]{8}", path.name) and not path.is_symlink()
            if named and {each.name for each in path.iterdir()} <= set(FOLDERS):
                shutil.rmtree(path)
