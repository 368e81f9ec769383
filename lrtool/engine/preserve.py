"""Leave no trace: everything that a sweep changes is as it was, also after an exception."""

from __future__ import annotations

import copy
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lrtool.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@contextmanager
def preserved(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scaler: torch.amp.GradScaler | None = None,
    generators: Sequence[torch.Generator] = (),
) -> Iterator[Callable[[], None]]:
    """Put everything back at the end of the block: to the last bit, in the same tensor objects.

    Covered are parameters, buffers, gradients, training modes, the optimizer's state, groups and
    rates, the scaler, and the random states of Python, NumPy, torch, its devices and `generators`.
    The cost is one copy of model and optimizer state. The block receives a function that puts
    back model, optimizer and scaler alone: a new start from the same weights.

    Raises:
        UserError: a lazy module has no weights yet.
    """
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise UserError(f"{lazy[0]} has no weights yet: run the model once on a batch before this")
    restore_model = _keep_model(model)
    restart_optimizer, restore_optimizer = _keep_optimizer(optimizer)
    restore_gradients = _set_aside_gradients(model, optimizer)
    restore_scaler = _keep_scaler(scaler)
    restore_random = _keep_random_states(generators)

    def restart() -> None:
        restore_model()
        restart_optimizer()
        restore_scaler()

    try:
        restart()
        yield restart
    finally:
        restore_model()
        restore_optimizer()
        restore_gradients()
        restore_scaler()
        restore_random()


def _keep_model(model: nn.Module) -> Callable[[], None]:
    # Tensors are kept by place as well as by value: a module may replace a buffer altogether.
    places: list[tuple[dict[str, Any], str, Tensor]] = []
    for module in model.modules():
        for table in (module._parameters, module._buffers):  # noqa: SLF001  (no public way to a buffer's place)
            places += [(table, name, t) for name, t in table.items() if t is not None]
    values = {id(tensor): tensor.detach().clone() for _, _, tensor in places}
    modes = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for table, name, tensor in places:
            table[name] = tensor
            tensor.data.copy_(values[id(tensor)])
        for module, training in modes:
            module.training = training

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


def _set_aside_gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Take the gradients off their parameters, so that nothing adds to them."""
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [(p, p.grad) for p in [*model.parameters(), *optimized]]
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

    def restore() -> None:
        if state:  # a disabled scaler has none
            scaler.load_state_dict(state)

    return restore


def _keep_random_states(generators: Sequence[torch.Generator]) -> Callable[[], None]:
    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  (the global state is what users' code draws from)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    own = [(generator, generator.get_state()) for generator in generators]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(host)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        for generator, state in own:
            generator.set_state(state)

    return restore
