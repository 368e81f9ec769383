"""A loss of the user's that is the sum over its batch, and does not say so."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from math import isclose, isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.batch import samples_of
from lrtool.engine.denominator import reduction_of
from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from lrtool.engine.step import LossFunction


def warn_of_a_sum(name: str, loss_fn: LossFunction, outputs: Any, targets: Any) -> None:
    """Warn of a loss that is taken for a mean, and whose halves of a batch add up to the whole.

    Warns:
        LrtoolWarning: it is a sum.
    """
    reduction = reduction_of(loss_fn)
    if not reduction.summed and _is_sum(loss_fn, outputs, targets):
        warnings.warn(
            f"{name} adds up the samples of a batch, and losses are taken for means: those of an "
            "epoch, of the validation set and of accumulated batches depend on the batch size. "
            "Divide it by the number of samples, or make it a module with reduction = 'sum'",
            LrtoolWarning,
            stacklevel=2,
        )


def _is_sum(loss_fn: LossFunction, outputs: Any, targets: Any) -> bool:
    """Tell whether the losses of two halves add up to that of the whole."""
    samples = samples_of(targets)
    if samples is None or samples < 2:
        return False
    middle = samples // 2
    # A loss may need gradients, whole batches, or outputs that do not begin with the samples.
    with suppress(Exception, SystemExit), torch.no_grad():
        whole = float(loss_fn(outputs, targets))
        if not isfinite(whole):
            return False
        one, two = (
            float(loss_fn(_rows(outputs, rows, samples), _rows(targets, rows, samples)))
            for rows in (slice(middle), slice(middle, None))
        )
        return bool(one and two) and isclose(one + two, whole, rel_tol=1e-4)
    return False


def _rows(value: Any, rows: slice, samples: int) -> Any:
    """Return some samples of outputs or targets.

    Raises:
        ValueError: they do not begin with the samples.
    """
    if isinstance(value, Mapping):
        return {key: _rows(item, rows, samples) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(_rows(item, rows, samples) for item in value)
    if not isinstance(value, Tensor) or not value.ndim or len(value) != samples:
        raise ValueError("not one for each sample")
    return value[rows]
