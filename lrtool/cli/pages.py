"""The page of a run: written, and never at the cost of the run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.report import AnyReport


def save_page(report: AnyReport, run: Path) -> None:
    """Write `report.html` into the directory of a run, which has its report already.

    Warns:
        LrtoolWarning: it could not be written.
    """
    from lrtool.cli.exit_codes import words
    from lrtool.errors import LrtoolWarning
    from lrtool.show.page import page

    try:
        page.save(report, run)
    except Exception as error:  # noqa: BLE001  (a page is no reason to lose a run)
        warnings.warn(
            f"no page was written ({words(error)}); the report is whole: `lrtool report` writes "
            "its page",
            LrtoolWarning,
            stacklevel=2,
        )
