"""What the best weights predict is counted while they are evaluated, and kept beside them."""

import json
from pathlib import Path

import pytest
import torch
from small import NET
from test_epochs import ended

from lrtool.components import tally as tallies
from lrtool.engine import weights
from lrtool.errors import LrtoolWarning
from lrtool.report.records import BestEpoch
from lrtool.training.epochs import train
from lrtool.training.stored_weights import best_predictions

BEST = Path("run/checkpoints/best/model.safetensors")
FILES = (Path("run/model.safetensors"), Path("run/metrics.jsonl"))


def trained(session):
    _, ending = ended(train(session))
    assert ending.error is None
    tracker = session.state.best
    best = BestEpoch(tracker.epoch, tracker.step, tracker.metric, tracker.value)
    return best, best_predictions(Path("run"), best)


def test_accuracy_follows_from_the_matrix_of_the_best_epoch(begin):
    best, found = trained(begin())
    accuracy = {
        row["epoch"]: row["accuracy"]
        for row in map(json.loads, FILES[1].read_text().splitlines())
        if row["kind"] == "epoch"
    }
    assert found.samples == 20
    right = sum(row[index] for index, row in enumerate(found.matrix))
    assert right / 20 == pytest.approx(accuracy[best.epoch])
    assert [c.name for c in found.classes] == ["0", "1"]


def test_it_changes_no_bit_of_the_training(begin):
    session = begin()
    assert session.tally is not None
    trained(session)
    with_it = [file.read_bytes() for file in FILES]
    session = begin()
    session.tally = None
    best, found = trained(session)
    assert [file.read_bytes() for file in FILES] == with_it
    assert found is None
    assert best.epoch


def test_a_training_that_is_resumed_keeps_those_of_before(begin):
    """With the first epoch as the best one, whatever follows."""
    never = ("train.early_stopping={metric: train_loss}", "train.schedule=constant")
    session = begin(*never, "train.epochs=1")
    session.state.best.higher = True
    best, first = trained(session)
    again, found = trained(begin(*never, "train.epochs=3", resume=True))
    assert again == best
    assert found == first
    assert found.samples == 20


def test_it_fails_no_training(begin, monkeypatch):
    monkeypatch.setattr(tallies, "prepare", lambda *_: 1 / 0)
    _, found = trained(begin())
    assert found.reason == "division by zero"


OWN = """
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)
    def training_step(self, batch):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
"""


def test_of_a_loss_of_the_models_own_nothing_is_known(begin):
    _, found = trained(begin("loss=own", "model='net:Own'", "metrics=[]", net=NET + OWN))
    assert found is None


def test_without_a_validation_set_there_is_nothing(begin):
    alone = "def data():\n    return Noisy(60, 0)\n\ndef model"
    _, found = trained(
        begin(
            "train.early_stopping={metric: train_loss}",
            "data.validation=0",
            net=NET.replace("def model", alone),
        )
    )
    assert found is None


def test_notes_that_are_damaged_are_a_warning(begin):
    best, _ = trained(begin())
    state = weights.read_weights(BEST)
    notes = {"epoch": best.epoch, "step": best.step, "predictions": {"samples": -1}}
    weights.write_weights(state, BEST, notes)
    with pytest.warns(LrtoolWarning, match="its notes are damaged; the report is without"):
        assert best_predictions(Path("run"), best) is None
    BEST.write_bytes(b"no weights")
    with pytest.warns(LrtoolWarning, match=r"model\.safetensors.*; the report is without"):
        assert best_predictions(Path("run"), best) is None


def test_weights_of_another_epoch_or_an_older_version_say_nothing(begin):
    best, found = trained(begin())
    assert found is not None
    weights.write_weights({"a": torch.ones(1)}, BEST, {"epoch": best.epoch, "step": best.step})
    assert best_predictions(Path("run"), best) is None
    weights.write_weights({"a": torch.ones(1)}, BEST, {"step": 0, "predictions": {"samples": 3}})
    assert best_predictions(Path("run"), best) is None
    assert best_predictions(Path("run"), None) is None
