"""What proves a directory a run, and which of the files in it lrtool wrote.

A run has a file `.lrtool` from its first moment on. While the run is under way, every file with one
of lrtool's names is its own, since none was there at the start. When it has ended, `.lrtool` lists
them, so that one that comes later is the user's. So is a plot, a configuration or a model that was
replaced or changed: those are for people, and have a CRC-32 in the list or lrtool's notes inside.

A run of an older lrtool has no such file: its report, its metrics or its checkpoints prove it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lrtool.errors import UserError
from lrtool.report import metrics_log
from lrtool.report import report as reports
from lrtool.report.files import crc_of, write_text

if TYPE_CHECKING:
    from pathlib import Path

MARKER = ".lrtool"
CONFIG, METRICS, MODEL = "config.yaml", "metrics.jsonl", "model.safetensors"
ENCODING, PAGE = "encoding.json", "report.html"
RUN_FILES = (reports.FILE_NAME, PAGE, "plot.png", "plot.svg", CONFIG, ENCODING, METRICS, MODEL)
COMPARED = "comparison.json"
COMPARISON = (PAGE, COMPARED, "comparison.png", "comparison.svg")
CHECKPOINTS, FIND, TENSORBOARD = "checkpoints", "find", "tensorboard"
FOR_PEOPLE = (CONFIG, "plot.png", "plot.svg", *COMPARISON)  # files that they may replace
READ = (CONFIG, reports.FILE_NAME)  # files that other commands read
FOLDERS = (CHECKPOINTS, FIND, TENSORBOARD)

_IN_FOLDERS = (
    *(f"{CHECKPOINTS}/{folder}/{name}" for folder in ("last", "previous", "best", ".new")
      for name in ("*.safetensors", "state.pt", "manifest.json")),
    *(f"{FIND}/{name}" for name in RUN_FILES),
    f"{TENSORBOARD}/events.out.tfevents.*",
)  # fmt: skip

Command = Literal["find", "train", "compare"]


class Marker(BaseModel):
    """The content of `.lrtool`.

    Attributes:
        version: of this format.
        command: that made the run.
        files: of a run that has ended, with the CRC-32 of those that people may replace, or other
            commands read; None while it is under way.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    version: Literal[1] = 1
    command: Command
    files: dict[str, int | None] | None = None


def read(directory: Path) -> Marker | None:
    """Return what marks a directory as a run; None if nothing does, or if it is damaged."""
    path = directory / MARKER
    try:
        return None if path.is_symlink() else Marker.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def begin(directory: Path, command: Command) -> None:
    """Mark a directory as a run that is under way.

    Raises:
        OSError: it cannot be written.
    """
    _write(directory, Marker(command=command))


def end(directory: Path) -> None:
    """Mark a run as ended: its files are those with lrtool's names now.

    Raises:
        OSError: it cannot be written.
    """
    marker = read(directory)
    assert marker is not None, "a run is marked at its start"
    names = named(directory, marker.command)
    summed = {*FOR_PEOPLE, *READ}
    files = {name: crc_of(directory / name) if name in summed else None for name in names}
    _write(directory, Marker(command=marker.command, files=files))


def add(directory: Path, name: str) -> None:
    """List a file that was written after a run's end, or once more.

    Raises:
        OSError: it cannot be read, or the list not written.
    """
    marker = read(directory)
    if marker is not None and marker.files is not None:
        crc = crc_of(directory / name)
        _write(directory, Marker(command=marker.command, files={**marker.files, name: crc}))


def _write(directory: Path, marker: Marker) -> None:
    write_text(directory / MARKER, json.dumps(marker.model_dump(mode="json"), indent=1) + "\n")


def command_of(directory: Path) -> str | None:
    """Return the command that made a run; None if nothing proves the directory one."""
    if (marker := read(directory)) is not None:
        return marker.command
    try:
        return reports.read(directory / reports.FILE_NAME).command
    except UserError:
        return "train" if _has_metrics(directory) or has_checkpoint(directory) else None


def is_under_way(directory: Path) -> bool:
    """Tell whether a run has not ended: it is running, or was killed or stopped before its end."""
    if (marker := read(directory)) is not None:
        return marker.files is None
    try:
        return reports.read(directory / reports.FILE_NAME).status in {"interrupted", "failed"}
    except UserError:
        return True


def own_files(directory: Path) -> list[str]:
    """Return the files that lrtool wrote there, relative to the directory: no links, no others."""
    command = command_of(directory)
    if command is None:
        return []
    names, marker = named(directory, command), read(directory)
    if marker is None or marker.files is None:
        return names
    known = marker.files
    return [name for name in names if name in known and _is_own(directory, name, known[name])]


def named(directory: Path, command: str) -> list[str]:
    """Return the files with names that a command writes, whoever wrote them; no links.

    Nothing is listed that lies behind a link.
    """
    top = COMPARISON if command == "compare" else RUN_FILES
    patterns = (*top, *_IN_FOLDERS) if command == "train" else top
    found = [path for pattern in patterns for path in sorted(directory.glob(pattern))]
    return [
        path.relative_to(directory).as_posix()
        for path in found
        if path.is_file() and not links_to(path, directory)
    ]


def links_to(path: Path, directory: Path) -> list[Path]:
    """Return the links on the way from a directory to a path in it, the path included."""
    steps = [path, *path.parents]
    return [step for step in steps[: steps.index(directory)] if step.is_symlink()]


def remove_weights(directory: Path) -> None:
    """Remove the weights at the end of a run that goes on, if lrtool wrote them.

    Raises:
        OSError: they cannot be removed.
    """
    if (directory / MODEL).is_file() and _is_own(directory, MODEL, None):
        (directory / MODEL).unlink()


def _is_own(directory: Path, name: str, crc: int | None) -> bool:
    """Tell whether a file that is listed is still that of the run."""
    if name == MODEL:
        with (directory / name).open("rb") as file:
            return b'"lrtool"' in file.read(1_000_000)  # its notes, at the start of the header
    return crc is None or name not in FOR_PEOPLE or crc == crc_of(directory / name)


def changed(directory: Path) -> list[str]:
    """Return which of the files that other commands read are not as they were at a run's end.

    Raises:
        OSError: one cannot be read.
    """
    marker = read(directory)
    known = (marker.files if marker else None) or {}
    names = [name for name in READ if name in known and (directory / name).is_file()]
    return [name for name in names if known[name] not in (None, crc_of(directory / name))]


def _has_metrics(directory: Path) -> bool:
    try:
        with (directory / METRICS).open("rb") as file:
            first = json.loads(file.readline(100_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and str(first.get("kind")) in metrics_log.KINDS


def has_checkpoint(directory: Path) -> bool:
    """Tell whether a run holds a checkpoint, whole or not."""
    for path in (directory / CHECKPOINTS).glob("*/manifest.json"):
        try:
            manifest = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        names = manifest.keys() if isinstance(manifest, dict) else ()
        if "state.pt" in names and any(name.endswith(".safetensors") for name in names):
            return True  # one file of weights, or the shards of all ranks
    return False
