"""The keys whose values differ between two configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrtool.config.spelling import spell
from lrtool.errors import key_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.errors import KeyPath

LONGEST = 200  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Difference:
    """A key with two values; a missing one counts as null."""

    path: KeyPath
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{key_path(self.path)} was {_short(self.before)}, is {_short(self.now)}"


def _short(value: Any) -> str:
    text = spell(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def differences(before: Any, now: Any, path: KeyPath = ()) -> Iterator[Difference]:
    """Yield every difference between the plain data of two configurations, below `path`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from differences(before.get(name), now.get(name), (*path, name))
    elif before != now:
        yield Difference(path, before, now)
