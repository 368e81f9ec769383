"""What a task is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from benchmarks.regret.data import Data


@dataclass(frozen=True)
class Task:
    """What is learned, by which model.

    Attributes:
        name: of the task.
        base: the task that this one is a variant of; its own name otherwise.
        data: returns the samples.
        model: returns the model with weights from torch's random state.
        loss: of a batch, the mean over its samples.
        batch: samples in a batch.
        input_scale: factor of the inputs.
        loss_scale: factor of the loss.
        loss_shift: added to the loss.
        init_scale: factor of all weights of two dimensions or more.
        kind: of training, as people speak of it; figures are published by kind.
    """

    name: str
    base: str
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    batch: int = 64
    input_scale: float = 1.0
    loss_scale: float = 1.0
    loss_shift: float = 0.0
    init_scale: float = 1.0
    kind: str = "scratch"
