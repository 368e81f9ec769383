"""A run from its first look at the data to its report: directory, progress, signals.

Whatever a run's generator yields is shown and the next thing is asked for; after a signal the
generator is told to end, and its report follows.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrtool.cli.find_run import find as run_find
from lrtool.cli.find_run import plan_of
from lrtool.config.spelling import number
from lrtool.errors import InterruptedRunError, UserError
from lrtool.experiment.experiment import open_task, training_steps
from lrtool.experiment.failures import is_of_a_dead_worker
from lrtool.experiment.preflight import try_one_batch, try_training
from lrtool.report import report as reports
from lrtool.report import run_directory as rundir
from lrtool.report.records import EpochRow, LearningRate
from lrtool.report.report import FindReport, TrainReport
from lrtool.search.search import candidate_steps
from lrtool.show.plots.compare import save_comparison
from lrtool.show.terminal.compare import comparison
from lrtool.show.terminal.find import Progress
from lrtool.show.terminal.train import TrainProgress
from lrtool.show.trackers import tensorboard
from lrtool.training import resume as resuming
from lrtool.training.evaluate import evaluate as run_evaluate
from lrtool.training.train import not_begun
from lrtool.training.train import train as run_train

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from torch.utils.tensorboard import SummaryWriter

    from lrtool.cli.signals import Stop
    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.experiment.experiment import Task
    from lrtool.experiment.preflight import FirstBatch
    from lrtool.report.report import AnyReport
    from lrtool.training.train import Event


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a run besides its configuration.

    Attributes:
        output: the run directory; None for a new one under runs/.
        overwrite: replace an earlier run there.
        quiet: show no progress.
        say: prints a line on stderr.
    """

    output: Path | None
    overwrite: bool
    quiet: bool
    say: Callable[[str], None]


def find(
    settings: Config, document: Document, stop: Stop, options: Options
) -> tuple[FindReport, Path]:
    """Run the sweeps, and the race; return the report and the run directory.

    Raises:
        UserError, OutOfMemoryError: something does not fit, in words.
    """
    if options.output is not None:
        rundir.check(options.output, overwrite=options.overwrite)
    task = open_task(settings, document)
    first = try_one_batch(task)
    with rundir.opened(
        options.output, _parent(document), "find", overwrite=options.overwrite
    ) as directory:
        return _sweep(task, first, directory, stop, options), directory


def _sweep(
    task: Task, first: FirstBatch, directory: Path, stop: Stop, options: Options
) -> FindReport:
    directory.mkdir(exist_ok=True)
    settings = task.config.find
    progress = Progress(
        repeats=settings.repeats,
        steps=settings.steps,
        race_steps=candidate_steps(plan_of(task)),
        quiet=options.quiet,
    )
    with progress, closing(run_find(task, first, directory)) as events:
        stop.gentle = True
        try:
            event = next(events)
            while True:
                try:
                    progress.update(event)
                except RuntimeError as error:
                    _throw_death(events, error)
                if stop.signal is None:
                    event = next(events)
                else:
                    event = events.throw(InterruptedRunError(stop.words()))
        except StopIteration as end:
            report: FindReport = end.value
            return report


def train(
    settings: Config,
    document: Document,
    stop: Stop,
    options: Options,
    *,
    rate: LearningRate | None,
    resume: str | None,
    with_tensorboard: bool,
) -> tuple[TrainReport, Path]:
    """Train; return the report and the run directory.

    Args:
        settings: the configuration.
        document: where it stands.
        stop: whether a signal came.
        options: of the command line.
        rate: the base rate; None: find it first.
        resume: "auto", a run's path, or None for a new run.
        with_tensorboard: write event files as well.

    Raises:
        UserError, OutOfMemoryError: something does not fit, in words.
    """
    output, parent = options.output, _parent(document)
    earlier = None if resume is None else resuming.run_directory(resume, output, parent)
    in_place = earlier is not None and output in {None, earlier}
    if options.overwrite and in_place:
        raise UserError("--overwrite and --resume contradict each other; give one of them")
    if output is not None and not in_place:
        rundir.check(output, overwrite=options.overwrite)
    task = open_task(settings, document)
    first = try_one_batch(task)
    try_training(task)
    resumed = None
    if earlier is not None and not in_place:
        resumed = resuming.go_on(task, earlier)
    with rundir.opened(
        output or earlier, parent, "train", keep=in_place, overwrite=options.overwrite
    ) as directory:
        if in_place:
            resumed = resuming.go_on(task, directory)
        elif resumed is not None:
            resumed = resuming.copy_run(resumed, directory)
        if resumed is not None:
            rate = LearningRate(**resumed.state["learning_rate"])
        elif earlier is not None:
            options.say(f"{earlier} has no checkpoint yet: the training begins anew")
        found = _found(directory, task, anew=resumed is None)
        if rate is None:
            found = found or _sweep(task, first, directory / rundir.FIND, stop, options)
            rate = _rate_of(found, directory)
            if rate is None:
                return not_begun(task, first, directory, found), directory
        suggestion = found.suggestion if found and rate.origin == "find" else None
        _say_rate(rate, settings, options)
        done = resumed.state["position"]["step"] if resumed else 0
        progress = TrainProgress(
            epochs=settings.train.epochs,
            steps=training_steps(task),
            done_steps=done,
            quiet=options.quiet,
        )
        events = run_train(task, first, rate, directory, suggestion=suggestion, resumed=resumed)
        with _event_files(directory, done, wanted=with_tensorboard) as writer:
            return _pull(events, stop, progress, writer), directory


def _pull(
    events: Generator[Event], stop: Stop, progress: TrainProgress, writer: SummaryWriter | None
) -> TrainReport:
    with progress, closing(events):
        stop.gentle = True
        event = next(events)
        while not isinstance(event, TrainReport):
            try:
                if isinstance(event, list):
                    progress.rows(event)
                elif isinstance(event, EpochRow):
                    progress.epoch(event)
                else:
                    progress.evaluating()
                if writer is not None:
                    _write(writer, event)
            except RuntimeError as error:
                _throw_death(events, error)
            if stop.signal is None:
                event = next(events)
            else:
                event = events.throw(InterruptedRunError(stop.words()))
    return event


def _throw_death(events: Generator[Any, None, Any], error: RuntimeError) -> None:
    """Let a run conclude with the death of a process that loads data: torch raises it anywhere."""
    if not is_of_a_dead_worker(error):
        raise error
    events.throw(error)


def _write(writer: SummaryWriter, event: Event) -> None:
    if isinstance(event, list):
        for row in event:
            tensorboard.write_step(writer, row)
    elif isinstance(event, EpochRow):
        tensorboard.write_epoch(writer, event)


def _event_files(
    directory: Path, done: int, *, wanted: bool
) -> AbstractContextManager[SummaryWriter | None]:
    """Open TensorBoard's event files, if they are wanted."""
    if not wanted:
        return nullcontext()
    return closing(tensorboard.open_writer(directory / rundir.TENSORBOARD, done))


def _found(directory: Path, task: Task, *, anew: bool) -> FindReport | None:
    """Return the report of the find inside a run, if it has one for this task.

    A training that goes on has its rate already, and only shows where it came from.
    """
    path = directory / rundir.FIND / reports.FILE_NAME
    if not path.exists():
        return None
    report = reports.read(path)
    if not isinstance(report, FindReport) or report.status != "completed":
        return None
    same = report.config_hash == task.config.digest()
    same = same and report.data is not None and report.data.hash == task.data.digest
    return report if same or not anew else None


def _rate_of(found: FindReport, directory: Path) -> LearningRate | None:
    """Return the rate to train with, unless the find has none or was interrupted."""
    said = found.suggestion
    if found.status != "completed" or said is None or said.lr is None:
        return None
    return LearningRate(value=said.lr, origin="find", run=str(directory / rundir.FIND))


def _say_rate(rate: LearningRate, settings: Config, options: Options) -> None:
    if rate.origin == "optimizer":
        given = "lr" in settings.optimizer.args
        source = "from optimizer.args.lr" if given else f"{settings.optimizer.name}'s own default"
        options.say(f"learning rate {number(rate.value)}, {source}; --lr auto finds one")


def evaluate(
    settings: Config, document: Document, run: Path, checkpoint: str | None
) -> dict[str, Any]:
    """Evaluate a run's weights on the validation part; return the facts.

    Args:
        settings: the run's own configuration, with other data perhaps.
        document: where it stands.
        run: its directory.
        checkpoint: "best" or "last"; None: the best one, if there is one.

    Raises:
        UserError, OutOfMemoryError: something does not fit, in words.
    """
    if resuming.is_find(run):
        raise UserError(f"{run}: is the run of a find, which has no weights")
    task = open_task(settings, document)
    if checkpoint is None:
        best = run / rundir.CHECKPOINTS / "best" / rundir.MODEL
        checkpoint = "best" if best.is_file() else "last"
    evaluation = run_evaluate(task, run, checkpoint)
    while True:
        try:
            next(evaluation)
        except StopIteration as end:
            facts: dict[str, Any] = end.value
            return facts


def compare(
    runs: Sequence[Path], output: Path | None, *, overwrite: bool
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Draw runs into one plot; return a row for each, and the paths of the plot.

    Raises:
        UserError: one has no report, or `output` holds a plot already.
    """
    named: dict[str, AnyReport] = {}
    for run in runs:
        path = run / reports.FILE_NAME if run.is_dir() else run
        if not path.is_file():
            raise UserError(f"{run}: holds no {reports.FILE_NAME}; give a run directory")
        named[str(run)] = reports.read(path)
    if output is not None:
        rundir.check(output, overwrite=overwrite)
    parent = Path("runs") / "compare"
    with rundir.opened(output, parent, "compare", overwrite=overwrite) as directory:
        return comparison(named), save_comparison(named, directory)


def _parent(document: Document) -> Path:
    """Return where the runs of a configuration are, when nobody says where."""
    return Path("runs") / Path(document.name).stem
