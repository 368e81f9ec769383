"""`lrtool find`: search for a learning rate, and write its report."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lrtool.cli import exit_codes, flags
from lrtool.cli.launch import joined
from lrtool.cli.pages import open_page, save_page
from lrtool.cli.signals import interruptible
from lrtool.cli.streams import say, say_of_checkpoint, stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from lrtool.cli.signals import Stop
    from lrtool.experiment.experiment import Experiment
    from lrtool.experiment.preflight import Preflight
    from lrtool.report.records import Finding
    from lrtool.report.report import FindReport, Status
    from lrtool.search.search import Row, SearchPlan, SearchResult


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
    name: flags.Name = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    open_: flags.Open = False,
) -> None:
    """Sweep the learning rate and name one that trains well, with an interval and a verdict."""
    flags.refuse_both(output, name)
    given = {
        "--start": ("find.start", start),
        "--end": ("find.end", end),
        "--steps": ("find.steps", steps),
        "--repeats": ("find.repeats", repeats),
        "--verify": ("find.verify", verify),
        **flags.common(loss, optimizer, batch_size, device, seed),
    }
    with (
        interruptible() as stop,
        stdout_for_the_result(),
        without_dynamo(),
        joined(stop) as ranks,
    ):
        from lrtool.experiment.experiment import open_experiment
        from lrtool.experiment.preflight import run_preflight
        from lrtool.experiment.reading import inputs_of
        from lrtool.experiment.threads import with_threads
        from lrtool.report import run_directory

        settings, document = flags.read(config, sets, given)
        inputs = inputs_of(settings, document)
        output = flags.directory_of(output, name, document)
        if output is not None and ranks.first:
            run_directory.check(output, "find", overwrite=overwrite, inputs=inputs)
        experiment = open_experiment(settings, document, ranks=ranks)
        experiment, preflight = run_preflight(experiment)
        if ranks.first:
            say_of_checkpoint(preflight.checkpoint)
        experiment = with_threads(experiment)
        runs = flags.runs_of(document)
        with ranks.entered_by_first(
            run_directory.opened(output, runs, "find", overwrite=overwrite, inputs=inputs)
        ) as run:
            report = run_find(experiment, preflight, run, stop, quiet=quiet or as_json)
            directory = ranks.by_first(partial(flags.finished, run, report.status))
        if open_ and ranks.first:
            open_page(directory)
    if not ranks.first:
        raise typer.Exit(exit_codes.of_run(report.status, stop))
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


def run_find(
    experiment: Experiment, preflight: Preflight, directory: Path, stop: Stop, *, quiet: bool
) -> FindReport:
    """Search for a rate; write the report, the plots and the log.

    Args:
        experiment: the configuration and all that it names.
        preflight: the result of one batch.
        directory: of the run, or one inside a training's; created if it does not exist.
        stop: tells of signals.
        quiet: show no progress.

    Raises:
        UserError, OutOfMemoryError: from a step; a report with status `failed` has been written.
    """
    from lrtool.cli.pump import pump
    from lrtool.curve import race, trials
    from lrtool.search import parallel
    from lrtool.search.experiment_subject import plan_of
    from lrtool.show.terminal.find import Progress

    plan = plan_of(experiment)
    if experiment.runtime.ranks.several and not quiet:
        say(parallel.words(plan.parallel))
    progress = Progress(
        repeats=plan.repeats,
        steps=plan.steps,
        trial_steps=trials.length(plan.training),
        race_steps=race.length(plan.training),
        training=plan.training,
        quiet=quiet,
    )
    with progress:
        rows = _logged_search(experiment, preflight, plan, directory)
        return pump(rows, stop, progress, ranks=experiment.runtime.ranks)


def _logged_search(
    experiment: Experiment, preflight: Preflight, plan: SearchPlan, directory: Path
) -> Generator[Row, None, FindReport]:
    """Yield each row once it is in the log; write the report and the plots, and return the report.

    They are written too if an exception is thrown in, or if this is closed early.
    """
    from lrtool.config.document import dump
    from lrtool.data import encoding
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.errors import InterruptedRunError
    from lrtool.experiment.experiment import resolved_config
    from lrtool.experiment.failures import conclude
    from lrtool.report import files, metrics_log
    from lrtool.report.run_directory import CONFIG, METRICS
    from lrtool.search.experiment_subject import ExperimentSubject
    from lrtool.search.search import search

    ranks = experiment.runtime.ranks
    if ranks.first:
        directory.mkdir(exist_ok=True)
        files.write_text(directory / CONFIG, dump(resolved_config(experiment)))
        encoding.write(experiment.data.encoding, directory)
    rows = search(ExperimentSubject(experiment), plan, Stopwatch(experiment.started))
    error: Exception | None = None
    with metrics_log.reopen(directory / METRICS if ranks.first else None, 0) as log:
        while True:
            try:
                row = next(rows) if error is None else rows.throw(error)
            except StopIteration as end:
                result: SearchResult = end.value
                break
            error = None
            try:
                metrics_log.append(log, [row])
                yield row
            except GeneratorExit:
                error = InterruptedRunError("closed before the last step")
            except Exception as thrown:  # noqa: BLE001  (the search returns it as its failure)
                error = thrown
    write = partial(_write_report, experiment, preflight, result, directory)
    if result.failure is not None:
        raise conclude(experiment, result.failure, write) from result.failure
    return ranks.by_first(write)


def _write_report(
    experiment: Experiment,
    preflight: Preflight,
    result: SearchResult,
    directory: Path,
    failure: str | None = None,
) -> FindReport:
    """Write the report of a search, the plots and the page."""
    from lrtool.experiment.preflight import facts
    from lrtool.report import report as reports
    from lrtool.report.records import Timing
    from lrtool.show.plots import find as plot

    finding, reason = result.finding, failure
    suggestion = finding.suggestion if finding else None
    status: Status = "completed" if suggestion and suggestion.lr else "no_suggestion"
    if failure is not None:
        status = "failed"
    elif result.interrupted is not None:
        status, reason = "interrupted", result.interrupted
        if finding is not None and result.race is not None and result.race.interrupted:
            reason = f"{reason} during the race. {_interim_result(finding)}"
    report = reports.FindReport(
        status=status,
        reason=reason or (suggestion.reason if suggestion else None),
        suggestion=suggestion,
        suggestions=finding.suggestions if finding else {},
        sweeps=result.sweeps,
        curve=finding.curve if finding else None,
        first_update=result.first_update,
        trials=result.trials,
        full_trial=result.full_trial,
        race=result.race,
        timing=Timing(**result.timing),
        **facts(experiment, preflight),
    )
    reports.write(report, directory)
    plot.save(report, directory)
    save_page(report, directory)
    if status == "failed" and suggestion and suggestion.lr:
        _warn_of_failure(result, suggestion.lr)
    return report


def _interim_result(finding: Finding) -> str:
    """Say what an interrupted race has shown."""
    if finding.suggestions["race"].lr is None:
        before = "" if finding.suggestion.lr is None else ": the rate is that before the race"
        return f"Nothing was compared yet{before}."
    return finding.suggestion.reason


def _warn_of_failure(result: SearchResult, lr: float) -> None:
    from lrtool.config.spelling import number
    from lrtool.errors import LrtoolWarning

    stages = {"race": "race (--no-verify leaves it out)", "full trial": "whole training"}
    where = stages.get(result.stage, "short training runs")
    warnings.warn(
        f"the search failed in its {where}; the rate found so far, {number(lr, 2)}, is reported",
        LrtoolWarning,
        stacklevel=2,
    )


def _print_rate(report: FindReport) -> None:
    if report.suggestion is not None and report.suggestion.lr is not None:
        from lrtool.show.words import rate

        typer.echo(rate(report.suggestion.lr))
    else:
        say(f"no suggestion: {report.reason}")
