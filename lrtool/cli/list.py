"""`lrtool list`: the names that a configuration may use."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from lrtool.cli import flags


def list_(
    kind: Annotated[
        Literal["losses", "optimizers", "schedules", "models", "metrics", "sources"],
        typer.Argument(help="What to list."),
    ],
    as_json: flags.Json = False,
) -> None:
    """List the names a configuration may use, with their defaults."""
    from lrtool.components.catalogue import rows
    from lrtool.data.sources import SOURCES

    entries = rows(kind, SOURCES)
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    else:
        from lrtool.show.terminal.console import print_rows

        print_rows(entries)
