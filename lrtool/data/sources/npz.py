"""NumPy archives."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.data.input_files import find_file, read_bytes
from lrtool.data.samples import Parts, Samples, check_finite, divide
from lrtool.data.split import Split
from lrtool.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_BROKEN = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_MOST_CLASSES = 1000  # integers above this, and above the number of rows, are not classes


def npz(split: Split, *, path: str, inputs: str = "x", targets: str = "y") -> Parts:
    """Two arrays of a NumPy .npz archive: inputs and targets.

    Values are not standardised. Inputs of floats, bytes (uint8) or booleans become float32; other
    integers are tokens and must be (N, T). Integer targets are class indices, (N,), (N, 1), or
    (N, T) for tokens; float targets, (N,) or (N, k), are for regression. `data.validation` may be
    the path of another archive with the same names.

    Args:
        split: how to split.
        path: the archive.
        inputs: the name of the array of inputs.
        targets: the name of the array of targets.

    Raises:
        DataError: the archive is broken, lacks an array, or cannot be trained on.
    """
    archive = find_file(path, split.directories)
    samples = _read(archive, inputs, targets)
    if split.path is None:
        x, y = samples.inputs, samples.targets
        classes = y if y.dtype == np.int64 and y.ndim == 1 else None
        rows, held_out = split.indices(len(y), str(archive), classes)
        return divide(x, y, rows, held_out, num_outputs=_outputs(y), vocabulary=_vocabulary(x))
    other = find_file(split.path, split.directories)
    validation = _read(other, inputs, targets)
    for name, here, there in (
        (inputs, samples.inputs, validation.inputs),
        (targets, samples.targets, validation.targets),
    ):
        if here.shape[1:] != there.shape[1:] or here.dtype != there.dtype:
            raise DataError(
                f"{other}: '{name}' is {there.dtype} with shape {there.shape}, which does not fit"
                f" {here.dtype} and {here.shape} in {archive}"
            )
    vocabulary = [v for part in (samples, validation) if (v := _vocabulary(part.inputs))]
    return Parts(
        train=samples,
        validation=validation,
        num_outputs=max(_outputs(samples.targets), _outputs(validation.targets)),
        vocabulary=max(vocabulary, default=None),
    )


def _read(path: Path, inputs: str, targets: str) -> Samples:
    x, y = _arrays(path, (inputs, targets))
    for name, array in ((inputs, x), (targets, y)):
        if array.ndim == 0:
            raise DataError(f"{path}: '{name}' is a single value, not one for each sample")
        if array.dtype.kind not in "fiub":
            raise DataError(f"{path}: '{name}' is of type {array.dtype}; it must hold numbers")
    if len(x) != len(y):
        raise DataError(f"{path}: '{inputs}' has {len(x)} rows and '{targets}' has {len(y)}")
    if not len(x):
        raise DataError(f"{path}: '{inputs}' and '{targets}' have no rows")
    return Samples(_as_inputs(x, f"{path}: '{inputs}'"), _as_targets(y, f"{path}: '{targets}'"))


def _arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    content = io.BytesIO(read_bytes(path))  # numpy.load leaves a broken file open
    with _worded(f"{path}"):
        loaded = np.load(content, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: holds one array; save two by name with numpy.savez")
    arrays = []
    for name in names:
        if name not in loaded.files:
            raise DataError(
                f"{path}: no array '{name}'{did_you_mean(name, loaded.files)}; it holds"
                f" {', '.join(loaded.files) or 'none'}"
            )
        with _worded(f"{path}: '{name}'"):
            array = loaded[name]
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: '{name}' is not an array; the file is broken")
        arrays.append(array)
    return arrays


@contextmanager
def _worded(place: str) -> Iterator[None]:
    """Turn what NumPy raises for a broken file into a DataError."""
    try:
        yield
    except _BROKEN as error:
        if "pickle" in str(error):  # only the text tells it from NumPy's other errors
            raise DataError(
                f"{place} is pickled, which could run code, or not an .npz file; save plain arrays"
                " of numbers with numpy.savez"
            ) from None
        raise DataError(f"{place} cannot be read; the file is broken: {error}") from None


def _as_inputs(x: NDArray[Any], origin: str) -> NDArray[Any]:
    if x.ndim < 2:
        x = x[:, None]
    if x.dtype.kind == "f" or x.dtype in (np.uint8, np.bool_):
        with np.errstate(over="ignore"):  # too large for float32: reported as infinite
            x = x.astype(np.float32)
        check_finite(x, origin)
        return x
    if x.ndim != 2:
        raise DataError(
            f"{origin} holds {x.dtype} with shape {x.shape}; integers are tokens and must be (N,"
            " T): save numbers as float32, images as uint8 or float32"
        )
    x = x.astype(np.int64)
    _check_indices(x, origin, "tokens")
    return x


def _as_targets(y: NDArray[Any], origin: str) -> NDArray[Any]:
    if y.dtype.kind == "f":
        y = y[:, None] if y.ndim == 1 else y
        with np.errstate(over="ignore"):  # too large for float32: reported as infinite
            y = y.astype(np.float32)
        check_finite(y, origin)
        return y
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    y = y.astype(np.int64)
    _check_indices(y, origin, "class indices")
    if y.ndim == 1 and y.max() >= max(_MOST_CLASSES, len(y)):
        raise DataError(
            f"{origin}: row {y.argmax()} (counted from 0) holds class {y.max()}, but there are only"
            f" {len(y)} rows; save targets to regress as floats"
        )
    return y


def _check_indices(values: NDArray[np.int64], origin: str, what: str) -> None:
    negative = (values < 0).reshape(len(values), -1)
    if negative.any():
        row = int(negative.any(axis=1).argmax())
        raise DataError(
            f"{origin}: row {row} (counted from 0) holds {values[row].min()}; integers are {what}"
            " and count from 0"
        )


def _outputs(targets: NDArray[Any]) -> int:
    if targets.dtype == np.int64:
        return int(targets.max()) + 1
    return int(np.prod(targets.shape[1:]))


def _vocabulary(inputs: NDArray[Any]) -> int | None:
    return int(inputs.max()) + 1 if inputs.dtype == np.int64 else None
