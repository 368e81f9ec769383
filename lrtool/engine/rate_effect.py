"""Whether an optimizer's updates depend on the learning rate at all.

Some set their own, such as AdaFactor with relative steps; a wrapper may copy its parameter groups,
so that a rate never reaches the optimizer inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.engine.copies import copied
from lrtool.engine.sharded_tensors import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrtool.engine.step import Step

RATES = (0.01, 0.1)


def ignores_rate(
    fresh: Callable[[], tuple[torch.optim.Optimizer, Step]], micro_batches: Sequence[Any]
) -> bool:
    """Tell whether one update is the same at two rates, from the same start.

    Args:
        fresh: returns optimizer and step at their start, each time with the same random states.
        micro_batches: of the update.
    """
    first, second = (_update(*fresh(), micro_batches, rate) for rate in RATES)
    size = _norm(first)
    return size > 0 and _norm([a - b for a, b in zip(first, second, strict=True)]) < 1e-3 * size


def _update(
    optimizer: torch.optim.Optimizer, step: Step, micro_batches: Sequence[Any], rate: float
) -> list[Tensor]:
    """Return what one update adds to each parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in parameters]
    step(copied(micro_batches), rate)  # they may change in place
    return [p.detach() - old for p, old in zip(parameters, before, strict=True)]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(whole(torch.nn.utils.get_total_norm(tensors)))


def words(optimizer: torch.optim.Optimizer) -> str:
    """Return what to say of an optimizer that ignores its rate."""
    return (
        f"the updates of {type(optimizer).__name__} do not depend on the learning rate: they are "
        f"the same at {RATES[0]} and {RATES[1]}. Some optimizers set their own rate, such as "
        "AdaFactor with relative_step"
    )
