"""What a person types. The only place that decides an exit code.

0 done; 1 a bug; 2 usage, configuration or data; 3 no trustworthy suggestion; 4 training diverged;
5 out of memory; 130 and 143 interrupted; 141, from the system, nobody reads stdout any more.
Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json as jsons
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lrtool import __version__
from lrtool.cli import flags as shared  # noqa: TC001  (Typer reads annotations)
from lrtool.cli.signals import end_children
from lrtool.cli.streams import say, standard_streams, stdout_for_the_result, warnings_in_words
from lrtool.engine.dynamo import without_dynamo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.cli.signals import Stop
    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.report.report import AnyReport, FindReport, Status

DONE, BUG, USAGE, NO_SUGGESTION, DIVERGED, OUT_OF_MEMORY = 0, 1, 2, 3, 4, 5

app = typer.Typer(
    name="lrtool",
    help="Find a learning rate that trains about as well as the best of a grid; train with it.",
    add_completion=False,
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
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def find(
    config: shared.ConfigFile,
    sets: shared.Sets = None,
    loss: shared.Loss = None,
    optimizer: shared.OptimizerName = None,
    batch_size: shared.BatchSize = None,
    start: Annotated[float | None, typer.Option(help="First rate of the sweep.")] = None,
    end: Annotated[float | None, typer.Option(help="Last rate of the sweep.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a sweep.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Sweeps, each with its own seed.")] = None,
    verify: shared.Verify = None,
    device: shared.Device = None,
    seed: shared.Seed = None,
    output: shared.Output = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Sweep the learning rate and name one that trains well, with an interval and a verdict."""
    from lrtool.cli.signals import interruptible

    flags = {
        "--start": ("find.start", start),
        "--end": ("find.end", end),
        "--steps": ("find.steps", steps),
        "--repeats": ("find.repeats", repeats),
        "--verify": ("find.verify", verify),
        **_common_flags(loss, optimizer, batch_size, device, seed),
    }
    with interruptible() as stop, stdout_for_the_result(), without_dynamo():
        settings, document = _read(config, sets, flags)
        from lrtool.cli import drive

        options = drive.Options(output, overwrite, quiet or json, say)
        report, directory = drive.find(settings, document, stop, options)
    if json:
        typer.echo(_to_json(report), nl=False)
    elif quiet:
        _print_rate(report)
    else:
        from lrtool.show.terminal import find as terminal

        shown = _repeatable(config, directory, sets, flags)
        terminal.print_summary(report, directory=directory, config=shown)
    raise typer.Exit(_code(report.status, stop))


@app.command()
def train(
    config: shared.ConfigFile,
    sets: shared.Sets = None,
    lr: Annotated[
        str | None, typer.Option("--lr", metavar="X|auto", help="A rate; auto: find it first.")
    ] = None,
    lr_from: Annotated[
        Path | None,
        typer.Option("--lr-from", metavar="RUN", help="The rate of an earlier find or training."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|RUN",
            help="Go on with a run; auto: the newest one, or that in --output, if there is one.",
        ),
    ] = None,
    loss: shared.Loss = None,
    optimizer: shared.OptimizerName = None,
    batch_size: shared.BatchSize = None,
    epochs: Annotated[int | None, typer.Option(help="How often to see the data.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files; needs the extra tensorboard.")
    ] = False,
    device: shared.Device = None,
    seed: shared.Seed = None,
    output: shared.Output = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Train with a rate that is given, found first, or the optimizer's own; resume exactly."""
    from lrtool.cli.signals import interruptible
    from lrtool.config.document import plain_scalar

    if lr is not None and plain_scalar(lr) is None:
        raise typer.BadParameter("--lr must be a positive number, or auto")
    if lr is not None and lr_from is not None:
        raise typer.BadParameter("--lr and --lr-from contradict each other; give one of them")
    with interruptible() as stop, stdout_for_the_result(), without_dynamo():
        from lrtool.training import initial_rate as rates

        source = rates.of_run(lr_from) if lr_from else None
        flags = {
            "--lr": ("learning_rate", lr and plain_scalar(lr)),
            "--lr-from": ("learning_rate", source and source[0]),
            "--epochs": ("train.epochs", epochs),
            **_common_flags(loss, optimizer, batch_size, device, seed),
        }
        settings, document = _read(config, sets, flags)
        if lr_from and source:
            rates.warn_of_differences(lr_from, source[1], settings)
        rate = rates.given(settings, document, by_flag=lr is not None, run=lr_from)
        from lrtool.cli import drive

        report, directory = drive.train(
            settings,
            document,
            stop,
            drive.Options(output, overwrite, quiet or json, say),
            rate=rate,
            resume=resume,
            with_tensorboard=tensorboard,
        )
    if json:
        typer.echo(_to_json(report), nl=False)
    elif quiet:
        typer.echo(directory)
    else:
        from lrtool.show.terminal import train as training_terminal

        shown = _repeatable(config, directory, sets, flags)
        training_terminal.print_training(report, directory=directory, config=shown)
    if report.status != "completed" and (json or quiet):
        say(f"{report.status.replace('_', ' ')}: {report.reason}")
    raise typer.Exit(_code(report.status, stop))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a training.")],
    checkpoint: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="Which weights; the best ones, if there are any."),
    ] = None,
    sets: shared.Sets = None,
    device: shared.Device = None,
) -> None:
    """Evaluate a training's weights on the validation part: metrics as JSON."""
    config = run / "config.yaml"
    flags = {"--device": ("runtime.device", device)}
    with stdout_for_the_result(), without_dynamo():
        from lrtool.errors import UserError

        if not config.is_file():
            raise UserError(f"{run}: holds no run; there is no {config}")
        keys = [text.partition("=")[0] for text in sets or ()]
        wrong = [key for key in keys if key.split(".")[0] not in {"data", "metrics", "runtime"}]
        if wrong:
            raise UserError(
                f"--set {wrong[0]}: an evaluation may change data, metrics and runtime alone"
            )
        settings, document = _read(config, sets, flags)
        from lrtool.cli import drive

        facts = drive.evaluate(settings, document, run, checkpoint)
    typer.echo(jsons.dumps(facts, indent=2, ensure_ascii=False))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory of the plot; a new one under runs/."),
    ] = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
) -> None:
    """Compare runs: a table, and their losses in one plot."""
    with stdout_for_the_result():
        from lrtool.cli import drive

        rows, paths = drive.compare(runs, output, overwrite=overwrite)
    if json:
        typer.echo(jsons.dumps(rows, indent=2, ensure_ascii=False))
    else:
        from lrtool.show.terminal import find as terminal

        terminal.print_rows(rows)
        typer.echo(f"\nPlot: {paths[0]}")


@app.command()
def check(
    config: shared.ConfigFile,
    sets: shared.Sets = None,
    loss: shared.Loss = None,
    optimizer: shared.OptimizerName = None,
    batch_size: shared.BatchSize = None,
    device: shared.Device = None,
    seed: shared.Seed = None,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Validate, build, and send one batch through: shapes and parameter counts."""
    flags = _common_flags(loss, optimizer, batch_size, device, seed)
    with stdout_for_the_result(), without_dynamo():
        settings, document = _read(config, sets, flags)
        from lrtool.cli.find_run import check as run_check

        facts = run_check(settings, document)
    if json:
        typer.echo(jsons.dumps(facts, indent=2))
    elif not quiet:
        from lrtool.show.terminal import find as terminal

        terminal.print_facts(facts)


@app.command("list")
def list_(
    kind: Annotated[
        Literal["losses", "optimizers", "schedules", "models", "metrics", "sources"],
        typer.Argument(help="What to list."),
    ],
    json: shared.Json = False,
) -> None:
    """List the names a configuration may use, with their defaults."""
    from lrtool.components.catalogue import rows
    from lrtool.data.sources import SOURCES

    found = rows(kind, SOURCES)
    if json:
        typer.echo(jsons.dumps(found, indent=2))
    else:
        from lrtool.show.terminal import find as terminal

        terminal.print_rows(found)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="An example's name, such as digits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write to.")] = Path(),
    overwrite: shared.Overwrite = False,
) -> None:
    """Write a commented configuration to start from."""
    from lrtool.cli import examples

    for path in examples.copy(name, output, overwrite=overwrite):
        typer.echo(path)


@app.command()
def schema(
    what: Annotated[Literal["config", "report"], typer.Argument(help="Which file.")] = "config",
) -> None:
    """Print the JSON Schema of the configuration, for editors, or of report.json."""
    if what == "config":
        from lrtool.config.schema import json_schema
    else:
        from lrtool.report.report import json_schema
    typer.echo(jsons.dumps(json_schema(), indent=2))


def _common_flags(
    loss: str | None,
    optimizer: str | None,
    batch_size: str | None,
    device: str | None,
    seed: int | None,
) -> dict[str, tuple[str, Any]]:
    from lrtool.config.document import plain_scalar

    return {
        "--loss": ("loss", loss),
        "--optimizer": ("optimizer", optimizer),
        "--batch-size": ("data.batch_size", batch_size and plain_scalar(batch_size)),
        "--device": ("runtime.device", device),
        "--seed": ("seed", seed),
    }


def _read(
    config: Path, sets: Sequence[str] | None, flags: dict[str, tuple[str, Any]]
) -> tuple[Config, Document]:
    from lrtool.config.document import Override
    from lrtool.experiment.reading import read_config

    overrides = [
        Override(flag, tuple(key.split(".")), value)
        for flag, (key, value) in flags.items()
        if value is not None
    ]
    return read_config(config, sets or [], overrides)


def _repeatable(
    config: Path, directory: Path, sets: Sequence[str] | None, flags: dict[str, tuple[str, Any]]
) -> Path:
    """Return the configuration that names all of a run: the given one, or with flags the run's."""
    changed = sets or any(value is not None for _, value in flags.values())
    return directory / "config.yaml" if changed else config


def _code(status: Status, stop: Stop) -> int:
    """Return the exit code of a run that has left its report."""
    if stop.signal is not None and status == "interrupted":
        return stop.exit_code()
    return {"completed": DONE, "no_suggestion": NO_SUGGESTION, "diverged": DIVERGED}[status]


def _to_json(report: AnyReport) -> str:
    from lrtool.report.report import to_json

    return to_json(report)


def _print_rate(report: FindReport) -> None:
    if report.suggestion is not None and report.suggestion.lr is not None:
        from lrtool.show.words import rate

        typer.echo(rate(report.suggestion.lr))
    else:
        say(f"no suggestion: {report.reason}")


def main() -> None:
    """Run the command line; every way to fail ends in one of the documented exit codes."""
    os.environ["MPLBACKEND"] = "agg"  # plots are files; a backend for windows may not be there
    with standard_streams(), warnings_in_words():
        try:
            app()
        except Exception as error:  # noqa: BLE001  (the one boundary)
            sys.exit(_exit_code(error))
        finally:
            end_children()


def _exit_code(error: Exception) -> int:
    """Say what went wrong and return the exit code that stands for it."""
    from lrtool.errors import ConfigError, LrtoolError, OutOfMemoryError

    if isinstance(error, ConfigError):  # its lines begin with file:line:column already
        typer.echo(str(error), err=True)
        return USAGE
    if isinstance(error, LrtoolError):
        say(f"error: {error}")
        return OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else USAGE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"error: {where}{error.strerror or error}")
        return USAGE
    if isinstance(error, MemoryError):
        say(f"error: out of memory: {error}")
        return OUT_OF_MEMORY
    if "DataLoader worker (pid" in str(error):  # torch may raise this anywhere, from a signal
        say(f"error: a process that loads data died: {error}; data.workers: 0 loads without it")
        return USAGE
    import traceback

    traceback.print_exception(error)
    say("this is a bug in lrtool; please report it with the lines above and the configuration")
    return BUG


if __name__ == "__main__":
    main()
