"""What a person sees of a training in a terminal: progress on stderr, the result on stdout."""

from __future__ import annotations

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from lrtool.report.records import EpochRow, finite_or_none
from lrtool.show import words
from lrtool.show.terminal.console import legible, listed, new_console, print_grid
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lrtool.report.records import StepRow
    from lrtool.report.report import TrainReport

REFRESH_S, EVALUATING_S = 0.1, 0.5
FIRST_LINE_S, LINE_S = 2.0, 5.0
COLOURS = {"completed": "bold green", "interrupted": "bold yellow"}


class TrainProgress:
    """Shows on stderr how far a training is: a live bar, or lines where none can be.

    Without a terminal that is a line every few seconds and one at each epoch's end.

    Args:
        epochs: how many are planned, if known.
        steps: how many updates are planned, those made before a resume included, if known.
        done_steps: updates made before a resume.
        quiet: show nothing.
    """

    def __init__(
        self, *, epochs: int | None, steps: int | None, done_steps: int = 0, quiet: bool = False
    ) -> None:
        self._epochs = epochs
        self._steps = steps
        self._done_steps = done_steps
        self._quiet = quiet
        self._bar: Bar | None = None
        self._row: StepRow | None = None
        self._shown: StepRow | None = None
        self._epoch: EpochRow | None = None
        self._samples, self._training_s = 0, 0.0  # of this epoch; evaluation does not count

    def __enter__(self) -> Self:
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        if live and not self._quiet:
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            console = new_console(stderr=True)
            self._bar = Bar(*columns, console=console, auto_refresh=False, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._steps)
        self._started = self._since = monotonic()
        self._next = self._started + (REFRESH_S if self._bar else FIRST_LINE_S)
        self._next_evaluating = self._started
        return self

    def update(self, event: list[StepRow] | EpochRow | int) -> None:
        """Take into account what a training has yielded; most calls show nothing.

        Args:
            event: rows of updates, the row of an epoch, or the samples evaluated so far.
        """
        if isinstance(event, list):
            self._updates(event)
        elif isinstance(event, EpochRow):
            self._epoch_end(event)
        else:
            self._evaluating()

    def _updates(self, rows: list[StepRow]) -> None:
        if not rows:
            return
        self._row = rows[-1]
        now = monotonic()
        self._samples += sum([row.samples for row in rows])
        self._training_s += now - self._since
        self._since = now
        if now >= self._next:
            self._show(now)

    def _evaluating(self) -> None:
        now = monotonic()
        self._training_s += now - self._since
        if self._bar and now >= self._next_evaluating:  # seldom: epochs may be very short
            self._next_evaluating = now + EVALUATING_S
            self._show(now, "evaluating")

    def _epoch_end(self, row: EpochRow) -> None:
        """Take an epoch's end into account; without a live bar, print its line."""
        now = monotonic()
        self._epoch = row
        self._samples, self._training_s, self._since = 0, 0.0, now
        if self._quiet or self._bar:
            return
        self._shown = self._row
        self._next = now + LINE_S
        parts = [
            f"epoch {_of(row.epoch, self._epochs)} done",
            f"step {_of(row.step, self._steps)}",
            f"training loss {words.value(row.train_loss)}",
            *_validation(row),
            f"rate {words.rate(row.lr)}",
            *self._time_left(row.step, now),
        ]
        stderr_line(", ".join(parts))

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        elif self._row is not self._shown:
            self._show(monotonic())

    def _show(self, now: float, doing: str | None = None) -> None:
        self._next = now + (REFRESH_S if self._bar else LINE_S)
        row = self._row
        if self._quiet or row is None:
            return
        self._shown = row
        parts = [
            f"epoch {_of(row.epoch, self._epochs)}",
            f"step {_of(row.step, self._steps)}",
            doing or f"loss {words.value(row.loss)}",
            f"rate {words.rate(row.lr)}",
        ]
        if self._samples:
            parts.append(f"{self._samples / max(self._training_s, 1e-9):,.0f} samples/s")
        parts += self._time_left(row.step, now)
        if self._epoch is not None:
            parts += _validation(self._epoch)
        text = ", ".join(parts)
        if self._bar:
            total = self._planned()
            self._bar.update(
                self._task, completed=row.step, total=total, description=text, refresh=True
            )
        else:
            stderr_line(text)

    def _planned(self) -> float | None:
        """Return how many updates are planned: as told, or as the epochs so far suggest."""
        if self._steps is None and self._epochs is not None and self._epoch is not None:
            return self._epoch.step / self._epoch.epoch * self._epochs
        return self._steps

    def _time_left(self, step: int, now: float) -> list[str]:
        planned, made = self._planned(), step - self._done_steps
        if planned is None or made < 1 or planned <= step:
            return []
        return [f"{words.duration((now - self._started) / made * (planned - step))} left"]


def _of(number: int, planned: int | None) -> str:
    return f"{number}/{planned}" if planned else f"{number}"


def _validation(row: EpochRow) -> list[str]:
    validated = row.validation_loss is not None
    loss = [f"validation loss {words.value(row.validation_loss)}"] * validated
    return [*loss, *_named(row.metrics, validated=validated)]


def _named(metrics: Mapping[str, float | None], *, validated: bool) -> list[str]:
    return [
        f"{words.metric(name, validated=validated)} {words.value(value)}"
        for name, value in metrics.items()
    ]


def print_training(report: TrainReport, *, directory: Path, config: Path) -> None:
    """Print the result on stdout: a table, and where everything lies.

    Args:
        report: of a `train`.
        directory: of the run.
        config: the configuration's path, as the user typed it.
    """
    console = new_console()
    rows: list[tuple[str, Text]] = []
    if report.best:
        rows.append(("Best", Text(words.best(report), "bold")))
    if report.epochs:
        last, validated = report.epochs[-1], words.validated(report)
        text = f"training {words.value(finite_or_none(last.train_loss))}"
        text += f", validation {words.value(finite_or_none(last.validation_loss))}" * validated
        rows.append(("Last loss", Text(text)))
        if last.metrics:
            metrics = {name: finite_or_none(value) for name, value in last.metrics.items()}
            named = ", ".join(_named(metrics, validated=validated))
            rows.append(("Last metrics", Text(named)))
    if report.learning_rate:
        rows.append(("Learning rate", Text(words.learning_rate(report))))
    rows.append(("Schedule", Text(words.schedule(report))))
    rows.append(("Trained", Text(words.progress(report))))
    rows.append(("Status", Text(report.status, COLOURS.get(report.status, "bold red"))))
    if report.reason:
        rows.append(("Why", Text(report.reason)))
    rows += listed("Next", _next_steps(report, directory, config))
    rows.append(("Took", Text(words.took(report))))
    print_grid(console, rows)
    console.print()
    if report.checkpoint:
        text = f"Checkpoint: {directory / report.checkpoint}"
        console.print(legible(Text(text), console), soft_wrap=True)
    console.print(legible(Text(f"Report and plots: {directory}"), console), soft_wrap=True)


def _next_steps(report: TrainReport, directory: Path, config: Path) -> list[str]:
    if report.checkpoint and report.status in {"interrupted", "failed"}:
        return [words.command("train", config, "--resume", directory)]
    if report.learning_rate and report.learning_rate.origin == "optimizer":
        return [f"find a rate first: {words.command('train', config, '--lr', 'auto')}"]
    return []
