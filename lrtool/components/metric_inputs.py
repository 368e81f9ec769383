"""Predictions and truth for a metric, from a batch's outputs and targets.

The loss tells what outputs and targets are. torchmetrics would guess for each batch anew whether it
holds logits, so it gets classes, scores or values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lrtool.components.losses import LOSSES, canonical
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrtool.components.losses import Outputs, Takes

# What a metric compares with the truth. classes: the most likely one, or yes or no for each label;
# five classes: the true class if it is among the five most likely, else the most likely; scores: of
# each class or label, higher for likelier; logits: of classes; values: numbers on the targets'
# scale.
Compares = Literal["classes", "five classes", "scores", "logits", "values"]

Kind = Literal["two classes", "classes", "labels", "values"]


@dataclass(frozen=True, slots=True)
class Units:
    """The units of values that were standardised: y = mean + deviation × standardised."""

    mean: float
    deviation: float

    def restore(self, standardised: Tensor) -> Tensor:
        """Return values in their own units."""
        return standardised * self.deviation + self.mean


@dataclass(frozen=True, slots=True)
class Reading:
    """What a batch's outputs and targets are.

    Attributes:
        loss: the loss's name.
        kind: two classes: a single output (B, 1, …); classes: outputs (B, C, …) and class indices
            (B, …), or a probability for each class, of which the largest counts; labels:
            (B, k, …), each yes or no; values: (B, k).
        width: the number of classes, labels or values.
        outputs: the kind of outputs.
        targets: the kind of targets.
        ignored: the class index of targets that are ignored.
        device: of both.
    """

    loss: str
    kind: Kind
    width: int
    outputs: Outputs
    targets: Takes
    ignored: int
    device: torch.device


def read(loss: str, args: Mapping[str, Any], outputs: Tensor, targets: Tensor) -> Reading:
    """Return what batches hold, judging by the loss and one of them.

    The user's own loss is for classes if the targets are integers, else for values.

    Args:
        loss: torch's or Keras's name, or an import path.
        args: the loss's arguments; `ignore_index` and `log_input` matter.
        outputs: of the model.
        targets: of the data.

    Raises:
        UserError: no metric can compare them.
    """
    loss = canonical(loss)
    integers = not targets.is_floating_point()
    gives: Outputs
    takes: Takes
    if loss in LOSSES:
        gives, takes = LOSSES[loss].outputs, LOSSES[loss].takes
    else:
        gives, takes = ("logits", "classes") if integers else ("values", "values")
    if gives == "log rates" and not args.get("log_input", True):
        gives = "values"
    if not outputs.is_floating_point():
        raise UserError("takes outputs that are floats")
    kind: Kind
    if takes == "classes" or gives == "log-probabilities":  # which are those of classes
        expected = outputs.shape[:1] + outputs.shape[2:] if integers else outputs.shape
        if outputs.ndim < 2 or targets.shape != expected:
            raise UserError("takes one class index for each prediction")
        if outputs.shape[1] < 2:
            raise UserError("needs two classes or more, and the outputs have one")
        kind = "classes"
    elif targets.shape != outputs.shape:
        raise UserError("takes targets of the outputs' shape")
    elif takes == "values":
        kind = "values"
    else:
        kind = "two classes" if outputs.ndim < 2 or outputs.shape[1] == 1 else "labels"
    width = outputs.shape[1] if outputs.ndim > 1 else 1
    ignored = int(args.get("ignore_index", -100))
    return Reading(loss, kind, width, gives, takes, ignored, outputs.device)


def why_not(compares: Compares, reading: Reading) -> str | None:
    """Return why a metric cannot be computed from such batches; None if it can."""
    loss, kind = reading.loss, reading.kind
    needs_classes = compares in {"five classes", "logits"}
    task = f"{loss} is for {kind}"
    rules = (
        (compares == "values" and kind != "values", f"compares values, and {task}"),
        (compares != "values" and kind == "values", f"compares classes, and {task}"),
        (needs_classes and kind != "classes", f"takes scores of classes, and {task}"),
        (
            compares == "logits" and reading.outputs == "scores",
            f"takes logits, and {loss} takes scores that are not logits",
        ),
        (
            compares == "five classes" and reading.width < 5,
            f"needs five classes or more, and the outputs have {reading.width}",
        ),
        (
            compares == "classes" and kind != "classes" and _threshold(reading) is None,
            f"needs a threshold between yes and no, and {loss} has none",
        ),
    )
    return next((words for broken, words in rules if broken), None)


def _threshold(reading: Reading) -> float | None:
    return {"logits": 0.0, "probabilities": 0.5}.get(reading.outputs)


def prepare(
    compares: Compares, reading: Reading, outputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, truth, and whether outputs or targets hold NaN.

    Classes: (n,), without ignored targets, or 0 and 1 of the targets' shape; scores: (n, C), or in
    [0, 1] of the targets' shape; logits: the outputs, and truth that is −100 where ignored; values:
    (B, k) in `sum_type`.
    """
    if reading.kind == "classes":
        return _classes(compares, reading, outputs, targets)
    nan = outputs.isnan().any() | targets.isnan().any()
    if reading.kind == "values":
        wide = sum_type(outputs.device)
        predicted, true = outputs.to(wide), targets.to(wide)
        if reading.outputs == "log rates":
            predicted = predicted.exp()
        return predicted.reshape(len(true), -1), true.reshape(len(true), -1), nan
    true = _labels(reading, targets)
    if compares == "classes":
        threshold = _threshold(reading)
        assert threshold is not None, "`why_not` checks it"
        return (outputs > threshold).long(), true, nan
    scores = outputs.to(sum_type(outputs.device))
    if reading.outputs == "distances":
        scores = -scores
    if reading.outputs != "probabilities":
        # Into [0, 1] in the same order. A sigmoid would tie all logits above 37.
        scores = scores.clamp(-1e30, 1e30)
        scores = (1 + scores / (1 + scores.abs())) / 2
    return scores, true, nan


def _classes(
    compares: Compares, reading: Reading, outputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    true = targets.argmax(1) if targets.is_floating_point() else targets.long()
    counted = true != reading.ignored
    nan = targets.isnan().any()
    if compares == "logits":
        return outputs, true.masked_fill(~counted, -100), nan
    if compares == "scores":
        scores = outputs.movedim(1, -1)[counted].to(sum_type(outputs.device)).softmax(-1)
        return scores, true[counted], nan | scores.isnan().any()
    if compares == "five classes":
        best, chosen = outputs.topk(5, dim=1)
        right = (chosen == true.unsqueeze(1)).any(1)
        predicted = torch.where(right, true, chosen.select(1, 0))
        best = best.amax(1)
    else:
        best, predicted = outputs.max(1)  # best is NaN where any score is
    return predicted[counted], true[counted], nan | (best.isnan() & counted).any()


def _labels(reading: Reading, targets: Tensor) -> Tensor:
    """Return 1 for each label of a sample, else 0."""
    if reading.targets == "label sets":  # torch reads a row up to its first −1
        listed = (targets >= 0).cumprod(1)
        has = torch.zeros_like(targets)
        return has.scatter_reduce_(1, targets.clamp(min=0), listed, "amax")
    return (targets > (0.0 if reading.targets == "signs" else 0.5)).long()


def sum_type(device: torch.device) -> torch.dtype:
    """Return the type of sums: float64, or float32 on Apple's devices, which lack it."""
    return torch.float32 if device.type == "mps" else torch.float64
