"""The metrics that a configuration may name: torchmetrics' by short names, or an import path.

torchmetrics takes seconds to import, so only a built-in metric that is used imports it. What
outputs and targets mean, the loss tells: scores of classes, logits or probabilities of labels, or
values. They are brought to labels, scores or values here, for torchmetrics would guess from each
batch anew whether it holds logits.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.build import lookup
from lrtool.build.losses import LOSSES, canonical
from lrtool.errors import ComponentError, LrtoolError, LrtoolWarning, Problem, UserError
from lrtool.records import EpochRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

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
_LOWER_IS_BETTER = {"mae", "mse", "rmse", "perplexity"}

_CLASSES = {  # torchmetrics.classification's, after Binary, Multiclass or Multilabel
    "accuracy": "Accuracy",
    "top_5_accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1Score",
    "auroc": "AUROC",
    "average_precision": "AveragePrecision",
}
_VALUES = ("mae", "mse", "rmse", "r2")
_RANKING = ("auroc", "average_precision")
# torchmetrics counts each pair of classes, and for a ranking it keeps each score.
_CLASSES_AT_MOST = 4096
_NO_THRESHOLD = ("hinge_embedding_loss", "multilabel_margin_loss")


class Metric(Protocol):
    """A number that says how good outputs are, gathered over batches of any sizes."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch: what the model returned and what the data hold, on the metric's device.

        Raises:
            UserError: the user's own metric fails.
        """

    def compute(self) -> float:
        """Return the value over all batches since the last reset; NaN where there is none.

        Raises:
            UserError: the user's own metric fails.

        Warns:
            LrtoolWarning: there is no value, and why; once in a metric's life.
        """

    def reset(self) -> None:
        """Forget all batches."""


def key(name: str) -> str:
    """Return a metric's key in an epoch's row: its name, or the last part of an import path."""
    return name.rpartition(":")[2].rpartition(".")[2]


def higher_is_better(name: str, directories: Sequence[Path] = ()) -> bool | None:
    """Tell whether more is better; None where nobody says so.

    An import path leads to a function or class whose attribute `higher_is_better` may say so, as
    torchmetrics' have it.

    Raises:
        UserError: an import path leads nowhere.
    """
    if not lookup.is_import_path(name):
        return name not in _LOWER_IS_BETTER
    says = getattr(lookup.resolve(name, directories), "higher_is_better", None)
    return says if isinstance(says, bool) else None


def build_metrics(
    names: Sequence[str],
    *,
    loss: str,
    outputs: Any,
    targets: Any,
    device: torch.device,
    directories: Sequence[Path],
    loss_args: Mapping[str, Any] | None = None,
) -> dict[str, Metric]:
    """Build metrics, try each on one batch, and return them empty, by their keys.

    The loss tells what a batch holds. Those of classes, and an import path with whole numbers as
    targets: scores (B, C, …) and class indices (B, …), or a probability for each class, of which
    the largest counts. Targets that equal `ignore_index` (−100) do not count. Those of
    probabilities or signs: (B, 1) for two classes, else (B, k, …) for k labels. All others: values
    (B, k).

    Built-in metrics:
        accuracy: over all tokens, pixels or labels alike.
        precision, recall, f1: of class 1 where there is one output; else the mean over the classes
            that targets or predictions hold, with 0 for a class of which nothing is found.
        auroc, average_precision: each class against all others, by softmax for scores of classes;
            the mean over those classes that some samples have and some have not. They keep all
            scores on the device.
        mae, mse, rmse: over all outputs.
        r2: the mean over outputs, 1 − Σ (y − ŷ)² / Σ (y − mean(y))², without those outputs whose
            targets are all the same.
        perplexity: exp of the mean of −ln softmax(scores)[class] over tokens, whatever label
            smoothing or class weights the loss has.

    An import path leads to a class, which is called without arguments, or to an object; either has
    `update(outputs, targets)`, `compute()` and `reset()`, as torchmetrics' have. Or it leads to a
    function `metric(outputs, targets)`, whose value is its mean over batches, weighted by samples:
    for a metric that is no mean over samples that is another number than its value over the part.
    Outputs in half precision come as float32.

    Args:
        names: of `METRICS`, or import paths.
        loss: torch's or Keras's name, or an import path.
        outputs: what the model returned for a real batch.
        targets: what the data hold for it.
        device: where the outputs and targets lie.
        directories: where modules of import paths are looked for.
        loss_args: the loss's arguments; `ignore_index` and `log_input` change what it reads.

    Raises:
        ComponentError: some metrics cannot be built or do not fit the batch; all of them at once.
    """
    args = loss_args or {}
    built: dict[str, Metric] = {}
    problems: list[Problem] = []
    taken = {field.name for field in fields(EpochRow)}
    for index, name in enumerate(names):
        try:
            if key(name) in built:
                raise UserError(f"another metric has the name '{key(name)}' already")  # noqa: TRY301  (one place words them all)
            if key(name) in taken:
                raise UserError(f"'{key(name)}' is a column of its own; rename the metric")  # noqa: TRY301  (likewise)
            metric: _Imported | _BuiltIn
            if lookup.is_import_path(name):
                metric = _imported(name, device, directories)
            else:
                metric = _built_in(name, canonical(loss), args, outputs, targets, device)
            metric.probe(outputs, targets)
        except UserError as error:
            problems.append(Problem(("metrics", index), str(error)))
        else:
            built[key(name)] = metric
    if problems:
        raise ComponentError(problems)
    return built


# --- What a loss says of outputs and targets


@dataclass(frozen=True, slots=True)
class _Reading:
    """What outputs and targets are; `width` is the number of classes, labels or values."""

    loss: str
    kind: Literal["Binary", "Multiclass", "Multilabel", "values"]
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
    kind: Literal["Binary", "Multiclass", "Multilabel", "values"]
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


_TASKS = {
    "Binary": "two classes",
    "Multiclass": "classes",
    "Multilabel": "labels",
    "values": "values",
}


def _why_not(name: str, reading: _Reading) -> str | None:
    """Say why a metric does not fit; None if it does."""
    if (name in _VALUES) != (reading.kind == "values"):
        compares = "values" if name in _VALUES else "classes"
        return f"compares {compares}, and {reading.loss} is for {_TASKS[reading.kind]}"
    if name in {"perplexity", "top_5_accuracy"} and reading.kind != "Multiclass":
        return f"takes scores of classes, and {reading.loss} is for {_TASKS[reading.kind]}"
    if name == "perplexity" and reading.loss == "multi_margin_loss":
        return f"takes logits, and {reading.loss} does not make probabilities of its scores"
    if name == "top_5_accuracy" and reading.width < 5:
        return f"needs five classes or more, and the outputs have {reading.width}"
    if reading.loss in _NO_THRESHOLD and name not in _RANKING:
        return f"needs a threshold between yes and no, and {reading.loss} has none"
    several = name not in {"accuracy", "top_5_accuracy", "perplexity", *_VALUES}
    if several and reading.width > _CLASSES_AT_MOST:
        return f"is for {_CLASSES_AT_MOST} classes at most, and the outputs have {reading.width}"
    return None


def _both(outputs: Tensor, targets: Tensor) -> str:
    parts = (("outputs", outputs), ("targets", targets))
    return ", ".join(f"{what} {tuple(t.shape)} {str(t.dtype)[6:]}" for what, t in parts)


# --- Built-in metrics


def _built_in(
    name: str,
    loss: str,
    args: Mapping[str, Any],
    outputs: Any,
    targets: Any,
    device: torch.device,
) -> _BuiltIn:
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        got = " and ".join(type(part).__name__ for part in (outputs, targets))
        raise UserError(
            f"{name} compares two tensors, but outputs and targets are {got}; "
            "an import path may name a metric for them"
        )
    try:
        reading = _read(loss, args, outputs, targets)
    except UserError as error:
        raise UserError(f"{name} {error}; {_both(outputs, targets)}") from None
    problem = _why_not(name, reading)
    if problem is not None:
        fitting = [other for other in METRICS if _why_not(other, reading) is None]
        advice = f"metrics that fit: {', '.join(fitting)}"
        raise UserError(f"{name} {problem}; {_both(outputs, targets)}; {advice}")
    return _BuiltIn(name, reading, device)


def _wide(device: torch.device) -> torch.dtype:
    """Return what sums are kept in: float64, which Apple's devices lack."""
    return torch.float32 if device.type == "mps" else torch.float64


class _BuiltIn:
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
        self._state.reset()
        self._compared = 0
        self._nan = torch.zeros((), dtype=torch.bool, device=self._device)

    def probe(self, outputs: Tensor, targets: Tensor) -> None:
        """Try one batch, which may well hold one class only."""
        with _worded(self._name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.update(outputs, targets)
            self.compute()
        self.reset()
        self._warned = False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        with torch.no_grad():
            predicted, true, nan = self._prepare(outputs, targets)
            self._nan = self._nan | nan
            self._compared += true.numel()
            if true.numel():
                self._state.update(predicted, true)

    def compute(self) -> float:
        if not self._compared:
            return self._none("there was nothing to compare")
        # An argmax or a threshold makes a class of NaN, and torchmetrics would count it.
        if bool(self._nan):
            return self._none("some outputs or targets are NaN")
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
            if name in _RANKING:
                scores = outputs.movedim(1, -1)[counted].to(_wide(outputs.device)).softmax(-1)
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
            wide = _wide(outputs.device)
            predicted, true = reading.values(outputs.to(wide)), targets.to(wide)
            return predicted.reshape(len(true), -1), true.reshape(len(true), -1), nan
        true = reading.labels(targets)
        probabilities = reading.loss == "binary_cross_entropy"
        if name not in _RANKING:
            return (outputs > (0.5 if probabilities else 0.0)).long(), true, nan
        scores = outputs.to(_wide(outputs.device))
        if reading.loss == "hinge_embedding_loss":  # distances: small for those alike
            scores = -scores
        if not probabilities:
            # into (0, 1) in the same order; a sigmoid would tie all logits above 37
            scores = (1 + scores / (1 + scores.abs())) / 2
            nan = nan | scores.isnan().any()
        return scores, true, nan

    def _value(self) -> tuple[float, str]:
        """Return the value, NaN where there is none, and why there would be none."""
        name, kind, state = self._name, self._reading.kind, self._state
        if name in _RANKING:
            scores = state.compute().reshape(-1)
            true = torch.cat(list(state.target))
            if kind == "Multiclass":
                positives = torch.bincount(true, minlength=len(scores))
            else:
                positives = true.reshape(-1, len(scores)).sum(0)
            both = (positives > 0) & (positives < true.numel() // (true.numel() // len(true)))
            if kind != "Multiclass":
                both = (positives > 0) & (positives < true.numel() // len(scores))
            return float(scores[both].mean()), "it needs two classes, and the targets hold one"
        if name in {"precision", "recall", "f1"}:
            scores = state.compute()
            if kind == "Binary":
                parts = {"precision": state.tp + state.fp, "recall": state.tp + state.fn}
                counts = parts.get(name, state.tp + state.fp + state.fn)
                ends = {"precision": "no prediction is class 1", "recall": "no target is class 1"}
                why = ends.get(name, "neither a target nor a prediction is class 1")
                return (float(scores) if bool(counts > 0) else math.nan), why
            occurs = state.tp + state.fp + state.fn > 0
            return float(scores[occurs].mean()), "no label occurs"
        why = {
            "r2": "the targets are all the same",
            "perplexity": "no target counts, or scores are NaN",
        }.get(name, "its sum is not a number")
        return float(state.compute()), why


def _state(name: str, reading: _Reading, device: torch.device) -> Any:
    """Return what gathers a metric: torchmetrics' object, or ours where torchmetrics' errs."""
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
        return state.to(device).set_dtype(_wide(device))
    module = importlib.import_module("torchmetrics.classification")
    args: dict[str, Any] = {"validate_args": False}  # that would read each batch; the probe is ours
    if reading.kind != "Binary":
        args["average"] = "micro" if _CLASSES[name] == "Accuracy" else None
        args["num_classes" if reading.kind == "Multiclass" else "num_labels"] = reading.width
    return getattr(module, reading.kind + _CLASSES[name])(**args).to(device)


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
        return (1 - self._errors[varies] / total[varies]).mean()


class _Perplexity:
    """exp of the mean cross-entropy: torchmetrics' logarithm of a softmax is infinite below 1e-45."""

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._tokens: Tensor | int = 0

    def update(self, scores: Tensor, true: Tensor) -> None:
        loss = F.cross_entropy(scores.float(), true, ignore_index=-100, reduction="sum")
        self._sum = self._sum + loss.to(_wide(scores.device))
        self._tokens = self._tokens + (true != -100).sum()

    def compute(self) -> Tensor:
        return torch.exp(torch.as_tensor(self._sum / self._tokens))


# --- Import paths


def _imported(name: str, device: torch.device, directories: Sequence[Path]) -> _Imported:
    found = lookup.resolve(name, directories)
    with _worded(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics speaks of memory
        if inspect.isclass(found):
            found = found()
        if isinstance(found, nn.Module):
            found = found.to(device)
    if all(callable(getattr(found, part, None)) for part in ("update", "compute", "reset")):
        return _Imported(name, found)
    if not callable(found):
        raise UserError(f"{name} is a {type(found).__name__}; it cannot be called")
    return _Imported(name, _Mean(name, found))


class _Imported:
    """A user's metric object: its errors and warnings in words, its value a float."""

    def __init__(self, name: str, metric: Any) -> None:
        self._name = name
        self._metric = metric
        self._warned = False
        self.reset()

    def reset(self) -> None:
        self._updates = 0
        with _worded(self._name):
            self._metric.reset()

    def probe(self, outputs: Any, targets: Any) -> None:
        """Try one batch."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.update(outputs, targets)
                self.compute()
        except UserError as error:
            if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
                raise UserError(f"{error}; {_both(outputs, targets)}") from error
            raise
        self.reset()
        self._warned = False

    def update(self, outputs: Any, targets: Any) -> None:
        if isinstance(outputs, Tensor):
            half = outputs.dtype in {torch.bfloat16, torch.float16}
            outputs = outputs.detach().float() if half else outputs.detach()
        with _worded(self._name), torch.no_grad():
            self._metric.update(outputs, targets)
        self._updates += 1

    def compute(self) -> float:
        if not self._updates:
            self._warn("has no value: there was nothing to compare")
            return math.nan
        with _worded(self._name), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = self._metric.compute()
        if caught:
            self._warn(f"says: {caught[0].message}")
        return _scalar(self._name, value)

    def _warn(self, words: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the metric {self._name} {words}", LrtoolWarning, stacklevel=3)


class _Mean:
    """The mean of a function's values over batches, weighted by samples."""

    def __init__(self, name: str, function: Any) -> None:
        self._name = name
        self._function = function

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._samples = 0

    def update(self, outputs: Any, targets: Any) -> None:
        samples = next((len(t) for t in (targets, outputs) if isinstance(t, Tensor) and t.ndim), 0)
        if not samples:
            raise UserError(
                f"{self._name} is a function, and its mean is weighted by samples, but neither "
                "targets nor outputs are a tensor with samples; make it a class with update, "
                "compute and reset"
            )
        value = self._function(outputs, targets)
        if isinstance(value, Tensor) and value.numel() == 1:  # stays on the device, unread
            value = value.detach().reshape(()).to(_wide(value.device))
        else:
            value = _scalar(self._name, value)
        self._sum = self._sum + value * samples
        self._samples += samples

    def compute(self) -> Tensor | float:
        return self._sum / self._samples


def _scalar(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise UserError(f"{name} gives shape {tuple(value.shape)}, not a scalar")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} gives a {type(value).__name__}, not a number") from None


@contextmanager
def _worded(name: str) -> Iterator[None]:
    """Turn whatever torchmetrics or a user's code raises into words."""
    try:
        yield
    except (torch.OutOfMemoryError, LrtoolError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{name} failed: {lookup.words(error)}") from error
