"""What a rank does besides its work: it looks for signals, and for the end of other ranks.

A thread does it, for the work may wait inside torch for the other ranks.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

from lrtool import claims
from lrtool.cli.exit_codes import LOST_RANK, USAGE

if TYPE_CHECKING:
    from lrtool.claims import Claim
    from lrtool.cli.signals import Stop
    from lrtool.ranks import Ranks

LOOK_S = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 5.0  # Ctrl-C reaches a rank twice: from the terminal, and from torchrun
GRACE_S = 10.0  # for a rank to end by itself, after another one has failed
REPORT_S = 20.0  # for the first one, which has a report to write
SEEN_S = 3.0  # for the others to learn of a failure, which those that are gone never do


class Watch(Thread):
    """Answers signals, and ends this process when another rank has failed and it does not end.

    A signal is only recorded where a loop looks at it; elsewhere, and a second one, ends the
    process at once, which the other ranks learn.

    Attributes:
        ranks: with a connection of its own to the store; None until they have met.
        claim: of the rank that has failed first.

    Args:
        name: of the thread.
        stop: is told of signals.
        seconds: in which the ranks must have met; something else that listens where they meet may
            keep a connection waiting for ever.
    """

    def __init__(self, name: str, stop: Stop, seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self.ranks: Ranks | None = None
        self._stop_asked, self._done = stop, Event()
        self._since = -AGAIN_S
        self._deadline: float | None = None
        self._meets_by = monotonic() + seconds
        self.claim: Claim | None = None
        self._numbers, written = os.pipe()
        os.set_blocking(written, False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # their numbers come through the pipe
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_leave_signals_alone)

    def look_with(self, ranks: Ranks) -> None:
        """Watch these ranks."""
        self.ranks = replace(ranks, store=ranks.store.clone())

    def run(self) -> None:
        """Look every half second, until the end of the process."""
        while True:
            if select.select([self._numbers], [], [], LOOK_S)[0]:
                for number in os.read(self._numbers, 64):
                    self._answer(number)
            if self._done.is_set():
                continue
            if self.ranks is not None:
                self._look(self.ranks)
            elif monotonic() > self._meets_by:
                _quit(USAGE)

    def end(self) -> None:
        """Leave the others alone: they may end before this process."""
        self._done.set()

    def _answer(self, number: int) -> None:
        again = monotonic() - self._since < AGAIN_S
        if number not in SIGNALS or again or self._done.is_set():
            return
        self._since = monotonic()
        stop = self._stop_asked
        at_once = not stop.gentle or stop.signal is not None
        stop.signal = stop.signal or number
        if not at_once:
            return
        code = stop.exit_code()
        if self.ranks is not None:
            with suppress(RuntimeError):
                code = claims.claim(self.ranks, stop.words(), code).exit_code
                wait_until_seen(self.ranks)
        _quit(code)

    def _look(self, ranks: Ranks) -> None:
        if self._deadline is None:
            try:
                claims.answer(ranks)
                self.claim = claims.claimed(ranks)
                if self.claim is None:
                    return
                tell_seen(ranks)
            except RuntimeError:  # the store has ended with the first rank, which keeps it
                pass
            self._deadline = monotonic() + (REPORT_S if ranks.first else GRACE_S)
        if monotonic() > self._deadline:
            _quit(self.claim.exit_code if self.claim else LOST_RANK)


def tell_seen(ranks: Ranks) -> None:
    """Tell that this rank knows of a claim, and needs the store no longer.

    Raises:
        RuntimeError: the store is gone.
    """
    ranks.store.set(f"seen/{ranks.rank}", "")


def wait_until_seen(ranks: Ranks) -> None:
    """Keep the store until all others have seen a claim, or some seconds have passed.

    Raises:
        RuntimeError: the store is gone.
    """
    deadline = monotonic() + SEEN_S
    seen = [f"seen/{rank}" for rank in range(ranks.world_size) if rank != ranks.rank]
    while not ranks.store.check(seen) and monotonic() < deadline:
        sleep(claims.LOOK_S)


def _quit(code: int) -> None:
    """End the process at once, with those that load its data."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _leave_signals_alone() -> None:
    """Keep a process that loads data from telling its parent of signals to itself."""
    signal.set_wakeup_fd(-1)
