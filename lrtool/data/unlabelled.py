"""Samples without targets, of a file or in memory, read as a run has read its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrtool.data.columns import check_trained, frame_of
from lrtool.data.encoding import (
    ArrayInputs,
    CharacterInputs,
    Encoding,
    GreyInputs,
    TableInputs,
    WordsColumn,
    code_points,
)
from lrtool.data.input_files import find_file, read_text
from lrtool.data.parquet_table import read_parquet
from lrtool.data.sources.idx import read_images
from lrtool.data.sources.npz import read_inputs
from lrtool.data.text_table import read_table, table_format, table_of
from lrtool.errors import DataError, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lrtool.data.text_table import Table, TableFormat

PARQUET, TEXT = {".parquet", ".pq"}, {".csv", ".tsv", ".txt"}
FORMAT: dict[str, Any] = {  # the defaults of the source csv
    "delimiter": ",",
    "header": True,
    "na_values": None,
    "decimal": ".",
    "thousands": "",
    "numeric": [],
}


def read_unlabelled(encoding: Encoding, args: Mapping[str, Any], data: Any) -> Tensor:
    """Return the inputs of samples, (N, …), as the model takes them.

    Args:
        encoding: what the run has learned.
        args: `data.args` of the run: how its files are written.
        data: a path, as `data.args.path` of the run's source; for tables also a `.parquet` file, a
            DataFrame, a mapping of columns or a list of mappings; for the others an array or
            tensor: images of bytes (N, H, W), or what the model takes.

    Raises:
        UserError: the run cannot read such data, or they do not fit what it has learned.

    Warns:
        LrtoolWarning: words or characters are unknown.
    """
    known = encoding.inputs
    if known is None:
        raise UserError(
            "the run's batches are not (inputs, targets), so other data cannot be read for it;"
            " give the model a batch of your own"
        )
    path = Path(os.path.expanduser(data)) if isinstance(data, str | os.PathLike) else None  # noqa: PTH111  (as in `find_file`)
    if isinstance(known, TableInputs):
        return torch.from_numpy(_of_a_table(encoding, known, args, path, data))
    if isinstance(known, CharacterInputs):
        return _windows(known, encoding, path, data)
    if isinstance(known, GreyInputs):
        images = read_images(path) if path else _array(data)
        return _fitting(torch.from_numpy(_grey(known, encoding, images)), encoding)
    if path:
        floats, name = known.dtype.startswith("float"), str(args.get("inputs", "x"))
        inputs = torch.from_numpy(read_inputs(path, name, floats=floats))
    else:
        inputs = _tensor(data)
    return _fitting(_of_type(inputs, known), encoding)


def _of_a_table(
    encoding: Encoding, known: TableInputs, args: Mapping[str, Any], path: Path | None, data: Any
) -> NDArray[np.float32]:
    spelled = {key: args.get(key, default) for key, default in FORMAT.items()}
    form = table_format(**{**spelled, "numeric": list(map(str, spelled["numeric"]))})
    kinds = {column.name: column.kind for column in known.columns}
    if path is None:
        words = {c.name: set(c.words) for c in known.columns if isinstance(c, WordsColumn)}
        table = _in_memory(_columns(data), form, words)
    else:
        file = find_file(str(path), [Path()])
        ending = file.suffix.lower()
        in_parquet = ending in PARQUET or (encoding.source == "parquet" and ending not in TEXT)
        table = read_parquet(file, form) if in_parquet else _of_text(file, form, known, args)
    check_trained(table, list(kinds))
    return known.encode(frame_of(table, kinds, known), warn=True)


def _of_text(file: Path, form: TableFormat, known: TableInputs, args: Mapping[str, Any]) -> Table:
    """Read a text file; without a header its columns are known by their place in the training."""
    if known.fields is not None:
        form = replace(form, header=tuple(map(str, range(known.fields))))
    target = None if isinstance(form.header, bool) else str(args["target"])
    return read_table(file, form, target=target)


def _columns(data: Any) -> dict[str, list[Any]]:
    """Return columns by name."""
    if isinstance(data, Mapping):
        return {str(name): _listed(values, name) for name, values in data.items()}
    if hasattr(data, "columns") and hasattr(data, "iloc"):  # pandas
        called = [str(name) for name in data.columns]
        if twice := next((name for name in called if called.count(name) > 1), None):
            raise DataError(f"the data: two columns are named {twice!r}")
        return {name: data.iloc[:, place].tolist() for place, name in enumerate(called)}
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        return {str(name): [row.get(name) for row in data] for name in names}
    raise UserError(
        f"a {type(data).__name__} has no columns with names; give a path, a DataFrame, or a mapping"
        " of columns, or rows that are mappings"
    )


def _listed(values: Any, name: Any) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise UserError(f"column {name!r} is a single {type(values).__name__}; give a list")
    listed: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    return listed


def _in_memory(
    columns: Mapping[str, list[Any]], form: TableFormat, words: Mapping[str, Collection[str]]
) -> Table:
    """Return a table of values of any kind, as text.

    Args:
        columns: by name.
        form: what is missing, and how numbers are written that are text.
        words: those of the columns of words.
    """
    numeric = {name for name, values in columns.items() if all(map(_is_number, values))}
    sizes = {name: len(values) for name, values in columns.items()}
    size, decimal = max(sizes.values(), default=0), form.numbers.decimal
    if not size:
        raise DataError("the data: no rows")
    if min(sizes.values()) < size:
        raise DataError(f"the data: columns of different lengths: {sizes}")
    return table_of(
        Path("the data"),
        form,
        list(columns),
        [
            [_text(v, words.get(name, ()), "." if name in numeric else decimal) for v in values]
            for name, values in columns.items()
        ],
        [(Path("the data"), row) for row in range(size)],
        place="the data",
        types={number: "number" for number, name in enumerate(columns) if name in numeric},
        unit="row",
    )


def _is_missing(value: Any) -> bool:
    # Those of pandas first: they cannot be compared. NaN differs from itself.
    of_pandas = type(value).__name__ in {"NAType", "NaTType"}
    return value is None or of_pandas or bool(value != value)  # noqa: PLR0124


def _is_number(value: Any) -> bool:
    known = int | float | Decimal | np.integer | np.floating | np.bool_
    return _is_missing(value) or isinstance(value, known)


def _text(value: Any, words: Collection[str], decimal: str) -> str | None:
    """Return a value as a file would have it; None if it is missing.

    pandas makes 1.0 of 1 where others of its column are missing.

    Args:
        value: of any kind.
        words: of a column of words.
        decimal: the mark of its column's numbers.
    """
    if _is_missing(value):
        return None
    if not isinstance(value, float | np.floating | Decimal):
        return str(value).strip()
    text = str(value) if isinstance(value, Decimal) else repr(float(value))
    if value % 1 == 0 and text not in words and str(int(value)) in words:
        return str(int(value))
    return text.replace(".", decimal)


def _windows(known: CharacterInputs, encoding: Encoding, path: Path | None, data: Any) -> Tensor:
    """Return the windows of a text, (N, T): whole ones from its end, or all of a shorter text."""
    if path is None:
        return _fitting(_of_type(_tensor(data), ArrayInputs("int64")), encoding)
    codes = code_points(read_text(find_file(str(path), [Path()])))
    assert encoding.input_shape is not None, "windows have a length"
    size = min(encoding.input_shape[0], len(codes))
    tokens = known.encode(codes[len(codes) % size :], warn=True)
    return torch.from_numpy(tokens).reshape(-1, size)


def _grey(known: GreyInputs, encoding: Encoding, images: NDArray[Any]) -> NDArray[np.float32]:
    if images.dtype != np.uint8:
        raise UserError(f"the run was trained on images of bytes (uint8), not {images.dtype}")
    assert encoding.input_shape is not None, "images have a size"
    if images.shape[1:] == encoding.input_shape:  # (N, 1, H, W)
        images = images[:, 0]
    if images.ndim != 3:
        raise UserError(f"images must be (N, H, W), not {images.shape}")
    return known.encode(images)


def _array(data: Any) -> NDArray[Any]:
    return _tensor(data).numpy()


def _tensor(data: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(data).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"a {type(data).__name__} is no array of numbers: {error}") from None
    if not tensor.ndim or not tensor.numel():
        raise UserError(f"the data have the shape {tuple(tensor.shape)}; give (N, …)")
    return tensor


def _of_type(inputs: Tensor, known: ArrayInputs) -> Tensor:
    dtype = getattr(torch, known.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            f"the run was trained on inputs of {known.dtype}, which torch does not know"
        )
    if inputs.is_complex() or (inputs.is_floating_point() and not dtype.is_floating_point):
        raise UserError(f"the run was trained on inputs of {known.dtype}, not {inputs.dtype}")
    return inputs.to(dtype)


def _fitting(inputs: Tensor, encoding: Encoding) -> Tensor:
    """Check shape and tokens."""
    shape, tokens = encoding.input_shape, encoding.vocabulary
    if tokens is None and shape is not None and tuple(inputs.shape[1:]) != shape:
        raise DataError(
            f"the data have inputs of shape {tuple(inputs.shape[1:])}, but the run was trained on"
            f" {shape}"
        )
    if tokens is not None and not 0 <= int(inputs.min()) <= int(inputs.max()) < tokens:
        held = f"{int(inputs.min())} to {int(inputs.max())}"
        raise DataError(f"the data hold tokens {held}, but the run knows 0 to {tokens - 1}")
    if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        row = int((~inputs.isfinite()).reshape(len(inputs), -1).any(1).int().argmax())
        raise DataError(f"the data: row {row} (counted from 0) holds a value that is not finite")
    return inputs
