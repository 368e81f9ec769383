"""A race in a terminal: its candidates while they train, and their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lrtool.report.records import FullTrialRow, TrialRow, finite_or_none
from lrtool.show import words
from lrtool.show.terminal.console import legible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from lrtool.report.records import Candidate, Race, RaceRow

    Row = RaceRow | TrialRow | FullTrialRow

BAR = 24
STAGES = {TrialRow: "trial", FullTrialRow: "full trial"}
COLOURS = {"won": "bold green", "diverged": "red", "dropped": "dim", "unfinished": "yellow"}


def line(row: Row, steps: int) -> str:
    """Say in a line how far a race is: "race: rate 0.0032, step 40/100, loss 0.5"; or a trial."""
    what = STAGES.get(type(row), "race")
    place = f"rate {words.rate(row.lr)}, step {row.step}/{steps}"
    return f"{what}: {place}, loss {words.value(row.loss)}"


def standings(last: Mapping[int, Row], steps: int, note: str) -> Group:
    """Return a line, and a table of the candidates by rate, each with its newest training loss.

    Args:
        last: the newest row of each candidate.
        steps: of each, up to the end.
        note: the line above.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("rate", "", "step", "loss"):
        table.add_column(Text(head), justify="right" if head else "left", header_style="bold")
    for row in sorted(last.values(), key=lambda row: row.lr):
        bar = ProgressBar(total=steps, completed=row.step, width=BAR)
        table.add_row(words.rate(row.lr), bar, f"{row.step}/{steps}", words.value(row.loss))
    return Group(Text(note, no_wrap=True, overflow="ellipsis"), table)


def results(race: Race, console: Console) -> Table:
    """Return a table of a race's candidates by rate: losses half-way and at the end, outcomes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("rate", "half-way", "at the end", "± error", "outcome"):
        options: dict[str, Any] = {"no_wrap": True} if head in {"rate", "outcome"} else {}
        side: Any = "left" if head == "outcome" else "right"
        table.add_column(legible(Text(head), console), justify=side, overflow="fold", **options)
    for candidate in sorted(race.candidates, key=lambda candidate: candidate.lr):
        style = COLOURS.get(candidate.outcome, "")
        cells = (words.rate(candidate.lr), *_losses(candidate), candidate.outcome)
        table.add_row(*(legible(Text(cell, style), console) for cell in cells))
    return table


def _losses(candidate: Candidate) -> tuple[str, str, str]:
    half, final = map(finite_or_none, (candidate.half_loss, candidate.final_loss))
    error = candidate.standard_error
    blank = "NaN" if candidate.outcome == "diverged" else "–"
    return (
        words.value(half) if half is not None else blank,
        words.value(final) if final is not None else "–",
        words.rate(error) if error else "–",
    )


def trials(race: Race) -> str:
    """Say how trials ended: "0.0079 and 0.024, 90 steps each: validation loss 1 and 2"."""
    ascending = sorted(race.candidates, key=lambda trial: trial.lr)
    rates = _spelled([words.rate(trial.lr) for trial in ascending])
    losses = _spelled([_end(trial) for trial in ascending])
    return f"{rates}, {race.steps:,} steps each: {race.measure} loss {losses}"


def _spelled(parts: list[str]) -> str:
    """Join with commas and "and"."""
    return " and ".join([*filter(None, [", ".join(parts[:-1])]), parts[-1]])


def _end(trial: Candidate) -> str:
    if finite_or_none(trial.final_loss) is None:
        return "unfinished" if trial.outcome == "unfinished" else "diverged"
    return words.value(trial.final_loss)


def caption(race: Race) -> str:
    """Say what raced and how: "3 rates over 100 steps (…); loss of 360 validation samples"."""
    part = "validation" if race.measure == "validation" else "training"
    rates = f"{len(race.candidates)} rates over {race.steps:,} steps"
    return f"{rates} ({race.steps_spent:,.0f} in all); loss of {race.examples:,} {part} samples"
