"""A loader that knows its place goes on from there; others go through their batches again."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("no_plots")

DATA = """
from pathlib import Path
import torch
from torch import nn

class Loader:
    "Batches in an order of its own; each one made is a line in made.txt."

    def __init__(self, batches=8):
        self.batches, self.epoch, self.at = batches, 0, 0

    def __len__(self):
        return self.batches

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(self.batches, generator=generator).tolist()
        for number in order[self.at:]:
            self.at += 1
            with Path("made.txt").open("a") as made:
                made.write(f"{self.epoch} {number}\\n")
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
            yield x + 0.1 * torch.randn(4, 3), x.sum(1, keepdim=True)
        self.epoch, self.at = self.epoch + 1, 0

class Plain(Loader):
    "Begins anew with each pass."
    def __iter__(self):
        self.epoch = self.at = 0
        yield from super().__iter__()

class Stateful(Loader):
    def state_dict(self):
        return {"epoch": self.epoch, "at": self.at}

    def load_state_dict(self, state):
        self.epoch, self.at = state["epoch"], state["at"]

class Stays(Stateful):
    "Ends the epoch in a pass of its own where a state of its end was put back."
    def __iter__(self):
        if self.at == self.batches:
            self.epoch, self.at = self.epoch + 1, 0
            if self.put_back:
                self.put_back = False
                return
        yield from super().__iter__()
        self.epoch, self.at = self.epoch - 1, self.batches

    put_back = False

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.put_back = self.at == self.batches

class Foreign(Stateful):
    def state_dict(self):
        return {**super().state_dict(), "path": Path("here")}

def stateful(): return Stateful()
def stays(): return Stays()
def foreign(): return Foreign()
def plain(): return Plain()
def model(): return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1), nn.Linear(4, 1))
"""

CONFIG = """
data: {source: "data:SOURCE", validation: 0}
model: "data:model"
loss: mse
learning_rate: 0.05
train: {max_steps: 20, checkpoint_every: 100}
runtime: {device: cpu}
"""


@pytest.fixture
def trained(write, tmp_path, launch, start):
    """Train to a step, or go on to it; return the weights and the batches that were made."""
    write("data.py", DATA)

    def trained(source, steps, *arguments, ranks=1):
        write("a.yaml", CONFIG.replace("SOURCE", source))
        made = tmp_path / "made.txt"
        made.write_text("")
        arguments = ("train", "a.yaml", "--set", f"train.max_steps={steps}", *arguments)
        begun = launch(ranks, *arguments) if ranks > 1 else [start(*arguments)]
        ended = [each.wait() for each in begun]
        assert [each.returncode for each in ended] == [0] * ranks, ended
        run = tmp_path / arguments[-1]
        lines = made.read_text().split("\n")[:-1]
        return (run / "model.safetensors").read_bytes(), lines, ended[0].stderr

    return trained


@pytest.mark.parametrize(("source", "step"), [("stateful", 3), ("stateful", 8), ("stays", 16)])
def test_a_loader_with_a_state_goes_on_from_it(trained, source, step):
    expected, made, _ = trained("stateful", 20, "--output", "whole")
    of_training, probes = made[-20:], len(made) - 20
    assert [line[0] for line in of_training] == list("0" * 8 + "1" * 8 + "2" * 4)
    trained(source, step, "--output", "run")
    found, made, _ = trained(source, 20, "--resume", "run")
    assert found == expected
    assert made[probes:] == of_training[step:]


def test_a_loader_without_a_state_goes_through_its_batches_again(trained):
    _, made, _ = trained("plain", 11, "--output", "run")
    probes = len(made) - 11
    _, made, _ = trained("plain", 20, "--resume", "run")
    assert len(made) == probes + 20 - 8  # the second epoch is begun again


def test_a_state_that_no_checkpoint_can_hold(trained):
    _, _, said = trained("foreign", 3, "--quiet", "--output", "run")
    expected = (
        "lrtool: warning: the state of the training set's Foreign holds objects that are neither "
        "tensors nor plain values (pathlib.PosixPath): a training that is resumed goes through "
        "its batches again instead\n"
    )
    assert said == expected


def test_the_state_of_each_rank_is_kept(trained, tmp_path):
    expected, _, _ = trained("stateful", 12, "--output", "whole", ranks=2)
    trained("stateful", 5, "--output", "run", ranks=2)
    found, _, _ = trained("stateful", 12, "--resume", "run", ranks=2)
    assert found == expected
    state = torch.load(tmp_path / "run/checkpoints/last/state.pt", weights_only=True)
    assert [each["loader"] for each in state["ranks"]] == [{"epoch": 1, "at": 4}] * 2
