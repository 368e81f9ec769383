"""Processes that load data: their signals, and how to tell that one has died."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from lrtool.errors import said

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def begin(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Make a process that loads data ignore SIGINT and SIGTERM.

    A terminal or a batch system sends them to every process of a run. The main process finishes its
    step, for which it needs the workers, and then ends them itself.

    Args:
        worker: its number.
        then: the user's own `worker_init_fn`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    if then is not None:
        then(worker)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, programs that a dataset starts do not inherit this."""


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
