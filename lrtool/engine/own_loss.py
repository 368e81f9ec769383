"""The loss that a model computes itself, by one of three protocols.

`training_loss(batch)` returns it; so does Lightning's `training_step(batch, index)`; or what the
model returns for a batch has it, as with Hugging Face's models.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.engine import lightning
from lrtool.engine.weights import plain
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

METHODS = ("training_loss", "training_step")


def method_of(model: nn.Module) -> str | None:
    """Return the method by which a model computes its own loss; None if it has none."""
    own = plain(model)
    return next((name for name in METHODS if callable(getattr(own, name, None))), None)


def may_return_loss(model: nn.Module, target_keys: Collection[str]) -> bool:
    """Tell whether a model's forward takes targets, as that of Hugging Face's models does."""
    try:
        parameters = inspect.signature(plain(model).forward).parameters.values()
    except (TypeError, ValueError):  # written in C
        return False
    takes = [p for p in parameters if p.name in target_keys or p.kind is p.VAR_KEYWORD]
    return method_of(model) is None and bool(takes)


def own_loss(model: nn.Module, batch: Any) -> Any:
    """Return the loss that a model computes itself; None if its `training_step` skips the batch.

    Raises:
        UserError: it has none.
    """
    method = method_of(model)
    if method == "training_loss":
        return plain(model).training_loss(batch)  # type: ignore[operator]
    if method == "training_step":
        return lightning.training_step(plain(model), batch)
    if isinstance(batch, Mapping):
        loss = loss_in(model(**batch))
        if loss is not None:
            return loss
    raise UserError(f"no loss function was given, and {without_loss(type(plain(model)).__name__)}")


def without_loss(name: str) -> str:
    """Return the words that a model of this name has no loss of its own."""
    return (
        f"{name} has no loss of its own: neither training_loss(batch), nor "
        "training_step(batch, index), nor .loss of what it returns"
    )


def loss_in(returned: Any) -> Tensor | None:
    """Return the loss in what a model returned: `.loss`, the key "loss", or a first scalar."""
    if isinstance(returned, Mapping):
        loss = returned.get("loss")
    elif isinstance(returned, tuple | list):
        loss = returned[0] if returned else None
        if isinstance(loss, Tensor) and loss.numel() != 1:
            loss = None
    else:
        loss = getattr(returned, "loss", None)
    return loss if isinstance(loss, Tensor) else None


def outputs_in(returned: Any, targets: Any) -> Any:
    """Return what metrics compare with the targets: `.logits`, or all that a model returned.

    Logits of one number a sample lose their last dimension where the targets have none. Those of
    the classes of tokens, (B, T, C), are returned as (B, C, T) if the loss compares each with the
    target at its place; that of a language model does not.
    """
    loss = loss_in(returned)
    outputs = returned
    if isinstance(returned, Mapping):
        outputs = returned.get("logits", returned)
    elif isinstance(returned, tuple | list) and loss is not None:
        outputs = next((part for part in returned[1:] if isinstance(part, Tensor)), returned)
    else:
        outputs = getattr(returned, "logits", returned)
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return outputs
    if targets.is_floating_point():
        return outputs.squeeze(-1) if outputs.shape == (*targets.shape, 1) else outputs
    if loss is not None and outputs.ndim > 2 and outputs.shape[:-1] == targets.shape:
        by_class = outputs.movedim(-1, 1)
        if torch.allclose(F.cross_entropy(by_class, targets), loss.to(outputs), rtol=1e-3):
            return by_class
    return outputs
