"""Errors and warnings. Only `cli` turns them into exit codes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str | int, ...]


class LrtoolWarning(UserWarning):
    """A setting is ignored, or something happened that the user may not expect."""


class LrtoolError(Exception):
    """The base of all errors that lrtool raises on purpose."""


class UserError(LrtoolError, ValueError):
    """A mistake in a command, a configuration or data, which the user can fix."""


class DataError(UserError):
    """Data that cannot be used: broken files, too few rows, values that are not finite."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file or on the command line.

    Attributes:
        name: the file, or the flag, such as "--seed".
        line: from 1; None for a whole file or a flag.
        column: likewise.
        sets: the key path that a flag sets; a message need not repeat it.
    """

    name: str
    line: int | None = None
    column: int | None = None
    sets: KeyPath | None = None

    def __str__(self) -> str:
        parts = (self.name, self.line, self.column)
        return ":".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration.

    Attributes:
        path: of the key, such as ("train", "epochs"); () for the whole file.
        message: what is wrong, and what to do.
        at_key: the key itself is wrong, not its value.
        place: where it is; None until `Document.locate` has filled it in.
    """

    path: KeyPath
    message: str
    at_key: bool = False
    place: Place | None = None

    def __str__(self) -> str:
        place = str(self.place or "")
        key = "" if self.place and self.place.sets == self.path else key_path(self.path)
        return ": ".join(part for part in (place, key, self.message) if part)


class ConfigError(UserError):
    """All problems of a configuration: first those of the command line, then in file order.

    Each is printed on a line: `file:line:column: key.path: message`. The place is left out while it
    is unknown.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=_line_and_column))

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def _line_and_column(problem: Problem) -> tuple[int, int]:
    place = problem.place
    return (0, 0) if place is None else (place.line or 0, place.column or 0)


class InterruptedRunError(LrtoolError):
    """A run was asked to stop; it saves what it has."""


class DivergedError(LrtoolError):
    """Losses, gradients or weights of a training are no longer finite."""


class LockstepError(LrtoolError):
    """The ranks of a launch no longer go in lockstep, so nothing may be exchanged any more."""


class LostRankError(LockstepError):
    """Another rank has ended, or kept this one waiting for too long."""


class OutOfStepError(LockstepError):
    """This rank alone failed between two exchanges; the cause is what it failed with."""


def cause_of(error: Exception | SystemExit) -> Exception | SystemExit:
    """Return what this rank has failed with, if it left the lockstep; else the error itself."""
    cause = error.__cause__ if isinstance(error, OutOfStepError) else None
    return cause if isinstance(cause, Exception | SystemExit) else error


class RankFailedError(Exception):
    """Another rank failed in the step that this one was in; that rank raises what it was.

    Like that, it may be a sign of divergence: so it is no `LrtoolError`.
    """


class EndedLaunchError(LrtoolError):
    """Another rank has ended the launch.

    Attributes:
        exit_code: of the rank that has said why; None: it ended without a word.
        late: it kept the others waiting for too long.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, late: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.late = late


class OutOfMemoryError(LrtoolError):
    """The device or the host ran out of memory."""


def key_path(path: Iterable[str | int]) -> str:
    """Return a path as a user writes it: ("find", "steps") → "find.steps"."""
    return ".".join(str(part) for part in path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name closest to `name`; "" if none is close."""
    known = list(known)
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean '{by_lower[close[0]]}'?)" if close else ""


def said(error: BaseException) -> str:
    """Return an exception's text, without the addresses in C++ that torch appends."""
    try:
        return str(error).partition("\nException raised from ")[0]
    except Exception as own:  # noqa: BLE001  (a user's exception may have a __str__ that fails)
        return f"its __str__ raised {type(own).__name__}"
