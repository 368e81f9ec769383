"""The layers of a model from its input to its head, for learning rates that fall with the depth.

Modules are taken in the order in which the model lists them. A layer is one of the model's repeated
blocks, such as those of a transformer or a ResNet, or what lies before, between or after them; in a
model without blocks, each module with weights of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Attributes of modules around another one: PEFT's adapters and copies of a head, parametrizations.
_AROUND_ANOTHER = ("base_layer", "original_module", "parametrizations")


@dataclass(slots=True)
class _Layer:
    parameters: list[nn.Parameter] = field(default_factory=list)
    is_embedding: bool = False
    is_open: bool = False  # has more than norms and parameters that belong to what follows


def depth_ratios(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return what multiplies the base rate of each parameter: `decay` to the power of its depth.

    The depth is the number of layers above: 0 for the head.
    """
    layers = layers_of(model)
    return {
        parameter: decay ** (len(layers) - 1 - index)
        for index, layer in enumerate(layers)
        for parameter in layer
    }


def layers_of(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, from input to head; each parameter once.

    A norm belongs to the layer that it follows; so does a parameter that lies in no layer itself,
    such as a table of positions. Tables of embeddings side by side are one layer. A shared
    parameter belongs to its first layer.
    """
    layers = [_Layer()]
    seen: set[nn.Parameter] = set()
    for parameters, module in _parts(model, _blocks(model)):
        fresh = [p for p in dict.fromkeys(parameters) if p not in seen]
        if not fresh:
            continue
        seen.update(fresh)
        last = layers[-1]
        is_embedding = isinstance(module, _EMBEDDINGS)
        joins = module is None or not any(map(_is_matrix, fresh))
        if last.is_open and not joins and not (is_embedding and last.is_embedding):
            layers.append(last := _Layer())
        last.parameters += fresh
        if not joins:
            last.is_open, last.is_embedding = True, is_embedding
    return [layer.parameters for layer in layers if layer.parameters]


def _parts(
    module: nn.Module, blocks: set[type]
) -> Iterator[tuple[Sequence[nn.Parameter], nn.Module | None]]:
    """Yield the parameters of each layer with its module, and others with None, in order."""
    if _is_layer(module, blocks):
        yield list(module.parameters()), module
        return
    yield list(module.parameters(recurse=False)), None
    for child in module.children():
        yield from _parts(child, blocks)


def _is_layer(module: nn.Module, blocks: set[type]) -> bool:
    if not _inner(module) or _wraps(module) or type(module) in blocks:
        return True
    if isinstance(module, _LISTS):
        return False
    if blocks:
        return not any(type(inside) in blocks for inside in module.modules())
    return type(module).__module__.startswith("torch.nn.modules.")  # such as attention


def _blocks(model: nn.Module) -> set[type]:
    """Return the classes of the repeated blocks.

    They are in lists, also in one of a single block; or else side by side in a module. A class of
    stages, each mostly a list of blocks, is none.
    """
    modules = list(model.modules())
    lists = [list(module.children()) for module in modules if isinstance(module, _LISTS)]
    found = _repeated(child for each in lists for child in each)
    if not found:
        found = {type(each[0]) for each in lists if len(each) == 1 and _is_compound(each[0])}
    if not found:
        found = {cls for module in modules for cls in _repeated(module.children())}
    return found - {type(m) for m in modules if type(m) in found and _is_stage(m, found)}


def _repeated(modules: Iterable[nn.Module]) -> set[type]:
    counts = Counter(type(module) for module in modules if _is_compound(module))
    return {cls for cls, count in counts.items() if count > 1}


def _is_compound(module: nn.Module) -> bool:
    """Tell whether a module has more inside than, say, a convolution with its norm."""
    if isinstance(module, _LISTS) or _wraps(module) or not _inner(module):
        return False
    return sum(map(_is_matrix, module.parameters())) > 1


def _is_stage(module: nn.Module, blocks: set[type]) -> bool:
    listed = [
        parameter
        for child in module.children()
        if isinstance(child, _LISTS) and _repeated(child.children()) & blocks
        for parameter in child.parameters()
    ]
    return 2 * _size(listed) > _size(module.parameters())


def _wraps(module: nn.Module) -> bool:
    return any(hasattr(module, name) for name in _AROUND_ANOTHER)


def _inner(module: nn.Module) -> bool:
    """Tell whether modules inside have parameters."""
    return any(True for child in module.children() for _ in child.parameters())


def _is_matrix(parameter: nn.Parameter) -> bool:
    return bool(nn.parameter.is_lazy(parameter)) or parameter.ndim > 1


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
