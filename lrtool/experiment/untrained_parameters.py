"""Parameters that a loss or a model of the user's depends on, and that no optimizer has."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrtool.engine.copies import detached, mapped
from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Collection

    from lrtool.engine.step import LossFunction


def warn_of_untrained_parameters(
    name: str,
    loss_fn: LossFunction,
    outputs: Any,
    targets: Any,
    known: Collection[nn.Parameter],
    *,
    advice: str = "make it a torch.nn.Module that holds them, and name its class",
) -> None:
    """Warn of parameters that a loss uses without holding them as a module does.

    Args:
        name: of the loss.
        loss_fn: to call.
        outputs: of the model.
        targets: of the batch.
        known: the parameters that are trained, or were frozen on purpose.
        advice: what to do about it.

    Warns:
        LrtoolWarning: there are some.
    """
    loss = None
    with suppress(Exception, SystemExit), torch.enable_grad():  # the step tells what does not fit
        loss = loss_fn(detached(outputs), targets)
    outside = _outside(loss, known)
    if outside:
        warnings.warn(
            f"{name} depends on {outside:,} trainable parameters that are neither the model's nor "
            f"its own, so they are not trained: {advice}",
            LrtoolWarning,
            stacklevel=2,
        )


def warn_of_unregistered_parameters(
    name: str, outputs: Any, known: Collection[nn.Parameter]
) -> None:
    """Warn of parameters that a model uses and does not register, as those in a plain list.

    Args:
        name: of the model.
        outputs: with their graph.
        known: its parameters.

    Warns:
        LrtoolWarning: there are some.
    """
    outside = _outside(outputs, known)
    if outside:
        warnings.warn(
            f"{name} uses {outside:,} trainable parameters that it does not register, so they are "
            "neither trained nor saved: keep modules in torch.nn.ModuleList or ModuleDict, and "
            "tensors in ParameterList or ParameterDict",
            LrtoolWarning,
            stacklevel=2,
        )


def _outside(value: Any, known: Collection[nn.Parameter]) -> int:
    """Return how many numbers tensors were computed from that are others' parameters."""
    waiting: list[Any] = []

    def noted(tensor: Tensor) -> Tensor:
        waiting.append(tensor.grad_fn)
        return tensor

    mapped(value, noted)
    ours, seen, count = set(map(id, known)), set[int](), 0
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        leaf: Tensor | None = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in ours:
            count += leaf.numel()
        waiting += [each for each, _ in node.next_functions]
    return count
