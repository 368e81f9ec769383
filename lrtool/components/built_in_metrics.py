"""The built-in metrics: torchmetrics' objects, given what a loss says outputs and targets are.

Outputs are brought to labels, scores or values first, for torchmetrics would guess from each batch
anew whether it holds logits.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lrtool.components.losses import LOSSES, canonical, spell_both
from lrtool.components.own_metrics import sum_type, worded
from lrtool.errors import LrtoolWarning, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS: dict[str, str] = {
    "accuracy": "share of predictions that are right: of classes the most likely, of labels each",
    "top_5_accuracy": "share of samples whose class is among the five most likely",
    "precision": "right among those said to be of a class, mean over classes",
    "recall": "found among those of a class, mean over classes",
    "f1": "harmonic mean of precision and recall, mean over classes",
    "auroc": "area under the receiver operating characteristic, mean over classes",
    "average_precision": "area under the precision-recall curve in steps, mean over classes",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "rmse": "root of the mean squared error",
    "r2": "share of the variance that is explained, mean over outputs",
    "perplexity": "exp of the mean cross-entropy of a token",
}

_CLASSES = {  # torchmetrics.classification's, after Binary, Multiclass or Multilabel
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1Score",
    "auroc": "AUROC",
    "average_precision": "AveragePrecision",
}
_ACCURACIES = ("accuracy", "top_5_accuracy")
_VALUES = ("mae", "mse", "rmse", "r2")
RANKING = ("auroc", "average_precision")
# torchmetrics counts each pair of classes, and for a ranking it keeps each score.
_CLASSES_AT_MOST = 4096
_NO_THRESHOLD = ("hinge_embedding_loss", "multilabel_margin_loss")

# Where there is one output: the counts that a metric divides by, and what it means if they are 0.
_OF_CLASS_1 = {
    "precision": (("tp", "fp"), "no prediction is class 1"),
    "recall": (("tp", "fn"), "no target is class 1"),
    "f1": (("tp", "fp", "fn"), "neither a target nor a prediction is class 1"),
}

_Kind = Literal["Binary", "Multiclass", "Multilabel", "values"]
_KINDS: dict[_Kind, str] = {
    "Binary": "two classes",
    "Multiclass": "classes",
    "Multilabel": "labels",
    "values": "values",
}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What outputs and targets are; `width` is the number of classes, labels or values."""

    loss: str
    kind: _Kind
    width: int
    ignored: int
    log_rates: bool

    def classes(self, targets: Tensor) -> Tensor:
        """Return class indices."""
        return targets.argmax(1) if targets.is_floating_point() else targets.long()

    def labels(self, targets: Tensor) -> Tensor:
        """Return 1 for each label that a sample has, else 0."""
        takes = LOSSES[self.loss].takes
        if takes == "label sets":  # torch reads a row up to its first −1
            listed = (targets >= 0).cumprod(1)
            has = torch.zeros_like(targets)
            return has.scatter_reduce_(1, targets.clamp(min=0), listed, "amax")
        return (targets > (0.0 if takes == "signs" else 0.5)).long()

    def values(self, outputs: Tensor) -> Tensor:
        """Return predictions on the scale of the targets."""
        return outputs.exp() if self.log_rates else outputs


def _read(loss: str, args: Mapping[str, Any], outputs: Tensor, targets: Tensor) -> _Reading:
    """Tell from the loss and one batch what each batch holds."""
    whole = not targets.is_floating_point()
    takes = LOSSES[loss].takes if loss in LOSSES else "classes" if whole else "values"
    if loss == "kl_div":  # one distribution over classes, not labels on their own
        takes = "classes"
    if not outputs.is_floating_point():
        raise UserError("takes outputs that are floats")
    kind: _Kind
    if takes == "classes":
        wanted = outputs.shape[:1] + outputs.shape[2:] if whole else outputs.shape
        if outputs.ndim < 2 or targets.shape != wanted:
            raise UserError("takes one class index for each prediction")
        if outputs.shape[1] < 2:
            raise UserError("needs two classes or more, and the outputs have one")
        kind = "Multiclass"
    elif targets.shape != outputs.shape:
        raise UserError("takes targets of the outputs' shape")
    elif takes == "values":
        kind = "values"
    else:
        kind = "Binary" if outputs.ndim < 2 or outputs.shape[1] == 1 else "Multilabel"
    ignored, log_input = args.get("ignore_index", -100), args.get("log_input", True)
    log_rates = loss == "poisson_nll_loss" and bool(log_input)
    width = outputs.shape[1] if outputs.ndim > 1 else 1
    return _Reading(loss, kind, width, int(ignored), log_rates)


def _why_not(name: str, reading: _Reading) -> str | None:
    """Say why a metric does not fit; None if it does."""
    loss, width = reading.loss, reading.width
    per_class = name in {*_OF_CLASS_1, *RANKING}
    of_classes = name in {"top_5_accuracy", "perplexity"}
    task = f"{loss} is for {_KINDS[reading.kind]}"
    rules = (
        (name in _VALUES and reading.kind != "values", f"compares values, and {task}"),
        (name not in _VALUES and reading.kind == "values", f"compares classes, and {task}"),
        (of_classes and reading.kind != "Multiclass", f"takes scores of classes, and {task}"),
        (
            name == "perplexity" and loss == "multi_margin_loss",
            f"takes logits, and {loss} makes no probabilities of its scores",
        ),
        (
            name == "top_5_accuracy" and width < 5,
            f"needs five classes or more, and the outputs have {width}",
        ),
        (
            loss in _NO_THRESHOLD and name not in RANKING,
            f"needs a threshold between yes and no, and {loss} has none",
        ),
        (
            per_class and width > _CLASSES_AT_MOST,
            f"is for {_CLASSES_AT_MOST} classes at most, and the outputs have {width}",
        ),
    )
    return next((words for broken, words in rules if broken), None)


def built_in(
    name: str,
    outputs: Any,
    targets: Any,
    *,
    loss: str,
    loss_args: Mapping[str, Any],
    device: torch.device,
) -> BuiltIn:
    """Return a built-in metric for what a real batch holds.

    Raises:
        UserError: it does not fit, and which ones do.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        got = " and ".join(type(part).__name__ for part in (outputs, targets))
        raise UserError(
            f"{name} compares two tensors, but outputs and targets are {got}; "
            "an import path may name a metric for them"
        )
    try:
        reading = _read(canonical(loss), loss_args, outputs, targets)
    except UserError as error:
        raise UserError(f"{name} {error}; {spell_both(outputs, targets)}") from None
    problem = _why_not(name, reading)
    if problem is not None:
        fitting = [other for other in METRICS if _why_not(other, reading) is None]
        advice = f"metrics that fit: {', '.join(fitting)}"
        raise UserError(f"{name} {problem}; {spell_both(outputs, targets)}; {advice}")
    return BuiltIn(name, reading, device)


class BuiltIn:
    """A metric by its name."""

    def __init__(self, name: str, reading: _Reading, device: torch.device) -> None:
        self._name = name
        self._reading = reading
        self._device = device
        self._warned = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics speaks of memory
            self._state = _state(name, reading, device)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._state.reset()
        self._compared = 0
        self._nan = torch.zeros((), dtype=torch.bool, device=self._device)

    def probe(self, outputs: Tensor, targets: Tensor) -> None:
        """Try one batch, which may well hold one class only."""
        with worded(self._name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.update(outputs, targets)
            self.compute()
        self.reset()
        self._warned = False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        with torch.no_grad():
            predicted, true, nan = self._prepare(outputs, targets)
            self._nan = self._nan | nan
            self._compared += true.numel()
            if true.numel():
                self._state.update(predicted, true)

    def compute(self) -> float:
        """Return the value over all batches; NaN where there is none."""
        if not self._compared:
            return self._none("there was nothing to compare")
        # An argmax or a threshold makes a class of NaN, and torchmetrics would count it.
        if bool(self._nan):
            return self._none("some outputs or targets are NaN or infinite")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics' own for what is NaN here
            value, why = self._value()
        return self._none(why) if math.isnan(value) else value

    def _none(self, why: str) -> float:
        if not self._warned:
            self._warned = True
            words = f"the metric {self._name} has no value: {why}"
            warnings.warn(words, LrtoolWarning, stacklevel=3)
        return math.nan

    def _prepare(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions and truth as the state takes them, and whether there is any NaN."""
        reading, name = self._reading, self._name
        if reading.kind == "Multiclass":
            true = reading.classes(targets)
            counted = true != reading.ignored
            nan = targets.isnan().any()
            if name == "perplexity":
                return outputs, true.masked_fill(~counted, -100), nan
            if name in RANKING:
                scores = outputs.movedim(1, -1)[counted].to(sum_type(outputs.device)).softmax(-1)
                return scores, true[counted], nan | scores.isnan().any()
            if name == "top_5_accuracy":
                best, chosen = outputs.topk(5, dim=1)
                right = (chosen == true.unsqueeze(1)).any(1)
                predicted = torch.where(right, true, chosen.select(1, 0))
                best = best.amax(1)
            else:
                best, predicted = outputs.max(1)  # NaN where any score is
            return predicted[counted], true[counted], nan | (best.isnan() & counted).any()
        nan = outputs.isnan().any() | targets.isnan().any()
        if reading.kind == "values":
            wide = sum_type(outputs.device)
            predicted, true = reading.values(outputs.to(wide)), targets.to(wide)
            return predicted.reshape(len(true), -1), true.reshape(len(true), -1), nan
        true = reading.labels(targets)
        probabilities = reading.loss == "binary_cross_entropy"
        if name not in RANKING:
            return (outputs > (0.5 if probabilities else 0.0)).long(), true, nan
        scores = outputs.to(sum_type(outputs.device))
        if reading.loss == "hinge_embedding_loss":  # distances: small for those alike
            scores = -scores
        if not probabilities:
            # Into [0, 1] in the same order: a sigmoid ties all logits above 37, this only those
            # less than about 1e-16 apart.
            scores = scores.clamp(-1e30, 1e30)
            scores = (1 + scores / (1 + scores.abs())) / 2
        return scores, true, nan

    def _value(self) -> tuple[float, str]:
        """Return the value, NaN where there is none, and why there would be none."""
        name, kind, state = self._name, self._reading.kind, self._state
        if name in RANKING:
            scores = state.compute().reshape(-1)
            true = torch.cat(list(state.target))
            if kind == "Multiclass":
                positives = torch.bincount(true, minlength=len(scores))
            else:
                positives = true.reshape(-1, len(scores)).sum(0)
            samples = len(true)
            both = (positives > 0) & (positives < samples)
            return float(scores[both].mean()), "it needs two classes, and the targets hold one"
        if name in _OF_CLASS_1:
            scores = state.compute()
            if kind == "Binary":
                parts, why = _OF_CLASS_1[name]
                counted = any(bool(getattr(state, part) > 0) for part in parts)
                return (float(scores) if counted else math.nan), why
            occurs = state.tp + state.fp + state.fn > 0
            return float(scores[occurs].mean()), "no label occurs"
        why = {
            "r2": "the targets are all the same",
            "perplexity": "no target counts, or scores are NaN",
        }.get(name, "its sum is not a number")
        return float(state.compute()), why


def _state(name: str, reading: _Reading, device: torch.device) -> Any:
    """Return what gathers a metric: torchmetrics' object, or ours where torchmetrics' errs."""
    if name in _ACCURACIES:
        return _Accuracy()
    if name == "r2":
        return _R2()
    if name == "perplexity":
        return _Perplexity()
    if name in _VALUES:
        module = importlib.import_module("torchmetrics.regression")
        if name == "mae":
            state = module.MeanAbsoluteError()
        else:
            state = module.MeanSquaredError(squared=name == "mse")
        return state.to(device).set_dtype(sum_type(device))
    module = importlib.import_module("torchmetrics.classification")
    args: dict[str, Any] = {"validate_args": False}  # that would read each batch; the probe is ours
    if reading.kind != "Binary":
        args["average"] = None
        args["num_classes" if reading.kind == "Multiclass" else "num_labels"] = reading.width
    return getattr(module, reading.kind + _CLASSES[name])(**args).to(device)


class _Accuracy:
    """The share of predictions that are right; for this alone torchmetrics need not be imported."""

    def reset(self) -> None:
        self._right: Tensor | int = 0
        self._count = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._right = self._right + (predicted == true).sum()
        self._count += true.numel()

    def compute(self) -> Tensor:
        return torch.tensor(float(self._right)) / torch.tensor(float(self._count))


class _R2:
    """Sums for R² of each output, around the first row of targets.

    torchmetrics takes sums of squares below 1e-4 for zero, and so calls a fit to small targets
    perfect; it also subtracts large squares where the mean is far from zero.
    """

    def reset(self) -> None:
        self._origin: Tensor | None = None
        self._samples = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        if self._origin is None:
            self._origin = true[0].clone()
            self._deviations, self._squares, self._errors = torch.zeros(
                3, true.shape[1], dtype=true.dtype, device=true.device
            )
        deviations = true - self._origin
        self._samples += len(true)
        self._deviations = self._deviations + deviations.sum(0)
        self._squares = self._squares + deviations.square().sum(0)
        self._errors = self._errors + (true - predicted).square().sum(0)

    def compute(self) -> Tensor:
        total = self._squares - self._deviations.square() / self._samples
        varies = total > 0
        scores: Tensor = 1 - self._errors[varies] / total[varies]
        return scores.mean()


class _Perplexity:
    """exp of the mean cross-entropy; torchmetrics takes the log of a softmax, which may be 0."""

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._tokens: Tensor | int = 0

    def update(self, scores: Tensor, true: Tensor) -> None:
        loss = F.cross_entropy(scores.float(), true, ignore_index=-100, reduction="sum")
        self._sum = self._sum + loss.to(sum_type(scores.device))
        self._tokens = self._tokens + (true != -100).sum()

    def compute(self) -> Tensor:
        return torch.exp(torch.as_tensor(self._sum / self._tokens))
