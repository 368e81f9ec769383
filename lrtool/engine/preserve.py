"""Leave no trace: everything that a sweep changes is as it was, also after an exception."""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lrtool.engine.randomness import random_states, restore_random_states
from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@contextmanager
def preserved(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss_fn: object = None,
    scaler: torch.amp.GradScaler | None = None,
    loader: object = None,
    generators: Sequence[torch.Generator] = (),
) -> Iterator[Callable[[], None]]:
    """Put everything back at the end of the block: to the last bit, in the same tensor objects.

    Covered are the model, and the loss if it is a module: parameters, buffers, gradients, training
    modes and attributes (numbers, flags, tensors); parameters that only the optimizer knows; the
    optimizer's state, groups and rates; the scaler; the loader's workers; and the random states of
    Python, NumPy, torch, its devices and `generators`. Not covered is what else a forward pass
    reaches: a random generator or a counter inside a dataset, a file, the contents of a list.

    The cost is one copy of model and optimizer state. The block receives a function that puts
    back model, loss, optimizer and scaler alone: a new start from the same weights.

    Raises:
        UserError: a lazy module has no weights yet.
    """
    modules = [model, *([loss_fn] if isinstance(loss_fn, nn.Module) else [])]
    for module in modules:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        lazy = [name for name, tensor in tensors if nn.parameter.is_lazy(tensor)]
        if lazy:
            raise UserError(f"{lazy[0]} has no weights yet: run the model once on a batch first")
    restore_modules = [_keep_module(module) for module in modules]
    restore_others = _keep_values([p for group in optimizer.param_groups for p in group["params"]])
    restart_optimizer, restore_optimizer = _keep_optimizer(optimizer)
    restore_scaler = _keep_scaler(scaler)
    restores = [*restore_modules, restore_others, restore_scaler]

    def restart() -> None:
        for restore in (*restores, restart_optimizer):
            restore()

    with ExitStack() as last:  # each is put back, whatever becomes of the others
        last.callback(_keep_random_states(generators))
        last.callback(_set_aside_workers(loader))
        last.callback(_set_aside_gradients(modules, optimizer))
        last.callback(restore_optimizer)
        for restore in restores:
            last.callback(restore)
        restart()
        yield restart


def _keep_module(root: nn.Module) -> Callable[[], None]:
    """Keep tensors by place and by value, and what else stands in the attributes."""
    modules = list(root.modules())
    tables = [vars(module) for module in modules]
    # _parameters, _buffers, _modules and their like are tables of a module's own
    tables += [v for table in tables for v in table.values() if isinstance(v, dict)]
    kept = [(table, dict(table)) for table in tables]
    restore_values = _keep_values(
        [v for _, items in kept for v in items.values() if isinstance(v, Tensor)]
    )

    def restore() -> None:
        for table, items in kept:
            if table.keys() != items.keys() or any(table[k] is not items[k] for k in items):
                table.clear()
                table.update(items)
        restore_values()

    return restore


def _keep_values(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Keep the values of tensors, each object once."""
    own = {id(tensor): tensor for tensor in tensors}
    values = [(tensor, tensor.data, tensor.detach().clone()) for tensor in own.values()]

    def restore() -> None:
        for tensor, data, value in values:
            tensor.data = data
            # An expanded tensor cannot be written to, but then nobody else has done so either.
            if not torch.equal(data, value):
                data.copy_(value)

    return restore


def _keep_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what lets the optimizer work on copies of its state, and what puts its own back."""
    attributes = dict(vars(optimizer))  # also what schedules leave behind, such as _opt_called
    state = dict(optimizer.state)
    groups = [(group, dict(group)) for group in optimizer.param_groups]
    rates = [
        (value, value.clone())
        for group in optimizer.param_groups
        for value in group.values()
        if isinstance(value, Tensor)
    ]

    def restore() -> None:
        vars(optimizer).clear()
        vars(optimizer).update(attributes)
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, items in groups:
            group.clear()
            group.update(items)
        for tensor, value in rates:
            tensor.copy_(value)

    def restart() -> None:
        restore()
        for parameter, own in state.items():
            optimizer.state[parameter] = copy.deepcopy(own)

    return restart, restore


def _set_aside_gradients(
    modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
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


def _keep_scaler(scaler: torch.amp.GradScaler | None) -> Callable[[], None]:
    if scaler is None:
        return lambda: None
    state = copy.deepcopy(scaler.state_dict())
    # Between unscale_ and update, which an interruption may divide, a scaler remembers more.
    stages = copy.copy(vars(scaler).get("_per_optimizer_states"))

    def restore() -> None:
        if state:  # a disabled scaler has none
            scaler.load_state_dict(state)
            vars(scaler)["_per_optimizer_states"] = copy.copy(stages)

    return restore


def _set_aside_workers(loader: object) -> Callable[[], None]:
    """Let a DataLoader with persistent workers start new ones, and keep those that run."""
    iterator = getattr(loader, "_iterator", None)
    if iterator is None and not getattr(loader, "persistent_workers", False):
        return lambda: None
    loader._iterator = None  # type: ignore[attr-defined]  # noqa: SLF001  (no public way)

    def restore() -> None:
        loader._iterator = iterator  # type: ignore[attr-defined]  # noqa: SLF001

    return restore


def _keep_random_states(generators: Sequence[torch.Generator]) -> Callable[[], None]:
    states = random_states(generators)
    return lambda: restore_random_states(states, generators)
