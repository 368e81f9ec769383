"""stdout is for the result, stderr for everything else: messages, warnings, other modules."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from lrtool.errors import LrtoolWarning
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(message: str) -> None:
    """Print a line on stderr, with the name of the program."""
    stderr_line(f"lrtool: {message}")


@contextmanager
def standard_streams() -> Iterator[None]:
    """End the process when stdout is closed by its reader, as the shell expects, with code 141.

    Descriptors that are closed from the start are opened on the null device: the next file opened
    would take their number, and get what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.dup(2), "w")
    with _closed_pipes(signal.SIG_DFL):
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()


@contextmanager
def _closed_pipes(handler: signal.Handlers) -> Iterator[None]:
    """Set what happens when the process writes to a pipe that nobody reads."""
    if not hasattr(signal, "SIGPIPE"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGPIPE, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """Send to stderr what users' modules print, also from C or a child process.

    If the reader of stderr closes it, the work inside the block goes on.
    """
    with _closed_pipes(signal.SIG_IGN), _stdout_to_stderr():
        yield


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    try:
        sys.stdout.flush()  # None where the descriptor is closed
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, AttributeError):  # closed, or no descriptors at all
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Print lrtool's own warnings as lines, each text once; Python shows the others."""
    show_others = warnings.showwarning
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if not issubclass(category, LrtoolWarning):
            show_others(message, category, *where)
        elif str(message) not in said:
            said.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", LrtoolWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
