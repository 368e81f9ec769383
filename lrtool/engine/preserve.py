"""Leave no trace: everything that a search changes is put back, also after an exception."""

from __future__ import annotations

import copy
import inspect
import io
import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lrtool.engine.randomness import random_states, restore_random_states
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Restore = Callable[[], object]

# How many foreign objects deep an optimizer's attributes are followed, such as a preconditioner in
# its state. A wrapper may lead to a whole trainer, which must not be copied.
DEPTH = 3


@contextmanager
def preserved(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss_fn: object = None,
    scaler: torch.amp.GradScaler | None = None,
    loaders: Iterable[object] = (),
    generators: Sequence[torch.Generator] = (),
) -> Iterator[None]:
    """Put everything back at the end of the block: to the last bit, in the same tensor objects.

    That is what `keep` keeps, gradients, the loaders' workers, and the random states of Python,
    NumPy, torch, its devices and `generators`. Anything else that a forward pass reaches is not put
    back: a random generator or a counter inside a dataset, a file, the items of a module's list.

    Raises:
        UserError: something cannot be put back; nothing has been touched.
    """
    modules = _modules(model, loss_fn)
    restore = keep(model, optimizer, loss_fn=loss_fn, scaler=scaler)
    with ExitStack() as last:  # each is put back, even if another one fails
        last.callback(restore_random_states, random_states(generators), generators)
        for loader in loaders:
            last.callback(_set_aside_workers(loader))
        last.callback(_set_aside_gradients(modules, optimizer))
        last.callback(restore)
        yield


def keep(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss_fn: object = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Restore:
    """Copy all that updates change; return a function that puts it back, any number of times.

    That is: of the model, and of the loss if it is a module, parameters, buffers, training modes
    and attributes (numbers, flags, tensors); of the optimizer, all attributes, the optimizers
    inside it, and parameters that only it knows; the scaler. It costs one copy of the model and of
    the optimizer's state.

    Raises:
        UserError: a lazy module has no weights yet, or the optimizer has an attribute that cannot
            be put back.
    """
    modules = _modules(model, loss_fn)
    for module in modules:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        lazy = [name for name, tensor in tensors if nn.parameter.is_lazy(tensor)]
        if lazy:
            raise UserError(f"{lazy[0]} has no weights yet: run the model once on a batch first")
    restores = [_keep_module(module) for module in modules]
    restores.append(_keep_optimizer(optimizer, modules))
    if scaler is not None:
        restores.append(_keep_scaler(scaler))

    def restore() -> None:
        with ExitStack() as each:  # even if another one fails
            for one in reversed(restores):
                each.callback(one)

    return restore


def _modules(model: nn.Module, loss_fn: object) -> list[nn.Module]:
    return [model, *([loss_fn] if isinstance(loss_fn, nn.Module) else [])]


def _in_turn(restores: Iterable[Restore]) -> Restore:
    """Return a function that calls them all."""
    restores = list(restores)

    def restore() -> None:
        for one in restores:
            one()

    return restore


def _keep_module(root: nn.Module) -> Restore:
    """Keep tensors by place and by value, and all other attributes."""
    tables = [vars(module) for module in root.modules()]
    # a module's _parameters, _buffers, _modules and their like
    tables += [v for table in tables for v in table.values() if isinstance(v, dict)]
    held = [v for table in tables for v in table.values() if isinstance(v, Tensor)]
    held += [*root.parameters(), *root.buffers()]  # TorchScript's are in no table
    tensors = {id(tensor): tensor for tensor in held}
    return _in_turn([*map(_keep_content, tables), *map(_keep_value, tensors.values())])


def _keep_optimizer(optimizer: torch.optim.Optimizer, modules: Sequence[nn.Module]) -> Restore:
    """Keep everything that an optimizer leads to, such as another optimizer inside it.

    Raises:
        UserError: one of these is an iterator, which cannot be put back.
    """
    known: set[int] = set()  # kept already
    for module in modules:
        known |= {id(each) for each in (module, *module.parameters(), *module.buffers())}
    kept = [_keep_object(value) for value in _reachable(optimizer, known)]
    return _in_turn(restore for restore in kept if restore is not None)


def _reachable(optimizer: torch.optim.Optimizer, known: set[int]) -> Iterator[Any]:
    """Yield all objects that an optimizer leads to, except the known ones."""
    seen: dict[int, Any] = {}  # holds each object, so that no other one takes its id
    # A wrapper may make its param_groups when asked.
    waiting = [(optimizer, "optimizer", 0), (optimizer.param_groups, "optimizer.param_groups", 0)]
    while waiting:
        value, name, depth = waiting.pop()
        if id(value) in known or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, DataLoader | Dataset):  # of a trainer, say: data are not copied
            continue
        if depth == 0 and isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            raise UserError(
                f"{name} is a {type(value).__name__}, which cannot be put back after a search; "
                "keep a number or a list in its place, or search with an optimizer without it"
            )
        yield value
        if _is_foreign(value):
            depth += not hasattr(value, "param_groups")  # a wrapper may be as deep as it likes
        if depth <= DEPTH:
            waiting += [(child, f"{name}{path}", depth) for path, child in _children(value)]


def _is_foreign(value: Any) -> bool:
    """Tell whether a value is an object with attributes of its own, such as another optimizer."""
    if isinstance(value, Tensor | nn.Module | torch.Generator | type) or inspect.ismodule(value):
        return False
    return bool(hasattr(value, "__dict__") or _slots(value)) and not _callable_parts(value)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds: items, attributes, and the objects behind a callable."""
    if isinstance(value, dict):
        yield from (
            (f".{key}" if isinstance(key, str) else "", item) for key, item in value.items()
        )
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from (("", item) for item in value)
    elif parts := _callable_parts(value):
        yield from (("", part) for part in parts)
    elif _is_foreign(value):
        yield "", getattr(value, "__dict__", {})
        yield from ((f".{name}", getattr(value, name)) for name in _slots(value))


def _callable_parts(value: Any) -> tuple[Any, ...]:
    """Return the objects that a method, a partial or a closure works on.

    Plain containers of a closure are left out: hooks fill them for whoever watches a training.
    """
    if inspect.ismethod(value):
        return (value.__self__, value.__func__)
    if isinstance(value, partial):
        return (value.func, value.args, value.keywords)
    if inspect.isfunction(value):
        return (None, *filter(_has_state, map(_content, value.__closure__ or ())))
    return ()


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _has_state(value: Any) -> bool:
    return not isinstance(value, dict | list | set | deque | bytearray | Iterator)


def _slots(value: Any) -> list[str]:
    names: list[str] = []
    for cls in type(value).__mro__:
        own = vars(cls).get("__slots__", ())
        names += [own] if isinstance(own, str) else own
    return [name for name in names if hasattr(value, name) and name != "__weakref__"]


def _keep_object(value: Any) -> Restore | None:
    """Keep the content of one object; None if it has none that may change."""
    for kind, keeper in KEEPERS:
        if isinstance(value, kind):
            return keeper(value)
    names = _slots(value) if _is_foreign(value) else []
    return _keep_slots(value, names) if names else None


def _keep_slots(value: Any, names: list[str]) -> Restore:
    content = [(name, getattr(value, name)) for name in names]

    def restore() -> None:
        for name, item in content:
            if getattr(value, name, None) is not item:
                object.__setattr__(value, name, item)  # a frozen dataclass forbids its own

    return restore


def _keep_content(container: Any) -> Restore:
    """Keep which objects a dictionary, list, set or deque holds, and their order."""
    content = list(container.items()) if isinstance(container, dict) else list(container)

    def restore() -> None:
        now = list(container.items()) if isinstance(container, dict) else list(container)
        if len(now) == len(content) and all(map(_same, now, content)):
            return
        container.clear()
        if isinstance(container, dict | set):
            container.update(content)
        else:
            container.extend(content)

    return restore


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other) == 2:
        return one[0] is other[0] and one[1] is other[1]
    return one is other


def _keep_value(tensor: Tensor) -> Restore:
    data, value, required = tensor.data, tensor.detach().clone(), tensor.requires_grad

    def restore() -> None:
        tensor.data = data
        if tensor.is_leaf and tensor.requires_grad != required:
            tensor.requires_grad_(required)
        # An expanded tensor cannot be written to, and so has not changed.
        if not torch.equal(data, value):
            data.copy_(value)

    return restore


def _keep_array(array: np.ndarray[Any, Any]) -> Restore:
    value = array.copy()

    def restore() -> None:
        if array.flags.writeable:
            array[...] = value

    return restore


def _keep_state(generator: Any) -> Restore:
    return partial(generator.set_state, generator.get_state())


def _keep_numpy_generator(generator: np.random.Generator) -> Restore:
    bits = generator.bit_generator
    return partial(setattr, bits, "state", copy.deepcopy(bits.state))


def _keep_python_random(generator: random.Random) -> Restore:
    return partial(generator.setstate, generator.getstate())


KEEPERS: tuple[tuple[Any, Callable[[Any], Restore]], ...] = (
    (Tensor, _keep_value),
    ((dict, list, set, deque, bytearray), _keep_content),
    (nn.Module, _keep_module),
    (np.ndarray, _keep_array),
    ((torch.Generator, np.random.RandomState), _keep_state),
    (np.random.Generator, _keep_numpy_generator),
    (random.Random, _keep_python_random),
)


def _keep_scaler(scaler: torch.amp.GradScaler) -> Restore:
    state = copy.deepcopy(scaler.state_dict())
    # An interruption between unscale_ and update leaves more in a scaler.
    stages = copy.copy(vars(scaler).get("_per_optimizer_states"))

    def restore() -> None:
        if state:  # a disabled scaler has none
            scaler.load_state_dict(state)
            vars(scaler)["_per_optimizer_states"] = copy.copy(stages)

    return restore


def _set_aside_gradients(modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> Restore:
    """Take the gradients off their parameters, so that nothing adds to them."""
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    parameters = [p for module in modules for p in module.parameters()]
    gradients = [(p, p.grad) for p in [*parameters, *optimized]]
    for parameter, _ in gradients:
        parameter.grad = None

    def restore() -> None:
        for parameter, gradient in gradients:
            parameter.grad = gradient

    return restore


def _set_aside_workers(loader: object) -> Restore:
    """Let a DataLoader with persistent workers start new ones; keep those that run."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is None and not getattr(loader, "persistent_workers", False):
        return lambda: None
    loader._iterator = None  # type: ignore[attr-defined]  # noqa: SLF001  (no public way)

    def restore() -> None:
        loader._iterator = iterator  # type: ignore[attr-defined]  # noqa: SLF001

    return restore
