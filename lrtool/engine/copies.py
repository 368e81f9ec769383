"""Copies of batches, since a model may change a batch in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lrtool.batch import Share

if TYPE_CHECKING:
    from collections.abc import Callable


def copied(batch: Any) -> Any:
    """Return a copy of a batch, with tensors of its own.

    What cannot be copied as it is: a tensor with a graph is cloned, and its graph is that of the
    clone too; other objects are asked for a `clone()`, or are shared.
    """
    if isinstance(batch, Share):
        return replace(batch, batch=copied(batch.batch))
    try:
        return copy.deepcopy(batch)
    except Exception:  # noqa: BLE001  (the user's objects may raise anything)
        return _in_parts(batch, {})


def _in_parts(value: Any, seen: dict[int, Any]) -> Any:
    """Copy what can be copied; what occurs twice is copied once, as by `deepcopy`."""
    if id(value) not in seen:
        seen[id(value)] = _copied_part(value, seen)
    return seen[id(value)]


def _copied_part(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return value.clone() if value.grad_fn is not None else copy.deepcopy(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_in_parts(item, seen) for item in value))
    if type(value) in {list, tuple}:
        return type(value)(_in_parts(item, seen) for item in value)
    if isinstance(value, Mapping) and not hasattr(value, "clone"):
        return {key: _in_parts(item, seen) for key, item in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001
        return _cloned(value)


def _cloned(value: Any) -> Any:
    try:
        return value.clone()
    except Exception:  # noqa: BLE001
        return value


def detached(value: Any) -> Any:
    """Return tensors, and those in lists, tuples and dictionaries, without their graphs."""
    return mapped(value, Tensor.detach)


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return what a function makes of tensors, and those in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if type(value) in {list, tuple}:
        return type(value)(mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    return value
