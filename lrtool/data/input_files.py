"""Finding and reading data files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lrtool.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    raise DataError(f"{names}: no such file{looked}")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it cannot be read, or it is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path}: the file is empty")
    return content


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, with or without a byte-order mark.

    Raises:
        DataError: it cannot be read, is empty, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 text (byte {content[error.start]:#04x} at"
            f" {error.start}); save the file as UTF-8"
        ) from None
