"""Samples without targets, of a file or in memory, read as a run has read its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
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
    NumberColumn,
    TableInputs,
    WordsColumn,
    code_points,
)
from lrtool.data.input_files import find_file, read_text
from lrtool.data.sources.idx import read_images
from lrtool.data.sources.npz import read_inputs
from lrtool.data.text_table import MISSING, read_table, table_format
from lrtool.errors import DataError, LrtoolWarning, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = {  # the defaults of the source csv
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
        return torch.from_numpy(_of_a_table(known, args, path, data))
    if isinstance(known, CharacterInputs):
        return _windows(known, encoding, path, data)
    if isinstance(known, GreyInputs):
        images = read_images(path) if path else _array(data)
        return _fitting(torch.from_numpy(_grey(known, encoding, images)), encoding)
    inputs = (
        torch.from_numpy(read_inputs(path, str(args.get("inputs", "x")))) if path else _tensor(data)
    )
    return _fitting(_of_type(inputs, known), encoding)


def _of_a_table(
    known: TableInputs, args: Mapping[str, Any], path: Path | None, data: Any
) -> NDArray[np.float32]:
    spelled = {**FORMAT, **{key: args[key] for key in FORMAT if args.get(key) is not None}}
    if path is None or path.suffix.lower() in {".parquet", ".pq"}:
        missing = {"", *map(str, MISSING if args.get("na_values") is None else args["na_values"])}
        origin = "the data" if path is None else str(path)
        columns = _columns(data) if path is None else _parquet(path)
        return known.encode(_in_memory(known, columns, missing, origin), warn=True)
    table = read_table(find_file(str(path), [Path()]), table_format(**spelled))
    kinds = {column.name: column.kind for column in known.columns}
    check_trained(table, list(kinds))
    return known.encode(frame_of(table, kinds), warn=True)


def _columns(data: Any) -> Mapping[str, Any]:
    """Return columns by name."""
    if isinstance(data, Mapping):
        return {str(name): _sequence(values, name) for name, values in data.items()}
    if hasattr(data, "columns") and hasattr(data, "iloc"):  # pandas
        return {str(name): data[name].tolist() for name in data.columns}
    if isinstance(data, Sequence) and data and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(str(name) for row in data for name in row)
        return {name: [row.get(name) for row in data] for name in names}
    raise UserError(
        f"a {type(data).__name__} has no columns with names; give a path, a DataFrame, or a mapping"
        " of columns"
    )


def _sequence(values: Any, name: Any) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise UserError(f"column {name!r} is a single {type(values).__name__}; give a list")
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _parquet(path: Path) -> Mapping[str, Any]:
    import pandas as pd  # noqa: PLC0415  (slow to import)

    try:
        return _columns(pd.read_parquet(find_file(str(path), [Path()])))
    except ImportError:
        raise UserError(
            f"{path}: reading parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from None
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error


def _in_memory(
    known: TableInputs, columns: Mapping[str, Any], missing: set[str], origin: str
) -> dict[str, Any]:
    """Return the columns of a run, numbers or words, from values of any kind."""
    absent = [column.name for column in known.columns if column.name not in columns]
    if absent:
        names = ", ".join(map(repr, absent))
        raise DataError(f"{origin}: no column {names}, which the run was trained on")
    found: dict[str, Any] = {}
    for column in known.columns:
        values = [None if _is_missing(v, missing) else v for v in columns[column.name]]
        if isinstance(column, WordsColumn):
            found[column.name] = ["" if v is None else _word(v, column) for v in values]
        else:
            found[column.name] = _numbers(column, values, origin)
    sizes = {name: len(values) for name, values in found.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{origin}: columns of different lengths: {sizes}")
    if not next(iter(sizes.values())):
        raise DataError(f"{origin}: no rows")
    return found


def _is_missing(value: Any, missing: set[str]) -> bool:
    if isinstance(value, str):
        return value.strip() in missing
    return value is None or value != value or type(value).__name__ in {"NAType", "NaTType"}  # noqa: PLR0124  (NaN)


def _numbers(column: NumberColumn, values: list[Any], origin: str) -> NDArray[np.float64]:
    numbers = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            numbers[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{origin}: row {row} (counted from 0): column {column.name!r} holds {value!r}, but"
                " in the training it was a column of numbers"
            ) from None
        if not np.isfinite(numbers[row]):
            raise DataError(
                f"{origin}: row {row} (counted from 0): column {column.name!r} holds {value!r},"
                " which is not finite"
            )
    return numbers


def _word(value: Any, column: WordsColumn) -> str:
    """Return a value as a file would have it: pandas makes 1.0 of 1 where others are missing."""
    text = str(value).strip()
    whole = isinstance(value, float) and value.is_integer() and text not in column.words
    return str(int(value)) if whole else text


def _windows(known: CharacterInputs, encoding: Encoding, path: Path | None, data: Any) -> Tensor:
    """Return the windows of a text, (N, T): whole ones from its end, or all of a shorter text."""
    if path is None:
        return _fitting(_of_type(_tensor(data), ArrayInputs("int64")), encoding)
    codes = code_points(read_text(find_file(str(path), [Path()])))
    assert encoding.input_shape is not None, "windows have a length"
    size = min(encoding.input_shape[0], len(codes))
    tokens = torch.from_numpy(known.encode(codes[len(codes) % size :]))
    unknown = int((tokens == len(known.characters)).sum())
    if unknown:
        warnings.warn(
            f"{path}: {unknown} of {len(codes)} characters are not in the run's training text",
            LrtoolWarning,
            stacklevel=3,
        )
    return tokens.reshape(-1, size)


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
    dtype = getattr(torch, known.dtype)
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
