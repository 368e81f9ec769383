"""What `lrtool train` does with a configuration and a rate, from top to bottom."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, suppress
from functools import partial
from math import isfinite
from typing import IO, TYPE_CHECKING

from lrtool.config import document as documents
from lrtool.config.spelling import count
from lrtool.data import batches
from lrtool.engine.checkpoint import LAST
from lrtool.engine.loop import failed
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import DivergedError, InterruptedRunError, LrtoolWarning, UserError
from lrtool.experiment.experiment import facts, resolved
from lrtool.experiment.failures import concluded
from lrtool.report import files
from lrtool.report import metrics_log as history
from lrtool.report import report as reports
from lrtool.report.records import BestEpoch, EpochRow, StepRow, Timing
from lrtool.report.report import TrainReport, thin
from lrtool.report.run_directory import CHECKPOINTS, CONFIG, METRICS, MODEL
from lrtool.show.plots import train as training_plot
from lrtool.training import divergence
from lrtool.training import session as training

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from lrtool.experiment.experiment import Task
    from lrtool.experiment.preflight import FirstBatch
    from lrtool.report.records import LearningRate, Suggestion
    from lrtool.report.report import FindReport, Status
    from lrtool.training.resume import Resumed
    from lrtool.training.session import Run

Event = list[StepRow] | EpochRow | int | TrainReport


def train(
    task: Task,
    first: FirstBatch,
    rate: LearningRate,
    directory: Path,
    *,
    suggestion: Suggestion | None = None,
    resumed: Resumed | None = None,
) -> Generator[Event]:
    """Train: yields rows of updates, rows of epochs, samples evaluated, and the report last.

    Whoever pulls may throw `InterruptedRunError` into it: a checkpoint is saved, and the report of
    what there is follows. Everything is in `directory` when the report is yielded.

    Args:
        task: the configuration with all that it names.
        first: what became of one batch.
        rate: the base rate.
        directory: of the run.
        suggestion: of the find that chose the rate.
        resumed: where to go on; None to begin.

    Raises:
        UserError, OutOfMemoryError, OSError: a report with status `failed` has been written, and
            the newest checkpoint is whole.
    """
    watch = Stopwatch(task.started)
    run: Run | None = None

    def conclude(status: Status, reason: str | None) -> TrainReport:
        report = TrainReport(
            status=status,
            reason=reason,
            suggestion=suggestion,
            learning_rate=rate,
            epochs=tuple(history.read(directory / METRICS, EpochRow)),
            best=None if run is None else _best(run),
            checkpoint=f"{CHECKPOINTS}/{LAST}" if run and run.saved is not None else None,
            steps=thin(history.read(directory / METRICS, StepRow)),
            timing=Timing(**watch.timing()),
            **facts(task, first),
        )
        reports.write(report, directory)
        training_plot.save(report, directory)
        return report

    files.write_text(directory / CONFIG, documents.dump(resolved(task)))
    log = history.reopen(directory / METRICS, resumed.state["log_bytes"] if resumed else 0)
    status: Status = "completed"
    try:
        run = training.begin(task, rate, directory, resumed)
        try:
            reason = yield from _epochs(run, log, watch)
        except InterruptedRunError:
            _save(run, log)
            raise
        notes = {"epoch": run.position.epoch, "step": run.position.step}
        with _writing(run):
            training.save_weights(run, directory / MODEL, notes)
    except InterruptedRunError as stop:
        status, reason = "interrupted", str(stop)
    except DivergedError as error:
        status, reason = "diverged", str(error)
    except GeneratorExit:
        conclude("interrupted", "closed before the last step")
        raise
    except (Exception, SystemExit) as error:
        raise concluded(task, error, partial(conclude, "failed")) from error
    finally:
        with suppress(OSError):  # all that can be written is flushed already
            log.close()
    assert run is not None, "what ends before it begins has failed"
    with _writing(run):
        report = conclude(status, reason)
    yield report


def not_begun(task: Task, first: FirstBatch, directory: Path, found: FindReport) -> TrainReport:
    """Write and return the report of a training that has no rate, since `found` has none."""
    files.write_text(directory / CONFIG, documents.dump(resolved(task)))
    report = TrainReport(
        status=found.status,
        reason=found.reason,
        suggestion=found.suggestion,
        learning_rate=None,
        epochs=(),
        best=None,
        checkpoint=None,
        steps=thin([]),
        timing=found.timing,
        **facts(task, first),
    )
    reports.write(report, directory)
    training_plot.save(report, directory)
    return report


def _epochs(run: Run, log: IO[bytes], watch: Stopwatch) -> Generator[Event, None, str | None]:
    """Train to the end, however often it was begun; return why it ended before the last epoch.

    Whenever something is yielded, the training is at rest and everything that led there is logged.

    Raises:
        DivergedError: losses, gradients or weights are no longer finite.
    """
    config, position = run.task.config.train, run.position
    step = watch.counted(run.step)
    while not _is_done(run):
        for rows in watch.timed(training.advance(run, step, config.checkpoint_every)):
            _write(run, log, rows)
            if failed(rows[-1], position):  # not at rest: nobody may save this
                raise divergence.at_row(run, rows[-1])
            yield rows
            if config.checkpoint_every and position.step % config.checkpoint_every == 0:
                _save(run, log)
        if not position.samples:
            raise batches.empty_epoch(position.epoch)
        if position.evaluated != position.step:
            divergence.refuse_bad_weights(run)
            row = yield from training.evaluated(run)
            _end_epoch(run, row, log)
            yield row
        else:  # a training that ended inside this epoch goes on, but nothing was left of it
            position.next_epoch()
    return _why_early(run)


def _best(run: Run) -> BestEpoch | None:
    best = run.state.best
    if best.value is None:
        return None
    return BestEpoch(epoch=best.epoch, step=best.step, metric=best.metric, value=best.value)


def _is_done(run: Run) -> bool:
    config, position = run.task.config.train, run.position
    if _why_early(run) is not None:
        return True
    if config.max_steps is not None:
        return position.step >= config.max_steps and position.evaluated == position.step
    assert config.epochs is not None, "a configuration has epochs or max_steps"
    return position.epoch >= config.epochs


def _why_early(run: Run) -> str | None:
    stopping, best = run.task.config.train.early_stopping, run.state.best
    if stopping is None or best.waited < stopping.patience:
        return None
    return f"early stopping: {best.metric} has not improved for {count(best.waited, 'epoch')}"


def _end_epoch(run: Run, row: EpochRow, log: IO[bytes]) -> None:
    """Log an epoch, keep it if it is the best one, and save where that is due."""
    config, position = run.task.config.train, run.position
    _warn_of_a_loss_without_value(row)
    with _writing(run):
        history.append(log, [row])
    improved = training.observe(run, row)
    if config.max_steps is None or position.step < config.max_steps:
        position.next_epoch()
    if improved:
        with _writing(run):
            training.save_best(run, row)
    if config.checkpoint_every is None or _is_done(run):
        _save(run, log)


def _warn_of_a_loss_without_value(row: EpochRow) -> None:
    if row.validation_loss is not None and not isfinite(row.validation_loss):
        warnings.warn(
            f"the validation loss of epoch {row.epoch} is {row.validation_loss}, though all "
            "weights are finite",
            LrtoolWarning,
            stacklevel=2,
        )


def _write(run: Run, log: IO[bytes], rows: list[StepRow]) -> None:
    """Log each k-th update, and the one that failed."""
    every = run.task.config.train.log_every
    kept = [row for row in rows if row.step % every == 0 or failed(row, run.position)]
    with _writing(run):
        history.append(log, kept)


def _save(run: Run, log: IO[bytes]) -> None:
    divergence.refuse_bad_weights(run)
    with _writing(run):
        training.save(run, log)


@contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Say in words that a file of the run cannot be written, and what is left.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except OSError as error:
        kept = "no checkpoint had been saved yet"
        if run.saved is not None:
            kept = (
                f"the checkpoint of step {run.saved:,} is whole; --resume {run.directory} goes on"
            )
        what = f"{error.filename or run.directory}: cannot be written: {error.strerror or error}"
        raise UserError(f"{what}; {kept}") from error
