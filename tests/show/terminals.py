"""A pseudo-terminal in place of a standard stream."""

import os
import pty
import sys


def on_a_terminal(stream, monkeypatch, work, encoding="utf-8"):
    """Run `work` with a pseudo-terminal as sys.<stream> and return what it was sent."""
    ours, theirs = pty.openpty()
    with monkeypatch.context() as patch, os.fdopen(theirs, "w", encoding=encoding) as file:
        patch.setattr(sys, stream, file)
        work()
    sent = b""
    while True:
        try:
            sent += os.read(ours, 65536)
        except OSError:  # the other end is closed and everything read
            break
    os.close(ours)
    return sent.decode()
