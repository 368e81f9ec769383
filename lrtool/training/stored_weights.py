"""Loads the weights that a run has stored into a model; and what its best ones predict."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError
from torch import nn

from lrtool.engine import weights
from lrtool.engine.checkpoint import BEST, LOSS, average_of, read_extra, weights_of
from lrtool.errors import LrtoolWarning, UserError
from lrtool.report.records import PredictionFacts
from lrtool.report.run_directory import CHECKPOINTS, MODEL
from lrtool.training.resume import find_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.records import BestEpoch

PREDICTIONS = "predictions"  # among the notes of the best weights
_FACTS = TypeAdapter(PredictionFacts)

Which = Literal["best", "last"]


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Where weights come from.

    Attributes:
        checkpoint: "best" or "last".
        epoch: after which they were stored.
        step: number of updates by then.
    """

    checkpoint: Which
    epoch: int | None
    step: int | None


def load_stored_weights(
    model: nn.Module, run: Path, which: Which | None = None, loss_fn: object = None
) -> StoredWeights:
    """Load a run's weights into a model, or their moving average if there is one.

    Args:
        model: as the run's configuration builds it.
        run: its directory.
        which: "best" or "last"; None for the best ones if there are any, else the last ones.
        loss_fn: if it is a module, it gets its own weights and buffers of then.

    Raises:
        UserError: there are none, or they do not fit.
    """
    if which not in {None, "best", "last"}:
        raise UserError(f"{run}: the checkpoint must be best or last, not {which!r}")
    best = run / CHECKPOINTS / BEST / MODEL
    which = which or ("best" if best.is_file() else "last")
    has_state = isinstance(loss_fn, nn.Module) and bool(loss_fn.state_dict())
    if which == "best":
        if not best.is_file():
            raise UserError(f"{run}: has no checkpoint best; there is no {best}")
        path = best
        try:
            stored = {**weights.read_weights(path), **read_extra(path.parent)}
            loss = weights.read_weights(path.with_name(LOSS)) if has_state else {}
        except UserError as error:
            raise UserError(f"{error}; --checkpoint last takes the last ones") from error
        weights.load_weights(model, stored, path)
        if isinstance(loss_fn, nn.Module) and has_state:
            weights.load_weights(loss_fn, loss, path.with_name(LOSS))
    else:
        last = find_checkpoint(run)
        if last is None:
            raise UserError(f"{run}: has no checkpoint that is whole")
        stored = {**weights_of(last.folder, last.state), **last.state["extra"]}
        weights.load_weights(model, stored, last.folder)
        if isinstance(loss_fn, nn.Module):
            weights.load_weights(loss_fn, last.state["loss"], last.folder)
        if (average := average_of(last.folder, last.state)) is not None:
            weights.load_average(model, average, last.folder)
        position = last.state["position"]
        return StoredWeights(which, position["epoch"], position["step"])
    notes = weights.read_notes(path)
    return StoredWeights(which, notes.get("epoch"), notes.get("step"))


def dump_predictions(facts: PredictionFacts) -> dict[str, Any]:
    """Return them as a note of the weights, for `best_predictions`."""
    dumped: dict[str, Any] = _FACTS.dump_python(facts, mode="json")
    return dumped


def best_predictions(run: Path, best: BestEpoch | None) -> PredictionFacts | None:
    """Return what the best weights of a run predict on its validation set; None if unknown.

    Warns:
        LrtoolWarning: the file of the weights is damaged.
    """
    path = run / CHECKPOINTS / BEST / MODEL
    if best is None or not path.is_file():
        return None
    try:
        notes = weights.read_notes(path)
        if PREDICTIONS not in notes or notes.get("step") != best.step:
            return None
        return _FACTS.validate_json(json.dumps(notes[PREDICTIONS]))
    except (UserError, ValidationError) as error:
        reason = error if isinstance(error, UserError) else f"{path}: its notes are damaged"
        warnings.warn(
            f"{reason}; the report is without what the best weights predict",
            LrtoolWarning,
            stacklevel=2,
        )
        return None
