"""`lrtool report`: the page of a run, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrtool.cli import flags
from lrtool.cli.pages import open_page
from lrtool.cli.streams import result, stdout_for_the_result
from lrtool.errors import UserError

if TYPE_CHECKING:
    from lrtool.report.report import AnyReport


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
    """Write the page of a run anew, one HTML file, from its report."""
    with stdout_for_the_result():
        from lrtool.report import marker, run_directory
        from lrtool.report.files import write_text
        from lrtool.report.runs import resolve
        from lrtool.show.page import page

        run = resolve(run)
        directory = run if run.is_dir() else run.parent
        run_directory.settle(directory)
        html = page.draw(_read(run), directory, page.search_inside(directory))
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


def _read(run: Path) -> AnyReport:
    """Read the report of a run, given by its directory or by that file.

    Raises:
        UserError: it has none, or it is damaged.
    """
    from lrtool.report import marker
    from lrtool.report import report as reports

    path = run / reports.FILE_NAME if run.is_dir() else run
    if path.is_file():
        return reports.read(path)
    if marker.command_of(run) is None:
        raise UserError(f"{run}: holds no run; there is no {reports.FILE_NAME} in it")
    raise UserError(
        f"{run}: has no {reports.FILE_NAME}, which a run writes at its end: it is under way, or "
        "was killed"
    )


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
