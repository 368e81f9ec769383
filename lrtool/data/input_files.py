"""Finding and reading data files."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lrtool.errors import DataError, LrtoolError, OutOfMemoryError, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedIOBase, BufferedReader

# Packed bytes may unpack to SMALL ones in any case, else to FOLD times as many: real data seldom
# shrink below a hundredth, and zeros, of which bombs are made, to a thousandth.
SMALL, FOLD = 2**27, 100
_PIECE = 2**24  # bytes


def find_file(path: str, directories: Sequence[Path], endings: Sequence[str] = ("",)) -> Path:
    """Return the first file that exists at `path` with one of the endings.

    Args:
        path: absolute, or relative to one of `directories`; `~` is the home directory.
        directories: searched in this order.
        endings: what may follow `path` in the file's name.

    Raises:
        DataError: there is none.
    """
    given = Path(os.path.expanduser(path))  # noqa: PTH111  (raises for no user)
    places = [Path()] if given.is_absolute() else list(dict.fromkeys(directories))
    for place in places:
        for ending in endings:
            candidate = Path(f"{place / given}{ending}")
            if candidate.is_file():
                return candidate
    if endings == ("",) and any((place / given).is_dir() for place in places):
        raise DataError(f"{path}: is a directory, not a file")
    names = " or ".join(f"{path}{ending}" for ending in endings)
    looked = "" if given.is_absolute() else f" (looked in {', '.join(map(str, places))})"
    raise DataError(f"{names}: no such file{looked}{_about_backslashes(path)}")


def _about_backslashes(path: str) -> str:
    r"""Say what became of backslashes: YAML reads "data\train" as data, a tab, and rain."""
    if any(ord(character) < ord(" ") for character in path):
        return (
            "; in double quotes, YAML reads \\t as a tab and \\n as a new line: write the path in"
            " single quotes, or with /"
        )
    return "; write the path with / in place of \\" if "\\" in path and os.sep == "/" else ""


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file of foreign bytes; whatever their reader raises becomes an error with its name.

    Raises:
        DataError: the file cannot be opened, is empty, or its bytes cannot be read.
        OutOfMemoryError: it does not fit into memory.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file, reading(f"{path}:"):
        if not file.peek(1):
            raise DataError(f"{path}: the file is empty")
        yield file


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn whatever a reader of foreign bytes raises into an error that begins with `place`.

    A file can make a reader raise anything, so no list of exceptions would be complete.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a reader says to those who call it
            yield
    except LrtoolError:
        raise
    except MemoryError:
        raise OutOfMemoryError(f"{place} does not fit into memory") from None
    except Exception as error:  # noqa: BLE001  (see above)
        what = said(error) or type(error).__name__
        raise DataError(f"{place} cannot be read; is the file broken? {what}") from None


def read_up_to(file: IO[bytes] | BufferedIOBase, size: int) -> bytearray:
    """Return the next `size` bytes, or those that there are; memory is taken as they come."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(size - len(content), _PIECE))):
        content += piece
    return content


def most_unpacked(packed: int) -> int:
    """Return how many bytes `packed` ones may be unpacked to; beyond that it is a bomb."""
    return max(SMALL, FOLD * packed)


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it cannot be read, or it is empty.
    """
    with opened(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, with or without a byte-order mark.

    Raises:
        DataError: it cannot be read, is empty, holds a zero byte, or is not UTF-8.
    """
    content = bytearray()
    with opened(path) as file:
        while b"\0" not in content[-_PIECE:] and (piece := file.read(_PIECE)):
            content += piece  # as far as a zero byte: files of nothing else can be endless
        whole, zero, _ = content.partition(b"\0")
        line = whole.count(b"\n") + 1
        try:
            text = whole.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = whole.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{path}: line {line}: not UTF-8 text (byte {whole[error.start]:#04x} at"
                f" {error.start}); save the file as UTF-8"
            ) from None
        if zero:
            raise DataError(f"{path}: line {line}: a zero byte; this is not a text file")
        return text
