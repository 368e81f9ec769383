"""Lightning's modules outside a Trainer, known by their interface: nothing here imports Lightning.

A module gets a stand-in for its Trainer, so that its `training_step` may log and read where the
training is. Its hooks that change a batch are called; those that change an update are not.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from lrtool.engine.weights import plain
from lrtool.errors import LrtoolWarning, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from torch import Tensor

_STAND_IN = "_lrtool_trainer"  # the attribute of a module that holds its stand-in

# Hooks that change what is trained, and that only a Trainer calls.
_NOT_CALLED = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_train_epoch_end",
)


class _Nothing:
    """Takes every call and has every attribute, such as a logger that logs nothing."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_keywords: Any) -> _Nothing:
        return self


class StandIn:
    """What a module may ask of its Trainer.

    Attributes:
        global_step: updates made.
        current_epoch: epochs finished.
        batch_idx: number of the batch within the epoch.
        skipped: the module has skipped all batches of the update so far.
        optimizers: the one optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self.global_step = self.current_epoch = self.batch_idx = 0
        self.skipped = False
        self.optimizers = [optimizer]
        self.strategy = _Strategy(self.optimizers)
        self.lr_scheduler_configs: list[Any] = []
        self.logger = _Nothing()
        self.loggers: list[Any] = []
        self.callbacks: list[Any] = []
        self.callback_metrics: dict[str, Any] = {}
        self.logged_metrics: dict[str, Any] = {}
        self.progress_bar_metrics: dict[str, Any] = {}
        self.progress_bar_callback = self.datamodule = None
        self.is_global_zero, self.should_stop = True, False
        self.global_rank = self.local_rank = self.node_rank = 0
        self.world_size = self.num_nodes = self.num_devices = self.accumulate_grad_batches = 1
        self.sanity_checking = self.testing = self.predicting = False

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self._model.training

    @property
    def validating(self) -> bool:
        """Whether it is in evaluation mode."""
        return not self._model.training

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{type(self._model).__name__} reads trainer.{name}, but there is no Lightning Trainer "
            "here: lrtool makes the updates"
        )


class _Strategy:
    """A Trainer's strategy on one device."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self._lightning_optimizers = self.optimizers = optimizers

    def all_gather(self, tensor: Tensor, *_args: Any, **_keywords: Any) -> Tensor:
        """Return the tensor: there is no other process."""
        return tensor

    def barrier(self, *_args: Any, **_keywords: Any) -> None:
        """Wait for nobody."""


def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a model with a `training_step` what it may ask of a Trainer; a real one stays.

    Raises:
        UserError: the module makes its updates itself.
    """
    model = plain(model)
    if not hasattr(model, "training_step"):
        return
    if getattr(model, "automatic_optimization", True) is False:
        raise UserError(
            f"{type(model).__name__} makes its updates itself (automatic_optimization is False), "
            "so nothing is known of its learning rate: it needs one optimizer, and a training_step "
            "that returns the loss"
        )
    stand_in = StandIn(model, optimizer)
    vars(model)[_STAND_IN] = stand_in
    for module in model.modules():
        if hasattr(type(module), "log_dict") and hasattr(type(module), "trainer"):
            vars(module).update(log=_log_nothing, log_dict=_log_nothing)
            if vars(module).get("_trainer") is None and vars(module).get("_fabric") is None:
                vars(module)["_trainer"] = stand_in


def warn_of_hooks(model: nn.Module) -> None:
    """Warn of hooks that only a Trainer calls.

    Warns:
        LrtoolWarning: a module with a `training_step` has some.
    """
    hooks = [name for name in _NOT_CALLED if is_own(model, name)]
    if hooks and hasattr(plain(model), "training_step"):
        warnings.warn(
            f"{', '.join(hooks)} of {type(plain(model)).__name__} will not be called: there is no "
            "Lightning Trainer here",
            LrtoolWarning,
            stacklevel=3,
        )


def _log_nothing(*_args: Any, **_keywords: Any) -> None:
    """Stand in for `log` and `log_dict`: what was logged would be lost, with a warning each."""


def placed(
    model: nn.Module,
    updates: Iterator[Sequence[Any]],
    *,
    step: int = 0,
    epoch: int = 0,
    batch: int = 0,
) -> Iterator[Sequence[Any]]:
    """Yield the batches of each update, and tell the model's stand-in where the training is.

    Args:
        model: the stand-in's, if it has one.
        updates: the batches of each update of an epoch, or of the rest of it.
        step: updates made before.
        epoch: epochs finished.
        batch: batches of this epoch before.
    """
    stand_in = vars(plain(model)).get(_STAND_IN)
    for group in updates:
        if stand_in is not None:
            stand_in.global_step, stand_in.current_epoch = step, epoch
            stand_in.batch_idx, stand_in.skipped = batch, True
        yield group
        step += stand_in is None or not stand_in.skipped
        batch += len(group)


def numbered(model: nn.Module, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of an evaluation, and tell the model's stand-in the number of each."""
    stand_in = vars(plain(model)).get(_STAND_IN)
    before = 0 if stand_in is None else stand_in.batch_idx
    try:
        for number, batch in enumerate(batches):
            if stand_in is not None:
                stand_in.batch_idx = number
            yield batch
    finally:
        if stand_in is not None:
            stand_in.batch_idx = before


def training_step(model: nn.Module, batch: Any) -> Any:
    """Return the loss of a module's `training_step`; None if it skips the batch.

    It is called with what its signature takes: the batch, or the batch and its number.

    Raises:
        UserError: it returned something else.
    """
    function: Any = model.training_step
    stand_in = vars(model).get(_STAND_IN)
    number = 0 if stand_in is None else stand_in.batch_idx
    kinds = inspect.signature(function).parameters.values()
    positional = [p for p in kinds if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in kinds):
        result = function(batch, number)
    elif any(p.name == "batch_idx" for p in kinds):
        result = function(batch, batch_idx=number)
    else:
        result = function(batch)
    if stand_in is not None and model.training:
        stand_in.batch_idx += 1  # the next of several batches of an update
        stand_in.skipped &= result is None
    if isinstance(result, Mapping):
        if "loss" not in result:
            keys = ", ".join(map(str, result)) or "none"
            raise UserError(f"training_step returned a mapping without a loss; its keys: {keys}")
        return result["loss"]
    return result


def transferred(model: nn.Module, batch: Any) -> Any:
    """Return a batch as a module's own hooks for batches change it."""
    model = plain(model)
    if not hasattr(model, "training_step"):
        return batch
    if is_own(model, "on_before_batch_transfer"):
        batch = model.on_before_batch_transfer(batch, 0)  # type: ignore[operator]
    if is_own(model, "transfer_batch_to_device"):
        device = next(model.parameters()).device
        batch = model.transfer_batch_to_device(batch, device, 0)  # type: ignore[operator]
    if is_own(model, "on_after_batch_transfer"):
        batch = model.on_after_batch_transfer(batch, 0)  # type: ignore[operator]
    return batch


def is_own(model: nn.Module, name: str) -> bool:
    """Tell whether a model's class has a method that is not torch's or Lightning's."""
    method = getattr(type(plain(model)), name, None)
    package = str(getattr(method, "__module__", "")).partition(".")[0]
    return method is not None and package not in {"torch", "lightning", "pytorch_lightning"}


def has_forward(model: nn.Module) -> bool:
    """Tell whether a model has a forward that does something."""
    method = type(plain(model)).forward
    lightning = method.__module__.startswith(("lightning.", "pytorch_lightning."))
    return method is not nn.Module.forward and not lightning


def optimizers_in(given: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizers in what `configure_optimizers` may return."""
    if hasattr(given, "param_groups") and not isinstance(given, type):
        return [given]
    if isinstance(given, Mapping):
        return optimizers_in(given.get("optimizer"))
    if isinstance(given, list | tuple):
        return [optimizer for part in given for optimizer in optimizers_in(part)]
    return []
