"""A batch: its targets, their weights, and how many samples it has.

A batch is (inputs…, targets), a mapping with one of `TARGET_KEYS`, or an object of the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

TARGET_KEYS = ("targets", "target", "labels", "label", "y")


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's share of a batch.

    Attributes:
        batch: its samples. Where there are fewer samples than ranks, one of them stands in for a
            share without any.
        samples: of the whole batch, over all ranks.
        counts: False for a stand-in: it is computed, with the weight 0.
    """

    batch: Any
    samples: int
    counts: bool = True


def own(batch: Any) -> Any:
    """Return what this rank computes of a batch: its share, or all of it without a `Share`."""
    return batch.batch if isinstance(batch, Share) else batch


def share_of(samples: int, rank: int, world_size: int) -> tuple[slice, bool]:
    """Return which samples of a batch a rank computes, and whether they count.

    The sizes differ by one at most. Where there are fewer samples than ranks, the first one stands
    in for a share without any.
    """
    rows = slice(samples * rank // world_size, samples * (rank + 1) // world_size)
    return (rows, True) if rows.start < rows.stop else (slice(0, 1), False)


def target_key(batch: Mapping[Any, Any]) -> str | None:
    """Return the key of a mapping's targets; None without any."""
    return next((key for key in TARGET_KEYS if key in batch), None)


def targets_of(batch: Any) -> Any:
    """Return a batch's targets; None if it has none.

    They are the last of several parts, the value of one of `TARGET_KEYS`, or an attribute of such
    a name, as in the graph batches of PyTorch Geometric.
    """
    if type(batch) in {tuple, list}:  # the usual ones: each step asks
        return batch[-1] if len(batch) > 1 else None
    if isinstance(batch, Share):
        return targets_of(batch.batch)
    if isinstance(batch, Tensor | PackedSequence | str | bytes):
        return None
    if isinstance(batch, Mapping):
        key = target_key(batch)
        return None if key is None else batch[key]
    if isinstance(batch, Sequence):
        return batch[-1] if len(batch) > 1 else None
    return next((getattr(batch, key) for key in TARGET_KEYS if hasattr(batch, key)), None)


def with_targets(batch: Any, targets: Any) -> Any:
    """Return a copy of a batch with other targets."""
    if isinstance(batch, Share):
        return replace(batch, batch=with_targets(batch.batch, targets))
    if isinstance(batch, Mapping):
        changed = {**batch, target_key(batch): targets}
        if type(batch) is not dict:
            with suppress(Exception):  # its class may want more than that
                return type(batch)(changed)  # type: ignore[call-arg]
        return changed
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*batch[:-1], targets)  # type: ignore[call-arg]
    if isinstance(batch, Sequence):
        return (*batch[:-1], targets)
    batch = copy.copy(batch)
    setattr(batch, next(key for key in TARGET_KEYS if hasattr(batch, key)), targets)
    return batch


def samples_in(batch: Any) -> int:
    """Return the number of a batch's samples: the first dimension of its targets.

    Inputs may begin with the time, or be packed, or the nodes of many graphs. Without targets, it
    is the first dimension of the first tensor that has one; 1 without any. Of a share, they are
    those of its whole batch.
    """
    if isinstance(batch, Share):
        return batch.samples
    size = samples_of(targets_of(batch))
    if size is None:
        size = _first_size(batch)
    return 1 if size is None else size


def samples_of(targets: Any) -> int | None:
    """Return for how many samples these are targets; None where that does not show."""
    if isinstance(targets, list | tuple) and not isinstance(targets, PackedSequence):
        sizes = {_first_size(part) if isinstance(part, Tensor) else None for part in targets}
        if len(sizes) == 1 and None not in sizes:  # several targets of each sample
            return sizes.pop()
        return len(targets)  # an object for each sample, such as a mapping of boxes and labels
    if isinstance(targets, Tensor) and not targets.ndim:
        return 1
    return _first_size(targets)


def _first_size(part: Any) -> int | None:
    if isinstance(part, PackedSequence):
        return int(part.batch_sizes[0])
    if isinstance(part, Tensor):
        return part.size(0) if part.ndim else None
    if isinstance(graphs := getattr(part, "num_graphs", None), int):
        return graphs
    values = part.values() if isinstance(part, Mapping) else part
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return None
    return next((size for value in values if (size := _first_size(value)) is not None), None)
