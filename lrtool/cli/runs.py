"""`lrtool runs`: the runs of a folder at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lrtool.cli import flags
from lrtool.cli.streams import say
from lrtool.errors import UserError


def runs(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to look; runs otherwise.")
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """List runs, the newest first: rate, verdict, best epoch, status and age."""
    from lrtool.report.runs import RUNS
    from lrtool.report.summary import summaries
    from lrtool.show.terminal.runs import facts, print_runs

    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: there is no such directory")
    found = summaries(folder or RUNS)
    if as_json:
        typer.echo(json.dumps([facts(each) for each in found], indent=2, ensure_ascii=False))
        return
    if not found:
        say(f"there are no runs under {folder or RUNS}")
        return
    print_runs(found)
    for problem in filter(None, (each.problem for each in found)):
        say(problem)
