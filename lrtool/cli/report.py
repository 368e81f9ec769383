"""`lrtool report`: the page of a run, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrtool.cli import flags
from lrtool.cli.pages import open_page
from lrtool.cli.streams import result, stdout_for_the_result
from lrtool.errors import UserError


def report(
    run: flags.Run,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it; report.html in the run otherwise.",
            callback=flags.in_home,
        ),
    ] = None,
    open_: flags.Open = False,
) -> None:
    """Write the page of a run or a comparison anew: one HTML file, from its report."""
    with stdout_for_the_result():
        from lrtool.report import marker, run_directory
        from lrtool.report.files import write_text
        from lrtool.report.runs import resolve

        run = resolve(run)
        directory = run if run.is_dir() else run.parent
        run_directory.settle(directory)
        html = _page_of_comparison(run) if marker.command_of(run) == "compare" else _page_of(run)
        if output is not None:
            _refuse_other(output)
            write_text(output, html)
        else:
            with run_directory.rewriting(directory, marker.PAGE) as path:
                write_text(path, html)
        written = output or directory / marker.PAGE
        if open_:
            open_page(written)
    result(written)


def _page_of(run: Path) -> str:
    """Return the page of a run, given by its directory or by its report.

    Raises:
        UserError: it has no report, or a damaged one.
    """
    from lrtool.report import marker
    from lrtool.report import report as reports
    from lrtool.show.page import page

    path = run / reports.FILE_NAME if run.is_dir() else run
    if path.is_file():
        directory = path.parent
        return page.draw(reports.read(path), directory, page.search_inside(directory))
    if marker.command_of(run) is None:
        raise UserError(f"{run}: holds no run; there is no {reports.FILE_NAME} in it")
    raise UserError(
        f"{run}: has no {reports.FILE_NAME}, which a run writes at its end: it is under way, or "
        "was killed"
    )


def _page_of_comparison(directory: Path) -> str:
    """Return the page of runs that were compared, from their reports.

    Raises:
        UserError: one of them is no longer there.
    """
    from lrtool.report import comparison as compared
    from lrtool.show.page import compare
    from lrtool.show.terminal.compare import comparison

    by_run = compared.read(directory)
    return compare.draw(by_run, comparison(by_run))


def _refuse_other(output: Path) -> None:
    """Refuse to write over what is no page of lrtool's.

    Raises:
        UserError: it is a directory, or another file.
    """
    if output.is_dir():
        raise UserError(
            f"--output {output}: is a directory; give a file, such as {output / 'report.html'}"
        )
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no directory {output.parent}")
    if output.exists():
        with output.open("rb") as file:
            if b'<meta name="generator" content="lrtool">' not in file.read(2_000):
                raise UserError(
                    f"--output {output}: is there, and no page of lrtool's; choose another file"
                )
