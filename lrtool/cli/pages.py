"""The page of a run: written, never at the cost of the run, and opened in a browser."""

from __future__ import annotations

import os
import sys
import warnings
import webbrowser
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from lrtool.report.report import AnyReport


def save_page(report: AnyReport, run: Path) -> None:
    """Write `report.html` into the directory of a run, which has its report already.

    Warns:
        LrtoolWarning: it could not be written.
    """
    with _forgiving("the report is whole, and `lrtool report` writes its page"):
        from lrtool.show.page import page

        page.save(report, run)


def save_comparison_page(
    reports: Mapping[str, AnyReport], rows: Sequence[Mapping[str, Any]], directory: Path
) -> None:
    """Write `report.html` of several runs.

    Warns:
        LrtoolWarning: it could not be written.
    """
    with _forgiving("table and plot are whole"):
        from lrtool.show.page import page

        page.save_comparison(reports, rows, directory)


@contextmanager
def _forgiving(kept: str) -> Iterator[None]:
    from lrtool.cli.exit_codes import words

    try:
        yield
    except Exception as error:  # noqa: BLE001  (a page is no reason to lose a run)
        warnings.warn(f"no page was written: {words(error)}; {kept}", LrtoolWarning, stacklevel=4)


def open_page(path: Path) -> None:
    """Open a page in the browser: a file, or that of a run's directory.

    Warns:
        LrtoolWarning: there is no page, or no browser that could show it.
    """
    from lrtool.report.marker import PAGE

    path = path / PAGE if path.is_dir() else path
    if not path.is_file():
        warnings.warn(f"--open: there is no {path}", LrtoolWarning, stacklevel=2)
        return
    try:
        opened = _may_open() and webbrowser.open(path.resolve().as_uri())
    except (OSError, webbrowser.Error):
        opened = False
    if not opened:
        warnings.warn(
            f"--open: no browser could be opened; the page is {path}", LrtoolWarning, stacklevel=2
        )


def _may_open() -> bool:
    """Tell whether a browser can be seen: one inside a terminal needs that for itself."""
    named = "BROWSER", "DISPLAY", "WAYLAND_DISPLAY"
    return (
        sys.platform in {"darwin", "win32"}
        or any(map(os.environ.get, named))
        or (sys.stdin.isatty() and sys.stderr.isatty())
    )
