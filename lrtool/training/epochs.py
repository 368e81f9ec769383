"""The loop of a training: train, evaluate, log and save, epoch by epoch."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import IO, TYPE_CHECKING

from lrtool.config.spelling import count
from lrtool.data import batches
from lrtool.engine.denominator import reduction_of
from lrtool.engine.loop import failed
from lrtool.engine.step import all_skipped
from lrtool.errors import DivergedError, InterruptedRunError, LrtoolWarning, cause_of
from lrtool.report import marker, metrics_log
from lrtool.report.records import EpochRow, StepRow
from lrtool.report.run_directory import METRICS, MODEL
from lrtool.training import divergence
from lrtool.training.session import (
    advance,
    evaluate,
    observe,
    save,
    save_best,
    save_weights,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from lrtool.report.report import Status
    from lrtool.training.session import Session

Event = list[StepRow] | EpochRow | int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a training ended.

    Attributes:
        status: "completed", "interrupted", "diverged" or "failed".
        reason: why it ended early, in a sentence; None if it did not, or if it failed.
        error: why it failed, as it was raised; None if it did not.
    """

    status: Status
    reason: str | None = None
    error: Exception | SystemExit | None = None


def train(session: Session) -> Generator[Event, None, Ending]:
    """Train to the end, from the start or from a checkpoint; return how it ended.

    Yields rows of updates, several at a time; while evaluating, the number of samples seen; and the
    row of each epoch. At each yield everything so far is in metrics.jsonl. The caller may throw
    `InterruptedRunError` into it: a checkpoint is saved, and the training ends. No error leaves it:
    it is part of the ending, and the newest checkpoint is whole.
    """
    try:
        with writing(session):
            path = session.directory / METRICS if session.ranks.first else None
            log = metrics_log.reopen(path, session.log_bytes)
        try:
            reason = yield from _epochs(session, log)
        except InterruptedRunError:
            _save(session, log)
            raise
        finally:
            with suppress(OSError):  # each row has been flushed already
                log.close()
        notes = {"epoch": session.position.epoch, "step": session.position.step}
        with writing(session):
            save_weights(session, session.directory / MODEL, notes)
    except InterruptedRunError as stop:
        return Ending("interrupted", str(stop))
    except DivergedError as error:
        return Ending("diverged", str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  (an ending is data)
        return Ending("failed", error=cause_of(error))
    return Ending("completed", reason)


def _epochs(session: Session, log: IO[bytes]) -> Generator[Event, None, str | None]:
    """Train to the end; return why it ended early, or None.

    Raises:
        DivergedError: losses, gradients or weights are no longer finite.
    """
    config, position = session.experiment.config.train, session.position
    while not _is_done(session):
        # Train the rest of this epoch. Rows come in groups, as losses are read in bulk.
        epoch = advance(session, session.step, config.checkpoint_every)
        for rows in session.watch.timed(epoch):
            _log(session, log, rows)
            if failed(rows[-1], position):  # before the yield: an interruption would save this
                raise divergence.error_of_row(session, rows[-1])
            yield rows
            if config.checkpoint_every and position.step % config.checkpoint_every == 0:
                _save(session, log)
        if not position.samples:
            raise all_skipped() if position.batches else batches.empty_epoch(position.epoch)
        if position.exhausted and position.denominator == 0:
            reduction = reduction_of(session.built.loss_fn)
            raise reduction.no_targets(f"epoch {position.epoch + 1}")

        # Evaluate, log and save, unless a resumed training had already done so at this step.
        if position.evaluated != position.step:
            divergence.refuse_bad_weights(session)
            row = yield from evaluate(session)
            _end_epoch(session, row, log)
            yield row
        else:
            position.next_epoch()
    return _reason_to_stop(session)


def _is_done(session: Session) -> bool:
    config, position = session.experiment.config.train, session.position
    if _reason_to_stop(session) is not None:
        return True
    if config.max_steps is not None:
        return position.step >= config.max_steps and position.evaluated == position.step
    assert config.epochs is not None, "a configuration has epochs or max_steps"
    return position.epoch >= config.epochs


def _reason_to_stop(session: Session) -> str | None:
    """Return why to stop before the last epoch; None to go on."""
    stopping, best = session.experiment.config.train.early_stopping, session.state.best
    if stopping is None or best.waited < stopping.patience:
        return None
    return f"early stopping: {best.metric} has not improved for {count(best.waited, 'epoch')}"


def _end_epoch(session: Session, row: EpochRow, log: IO[bytes]) -> None:
    """Log an epoch, keep its weights if they are the best, and save a checkpoint if it is due."""
    config, position = session.experiment.config.train, session.position
    if row.validation_loss is not None and not isfinite(row.validation_loss):
        warnings.warn(
            f"the validation loss of epoch {row.epoch} is {row.validation_loss}, though all "
            "weights are finite",
            LrtoolWarning,
            stacklevel=2,
        )
    with writing(session):
        metrics_log.append(log, [row])
    improved = observe(session, row)
    if config.max_steps is None or position.step < config.max_steps:
        position.next_epoch()
    if improved:
        with writing(session):
            save_best(session, row)
    if config.checkpoint_every is None or _is_done(session):
        _save(session, log)


def _log(session: Session, log: IO[bytes], rows: list[StepRow]) -> None:
    """Log every `log_every`th update, and one that failed."""
    every = session.experiment.config.train.log_every
    to_log = [row for row in rows if row.step % every == 0 or failed(row, session.position)]
    with writing(session):
        metrics_log.append(log, to_log)


def _save(session: Session, log: IO[bytes]) -> None:
    divergence.refuse_bad_weights(session)
    with writing(session):
        save(session, log)
        if session.ranks.first:  # the weights of a shorter training, which are older now
            marker.remove_weights(session.directory)
