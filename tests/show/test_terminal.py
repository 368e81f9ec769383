import math
import re
from pathlib import Path
from time import perf_counter

import pytest
from terminals import on_a_terminal

from lrtool.report.records import SweepRow
from lrtool.show.terminal import chart
from lrtool.show.terminal import find as terminal
from lrtool.show.terminal.console import print_facts, print_rows

DIRECTORY, CONFIG = Path("runs/digits/now-find"), Path("configs/digits.yaml")
BRAILLE = re.compile("[\u2801-\u28ff]")


def summary(report, capsys):
    terminal.print_summary(report, directory=DIRECTORY, config=CONFIG)
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_table(make, capsys):
    table = summary(make(), capsys).split("loss over")[0]
    assert [line.rstrip() for line in table.strip().splitlines()] == [
        "Learning rate  0.0032  confident",
        "Interval       0.0018 to 0.0056",
        "For            a constant schedule over 230 steps",
        "Why            three sweeps agree within 0.2 decades",
        "Next           lrtool train configs/digits.yaml --lr-from runs/digits/now-find",
        "               or write `learning_rate: 0.0032` into configs/digits.yaml",
        "Took           2.5 s, 600 steps at 1,200 steps/s",
    ]


def test_nobody_is_told_to_edit_the_run_s_own_configuration(make, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    own = DIRECTORY / "config.yaml"
    terminal.print_summary(make(), directory=DIRECTORY, config=own)
    table = capsys.readouterr().out
    assert f"lrtool train {own} --lr-from {DIRECTORY}" in table
    assert "write `learning_rate" not in table


def test_without_a_suggestion_the_table_says_why_and_what_next(odd_named, capsys):
    out = summary(odd_named("no suggestion, with a curve"), capsys)
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[:3] == [
        "Learning rate  no trustworthy suggestion",
        "Why            the loss never fell below where it began",
        "Next           raise find.end, or look for a fault in the model or the data",
    ]
    assert "write `learning_rate" not in out
    assert "lrtool train" not in out


def test_the_directory_stands_unbroken_on_the_last_line(make, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    directory = Path("a") / ("very-long-name" * 10)
    terminal.print_summary(make(), directory=directory, config=CONFIG)
    assert capsys.readouterr().out.splitlines()[-1] == f"Page, report and plots: {directory}"


def test_text_of_the_user_is_no_markup(odd_named, capsys):
    out = summary(odd_named("odd text"), capsys)
    assert "see [red]notes[/red] \\[x] $y^2$ :smile: 100%" in out


@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_odd_reports_fit_every_width(odd, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    out = summary(odd, capsys)
    *lines, last = out.splitlines()
    assert last == f"Page, report and plots: {DIRECTORY}"
    assert max(map(len, lines)) <= width
    assert "\x1b" not in out


def test_a_terminal_gets_colour_and_no_color_takes_every_escape_away(make, monkeypatch):
    def work():
        terminal.print_summary(make(), directory=DIRECTORY, config=CONFIG)

    assert "\x1b[1;32mconfident" in on_a_terminal("stdout", monkeypatch, work)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_a_terminal("stdout", monkeypatch, work)


def test_a_terminal_that_knows_only_ascii(make, monkeypatch):
    def work():
        report = make(reason="déjà vu – 3 × 2 …")
        terminal.print_summary(report, directory=Path("läufe"), config=CONFIG)

    sent = on_a_terminal("stdout", monkeypatch, work, encoding="ascii")
    assert "d\\xe9j\\xe0 vu - 3 x 2 ..." in sent
    assert "Page, report and plots: l\\xe4ufe" in sent
    assert "++++" in sent
    assert sent.isascii()


def test_the_chart_marks_the_rate_and_names_the_decades(make):
    title, top, *lines = chart.draw(make(), 80).splitlines()
    *body, bottom, marker, ticks = lines
    assert title == "loss over learning rate"
    assert (top[0], bottom[0]) == ("┌", "└")
    assert re.fullmatch(r" +━+▲━+ 0\.0032", marker)
    assert ticks.split() == ["1e-7", "1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]
    gridline = [line[marker.index("▲")] for line in body]
    assert gridline.count("│") >= 8
    assert all(BRAILLE.match(char) or char == "│" for char in gridline)
    assert ticks.index("0.001") < marker.index("▲") < ticks.index("0.01")


def test_the_chart_scales_extreme_losses(odd_named):
    title, *lines = chart.draw(odd_named("huge"), 80).splitlines()
    assert title == "loss over learning rate (× 1e30)"
    assert [line.split("│ ")[-1] for line in lines if line.endswith((" 1", " 2", " 3"))] == list(
        "321"
    )


def test_the_chart_falls_from_left_to_right(make):
    body = [line for line in chart.draw(make(), 80).splitlines() if line.startswith("│")]
    heights = {}
    for row, line in enumerate(body):
        for match in BRAILLE.finditer(line):
            heights.setdefault(match.start(), []).append(row)
    means = {column: sum(rows) / len(rows) for column, rows in heights.items()}
    assert means[min(means)] < means[50] - 2


@pytest.mark.parametrize("name", ["no suggestion", "one point", "all NaN", "no sweeps", "largest"])
def test_without_a_curve_there_is_no_chart(odd_named, name):
    assert chart.draw(odd_named(name), 80) is None


def test_a_label_without_room_on_the_right_stands_on_the_left(odd_named):
    marker = chart.draw(odd_named("right edge"), 80).splitlines()[-2]
    assert marker.strip() == "0.001 ━▲"


def test_ascii_charts_are_ascii(odd):
    picture = chart.draw(odd, 60, ascii_only=True)
    assert picture is None or picture.isascii()


def row(step, repeat=0, loss=0.5):
    return SweepRow(repeat=repeat, step=step, lr=3.2e-4, loss=loss, skipped=False)


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with terminal.Progress(repeats=2, steps=100) as progress:
        for step in range(100):
            progress.update(row(step))
            clock(0.125)
        progress.update(row(4, repeat=1, loss=math.nan))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "sweep 1/2, step 17/100, rate 0.00032, loss 0.5, 8.5 steps/s",
        "sweep 1/2, step 57/100, rate 0.00032, loss 0.5, 8.1 steps/s",
        "sweep 1/2, step 97/100, rate 0.00032, loss 0.5, 8.1 steps/s",
        "sweep 2/2, step 5/100, rate 0.00032, loss nan, 8.1 steps/s",
    ]


def test_an_exception_leaves_the_last_row_and_passes_through(capsys):
    with pytest.raises(KeyError), terminal.Progress(repeats=1, steps=9) as progress:  # noqa: PT012
        progress.update(row(2))
        raise KeyError
    assert capsys.readouterr().err.startswith("sweep 1/1, step 3/9, rate 0.00032, loss 0.5, ")


def test_nothing_happened_nothing_is_said(capsys):
    with terminal.Progress(repeats=1, steps=9):
        pass
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet(clock, capsys, monkeypatch):
    def work():
        with terminal.Progress(repeats=1, steps=9, quiet=True) as progress:
            progress.update(row(2))
            clock(10)
            progress.update(row(3))

    work()
    assert capsys.readouterr().err == ""
    assert on_a_terminal("stderr", monkeypatch, work) == ""


def test_a_terminal_shows_a_live_bar_and_clears_it(clock, monkeypatch):
    def work():
        with terminal.Progress(repeats=2, steps=100) as progress:
            clock(0.2)
            progress.update(row(49, loss=math.inf))
            progress.update(row(50))
            clock(0.2)
            progress.update(row(99, repeat=1))

    sent = on_a_terminal("stderr", monkeypatch, work)
    assert "sweep 1/2, step 50/100, rate 0.00032, loss inf, 5 steps/s" in sent
    assert "step 51/100" not in sent
    assert "sweep 2/2, step 100/100" in sent
    assert "━" in sent
    assert sent.endswith("\x1b[2K")


def test_a_dumb_terminal_gets_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")

    def work():
        with terminal.Progress(repeats=1, steps=9) as progress:
            clock(3)
            progress.update(row(2))

    sent = on_a_terminal("stderr", monkeypatch, work)
    assert sent.splitlines() == ["sweep 1/1, step 3/9, rate 0.00032, loss 0.5, 0.33 steps/s"]


def test_a_row_costs_next_to_nothing():
    rows = [row(step) for step in range(20_000)]
    seconds = []
    for _ in range(3):
        with terminal.Progress(repeats=1, steps=20_000, quiet=True) as progress:
            started = perf_counter()
            for each in rows:
                progress.update(each)
            seconds.append(perf_counter() - started)
    assert min(seconds) / len(rows) < 5e-6


def test_facts_are_printed_line_by_line(capsys):
    print_facts(
        {
            "batch_size": 64,
            "samples": {"train": 1437, "validation": None},
            "inputs": [64, 1, 28],
            "loss": 2.302585093,
            "config": "[x].yaml",
            "compiled": True,
            "scalar": [],
        }
    )
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "batch size  64",
        "samples     train 1,437, validation –",
        "inputs      64 × 1 × 28",
        "loss        2.30259",
        "config      [x].yaml",
        "compiled    yes",
        "scalar      –",
    ]


def test_rows_are_printed_as_a_table(capsys):
    print_rows([{"name": "adam", "default_rate": 0.001}, {"name": "muon", "default_rate": None}])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name  default rate",
        "adam  0.001",
        "muon  –",
    ]
    print_rows([])
    assert capsys.readouterr().out.strip() == ""
