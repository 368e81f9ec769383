"""`lrtool find`: search for a learning rate, and leave its report."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from lrtool.cli import exit_codes, flags
from lrtool.cli.signals import interruptible
from lrtool.cli.streams import say, stdout_for_the_result

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from lrtool.cli.signals import Stop
    from lrtool.experiment.experiment import Task
    from lrtool.experiment.preflight import FirstBatch
    from lrtool.report.report import Report
    from lrtool.search.run import Row


def find(
    config: flags.ConfigFile,
    sets: flags.Sets = None,
    loss: flags.Loss = None,
    optimizer: flags.OptimizerName = None,
    batch_size: flags.BatchSize = None,
    start: Annotated[float | None, typer.Option(help="First rate of the sweep.")] = None,
    end: Annotated[float | None, typer.Option(help="Last rate of the sweep.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a sweep.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Sweeps, each with its own seed.")] = None,
    verify: flags.Verify = None,
    device: flags.Device = None,
    seed: flags.Seed = None,
    output: flags.Output = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Sweep the learning rate and name one that trains well, with an interval and a verdict."""
    given = {
        "--start": ("find.start", start),
        "--end": ("find.end", end),
        "--steps": ("find.steps", steps),
        "--repeats": ("find.repeats", repeats),
        "--verify": ("find.verify", verify),
        **flags.common(loss, optimizer, batch_size, device, seed),
    }
    with interruptible() as stop, stdout_for_the_result():
        settings, document = flags.read(config, sets, given)
        from lrtool.experiment.experiment import open_task
        from lrtool.experiment.preflight import try_one_batch
        from lrtool.report import run_directory

        if output is not None:
            run_directory.check(output, overwrite=overwrite)
        task = open_task(settings, document)
        first = try_one_batch(task)
        runs = flags.runs_of(document)
        with run_directory.opened(output, runs, "find", overwrite=overwrite) as directory:
            report = search(task, first, directory, stop, quiet=quiet or as_json)
    if as_json:
        from lrtool.report.report import to_json

        typer.echo(to_json(report), nl=False)
    elif quiet:
        _print_rate(report)
    else:
        from lrtool.show.terminal.find import print_summary

        shown = flags.repeatable(config, directory, sets, given)
        print_summary(report, directory=directory, config=shown)
    raise typer.Exit(exit_codes.of_run(report.status, stop))


def search(task: Task, first: FirstBatch, directory: Path, stop: Stop, *, quiet: bool) -> Report:
    """Search for a rate; leave the report and all else in a directory, which is made.

    Args:
        task: the configuration with all that it names.
        first: what became of one batch.
        directory: of the run, or one inside a training's.
        stop: whether a signal came.
        quiet: show no progress.

    Raises:
        UserError, OutOfMemoryError: from a step; a report with status `failed` has been written.
    """
    from lrtool.cli.pump import pump
    from lrtool.search import racing
    from lrtool.search.run import wants_race
    from lrtool.show.terminal.find import Progress

    directory.mkdir(exist_ok=True)
    progress = Progress(
        repeats=task.config.find.repeats,
        steps=task.config.find.steps,
        race_steps=racing.steps_of(task, race=wants_race(task)),
        quiet=quiet,
    )
    with progress:
        return pump(_rows(task, first, directory), stop, progress)


def _rows(task: Task, first: FirstBatch, directory: Path) -> Generator[Row, None, Report]:
    """Yield the rows of a search, and return its report, which it yields last."""
    from lrtool.report.report import Report
    from lrtool.search.run import find as search_rows

    with closing(search_rows(task, first, directory)) as events:
        event = next(events)
        while not isinstance(event, Report):
            try:
                yield event
            except Exception as error:  # noqa: BLE001  (a signal, or the death of a worker)
                event = events.throw(error)
            else:
                event = next(events)
        return event


def _print_rate(report: Report) -> None:
    if report.suggestion is not None and report.suggestion.lr is not None:
        from lrtool.show.words import rate

        typer.echo(rate(report.suggestion.lr))
    else:
        say(f"no suggestion: {report.reason}")
