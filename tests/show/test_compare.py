import functools
import math
import operator
import re

import pytest
from terminals import on_a_terminal
from trainings import epoch_rows, step_rows

from lrtool.report.records import BestEpoch, EpochRow
from lrtool.show.terminal.compare import comparison, print_comparison
from lrtool.show.terminal.console import print_rows


def test_finds_and_trainings_stand_in_one_table(make, train):
    epochs = [
        EpochRow(
            epoch=index,
            step=2 * index,
            lr=0.1,
            train_loss=training,
            validation_loss=validation,
            accuracy=accuracy,
        )
        for index, training, validation, accuracy in (
            (1, 0.9, 0.75, 0.5),
            (2, 0.6, 0.5, 0.875),
            (3, 0.3, 0.625, 0.75),
        )
    ]
    best = BestEpoch(epoch=2, step=4, metric="accuracy", value=0.875)
    trained = train(steps=step_rows(3, 2), epochs=epochs, best=best)
    assert comparison({"f": make(), "t": trained}) == [
        {
            "name": "f",
            "command": "find",
            "status": "completed",
            "learning_rate": 0.0032,
            "verdict": "confident",
            "interval": "0.0018 to 0.0056",
            "epochs": None,
            "steps": 600,
            "final_train_loss": None,
            "best_validation_loss": None,
            "accuracy": None,
            "seconds": 2.5,
        },
        {
            "name": "t",
            "command": "train",
            "status": "completed",
            "learning_rate": 0.0032,
            "verdict": None,
            "interval": None,
            "epochs": 3,
            "steps": 6,
            "final_train_loss": 0.3,
            "best_validation_loss": 0.5,
            "accuracy": 0.875,  # the best epoch's
            "seconds": 12.5,
        },
    ]


def test_only_columns_with_a_value_are_shown(make, odd_training_named):
    (found,) = comparison({"f": make()})
    assert list(found) == [
        "name",
        "command",
        "status",
        "learning_rate",
        "verdict",
        "interval",
        "steps",
        "seconds",
    ]
    (failed,) = comparison({"t": odd_training_named("nothing")})
    assert list(failed) == ["name", "command", "status", "steps", "seconds"]
    assert comparison({}) == []


def test_each_metric_of_any_run_is_a_column_once(train):
    steps = step_rows(2)
    runs = {
        name: train(steps=steps, epochs=epoch_rows(steps, metrics=metrics), best=None)
        for name, metrics in {
            "a": {"f1": lambda p: p, "auroc": lambda _: math.nan},
            "b": {"mae": lambda p: 1 - p, "f1": lambda p: p / 2},
        }.items()
    }
    first, second = comparison(runs)
    assert list(first) == list(second)
    assert list(first)[-3:] == ["f1", "mae", "seconds"]
    assert (first["f1"], first["mae"]) == (1.0, None)  # the last epoch's
    assert (second["f1"], second["mae"]) == (0.5, 0.0)


def test_metrics_of_the_training_part_have_a_column_of_their_own(train, odd_training_named):
    alone = odd_training_named("metrics without validation")
    first, second = comparison({"a": train(), "b": alone})
    assert (first["accuracy"], first["train_accuracy"]) == (pytest.approx(0.9847, abs=1e-4), None)
    assert (second["accuracy"], second["train_accuracy"]) == (None, first["accuracy"])


@pytest.mark.parametrize("name", ["[bold]run", "läufe/1"])
def test_the_table_prints(make, train, capsys, name):
    print_rows(comparison({name: make(), "other": train()}))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "name"
    assert "best validation loss" in head
    assert first.startswith(f"{name}  ")
    assert second.startswith("other")


NAMES = [f"runs/digits/20261128T21{minute:02}34Z-train" for minute in range(7)]


def shown(rows, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", f"{width}")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    sent = on_a_terminal("stdout", monkeypatch, lambda: print_comparison(rows))
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in sent.splitlines()]


def test_a_narrow_terminal_has_a_column_for_each_run(make, train, monkeypatch):
    rows = comparison({NAMES[0]: train(), NAMES[1]: make()})
    lines = shown(rows, 80, monkeypatch)
    assert lines[:4] == [f"1  {NAMES[0]}", f"2  {NAMES[1]}", "", lines[3]]
    assert lines[3].split() == ["run", "1", "2"]
    cells = [re.split(r"  +", line) for line in lines[4:]]
    assert ["verdict", "–", "confident"] in cells
    assert ["interval", "–", "0.0018 to 0.0056"] in cells
    assert ["learning rate", "0.0032", "0.0032"] in cells


def test_no_line_is_longer_than_the_terminal_and_no_number_is_cut(make, train, monkeypatch):
    runs = {name: make() if number % 3 else train() for number, name in enumerate(NAMES)}
    lines = shown(comparison(runs), 80, monkeypatch)
    assert max(map(len, lines)) <= 80
    heads = [line.split()[1:] for line in lines if line.startswith("run ")]
    assert len(heads) > 1
    assert functools.reduce(operator.iadd, heads, []) == ["1", "2", "3", "4", "5", "6", "7"]
    assert sum(line.count("0.0018 to 0.0056") for line in lines) == 4


def test_a_wide_terminal_has_a_line_for_each_run(make, train, monkeypatch):
    lines = shown(comparison({NAMES[0]: train(), NAMES[1]: make()}), 200, monkeypatch)
    assert [line.split()[0] for line in lines] == ["name", NAMES[0], NAMES[1]]
