"""`lrtool train`: train with a rate that is given, found first, or the optimizer's default."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrtool.cli import completion, exit_codes, flags
from lrtool.cli.find import run_find
from lrtool.cli.launch import joined
from lrtool.cli.pages import open_page
from lrtool.cli.signals import interruptible
from lrtool.cli.streams import result, say, say_of_checkpoint, stdout_for_the_result
from lrtool.engine.dynamo import without_dynamo
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lrtool.cli.pump import Watcher
    from lrtool.cli.signals import Stop
    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Experiment
    from lrtool.experiment.preflight import Preflight
    from lrtool.report.records import LearningRate
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
        typer.Option(
            "--lr-from",
            metavar="RUN",
            help="The rate of an earlier find or training.",
            autocompletion=completion.run_names,
            callback=flags.in_home,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="auto|RUN",
            help="Go on with a run; auto: the newest one, or that of --output or --name, if there "
            "is one.",
            autocompletion=completion.resume_names,
            callback=flags.in_home,
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
    name: flags.Name = None,
    overwrite: flags.Overwrite = False,
    as_json: flags.Json = False,
    quiet: flags.Quiet = False,
    open_: flags.Open = False,
) -> None:
    """Train with a rate that is given, found first, or the optimizer's own; resume exactly."""
    from lrtool.config.document import plain_scalar

    if lr is not None and plain_scalar(lr) is None:
        raise typer.BadParameter("--lr must be a positive number, or auto")
    if lr is not None and lr_from is not None:
        raise typer.BadParameter("--lr and --lr-from contradict each other; give one of them")
    flags.refuse_both(output, name)
    with (
        interruptible() as stop,
        stdout_for_the_result(),
        without_dynamo(),
        joined(stop) as ranks,
    ):
        from lrtool.experiment.experiment import open_experiment
        from lrtool.experiment.preflight import run_preflight, run_training_preflight
        from lrtool.experiment.reading import inputs_of
        from lrtool.experiment.threads import with_threads
        from lrtool.report.runs import resolve
        from lrtool.show.trackers.tensorboard import require_tensorboard
        from lrtool.training import initial_rate
        from lrtool.training.resume import with_threads_of

        # The configuration, with the flags.
        run_rate, run_report = None, None
        if lr_from:
            lr_from = ranks.by_first(partial(resolve, lr_from, "--lr-from "))
            run_rate, run_report = ranks.by_first(partial(initial_rate.of_run, lr_from))
        given = {
            "--lr": ("learning_rate", lr and plain_scalar(lr)),
            "--lr-from": ("learning_rate", run_rate),
            "--epochs": ("train.epochs", epochs),
            **flags.common(loss, optimizer, batch_size, device, seed),
        }
        settings, document = flags.read(config, sets, given)
        rate = initial_rate.given_rate(settings, document, by_flag=lr is not None, run=lr_from)
        inputs = inputs_of(settings, document)
        output = flags.directory_of(output, name, document)
        if lr_from:
            inputs.append(lr_from if lr_from.is_dir() else lr_from.parent)
        to_resume = partial(
            _run_to_resume, document, resume, output, overwrite=overwrite, inputs=inputs
        )
        earlier, output = ranks.by_first(to_resume)

        for other in filter(None, (earlier, lr_from)):  # so that the numbers are as theirs
            settings = ranks.by_first(partial(with_threads_of, other, settings, ranks.world_size))

        # Everything that can fail early fails before the run directory is touched.
        ranks.by_first(partial(require_tensorboard, wanted=tensorboard))
        moved = ranks.by_first(partial(_has_moved, settings, document, earlier))
        experiment = open_experiment(settings, document, ranks=ranks, with_checkpoint=not moved)
        if lr_from and run_rate and run_report:
            initial_rate.warn_of_differences(lr_from, run_rate, run_report, experiment)
        experiment, preflight = run_preflight(experiment)
        run_training_preflight(experiment, preflight)
        experiment = with_threads(experiment)

        with _opened(experiment, earlier, output, overwrite=overwrite, inputs=inputs) as (
            run,
            checkpoint,
        ):
            _say_what_is_resumed(resume, earlier, checkpoint)
            if ranks.first and checkpoint is None:
                say_of_checkpoint(preflight.checkpoint)
            report = _train(
                experiment,
                preflight,
                run,
                checkpoint,
                rate,
                stop,
                tensorboard=tensorboard,
                quiet=quiet or as_json,
            )
            directory = ranks.by_first(partial(flags.finished, run, report.status))
        if open_ and ranks.first:
            open_page(directory)
    if ranks.first:
        shown = flags.repeatable(config, directory, sets, given)
        _print(report, directory, shown, as_json=as_json, quiet=quiet)
    raise typer.Exit(exit_codes.of_run(report.status, stop))


def _print(
    report: TrainReport, directory: Path, config: Path, *, as_json: bool, quiet: bool
) -> None:
    """Print the result: of the training, or of the search that left it without a rate."""
    from lrtool.report import report as reports
    from lrtool.report.run_directory import FIND
    from lrtool.show.terminal.find import print_summary
    from lrtool.show.terminal.train import print_training

    if as_json or quiet:
        if as_json:
            typer.echo(reports.to_json(report), nl=False)
        else:
            result(directory)
        if report.status != "completed":
            say(f"{report.status.replace('_', ' ')}: {report.reason}")
    elif report.learning_rate is None:
        search = reports.read(directory / FIND / reports.FILE_NAME)
        assert isinstance(search, reports.FindReport), "without a rate there was a search for one"
        print_summary(search, directory=directory, config=config)
    else:
        print_training(report, directory=directory, config=config)


def _run_to_resume(
    document: Document,
    resume: Path | None,
    output: Path | None,
    *,
    overwrite: bool,
    inputs: list[Path],
) -> tuple[Path | None, Path | None]:
    """Return the run to resume, or None; and the directory of another one, or None.

    Raises:
        UserError: there is no such run, the flags contradict each other, or `output` is refused.
    """
    from lrtool.report import run_directory
    from lrtool.training.resume import run_to_resume

    earlier = None
    if resume is not None:
        earlier = run_to_resume(resume, output, flags.runs_of(document))
    if earlier is not None:
        inputs.append(earlier)
        if output is None or (output.exists() and output.samefile(earlier)):
            if overwrite:
                raise UserError("--overwrite and --resume contradict each other; give one of them")
            return earlier, None
    if output is not None:
        run_directory.check(output, "train", overwrite=overwrite, inputs=inputs)
    return earlier, output


@contextmanager
def _opened(
    experiment: Experiment,
    earlier: Path | None,
    output: Path | None,
    *,
    overwrite: bool,
    inputs: list[Path],
) -> Iterator[tuple[Path, Checkpoint | None]]:
    """Open the run directory; yield it, and the checkpoint to resume from."""
    from lrtool.report import marker, run_directory
    from lrtool.training.resume import checkpoint_to_resume, copy_run

    runs, ranks = flags.runs_of(experiment.document), experiment.runtime.ranks
    if earlier is not None and output is None:
        with ranks.entered_by_first(
            run_directory.opened(earlier, runs, "train", resume=True)
        ) as directory:
            checkpoint = checkpoint_to_resume(experiment, directory)
            if ranks.first:
                if checkpoint is None:
                    run_directory.forget_weights(directory)
                marker.begin(directory, "train")
            yield directory, checkpoint
        return
    found = None
    if earlier is not None:
        found = checkpoint_to_resume(experiment, run_directory.unfinished(earlier))
    with ranks.entered_by_first(
        run_directory.opened(output, runs, "train", overwrite=overwrite, inputs=inputs)
    ) as directory:
        if found is not None:
            folder = ranks.by_first(partial(copy_run, found.folder, directory))
            found = replace(found, folder=folder)
        yield directory, found


def _has_moved(settings: Config, document: Document, earlier: Path | None) -> bool:
    """Tell whether the pretrained weights of a run that has its own by now are not there."""
    from lrtool.errors import ConfigError
    from lrtool.experiment.pretrained import find_pretrained
    from lrtool.experiment.reading import directories_of
    from lrtool.report import marker, run_directory

    path = settings.model.checkpoint
    if path is None or earlier is None:
        return False
    if not marker.has_checkpoint(run_directory.unfinished(earlier)):
        return False
    try:
        find_pretrained(path, directories_of(settings, document))
    except ConfigError:
        say(f"{path} is not there any more; {earlier} goes on with its own weights")
        return True
    return False


def _say_what_is_resumed(
    resume: Path | None, earlier: Path | None, checkpoint: Checkpoint | None
) -> None:
    if checkpoint is not None:
        from lrtool.config.spelling import count

        done = checkpoint.state["position"]
        epochs = f" and {count(done['epoch'], 'epoch')}" if done["epoch"] else ""
        say(f"goes on with {earlier}, after {count(done['step'], 'step')}{epochs}")
    elif earlier is not None:
        say(f"{earlier} has no checkpoint yet: the training begins anew")
    elif resume is not None:
        say("--resume auto: there is no run to go on with: the training begins anew")


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
    """Find a rate if there is none, and train; write the report and the plots, however it ends.

    Raises:
        UserError, OutOfMemoryError, OSError: a report with status `failed` has been written, and
            the newest checkpoint is whole.
    """
    from lrtool.cli.pump import pump
    from lrtool.experiment.failures import conclude
    from lrtool.report.records import LearningRate
    from lrtool.training import epochs
    from lrtool.training.resume import pretrained_of
    from lrtool.training.session import begin, writing

    ranks = experiment.runtime.ranks
    if ranks.first:
        _begin_directory(experiment, directory, checkpoint)
    if checkpoint is not None:
        rate = LearningRate(**checkpoint.state["learning_rate"])
        preflight = replace(preflight, checkpoint=pretrained_of(checkpoint))
    rate, search = _rate_and_search(experiment, preflight, directory, rate, stop, quiet=quiet)
    write = partial(_write_report, experiment, preflight, directory, rate, search)
    if rate is None:
        assert search is not None, "without a rate there was a search for one"
        return ranks.by_first(partial(write, None, search.status, search.reason))
    _say_whose_rate(rate, experiment.config)

    with _watchers(
        experiment, directory, checkpoint, tensorboard=tensorboard, quiet=quiet
    ) as watchers:
        stop.gentle = True  # from here on an interrupted training writes a report
        done = checkpoint.state["position"]["step"] if checkpoint else None
        resumed = checkpoint and {key: dict(checkpoint.state[key]) for key in ("best", "position")}
        try:
            session = begin(experiment, rate, directory, checkpoint)
        except (Exception, SystemExit) as error:
            write_failed = partial(write, None, "failed", resumed=resumed)
            raise conclude(experiment, error, write_failed) from error
        try:
            ending = pump(epochs.train(session), stop, *watchers, ranks=ranks)
        except BaseException:  # a bug while progress was shown
            if ranks.first:
                write(session, "interrupted", "closed before the last step")
            raise
        if ending.error is not None:
            write_failed = partial(write, session, "failed")
            failed = None
            if checkpoint is not None and session.position.step == done:
                failed = f"{checkpoint.folder}: may be damaged: the first update after it failed"
            raise conclude(experiment, ending.error, write_failed, failed) from ending.error
        with writing(session):
            return ranks.by_first(partial(write, session, ending.status, ending.reason))


def _begin_directory(
    experiment: Experiment, directory: Path, checkpoint: Checkpoint | None
) -> None:
    """Write what a run has from its start on."""
    from lrtool.config.document import dump
    from lrtool.data import encoding
    from lrtool.experiment.experiment import resolved_config
    from lrtool.report import files
    from lrtool.report.run_directory import CONFIG, ENCODING

    files.write_text(directory / CONFIG, dump(resolved_config(experiment)))
    if checkpoint is None or not (directory / ENCODING).exists():
        encoding.write(experiment.data.encoding, directory)


def _rate_and_search(
    experiment: Experiment,
    preflight: Preflight,
    directory: Path,
    rate: LearningRate | None,
    stop: Stop,
    *,
    quiet: bool,
) -> tuple[LearningRate | None, FindReport | None]:
    """Return the rate to train with, and the report of its search; None where there is none.

    Without a rate, search for one, unless an earlier start of this run has already done so.
    """
    from lrtool.experiment.failures import conclude
    from lrtool.report.run_directory import FIND, place
    from lrtool.training import initial_rate

    ranks = experiment.runtime.ranks
    search = ranks.by_first(partial(initial_rate.search_inside, directory))
    if rate is not None:
        return rate, search if rate.origin == "find" else None
    if search is None or not initial_rate.is_for(search, experiment):
        try:
            search = run_find(experiment, preflight, directory / FIND, stop, quiet=quiet)
        except (Exception, SystemExit) as error:
            # it has a report of its own, and the run that it is in has one too
            write = partial(_write_report, experiment, preflight, directory, None, None, None)
            raise conclude(experiment, error, partial(write, "failed")) from error
    return initial_rate.of_search(search, place(directory) / FIND), search


def _say_whose_rate(rate: LearningRate, settings: Config) -> None:
    from lrtool.config.spelling import number

    if rate.origin == "optimizer":
        rated = settings.optimizer.inner or settings.optimizer
        key = "optimizer.inner.args.lr" if settings.optimizer.inner else "optimizer.args.lr"
        source = f"from {key}" if "lr" in rated.args else f"{rated.name}'s own default"
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
    """Open the progress, and TensorBoard's event files if they are asked for."""
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
        if tensorboard and experiment.runtime.ranks.first:
            watchers.append(stack.enter_context(closing(EventFiles(directory / TENSORBOARD, done))))
        yield [stack.enter_context(progress), *watchers]


def _write_report(
    experiment: Experiment,
    preflight: Preflight,
    directory: Path,
    rate: LearningRate | None,
    search: FindReport | None,
    session: Session | None,
    status: Status,
    reason: str | None,
    *,
    resumed: Mapping[str, Any] | None = None,
) -> TrainReport:
    """Write the report of a training, with the rows of its metrics.jsonl; draw plots and page.

    Without a session, `resumed` has the best epoch and the position of a checkpoint, if there was
    one, as plain data.
    """
    from lrtool.cli.pages import save_page
    from lrtool.engine.checkpoint import LAST
    from lrtool.engine.stopwatch import Stopwatch
    from lrtool.experiment.preflight import facts
    from lrtool.report import metrics_log
    from lrtool.report import report as reports
    from lrtool.report.records import BestEpoch, EpochRow, Reached, StepRow, Timing
    from lrtool.report.run_directory import CHECKPOINTS, METRICS
    from lrtool.show.plots import find as find_plot
    from lrtool.show.plots import train as plot
    from lrtool.training.stored_weights import best_predictions

    watch = Stopwatch(experiment.started) if session is None else session.watch
    saved = resumed is not None
    if session is not None:
        saved = session.saved is not None
        resumed = {"best": asdict(session.state.best), "position": asdict(session.position)}
    best = reached = None
    if resumed is not None:
        tracker, position = resumed["best"], resumed["position"]
        reached = Reached(position["epoch"] + bool(position["batches"]), position["step"])
        if tracker["value"] is not None:
            best = BestEpoch(*(tracker[name] for name in ("epoch", "step", "metric", "value")))
    report = reports.TrainReport(
        status=status,
        reason=reason,
        suggestion=None if search is None else search.suggestion,
        learning_rate=rate,
        epochs=tuple(metrics_log.read(directory / METRICS, EpochRow)),
        best=best,
        reached=reached,
        predictions=best_predictions(directory, best),
        checkpoint=f"{CHECKPOINTS}/{LAST}" if saved else None,
        steps=reports.thin(metrics_log.read(directory / METRICS, StepRow)),
        timing=search.timing if search and rate is None else Timing(**watch.timing()),
        **facts(experiment, preflight),
    )
    reports.write(report, directory)
    if search is not None and rate is None:
        find_plot.save(search, directory)  # all that there is
    else:
        plot.save(report, directory)
    save_page(report, directory)
    return report
