"""Exceptions from a step explained: whose code failed, and which batch size fits in memory."""

from __future__ import annotations

import traceback
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lrtool import claims
from lrtool.components import import_path
from lrtool.config.spelling import number
from lrtool.data.workers import is_death_of_a_worker, is_hanging_worker
from lrtool.engine.device import is_out_of_memory
from lrtool.errors import (
    LrtoolError,
    OutOfMemoryError,
    UserError,
    cause_of,
)
from lrtool.experiment.experiment import build, first_batches, step_of
from lrtool.ranks import is_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.experiment.experiment import Experiment


def explain(
    experiment: Experiment, error: Exception | SystemExit, failed: str | None = None
) -> BaseException:
    """Return the error to raise in place of one from a step; a bug of lrtool's own as it is.

    Args:
        experiment: whose step failed.
        error: as it was raised.
        failed: start of the message, up to the colon; None: the user's own components are named.
    """
    error = cause_of(error)
    if experiment.runtime.ranks.several and is_lost(error):
        return claims.cause(experiment.runtime.ranks, error)
    if isinstance(error, LrtoolError) or _is_ours(error):
        return error
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
        return OutOfMemoryError(_out_of_memory(experiment))
    config = experiment.config
    if is_death_of_a_worker(error):
        return UserError(
            f"data.source {config.data.source} failed: a process that loads data ended by itself, "
            f"or was ended: {str(error).partition('. ')[0]}; data.workers: 0 loads without it"
        )
    if is_hanging_worker(error):
        return UserError(
            f"data.source {config.data.source} failed: no process that loads data gave a batch for "
            f"{number(config.data.timeout)} seconds (data.timeout); look for what it waits for: a "
            "lock, a network, another process; data.workers: 0 loads without processes"
        )
    parts = (config.model, config.loss, config.optimizer, config.optimizer.inner)
    names = [*(part.name for part in parts if part), config.data.source]
    own = [name for name in names if import_path.is_import_path(name)]
    if own and failed is None:
        failed = f"{' or '.join(own)} failed"
    return error if failed is None else UserError(f"{failed}: {import_path.words(error)}")


def conclude(
    experiment: Experiment,
    error: Exception | SystemExit,
    write: Callable[[str], object],
    failed: str | None = None,
) -> BaseException:
    """Write the report of a run that an error has ended; return the error to raise, by `explain`.

    When a process that loads data dies, torch raises that from a signal handler, possibly while
    this runs. All is then done again; torch raises each death only once.

    Args:
        experiment: whose step failed.
        error: as it was raised.
        write: writes the report with this reason; an OSError from it, as of a full disk, is
            ignored.
        failed: as in `explain`.
    """
    try:
        failure = explain(experiment, error, failed)
        with suppress(OSError):
            write(str(failure))
    except RuntimeError as death:
        if not is_death_of_a_worker(death):
            raise
        return conclude(experiment, death, write, failed)
    return failure


def _is_ours(error: BaseException) -> bool:
    """Tell whether this is a bug of lrtool's own: a wrong name or a broken invariant."""
    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parents[1]
    return isinstance(error, NameError | AssertionError) and any(
        Path(frame.filename).is_relative_to(package) for frame in frames[-1:]
    )


def _out_of_memory(experiment: Experiment) -> str:
    """Say which batch size was too large, and which one fits."""
    size, accumulate = experiment.data.batch_size, experiment.config.train.accumulate
    problem = f"out of memory with batches of {size:,} samples on {experiment.runtime.device}"
    fitting = fitting_batch(experiment)
    if fitting is None:
        return f"{problem}; try a smaller data.batch_size, or train.accumulate with smaller batches"
    more = ceil(size / fitting) * accumulate
    return (
        f"{problem}; {fitting:,} samples fit: data.batch_size: {fitting}, with "
        f"train.accumulate: {more} for updates from as many samples as now"
    )


def fitting_batch(experiment: Experiment) -> int | None:
    """Return the first of half the batch size, a quarter, … with which a step fits in memory.

    None if none fits, or if it cannot be tried: only batches (inputs, targets) of tensors can be
    halved, and one of several ranks cannot make a step alone.
    """
    if experiment.runtime.ranks.several:
        return None
    try:
        batch = first_batches(experiment)[0]
        if not _is_pair(batch):
            return None
        size = len(batch[0])
        while size > 1:
            size //= 2
            try:
                built = build(experiment, experiment.config.seed)
                step_of(experiment, built, experiment.runtime.scaler())(
                    [[t[:size] for t in batch]], 0.0
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
            else:
                return size
    except (Exception, SystemExit):  # noqa: BLE001  (the first error is the one to tell)
        return None
    return None


def _is_pair(batch: Any) -> bool:
    return (
        isinstance(batch, list | tuple)
        and len(batch) == 2
        and all(isinstance(part, torch.Tensor) and part.ndim for part in batch)
        and len(batch[0]) == len(batch[1])
    )
