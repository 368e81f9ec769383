"""A model divided among the ranks by torch's `fully_shard` (FSDP2), for one that fits no device.

Each parameter is cut along its first dimension, and each rank keeps one piece of it, of its
gradient and of the optimizer's state. The blocks of a model are gathered whole one after another,
where they compute.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lrtool.engine.copies import mapped
from lrtool.engine.own_loss import METHODS
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.engine.device import Runtime

KEY = ("runtime", "shard")
_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)  # of blocks


def shard(model: nn.Module, runtime: Runtime) -> None:
    """Divide a model among the ranks, in place; its parameters become sharded ones.

    Args:
        model: the same on every rank, on the host or the device; blocks go to the device by turns.
        runtime: with several ranks, and how to find the blocks.

    Raises:
        ConfigError: a regular expression finds no block, the model cannot be sharded, or torch is
            too old.

    Warns:
        LrtoolWarning: the model has no repeated blocks.
    """
    # They take two seconds to import, so only who shards does so.
    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader  # noqa: F401, PLC0415  (checkpoints need it)
        from torch.distributed.device_mesh import DeviceMesh  # noqa: PLC0415
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method  # noqa: PLC0415

        FSDPModule.set_force_sum_reduction_for_comms  # noqa: B018  (the newest of what is used)
    except (ImportError, AttributeError) as error:
        problem = f"needs a newer torch than {torch.__version__}: {error}"
        raise ConfigError(Problem(KEY, problem)) from error

    mesh = DeviceMesh.from_group(runtime.ranks.devices, runtime.device.type)
    blocks = find_blocks(model, None if isinstance(runtime.shard, bool) else runtime.shard)
    try:
        for part in (*blocks, model):
            part.register_forward_hook(_opened)
            # The model's own parameters are gathered anew for each pass, which is not torch's way:
            # else one without a backward pass would leave the next with those before an update.
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
            part.register_forward_hook(_closed)
            # Gradients are added up over ranks; they are no mean.
            part.set_gradient_divide_factor(1.0)  # type: ignore[operator]
            part.set_force_sum_reduction_for_comms(enable=True)  # type: ignore[operator]
    except (ValueError, NotImplementedError, RuntimeError) as error:  # such as a scalar parameter
        raise ConfigError(Problem(KEY, f"the model cannot be sharded: {error}")) from error
    for name in (*METHODS, "validation_loss"):
        own = getattr(model, name, None)
        if callable(own):
            vars(model)[name] = _in_one_piece(model, own)
            register_fsdp_forward_method(model, name)
            # It wraps the bound method, so that its signature would lose its first parameter.
            vars(model)[name].__func__.__wrapped__ = getattr(own, "__func__", own)


class _Opened(NamedTuple):
    """What a module returns, and the tensors in it that torch does not look for."""

    output: Any
    tensors: list[Tensor]


def _opened(_module: nn.Module, _args: Any, output: Any) -> Any:
    """Let torch see all tensors of an output, and own their memory.

    It gathers a block for the backward pass when the gradient of one of these comes. It looks for
    them in tuples, lists and dictionaries only, and may miss it where a view is changed in place.
    """
    if not torch.is_grad_enabled():
        return output
    output = mapped(output, _without_view)
    if isinstance(output, Tensor | tuple | list | dict) or not hasattr(output, "__dict__"):
        return output
    tensors: list[Tensor] = []

    def kept(tensor: Tensor) -> Tensor:
        tensors.append(_without_view(tensor))
        return tensors[-1]

    vars(output).update(mapped(vars(output), kept))
    return _Opened(output, tensors)


def _closed(_module: nn.Module, _args: Any, output: Any) -> Any:
    return output.output if isinstance(output, _Opened) else output


def _without_view(tensor: Tensor) -> Tensor:
    is_view = tensor.requires_grad and tensor._is_view()  # noqa: SLF001  (there is no public way)
    return tensor.clone() if is_view else tensor


def _in_one_piece(model: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that may call the model and go on with the model's own parameters."""

    def call(*args: Any, **keywords: Any) -> Any:
        model.set_reshard_after_forward(False, recurse=False)
        try:
            return method(*args, **keywords)
        finally:
            model.set_reshard_after_forward(True, recurse=False)

    return call


def find_blocks(model: nn.Module, patterns: Sequence[str] | None = None) -> list[nn.Module]:
    """Return the modules that are gathered one at a time; what is in none of them stays together.

    Args:
        model: not sharded.
        patterns: regular expressions, searched for in the names of modules: the outermost modules
            that each one finds. None: the model's repeated blocks, which are the modules of a
            `ModuleList`, `ModuleDict` or `Sequential` of which there are several of one class,
            except those that share a parameter with the rest of the model.

    Raises:
        ConfigError: a regular expression finds no module, or one that shares a parameter.

    Warns:
        LrtoolWarning: the model has no repeated blocks.
    """
    if patterns is not None:
        return _matching(model, patterns)
    blocks = [block for block in _repeated(model) if _shared_name(model, block) is None]
    if not blocks:
        warnings.warn(
            f"runtime.shard: {type(model).__name__} has no repeated blocks in a ModuleList or "
            "Sequential, so each pass gathers all of it at once; name its blocks by regular "
            "expressions, such as runtime.shard: [encoder, decoder]",
            LrtoolWarning,
            stacklevel=4,
        )
    return blocks


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    kinds = [type(child) for child in children]
    for child in children:
        several = isinstance(module, _LISTS) and kinds.count(type(child)) > 1
        if several and _computes(child):
            yield child
        else:
            yield from _repeated(child)


def _computes(module: nn.Module) -> bool:
    """Tell whether a module holds parameters and is called, as a list of modules is not."""
    is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
    return not is_list and any(True for _ in module.parameters())


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    named = {name: module for name, module in model.named_modules() if name and _computes(module)}
    blocks: dict[str, nn.Module] = {}
    problems = []
    for index, pattern in enumerate(patterns):
        found = [name for name in named if re.search(pattern, name)]
        outermost = [n for n in found if not any(n.startswith(f"{other}.") for other in found)]
        shared = {name: _shared_name(model, named[name]) for name in outermost}
        if not found:
            examples = ", ".join([*named][:4]) + (", …" if len(named) > 4 else "")
            words = f"{pattern!r} matches no module with parameters; the model has {examples}"
            problems.append(Problem((*KEY, index), words))
        for name, parameter in shared.items():
            if parameter is not None:
                words = (
                    f"{pattern!r} finds {name}, which shares the parameter {parameter} with the "
                    "rest of the model; a block needs its own"
                )
                problems.append(Problem((*KEY, index), words))
        blocks.update((name, named[name]) for name in outermost)
    if problems:
        raise ConfigError(*problems)
    inner_first = sorted(blocks, key=lambda name: -name.count("."))
    return [blocks[name] for name in inner_first]


def _shared_name(model: nn.Module, block: nn.Module) -> str | None:
    """Return the name of a parameter that a block shares with the rest of a model, or None."""
    own = {id(part) for part in block.modules()}
    inside = {id(p) for p in block.parameters()}
    for name, module in model.named_modules():
        if id(module) not in own:
            for parameter_name, parameter in module.named_parameters(name, recurse=False):
                if id(parameter) in inside:
                    return str(parameter_name)
    return None
