"""Processes that load data, as the main process sees them: one that has died, or hangs."""

from __future__ import annotations

import traceback
from pathlib import Path

from lrtool.errors import said


def is_death_of_a_worker(error: BaseException) -> bool:
    """Tell whether an error means that a process that loads data has died.

    torch raises a plain RuntimeError from a signal handler, which only its text tells from others.
    The connection to the worker may break before that.
    """
    if "DataLoader worker (pid" in said(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    files = [Path(frame.filename).parts[-2:] for frame in frames]
    in_queue = ("multiprocessing", "connection.py") in files
    return isinstance(error, ConnectionError | EOFError) and in_queue


def words(error: BaseException) -> str:
    """Return the type and the first line of an error; a worker sends a traceback that ends so."""
    text = said(error).strip()
    if "Original Traceback" in text:
        return text.rpartition("\n")[2]
    return f"{type(error).__name__}: {text.partition(chr(10))[0]}"


def is_hanging_worker(error: BaseException) -> bool:
    """Tell whether an error means that a process that loads data gave no batch in time."""
    return type(error) is RuntimeError and said(error).startswith("DataLoader timed out after")
