"""Sharded tensors: each rank has a part of them. They are torch's `DTensor`.

What is computed of them is right for the whole, and every rank must take part in it. Nothing here
imports torch's modules for them unless there are some: that takes two seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs


def is_shard(value: object) -> TypeIs[DTensor]:
    """Tell whether a value is a sharded tensor."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Tell whether a model is divided among the ranks."""
    return mesh_of(model) is not None


def mesh_of(model: nn.Module) -> DeviceMesh | None:
    """Return the mesh of the ranks that a model is divided among; None if it is not."""
    sharded = next(filter(is_shard, model.parameters()), None)
    return None if sharded is None else sharded.device_mesh


def own_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, in the same memory; another tensor as it is."""
    return tensor.to_local().detach() if is_shard(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor gathered from all ranks, which all call this; others as they are."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def divided_as(like: Any, value: Any) -> Any:
    """Return a whole tensor, the same on all ranks, sharded as another one is, if it is."""
    if not is_shard(like) or is_shard(value):
        return value
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415  (it is imported by now)

    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def first_names(model: nn.Module) -> dict[str, str]:
    """Return the name of each parameter with the first one of its names, if it has several."""
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first.setdefault(id(parameter), name) for name, parameter in named}


def whole_state(model: nn.Module, *, keep: bool) -> dict[str, Any]:
    """Return a model's state dict, with whole tensors if it is sharded; all ranks must call this.

    Sharded tensors are gathered one after another, and go to the CPU. Those that the model has
    under several names are the same tensor.

    Args:
        model: any.
        keep: False on ranks that only take part; they get an empty one.
    """
    first = first_names(model)
    gathered: dict[str, Tensor | None] = {}
    state: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        found = value
        if is_shard(value):
            if first.get(name, name) not in gathered:
                tensor = whole(value)
                gathered[name] = tensor.cpu() if keep else None
            found = gathered[first.get(name, name)]
        if keep:
            state[name] = found
    return state
