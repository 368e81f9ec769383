"""Plain lines on stderr."""

from __future__ import annotations

import os
import sys


def stderr_line(text: str) -> None:
    """Print a line on stderr; once its reader is gone, print nothing more."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  (a plain line, whole)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
