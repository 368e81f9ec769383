"""Metrics: those of the table `METRICS`, or an import path.

A new metric is an entry of the table. torchmetrics takes a second to import, so only metrics that
need it import it.
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
from lrtool.components.losses import not_tensors, shapes
from lrtool.components.metric_inputs import (
    Compares,
    Reading,
    Units,
    prepare,
    read,
    sum_type,
    why_not,
)
from lrtool.components.user_metrics import UserMetric, merge_states, user_metric, worded
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lrtool.ranks import Ranks


def key(name: str) -> str:
    """Return a metric's key in an epoch's row: its name, or the last part of an import path."""
    return name.rpartition(":")[2].rpartition(".")[2]


def higher_is_better(name: str, directories: Sequence[Path] = ()) -> bool | None:
    """Tell whether higher is better; None where that is unknown.

    The user's own metric may say it in an attribute `higher_is_better`, as in torchmetrics.

    Raises:
        UserError: the import path leads nowhere.
    """
    if not import_path.is_import_path(name):
        return METRICS[name].higher_is_better
    metric = import_path.resolve(name, directories)
    better = inspect.getattr_static(
        metric, "higher_is_better", None
    )  # runs none of the user's code
    return better if isinstance(better, bool) else None


def build_metrics(
    names: Sequence[str],
    *,
    loss: str,
    outputs: Any,
    targets: Any,
    device: torch.device,
    directories: Sequence[Path],
    loss_args: Mapping[str, Any] | None = None,
    units: Units | None = None,
) -> dict[str, BuiltInMetric | UserMetric]:
    """Build metrics, try each on one batch, and return them empty, by their keys.

    An import path leads to an object with `update(outputs, targets)`, `compute()` and `reset()`, as
    in torchmetrics; to a class of such objects, called without arguments; or to a function
    `metric(outputs, targets)`, whose values are averaged over batches, weighted by samples. For a
    metric that is not a mean over samples, that average differs from its value over the whole set.
    Own metrics get half-precision outputs as float32.

    Args:
        names: of `METRICS`, or import paths, with different keys.
        loss: torch's or Keras's name, or an import path.
        outputs: of the model for a real batch.
        targets: of the same batch.
        device: of both.
        directories: where modules of import paths are looked for.
        loss_args: the loss's arguments; `ignore_index` and `log_input` matter.
        units: in which metrics compare values; None: those of outputs and targets.

    Raises:
        ConfigError: metrics cannot be built or do not fit the batch; all problems at once.
    """
    built: dict[str, BuiltInMetric | UserMetric] = {}
    problems: list[Problem] = []
    for index, name in enumerate(names):
        try:
            metric: BuiltInMetric | UserMetric
            if import_path.is_import_path(name):
                metric = user_metric(name, device, directories, units)
            else:
                reading = _reading(name, loss, loss_args, outputs, targets)
                metric = BuiltInMetric(name, reading, units)
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
        UserError: the metric does not fit, and which metrics do.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise UserError(
            f"{name} {not_tensors(outputs, targets)}; give the import path of a metric for them"
        )
    try:
        reading = read(loss, loss_args or {}, outputs, targets)
    except UserError as error:
        raise UserError(f"{name} {error}{shapes(outputs, targets)}") from None
    problem = METRICS[name].why_not(reading)
    if problem is not None:
        fitting = [other for other, entry in METRICS.items() if entry.why_not(reading) is None]
        advice = f"metrics that fit: {', '.join(fitting)}"
        raise UserError(f"{name} {problem}{shapes(outputs, targets)}; {advice}")
    return reading


class BuiltInMetric:
    """A built-in metric for batches of a known kind."""

    merges = True

    def __init__(self, name: str, reading: Reading, units: Units | None = None) -> None:
        self._name = name
        self._reading = reading
        self._units = units if reading.kind == "values" else None
        self._compares = METRICS[name].compares
        self._warned = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics warns of the memory it takes
            self._totals = METRICS[name].totals(reading)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._totals.reset()
        self._compared = 0
        self._nan = torch.zeros((), dtype=torch.bool, device=self._reading.device)

    def probe(self, outputs: Tensor, targets: Tensor) -> None:
        """Try one batch, which may hold only one class."""
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
            if self._units is not None:
                predicted, true = self._units.restore(predicted), self._units.restore(true)
            self._nan = self._nan | nan
            self._compared += true.numel()
            if true.numel():
                self._totals.update(predicted, true)

    def merge(self, ranks: Ranks) -> None:
        """Add the batches of the other ranks."""
        if not ranks.several:
            return
        self._compared, nan = map(int, ranks.sums([self._compared, bool(self._nan)]))
        self._nan = torch.tensor(nan > 0)
        if self._compared:
            self._totals.merge(ranks)

    def compute(self) -> float:
        """Return the value over all batches, or NaN with a warning."""
        if not self._compared:
            return self._none("there was nothing to compare")
        # An argmax or a threshold would turn NaN into a class.
        if bool(self._nan):
            return self._none("some outputs or targets are NaN or infinite")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics warns where the value is NaN here
            value = float(self._totals.compute())
        return self._none(self._totals.missing) if math.isnan(value) else value

    def _none(self, why: str) -> float:
        if not self._warned:
            self._warned = True
            words = f"the metric {self._name} has no value: {why}"
            warnings.warn(words, LrtoolWarning, stacklevel=3)
        return math.nan


class Totals(Protocol):
    """Running totals of a metric."""

    missing: str  # why the value may be NaN

    def reset(self) -> None:
        """Forget all batches. Called before the first one too."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add a batch from `prepare`: at least one element, maybe NaN."""

    def merge(self, ranks: Ranks) -> None:
        """Add the batches of the other ranks, of which one at least has any."""

    def compute(self) -> Tensor:
        """Return the value, or NaN."""


def _sums(ranks: Ranks, *own: Tensor | float) -> Tensor:
    return torch.tensor(ranks.sums([float(each) for each in own]), dtype=torch.float64)


class _Accuracy:
    """The share of right predictions, each sample, token, pixel or label counted alike."""

    missing = "nothing was counted"

    def reset(self) -> None:
        self._right: Tensor | int = 0
        self._count: Tensor | int = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._right = self._right + (predicted == true).sum()
        self._count += true.numel()

    def merge(self, ranks: Ranks) -> None:
        self._right, self._count = _sums(ranks, self._right, self._count)

    def compute(self) -> Tensor:
        return torch.tensor(float(self._right)) / torch.tensor(float(self._count))


class _OfEachClass:
    """A score of class 1 where there is one output; else its mean over classes or labels.

    A class that neither predictions nor targets hold does not count. A score of 0 / 0 counts as 0.

    Args:
        score: of each class, from the numbers of right predictions, predictions and targets.
        missing: why the score of class 1 may be 0 / 0.
        reading: what the batches hold.
    """

    def __init__(
        self, score: Callable[[Tensor, Tensor, Tensor], Tensor], missing: str, reading: Reading
    ) -> None:
        self._score = score
        self._reading = reading
        self.missing = missing if reading.kind == "two classes" else "no label occurs"

    def reset(self) -> None:
        width = self._reading.width
        self._counts = torch.zeros(3, width, dtype=torch.long, device=self._reading.device)

    def update(self, predicted: Tensor, true: Tensor) -> None:
        width = self._reading.width
        if self._reading.kind == "classes":
            each = (predicted[predicted == true], predicted, true)
            counts = [torch.bincount(classes, minlength=width) for classes in each]
        else:
            predicted, true = (t.reshape(len(true), width, -1) for t in (predicted, true))
            counts = [labels.sum((0, 2)) for labels in (predicted & true, predicted, true)]
        self._counts = self._counts + torch.stack(counts)

    def merge(self, ranks: Ranks) -> None:
        counts = ranks.sums(self._counts.flatten().tolist())
        self._counts = torch.tensor(counts).long().reshape(self._counts.shape)

    def compute(self) -> Tensor:
        right, predicted, true = self._counts
        scores = self._score(right, predicted, true)
        if self._reading.kind == "two classes":
            return scores
        return scores.nan_to_num(0.0)[predicted + true > 0].mean()


class _Ranking:
    """A metric of torchmetrics.classification: each class against all others, then the mean.

    A class that all samples have, or none, does not count. All scores stay on the device.
    """

    missing = "it needs two classes, and the targets hold one"

    def __init__(self, name: str, reading: Reading) -> None:
        self._kind = reading.kind
        # It must neither wait for the device at each batch, nor add up the ranks by itself.
        args: dict[str, Any] = {"validate_args": False, "sync_on_compute": False}
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

    def merge(self, ranks: Ranks) -> None:
        merge_states(self._metric, ranks)

    def compute(self) -> Tensor:
        scores: Tensor = self._metric.compute().reshape(-1)
        true = torch.cat(list(self._metric.target))
        if self._kind == "classes":
            positives = torch.bincount(true, minlength=len(scores))
        else:
            positives = true.reshape(-1, len(scores)).sum(0)
        return scores[(positives > 0) & (positives < len(true))].mean()


class _MeanError:
    """`then(mean(of(error)))`, the mean over samples and outputs."""

    missing = "its sum is not a number"

    def __init__(
        self, of: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor] = torch.as_tensor
    ) -> None:
        self._of = of
        self._then = then

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count: Tensor | int = 0

    def update(self, predicted: Tensor, true: Tensor) -> None:
        self._sum = self._sum + self._of(predicted - true).sum()
        self._count += true.numel()

    def merge(self, ranks: Ranks) -> None:
        self._sum, self._count = _sums(ranks, self._sum, self._count)

    def compute(self) -> Tensor:
        return self._then(torch.as_tensor(self._sum / self._count))


class _R2:
    """1 − Σ (y − ŷ)² / Σ (y − mean(y))²; the mean over outputs whose targets differ.

    Unlike in torchmetrics, sums of squares below 1e-4 are not taken for 0, and sums are relative to
    the first row of targets, so that a mean far from 0 costs no precision.
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

    def merge(self, ranks: Ranks) -> None:
        own = None
        if self._origin is not None:
            sums = (self._origin, self._deviations, self._squares, self._errors)
            own = (self._samples, [each.cpu() for each in sums])
        self.reset()
        for samples, (origin, deviations, squares, errors) in filter(None, ranks.gather(own)):
            if self._origin is None:
                self._origin = origin
                self._deviations, self._squares, self._errors = torch.zeros(3, *origin.shape).to(
                    origin
                )
            shift = origin - self._origin
            self._samples += samples
            self._deviations = self._deviations + deviations + samples * shift
            self._squares = (
                self._squares + squares + 2 * shift * deviations + samples * shift.square()
            )
            self._errors = self._errors + errors

    def compute(self) -> Tensor:
        total = self._squares - self._deviations.square() / self._samples
        varies = total > 0
        scores: Tensor = 1 - self._errors[varies] / total[varies]
        return scores.mean()


class _Perplexity:
    """exp of the mean of −ln softmax(scores)[class], without the loss's smoothing or weights.

    torchmetrics takes the log of a softmax, which may underflow to 0.
    """

    missing = "no target counts, or scores are NaN"

    def reset(self) -> None:
        self._sum: Tensor | float = 0.0
        self._tokens: Tensor | int = 0

    def update(self, scores: Tensor, true: Tensor) -> None:
        loss = F.cross_entropy(scores.float(), true, ignore_index=-100, reduction="sum")
        self._sum = self._sum + loss.to(sum_type(scores.device))
        self._tokens = self._tokens + (true != -100).sum()

    def merge(self, ranks: Ranks) -> None:
        self._sum, self._tokens = _sums(ranks, self._sum, self._tokens)

    def compute(self) -> Tensor:
        return torch.exp(torch.as_tensor(self._sum / self._tokens))


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A metric that a configuration may name.

    Attributes:
        description: for `lrtool list metrics`.
        compares: what `metric_inputs.prepare` makes of outputs and targets.
        totals: makes the running totals.
        higher_is_better: whether higher is better.
        most_classes: the largest number of classes or labels; None: no limit.
    """

    description: str
    compares: Compares
    totals: Callable[[Reading], Totals]
    higher_is_better: bool = True
    most_classes: int | None = None

    def why_not(self, reading: Reading) -> str | None:
        """Return why the metric does not fit such batches; None if it does."""
        problem = why_not(self.compares, reading)
        if problem is None and self.most_classes and reading.width > self.most_classes:
            most = f"is for {self.most_classes} classes at most"
            return f"{most}, and the outputs have {reading.width}"
        return problem

    def needs_two_classes(self) -> bool:
        """Tell whether there is no value if all targets are the same."""
        return self.compares == "scores"


_MOST_RANKED = 4096  # a ranking keeps every score of every class

METRICS: dict[str, MetricEntry] = {
    "accuracy": MetricEntry(
        "share of right predictions: of the most likely class, or of each label",
        "classes",
        lambda _: _Accuracy(),
    ),
    "top_5_accuracy": MetricEntry(
        "share of samples whose class is among the five most likely",
        "five classes",
        lambda _: _Accuracy(),
    ),
    "precision": MetricEntry(
        "share of a class's predictions that are right, mean over classes",
        "classes",
        partial(
            _OfEachClass, lambda right, predicted, _: right / predicted, "no prediction is class 1"
        ),
    ),
    "recall": MetricEntry(
        "share of a class's samples that are found, mean over classes",
        "classes",
        partial(_OfEachClass, lambda right, _, true: right / true, "no target is class 1"),
    ),
    "f1": MetricEntry(
        "harmonic mean of precision and recall, mean over classes",
        "classes",
        partial(
            _OfEachClass,
            lambda right, predicted, true: 2 * right / (predicted + true),
            "neither a target nor a prediction is class 1",
        ),
    ),
    "auroc": MetricEntry(
        "area under the receiver operating characteristic, mean over classes",
        "scores",
        partial(_Ranking, "AUROC"),
        most_classes=_MOST_RANKED,
    ),
    "average_precision": MetricEntry(
        "area under the precision-recall curve in steps, mean over classes",
        "scores",
        partial(_Ranking, "AveragePrecision"),
        most_classes=_MOST_RANKED,
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
