"""stdout is for the result, stderr for everything else: words, warnings, what modules print."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import typer

from lrtool.errors import LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(message: str) -> None:
    """Print a line on stderr."""
    typer.echo(f"lrtool: {message}", err=True)


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """Send whatever users' modules print to stderr, from C or a child process too."""
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
    """Print lrtool's own warnings as lines, each text once; leave the others to Python."""
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
