"""`lrtool schema`: the JSON Schema of the configuration, or of the report."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def schema(
    what: Annotated[Literal["config", "report"], typer.Argument(help="Which file.")] = "config",
) -> None:
    """Print the JSON Schema of the configuration, for editors, or of report.json."""
    if what == "config":
        from lrtool.config.schema import json_schema
    else:
        from lrtool.report.report import json_schema
    typer.echo(json.dumps(json_schema(), indent=2))
