"""A training in a terminal: progress on stderr, the result on stdout."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Self

from rich.text import Text

from lrtool.report.records import EpochRow, finite_or_none
from lrtool.show import words
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
    from collections.abc import Mapping
    from pathlib import Path

    from rich.progress import Progress as Bar

    from lrtool.report.records import StepRow
    from lrtool.report.report import TrainReport

EVALUATING_S = 0.5
COLOURS = {"completed": "bold green", "interrupted": "bold yellow"}


class TrainProgress:
    """Shows on stderr how far a training is: a live bar.

    Without a terminal it is a line every few seconds and one at each epoch's end.

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
        self._bar = None if self._quiet else start_bar(self._steps)
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
            speed = self._samples / max(self._training_s, 1e-9)
            parts.append(words.per_second(speed, "samples"))
        parts += self._time_left(row.step, now)
        if self._epoch is not None:
            parts += _validation(self._epoch)
        text = ", ".join(parts)
        if self._bar:
            total = self._planned()
            self._bar.update(
                self._bar.task_ids[0],
                completed=row.step,
                total=total,
                description=text,
                refresh=True,
            )
        else:
            stderr_line(text)

    def _planned(self) -> float | None:
        """Return how many updates are planned, if need be by the length of the epochs so far."""
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
    return [*loss, *_metrics(row.metrics, validated=validated)]


def _metrics(metrics: Mapping[str, float | None], *, validated: bool) -> list[str]:
    return [
        f"{words.metric(name, validated=validated)} {words.value(value)}"
        for name, value in metrics.items()
    ]


def print_training(report: TrainReport, *, directory: Path, config: Path) -> None:
    """Print the result on stdout: a table, and where the files are.

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
            text = ", ".join(_metrics(metrics, validated=validated))
            rows.append(("Last metrics", Text(text)))
    if report.learning_rate:
        rows.append(("Learning rate", Text(words.learning_rate(report))))
    rows.append(("Schedule", Text(words.schedule(report))))
    rows.append(("Trained", Text(words.progress(report))))
    rows.append(("Status", Text(report.status, COLOURS.get(report.status, "bold red"))))
    if report.reason:
        rows.append(("Why", Text(report.reason)))
    rows += listed("Next", _next_steps(report, directory, config))
    rows += [(title, Text(text)) for title, text in words.start(report)]
    if scale := words.target_scale(report):
        rows.append(("Target", Text(scale)))
    rows.append(("Took", Text(words.took(report))))
    print_grid(console, rows)
    console.print()
    if report.checkpoint:
        print_line(console, f"Checkpoint: {directory / report.checkpoint}")
    print_line(console, f"Page, report and plots: {directory}")


def _next_steps(report: TrainReport, directory: Path, config: Path) -> list[str]:
    if report.checkpoint and report.status in {"interrupted", "failed"}:
        return [words.command("train", config, "--resume", directory)]
    if report.learning_rate and report.learning_rate.origin == "optimizer":
        return [f"find a rate first: {words.command('train', config, '--lr', 'auto')}"]
    return []
