"""What `lrtool train` and `lrtool evaluate` do with a configuration, from top to bottom."""

from __future__ import annotations

from contextlib import suppress
from math import isfinite
from typing import IO, TYPE_CHECKING, Any

from lrtool import document as documents
from lrtool import files, history, training
from lrtool.data import batches
from lrtool.engine import checkpoint as checkpoints
from lrtool.engine.checkpoint import LAST
from lrtool.engine.evaluation import evaluate as evaluation
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.trainer import SKIPS_IN_A_ROW, failed
from lrtool.errors import DivergedError, InterruptedRunError, LrtoolError, UserError
from lrtool.records import EpochRow, StepRow
from lrtool.resume import find_checkpoint
from lrtool.run import facts
from lrtool.rundir import CHECKPOINTS, CONFIG, METRICS, MODEL
from lrtool.show import report as reports
from lrtool.show import training_plot
from lrtool.show.report_parts import Timing, null
from lrtool.show.train_report import Best, TrainReport, from_training
from lrtool.task import build, metrics_of, resolved, worded

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from lrtool.engine.trainer import Position
    from lrtool.resume import Resumed
    from lrtool.show.report import Report
    from lrtool.show.report_parts import Status, Suggestion
    from lrtool.show.train_report import LearningRate
    from lrtool.task import FirstBatch, Task
    from lrtool.training import Run

Event = list[StepRow] | EpochRow | int | TrainReport
Outcome = tuple["Status", str | None]


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
        report = from_training(
            (row for row in history.read(directory / METRICS) if isinstance(row, StepRow)),
            [row for row in history.read(directory / METRICS) if isinstance(row, EpochRow)],
            learning_rate=rate,
            best=None if run is None else _best(run),
            checkpoint=f"{CHECKPOINTS}/{LAST}" if run and run.saved is not None else None,
            suggestion=suggestion,
            status=status,
            reason=reason,
            timing=Timing(**watch.timing()),
            **facts(task, first),
        )
        reports.write(report, directory)
        training_plot.save(report, directory)
        return report

    try:
        files.write_text(directory / CONFIG, documents.dump(resolved(task)))
        log_bytes = resumed.state["log_bytes"] if resumed else 0
        with history.reopen(directory / METRICS, log_bytes) as log:
            run = training.begin(task, rate, directory, resumed)
            try:
                reason = yield from _epochs(run, log, watch)
            except InterruptedRunError:
                _save(run, log)
                raise
        notes = {"epoch": str(run.position.epoch), "step": str(run.position.step)}
        training.save_weights(run, directory / MODEL, notes)
    except InterruptedRunError as stop:
        yield conclude("interrupted", str(stop))
        return
    except DivergedError as error:
        yield conclude("diverged", str(error))
        return
    except GeneratorExit:
        conclude("interrupted", "closed before the last step")
        raise
    except (Exception, SystemExit) as error:
        failure = worded(task, error)
        with suppress(OSError):  # the disk may be full
            conclude("failed", str(failure))
        raise failure from error
    yield conclude("completed", reason)


def not_begun(task: Task, first: FirstBatch, directory: Path, found: Report) -> TrainReport:
    """Write and return the report of a training that has no rate, since `found` has none."""
    files.write_text(directory / CONFIG, documents.dump(resolved(task)))
    report = from_training(
        [],
        [],
        learning_rate=None,
        best=None,
        checkpoint=None,
        suggestion=found.suggestion,
        status=found.status,
        reason=found.reason,
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
            _write(log, rows, config.log_every, position)
            yield rows
            if failed(rows[-1], position):
                raise DivergedError(_diverged(run, _what(rows[-1])))
            if config.checkpoint_every and position.step % config.checkpoint_every == 0:
                _save(run, log)
        if not position.samples:
            raise batches.empty_epoch(position.epoch)
        if position.evaluated != position.step:
            _refuse_bad_weights(run)
            row = yield from training.evaluated(run)
            _end_epoch(run, row, log)
            yield row
        else:  # a training that ended inside this epoch goes on, but nothing was left of it
            position.next_epoch()
    if run.saved != position.step:
        _save(run, log)
    return _why_early(run)


def _best(run: Run) -> Best | None:
    best = run.state.best
    if best.value is None:
        return None
    return Best(epoch=best.epoch, step=best.step, metric=best.metric, value=best.value)


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
    return f"early stopping: {best.metric} has not improved for {best.waited} epochs"


def _end_epoch(run: Run, row: EpochRow, log: IO[bytes]) -> None:
    """Log an epoch, keep it if it is the best one, and save where that is due."""
    config, position = run.task.config.train, run.position
    history.append(log, [row])
    position.evaluated = position.step
    improved = run.state.best.observe(row)
    run.schedule.observe(row.train_loss if row.validation_loss is None else row.validation_loss)
    if config.max_steps is None or position.step < config.max_steps:
        position.next_epoch()
    if improved:
        training.save_best(run, row)
    if config.checkpoint_every is None:
        _save(run, log)


def _write(log: IO[bytes], rows: list[StepRow], every: int, position: Position) -> None:
    """Log each k-th update, and the one that failed."""
    kept = [row for row in rows if row.step % every == 0 or failed(row, position)]
    history.append(log, kept)


def _save(run: Run, log: IO[bytes]) -> None:
    _refuse_bad_weights(run)
    training.save(run, log)


def _refuse_bad_weights(run: Run) -> None:
    """Never let weights that are not finite be evaluated, or take the place of good ones.

    Raises:
        DivergedError: one is not.
    """
    bad = checkpoints.first_bad_weight(run.built.model)
    if bad is not None:
        raise DivergedError(_diverged(run, f"{bad} is not finite"))


def _what(row: StepRow) -> str:
    if not isfinite(row.loss):
        return f"the loss is {row.loss}"
    if row.skipped:
        return f"{SKIPS_IN_A_ROW} updates in a row overflowed and were skipped"
    return "the gradients are not finite"


def _diverged(run: Run, what: str) -> str:
    """Say where and why a training went wrong, and what to try."""
    config, good = run.task.config, find_checkpoint(run.directory)
    said = training.explain(run, what, good)
    tries = [f"a lower rate (--lr {run.rate.value / 10:.2g})"]
    if config.train.gradient_clip_norm is None:
        tries.append("train.gradient_clip_norm: 1")
    if not config.train.schedule.warmup:
        tries.append("train.schedule.warmup: 0.05")
    if config.runtime.precision == "fp16":
        tries.append("runtime.precision: bf16")
    kept = "no checkpoint had been saved yet"
    if good is not None:
        kept = f"the checkpoint of step {good.state['position']['step']:,} is good"
    return f"{said}; try {', or '.join(tries)}; {kept}"


def evaluate(task: Task, run: Path, checkpoint: str) -> Generator[int, None, dict[str, Any]]:
    """Evaluate a run's weights on the validation part; yield the samples seen, return the facts.

    Args:
        task: the run's configuration, with other data perhaps.
        run: its directory.
        checkpoint: "best" or "last".

    Raises:
        UserError: there are no such weights, they do not fit, or nothing to evaluate them on.
    """
    folder = run / CHECKPOINTS / checkpoint
    path = next((p for p in (folder / checkpoints.AVERAGE, folder / MODEL) if p.exists()), None)
    if path is None:
        raise UserError(f"{run}: has no checkpoint {checkpoint}; there is no {folder / MODEL}")
    if task.data.validation is None:
        raise UserError("nothing to evaluate on: the data have no validation part")
    metrics = metrics_of(task)
    built = build(task, task.config.seed)
    weights = checkpoints.read_weights(folder / MODEL) if path.name != MODEL else {}
    checkpoints.load_weights(built.model, {**weights, **checkpoints.read_weights(path)}, path)
    samples = batches.ordered(
        task.data.validation, batch_size=task.data.batch_size, device=task.runtime.device
    )
    try:
        found = yield from evaluation(built.model, built.loss_fn, samples, task.runtime, metrics)
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:
        raise worded(task, error) from error
    if not found.samples:
        raise UserError("the validation part is empty: it yields no batch")
    notes = checkpoints.read_metadata(path)
    return {
        "run": str(run),
        "checkpoint": checkpoint,
        "epoch": int(notes["epoch"]),
        "step": int(notes["step"]),
        "samples": found.samples,
        "validation_loss": null(found.loss),
        **{name: null(value) for name, value in found.metrics.items()},
    }
