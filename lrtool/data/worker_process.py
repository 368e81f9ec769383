"""What runs inside a process that loads data: its signals, its end, and the errors it sends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing import queues
from typing import TYPE_CHECKING, Any

from torch._utils import ExceptionWrapper
from torch.utils.data._utils import worker as torch_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def begin(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Prepare a process that loads data.

    It ignores SIGINT and SIGTERM, which a terminal or a batch system sends to every process of a
    run: the main process finishes its step, for which it needs the workers, and then ends them
    itself. It dies with the main process, even while the user's code hangs. What it cannot send is
    an error in the main process, rather than silence.

    Args:
        worker: its number.
        then: the user's own `worker_init_fn`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    _die_with_parent()
    replaced: Any = torch_worker
    replaced.ExceptionWrapper = _PlainError
    queue: Any = queues.Queue
    queue._on_queue_feeder_error = _send_error  # noqa: SLF001  (multiprocessing means it for this)
    if then is not None:
        then(worker)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, programs that a dataset starts do not inherit this."""


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, for whatever cause."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)


class _PlainError(ExceptionWrapper):
    """An error on its way to the main process, which then need not make the user's exception.

    Its class may be local to a function, or need other arguments than a text.
    """

    def __init__(self, exc_info: Any = None, where: str = "in background") -> None:
        given: Any = exc_info or sys.exc_info()
        super().__init__(given, where)  # type: ignore[no-untyped-call]
        if given[0].__module__ != "builtins":
            self.exc_type = RuntimeError


def _send_error(queue: queues.Queue[Any], error: Exception, sent: Any) -> None:
    """Send an error in place of a batch that cannot be pickled."""
    number, _batch = sent
    queue.put((number, _PlainError((type(error), error, error.__traceback__), "in a worker")))
