"""NumPy archives."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lrtool.data.encoding import ArrayInputs, ClassIndices, Values
from lrtool.data.input_files import find_file, most_unpacked, opened, read_up_to, reading
from lrtool.data.samples import Parts, Samples, check_finite, divide
from lrtool.data.split import Split
from lrtool.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_PLAIN = "save plain arrays of numbers with numpy.savez"
_ENCRYPTED = 1  # a bit of a member's flags
_NAMED = 20  # so many arrays of an archive are named in a message
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
        num_outputs, vocabulary = _outputs(y), _vocabulary(x)
        learned = _learned(samples, num_outputs)
        return divide(
            x, y, rows, held_out, learned=learned, num_outputs=num_outputs, vocabulary=vocabulary
        )
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
    vocabularies = [v for part in (samples, validation) if (v := _vocabulary(part.inputs))]
    num_outputs = max(_outputs(samples.targets), _outputs(validation.targets))
    return Parts(
        train=samples,
        validation=validation,
        learned=_learned(samples, num_outputs),
        num_outputs=num_outputs,
        vocabulary=max(vocabularies, default=None),
    )


def read_inputs(path: Path, name: str, *, floats: bool) -> NDArray[Any]:
    """Return the inputs of an archive without targets.

    Args:
        path: of the archive.
        name: of the array.
        floats: the run was trained on floats, so that integers are numbers, not tokens.

    Raises:
        DataError: it is broken, lacks the array, or the array cannot be used.
    """
    archive = find_file(str(path), [Path()])
    (x,) = _arrays(archive, (name,))
    if not x.ndim or not x.size:
        raise DataError(f"{archive}: '{name}' has the shape {x.shape}, so there are no samples")
    numbers = x.astype(np.float32) if floats and x.dtype.kind in "iu" else x
    return _as_inputs(numbers, f"{archive}: '{name}'")


def _learned(samples: Samples, num_outputs: int) -> tuple[ArrayInputs, ClassIndices | Values]:
    classes = samples.targets.dtype == np.int64
    targets = ClassIndices(num_outputs) if classes else Values()
    return ArrayInputs(str(samples.inputs.dtype)), targets


def _read(path: Path, inputs: str, targets: str) -> Samples:
    x, y = _arrays(path, (inputs, targets))
    for name, array in ((inputs, x), (targets, y)):
        if array.ndim == 0:
            raise DataError(f"{path}: '{name}' is a single value, not one for each sample")
    if len(x) != len(y):
        raise DataError(f"{path}: '{inputs}' has {len(x)} rows and '{targets}' has {len(y)}")
    if not len(x):
        raise DataError(f"{path}: '{inputs}' and '{targets}' have no rows")
    for name, array in ((inputs, x), (targets, y)):
        if not array.size:
            raise DataError(f"{path}: '{name}' has the shape {array.shape}, so there is no value")
    return Samples(_as_inputs(x, f"{path}: '{inputs}'"), _as_targets(y, f"{path}: '{targets}'"))


def _arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """Read arrays by name.

    Not with `numpy.load`: it believes the header, and stops at the last number that it announces,
    before the member's end, where the checksum is compared.
    """
    with opened(path) as file:
        start = file.peek(6)
        if start.startswith(b"\x93NUMPY"):
            by_name = ", ".join(f"{name}=…" for name in names)
            raise DataError(
                f"{path}: holds one array without a name; numpy.savez(path, {by_name}) gives names"
            )
        if not start.startswith(b"PK"):
            raise DataError(f"{path}: is no .npz file; {_PLAIN}")
        members: dict[str, list[zipfile.ZipInfo]] = {}
        archive = zipfile.ZipFile(file)
        for member in archive.infolist():
            members.setdefault(member.filename.removesuffix(".npy"), []).append(member)
        arrays = []
        for name in names:
            if name not in members:
                hint = did_you_mean(name, members)
                keys = "; data.args.inputs and data.args.targets name others"
                other = keys if members and len(names) > 1 else ""
                held = ", ".join(list(members)[:_NAMED]) + ", …" * (len(members) > _NAMED)
                raise DataError(
                    f"{path}: no array '{name}'{hint}; it holds {held or 'none'}{other}"
                )
            if len(members[name]) > 1:
                raise DataError(f"{path}: holds '{name}' {len(members[name])} times")
            place = f"{path}: '{name}'"
            with reading(place):
                arrays.append(_array(archive, members[name][0], place))
        return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str) -> NDArray[Any]:
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DataError(f"{place} is packed by method {member.compress_type}, not by NumPy")
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{place} is encrypted; {_PLAIN}")
    with archive.open(member) as file:
        shape, columns_first, dtype = _header(file)
        if dtype.hasobject:
            raise DataError(f"{place} is pickled, which could run code; {_PLAIN}")
        if dtype.kind not in "fiub":
            raise DataError(f"{place} is of type {dtype}; it must hold numbers")
        announced, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if announced != held:
            raise DataError(
                f"{place} is broken: the shape {shape} of {dtype} in its header needs {announced}"
                f" bytes, but there are {held}"
            )
        if member.file_size > most_unpacked(member.compress_size):
            raise DataError(
                f"{place}: {member.compress_size:,} bytes unpack to {member.file_size:,}, as only a"
                " zip bomb does; if they are data, save them with numpy.savez, which does not pack"
            )
        content = read_up_to(file, held)
    if len(content) != held:
        raise DataError(f"{place} is broken: it ends after {len(content)} of {held} bytes")
    return np.ndarray(shape, dtype, buffer=content, order="F" if columns_first else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and type; the file is then at the numbers."""
    version = np.lib.format.read_magic(file)
    read = _HEADERS.get(version)
    if read is None:
        raise ValueError(f"it has version {version} of the .npy format, which is not for numbers")
    try:
        shape, columns_first, dtype = read(file)
    except MemoryError:  # of Python's parser
        raise ValueError("its header is nested too deeply") from None
    return shape, columns_first, dtype


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
