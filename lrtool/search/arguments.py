"""What `find_lr` was given: taken where it is clear, refused in words where it is a mistake."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lrtool.components.losses import ALIASES, LOSSES, build_loss
from lrtool.components.schedules import SCHEDULES
from lrtool.config.schema import LossConfig
from lrtool.curve import verdict
from lrtool.curve.constants import STEPS
from lrtool.engine.lightning import optimizers_in
from lrtool.engine.own_loss import method_of
from lrtool.engine.weights import plain
from lrtool.errors import LrtoolWarning, UserError, did_you_mean
from lrtool.search.object_ranks import world_size

if TYPE_CHECKING:
    from lrtool.engine.step import LossFunction

# Wrappers around a part of a model, by name, so that nothing has to be imported.
_SHARED = {"DistributedDataParallel", "FullyShardedDataParallel"}


def check_model(model: object) -> None:
    """Refuse what is not a model.

    Raises:
        UserError: it is a class, or something else.
    """
    _refuse_class("model", model, nn.Module)
    if not isinstance(model, nn.Module):
        raise UserError(f"model must be a torch.nn.Module, not {_kind(model)}")


def passes(loader: Iterable[Any], steps: int | None, accumulate: int) -> float | None:
    """Return how many times so many updates see each batch of a loader; None: unknown.

    Without a number it is that of the trainings that the constants come from.
    """
    if not isinstance(loader, Sized):
        return None
    try:
        batches = len(loader)
    except TypeError:  # of a DataLoader over an iterable dataset without a length
        return None
    return (steps or STEPS) * accumulate / batches if batches else None


def followed(loader: Iterable[Any], validation: object, schedule: str) -> frozenset[str]:
    """Return the advice that a training follows already, as in `curve.verdict`."""
    known = {
        verdict.WARMUP: SCHEDULES[schedule].rises,
        verdict.VALIDATION: validation is not None,
        verdict.FULL_BATCH: passes(loader, 1, 1) == 1,  # one batch is all
    }
    return frozenset(what for what, is_so in known.items() if is_so)


def unwrapped(model: nn.Module) -> tuple[nn.Module, DistributedDataParallel | None]:
    """Return a model without its DistributedDataParallel, and that; None if it has none.

    Raises:
        UserError: the ranks share it in another way.
    """
    ranks = world_size()
    wrapper = model if isinstance(model, DistributedDataParallel) else plain(model)
    if isinstance(wrapper, DistributedDataParallel):
        size = wrapper.process_group.size()
        if size < ranks:
            raise UserError(
                f"{size} of {ranks} ranks share the model; find_lr searches with all ranks or with "
                "one: give model.module"
            )
        if wrapper.mixed_precision is not None:
            raise UserError(
                "the DistributedDataParallel has mixed_precision; find_lr takes one without it, "
                'and precision="bf16" for autocast'
            )
        return wrapper.module, wrapper
    if ranks == 1:
        return model, None
    shared = {type(part).__name__ for part in model.modules()} & _SHARED
    if shared:
        raise UserError(
            f"the model has a part in {shared.pop()}; give find_lr the DistributedDataParallel "
            "of all that is trained, or the model without it"
        )
    kinds = {type(parameter).__name__ for parameter in model.parameters()}
    if "DTensor" in kinds:
        raise UserError(
            "the model is divided among the ranks (FSDP, or tensor parallelism), which find_lr "
            "cannot put back; search with lrtool find and runtime.shard: true, or before it is "
            "divided"
        )
    return model, None


def one_optimizer(given: Any, schedule: str | None = None) -> torch.optim.Optimizer:
    """Return an optimizer, or the one in what Lightning's `configure_optimizers` returns.

    Args:
        given: an optimizer; or a list, tuple or mapping with one, and its schedules.
        schedule: of the training, as the caller says it; None: it does not matter here.

    Raises:
        UserError: it holds none, or several.

    Warns:
        LrtoolWarning: it holds a schedule, and the caller says that there is none.
    """
    found = optimizers_in(given)
    if len(found) > 1:
        raise UserError(
            f"{len(found)} optimizers, as for a GAN: find_lr finds the rate of one. Call it once "
            "for each, with the loss that it lowers; or give one optimizer with several groups"
        )
    if not found:
        _refuse_class("optimizer", given, torch.optim.Optimizer, "model.parameters()")
        raise UserError(f"optimizer must be a torch.optim.Optimizer, not {_kind(given)}")
    # A schedule of torch's leaves its mark in the groups.
    scheduled = any("initial_lr" in group for group in found[0].param_groups)
    if schedule == "constant" and (scheduled or _holds_a_schedule(given)):
        warnings.warn(
            "the schedule beside the optimizer is ignored: say which one it is, such as "
            'schedule="cosine"',
            LrtoolWarning,
            stacklevel=3,
        )
    return found[0]


def _holds_a_schedule(given: Any) -> bool:
    if isinstance(given, Mapping):
        return given.get("lr_scheduler") is not None
    if isinstance(given, list | tuple):
        return any(map(_holds_a_schedule, given))
    return not hasattr(given, "param_groups") and hasattr(given, "get_last_lr")


def check_optimized(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: object) -> None:
    """Refuse an optimizer that has nothing of this model, or no rate.

    Raises:
        UserError: it has no parameter of the model or of its loss, or sets its rate itself.

    Warns:
        LrtoolWarning: the loss has trainable parameters that the optimizer does not have.
    """
    if any(group["lr"] is None for group in optimizer.param_groups):
        raise UserError(
            f"the lr of {type(optimizer).__name__} is None: it sets its own rate, and there is "
            "none to find; give it a number, and for Adafactor relative_step=False"
        )
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    of_loss = list(loss_fn.parameters()) if isinstance(loss_fn, nn.Module) else []
    if not any(id(p) in trained for p in [*model.parameters(), *of_loss]):
        raise UserError("the optimizer has no parameter of this model; build it from this model's")
    left = [p for p in of_loss if p.requires_grad and id(p) not in trained]
    if left:
        warnings.warn(
            f"{type(loss_fn).__name__} has {sum(p.numel() for p in left):,} trainable parameters "
            "that the optimizer does not have, so they are not trained",
            LrtoolWarning,
            stacklevel=3,
        )


def check_loss(loss_fn: Any, model: nn.Module) -> LossFunction | None:
    """Return a loss; that of a name, as in a configuration; None for the model's own.

    Raises:
        UserError: it is no loss.

    Warns:
        LrtoolWarning: the model has a loss of its own, which is not used.
    """
    if isinstance(loss_fn, str) and loss_fn == "own":  # as in a configuration
        loss_fn = None
    if isinstance(loss_fn, DistributedDataParallel):
        loss_fn = loss_fn.module
    method = method_of(model)
    if loss_fn is not None and method is not None:
        warnings.warn(
            f"the {method} of {type(model).__name__} is not used, for loss_fn is given; None takes "
            "it",
            LrtoolWarning,
            stacklevel=3,
        )
    if isinstance(loss_fn, str):
        if loss_fn not in {*LOSSES, *ALIASES}:
            hint = did_you_mean(loss_fn, [*LOSSES, *ALIASES])
            raise UserError(f"no loss is called {loss_fn!r}{hint}; give a function or a name")
        return build_loss(LossConfig(name=loss_fn), ())
    _refuse_class("loss_fn", loss_fn, nn.Module)
    if loss_fn is not None and not callable(loss_fn):
        raise UserError(
            f"loss_fn must be a function loss(outputs, targets), or None, not {_kind(loss_fn)}"
        )
    return loss_fn  # type: ignore[no-any-return]


def check_loader(name: str, loader: Any) -> None:
    """Refuse what does not yield batches.

    Args:
        name: of the argument.
        loader: its value.

    Raises:
        UserError: it yields samples or nothing.
    """
    _refuse_class(name, loader, object)
    what = _kind(loader)
    if loader is None:
        raise UserError(
            f"{name} is None; find_lr trains on batches: give an iterable of them, such as a "
            "DataLoader. Data that a training makes as it goes, as in reinforcement learning, may "
            "come from a generator"
        )
    arrays = loader if isinstance(loader, tuple) else (loader,)
    if arrays and all(hasattr(part, "shape") for part in arrays):
        raise UserError(
            f"{name} is {what}, not batches; give "
            "DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)"
        )
    if _is_dataset(loader):
        raise UserError(
            f"{name} is {what}, which yields samples, not batches; give DataLoader(data, "
            "batch_size=64, shuffle=True), or with batch_size=None if its items are batches"
        )
    if hasattr(loader, "train_dataloader"):
        raise UserError(f"{name} is {what}; give what its train_dataloader() returns")
    if isinstance(loader, Mapping | str | bytes) or not (
        isinstance(loader, Iterable) or hasattr(loader, "__getitem__")
    ):
        raise UserError(f"{name} must yield batches, as a DataLoader does; it is {what}")


def _is_dataset(loader: Any) -> bool:
    """Tell a map-style data set, torch's or Hugging Face's, from what may yield batches."""
    hugging_face = type(loader).__module__.partition(".")[0] == "datasets"
    torchs = isinstance(loader, Dataset) and not isinstance(loader, IterableDataset | DataLoader)
    return torchs or hugging_face


def _refuse_class(name: str, value: object, kind: type, arguments: str = "…") -> None:
    if inspect.isclass(value) and issubclass(value, kind):
        what = value.__name__
        raise UserError(f"{name} is the class {what}; give an object: {what}({arguments})")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
