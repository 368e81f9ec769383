"""`lrtool train`: train with a rate that is given, found first, or the optimizer's own."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrtool.cli import exit_codes, flags
from lrtool.cli.find import run_find
from lrtool.cli.signals import interruptible
from lrtool.cli.streams import say, stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.cli.pump import Watcher
    from lrtool.cli.signals import Stop
    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Experiment
    from lrtool.experiment.preflight import Preflight
    from lrtool.report.records import BestEpoch, LearningRate
    from lrtool.report.report import FindReport, Status, TrainReport
    from lrtool.training.epochs import Event
    from lrtool.training.resume import Checkpoint
    from lrtool.training.session import Session


def train(
    config: flags.ConfigFile,
    sets: flags.Sets = None,
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
    loss: flags.Loss = None,
    optimizer: flags.OptimizerName = None,
    batch_size: flags.BatchSize = None,
    epochs: Annotated[int | None, typer.Option(help="How often to see the data.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files; needs the extra tensorboard.")
    ] = False,
    device: flags.Device = None,
    seed: flags.Seed = None,
    output: flags.Output = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Train with a rate that is given, found first, or the optimizer's own; resume exactly."""
    from lrtool.config.document import plain_scalar

    if lr is not None and plain_scalar(lr) is None:
        raise typer.BadParameter("--lr must be a positive number, or auto")
    if lr is not None and lr_from is not None:
        raise typer.BadParameter("--lr and --lr-from contradict each other; give one of them")
    with interruptible() as stop, stdout_for_the_result(), without_dynamo():
        from lrtool.experiment.experiment import open_experiment
        from lrtool.experiment.preflight import run_preflight, run_training_preflight
        from lrtool.training import initial_rate

        source = initial_rate.of_run(lr_from) if lr_from else None
        given = {
            "--lr": ("learning_rate", lr and plain_scalar(lr)),
            "--lr-from": ("learning_rate", source and source[0]),
            "--epochs": ("train.epochs", epochs),
            **flags.common(loss, optimizer, batch_size, device, seed),
        }
        settings, document = flags.read(config, sets, given)
        if lr_from and source:
            initial_rate.warn_of_differences(lr_from, source[1], settings)
        rate = initial_rate.given(settings, document, by_flag=lr is not None, run=lr_from)
        earlier = _run_to_resume(document, resume, output, overwrite=overwrite)
        experiment = open_experiment(settings, document)
        preflight = run_preflight(experiment)
        run_training_preflight(experiment)
        with _opened(experiment, earlier, output, overwrite=overwrite) as (directory, checkpoint):
            if earlier is not None and checkpoint is None:
                say(f"{earlier} has no checkpoint yet: the training begins anew")
            report = _train(
                experiment,
                preflight,
                directory,
                checkpoint,
                rate,
                stop,
                tensorboard=tensorboard,
                quiet=quiet or as_json,
            )
    if as_json:
        from lrtool.report.report import to_json

        typer.echo(to_json(report), nl=False)
    elif quiet:
        typer.echo(directory)
    else:
        from lrtool.show.terminal.train import print_training

        shown = flags.repeatable(config, directory, sets, given)
        print_training(report, directory=directory, config=shown)
    if report.status != "completed" and (as_json or quiet):
        say(f"{report.status.replace('_', ' ')}: {report.reason}")
    raise typer.Exit(exit_codes.of_run(report.status, stop))


def _run_to_resume(
    document: Document, resume: str | None, output: Path | None, *, overwrite: bool
) -> Path | None:
    """Return the run to go on with; None to begin one. Refuse an `output` that cannot be its.

    Raises:
        UserError: there is no such run, or the flags contradict each other.
    """
    from lrtool.report import run_directory
    from lrtool.training import resume as resuming

    earlier = None
    if resume is not None:
        earlier = resuming.run_directory(resume, output, flags.runs_of(document))
    if earlier is None or output not in {None, earlier}:
        if output is not None:
            run_directory.check(output, overwrite=overwrite)
    elif overwrite:
        raise UserError("--overwrite and --resume contradict each other; give one of them")
    return earlier


@contextmanager
def _opened(
    experiment: Experiment, earlier: Path | None, output: Path | None, *, overwrite: bool
) -> Iterator[tuple[Path, Checkpoint | None]]:
    """Yield the run directory, and the checkpoint from which the training in it goes on."""
    from lrtool.report import run_directory
    from lrtool.training import resume as resuming

    runs = flags.runs_of(experiment.document)
    if earlier is None:
        with run_directory.opened(output, runs, "train", overwrite=overwrite) as directory:
            yield directory, None
    elif output in {None, earlier}:
        with run_directory.opened(earlier, runs, "train", keep=True) as directory:
            yield directory, resuming.go_on(experiment, directory)
    else:
        checkpoint = resuming.go_on(
            experiment, earlier
        )  # what does not fit must not empty `output`
        with run_directory.opened(output, runs, "train", overwrite=overwrite) as directory:
            yield directory, checkpoint and resuming.copy_run(checkpoint, directory)


def _train(
    experiment: Experiment,
    preflight: Preflight,
    directory: Path,
    checkpoint: Checkpoint | None,
    rate: LearningRate | None,
    stop: Stop,
    *,
    tensorboard: bool,
    quiet: bool,
) -> TrainReport:
    """Find a rate if need be, and train; leave the report and the plots, however that ends.

    Raises:
        UserError, OutOfMemoryError, OSError: a report with status `failed` has been written, and
            the newest checkpoint is whole.
    """
    from lrtool.cli.pump import pump
    from lrtool.config.document import dump
    from lrtool.experiment.experiment import resolved
    from lrtool.experiment.failures import concluded
    from lrtool.report import files
    from lrtool.report.run_directory import CONFIG
    from lrtool.training import epochs
    from lrtool.training.session import begin, writing

    files.write_text(directory / CONFIG, dump(resolved(experiment)))
    rate, found = _choose_rate(
        experiment, preflight, directory, checkpoint, rate, stop, quiet=quiet
    )
    leave = partial(_leave, experiment, preflight, directory, rate, found)
    if rate is None:
        assert found is not None, "without a rate there was a search for one"
        return leave(None, found.status, found.reason)
    _say_where_from(rate, experiment.config)
    with _watchers(
        experiment, directory, checkpoint, tensorboard=tensorboard, quiet=quiet
    ) as watchers:
        stop.gentle = True  # from here on a signal leaves a report
        try:
            session = begin(experiment, rate, directory, checkpoint)
        except (Exception, SystemExit) as error:
            raise concluded(experiment, error, partial(leave, None, "failed")) from error
        try:
            ending = pump(epochs.train(session), stop, *watchers)
        except BaseException:  # a bug while progress was shown
            leave(session, "interrupted", "closed before the last step")
            raise
        if ending.error is not None:
            failed = partial(leave, session, "failed")
            raise concluded(experiment, ending.error, failed) from ending.error
        with writing(session):
            return leave(session, ending.status, ending.reason)


def _choose_rate(
    experiment: Experiment,
    preflight: Preflight,
    directory: Path,
    checkpoint: Checkpoint | None,
    rate: LearningRate | None,
    stop: Stop,
    *,
    quiet: bool,
) -> tuple[LearningRate | None, FindReport | None]:
    """Return the rate to train with, and the report of the search that found it, if one did.

    A training that goes on has its rate already. Without one, it is searched for, unless an earlier
    start of this run has done so. None where the search found no rate, or was interrupted.
    """
    from lrtool.report.records import LearningRate
    from lrtool.report.run_directory import FIND
    from lrtool.training import initial_rate

    if checkpoint is not None:
        rate = LearningRate(**checkpoint.state["learning_rate"])
    found = initial_rate.search_inside(directory)
    if rate is not None:
        return rate, found if rate.origin == "find" else None
    if found is None or not initial_rate.is_for(found, experiment):
        found = run_find(experiment, preflight, directory / FIND, stop, quiet=quiet)
    return initial_rate.of_search(found, directory / FIND), found


def _say_where_from(rate: LearningRate, settings: Config) -> None:
    from lrtool.config.spelling import number

    if rate.origin == "optimizer":
        given = "lr" in settings.optimizer.args
        source = "from optimizer.args.lr" if given else f"{settings.optimizer.name}'s own default"
        say(f"learning rate {number(rate.value)}, {source}; --lr auto finds one")


@contextmanager
def _watchers(
    experiment: Experiment,
    directory: Path,
    checkpoint: Checkpoint | None,
    *,
    tensorboard: bool,
    quiet: bool,
) -> Iterator[list[Watcher[Event]]]:
    """Open what a training's rows are shown to: the progress, and event files if wanted."""
    from lrtool.experiment.experiment import training_steps
    from lrtool.report.run_directory import TENSORBOARD
    from lrtool.show.terminal.train import TrainProgress
    from lrtool.show.trackers.tensorboard import EventFiles

    done = checkpoint.state["position"]["step"] if checkpoint else 0
    progress = TrainProgress(
        epochs=experiment.config.train.epochs,
        steps=training_steps(experiment),
        done_steps=done,
        quiet=quiet,
    )
    with ExitStack() as stack:
        watchers: list[Watcher[Event]] = []
        if tensorboard:
            watchers.append(stack.enter_context(closing(EventFiles(directory / TENSORBOARD, done))))
        yield [stack.enter_context(progress), *watchers]


def _leave(
    experiment: Experiment,
    preflight: Preflight,
    directory: Path,
    rate: LearningRate | None,
    found: FindReport | None,
    session: Session | None,
    status: Status,
    reason: str | None,
) -> TrainReport:
    """Write the report of a training, with all that its metrics.jsonl holds, and draw it."""
    from lrtool.engine.checkpoint import LAST
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.experiment.experiment import facts
    from lrtool.report import metrics_log
    from lrtool.report import report as reports
    from lrtool.report.records import EpochRow, StepRow, Timing
    from lrtool.report.run_directory import CHECKPOINTS, METRICS
    from lrtool.show.plots import train as plot

    watch = Stopwatch(experiment.started) if session is None else session.watch
    saved = session is not None and session.saved is not None
    report = reports.TrainReport(
        status=status,
        reason=reason,
        suggestion=None if found is None else found.suggestion,
        learning_rate=rate,
        epochs=tuple(metrics_log.read(directory / METRICS, EpochRow)),
        best=None if session is None else _best(session),
        checkpoint=f"{CHECKPOINTS}/{LAST}" if saved else None,
        steps=reports.thin(metrics_log.read(directory / METRICS, StepRow)),
        timing=found.timing if found and rate is None else Timing(**watch.timing()),
        **facts(experiment, preflight),
    )
    reports.write(report, directory)
    plot.save(report, directory)
    return report


def _best(session: Session) -> BestEpoch | None:
    from lrtool.report.records import BestEpoch

    best = session.state.best
    if best.value is None:
        return None
    return BestEpoch(epoch=best.epoch, step=best.step, metric=best.metric, value=best.value)
