"""Files are written whole: to a temporary file beside the target, fsync, rename.

And read with care: whatever a damaged one makes its reader raise, the error names the file.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lrtool.errors import LrtoolError, OutOfMemoryError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 22
LONGEST = 300  # characters of an exception's text in an error


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file, which is renamed to `path` after the block.

    A reader sees the old content or the new one, never a part. After an exception the old content
    stays and the temporary file is gone.

    Raises:
        OSError: the directory cannot be written, or the disk is full; it names `path`.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only the owner can read
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    sync_directory(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that becomes `path` when the block ends without an error.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    with whole_path(path) as temporary, temporary.open("wb") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole."""
    with whole_file(path) as file:
        file.write(text.encode())


def crc_of(path: Path) -> int:
    """Return the CRC-32 of a file.

    Raises:
        OSError: it cannot be read.
    """
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the reader of a file raises inside the block into an error that names the file.

    Args:
        path: of the file, or of the directory that is read.
        what: it should be, with its article, such as "a report".

    Raises:
        UserError: it cannot be read, or is something else.
        OutOfMemoryError: it does not fit in memory.
    """
    try:
        yield
    except LrtoolError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{path}: out of memory while it was read") from error
    except Exception as error:
        raise UserError(f"{path}: damaged, or not {what}: {in_a_line(error)}") from error


def in_a_line(error: Exception) -> str:
    """Return an exception's text in one line that is not too long, or its type if it has none."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_directory(path: Path) -> None:
    """Make a rename survive a power cut, where directories can be synced (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
