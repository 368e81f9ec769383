"""What a person sees in a terminal: progress on stderr, results on stdout.

Text of the user's is never read as markup. `NO_COLOR` and terminals that know only ASCII are
honoured.
"""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from rich.live import Live
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from lrtool.report.records import RaceRow, TrialRow
from lrtool.show import words
from lrtool.show.terminal import chart
from lrtool.show.terminal import race as race_terminal
from lrtool.show.terminal.console import legible, listed, new_console, print_grid, spell
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lrtool.report.records import Suggestion, SweepRow
    from lrtool.report.report import FindReport

    Row = SweepRow | RaceRow | TrialRow

REFRESH_S = 0.1
PIPED_WIDTH = 1000
FIRST_LINE_S, LINE_S = 2.0, 5.0
COLOURS = {"confident": "bold green", "uncertain": "bold yellow", "none": "bold red"}


class Progress:
    """Shows on stderr how far sweeps, trials and race are: a live bar, then a live table.

    Where neither can be it is a line now and then.

    Args:
        repeats: how many sweeps.
        steps: steps of each, at most.
        race_steps: steps of each candidate in a race, or of each trial, at most.
        quiet: show nothing.
    """

    def __init__(
        self, *, repeats: int, steps: int, race_steps: int = 0, quiet: bool = False
    ) -> None:
        self._repeats = repeats
        self._steps = steps
        self._race_steps = race_steps
        self._quiet = quiet
        self._bar: Bar | None = None
        self._table: Live | None = None
        self._rows = 0
        self._last: Row | None = None
        self._shown: Row | None = None
        self._racing: dict[int, RaceRow | TrialRow] = {}

    def __enter__(self) -> Self:
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        if live and not self._quiet:
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = Bar(
                *columns, console=new_console(stderr=True), auto_refresh=False, transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._repeats * self._steps)
        self._started = monotonic()
        self._next = self._started + (REFRESH_S if self._bar else FIRST_LINE_S)
        return self

    def update(self, row: Row) -> None:
        """Take one row into account; most calls cost less than a microsecond and show nothing."""
        self._rows += 1
        self._last = row
        if isinstance(row, RaceRow):
            self._racing[row.candidate] = row
        elif isinstance(row, TrialRow):
            self._racing[row.trial] = row
        now = monotonic()
        if now >= self._next:
            self._next = now + (REFRESH_S if self._bar else LINE_S)
            self._show(row, now)

    def __exit__(self, *_: object) -> None:
        if self._table:
            self._table.stop()
        elif self._bar:
            self._bar.stop()
        elif self._last is not self._shown and self._last is not None:
            self._show(self._last, monotonic())

    def _show(self, row: Row, now: float) -> None:
        if self._quiet:
            return
        self._shown = row
        speed = f"{self._rows / max(now - self._started, 1e-9):,.0f} steps/s"
        if isinstance(row, RaceRow | TrialRow):
            self._show_race(row, speed)
            return
        text = (
            f"sweep {row.repeat + 1}/{self._repeats}, step {row.step + 1}/{self._steps}, "
            f"rate {words.rate(row.lr)}, loss {words.value(row.loss)}, {speed}"
        )
        if self._bar:
            done = row.repeat * self._steps + row.step + 1
            self._bar.update(self._task, completed=done, description=text, refresh=True)
        else:
            stderr_line(text)

    def _show_race(self, row: RaceRow | TrialRow, speed: str) -> None:
        text = f"{race_terminal.line(row, self._race_steps)}, {speed}"
        if self._bar is None:
            stderr_line(text)
            return
        if self._table is None:
            self._bar.stop()
            self._table = Live(console=self._bar.console, auto_refresh=False, transient=True)
            self._table.start()
        table = race_terminal.standings(self._racing, self._race_steps, text)
        self._table.update(table, refresh=True)


def print_summary(report: FindReport, *, directory: Path, config: Path) -> None:
    """Print the result on stdout: a table, the curve, and where the files lie.

    Args:
        report: of a `find`.
        directory: of the run.
        config: the configuration's path, as the user typed it.
    """
    console = new_console()
    said = report.suggestion
    rows: list[tuple[str, Text]] = []
    if said and said.lr:
        rate = Text.assemble(
            (words.rate(said.lr), "bold"), "  ", (said.verdict, COLOURS[said.verdict])
        )
        rows.append(("Learning rate", rate))
        rows.append(("Interval", Text(words.interval(said) or "–")))
        rows.append(("For", Text(f"a {words.purpose(said)}")))
    else:
        rows.append(("Learning rate", Text("no trustworthy suggestion", COLOURS["none"])))
    if report.status in {"interrupted", "failed"}:
        rows.append(("Status", Text(report.status, COLOURS["none"])))
    if report.reason:
        rows.append(("Why", Text(report.reason)))
    rows += listed("Next", _next_steps(said, directory, config))
    if report.trials and report.trials.candidates:
        rows.append(("Trials", Text(race_terminal.trials(report.trials))))
    if report.race:
        rows.append(("Race", Text(race_terminal.caption(report.race))))
    rows.append(("Took", Text(words.took(report))))
    print_grid(console, rows)
    if report.race:
        console.print()
        console.print(race_terminal.results(report.race, console))
    picture = chart.draw(report, console.width - 2, ascii_only=console.options.ascii_only)
    if picture:
        console.print()
        console.print(Text(picture), soft_wrap=True)
    console.print()
    console.print(legible(Text(f"Report and plots: {directory}"), console), soft_wrap=True)


def _next_steps(said: Suggestion | None, directory: Path, config: Path) -> list[str]:
    steps = list(said.advice) if said else []
    if said and said.lr:
        train = words.command("train", config, "--lr-from", directory)
        steps = [train, f"or write `learning_rate: {words.rate(said.lr)}` into {config}", *steps]
    return steps


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values on stdout, a line each."""
    print_grid(
        new_console(),
        [(name.replace("_", " "), Text(spell(value))) for name, value in facts.items()],
    )


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table on stdout; the keys of the first row are its heads."""
    console = new_console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH  # for grep: a row is a line
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in rows[0] if rows else ():
        table.add_column(head.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(legible(Text(spell(value)), console) for value in row.values()))
    console.print(table)
