"""What the numbers of the user's own data become: one way for pairs, datasets and loaders.

Floats become the model's type, integers int64. Inputs of bytes or booleans become floats where a
batch is (inputs, targets); elsewhere they may be masks, and stay. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

from lrtool.batch import target_key
from lrtool.errors import DataError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# Of one number for each sample. column: (N, 1); flat: (N,).
Shape = Literal["as given", "column", "flat"]
SHAPES: tuple[Shape, ...] = ("as given", "column", "flat")
MOST = 2**63 - 1
_SMALL = {torch.uint8, torch.bool}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How batches are converted.

    Attributes:
        floats: the types of floats that stay; others become the first of them.
        targets: the shape of one number for each sample.
        binary: integer targets 0 and 1 become floats, for a binary loss.
        weighted: tuples are (inputs, targets, weights of the samples).
    """

    floats: tuple[torch.dtype, ...] = ()
    targets: Shape = "as given"
    binary: bool = False
    weighted: bool = False


AS_GIVEN = Conversion()


def convert(batch: Any, to: Conversion) -> Any:
    """Return a batch with its tensors and arrays converted.

    Tuples are (inputs…, targets). Objects of the user's own are left alone, as is a mapping or a
    tuple in which nothing changes.

    Raises:
        DataError: targets of a binary loss are neither 0 nor 1.
    """
    if isinstance(batch, Mapping):
        return _inside(batch, to, target_key(batch))
    if not isinstance(batch, tuple | list) or isinstance(batch, PackedSequence) or len(batch) < 2:
        return batch
    *inputs, targets = batch[:-1] if to.weighted else batch
    weights = [_inputs(value, to) for value in batch[-1:]] if to.weighted else []
    inputs = [_inputs(value, to) for value in inputs]
    if len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].dtype in _SMALL:
        inputs[0] = inputs[0].to(_default(to))
    return _like(batch, [*inputs, _targets(targets, to), *weights])


def as_tensor(values: Any) -> Tensor | None:
    """Return an array, a data frame or a list of numbers as a tensor; None for anything else."""
    if isinstance(values, Tensor):
        return values
    array = as_array(values)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiubc":
        return None
    return torch.from_numpy(array)


def as_array(values: Any) -> Any:
    """Return what torch can take in place of an array, a data frame or a list of numbers.

    torch refuses a foreign byte order, negative strides and objects, and warns of read-only memory.
    Anything else is returned as it is.
    """
    if is_list_of_numbers(values):
        values = np.asarray(values)
    elif not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):
        values = values.to_numpy()
    if not isinstance(values, np.ndarray):
        return values
    if isinstance(values, np.ma.MaskedArray):  # NaN where masked
        masked = np.ma.is_masked(values)
        numbers = values.astype(np.float64) if masked else values
        values = np.ma.filled(numbers, np.nan) if masked else np.asarray(numbers)
    if values.dtype == object and all(map(_is_number, values.flat)):
        values = np.asarray(values.tolist())
    if values.dtype.kind not in "fiubc":
        return values
    if values.dtype == np.longdouble and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if values.dtype == np.uint64 and values.size and values.max() > MOST:
        raise OverflowError(f"{values.max()} is more than 64 bits hold with a sign")
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    # NumPy calls an array of one row contiguous, whatever its strides
    return np.require(native, requirements=["C", "W"]) if native.ndim else native.copy()


def is_list_of_numbers(values: Any) -> bool:
    """Tell whether this is a list of numbers, or of lists of equally many of them."""
    if not isinstance(values, list) or not values:
        return False
    if all(map(_is_number, values)):
        return True
    return (
        all(isinstance(row, list) and len(row) == len(values[0]) for row in values)
        and len(values[0]) > 0
        and all(map(is_list_of_numbers, values))
    )


def collate(samples: list[Any]) -> Any:
    """Return a batch of a dataset's samples, as torch's `default_collate` does.

    Samples may also hold data frames, lists of numbers, and arrays that torch refuses.
    """
    return default_collate([_plain(sample) for sample in samples])


def _plain(sample: Any) -> Any:
    if isinstance(sample, Tensor | int | float | str | np.generic):
        return sample
    if type(sample) is tuple:
        return tuple(map(_plain, sample))
    if type(sample) is dict:
        return {key: _plain(value) for key, value in sample.items()}
    array = as_array(sample)
    return list(map(_plain, array)) if type(array) is list else array


def _inside(batch: Mapping[Any, Any], to: Conversion, targets: str | None = None) -> Any:
    values = {
        key: _targets(value, to) if key == targets else _inputs(value, to)
        for key, value in batch.items()
    }
    return batch if all(values[key] is batch[key] for key in values) else values


def _like(batch: Any, items: list[Any]) -> Any:
    """Return items as the type of a tuple or list; the batch itself if they are its own."""
    if all(new is old for new, old in zip(items, batch, strict=True)):
        return batch
    return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)


def _inputs(value: Any, to: Conversion) -> Any:
    if isinstance(value, Mapping):
        return _inside(value, to)
    if isinstance(value, tuple | list):
        return _like(value, [_inputs(item, to) for item in value])
    tensor = as_tensor(value)
    if tensor is None or tensor.dtype in _SMALL or tensor.is_complex():
        return value if tensor is None else tensor
    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    kept = to.floats or (torch.get_default_dtype(),)
    return tensor if tensor.dtype in kept else tensor.to(kept[0])


def _targets(value: Any, to: Conversion) -> Any:
    tensor = as_tensor(value)
    if tensor is None:
        return _inputs(value, to)
    tensor = tensor.to(torch.int64) if tensor.dtype in _SMALL else _inputs(tensor, to)
    if to.binary and tensor.dtype == torch.int64:
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise DataError(
                f"a binary loss takes targets 0 and 1, but one is {int(tensor.max())}; for classes "
                "there is cross_entropy"
            )
        tensor = tensor.to(_default(to))
    if to.targets == "column" and tensor.ndim == 1:
        return tensor[:, None]
    return tensor.flatten() if to.targets == "flat" and tensor.ndim == 2 else tensor


def _default(to: Conversion) -> torch.dtype:
    return to.floats[0] if to.floats else torch.get_default_dtype()


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.bool_)
