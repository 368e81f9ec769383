"""Shapes, outputs and vocabulary of a factory's data, from its first batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lrtool.data.batches import generators
from lrtool.data.part import OwnLoader, Resident
from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from lrtool.data.part import Part


def first_batch(part: Part, name: str) -> Any:
    """Return a batch of one sample or more, without changing random states.

    Raises:
        ConfigError: there is none, or the user's code fails; `name` is the source in the message.
    """
    if isinstance(part, Resident):
        return part.inputs[:1], part.targets[:1]
    loader = part.loader if isinstance(part, OwnLoader) else DataLoader(part.dataset, batch_size=1)
    states = [(generator, generator.get_state()) for generator in generators(loader)]
    try:
        with torch.random.fork_rng(devices=[]):
            return next(iter(loader))
    except StopIteration:
        problem = f"{name}: yields no training batch"
        raise ConfigError(Problem(("data", "source"), problem)) from None
    except (Exception, SystemExit) as error:
        problem = f"{name}: reading the first samples raised {type(error).__name__}: {error}"
        raise ConfigError(Problem(("data", "source"), problem)) from error
    finally:
        for generator, state in states:
            generator.set_state(state)


def is_pair(batch: Any) -> bool:
    """Tell whether a batch is two tensors, (inputs, targets)."""
    return (
        isinstance(batch, tuple | list)
        and len(batch) == 2
        and all(isinstance(item, Tensor) and item.ndim for item in batch)
    )


def shapes(batch: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one sample by name; empty unless a batch is a pair or a mapping."""
    items = dict(zip(("inputs", "targets"), batch, strict=True)) if is_pair(batch) else batch
    if not isinstance(items, Mapping):
        return {}
    tensors = {str(key): item for key, item in items.items() if isinstance(item, Tensor)}
    return {key: tuple(item.shape[1:]) for key, item in tensors.items()}


def outputs_and_vocabulary(
    train: Part, validation: Part | None, first: Any
) -> tuple[int | None, int | None]:
    """Return the number of outputs and the vocabulary, None where unknown."""
    if not is_pair(first):
        return None, None
    inputs, targets = first
    vocabulary = None
    if isinstance(train, Resident) and not inputs.is_floating_point():
        vocabulary = _highest(train, validation, "inputs") + 1
    if targets.is_floating_point():
        outputs = targets.shape[1] if targets.ndim == 2 else 1 if targets.ndim == 1 else None
        return outputs, vocabulary
    if isinstance(train, Resident):
        return _highest(train, validation, "targets") + 1, vocabulary
    return _classes(train.loader.dataset if isinstance(train, OwnLoader) else train.dataset), None


def _highest(train: Resident, validation: Part | None, name: str) -> int:
    parts = [part for part in (train, validation) if isinstance(part, Resident)]
    return max(int(getattr(part, name).max()) for part in parts)


def _classes(dataset: Any) -> int | None:
    """Return the number of classes by the attributes of a dataset, or of the one it wraps."""
    while dataset is not None:
        if hasattr(dataset, "classes"):
            return len(dataset.classes)
        if hasattr(dataset, "targets"):
            targets = torch.as_tensor(dataset.targets)
            return None if targets.is_floating_point() else int(targets.max()) + 1
        dataset = getattr(dataset, "dataset", None)
    return None
