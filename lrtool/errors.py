"""What can go wrong, worded for a person.

`cli` is the one place that turns these into exit codes; nothing else knows about them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str | int, ...]


class LrtoolWarning(UserWarning):
    """A setting is ignored, or something went another way than the user may think."""


class LrtoolError(Exception):
    """Everything that lrtool raises on purpose."""


class UserError(LrtoolError, ValueError):
    """A mistake in a command, a configuration, or data: the user can mend it."""


class DataError(UserError):
    """Data that cannot be used: broken files, too few rows, values that are not finite."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: in a file, or on the command line.

    Attributes:
        name: the file, or the flag, such as "--seed".
        line: from 1; None for a whole file, and for a flag.
        column: likewise.
        sets: the key path that a flag sets, which then need not be named beside it.
    """

    name: str
    line: int | None = None
    column: int | None = None
    sets: KeyPath | None = None

    def __str__(self) -> str:
        known = (self.name, self.line, self.column)
        return ":".join(str(part) for part in known if part is not None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration.

    Attributes:
        path: of its key, such as ("train", "epochs"); () for the whole file.
        message: what is wrong, and what to do.
        at_key: the key itself is wrong, not its value.
        place: where that stands; None until somebody who holds the document has said so.
    """

    path: KeyPath
    message: str
    at_key: bool = False
    place: Place | None = None

    def __str__(self) -> str:
        place = "" if self.place is None else str(self.place)
        named = self.place is not None and self.place.sets == self.path
        key = "" if named else key_path(self.path)
        return ": ".join(part for part in (place, key, self.message) if part)


class ConfigError(UserError):
    """What is wrong in a configuration, all of it, in the order of the file.

    What the command line gave comes first. Printed, each problem is a line:
    `file:line:column: key.path: message`, or without the place as long as it is not known.
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
    """Someone asked a run to stop: it saves what it has."""


class DivergedError(LrtoolError):
    """A training's losses, gradients or weights are no longer finite."""


class OutOfMemoryError(LrtoolError):
    """The device or the host has no memory left for one step."""


def key_path(path: Iterable[str | int]) -> str:
    """Spell a path as a user writes it: ("find", "steps") → "find.steps"."""
    return ".".join(str(part) for part in path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to `name`, or "" without one."""
    known = list(known)
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean '{by_lower[close[0]]}'?)" if close else ""
