"""Parameters that a loss of the user's depends on, and that no optimizer has."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Collection

    from lrtool.engine.step import LossFunction


def warn_of_untrained_parameters(
    name: str, loss_fn: LossFunction, outputs: Any, targets: Any, known: Collection[nn.Parameter]
) -> None:
    """Warn of parameters that a loss uses without holding them as a module does.

    Args:
        name: of the loss.
        loss_fn: to call.
        outputs: of the model, with their graph.
        targets: of the batch.
        known: the parameters of the model and of the loss.

    Warns:
        LrtoolWarning: there are some.
    """
    loss = None
    with suppress(Exception, SystemExit):  # the step tells what does not fit
        loss = loss_fn(outputs, targets)
    ours = set(map(id, known))
    outside = [p for p in _parameters_of(loss) if id(p) not in ours]
    if outside:
        warnings.warn(
            f"{name} depends on {sum(p.numel() for p in outside):,} trainable parameters that are "
            "neither the model's nor its own, so they are not trained: make it a torch.nn.Module "
            "that holds them, and name its class",
            LrtoolWarning,
            stacklevel=2,
        )


def _parameters_of(loss: Any) -> list[nn.Parameter]:
    """Return the trainable parameters that a loss was computed from."""
    waiting = [loss.grad_fn] if isinstance(loss, Tensor) else []
    seen, found = set[int](), list[nn.Parameter]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(leaf := getattr(node, "variable", None), nn.Parameter):
            found.append(leaf)
        waiting += [each for each, _ in node.next_functions]
    return found
