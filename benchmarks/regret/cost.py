"""What a finder spends, counted from outside: in steps, an evaluation as a third of one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules import module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

FORWARD = 1 / 3  # of a step, which goes backward too and costs about twice as much there


class Cost:
    """Steps so far; evaluated samples count in batches of the training's size."""

    def __init__(self) -> None:
        self.steps = 0.0


@contextmanager
def counted(batch: int) -> Iterator[Cost]:
    """Count every pass through any model until the block ends.

    A pass with gradients is a step. The hooks are torch's own, so that it does not matter who
    calls the model, a package or we.
    """
    cost = Cost()
    depth = 0

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal depth
        if depth == 0:
            whole = torch.is_grad_enabled()
            cost.steps += 1 if whole else FORWARD * len(inputs[0]) / batch
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = [
        module.register_module_forward_pre_hook(enter),
        module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()
