"""What can go wrong, worded for a person.

`cli` is the one place that turns these into exit codes; nothing else knows about them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class LrtoolWarning(UserWarning):
    """A setting is ignored, or something went another way than the user may think."""


class LrtoolError(Exception):
    """Everything that lrtool raises on purpose."""


class UserError(LrtoolError, ValueError):
    """A mistake in a command, a configuration, or data: the user can mend it."""


class DataError(UserError):
    """Data that cannot be used: broken files, too few rows, values that are not finite."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration: the key path, such as ("train", "epochs"), and words.

    `at_key` tells that the key itself is wrong, not its value.
    """

    path: tuple[str | int, ...]
    message: str
    at_key: bool = False


class ComponentError(UserError):
    """Parts of a configuration that are well typed but cannot be built.

    `problems` name key paths; whoever holds the document adds file, line and column.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(
            "\n".join(f"{key_path(p.path)}: {p.message}".removeprefix(": ") for p in self.problems)
        )


class ConfigError(UserError):
    """Every problem of a configuration, one line each: `file:line:column: key.path: message`."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines: tuple[str, ...] = tuple(lines)
        super().__init__("\n".join(self.lines))


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
