"""Optimizers without torch._dynamo, torch's compiler, which takes a second to import.

torch imports it when the first optimizer is built or steps, to guard the methods below: the
compiler skips them, or breaks its graph in `step`. Nothing compiles before that import, so until
then the guards have nothing to do.
"""
# ruff: noqa: PLC0415  (torch is imported when a command needs it)

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

_DYNAMO = "torch._dynamo"
_METHODS = ("step", "add_param_group", "zero_grad", "state_dict", "load_state_dict")

# All names in the two guards of torch 2.13. A guard with any other name does something unknown, and
# stays.
_NOT_TRACED = {_DYNAMO, "_dynamo", "disable", "getattr", "__dynamo_disable"}
_GRAPH_BREAK = {
    *(_DYNAMO, "_dynamo", "graph_break", "torch", "cast", "Optimizer"),
    *("is_grad_enabled", "set_grad_enabled", "defaults"),
}


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Keep torch's optimizers from importing torch._dynamo inside the block.

    Once something else imports it, such as `torch.compile`, the guarded methods are called as ever.
    The block's end puts them back. If torch._dynamo is imported already, nothing changes.
    """
    import torch

    if _DYNAMO in sys.modules:
        yield
        return
    classes = [
        cls
        for cls in vars(torch.optim).values()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
    ]
    before = [(cls, name, vars(cls).get(name)) for cls in classes for name in _METHODS]
    try:
        for cls, name, method in before:
            if (unguarded := _unguarded(method)) is not None:
                setattr(cls, name, unguarded)
        yield
    finally:
        for cls, name, method in before:
            if method is not None:
                setattr(cls, name, method)
            elif name in vars(cls):  # torch hooked a `step` that is inherited
                delattr(cls, name)


def _unguarded(method: Any) -> Callable[..., Any] | None:
    """Return a method that skips its guard until torch._dynamo is there; None without a guard."""
    import torch

    names = set(getattr(getattr(method, "__code__", None), "co_names", ()))
    if "_dynamo" not in names or not hasattr(method, "__wrapped__"):
        return None
    inner = method.__wrapped__

    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if _DYNAMO in sys.modules else inner)(*args, **kwargs)

    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if _DYNAMO in sys.modules:
            return method(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return inner(self, *args, **kwargs)

    if names <= _NOT_TRACED:
        return functools.wraps(method)(call)
    return functools.wraps(method)(step) if names <= _GRAPH_BREAK else None
