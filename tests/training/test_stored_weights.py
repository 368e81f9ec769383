"""The best and the last weights of a run, read back."""

from pathlib import Path

import pytest
import torch

from lrtool.engine.pretrained import load_pretrained, read_pretrained
from lrtool.engine.weights import read_weights
from lrtool.errors import UserError
from lrtool.experiment.experiment import build
from lrtool.training.epochs import train
from lrtool.training.stored_weights import StoredWeights, load_stored_weights

RUN = Path("run")


@pytest.fixture
def fresh(begin):
    """Train, and return a way to models as the configuration builds them."""
    session = begin("train.early_stopping={patience: 9, metric: train_loss, mode: max}")
    for _ in train(session):
        pass
    return session, lambda: build(session.experiment, 1).model  # of another seed


def holds(model, path):
    stored = read_weights(path)
    return all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_the_best_ones_unless_others_are_asked_for(fresh):
    session, new = fresh
    best, last = new(), new()
    assert session.state.best.epoch == 1  # of the highest loss
    expected = StoredWeights("best", session.state.best.epoch, session.state.best.step)
    assert load_stored_weights(best, RUN) == load_stored_weights(best, RUN, "best") == expected
    assert holds(best, RUN / "checkpoints/best/model.safetensors")
    assert load_stored_weights(last, RUN, "last") == StoredWeights("last", 3, 9)
    assert holds(last, RUN / "model.safetensors")  # the moving average of the last step


def test_the_last_ones_where_none_are_best(fresh):
    _, new = fresh
    (RUN / "checkpoints/best/model.safetensors").unlink()
    assert load_stored_weights(new(), RUN).checkpoint == "last"
    with pytest.raises(UserError) as caught:
        load_stored_weights(new(), RUN, "best")
    path = "run/checkpoints/best/model.safetensors"
    assert str(caught.value) == f"run: has no checkpoint best; there is no {path}"


def test_as_pretrained_weights_a_run_has_the_best_ones_else_the_average_of_the_last(fresh):
    _, new = fresh
    best, last = RUN / "checkpoints/best/model.safetensors", RUN / "model.safetensors"
    average = read_weights(last)
    assert read_pretrained(RUN).path == best
    best.unlink()
    assert read_pretrained(RUN).path == last
    last.unlink()
    pretrained = read_pretrained(RUN)
    assert pretrained.path == RUN / "checkpoints/last"
    model = new()
    load_pretrained(model, pretrained, partial=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, average[name]), name


def test_a_run_without_weights(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint that is whole"):
        load_stored_weights(torch.nn.Linear(1, 1), tmp_path)
