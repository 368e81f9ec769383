"""`lrtool predict`: what a training's weights say of other data."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lrtool.cli import flags
from lrtool.cli.streams import stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo


def predict(
    run: flags.Training,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Samples, in files like those of the training; or .parquet."
        ),
    ],
    checkpoint: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="Which weights; the best ones, if there are any."),
    ] = None,
    device: flags.Device = None,
    as_json: flags.Json = False,
) -> None:
    """Predict other data, which need no targets: a table (CSV), or JSON."""
    with stdout_for_the_result(), without_dynamo():
        from lrtool.report.runs import resolve
        from lrtool.training.trained import load_trained

        predictions = load_trained(resolve(run), checkpoint, device or "auto").predict(data)
        text = predictions.to_json() if as_json else predictions.to_csv()
    typer.echo(text, nl=False)
