"""The best and the last weights of a run, read back."""

from pathlib import Path

import pytest
import torch
from small import NET

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
    session = begin("train.early_stopping={patience: 9, metric: train_loss}")
    session.state.best.higher = True  # so that the first epoch is the best one
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


COUNTING = NET.replace(
    "def model():",
    """
class Counting(nn.Linear):
    seen = ("batches", 0, torch.zeros(2))
    def forward(self, inputs):
        words, count, table = self.seen
        self.seen = words, count + self.training, table + self.training
        return super().forward(inputs)
    def get_extra_state(self):
        return self.seen
    def set_extra_state(self, state):
        self.seen = state

def model():
    return Counting(4, 2)

def other():""",
)


def test_extra_states_are_stored_with_the_weights_of_then(begin):
    """Three epochs of 60 samples in batches of 8, of which the first is the best."""
    session = begin("train.early_stopping={metric: train_loss}", net=COUNTING)
    session.state.best.higher = True
    for _ in train(session):
        pass
    assert session.state.best.epoch == 1
    for which, batches in (("best", 8), ("last", 24)):
        model = build(session.experiment, 1).model
        load_stored_weights(model, RUN, which)
        words, count, table = model.seen
        assert (words, count, table.tolist()) == ("batches", batches, [batches, batches])
    pretrained = read_pretrained(RUN)
    assert set(pretrained.tensors) == {"weight", "bias", "_extra_state"}
    model = build(session.experiment, 1).model
    load_pretrained(model, pretrained, partial=False)
    assert model.seen[1] == 8


def test_a_damaged_file_of_extra_states_is_named(begin):
    session = begin(net=COUNTING)
    for _ in train(session):
        pass
    path = RUN / "checkpoints/best/state.pt"
    path.write_bytes(b"no pickle")
    with pytest.raises(UserError) as caught:
        load_stored_weights(build(session.experiment, 1).model, RUN)
    words = str(caught.value)
    assert words.startswith(f"{path}: damaged, or not a file of extra states: ")
    assert words.endswith("; --checkpoint last takes the last ones")


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
