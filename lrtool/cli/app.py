"""The command line: its commands, in the order of the help, and the one place that ends errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from lrtool import __version__
from lrtool.cli import completion, environment, exit_codes, launch
from lrtool.cli.check import check
from lrtool.cli.compare import compare
from lrtool.cli.evaluate import evaluate
from lrtool.cli.find import find
from lrtool.cli.init import init
from lrtool.cli.list import list_
from lrtool.cli.predict import predict
from lrtool.cli.report import report
from lrtool.cli.runs import runs
from lrtool.cli.schema import schema
from lrtool.cli.signals import end_children
from lrtool.cli.streams import (
    deaths_of_workers_said_once,
    say,
    standard_streams,
    warnings_in_words,
)
from lrtool.cli.train import train

app = typer.Typer(
    name="lrtool",
    help="Find a learning rate that trains about as well as the best of a grid; train with it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if environment.launched() and context.invoked_subcommand not in launch.COMMANDS:
        if not environment.first():
            raise typer.Exit
        say(f"{context.invoked_subcommand} runs in one process: rank 0 does it, the others end")


app.command()(find)
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(compare)
app.command()(report)
app.command()(runs)
app.command()(check)
app.command("list")(list_)
app.command()(init)
app.command()(schema)


def main() -> None:
    """Run the command line; every failure ends with one of the documented exit codes."""
    os.environ["MPLBACKEND"] = "agg"  # plots are files, and there may be no display
    with (
        launch.left_at_once(),
        standard_streams(),
        warnings_in_words(),
        deaths_of_workers_said_once(),
    ):
        try:
            with launch.one_voice(), completion.in_a_known_shell():
                app(prog_name="lrtool")  # also as `python -m lrtool`, where completion is set up
        except Exception as error:  # noqa: BLE001  (the only place that catches all)
            sys.exit(exit_codes.end(error, environment.speaker()))
        finally:
            end_children()


if __name__ == "__main__":
    main()
