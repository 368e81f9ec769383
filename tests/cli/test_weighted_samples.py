"""Weights of samples, from a user's dataset to the loss of an epoch."""

import json

import pytest
from torch.nn import functional as F

MODULE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

x = torch.randn(70, 6, generator=torch.Generator().manual_seed(0))
weights = torch.rand(70, generator=torch.Generator().manual_seed(1))
targets = {
    "classes": torch.arange(70) % 3,
    "values": x.sum(1).double(),
    "yes": torch.arange(70) % 2,
}


def dataset(of):
    part = TensorDataset(x, targets[of], weights.double())
    return part, part


def loader(of):
    part = DataLoader(TensorDataset(x, targets[of], weights), 7)
    return part, part


class Mapped(Dataset):
    def __init__(self, of):
        self.y = targets[of]

    def __len__(self):
        return 70

    def __getitem__(self, index):
        weight = weights[index].item()
        return {"x": x[index], "y": self.y[index].item(), "sample_weight": weight}


def mapped(of):
    return Mapped(of), Mapped(of)


def integers(of):
    part = TensorDataset(x, targets[of], targets[of])
    return part, part


class Net(nn.Linear):
    def __init__(self, outputs):
        super().__init__(6, outputs)
        with torch.no_grad():
            self.weight.copy_(torch.linspace(-1, 1, 6 * outputs).view(outputs, 6))
            self.bias.zero_()


def plain(outputs, targets):
    return outputs.square().mean()
"""
CONFIG = """
data: {{source: "mine:{source}", args: {{of: {of}}}}}
model: {{name: "mine:Net", args: {{outputs: {outputs}}}}}
loss: {loss}
learning_rate: 1e-12
train: {{epochs: 1}}
"""


OUTPUTS = {"classes": 3, "values": 1, "yes": 1}


@pytest.fixture
def run(here, write, no_plots):  # noqa: ARG001
    """Run a command on one of the sources."""

    def run(command, source, of, loss):
        write("mine.py", MODULE)
        text = CONFIG.format(source=source, of=of, outputs=OUTPUTS[of], loss=loss)
        write("a.yaml", text)
        return here(command, "a.yaml", *(["--output", "run"] if command == "train" else []))

    return run


def expected(of):
    """The weighted mean of the losses, and the plain mean, of the model at its start."""
    mine = {}
    exec(MODULE, mine)  # noqa: S102
    y, w = mine["targets"][of], mine["weights"]
    outputs = mine["Net"](OUTPUTS[of])(mine["x"]).detach()
    if of == "classes":
        each = F.cross_entropy(outputs, y, reduction="none")
    elif of == "values":
        each = (outputs[:, 0] - y).square()
    else:
        each = F.softplus(outputs[:, 0]) - outputs[:, 0] * y
    return ((each * w).sum() / w.sum()).item(), each.mean().item()


@pytest.mark.parametrize("source", ["dataset", "loader", "mapped"])
@pytest.mark.parametrize(
    ("of", "loss"), [("classes", "cross_entropy"), ("values", "mse"), ("yes", "bce_with_logits")]
)
def test_an_epochs_loss_is_the_weighted_mean(run, tmp_path, source, of, loss):
    done = run("train", source, of, loss)
    assert done.returncode == 0, done.stderr
    epoch = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    weighted, plain = expected(of)
    assert weighted != pytest.approx(plain, rel=1e-3)
    assert epoch["validation_loss"] == pytest.approx(weighted, rel=1e-5)
    assert epoch["train_loss"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize(
    ("source", "loss", "words"),
    [
        ("integers", "cross_entropy", "a third part after (inputs, targets) is a weight for each"),
        ("dataset", "mine:plain", "weights of samples, which need a loss of torch"),
    ],
)
def test_what_cannot_be_weighted_is_explained(run, source, loss, words):
    for command in ("check", "train"):
        done = run(command, source, "classes", loss)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
