"""What may be printed: text from files and from users' code can hold a terminal's commands."""

from __future__ import annotations

import re

# Control characters but for tab and newline, those that turn the writing direction, and halves of
# surrogate pairs, which no encoding can write.
LONGEST = 2000  # characters of a line: a name or a value can be as long as a file
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return text with the characters that a terminal would obey written out: `\x1b`."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def short(line: str) -> str:
    """Return a line of at most some thousand characters, without the middle of a longer one."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} […] {line[-LONGEST // 2 :]}"
