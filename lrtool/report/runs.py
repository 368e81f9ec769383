"""The runs under `runs/`: which directories they are, and which one a name means.

A run's name is its path below `runs/`, or the end of that path where only one run has it: of
`runs/digits/base`, `digits/base` or `base`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lrtool.errors import UserError, did_you_mean
from lrtool.report import marker, run_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

RUNS = Path("runs")  # in the current directory
LONGEST_NAME = 200  # bytes, where file systems allow 255
MOST_NAMES = 10  # that an error lists
# What `--resume` takes for something else, and what a run's own directory may hold.
RESERVED = {"auto", *marker.FOLDERS, *marker.RUN_FILES, *marker.COMPARISON}
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # of Windows


def resolve(run: Path, flag: str = "") -> Path:
    """Return the path of the run that a command was given: by its path, or else by its name.

    Args:
        run: a path, which comes first if it exists, whatever it leads to; or a name.
        flag: that it was given by, such as "--lr-from ", for the message.

    Raises:
        UserError: there is no such path, and no run of that name; or several have it.
    """
    if os.path.lexists(run):  # a link that leads nowhere is there too; whoever reads it says so
        return run
    runs = find_runs()
    named = [each for each in runs if _ends_with(each.relative_to(RUNS), run)]
    if RUNS / run in named:
        return RUNS / run
    if len(named) == 1:
        return named[0]
    names = [name_of(each) for each in named]
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        raise UserError(
            f"{flag}{run}: {len(names)} runs have that name; give one of "
            f"{', '.join(names[:MOST_NAMES])}{more}"
        )
    known = {*(each.name for each in runs), *map(name_of, runs)}
    raise UserError(
        f"{flag}{run}: there is no such run{did_you_mean(str(run), sorted(known))}; give a run "
        "directory, or a name that `lrtool runs` shows"
    )


def find_runs(folder: Path = RUNS) -> list[Path]:
    """Return all directories with lrtool's marker under a folder, but for those of `compare`.

    A run that is to replace another one, and lies inside it, is one too. Links are not followed.
    """
    found = []
    for path, folders, files in os.walk(folder):
        here = Path(path)
        is_run = marker.MARKER in files
        inside = {*marker.FOLDERS} if is_run else set()
        folders[:] = sorted(
            name
            for name in folders
            if (name[0] != "." or name == run_directory.NEW) and name not in inside
        )
        if is_run and not (here / marker.MARKER).is_symlink():
            found.append(here)
    return [run for run in found if _command_of(run) != "compare"]


def _command_of(run: Path) -> str | None:
    found = marker.read(run)
    return None if found is None else found.command


def _ends_with(path: Path, end: Path) -> bool:
    return bool(end.parts) and path.parts[-len(end.parts) :] == end.parts


def name_of(run: Path) -> str:
    """Return the whole name of a run under `runs/`; of another one its path."""
    return (run.relative_to(RUNS) if run.is_relative_to(RUNS) else run).as_posix()


def short_names(runs: Iterable[Path]) -> dict[Path, str]:
    """Return the shortest name of each run that is no other's: its last part, or the whole name."""
    runs = list(runs)
    last = [run.name for run in runs]
    return {run: run.name if last.count(run.name) == 1 else name_of(run) for run in runs}


def problem_of_name(name: str) -> str | None:
    """Say why a run cannot have a name: it would not be a folder of its own under `runs/`."""
    if found := re.search(r"[/\\:]", name):
        return f"a name is no path, and cannot have {found[0]!r}; --output takes a path"
    if not name or not name.isprintable() or name != name.strip():
        return (
            "a name is not empty, has no spaces at its ends, and only characters that can be seen"
        )
    if name[0] in ".-~":
        return f"a name cannot begin with {name[0]!r}"
    if name[-1] == "." or name.lower() in RESERVED or DEVICES.fullmatch(name.lower()):
        return "that name is reserved; choose another one"
    if len(name.encode()) > LONGEST_NAME:
        return f"a name has at most {LONGEST_NAME} bytes"
    return None
