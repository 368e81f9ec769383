"""stdout is for the result, stderr for everything else: messages, warnings, other modules."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from lrtool.data.workers import is_death_of_a_worker
from lrtool.errors import LrtoolWarning
from lrtool.show.terminal.printable import printable
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.report.records import CheckpointFacts

MOST_NOTES = 20


def say(message: str) -> None:
    """Print a line on stderr, with the name of the program."""
    stderr_line(f"lrtool: {message}")


def say_of_checkpoint(facts: CheckpointFacts | None) -> None:
    """Say what was taken of pretrained weights, a line for each thing to know."""
    notes = facts.notes if facts else ()
    for note in notes[:MOST_NOTES]:
        say(f"model.checkpoint: {note}")
    if len(notes) > MOST_NOTES:
        say(f"model.checkpoint: and {len(notes) - MOST_NOTES} more, which the report has")


def result(text: object) -> None:
    """Print a line on stdout: as it is for a program, and harmless for a terminal."""
    line = str(text)
    print(printable(line) if sys.stdout.isatty() else line, flush=True)  # noqa: T201  (the result)


class _Stream:
    """A standard stream that knows what to do when it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            return self.failed(error)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except OSError as error:
            self.failed(error)

    def failed(self, error: OSError) -> int:
        """Answer a failure."""
        raise NotImplementedError


class _Stderr(_Stream):
    """Words may get lost, where a disk is full or a terminal has gone; the work goes on."""

    def failed(self, _error: OSError) -> int:
        _drop(self._stream)
        return 0


class _Stdout(_Stream):
    """The result may not: a full disk is an error, and a reader that has gone ends the process."""

    def failed(self, error: OSError) -> int:
        if isinstance(error, BrokenPipeError) and hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        error.filename = "stdout"
        raise error


def _drop(stream: TextIO) -> None:
    """Send to nowhere what a stream holds back, and all that follows: it would only fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    stream.flush()


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make a stderr that cannot be written harmless, and a stdout an error or the end.

    When stdout is closed by its reader, the process ends as the shell expects, with code 141.
    Descriptors that are closed from the start are opened on the null device: the next file opened
    would take their number, and get what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    before = sys.stdout, sys.stderr
    stdout, stderr = (
        stream or os.fdopen(os.dup(number), "w") for number, stream in enumerate(before, 1)
    )
    sys.stdout, sys.stderr = _Stdout(stdout), _Stderr(stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        try:
            stdout.flush()
        except OSError:  # said already; Python would say it again
            _drop(stdout)


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """Send to stderr what users' modules print, also from C or a child process."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
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


@contextmanager
def deaths_of_workers_said_once() -> Iterator[None]:
    """Leave out what Python prints of workers that died when a loader no longer needs them.

    torch raises it in whatever runs then, which may be the loader's end: nobody can catch that.
    """
    show_others = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if unraisable.exc_value is None or not is_death_of_a_worker(unraisable.exc_value):
            show_others(unraisable)

    sys.unraisablehook = show
    try:
        yield
    finally:
        sys.unraisablehook = show_others
