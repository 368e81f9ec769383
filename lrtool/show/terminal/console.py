"""What everything printed has in common: a console that changes no text, tables, plain values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lrtool.config.spelling import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_WIDTH = 40
PLAIN = str.maketrans({"–": "-", "×": "x", "…": "...", "·": ",", "→": "->"})


def new_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is."""
    console = Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.width = max(console.width, LEAST_WIDTH)
    return console


def print_grid(console: Console, rows: Sequence[tuple[str, Text]]) -> None:
    """Print titles and texts, a row each; long texts go on in their own column."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in rows:
        table.add_row(Text(title), legible(text, console))
    console.print(table)


def spell(value: Any) -> str:  # noqa: PLR0911  (a table of cases)
    """Spell a plain value for a reader."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return number(value, 6)
        case dict():
            return ", ".join(f"{key} {spell(item)}" for key, item in value.items())
        case list() | tuple():
            return " × ".join(map(spell, value)) if value else "–"
        case _:
            return str(value)


def legible(text: Text, console: Console) -> Text:
    """Replace what a terminal without UTF-8 cannot show."""
    if console.options.ascii_only:
        text.plain = text.plain.translate(PLAIN).encode("ascii", "backslashreplace").decode()
    return text


def listed(title: str, lines: Iterable[str]) -> list[tuple[str, Text]]:
    """Return a row for each line, the first one with the title."""
    return [("" if index else title, Text(line)) for index, line in enumerate(lines)]
