"""What the shell offers where a command takes a run: names of those under `runs/`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = {"--install-completion", "--show-completion"}  # Typer's own


@contextmanager
def in_a_known_shell() -> Iterator[None]:
    """Say what to do where Typer does not know the shell; its exit code would be that of a bug.

    Raises:
        UserError: it does not.
    """
    try:
        yield
    except SystemExit as end:
        if end.code == 1 and FLAGS.intersection(sys.argv[1:2]):
            raise UserError(
                f"{sys.argv[1]}: works in bash, zsh, fish and PowerShell; this shell is not known"
            ) from None
        raise


def run_names(incomplete: str) -> list[str]:
    """Return the names of runs that begin so."""
    return _names(incomplete, ("find", "train"))


def training_names(incomplete: str) -> list[str]:
    """Return the names of trainings that begin so."""
    return _names(incomplete, ("train",))


def resume_names(incomplete: str) -> list[str]:
    """Return what `--resume` takes that begins so."""
    return [name for name in ("auto",) if name.startswith(incomplete)] + training_names(incomplete)


def _names(incomplete: str, commands: tuple[str, ...]) -> list[str]:
    """Return for each run the short name that begins so, or else the whole one."""
    from lrtool.report.marker import command_of
    from lrtool.report.runs import find_runs, name_of, short_names

    both = [(run, (short, name_of(run))) for run, short in short_names(find_runs()).items()]
    fitting = [
        (run, next(name for name in names if name.startswith(incomplete)))
        for run, names in both
        if any(name.startswith(incomplete) for name in names)
    ]
    return sorted(name for run, name in fitting if command_of(run) in commands)
