import math
from dataclasses import replace
from pathlib import Path

import pytest
from finds import make_full_trial, make_trials
from terminals import on_a_terminal

from lrtool.report.records import FullTrialRow, RaceRow, SweepRow, TrialRow
from lrtool.show.terminal import find as terminal
from lrtool.show.terminal import race as race_terminal

DIRECTORY, CONFIG = Path("runs/digits/now-find"), Path("configs/digits.yaml")


def summary(report, capsys):
    terminal.print_summary(report, directory=DIRECTORY, config=CONFIG)
    return capsys.readouterr().out


def row(candidate, step, loss=0.5):
    return RaceRow(candidate, step, 0.001 * 10 ** (candidate / 2), loss)


def test_the_summary_has_a_table_of_the_candidates(odd_race_named, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line.rstrip() for line in summary(odd_race_named("five"), capsys).splitlines()]
    caption = next(line for line in lines if line.startswith("Race"))
    assert caption == (
        "Race           5 rates over 100 steps (318 in all); loss of 360 validation samples"
    )
    start = next(i for i, line in enumerate(lines) if "outcome" in line)
    assert lines[start : start + 6] == [
        "  rate  half-way  at the end  ± error  outcome",
        " 0.001       0.9           –        –  dropped",
        "0.0032       0.7        0.42     0.02  lost",
        "0.0056      0.65        0.35     0.02  lost",
        "  0.01       0.6        0.31        –  won",
        " 0.032       NaN           –        –  diverged",
    ]


def test_a_race_without_a_validation_part_says_what_was_compared(odd_race_named, capsys):
    out = summary(odd_race_named("in training"), capsys)
    assert "loss of 1,600 training samples" in " ".join(out.split())


def test_one_that_just_began(odd_race_named, capsys):
    out = summary(odd_race_named("just begun"), capsys)
    assert out.count("unfinished") == 2
    assert "NaN" not in out


@pytest.mark.parametrize("width", [40, 57, 80, 200])
def test_odd_races_fit_every_width(odd_race, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    *lines, _ = summary(odd_race, capsys).splitlines()
    assert max(map(len, lines)) <= width
    for candidate in odd_race.race.candidates:
        assert any(candidate.outcome in line for line in lines)


def test_a_terminal_that_knows_only_ascii(odd_race_named, monkeypatch):
    def work():
        report = odd_race_named("five")
        terminal.print_summary(report, directory=DIRECTORY, config=CONFIG)

    assert on_a_terminal("stdout", monkeypatch, work, encoding="ascii").isascii()


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with terminal.Progress(repeats=1, steps=9, race_steps=80) as progress:
        progress.update(SweepRow(0, 8, 3.2e-4, 0.5, skipped=False))
        for step in range(1, 41):
            progress.update(row(0, step))
            clock(0.125)
        progress.update(row(1, 1, math.inf))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "race: rate 0.001, step 17/80, loss 0.5, 9 steps/s",
        "race: rate 0.0032, step 1/80, loss inf, 8.4 steps/s",
    ]


def test_a_terminal_shows_a_live_table_and_clears_it(clock, monkeypatch):
    def work():
        with terminal.Progress(repeats=1, steps=9, race_steps=80) as progress:
            clock(0.2)
            progress.update(SweepRow(0, 8, 3.2e-4, 0.5, skipped=False))
            for candidate in range(3):
                for step in (20, 40):
                    clock(0.2)
                    progress.update(row(candidate, step, 0.25 * (candidate + 1)))

    sent = on_a_terminal("stderr", monkeypatch, work)
    assert "sweep 1/1, step 9/9" in sent
    assert "race: rate 0.01, step 40/80, loss 0.75" in sent
    last = sent[sent.rindex("race: rate") :]
    for rate, loss in (("0.001", "0.25"), ("0.0032", "0.5"), ("0.01", "0.75")):
        assert any(
            rate in line and "40/80" in line and loss in line for line in last.splitlines()
        ), last
    assert sent.rstrip("\r\n").endswith("\x1b[2K")


def test_quiet_is_quiet(clock, capsys, monkeypatch):
    def work():
        with terminal.Progress(repeats=1, steps=9, race_steps=80, quiet=True) as progress:
            clock(10)
            progress.update(row(0, 3))

    work()
    assert capsys.readouterr().err == ""
    assert on_a_terminal("stderr", monkeypatch, work) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trials", "0.0016 and 0.0064, 90 steps each: validation loss 0.42 and 0.61"),
        ("trials in training", "0.0016 and 0.0064, 90 steps each: training loss 0.42 and 0.61"),
        (
            "a trial that diverged",
            "0.0016 and 0.0064, 90 steps each: validation loss 0.42 and diverged",
        ),
        (
            "an interrupted trial",
            "0.0016 and 0.0064, 90 steps each: validation loss 0.42 and unfinished",
        ),
    ],
)
def test_the_summary_says_what_trials_came_to(odd_named, capsys, monkeypatch, name, text):
    monkeypatch.setenv("COLUMNS", "120")
    rows = [line.split(maxsplit=1) for line in summary(odd_named(name), capsys).splitlines()]
    assert ["Trials", text] in [[row[0], row[1].rstrip()] for row in rows if len(row) == 2]


def test_three_trials_are_named_in_the_order_of_their_rates():
    two = make_trials()
    third = replace(two.candidates[0], lr=0.0005, final_loss=0.5, origin="outward", outcome="lost")
    three = replace(two, candidates=(*two.candidates, third))
    words = "0.0005, 0.0016 and 0.0064, 90 steps each: validation loss 0.5, 0.42 and 0.61"
    assert race_terminal.trials(three) == words


def test_without_trials_the_summary_is_silent_about_them(make, odd_named, capsys):
    for report in (make(), odd_named("no trial yet")):
        assert "Trials" not in summary(report, capsys)


def test_trials_under_way_are_called_so(clock, capsys, monkeypatch):
    with terminal.Progress(repeats=1, steps=9, trial_steps=90) as progress:
        clock(2)
        progress.update(TrialRow(1, 40, 0.0032, 0.5))
    line = "trial: rate 0.0032, step 40/90, loss 0.5, 0.5 steps/s\n"
    assert capsys.readouterr().err == line

    def work():
        with terminal.Progress(repeats=1, steps=9, trial_steps=90) as progress:
            for trial, step in ((0, 90), (1, 40)):
                clock(1)
                progress.update(TrialRow(trial, step, 0.001 * 4**trial, 0.5))

    shown = on_a_terminal("stderr", monkeypatch, work)
    assert "trial: rate 0.004, step 40/90" in shown
    assert "90/90" in shown


def test_a_full_trial_counts_to_the_end_of_the_training(clock, capsys, monkeypatch):
    with terminal.Progress(repeats=1, steps=9, trial_steps=90, training=230) as progress:
        clock(2)
        progress.update(FullTrialRow(40, 0.004, 0.5))
    line = "full trial: rate 0.004, step 40/230, loss 0.5, 0.5 steps/s\n"
    assert capsys.readouterr().err == line

    def work():
        with terminal.Progress(repeats=1, steps=9, trial_steps=90, training=230) as progress:
            clock(1)
            progress.update(TrialRow(0, 90, 0.0005, 0.5))
            clock(1)
            progress.update(FullTrialRow(40, 0.004, 0.5))

    shown = on_a_terminal("stderr", monkeypatch, work)
    whole = shown[shown.index("full trial:") :]
    assert "40/230" in whole
    assert "0.0005" not in whole, "the trials are over"


def test_what_a_full_trial_showed(make, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert "Full trial" not in summary(make(), capsys)
    out = summary(make().model_copy(update={"full_trial": make_full_trial()}), capsys)
    line = next(line for line in out.splitlines() if line.startswith("Full trial"))
    assert line.rstrip() == (
        "Full trial     0.004: validation loss lowest, 0.5, after 138 of 230 steps"
    )


def test_trials_count_to_their_own_steps_and_leave_with_them(clock, monkeypatch):
    def work():
        with terminal.Progress(repeats=1, steps=9, trial_steps=90, race_steps=100) as progress:
            for trial in (0, 1):
                clock(1)
                progress.update(TrialRow(trial, 90, 0.0005 * 4**trial, 0.5))
            for candidate in (0, 1):
                clock(1)
                progress.update(row(candidate, 40))

    shown = on_a_terminal("stderr", monkeypatch, work)
    assert "90/90" in shown
    assert "90/100" not in shown
    race = shown[shown.index("race: rate 0.001,") :]
    assert "40/100" in race
    assert "0.0005" not in race


def test_the_line_above_the_table_is_one_line(clock, monkeypatch):
    def work():
        with terminal.Progress(repeats=1, steps=9, race_steps=100) as progress:
            clock(1)
            progress.update(row(0, 40))

    monkeypatch.setenv("COLUMNS", "80")
    shown = on_a_terminal("stderr", monkeypatch, work)
    assert "race: rate 0.001, step 40/100, loss 0.5, 1 steps/s" in shown
