"""Optimizers without torch._dynamo, the part of torch that compiles and takes a second to import.

torch imports it when the first optimizer is built or steps: so that a compiler leaves
`add_param_group`, `zero_grad` and the reading and writing of states alone, and breaks its graph in
`step`. Nothing is compiled before it is imported, and until then these guards do nothing else.
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

# All names that the two guards of torch 2.13 mention. One that mentions another does something
# that is not known here, and stays.
_NOT_TRACED = {_DYNAMO, "_dynamo", "disable", "getattr", "__dynamo_disable"}
_GRAPH_BREAK = {
    *(_DYNAMO, "_dynamo", "graph_break", "torch", "cast", "Optimizer"),
    *("is_grad_enabled", "set_grad_enabled", "defaults"),
}


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Let torch's own optimizers do without torch._dynamo until something else imports it.

    From then on, for `torch.compile` here or in a user's module, torch's own methods are called.
    They are in their places again when the block ends. If torch._dynamo is there already, nothing
    changes.
    """
    import torch

    if _DYNAMO in sys.modules:
        yield
        return
    found = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls)]
    classes = [cls for cls in found if issubclass(cls, torch.optim.Optimizer)]
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
    """Return a method without torch's guard while there is no torch._dynamo; None: it has none."""
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
