"""Weights of samples: the key `sample_weight` of a batch, or a third part beside a single input.

The loss of a batch is then Σ wᵢ·lossᵢ / Σ wᵢ over its samples, instead of their mean.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lrtool.batch import target_key
from lrtool.engine.weights import plain
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.engine.denominator import Denominator

SAMPLE_WEIGHT = "sample_weight"


def unweighted(model: nn.Module, batch: Any) -> tuple[Any, Tensor | None]:
    """Return a batch without the weights of its samples, and these; None without any.

    They are in the key `sample_weight` of a batch that is a mapping, unless the model's forward
    takes it itself. In (inputs, targets, weights) they are floats (N,) or (N, 1), and the model's
    forward takes a single input; else the batch is two inputs and their targets.

    Raises:
        UserError: the weights are not one float for each sample, or the model takes one input and
            gets two.
    """
    if isinstance(batch, tuple | list):
        return (batch, None) if len(batch) != 3 else _third(model, batch)
    if isinstance(batch, Mapping):
        if SAMPLE_WEIGHT not in batch or SAMPLE_WEIGHT in _parameters(plain(model)):
            return batch, None
        rest = {key: value for key, value in batch.items() if key != SAMPLE_WEIGHT}
        weights = batch[SAMPLE_WEIGHT]
        targets = rest.get(target_key(rest))
        if not _fit(weights, targets):
            raise UserError(f"{SAMPLE_WEIGHT} must be floats, one for each sample: (N,)")
        return rest, weights.reshape(-1)
    return batch, None


def _third(model: nn.Module, batch: tuple[Any, ...] | list[Any]) -> tuple[Any, Tensor | None]:
    """Return a batch of three parts, or two of them and the third as weights."""
    if not isinstance(batch[0], Mapping) and not _takes_one_input(plain(model)):
        return batch, None
    inputs, targets, weights = batch
    if not _fit(weights, targets):
        raise UserError(
            "a batch has three parts, but the model's forward takes one input: a third part after "
            "(inputs, targets) is a weight for each sample, floats (N,); other inputs need a "
            "forward that takes them"
        )
    return (inputs, targets), weights.reshape(-1)


def _fit(weights: Any, targets: Any) -> bool:
    """Tell whether these are a float for each sample."""
    return (
        isinstance(weights, Tensor)
        and weights.is_floating_point()
        and isinstance(targets, Tensor)
        and targets.ndim > 0
        and weights.shape in {targets.shape[:1], (*targets.shape[:1], 1)}
    )


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return what a model's forward takes; nothing where that is not known."""
    return _of_function(getattr(model.forward, "__func__", model.forward))


@functools.lru_cache(64)
def _of_function(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _takes_one_input(model: nn.Module) -> bool:
    """Tell whether a model's forward takes a single positional argument."""
    kinds = [parameter.kind for parameter in _parameters(model).values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = int(hasattr(model.forward, "__func__"))  # self
    return (
        sum(kind in positional for kind in kinds) == own + 1
        and inspect.Parameter.VAR_POSITIONAL not in kinds
    )


def weighted_loss(
    loss_fn: Callable[..., Any],
    outputs: Any,
    targets: Any,
    weights: Tensor,
    denominator: Denominator,
) -> Tensor:
    """Return a loss with weights of samples.

    Args:
        loss_fn: one of torch's, or a partial of it.
        outputs: of the model.
        targets: (N, …).
        weights: (N,).
        denominator: of the batch; None: the loss is a sum.

    Raises:
        UserError: the loss gives nothing but one number for the batch.
    """
    losses: Tensor = _unreduced(loss_fn)(outputs, targets)
    total = (losses * weights.reshape(-1, *[1] * (losses.ndim - 1)).to(losses)).sum()
    if denominator is None:
        return total
    if isinstance(denominator, Tensor):
        return total / denominator.where(denominator > 0, 1)
    return total / (denominator or 1.0)


def _unreduced(loss_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss of torch that gives a loss for each sample, or for each of its elements.

    Raises:
        UserError: it is no loss of torch.
    """
    if isinstance(loss_fn, nn.Module):
        module = plain(loss_fn)
        if type(module).__module__ == "torch.nn.modules.loss":
            each = copy.copy(module)
            each.reduction = "none"  # type: ignore[assignment]
            return each
    function: Any = loss_fn
    while isinstance(function, functools.partial):
        function = function.func
    if getattr(inspect.unwrap(function), "__module__", None) == "torch.nn.functional":
        return functools.partial(loss_fn, reduction="none")
    raise UserError(
        "the batches have weights of samples, which need a loss of torch, for instance by its "
        "name: any other gives one number for the whole batch; weight your own in the model's "
        "training_loss(batch)"
    )
