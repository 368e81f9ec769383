"""Loss and metrics of a model on a part of the data."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from lrtool.engine.step import forward, own_loss, samples_in, scalar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction

READ_AFTER_BATCHES = 256


class Metric(Protocol):
    """A metric over many batches."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Take a batch into account."""

    def compute(self) -> float:
        """Return the value over all batches since the last reset; NaN where it has none."""

    def reset(self) -> None:
        """Forget all batches."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        loss: sum over samples / number of samples.
        samples: how many there were.
        metrics: each one's value by its name.
    """

    loss: float
    samples: int
    metrics: dict[str, float]


def evaluate(
    model: nn.Module,
    loss_fn: LossFunction | None,
    batches: Iterable[Any],
    runtime: Runtime,
    metrics: Mapping[str, Metric],
) -> Generator[int, None, Evaluation]:
    """Yield the number of samples seen after each batch; return the evaluation.

    Dropout is off and batch norm uses its running statistics. Without `loss_fn`, the loss is the
    model's `validation_loss(batch)` if it has that, else its training loss.
    """
    pending: list[Tensor] = []
    counts: list[int] = []
    total, samples = 0.0, 0
    for metric in metrics.values():
        metric.reset()
    with evaluating(model):
        for batch in batches:
            count = samples_in(batch)
            with torch.no_grad(), runtime.autocast():
                pending.append(_loss(model, loss_fn, batch, metrics.values()))
            counts.append(count)
            samples += count
            if len(pending) >= READ_AFTER_BATCHES:
                total += _weighted(pending, counts)
            yield samples
        total += _weighted(pending, counts)
        values = {name: metric.compute() for name, metric in metrics.items()}
    return Evaluation(total / samples if samples else float("nan"), samples, values)


def losses(
    model: nn.Module, loss_fn: LossFunction | None, batches: Iterable[Any], runtime: Runtime
) -> list[float]:
    """Return the mean loss of each batch, as `evaluate` sees it; the batches can be used again."""
    with evaluating(model), torch.no_grad(), runtime.autocast():
        each = [_loss(model, loss_fn, copy.deepcopy(batch), ()) for batch in batches]
    values: list[float] = torch.stack(each).tolist() if each else []
    return values


def _loss(
    model: nn.Module, loss_fn: LossFunction | None, batch: Any, metrics: Iterable[Metric]
) -> Tensor:
    """Return the loss of a batch and show its outputs to the metrics."""
    metrics = list(metrics)
    outputs = targets = None
    if loss_fn is not None or metrics:
        outputs, targets = forward(model, batch)
    for metric in metrics:
        metric.update(outputs, targets)
    if loss_fn is not None:
        return scalar(loss_fn(outputs, targets))
    if hasattr(model, "validation_loss"):
        return scalar(model.validation_loss(batch))  # type: ignore[operator]
    return scalar(own_loss(model, batch))


def _weighted(losses: list[Tensor], counts: list[int]) -> float:
    """Read losses in bulk, sum them weighted by samples, and forget them."""
    values = torch.stack(losses).tolist() if losses else []
    total = sum(loss * count for loss, count in zip(values, counts, strict=True))
    losses.clear()
    counts.clear()
    return float(total)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode inside the block, then back into its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
