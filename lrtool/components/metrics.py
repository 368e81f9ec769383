"""The metrics that a configuration may name: those of `METRICS`, or an import path.

An entry of the table is all that a new metric needs. torchmetrics takes a second to import, so
only a metric that needs it imports it.
"""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lrtool.components import import_path
from lrtool.components.losses import spell_both
from lrtool.components.metric_inputs import Compares, Reading, prepare, read, sum_type, why_not
from lrtool.components.user_metrics import UserMetric, user_metric, worded
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


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
    if not import_path.is_import_path(name):
        return METRICS[name].higher_is_better
    found = import_path.resolve(name, directories)
    says = inspect.getattr_static(found, "higher_is_better", None)  # runs no code of the user's
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
) -> dict[str, BuiltInMetric | UserMetric]:
    """Build metrics, try each on one batch, and return them empty, by their keys.

    What a batch holds, the loss tells (see `metric_inputs.Reading`).

    An import path leads to a class, which is called without arguments, or to an object; either has
    `update(outputs, targets)`, `compute()` and `reset()`, as torchmetrics' have. Or it leads to a
    function `metric(outputs, targets)`, whose value is its mean over batches, weighted by samples:
    for a metric that is no mean over samples that is another number than its value over the part.
    Outputs in half precision come as float32.

    Args:
        names: of `METRICS`, or import paths; their keys are different ones.
        loss: torch's or Keras's name, or an import path.
        outputs: what the model returned for a real batch.
        targets: what the data hold for it.
        device: where the outputs and targets lie.
        directories: where modules of import paths are looked for.
        loss_args: the loss's arguments; `ignore_index` and `log_input` change what it reads.

    Raises:
        ConfigError: some metrics cannot be built or do not fit the batch; all of them at once.
    """
    built: dict[str, BuiltInMetric | UserMetric] = {}
    problems: list[Problem] = []
    for index, name in enumerate(names):
        try:
            metric: BuiltInMetric | UserMetric
            if import_path.is_import_path(name):
                metric = user_metric(name, device, directories)
            else:
                metric = BuiltInMetric(name, _reading(name, loss, loss_args, outputs, targets))
            metric.probe(outputs, targets)
        except UserError as error:
            problems.append(Problem(("metrics", index), str(error)))
        else:
            built[key(name)] = metric
    if problems:
        raise ConfigError(*problems)
    return built


def _reading(
    name: str, loss: str, loss_args: Mapping[str, Any] | None, outputs: Any, targets: Any
) -> Reading:
    """Return what a built-in metric's batches hold.

    Raises:
        UserError: the metric does not fit, and which ones do.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        got = " and ".join(type(part).__name__ for part in (outputs, targets))
        raise UserError(
            f"{name} compares two tensors, but outputs and targets are {got}; "
            "an import path may name a metric for them"
        )
    try:
        reading = read(loss, loss_args or {}, outputs, targets)
    except UserError as error:
        raise UserError(f"{name} {error}; {spell_both(outputs, targets)}") from None
    problem = METRICS[name].why_not(reading)
    if problem is not None:
        fitting = [other for other, entry in METRICS.items() if entry.why_not(reading) is None]
        advice = f"metrics that fit: {', '.join(fitting)}"
        raise UserError(f"{name} {problem}; {spell_both(outputs, targets)}; {advice}")
    return reading


class BuiltInMetric:
    """A metric by its name, for batches that have been read."""

    def __init__(self, name: str, reading: Reading) -> None:
        self._name = name
        self._reading = reading
        self._compares = METRICS[name].compares
        self._warned = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics speaks of memory
            self._totals = METRICS[name].totals(reading)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._totals.reset()
        self._compared = 0
        self._nan = torch.zeros((), dtype=torch.bool, device=self._reading.device)

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
            predicted, true, nan = prepare(self._compares, self._reading, outputs, targets)
            self._nan = self._nan | nan
            self._compared += true.numel()
            if true.numel():
                self._totals.update(predicted, true)

    def compute(self) -> float:
        """Return the value over all batches; NaN where there is none."""
        if not self._compared:
            return self._none("there was nothing to compare")
        # An argmax or a threshold makes a class of NaN, and that would be counted.
        if bool(self._nan):
            return self._none("some outputs or targets are NaN or infinite")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics' own for what is NaN here
            value = float(self._totals.compute())
        return self._none(self._totals.missing) if math.isnan(value) else value

    def _none(self, why: str) -> float:
        if not self._warned:
            self._warned = True
            words = f"the metric {self._name} has no value: {why}"
            warnings.warn(words, LrtoolWarning, stacklevel=3)
        return math.nan


class Totals(Protocol):
    """What a metric keeps of the batches that it has seen."""

    missing: str  # why there is no value, where it is NaN

    def reset(self) -> None:
        """Forget all batches; called before the first one, too."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add a batch, as `prepare` makes it: at least one element, and maybe NaN."""

    def compute(self) -> Tensor:
        """Return the value, NaN where there is none."""


class _Accuracy:
    """The share of predictions that are right, of all samples, tokens, pixels or labels alike."""

    missing = "nothing was counted"

    def reset(self) -> None:
        self._right: Tensor | int = 0
        self._count = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._right = self._right + (predicted == true).sum()
        self._count += true.numel()

    def compute(self) -> Tensor:
        return torch.tensor(float(self._right)) / torch.tensor(float(self._count))


class _OfTorchmetrics:
    """A metric of torchmetrics.classification, which has three for each name."""

    missing: str

    def __init__(self, name: str, reading: Reading) -> None:
        self._kind = reading.kind
        args: dict[str, Any] = {"validate_args": False}  # that would read each batch
        task = "Binary"
        if self._kind == "classes":
            task, args = "Multiclass", {**args, "num_classes": reading.width, "average": None}
        elif self._kind == "labels":
            task, args = "Multilabel", {**args, "num_labels": reading.width, "average": None}
        module = importlib.import_module("torchmetrics.classification")
        self._metric = getattr(module, task + name)(**args).to(reading.device)

    def reset(self) -> None:
        self._metric.reset()

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._metric.update(predicted, true)


class _OfEachClass(_OfTorchmetrics):
    """That of class 1 where there is one output; else the mean over classes or labels.

    The mean is over those that targets or predictions hold, with 0 for one of which nothing is
    found.
    """

    def __init__(
        self, name: str, divides_by: tuple[str, ...], missing: str, reading: Reading
    ) -> None:
        super().__init__(name, reading)
        self._divides_by = divides_by
        self.missing = missing if self._kind == "two classes" else "no label occurs"

    def compute(self) -> Tensor:
        metric = self._metric
        scores: Tensor = metric.compute()
        if self._kind == "two classes":
            counted = sum(getattr(metric, count) for count in self._divides_by) > 0
            return scores.where(counted, math.nan)
        return scores[metric.tp + metric.fp + metric.fn > 0].mean()


class _Ranking(_OfTorchmetrics):
    """Each class against all others; the mean over those that some samples have and some have not.

    All scores stay on the device.
    """

    missing = "it needs two classes, and the targets hold one"

    def compute(self) -> Tensor:
        scores: Tensor = self._metric.compute().reshape(-1)
        true = torch.cat(list(self._metric.target))
        if self._kind == "classes":
            positives = torch.bincount(true, minlength=len(scores))
        else:
            positives = true.reshape(-1, len(scores)).sum(0)
        return scores[(positives > 0) & (positives < len(true))].mean()


class _MeanError:
    """`then` of the mean over samples and outputs of what `of` makes of an error."""

    missing = "its sum is not a number"

    def __init__(
        self, of: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor] = torch.as_tensor
    ) -> None:
        self._of = of
        self._then = then

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._sum = self._sum + self._of(predicted - true).sum()
        self._count += true.numel()

    def compute(self) -> Tensor:
        return self._then(torch.as_tensor(self._sum / self._count))


class _R2:
    """1 − Σ (y − ŷ)² / Σ (y − mean(y))²; the mean over outputs whose targets differ.

    torchmetrics takes sums of squares below 1e-4 for zero, and so calls a fit to small targets
    perfect; it also subtracts large squares where the mean is far from zero. These sums are around
    the first row of targets.
    """

    missing = "the targets are all the same"

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
    """exp of the mean of −ln softmax(scores)[class], whatever smoothing or weights the loss has.

    torchmetrics takes the log of a softmax, which may be 0.
    """

    missing = "no target counts, or scores are NaN"

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._tokens: Tensor | int = 0

    def update(self, scores: Tensor, true: Tensor) -> None:
        loss = F.cross_entropy(scores.float(), true, ignore_index=-100, reduction="sum")
        self._sum = self._sum + loss.to(sum_type(scores.device))
        self._tokens = self._tokens + (true != -100).sum()

    def compute(self) -> Tensor:
        return torch.exp(torch.as_tensor(self._sum / self._tokens))


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A metric that a configuration may name.

    Attributes:
        description: what `lrtool list metrics` says.
        compares: what `metric_inputs.prepare` makes of outputs and targets for it.
        totals: makes what keeps the batches; of what they hold.
        higher_is_better: whether more is better.
        most_classes: it is for so many classes or labels at most; None: for any number.
    """

    description: str
    compares: Compares
    totals: Callable[[Reading], Totals]
    higher_is_better: bool = True
    most_classes: int | None = None

    def why_not(self, reading: Reading) -> str | None:
        """Say why the metric does not fit such batches; None if it does."""
        problem = why_not(self.compares, reading)
        if problem is None and self.most_classes and reading.width > self.most_classes:
            most = f"is for {self.most_classes} classes at most"
            return f"{most}, and the outputs have {reading.width}"
        return problem

    def needs_two_classes(self) -> bool:
        """Tell whether there is no value where all targets are the same."""
        return self.compares == "scores"


# torchmetrics counts each pair of classes, and for a ranking it keeps each score.
_MANY = 4096

METRICS: dict[str, MetricEntry] = {
    "accuracy": MetricEntry(
        "share of predictions that are right: of classes the most likely, of labels each",
        "classes",
        lambda _: _Accuracy(),
    ),
    "top_5_accuracy": MetricEntry(
        "share of samples whose class is among the five most likely",
        "five classes",
        lambda _: _Accuracy(),
    ),
    "precision": MetricEntry(
        "right among those said to be of a class, mean over classes",
        "classes",
        partial(_OfEachClass, "Precision", ("tp", "fp"), "no prediction is class 1"),
        most_classes=_MANY,
    ),
    "recall": MetricEntry(
        "found among those of a class, mean over classes",
        "classes",
        partial(_OfEachClass, "Recall", ("tp", "fn"), "no target is class 1"),
        most_classes=_MANY,
    ),
    "f1": MetricEntry(
        "harmonic mean of precision and recall, mean over classes",
        "classes",
        partial(
            _OfEachClass,
            "F1Score",
            ("tp", "fp", "fn"),
            "neither a target nor a prediction is class 1",
        ),
        most_classes=_MANY,
    ),
    "auroc": MetricEntry(
        "area under the receiver operating characteristic, mean over classes",
        "scores",
        partial(_Ranking, "AUROC"),
        most_classes=_MANY,
    ),
    "average_precision": MetricEntry(
        "area under the precision-recall curve in steps, mean over classes",
        "scores",
        partial(_Ranking, "AveragePrecision"),
        most_classes=_MANY,
    ),
    "mae": MetricEntry(
        "mean absolute error", "values", lambda _: _MeanError(torch.abs), higher_is_better=False
    ),
    "mse": MetricEntry(
        "mean squared error", "values", lambda _: _MeanError(torch.square), higher_is_better=False
    ),
    "rmse": MetricEntry(
        "root of the mean squared error",
        "values",
        lambda _: _MeanError(torch.square, then=torch.sqrt),
        higher_is_better=False,
    ),
    "r2": MetricEntry(
        "share of the variance that is explained, mean over outputs", "values", lambda _: _R2()
    ),
    "perplexity": MetricEntry(
        "exp of the mean cross-entropy of a token",
        "logits",
        lambda _: _Perplexity(),
        higher_is_better=False,
    ),
}
