"""What several ranks share in trials and race: each batch, or the candidates."""

from __future__ import annotations

import traceback
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lrtool.engine.device import is_out_of_memory, synchronize
from lrtool.errors import LrtoolWarning, OutOfMemoryError
from lrtool.experiment.experiment import build, first_batches, step_of

if TYPE_CHECKING:
    from lrtool.experiment.experiment import Experiment
    from lrtool.search.search import Parallel


def alone(experiment: Experiment) -> Experiment:
    """Return an experiment as one process trains it, though it may be one of several ranks."""
    return replace(experiment, runtime=experiment.runtime.alone())


def parallel_of(experiment: Experiment) -> Parallel:
    """Return what `find.parallel` means here; all ranks call this, and get the same.

    Candidates have the same losses as in one process, whatever the model, so auto takes them where
    a step of a whole batch fits the memory of each rank's device. The memory of the CPU is shared.
    A model that is to be sharded fits none.

    Warns:
        LrtoolWarning: candidates are asked for, and so is a sharded model.
    """
    given, ranks = experiment.config.find.parallel, experiment.runtime.ranks
    if given == "candidates" and experiment.runtime.sharded:
        warnings.warn(
            "runtime.shard is ignored in trials and race: find.parallel is candidates, so each "
            "rank trains whole models of its own",
            LrtoolWarning,
            stacklevel=2,
        )
    if given != "auto":
        return given
    if not ranks.several or experiment.runtime.sharded:
        return "data"
    return "data" if ranks.any(flag=not _fits(alone(experiment))) else "candidates"


def _fits(experiment: Experiment) -> bool:
    """Tell whether a step of the whole batch fits the device's memory."""
    if experiment.runtime.device.type != "cuda":
        return True
    try:
        _make_step(experiment)
    except Exception as error:  # noqa: BLE001  (any other one comes again where it is explained)
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
        return not (isinstance(error, OutOfMemoryError) or is_out_of_memory(error))
    finally:
        torch.cuda.empty_cache()
    return True


def _make_step(experiment: Experiment) -> None:
    """Make an update of a model that is thrown away."""
    built = build(experiment, experiment.config.seed)
    step = step_of(experiment, built, experiment.runtime.scaler())
    step(first_batches(experiment), 0.0)
    synchronize(experiment.runtime.device)


def words(parallel: Parallel) -> str:
    """Say it in a line."""
    if parallel == "candidates":
        return "trials and race: each rank trains candidates of its own (find.parallel)"
    return "trials and race: all ranks share each batch (find.parallel)"
