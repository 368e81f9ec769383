"""A find in a terminal: progress on stderr, the result on stdout."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.text import Text

from lrtool.report.records import FullTrialRow, RaceRow, SweepRow, TrialRow
from lrtool.show import notebook, words
from lrtool.show.terminal import chart
from lrtool.show.terminal import race as race_terminal
from lrtool.show.terminal.console import (
    FIRST_LINE_S,
    LINE_S,
    REFRESH_S,
    listed,
    new_console,
    print_grid,
    print_line,
    start_bar,
)
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as Bar

    from lrtool.report.records import Suggestion
    from lrtool.report.report import FindReport

    Row = SweepRow | TrialRow | FullTrialRow | RaceRow

COLOURS = {"confident": "bold green", "uncertain": "bold yellow", "none": "bold red"}


class Progress:
    """Shows on stderr how far sweeps, trials and race are: a live bar, then a live table.

    In a notebook it is a bar below the cell; without either a line every few seconds.

    Args:
        repeats: how many sweeps.
        steps: steps of each, at most.
        trial_steps: steps of each trial.
        race_steps: steps of each candidate in a race.
        training: steps of the training, which a full trial makes; None: unknown.
        quiet: show nothing.
    """

    def __init__(
        self,
        *,
        repeats: int,
        steps: int,
        trial_steps: int = 0,
        race_steps: int = 0,
        training: int | None = None,
        quiet: bool = False,
    ) -> None:
        self._repeats = repeats
        self._steps = steps
        self._steps_of = {TrialRow: trial_steps, FullTrialRow: training or 0, RaceRow: race_steps}
        self._quiet = quiet
        self._bar: Bar | None = None
        self._cell: notebook.CellProgress | None = None
        self._table: Live | None = None
        self._rows = 0
        self._last: Row | None = None
        self._shown: Row | None = None
        self._racing: dict[int, TrialRow | FullTrialRow | RaceRow] = {}

    def __enter__(self) -> Self:
        if not self._quiet and notebook.is_notebook():
            self._cell = notebook.CellProgress()
        elif not self._quiet:
            self._bar = start_bar(self._repeats * self._steps)
        self._started = monotonic()
        self._next = self._started + (REFRESH_S if self._bar or self._cell else FIRST_LINE_S)
        return self

    def update(self, row: Row) -> None:
        """Take one row into account; most calls take less than a microsecond and show nothing."""
        self._rows += 1
        if type(row) is not type(self._last):
            self._racing.clear()  # another stage
        match row:
            case TrialRow():
                self._racing[row.trial] = row
            case FullTrialRow():
                self._racing[0] = row
            case RaceRow():
                self._racing[row.candidate] = row
        self._last = row
        now = monotonic()
        if now >= self._next:
            self._next = now + (REFRESH_S if self._bar or self._cell else LINE_S)
            self._show(row, now)

    def __exit__(self, *_: object) -> None:
        if self._table:
            self._table.stop()
        elif self._bar:
            self._bar.stop()
        elif self._cell:
            seconds = monotonic() - self._started
            self._cell.show(f"{self._rows:,} steps in {seconds:.1f} s", 1.0)
        elif self._last is not self._shown and self._last is not None:
            self._show(self._last, monotonic())

    def _show(self, row: Row, now: float) -> None:
        if self._quiet:
            return
        self._shown = row
        speed = words.per_second(self._rows / max(now - self._started, 1e-9), "steps")
        if not isinstance(row, SweepRow):
            self._show_race(row, speed)
            return
        text = (
            f"sweep {row.repeat + 1}/{self._repeats}, step {row.step + 1}/{self._steps}, "
            f"rate {words.rate(row.lr)}, loss {words.value(row.loss)}, {speed}"
        )
        done = row.repeat * self._steps + row.step + 1
        if self._cell:
            self._cell.show(text, done / (self._repeats * self._steps))
        elif self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text, refresh=True)
        else:
            stderr_line(text)

    def _show_race(self, row: TrialRow | FullTrialRow | RaceRow, speed: str) -> None:
        steps = self._steps_of[type(row)]
        text = f"{race_terminal.line(row, steps)}, {speed}"
        if self._cell:
            self._cell.show(text, row.step / steps)
            return
        if self._bar is None:
            stderr_line(text)
            return
        if self._table is None:
            self._bar.stop()
            self._table = Live(console=self._bar.console, auto_refresh=False, transient=True)
            self._table.start()
        table = race_terminal.standings(self._racing, steps, text)
        self._table.update(table, refresh=True)


def print_summary(report: FindReport, *, directory: Path, config: Path) -> None:
    """Print the result on stdout: a table, the curve, and where the files are.

    Args:
        report: of a `find`.
        directory: of the run.
        config: the configuration's path, as the user typed it.
    """
    console = new_console()
    suggestion = report.suggestion
    rows: list[tuple[str, Text]] = []
    if suggestion and suggestion.lr:
        rate = Text.assemble(
            (words.rate(suggestion.lr), "bold"),
            "  ",
            (suggestion.verdict, COLOURS[suggestion.verdict]),
        )
        rows.append(("Learning rate", rate))
        rows.append(("Interval", Text(words.interval(suggestion) or "–")))
        rows.append(("For", Text(f"a {words.purpose(suggestion)}")))
    else:
        rows.append(("Learning rate", Text("no trustworthy suggestion", COLOURS["none"])))
    if report.status in {"interrupted", "failed"}:
        rows.append(("Status", Text(report.status, COLOURS["none"])))
    if report.reason:
        rows.append(("Why", Text(report.reason)))
    rows += listed("Next", _next_steps(suggestion, directory, config))
    if report.trials and report.trials.candidates:
        rows.append(("Trials", Text(race_terminal.trials(report.trials))))
    if report.full_trial:
        rows.append(("Full trial", Text(words.full_trial(report.full_trial))))
    if report.race:
        rows.append(("Race", Text(race_terminal.caption(report.race))))
    rows += [(title, Text(text)) for title, text in words.start(report)]
    if scale := words.target_scale(report):
        rows.append(("Target", Text(scale)))
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
    print_line(console, f"Page, report and plots: {directory}")


def _next_steps(suggestion: Suggestion | None, directory: Path, config: Path) -> list[str]:
    steps = list(suggestion.advice) if suggestion else []
    if suggestion and suggestion.lr:
        written = [f"or write `learning_rate: {words.rate(suggestion.lr)}` into {config}"]
        # a run's own copy of its configuration is not for editing
        own = config.parent == directory
        train = words.command("train", config, "--lr-from", directory)
        steps = [train, *([] if own else written), *steps]
    return steps
