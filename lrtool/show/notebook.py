"""What a notebook shows: a report in words with its plot, and how far a search is.

Text in a report may be the user's, so all of it is escaped. How far a search is needs a display of
IPython's that can be changed, and no widgets.
"""

from __future__ import annotations

import base64
import sys
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrtool.report.records import finite_or_none
from lrtool.report.report import FindReport
from lrtool.show import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lrtool.report.report import AnyReport

WIDTH = "max-width: 60em"  # lines that are easy to read, on wide screens too


def html(report: AnyReport) -> str:
    """Return a report as a piece of HTML: what came out, why, what to do next, and the plot."""
    title = words.glance(report)
    title = title[0].upper() + title[1:]
    advice = report.suggestion.advice if report.suggestion else ()
    parts = [f"<p><strong>{escape(title)}</strong></p>"]
    parts += [f"<p>{escape(line)}</p>" for line in _lines(report) if line]
    if advice:
        parts.append(f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in advice)}</ul>")
    figure = draw(report)
    if figure is not None:
        from lrtool.show.plots.canvas import png  # noqa: PLC0415  (matplotlib)

        picture = base64.b64encode(png(figure)).decode()
        parts.append(
            f'<img alt="{escape(f"Plot of the {report.command}. {title}")}" '
            f'style="max-width: 100%" src="data:image/png;base64,{picture}">'
        )
    return f'<div style="{WIDTH}">{"".join(parts)}</div>'


def draw(report: AnyReport) -> Figure | None:
    """Return the plot of a report; None where nothing was measured."""
    from lrtool.show.plots import find, train  # noqa: PLC0415  (matplotlib)

    if isinstance(report, FindReport):
        return find.draw(report) if report.sweeps else None
    return train.draw(report) if report.steps.step or report.epochs else None


def _lines(report: AnyReport) -> list[str]:
    """Say more than the title does: what for, why, and of a training its rate and losses."""
    if isinstance(report, FindReport):
        found = report.suggestion is not None and report.suggestion.lr is not None
        # without a rate, the title says why
        purpose = [f"For a {words.purpose(report.suggestion)}."] if report.suggestion else []
        return [*purpose, report.reason or ""] if found else []
    lines = [report.reason or ""]
    if report.learning_rate:
        lines.append(f"Learning rate {words.learning_rate(report)}; {words.schedule(report)}.")
    if report.epochs:
        last = report.epochs[-1]
        losses = [f"training loss {words.value(finite_or_none(last.train_loss))}"]
        if words.validated(report):
            losses.append(f"validation loss {words.value(finite_or_none(last.validation_loss))}")
        lines.append(f"After {words.progress(report)}: {', '.join(losses)}.")
    return lines


def is_notebook() -> bool:
    """Tell whether this is a cell of a notebook, which IPython's kernel runs."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class CellProgress:
    """A bar with a line of text below a cell, which change where they are."""

    def __init__(self) -> None:
        display = import_module("IPython.display").display  # a notebook has it
        self._display: Any = display(self._data("starting", 0.0), raw=True, display_id=True)

    def show(self, text: str, done: float) -> None:
        """Change bar and text.

        Args:
            text: one line.
            done: from 0 to 1.
        """
        self._display.update(self._data(text, done), raw=True)

    @staticmethod
    def _data(text: str, done: float) -> dict[str, str]:
        bar = f'<progress aria-label="search" max="1" value="{done:.4f}"></progress>'
        return {"text/plain": text, "text/html": f"<div>{bar} {escape(text)}</div>"}
