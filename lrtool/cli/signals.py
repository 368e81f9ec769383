"""Ctrl-C and SIGTERM: the first asks a loop to save and stop, the second quits at once."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Stop:
    """Whether a signal asked to stop.

    Attributes:
        gentle: a loop is running that looks at `signal`, and saves before it ends.
        signal: number of the signal; None: there was none.
    """

    gentle: bool = False
    signal: int | None = None

    def exit_code(self) -> int:
        """Return the shell's code for a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    def words(self) -> str:
        """Name the signal for a report."""
        return f"stopped by {signal.Signals(self.signal or signal.SIGINT).name}"


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM inside the block.

    While `stop.gentle` is set, the first signal is only recorded. Otherwise, and from the second
    one on, the process quits at once with 130 or 143: whatever runs at that moment could catch an
    exception.
    """
    stop = Stop()

    def handle(number: int, _frame: object) -> None:
        at_once = not stop.gentle or stop.signal is not None
        stop.signal = number
        if at_once:
            os._exit(stop.exit_code())

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children() -> None:
    """Kill the processes that still load data: one that hangs would keep this one from ending."""
    multiprocessing = sys.modules.get("multiprocessing")  # without it there are none
    children = multiprocessing.active_children() if multiprocessing else ()
    if not children:
        return
    # torch would raise their death in this process
    watching = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in children:
        child.kill()
        child.join()
    signal.signal(signal.SIGCHLD, watching or signal.SIG_DFL)
