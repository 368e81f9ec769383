"""Plain lines on stderr."""

from __future__ import annotations

import sys

from lrtool.show.terminal.printable import printable, short


def stderr_line(text: str) -> None:
    """Print a line on stderr, or several."""
    text = "\n".join(map(short, printable(text).split("\n")))
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (a plain line, whole)
