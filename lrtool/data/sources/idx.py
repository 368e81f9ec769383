"""IDX files, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist/)."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrtool.data.encoding import ClassIndices, GreyInputs, of_kind
from lrtool.data.input_files import find_file, most_unpacked, opened, read_up_to
from lrtool.data.samples import Parts, Samples
from lrtool.data.split import Split
from lrtool.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BufferedIOBase

    from numpy.typing import NDArray

_IMAGES, _LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
_UNSIGNED_BYTE = 0x08
_GZIP = b"\x1f\x8b"


def idx(split: Split, *, path: str) -> Parts:
    """MNIST and Fashion-MNIST files (IDX), gzipped or not.

    Inputs are (1, H, W): grey values divided by 255, then standardised with the mean and deviation
    of all pixels of the training set.

    Args:
        split: how to split; `data.validation` may be a path like `path`, such as DIRECTORY/t10k.
        path: a directory with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, each with
            or without `.gz`; or a file name without `-images-idx3-ubyte`.

    Raises:
        DataError: a file is missing or broken, or images and labels do not match.
    """
    images_file, images, labels = _read_pair(path, split.directories)
    if split.path is None:
        rows, held_out = split.indices(len(labels), str(images_file), labels)
        chosen = [rows] if held_out is None else [rows, held_out]
        parts = [Samples(images[part], labels[part]) for part in chosen]
    else:
        other_file, other_images, other_labels = _read_pair(split.path, split.directories)
        if other_images.shape[1:] != images.shape[1:]:
            raise DataError(
                f"{other_file}: images of {_size(other_images)} pixels, but {images_file} has"
                f" images of {_size(images)}"
            )
        parts = [Samples(images, labels), Samples(other_images, other_labels)]
    if split.encoding is None:
        grey = _learn_grey(parts[0].inputs)
        classes = ClassIndices(int(max(part.targets.max() for part in parts)) + 1)
    else:
        grey = of_kind(split.encoding, split.encoding.inputs, GreyInputs)
        classes = of_kind(split.encoding, split.encoding.targets, ClassIndices)
    train, *rest = [Samples(grey.encode(part.inputs), part.targets) for part in parts]
    return Parts(
        train=train,
        validation=rest[0] if rest else None,
        learned=(grey, classes),
        num_outputs=classes.count,
    )


def read_images(path: Path) -> NDArray[np.uint8]:
    """Return the images (N, H, W) of a file, or of the path that `data.args.path` would be.

    Raises:
        DataError: it is missing or broken.
    """
    if path.is_file():
        return _read(path, 3)
    ends = [f"{start}{_IMAGES}{end}" for start in ("/train", "") for end in ("", ".gz")]
    return _read(find_file(str(path), [Path()], ends), 3)


def _learn_grey(images: NDArray[np.uint8]) -> GreyInputs:
    """Learn mean and deviation of all pixels."""
    # In parts, because bincount copies its input to 8-byte integers.
    counts = np.sum(
        [np.bincount(part.ravel(), minlength=256) for part in np.array_split(images, 64)], axis=0
    )
    grey = np.arange(256) / 255
    mean = np.average(grey, weights=counts)
    deviation = math.sqrt(np.average((grey - mean) ** 2, weights=counts))
    return GreyInputs(float(mean), deviation or 1.0)


def _read_pair(
    path: str, directories: Sequence[Path]
) -> tuple[Path, NDArray[np.uint8], NDArray[np.int64]]:
    starts = ("/train", "")
    images_file = find_file(
        path, directories, [f"{start}{_IMAGES}{end}" for start in starts for end in ("", ".gz")]
    )
    stem = str(images_file).removesuffix(".gz").removesuffix(_IMAGES)
    labels_file = find_file(f"{stem}{_LABELS}", [Path()], ["", ".gz"])
    images, labels = _read(images_file, 3), _read(labels_file, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_file}: {len(labels)} labels, but {images_file} has {len(images)} images"
        )
    return images_file, images, labels.astype(np.int64)


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of a file, packed by gzip if its name ends in .gz."""
    with opened(path) as file:
        if path.suffix != ".gz":
            return _array(file, path, dimensions)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _array(unpacked, path, dimensions)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path}: the gzip data break before byte {file.tell()} of {path.stat().st_size}:"
                f" {error}; fetch the file again"
            ) from None


def _array(file: BufferedIOBase, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a magic number, the sizes (4 bytes each), the values, and the end."""
    magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    start = 4 + 4 * dimensions
    header = file.read(start)
    if header[:2] == _GZIP:
        raise DataError(f"{path}: is packed with gzip; give it a name that ends in .gz")
    if header[:4] != magic:
        raise DataError(
            f"{path}: byte 0: the magic number is 0x{header[:4].hex()}, but 0x{magic.hex()} marks"
            f" an IDX file of unsigned bytes in {dimensions} dimension{'s'[: dimensions > 1]}"
        )
    if len(header) < start:
        raise DataError(f"{path}: ends at byte {len(header)}, inside the {start}-byte header")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, offset=4))
    size, most = math.prod(shape), most_unpacked(path.stat().st_size)
    if not size:
        raise DataError(f"{path}: byte 4: the header gives the sizes {shape}, so there is no value")
    content = read_up_to(file, min(size, most))
    if len(content) < min(size, most):
        raise DataError(
            f"{path}: truncated: ends at byte {start + len(content)}, but the sizes {shape} of its"
            f" header need {start + size} bytes"
        )
    if size > most:
        raise DataError(
            f"{path}: unpacks to more than {most:,} bytes, as only a gzip bomb does; if they are"
            " data, unpack the file with gunzip"
        )
    if file.read(1):
        raise DataError(
            f"{path}: byte {start + size}: more bytes after the values that the sizes {shape} of"
            " its header announce"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _size(images: NDArray[np.uint8]) -> str:
    return " × ".join(map(str, images.shape[1:]))
