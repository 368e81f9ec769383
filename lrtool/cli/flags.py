"""The flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.epochs=3."),
]
Json = Annotated[bool, typer.Option("--json", help="Nothing but JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Run directory; a new one under runs/ otherwise."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Loss = Annotated[str | None, typer.Option(help="Name or import path; see `lrtool list losses`.")]
OptimizerName = Annotated[str | None, typer.Option("--optimizer", help="Name or import path.")]
BatchSize = Annotated[str | None, typer.Option(help="Samples in a batch, or full.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights and data order.")]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Race rates around the suggestion in short trainings, or not; find.verify otherwise.",
    ),
]
