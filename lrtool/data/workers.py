"""Processes that load data, and the signals that reach them as well."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def begin(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Begin a process that loads data: SIGINT and SIGTERM are its parent's to answer.

    A terminal sends the one to every process of a group, a batch system the other to every process
    of a job. The parent finishes its step, for which it needs them, and ends them itself.

    Args:
        worker: its number.
        then: what the user has it begin with.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if then is not None:
        then(worker)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; programs that a dataset starts would inherit SIG_IGN, but not this."""


def is_death_of_a_worker(error: BaseException) -> bool:
    """Tell whether an error says that a process that loads data has died.

    torch raises this from a signal handler, wherever the program is by then, as a plain
    RuntimeError: only its text tells it from others. Before that its connection may break.
    """
    if "DataLoader worker (pid" in str(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    files = [Path(frame.filename).parts[-2:] for frame in frames]
    in_queue = ("multiprocessing", "connection.py") in files
    return isinstance(error, ConnectionError | EOFError) and in_queue
