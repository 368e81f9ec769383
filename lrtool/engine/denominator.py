"""What the loss of a batch is a mean over, so that the loss of many batches is that of one.

A mean is taken over samples, over labels that are not ignored, or over the weights of their
classes. The loss of a part of the data, of an update of several batches, or of an epoch is the one
that the loss function gives for all of it as a single batch: Σ dᵢ·lossᵢ / Σ dᵢ, where dᵢ is the
denominator of batch i. A loss that is a sum over its batch (`reduction="sum"`) has none: such
losses are added.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.batch import Share, samples_in, targets_of, with_targets
from lrtool.engine.sample_weight import unweighted
from lrtool.engine.weights import plain
from lrtool.errors import DataError
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lrtool.ranks import Ranks

# A tensor without dimensions where it depends on the targets, which lie on an accelerator: nothing
# waits for it. None: losses are added.
Denominator: TypeAlias = Tensor | float | None

Over = Literal["classes", "elements", "samples"]

IGNORED = -100  # torch's default of `ignore_index`

# What the losses of torch are means over.
_OVER: dict[Callable[..., Any], Over] = {
    F.cross_entropy: "classes",
    F.nll_loss: "classes",
    F.mse_loss: "elements",
    F.l1_loss: "elements",
    F.smooth_l1_loss: "elements",
    F.huber_loss: "elements",
    F.poisson_nll_loss: "elements",
    F.binary_cross_entropy: "elements",
    F.binary_cross_entropy_with_logits: "elements",
    F.kl_div: "elements",
    F.soft_margin_loss: "elements",
    F.hinge_embedding_loss: "elements",
}
_MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.KLDivLoss: F.kl_div,
    nn.SoftMarginLoss: F.soft_margin_loss,
    nn.HingeEmbeddingLoss: F.hinge_embedding_loss,
}

_OVER_CLASSES = {kind for kind, like in _MODULES.items() if _OVER[like] == "classes"}


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a loss makes one number of a batch.

    Attributes:
        over: what its mean is taken over. classes: labels that are not ignored, by the weight of
            their classes, or predictions where targets are a probability for each class; elements:
            of the targets; samples: or labels that are not ignored where targets are integers.
        summed: it is a sum instead.
        ignored: the class index of targets that are ignored.
        weight: of each class; None: all are alike.
        counted: a class that counts.
        shifted: a language model's, which predicts no first token: its label counts nothing.
        model: whose forward tells whether a batch has weights of samples; None: none has.
    """

    over: Over
    summed: bool = False
    ignored: int = IGNORED
    weight: Tensor | None = None
    counted: int = 0
    shifted: bool = False
    model: nn.Module | None = field(default=None, compare=False, repr=False)

    def denominator(self, batch: Any) -> Denominator:
        """Return the denominator of a batch's loss; 0 where all of its targets are ignored.

        Of a rank's share it is that of its own samples; 0 for a stand-in, of a sum too.
        """
        if isinstance(batch, Share):
            return self._of_batch(batch.batch) if batch.counts else 0
        return self._of_batch(batch)

    def _of_batch(self, batch: Any) -> Denominator:
        if self.summed:
            return None
        if self.model is not None:
            batch, weights = unweighted(self.model, batch)
            if weights is not None:
                return self._of_weights(weights, targets_of(batch))
        targets = targets_of(batch)
        if not isinstance(targets, Tensor) or not targets.ndim:
            return samples_in(batch)
        if self.shifted and targets.ndim == 2:
            targets = targets[:, 1:]
        if self.over == "elements":
            return targets.numel()
        if not targets.is_floating_point():
            return self._of_labels(targets.flatten().long())
        # A probability for each class, or values of which nothing is known.
        dense = self.over == "classes" and targets.ndim > 1
        return targets.numel() / targets.shape[1] if dense else samples_in(batch)

    def _of_labels(self, labels: Tensor) -> Denominator:
        """Return the denominator of labels (n,)."""
        if labels.device.type == "cpu":  # in few operations, for small models
            left_out = int(np.count_nonzero(labels.numpy() == self.ignored))
            if self.weight is None:
                return labels.numel() - left_out
            if left_out:
                labels = labels[labels.ne(self.ignored)]
            total: float = self.weight.index_select(0, labels).sum().item()
            return total
        counted = labels.ne(self.ignored)
        if self.weight is None:
            return counted.sum()
        weight = self.weight.to(labels.device, non_blocking=True)
        return weight.index_select(0, labels.where(counted, 0)).mul(counted).sum()

    def _of_weights(self, weights: Tensor, targets: Tensor) -> Denominator:
        """Return the denominator with a weight for each sample, (N,)."""
        samples = max(len(weights), 1)
        if self.over == "classes" and not targets.is_floating_point():
            counted = targets.ne(self.ignored)
            labels = targets.where(counted, 0).long()
            of_each = counted if self.weight is None else self._of_classes(labels) * counted
            total = (of_each.reshape(samples, -1).sum(1) * weights).sum()
        elif self.over == "classes" and targets.ndim > 1:
            total = weights.sum() * (targets.numel() / targets.shape[1] / samples)
        else:
            each = targets.numel() / samples if self.over == "elements" else 1.0
            total = weights.sum() * each
        return total if total.device.type != "cpu" else float(total)

    def _of_classes(self, labels: Tensor) -> Tensor:
        """Return the weights of labels' classes."""
        assert self.weight is not None, "asked for only where classes have weights"
        return self.weight.to(labels.device, non_blocking=True)[labels]

    def for_all(self, targets: Tensor) -> Reduction:
        """Return a reduction for batches of these targets, which counts nothing if all of them do.

        Counting takes a tenth of the step of a small model.
        """
        if self.over == "elements" or self.weight is not None or targets.is_floating_point():
            return self
        return self if bool(targets.eq(self.ignored).any()) else replace(self, over="elements")

    def of_group(self, batches: Iterable[Any]) -> Denominator:
        """Return the denominator of the loss of several batches as of one."""
        return in_all(map(self.denominator, batches))

    def no_targets(self, part: str) -> DataError:
        """Return the error for a part of the data that has no target which counts."""
        weights = ", or has a class of weight 0" if self.weight is not None else ""
        return DataError(
            f"every target of {part} is {self.ignored}, which the loss ignores{weights}: "
            "there is nothing to learn from"
        )

    def countable(self, batch: Any, denominator: Denominator) -> Any:
        """Return the batch, with other targets if all of its own are ignored.

        The loss of such a batch is 0/0, and so may be its gradient. That of the other targets is
        finite, and counts with the weight 0.
        """
        if isinstance(batch, Share):
            return replace(batch, batch=self.countable(batch.batch, denominator))
        if self.over == "elements" or not (isinstance(denominator, Tensor) or denominator == 0):
            return batch
        if self.model is not None and unweighted(self.model, batch)[1] is not None:
            return batch  # `weighted_loss` divides by nothing
        targets = targets_of(batch)
        if not isinstance(targets, Tensor):
            return batch
        if isinstance(denominator, Tensor):
            return with_targets(batch, targets.masked_fill(denominator == 0, self.counted))
        return with_targets(batch, torch.full_like(targets, self.counted))


def reduction_of(loss_fn: Callable[..., Any] | None, model: nn.Module | None = None) -> Reduction:
    """Return how a loss makes one number of a batch; None: the model's own loss.

    With a model, weights of samples count too: Σ w instead of the number of samples.

    Known are the losses of `torch.nn` and `torch.nn.functional`, also by `functools.partial`. A
    module of the user's that has attributes `ignore_index`, `weight` or `reduction` uses them as
    torch does, as does a function with an argument `ignore_index`, and one that calls a single loss
    over classes counts as that. Any other loss is taken for a mean over samples, or over all labels
    but those of −100, which torch's convention ignores.
    """
    given: dict[str, Any] = {}
    function: Any = loss_fn
    while isinstance(function, functools.partial):
        given = {**function.keywords, **given}
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    over: Over = "samples"
    if isinstance(function, nn.Module):
        module = plain(function)
        names = ("ignore_index", "weight", "reduction")
        given = {name: getattr(module, name) for name in names if hasattr(module, name)}
        over = "classes" if isinstance(given.get("ignore_index"), int) else "samples"
        for own, like in _MODULES.items():
            if isinstance(module, own) and type(module).forward is own.forward:
                over = _OVER[like]
    elif isinstance(function, Hashable):
        over = _OVER.get(function, "samples")  # type: ignore[call-overload]
    if over == "samples" and (known := _over_classes(function, given)):
        over, given = "classes", {**known, **given}
    shifted = loss_fn is None and model is not None and _is_language_model(model)
    if loss_fn is None:
        model = None  # which uses its own weights
    reduction = given.get("reduction")
    if reduction == "batchmean":
        over = "samples"
    summed = reduction == "sum"
    if over != "classes":
        return Reduction(over, summed, shifted=shifted, model=model)
    ignored, weight = given.get("ignore_index", IGNORED), given.get("weight")
    weight = weight if isinstance(weight, Tensor) and weight.ndim == 1 else None
    return Reduction(over, summed, ignored, weight, _counted(ignored, weight), model=model)


def _is_language_model(model: nn.Module) -> bool:
    """Tell whether a model of transformers compares each token with the next one's label."""
    own = plain(model)
    name = type(own).__name__
    known = getattr(own, "loss_type", None) == "ForCausalLM"
    return known or name.endswith(("ForCausalLM", "LMHeadModel"))


def _over_classes(function: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user's loss over classes ignores, and their weights; {} if it is none.

    Args:
        function: or a module.
        given: arguments that it is called with.
    """
    if inspect.isfunction(function):
        parameter = inspect.signature(function).parameters.get("ignore_index")
        ignored = given.get("ignore_index", parameter and parameter.default)
        if isinstance(ignored, int):
            return {"ignore_index": ignored}
    criterion = _criterion_of(function)
    if criterion is None:
        return {}
    return {"ignore_index": criterion.ignore_index, "weight": criterion.weight}


def _criterion_of(function: Any) -> Any:
    """Return the one torch loss over classes that a user's loss calls, if it is a mean.

    A module has it as a submodule; a function reads it from around it, as in
    `def loss(outputs, targets): return criterion(outputs.transpose(1, 2), targets)`.
    """
    if isinstance(function, nn.Module):
        used = list(plain(function).modules())
    elif inspect.isfunction(function):
        around = inspect.getclosurevars(function)
        used = [*around.nonlocals.values(), *around.globals.values()]
    else:
        return None
    found: list[Any] = [part for part in used if isinstance(part, tuple(_MODULES))]
    if len(found) != 1 or type(found[0]) not in _OVER_CLASSES or found[0].reduction != "mean":
        return None
    return found[0]


def _counted(ignored: int, weight: Tensor | None) -> int:
    """Return a class that is not ignored and has a weight above 0, if there is one."""
    if weight is None:
        return int(ignored == 0)
    weights: list[float] = weight.tolist()
    if 0 <= ignored < len(weights):
        weights[ignored] = 0.0
    return weights.index(max(weights))


def shares(denominators: Sequence[Denominator], total: Denominator = None) -> list[Tensor | float]:
    """Return what each batch's loss is multiplied by in the loss of all; 0 for one without targets.

    They add up to 1, or are all 1 where losses are added.

    Args:
        denominators: of the batches.
        total: of all batches, if there are others; None: there are none, or losses are added.
    """
    total = in_all(denominators) if total is None else total
    if total is None:
        return [1.0] * len(denominators)
    total = total.where(total > 0, 1) if isinstance(total, Tensor) else total or 1.0
    return [d / total for d in denominators if d is not None]


def in_all(denominators: Iterable[Denominator]) -> Denominator:
    """Return the denominator of several batches together."""
    total: Denominator = 0
    for denominator in denominators:
        if denominator is None:
            return None
        total = total + denominator  # type: ignore[operator]
    return total


def to_numbers(denominators: Sequence[Denominator]) -> list[float | None]:
    """Copy denominators to the host, all at once."""
    tensors = [d for d in denominators if isinstance(d, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [
        None if d is None else float(next(numbers) if isinstance(d, Tensor) else d)
        for d in denominators
    ]


@dataclass(slots=True)
class LossTotal:
    """The loss of many batches as that of one.

    Attributes:
        loss: Σ dᵢ·lossᵢ, or Σ lossᵢ where losses are added.
        denominator: Σ dᵢ; None where losses are added.
    """

    loss: float = 0.0
    denominator: float | None = 0.0

    def add(self, loss: float, denominator: float | None) -> None:
        """Add a batch; one without targets changes nothing."""
        if denominator is None:
            self.loss += loss
            self.denominator = None
        elif denominator and self.denominator is not None:
            self.loss += loss * denominator
            self.denominator += denominator

    def over(self, ranks: Ranks) -> LossTotal:
        """Return the total of the batches of all ranks."""
        if not ranks.several:
            return self
        summed, loss, denominator = ranks.sums(
            [self.denominator is None, self.loss, self.denominator or 0.0]
        )
        return LossTotal(loss, None if summed else denominator)

    def mean(self) -> float:
        """Return the loss of all; NaN if there was no target."""
        if self.denominator is None:
            return self.loss
        return self.loss / self.denominator if self.denominator else nan


def loss_of_all(
    losses: Sequence[Tensor | None], denominators: Sequence[Denominator], ranks: Ranks = ALONE
) -> float:
    """Read the losses of batches, and return that of all as of one; None: it was skipped."""
    total = LossTotal()
    for loss, denominator in zip(losses, to_numbers(denominators), strict=True):
        if loss is not None:
            total.add(float(loss), denominator)
    return total.over(ranks).mean()
