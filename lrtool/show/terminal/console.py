"""What all output in a terminal shares: a console that changes no text, tables, a live bar.

Text of the user's is never read as markup. `NO_COLOR` and terminals that know only ASCII are
honoured.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from lrtool.config.spelling import number
from lrtool.show import words
from lrtool.show.terminal.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lrtool.report.records import ColumnFacts, RateFacts

MOST_COLUMNS = 50
LEAST_WIDTH = 40
PIPED_WIDTH = 1000
REFRESH_S = 0.1  # of a live bar
FIRST_LINE_S, LINE_S = 2.0, 5.0  # between lines of progress, where no bar can be
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


def start_bar(total: int | None) -> Bar | None:
    """Start a live bar on stderr; None where it is no terminal that can show one."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    bar = Bar(*columns, console=new_console(stderr=True), auto_refresh=False, transient=True)
    bar.start()
    bar.add_task("starting", total=total)
    return bar


def print_line(console: Console, text: str) -> None:
    """Print a text that no terminal breaks into lines, such as a path."""
    console.print(legible(Text(text), console), soft_wrap=True)


def print_facts(
    facts: Mapping[str, Any],
    columns: Sequence[ColumnFacts] = (),
    rates: Sequence[RateFacts] = (),
) -> None:
    """Print names and values on stdout, a line each; columns of a table; rates of parts."""
    rows = [(name.replace("_", " "), Text(spell(value))) for name, value in facts.items()]
    lines = [words.column(column) for column in columns[:MOST_COLUMNS]]
    if len(columns) > len(lines):
        lines.append(f"… and {len(columns) - len(lines):,} more, which --json shows")
    rows += listed("rates", map(words.rate_of_parts, rates))
    print_grid(new_console(), [*rows, *listed("columns", lines)])


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table on stdout; the keys of the first row are its heads."""
    console = new_console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH  # for grep: a row is a line
    console.print(table_of(rows, console))


def table_of(rows: Sequence[Mapping[str, Any]], console: Console) -> Table:
    """Return a table; the keys of the first row are its heads."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in rows[0] if rows else ():
        table.add_column(legible(Text(head.replace("_", " ")), console), overflow="fold")
    for row in rows:
        table.add_row(*(legible(Text(spell(value)), console) for value in row.values()))
    return table


def print_grid(console: Console, rows: Sequence[tuple[str, Text]]) -> None:
    """Print titles and texts, a row each; long texts go on in their own column."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in rows:
        table.add_row(legible(Text(title), console), legible(text, console))
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
    """Replace what a terminal would obey, and what one without UTF-8 cannot show."""
    text.plain = printable(text.plain)
    if console.options.ascii_only:
        text.plain = text.plain.translate(PLAIN).encode("ascii", "backslashreplace").decode()
    return text


def listed(title: str, lines: Iterable[str]) -> list[tuple[str, Text]]:
    """Return a row for each line, the first one with the title."""
    return [("" if index else title, Text(line)) for index, line in enumerate(lines)]
