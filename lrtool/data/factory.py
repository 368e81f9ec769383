"""Training and validation set from the user's own data factory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    IterDataPipe,
    Subset,
    TensorDataset,
)

from lrtool.data.columns import numbers_rows
from lrtool.data.conversion import (
    FLOATS,
    Conversion,
    as_array,
    as_tensor,
    convert,
    is_list_of_numbers,
)
from lrtool.data.part import OwnLoader, Resident, Streamed, loader_over
from lrtool.data.samples import not_finite
from lrtool.data.shares import shares_itself
from lrtool.data.worker_process import begin
from lrtool.data.workers import words
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.config.schema import DataConfig
    from lrtool.data.part import Part
    from lrtool.data.split import Rows, Split


MOST_SAMPLES = 10**12  # the order of so many fits into no memory


def call_factory(
    factory: Callable[..., Any], spec: DataConfig, split: Split
) -> tuple[Part, Part | None, bool]:
    """Call the factory with `data.args` and return the training and the validation set.

    The third value tells whether the validation set was split off here.

    The factory may return (train, validation) or train alone, each a pair (inputs, targets) of
    tensors or arrays, a Dataset or a DataLoader, or an object around one, with a length, that goes
    through its batches. Two arrays are always (inputs, targets). Without a
    validation set, `data.validation` of the training set is split off, unless it is a DataLoader or
    an iterable dataset.

    Raises:
        ConfigError: the factory failed, or returned something else.

    Warns:
        LrtoolWarning: `data.validation` is ignored.
    """
    name = spec.source
    try:
        made = factory(**spec.args)
    except (Exception, SystemExit) as error:
        raise _wrong(f"{name}: raised {words(error)}") from error
    first, second = _unpack(made, name)
    if _is_pair(first):
        _warn_of_row_numbers(first[0], f"{name}: train")
    train = _part(first, spec, f"{name}: train")
    if second is not None:
        # A run's own configuration sets every key.
        if "validation" in spec.model_fields_set and split.encoding is None:
            _warn(f"data.validation is ignored: {spec.source} returns a validation set of its own")
        return train, _part(second, spec, f"{name}: validation"), False
    if not spec.validation:
        return train, None, False
    if isinstance(train, OwnLoader) or (isinstance(train, Streamed) and train.iterable):
        kind = "a DataLoader" if isinstance(train, OwnLoader) else "an iterable dataset"
        _warn(
            f"data.validation is ignored: {spec.source} returns {kind}, which cannot be split;"
            " there is no validation set unless it returns (train, validation)"
        )
        return train, None, False
    return *_split(train, split, name), True


def _unpack(made: Any, name: str) -> tuple[Any, Any]:
    if _is_source(made):
        return made, None
    if isinstance(made, tuple | list) and len(made) == 2 and _is_source(made[0]):
        first, second = made
        if second is None or _is_source(second):
            return first, second
    raise _wrong(
        f"{name}: returned {_describe(made)}; it must return (train, validation) or train alone,"
        " each a pair (inputs, targets) of tensors or arrays, a Dataset or a DataLoader"
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_are_values, value))


def _are_values(value: Any) -> bool:
    """Tell whether this is an array, a tensor, a data frame or a list of numbers."""
    if isinstance(value, Tensor | np.ndarray) or is_list_of_numbers(value):
        return True
    return hasattr(value, "to_numpy") and not isinstance(value, Dataset)


def _warn_of_row_numbers(inputs: Any, name: str) -> None:
    """Warn of columns of a data frame that only number its rows."""
    for column in getattr(inputs, "columns", ()):
        values = as_array(inputs[column])
        known = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf"
        if known and numbers_rows(str(column), values.astype(np.float64)):
            _warn(
                f"{name}: the column {column!r} of the data frame only numbers its rows, and is an "
                "input: leave it out, or rename it if it is meant"
            )


def _is_source(value: Any) -> bool:
    if _is_pair(value) or isinstance(value, Dataset | DataLoader):
        return True
    # Datasets of other libraries need not have torch's base class.
    plain = isinstance(value, tuple | list | dict | str | bytes) or _are_values(value)
    indexed = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return not plain and (indexed or _is_loader(value))


def _is_loader(value: Any) -> bool:
    """Tell whether this goes through batches as often as it is asked to, as around a DataLoader."""
    kind = type(value)
    again = hasattr(kind, "__iter__") and not hasattr(kind, "__next__")
    return again and hasattr(kind, "__len__") and not hasattr(kind, "__getitem__")


def _describe(made: Any) -> str:
    if isinstance(made, tuple | list):
        kinds = ", ".join(type(item).__name__ for item in made[:4])
        return f"a {type(made).__name__} of {len(made)} ({kinds})"
    return "None" if made is None else f"an object of type {type(made).__name__}"


def _part(value: Any, spec: DataConfig, name: str) -> Part:
    if not isinstance(value, Dataset | DataLoader) and _is_loader(value):
        return OwnLoader(loader_over(value))
    if isinstance(value, DataLoader):
        copies = _copies(value, name)
        if value.num_workers:
            value.worker_init_fn = partial(begin, then=value.worker_init_fn)
            value.timeout = value.timeout or spec.timeout
        return OwnLoader(value, copies)
    pair = value if _is_pair(value) else _pair_of(value)
    if pair is not None:
        return to_resident(pair[0], pair[1], name)
    part = Streamed(value, spec.workers, spec.timeout)
    if part.iterable and spec.workers > 1 and not _shares_itself(value, spec.workers):
        _warn(
            f"each of the {spec.workers} workers (data.workers) goes through all samples of "
            f"{type(value).__name__} and passes on its share: no faster than without workers, "
            "unless the dataset shares its samples by torch.utils.data.get_worker_info()"
        )
        part = replace(part, shared=True)
    if not part.iterable and not 0 < (part.size or 0) <= MOST_SAMPLES:
        fault = "has no __len__" if part.size is None else "is empty"
        if part.size:
            fault = f"says that it has {part.size:,} samples"
        raise _wrong(f"{name}: the dataset {type(value).__name__} {fault}")
    return part


def _copies(loader: DataLoader[Any], name: str) -> int:
    """Return how many workers of a loader yield all samples of an iterable dataset, or 1."""
    workers, dataset = loader.num_workers, loader.dataset
    if workers < 2 or loader.worker_init_fn is not None:  # which may share the samples
        return 1
    if not isinstance(dataset, IterableDataset) or _shares_itself(dataset, workers):
        return 1
    _warn(
        f"{name}: each of the {workers} workers of the DataLoader yields all samples of "
        f"{type(dataset).__name__}, so an epoch has each of them {workers} times: share them in "
        "its __iter__ by torch.utils.data.get_worker_info(), or set num_workers to 1"
    )
    return workers


def _shares_itself(dataset: IterableDataset[Any], workers: int) -> bool:
    if isinstance(dataset, IterDataPipe):  # torch does that for it
        return True
    try:
        return shares_itself(dataset, workers)
    except Exception:  # noqa: BLE001  (the first batch will raise it, and is worded)
        return True


def _pair_of(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """Return the tensors of a TensorDataset of inputs and targets, or of a subset of one."""
    if type(dataset) is Subset:
        pair = _pair_of(dataset.dataset)
        rows = torch.as_tensor(dataset.indices)
        return None if pair is None else (pair[0][rows], pair[1][rows])
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors[0], dataset.tensors[1]
    return None


def to_resident(inputs: Any, targets: Any, name: str) -> Resident:
    """Turn two arrays, tensors, data frames or lists of numbers into a part in memory.

    Values and types of floats stay as they are; all else is as in `conversion`.

    Raises:
        ConfigError: not numbers, different lengths, no samples, or values that are not finite.
    """
    x, y = _tensor(inputs, f"{name}: inputs"), _tensor(targets, f"{name}: targets")
    if len(x) != len(y):
        raise _wrong(f"{name}: {len(x)} inputs, but {len(y)} targets")
    if not len(x):
        raise _wrong(f"{name}: has no samples")
    x, y = convert((x, y), Conversion((torch.get_default_dtype(), *FLOATS)))
    for values, what in ((x, "inputs"), (y, "targets")):
        if values.is_floating_point():
            converted = values.to(torch.get_default_dtype())  # may be too large for it
            if not bool(converted.isfinite().all()):
                raise _wrong(f"{name}: {what}: {not_finite(converted.cpu().double().numpy())}")
    return Resident(x, y)


def _tensor(values: Any, origin: str) -> Tensor:
    tensor = as_tensor(values)
    if tensor is None:
        kind = getattr(as_array(values), "dtype", f"a {type(values).__name__}")
        raise _wrong(f"{origin} are of type {kind}; they must be numbers")
    if tensor.is_complex():
        raise _wrong(f"{origin} are of type {tensor.dtype}; they must be real numbers")
    if tensor.ndim == 0:
        raise _wrong(f"{origin} are a single value, not one for each sample")
    return tensor.detach()


def _split(train: Resident | Streamed, split: Split, name: str) -> tuple[Part, Part | None]:
    size, classes = train.size, None
    assert size is not None, "iterable datasets are not split"
    if isinstance(train, Resident):
        y = train.targets
        classes = y.cpu().numpy() if y.dtype == torch.int64 and y.ndim == 1 else None
    rows, held_out = split.indices(size, name, classes)
    assert held_out is not None, "called only if data.validation is not 0"

    def part(indices: Rows) -> Part:
        if isinstance(train, Streamed):
            return replace(train, dataset=Subset(train.dataset, indices.tolist()))
        x, y = train.inputs, train.targets
        index = torch.from_numpy(indices)
        return Resident(x[index.to(x.device)], y[index.to(y.device)])

    return part(rows), part(held_out)


def _wrong(problem: str) -> ConfigError:
    return ConfigError(Problem(("data", "source"), problem))


def _warn(message: str) -> None:
    warnings.warn(message, LrtoolWarning, stacklevel=4)
