import math

import pytest
from trainings import epoch_rows, step_rows

from lrtool.report.records import BestEpoch, EpochRow
from lrtool.show.terminal.compare import comparison
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
