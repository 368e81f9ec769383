"""Rows of a batch that was made whole: the samples that are one rank's.

What in a batch has a row for each sample is decided once, for a batch on which that can be tried,
and holds for all others: elsewhere as many numbers as there are samples may be something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lrtool.errors import DataError

# The dimension of a tensor that counts the samples, or 0 for a list of them; None for what belongs
# to the batch as a whole; for a mapping or a tuple, the layout of each item.
Layout: TypeAlias = "int | dict[Any, Layout] | list[Layout] | None"

_OF_THE_WHOLE = (str, bytes, int, float, complex, type(None))


def layout_of(batch: Any, samples: int) -> Layout:
    """Return where a batch has a row for each of so many samples.

    Raises:
        DataError: it holds something that cannot be divided, or nothing has such rows.
    """
    layout = _layout(batch, samples)
    if not any(dimension is not None for dimension in _dimensions(layout)):
        raise DataError("nothing in a batch has a row for each sample")
    return layout


def _layout(value: Any, samples: int) -> Layout:
    if isinstance(value, Tensor):
        sizes = value.shape[:2]  # inputs may begin with the time
        return sizes.index(samples) if samples in sizes else None
    if isinstance(value, _OF_THE_WHOLE):
        return None
    if isinstance(value, Mapping):
        return {key: _layout(item, samples) for key, item in value.items()}
    if not isinstance(value, list | tuple) or isinstance(value, PackedSequence):
        raise DataError(f"a batch holds a {type(value).__name__}")
    if len(value) == samples and not any(_has_rows(item, samples) for item in value):
        return 0
    return [_layout(item, samples) for item in value]


def _has_rows(value: Any, samples: int) -> bool:
    if isinstance(value, Tensor):
        return samples in value.shape[:2]
    return isinstance(value, list | tuple | Mapping) and len(value) == samples


def _dimensions(layout: Layout) -> Iterable[int | None]:
    if isinstance(layout, int | None):
        yield layout
        return
    for item in layout.values() if isinstance(layout, dict) else layout:
        yield from _dimensions(item)


def rows_of(batch: Any, layout: Layout, samples: int, rows: slice) -> Any:
    """Return some samples of a batch that has so many.

    Raises:
        DataError: the batch does not have this layout.
    """
    if layout is None:
        return batch
    if isinstance(layout, dict):
        if not isinstance(batch, Mapping) or batch.keys() != layout.keys():
            raise DataError("a batch has other keys")
        return {key: rows_of(batch[key], layout[key], samples, rows) for key in batch}
    if isinstance(layout, list):
        if not isinstance(batch, list | tuple) or len(batch) != len(layout):
            raise DataError("a batch has other parts")
        items = [rows_of(*each, samples, rows) for each in zip(batch, layout, strict=True)]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    if isinstance(batch, Tensor):
        if batch.ndim <= layout or batch.size(layout) != samples:
            raise DataError("a tensor has other dimensions")
        return batch[rows] if layout == 0 else batch[:, rows]
    if not isinstance(batch, list | tuple) or len(batch) != samples or layout != 0:
        raise DataError("a list has another length")
    return batch[rows]
