"""`report.html`: the page of a run, from its report alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.report import report as reports
from lrtool.report.files import write_text
from lrtool.report.marker import FIND, PAGE
from lrtool.report.report import FindReport, TrainReport
from lrtool.report.run_directory import place
from lrtool.show.page import compare, find, train

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from lrtool.report.report import AnyReport


def save(report: AnyReport, run: Path) -> Path:
    """Write `report.html` into the directory of a run, whole, and return its path.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    path = run / PAGE
    rated = isinstance(report, TrainReport) and report.learning_rate is not None
    searched = report.suggestion is not None or not rated  # else its rate is from elsewhere
    write_text(path, draw(report, place(run), search_inside(run) if searched else None))
    return path


def save_comparison(
    reports: Mapping[str, AnyReport], rows: Sequence[Mapping[str, Any]], directory: Path
) -> Path:
    """Write `report.html` of several runs; `rows` are those of the terminal's `comparison`.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    path = directory / PAGE
    write_text(path, compare.draw(reports, rows))
    return path


def search_inside(run: Path) -> FindReport | None:
    """Return the report of the find inside a training's run; None without one.

    Raises:
        UserError: it cannot be read.
    """
    path = run / FIND / reports.FILE_NAME
    found = reports.read(path) if path.is_file() else None
    return found if isinstance(found, FindReport) else None


def draw(report: AnyReport, run: Path, search: FindReport | None = None) -> str:
    """Return the page of a report as HTML.

    Args:
        report: of a run.
        run: its directory, as commands of the page name it.
        search: the find inside a training's run; None without one.
    """
    if isinstance(report, FindReport):
        return find.draw(report, run)
    return train.draw(report, run, search)
