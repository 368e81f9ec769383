"""What the caller's objects would do wrong without a word, seen on the first batch."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lrtool.components.losses import compares_in_pairs
from lrtool.engine.step import forward
from lrtool.errors import LrtoolWarning
from lrtool.experiment.summed_loss import warn_of_a_sum
from lrtool.experiment.untrained_parameters import (
    warn_of_unregistered_parameters,
    warn_of_untrained_parameters,
)

if TYPE_CHECKING:
    import torch

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction


def look(
    model: nn.Module,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    runtime: Runtime,
) -> None:
    """Compute one batch, and warn of what a loop would not notice; do not go on with the model.

    What fails here is left to the search, which says so.

    Warns:
        LrtoolWarning: the loss compares each output with every target, or adds up its samples; or
            it or the model depends on parameters that no optimizer has.
    """
    name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    held = [part for part in (model, loss_fn) if isinstance(part, nn.Module)]
    known = [*optimized, *(p for part in held for p in part.parameters())]
    advice = (
        "give them to the optimizer or, if they are not to be trained, set requires_grad_(False)"
    )
    with runtime.autocast():
        try:
            outputs, targets = forward(model, batch)
        except (Exception, SystemExit):  # noqa: BLE001  (of the user's code)
            return
        warn_of_untrained_parameters(name, loss_fn, outputs, targets, known, advice=advice)
        warn_of_unregistered_parameters(type(model).__name__, outputs, known)
        warn_of_a_sum(name, loss_fn, outputs, targets)
        _warn_of_broadcasting(name, loss_fn, outputs, targets)


def _warn_of_broadcasting(name: str, loss_fn: LossFunction, outputs: Any, targets: Any) -> None:
    """Warn of a loss that subtracts (N,) from (N, 1): their difference is (N, N)."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return
    if outputs.shape == targets.shape or outputs.numel() != targets.numel():
        return
    in_pairs = True
    with suppress(Exception, SystemExit), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own says less
        in_pairs = compares_in_pairs(loss_fn, outputs.detach(), targets)
    if not in_pairs:
        warnings.warn(
            f"{name} compares each output with every target: outputs are {tuple(outputs.shape)}, "
            f"targets {tuple(targets.shape)}; give both the same shape",
            LrtoolWarning,
            stacklevel=2,
        )
