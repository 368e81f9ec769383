"""A moving average of the weights, which often generalises better than the last ones.

Polyak and Juditsky 1992 (doi:10.1137/0330046); exponential with a warm-up as in TensorFlow's
`ExponentialMovingAverage`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrtool.engine.sharded_tensors import divided_as, is_shard, own_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class MovingAverage:
    """average ← d · average + (1 − d) · weights, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of steps so far: with a fixed d, the average of a short training would still be
    near the random start. A step that the gradient scaler skipped leaves the average as it is, but
    counts in n, since only the device knows of it. Floating-point buffers, such as batch norm's
    statistics, are averaged too; not one that is not finite, such as an attention mask, or that
    changes its shape.

    Args:
        model: whose state is averaged, from now on.
        decay: between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        live = {name: tensor for name, tensor in floats(model).items() if _is_averaged(tensor)}
        self._average = {name: tensor.detach().clone() for name, tensor in live.items()}
        # By place, since a model may give a buffer a new tensor at each step.
        self._places = {name: _place(model, name) for name in live}

    @torch.no_grad()
    def update(self, skipped: Tensor | None = None) -> None:
        """Take the weights as they are now into account.

        Args:
            skipped: `StepOut.skipped` of the step before; it stays on the device.
        """
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        live = {name: table[own] for name, (table, own) in self._places.items()}
        self._drop(n for n, tensor in live.items() if tensor.shape != self._average[n].shape)
        averages = [own_part(average) for average in self._average.values()]
        weights = [own_part(live[name]) for name in self._average]
        if skipped is None:
            torch._foreach_lerp_(averages, weights, 1 - decay)
        else:
            share = ~skipped * (1 - decay)
            torch._foreach_lerp_(averages, weights, [share] * len(averages))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average inside the block, and its own weights after it.

        Nothing is copied: the tensors change their storage. Only the values of sharded ones change
        places, for each rank's part of them stays where it is.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """Return the averages by their names in the model; not copies."""
        return dict(self._average)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Put back what `state` returned after so many updates."""
        self._drop(name for name in self._average if name not in state)
        for name, tensor in self._average.items():
            tensor.copy_(divided_as(tensor, state[name]))
        self.updates = updates

    def _drop(self, names: Iterable[str]) -> None:
        for name in list(names):
            del self._average[name], self._places[name]

    def _exchange(self) -> None:
        for name, (table, own_name) in self._places.items():
            live = table[own_name]
            if is_shard(live):
                one, other = own_part(live), own_part(self._average[name])
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)
                continue
            live.data, self._average[name] = self._average[name], live.data


def floats(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and floating-point buffers by name, shared ones once."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}


def _is_averaged(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or bool(torch.isfinite(tensor).all())


def _place(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Return the dictionary of a module that holds a tensor, and its key there."""
    path, _, own_name = name.rpartition(".")
    module = model.get_submodule(path)
    return vars(module)["_parameters" if own_name in module._parameters else "_buffers"], own_name  # noqa: SLF001  (there is no public way)
