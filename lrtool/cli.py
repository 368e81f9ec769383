"""What a person types. The only place that decides an exit code.

0 done; 1 a bug; 2 usage, configuration or data; 3 no trustworthy suggestion; 4 training diverged;
5 out of memory; 130 and 143 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json as jsons
import os
import sys
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lrtool import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrtool.config import Config
    from lrtool.document import Document
    from lrtool.interrupts import Stop
    from lrtool.records import SweepRow
    from lrtool.show.report import Report

DONE, BUG, USAGE, NO_SUGGESTION, OUT_OF_MEMORY, BROKEN_PIPE = 0, 1, 2, 3, 5, 141

app = typer.Typer(
    name="lrtool",
    help="Find a learning rate that trains about as well as the best of an exhaustive grid.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as train.epochs=3."),
]
Json = Annotated[bool, typer.Option("--json", help="Nothing but JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Run directory; runs/<config>/<time>-find otherwise."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Loss = Annotated[str | None, typer.Option(help="Name or import path; see `lrtool list losses`.")]
OptimizerName = Annotated[str | None, typer.Option("--optimizer", help="Name or import path.")]
BatchSize = Annotated[str | None, typer.Option(help="Samples in a batch, or full.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights and data order.")]


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
    config: ConfigFile,
    sets: Sets = None,
    loss: Loss = None,
    optimizer: OptimizerName = None,
    batch_size: BatchSize = None,
    start: Annotated[float | None, typer.Option(help="First rate of the sweep.")] = None,
    end: Annotated[float | None, typer.Option(help="Last rate of the sweep.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a sweep.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Sweeps, each with its own seed.")] = None,
    device: Device = None,
    seed: Seed = None,
    output: Output = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sweep the learning rate and name one that trains well, with an interval and a verdict."""
    from lrtool.interrupts import interruptible

    flags = {
        "--start": ("find.start", start),
        "--end": ("find.end", end),
        "--steps": ("find.steps", steps),
        "--repeats": ("find.repeats", repeats),
        **_common_flags(loss, optimizer, batch_size, device, seed),
    }
    with interruptible() as stop, _stdout_for_the_result():
        settings, document = _read(config, sets, flags)
        report, directory = _find(
            settings, document, stop, output=output, overwrite=overwrite, quiet=quiet or json
        )
    if json:
        typer.echo(_to_json(report), nl=False)
    elif quiet:
        _print_rate(report)
    else:
        changed = sets or any(value is not None for _, value in flags.values())
        _print_summary(report, directory, directory / "config.yaml" if changed else config)
    if stop.signal is not None:
        raise typer.Exit(stop.exit_code())
    raise typer.Exit(DONE if report.status == "completed" else NO_SUGGESTION)


@app.command()
def check(
    config: ConfigFile,
    sets: Sets = None,
    loss: Loss = None,
    optimizer: OptimizerName = None,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validate, build, and send one batch through: shapes and parameter counts."""
    flags = _common_flags(loss, optimizer, batch_size, device, seed)
    with _stdout_for_the_result():
        settings, document = _read(config, sets, flags)
        from lrtool.run import check as run_check

        facts = run_check(settings, document)
    if json:
        typer.echo(jsons.dumps(facts, indent=2))
    elif not quiet:
        from lrtool.show import terminal

        terminal.print_facts(facts)


@app.command("list")
def list_(
    kind: Annotated[
        Literal["losses", "optimizers", "schedules", "models", "metrics", "sources"],
        typer.Argument(help="What to list."),
    ],
    json: Json = False,
) -> None:
    """List the names a configuration may use, with their defaults."""
    from lrtool.build.catalogue import rows
    from lrtool.data.sources import SOURCES

    found = rows(kind, SOURCES)
    if json:
        typer.echo(jsons.dumps(found, indent=2))
    else:
        from lrtool.show import terminal

        terminal.print_rows(found)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="An example's name, such as digits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write to.")] = Path(),
    overwrite: Overwrite = False,
) -> None:
    """Write a commented configuration to start from."""
    from lrtool import examples

    for path in examples.copy(name, output, overwrite=overwrite):
        typer.echo(path)


@app.command()
def schema(
    what: Annotated[Literal["config", "report"], typer.Argument(help="Which file.")] = "config",
) -> None:
    """Print the JSON Schema of the configuration, for editors, or of report.json."""
    if what == "config":
        from lrtool.config import json_schema
    else:
        from lrtool.show.report import json_schema
    typer.echo(jsons.dumps(json_schema(), indent=2))


def _common_flags(
    loss: str | None,
    optimizer: str | None,
    batch_size: str | None,
    device: str | None,
    seed: int | None,
) -> dict[str, tuple[str, Any]]:
    from lrtool.document import plain_scalar

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
    from lrtool.document import Override
    from lrtool.settings import read_config

    overrides = [
        Override(flag, tuple(key.split(".")), value)
        for flag, (key, value) in flags.items()
        if value is not None
    ]
    return read_config(config, sets or [], overrides)


def _find(
    settings: Config,
    document: Document,
    stop: Stop,
    *,
    output: Path | None,
    overwrite: bool,
    quiet: bool,
) -> tuple[Report, Path]:
    """Run the sweeps under a progress bar; the first signal ends them, and the report follows."""
    from lrtool import rundir
    from lrtool.errors import InterruptedRunError
    from lrtool.run import find as run_find
    from lrtool.show.report import Report
    from lrtool.show.terminal import Progress
    from lrtool.task import open_task, try_one_batch

    if output is not None:
        rundir.check(output, overwrite=overwrite)
    task = open_task(settings, document)
    first = try_one_batch(task)
    if output is None:
        directory = rundir.create_new(Path("runs") / Path(document.name).stem, "find")
    else:
        directory = rundir.create(output)
    progress = Progress(repeats=settings.find.repeats, steps=settings.find.steps, quiet=quiet)
    with progress, closing(run_find(task, first, directory)) as events:
        stop.gentle = True
        event: SweepRow | Report = next(events)
        while not isinstance(event, Report):
            progress.update(event)
            if stop.signal is None:
                event = next(events)
            else:
                event = events.throw(InterruptedRunError(stop.words()))
    return event, directory


def _to_json(report: Report) -> str:
    from lrtool.show.report import to_json

    return to_json(report)


def _print_rate(report: Report) -> None:
    if report.suggestion is not None and report.suggestion.lr is not None:
        from lrtool.show.words import rate

        typer.echo(rate(report.suggestion.lr))
    else:
        _say(f"no suggestion: {report.reason}")


@contextmanager
def _stdout_for_the_result() -> Iterator[None]:
    """Send whatever users' modules print to stderr, from C or a child process too."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # closed, or no descriptors at all
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print_summary(report: Report, directory: Path, config: Path) -> None:
    from lrtool.show import terminal

    terminal.print_summary(report, directory=directory, config=config)


def main() -> None:
    """Run the command line; every way to fail ends in one of the documented exit codes."""
    import warnings

    from lrtool.errors import LrtoolWarning

    os.environ["MPLBACKEND"] = "agg"  # plots are files; a backend for windows may not be there
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, LrtoolWarning):
            _say(f"warning: {message}")
        else:
            show_others(message, category, *where)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LrtoolWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            app()
        except Exception as error:  # noqa: BLE001  (the one boundary)
            sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    """Say what went wrong and return the exit code that stands for it."""
    from lrtool.errors import ConfigError, LrtoolError, OutOfMemoryError

    if isinstance(error, ConfigError):  # its lines begin with file:line:column already
        typer.echo(str(error), err=True)
        return USAGE
    if isinstance(error, LrtoolError):
        _say(f"error: {error}")
        return OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else USAGE
    if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        _say(f"error: {where}{error.strerror}")
        return USAGE
    if isinstance(error, MemoryError):
        _say(f"error: out of memory: {error}")
        return OUT_OF_MEMORY
    import traceback

    traceback.print_exception(error)
    _say("this is a bug in lrtool; please report it with the lines above and the configuration")
    return BUG


def _say(message: str) -> None:
    typer.echo(f"lrtool: {message}", err=True)


if __name__ == "__main__":
    main()
