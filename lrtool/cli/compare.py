"""`lrtool compare`: runs beside each other, in a table, in one plot and on a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lrtool.cli import completion, flags
from lrtool.cli.pages import open_page
from lrtool.cli.streams import result, stdout_for_the_result
from lrtool.errors import UserError


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Runs, by directory or name.",
            autocompletion=completion.run_names,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Directory of plot and page; a new one under runs/.",
            callback=flags.in_home,
        ),
    ] = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.Json = False,
    open_: flags.Open = False,
) -> None:
    """Compare runs: a table, their losses in one plot, and a page."""
    with stdout_for_the_result():
        from lrtool.cli.pages import save_comparison_page
        from lrtool.report import comparison as compared
        from lrtool.report import report as reports
        from lrtool.report import run_directory
        from lrtool.report.runs import resolve
        from lrtool.show.plots.compare import save_comparison
        from lrtool.show.terminal.compare import comparison

        by_run, files, inputs = {}, {}, []
        for run in map(resolve, runs):
            inputs.append(run if run.is_dir() else run.parent)
            run_directory.settle(inputs[-1])
            path = run / reports.FILE_NAME if run.is_dir() else run
            if not path.is_file():
                raise UserError(f"{run}: holds no {reports.FILE_NAME}; give a run directory")
            by_run[str(run)], files[str(run)] = reports.read(path), path
        if output is not None:
            run_directory.check(output, "compare", overwrite=overwrite, inputs=inputs)
        parent = Path("runs") / "compare"
        with run_directory.opened(
            output, parent, "compare", overwrite=overwrite, inputs=inputs
        ) as made:
            rows, plots = comparison(by_run), save_comparison(by_run, made)
            compared.write(files, made)
            save_comparison_page(by_run, rows, made)
            directory = run_directory.finish(made)
        if open_:
            open_page(directory)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        from lrtool.report.marker import PAGE
        from lrtool.show.terminal.compare import print_comparison

        print_comparison(rows)
        result(f"\nPage: {directory / PAGE}\nPlot: {directory / plots[0].name}")
