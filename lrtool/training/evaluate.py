"""What `lrtool evaluate` does with a run: its weights, on the validation part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrtool.data import batches
from lrtool.engine import evaluation, weights
from lrtool.engine.checkpoint import AVERAGE, BEST
from lrtool.errors import UserError
from lrtool.experiment.experiment import build
from lrtool.experiment.failures import worded
from lrtool.experiment.preflight import empty_validation, metrics_of
from lrtool.report.records import finite_or_none
from lrtool.report.run_directory import CHECKPOINTS, MODEL
from lrtool.training.resume import find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from torch import nn

    from lrtool.experiment.experiment import Task


def evaluate(task: Task, run: Path, checkpoint: str) -> Generator[int, None, dict[str, Any]]:
    """Evaluate a run's weights on the validation part; yield the samples seen, return the facts.

    Args:
        task: the run's configuration, with other data perhaps.
        run: its directory.
        checkpoint: "best" or "last".

    Raises:
        UserError: there are no such weights, they do not fit, or nothing to evaluate them on.
    """
    if task.data.validation is None:
        raise UserError("nothing to evaluate on: the data have no validation part")
    metrics = metrics_of(task)
    built = build(task, task.config.seed)
    notes = _load(built.model, run, checkpoint)
    samples = batches.ordered(
        task.data.validation, batch_size=task.data.batch_size, device=task.runtime.device
    )
    try:
        found = yield from evaluation.evaluate(
            built.model, built.loss_fn, samples, task.runtime, metrics
        )
    except (Exception, SystemExit) as error:
        raise worded(task, error) from error
    if not found.samples:
        raise empty_validation()
    return {
        "run": str(run),
        "checkpoint": checkpoint,
        "epoch": notes.get("epoch"),
        "step": notes.get("step"),
        "samples": found.samples,
        "validation_loss": finite_or_none(found.loss),
        **{name: finite_or_none(value) for name, value in found.metrics.items()},
    }


def _load(model: nn.Module, run: Path, checkpoint: str) -> dict[str, Any]:
    """Give a model the weights of a run that are to be evaluated; return when they were saved.

    Raises:
        UserError: there are none, or they do not fit.
    """
    if checkpoint == "best":
        path = run / CHECKPOINTS / BEST / MODEL
        if not path.is_file():
            raise UserError(f"{run}: has no checkpoint best; there is no {path}")
        weights.load_weights(model, weights.read_weights(path), path)
        return weights.read_notes(path)
    found = find_checkpoint(run)
    if found is None:
        raise UserError(f"{run}: has no checkpoint that is whole")
    path, average = found.checkpoint / MODEL, found.checkpoint / AVERAGE
    weights.load_weights(model, {**weights.read_weights(path), **found.state["extra"]}, path)
    if average.exists():
        weights.load_average(model, weights.read_weights(average), average)
    return weights.read_notes(path)
