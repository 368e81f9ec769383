"""How the data are converted for the model and the loss: their types, and the targets' shape."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.batch import targets_of
from lrtool.components import import_path, losses
from lrtool.data import batches
from lrtool.data.conversion import AS_GIVEN, SHAPES, Conversion, Shape, convert
from lrtool.data.load import converted
from lrtool.engine.sample_weight import unweighted
from lrtool.engine.step import forward

if TYPE_CHECKING:
    from torch import nn

    from lrtool.data.load import Loaded
    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction


def fitted_types(data: Loaded, model: nn.Module) -> Loaded:
    """Return the data with floats of the type of the model's weights."""
    return converted(data, Conversion(float_types(model)))


def fitted_shape(
    data: Loaded, model: nn.Module, loss_fn: LossFunction, loss: str, runtime: Runtime
) -> Loaded:
    """Return the data with targets of a shape that the loss can compare with the outputs.

    Targets (N,) and (N, 1) hold the same numbers. Where neither fits, they stay as they were given.

    Args:
        data: from `fitted_types`.
        model: to try; not used again.
        loss_fn: likewise.
        loss: its name.
        runtime: where the model is.
    """
    to = Conversion(float_types(model))
    with suppress(Exception, SystemExit):  # the preflight tells what does not fit
        size, device = data.batch_size, runtime.device
        batch = next(batches.epoch(data.train, batch_size=size, seed=0, epoch=0, device=device))
        if isinstance(batch, tuple | list) and unweighted(model, batch)[1] is not None:
            binary = getattr(data.train, "conversion", AS_GIVEN).binary
            to = replace(to, weighted=True, binary=binary)
            batch = convert(batch, to)
        if _one_number_each(targets_of(unweighted(model, batch)[0]), loss):
            for shape in SHAPES:
                tried = replace(to, targets=shape)
                if _fits(model, loss_fn, loss, convert(batch, tried), runtime, shape=shape):
                    return converted(data, tried)
    return converted(data, to)


def float_types(model: nn.Module) -> tuple[torch.dtype, ...]:
    """Return the types of the model's floats, torch's default type first if it is among them."""
    default = torch.get_default_dtype()
    held = [t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    return tuple(sorted(set(held) or {default}, key=lambda dtype: (dtype != default, str(dtype))))


def _one_number_each(targets: Any, loss: str) -> bool:
    """Tell whether targets are one number for each sample, in a shape that may have to change.

    Integers (N,) are class indices for a built-in loss; the user's own may subtract them.
    """
    if not isinstance(targets, Tensor):
        return False
    open_shape = targets.is_floating_point() or import_path.is_import_path(loss)
    return targets.shape[1:] == (1,) or (targets.ndim == 1 and open_shape)


def _fits(
    model: nn.Module,
    loss_fn: LossFunction,
    loss: str,
    batch: Any,
    runtime: Runtime,
    *,
    shape: Shape,
) -> bool:
    with suppress(Exception, SystemExit), warnings.catch_warnings(), runtime.autocast():
        warnings.simplefilter("ignore")  # the preflight gives them for the shape that is taken
        outputs, targets = forward(model, batch)
        if losses.fit_problem(loss, loss_fn, outputs, targets) is not None:
            return False
        if not import_path.is_import_path(loss):
            return True
        several = outputs.numel() != targets.numel()
        if several and not targets.is_floating_point():  # a column of classes would broadcast
            return shape != "column"
        return losses.compares_in_pairs(loss_fn, outputs, targets)
    return False
