"""Where the first NaN or infinity came from."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrtool.batch import own
from lrtool.engine.weights import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.utils.hooks import RemovableHandle


@dataclass(slots=True)
class Suspects:
    """The first of each kind that held NaN or infinity; None where all were finite.

    Attributes:
        output: the module, in the order of the forward pass.
        gradient: the parameter, in the order of the backward pass.
    """

    output: str | None = None
    gradient: str | None = None


@contextmanager
def watched(model: nn.Module) -> Iterator[Suspects]:
    """Check every output and every gradient inside the block, before any clipping.

    Slow: it waits for the device at each of them.
    """
    suspects = Suspects()

    def look_at_output(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if suspects.output is None and not finite(output):
            suspects.output = name

    def look_at_gradient(name: str, parameter: Tensor) -> None:
        if suspects.gradient is None and not finite(parameter.grad):
            suspects.gradient = name

    handles: list[RemovableHandle] = []
    bare = plain(model)
    for name, module in bare.named_modules():
        look = partial(look_at_output, name or type(bare).__name__)
        handles.append(module.register_forward_hook(look))
    for name, parameter in bare.named_parameters():
        if parameter.requires_grad:
            hook: Any = parameter.register_post_accumulate_grad_hook
            handles.append(hook(partial(look_at_gradient, name)))
    try:
        yield suspects
    finally:
        for handle in handles:
            handle.remove()


def finite(value: Any) -> bool:
    """Tell whether every floating-point tensor in `value` is finite; looks into containers."""
    if isinstance(value, Tensor):
        if value.is_sparse:
            value = value.coalesce().values()
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(finite, value))


def bad_inputs(micro_batches: Sequence[Any]) -> bool:
    """Tell whether the data hold NaN or infinity; of shares, the rank's own."""
    return not all(finite(own(batch)) for batch in micro_batches)
