"""The sharded tensors of a checkpoint: every rank writes its own part, and reads what it needs.

They are written by torch.distributed.checkpoint as safetensors, a file a rank, from which any
number of ranks, or one process alone, can read them. All else of a training's state is plain, the
same on every rank, and holds a marker in the place of each sharded tensor.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.engine.sharded_tensors import is_shard, own_part, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch.distributed.device_mesh import DeviceMesh

    from lrtool.ranks import Ranks

SHARD = "shard-"  # begins the names of the files
_MARKER = "sharded tensor"


def split(state: Any, name: str, shards: dict[str, Tensor]) -> Any:
    """Return a state with a marker for each sharded tensor, which is put into `shards`.

    All ranks must call this.

    Args:
        state: plain values and tensors, in dicts, lists and tuples.
        name: of the state; those of its shards begin with it.
        shards: by name; more are added.
    """
    if is_shard(state):
        if not state.placements[0].is_shard(0):  # such as a norm, which is the same on all ranks
            return whole(state)
        shards[name] = state.detach()
        return {_MARKER: name}
    if isinstance(state, dict):
        parts = ((key, split(part, f"{name}.{key}", shards)) for key, part in state.items())
        return type(state)(parts)
    if isinstance(state, list | tuple):
        return type(state)(split(part, f"{name}.{i}", shards) for i, part in enumerate(state))
    return state


def write_shards(shards: Mapping[str, Tensor], folder: Path, ranks: Ranks) -> list[Path]:
    """Write a rank's part of sharded tensors; all ranks must call this. Return its own files.

    Raises:
        OSError: they cannot be written.
    """
    # Imported only where something is sharded, as in `read_shards`.
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict_saver import save  # noqa: PLC0415

    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, shard in shards.items():
        place = own_part(shard).untyped_storage().data_ptr()
        apart[name] = shard.clone() if place in seen else shard  # safetensors refuses shared memory
        seen.add(place)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _as_raised():
        save(apart, storage_writer=writer, process_group=ranks.hosts)
    return list(folder.glob(f"{SHARD}{ranks.rank + 1:05d}-*"))


def read_shards(
    state: Any, folder: Path, mesh: DeviceMesh | None = None, ranks: Ranks | None = None
) -> Any:
    """Return a state from `split` with its tensors in the places of their markers.

    Args:
        state: all of it, or a part.
        folder: where `write_shards` has written.
        mesh: of the ranks that divide the tensors among them; None: they are read whole.
        ranks: of that mesh; all must call this.

    Raises:
        OSError, KeyError: a file or a tensor is missing.
    """
    names = list(_marked(state))
    if not names:
        return state
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader  # noqa: PLC0415
    from torch.distributed.checkpoint.state_dict_loader import load  # noqa: PLC0415
    from torch.distributed.tensor import Shard, empty  # noqa: PLC0415

    reader = HuggingFaceStorageReader(str(folder))
    known: Any = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name in names:
        size, dtype = known[name].size, known[name].properties.dtype
        if mesh is None:
            tensors[name] = torch.empty(size, dtype=dtype)
        else:
            tensors[name] = empty(size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    if mesh is None or ranks is None:
        with _as_raised(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, that this is one process
            load(tensors, storage_reader=reader, no_dist=True)
    else:
        with _as_raised():
            load(tensors, storage_reader=reader, process_group=ranks.hosts)
    return _joined(state, tensors)


@contextmanager
def _as_raised() -> Iterator[None]:
    """Raise what a rank has raised, such as an OSError, in place of torch's collection of them."""
    from torch.distributed.checkpoint.api import CheckpointException  # noqa: PLC0415

    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _marked(state: Any) -> Iterator[str]:
    """Yield the names in a state's markers."""
    if isinstance(state, dict):
        if state.keys() == {_MARKER}:
            yield state[_MARKER]
            return
        for part in state.values():
            yield from _marked(part)
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _marked(part)


def _joined(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(state, dict):
        if state.keys() == {_MARKER}:
            return tensors[state[_MARKER]]
        return type(state)((key, _joined(part, tensors)) for key, part in state.items())
    if isinstance(state, list | tuple):
        return type(state)(_joined(part, tensors) for part in state)
    return state
