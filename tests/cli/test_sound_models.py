"""Models that need a plain way go through all commands, and a resumed run is the same training."""

import json

import pytest
import torch
from odd_models import MODELS

import lrtool
from lrtool.engine.weights import read_weights

SOURCE = (
    MODELS
    + """
g = torch.Generator().manual_seed(0)
X = torch.randn(48, 6, generator=g)
IMAGES = torch.randn(48, 3, 6, 6, generator=g)
def forces(): return X, X.sum(1, keepdim=True) * torch.ones(6)
def classes(): return X, torch.arange(48) % 3
def images(): return IMAGES, torch.arange(48) % 3
def words(): return torch.arange(192).reshape(48, 4) % 9, torch.arange(48) % 3
class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.LazyLinear(3)
    def forward(self, x):
        x = self.conv(x)
        return self.out(x.view(len(x), -1))
def lazy(): return nn.Sequential(nn.LazyLinear(7), nn.LazyBatchNorm1d(), nn.LazyLinear(3))
"""
)
CASES = {
    "Forces": ("forces", "loss: mse\nmetrics: [mae]\n"),
    "Viewing": ("images", "metrics: [accuracy]\n"),
    "Sparse": ("words", "optimizer: sgd\n"),
    "lazy": ("classes", "train: {epochs: 2, ema_decay: 0.9}\n"),
}


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("model", CASES)
def test_it_goes_through_all_commands(here, write, tmp_path, model):
    data, more = CASES[model]
    write("sound.py", SOURCE)
    head = f"data: {{source: 'sound:{data}', batch_size: 12}}\nmodel: 'sound:{model}'\n"
    write("a.yaml", head + more)
    found = here("find", "a.yaml", "--steps", 20, "--output", "found", "--quiet", "--verify")
    assert found.returncode in {0, 3}, found.stderr
    if model != "lazy":
        assert found.stderr.count("fails here (") == 1
    train = ("train", "a.yaml", "--lr", "0.01", "--quiet")
    for output, epochs, resumed in (("once", 2, ()), ("twice", 1, ()), ("twice", 2, ("auto",))):
        resume = ("--resume", *resumed) if resumed else ()
        done = here(*train, "--epochs", epochs, "--output", output, *resume)
        assert done.returncode == 0, done.stderr
    once, twice = (
        read_weights(tmp_path / output / "model.safetensors") for output in ("once", "twice")
    )
    assert once.keys() == twice.keys()
    assert all(once[name].equal(twice[name]) for name in once)
    report = json.loads((tmp_path / "once/report.json").read_text())
    evaluated = here("evaluate", "once", "--checkpoint", "last")
    assert evaluated.returncode == 0, evaluated.stderr
    shape = (5, 3, 6, 6) if data == "images" else (5, 4) if data == "words" else (5, 6)
    inputs = torch.ones(shape, dtype=torch.int64 if data == "words" else torch.float32)
    outputs = lrtool.load(tmp_path / "once")(inputs)
    assert outputs.shape == (5, 6 if data == "forces" else 3)
    assert not outputs.requires_grad
    loss = json.loads(evaluated.stdout)["validation_loss"]
    assert loss == pytest.approx(report["epochs"][-1]["validation_loss"])
