"""`report.html`: the page of a run, from its report alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.report.files import write_text
from lrtool.report.marker import PAGE
from lrtool.report.report import FindReport
from lrtool.report.run_directory import place
from lrtool.show.page import find

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.report import AnyReport


def save(report: AnyReport, run: Path) -> Path:
    """Write `report.html` into the directory of a run, whole, and return its path.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    path = run / PAGE
    write_text(path, draw(report, place(run)))
    return path


def draw(report: AnyReport, run: Path) -> str:
    """Return the page of a report as HTML.

    Args:
        report: of a run.
        run: its directory, as commands of the page name it.
    """
    assert isinstance(report, FindReport)
    return find.draw(report, run)
