"""Names from files and from users' code do not command the terminal."""

from rich.text import Text
from terminals import on_a_terminal

from lrtool.show.terminal.console import (
    new_console,
    print_facts,
    print_grid,
    print_line,
    print_rows,
)
from lrtool.show.terminal.printable import LONGEST, printable, short
from lrtool.show.terminal.stderr import stderr_line

EVIL = "red\x1b[31m title\x1b]0;x\x9c del\x7f csi\x9b1m turn\u202e half\udc80"
SHOWN = r"red\x1b[31m title\x1b]0;x\x9c del\x7f csi\x9b1m turn\u202e half\udc80"


def test_commands_are_written_out():
    assert printable(EVIL) == SHOWN
    assert printable("a\tb\nc é 日本 ×–…🙂") == "a\tb\nc é 日本 ×–…🙂"


def test_no_way_to_the_terminal_lets_them_through(monkeypatch):
    ways = {
        "stderr": [lambda: stderr_line(EVIL)],
        "stdout": [
            lambda: print_line(new_console(), EVIL),
            lambda: print_grid(new_console(), [(EVIL, Text(EVIL))]),
            lambda: print_rows([{EVIL: EVIL}]),
            lambda: print_facts({EVIL: EVIL}),
        ],
    }
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    for stream, prints in ways.items():
        for work in prints:
            sent = on_a_terminal(stream, monkeypatch, work)
            assert SHOWN in sent
            assert not set("\x07\x7f\x9b\x9c\u202e\udc80") & set(sent)
            assert "\x1b[31m" not in sent


def test_a_long_line_is_cut_in_its_middle(capsys):
    assert short("x" * LONGEST) == "x" * LONGEST
    stderr_line("start " + "x" * 10**6 + " end\nnext")
    line, after = capsys.readouterr().err.splitlines()
    assert (line[:6], line[-4:], after) == ("start ", " end", "next")
    assert "x […] x" in line
    assert len(line) < LONGEST + 10
