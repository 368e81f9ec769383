"""Losses that a model computes itself, and losses that have weights, on the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("no_plots")

MODELS = """
import torch
from dataclasses import dataclass
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return 100 * F.mse_loss(self(batch[0]), F.one_hot(batch[1], 3).float())


@dataclass
class Output:
    loss: object
    logits: object


class Returns(nn.Module):
    def __init__(self, kind="object"):
        super().__init__()
        self.net, self.kind = nn.Linear(8, 2), kind

    def forward(self, x, labels=None):
        logits = self.net(x)
        loss = None if labels is None else 7 * F.cross_entropy(logits, labels)
        if self.kind == "tuple":
            return (loss, logits)
        if self.kind == "mapping":
            return {"loss": loss, "logits": logits}
        return Output(loss, logits)


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        x = torch.randn(8, generator=torch.Generator().manual_seed(i))
        return {"x": x, "labels": (x.sum() > 0).long()}


def rows():
    return DataLoader(Rows(), 16), DataLoader(Rows(), 32)
"""


@pytest.fixture
def models(write):
    write("models.py", MODELS)


def check(here, *arguments):
    done = here("check", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["loss"], done.stderr


@pytest.mark.usefixtures("models")
def test_a_training_step_is_the_loss_where_none_is_configured(here, write):
    write("a.yaml", "data: {source: iris}\nmodel: models:Step\n")
    own, said = check(here, "a.yaml")
    assert said == (
        "lrtool: warning: the loss is that of models:Step's training_step, as the configuration "
        "has none; loss: own says so, and the name of a loss takes that instead\n"
    )
    for value in ("own", "null"):
        assert check(here, "a.yaml", "--set", f"loss={value}") == (own, "")
    # 100 times a squared error of about 1/3, against the logarithm of about 3 classes
    other, said = check(here, "a.yaml", "--set", "loss=cross_entropy")
    assert other < 4
    assert own > 10
    assert said == (
        "lrtool: warning: the training_step of models:Step is not used, for loss is "
        "cross_entropy; loss: own takes it\n"
    )


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("kind", ["object", "mapping", "tuple"])
def test_a_loss_that_the_model_returns_is_trained_on_with_metrics(here, write, kind):
    write(
        "a.yaml",
        "data: {source: 'models:rows'}\n"
        f"model: {{name: 'models:Returns', args: {{kind: {kind}}}}}\n"
        "loss: own\nmetrics: [accuracy]\nlearning_rate: 0.3\ntrain: {epochs: 8}\n",
    )
    assert check(here, "a.yaml")[0] > 3  # seven times the logarithm of 2 or so
    done = here("train", "a.yaml", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout)["epochs"][-1]
    assert last["accuracy"] > 0.9
    done = here("evaluate", "run", "--checkpoint", "last")
    assert json.loads(done.stdout)["accuracy"] == last["accuracy"]
    assert json.loads(done.stdout)["validation_loss"] == pytest.approx(last["validation_loss"])


@pytest.mark.usefixtures("models")
def test_a_loss_that_the_model_returns_needs_no_key(here, write):
    write("a.yaml", "data: {source: 'models:rows'}\nmodel: models:Returns\n")
    own, said = check(here, "a.yaml")
    assert said.startswith("lrtool: warning: the loss is that of models:Returns's forward, as the ")
    assert check(here, "a.yaml", "--set", "loss=own") == (own, "")
    done = here("check", "a.yaml", "--loss", "cross_entropy")
    assert done.returncode == 2
    assert "outputs and targets are Output and Tensor; loss: own takes the loss that" in done.stderr


def test_an_own_loss_that_is_none_or_has_arguments(here, write):
    write("a.yaml", "data: {source: iris}\nmodel: mlp\nloss: own\n")
    done = here("check", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "a.yaml:3:7: loss: own: mlp has no loss of its own: neither training_loss(batch), nor "
        "training_step(batch, index), nor .loss of what it returns\n"
    )
    done = here("check", "a.yaml", "--set", "loss.name=own", "--set", "loss.args.a=1")
    assert "loss.args: own takes no arguments: the model computes its loss itself" in done.stderr


@pytest.mark.usefixtures("models")
def test_the_rate_of_a_find_is_for_the_same_loss(here, write):
    write("a.yaml", "data: {source: iris}\nmodel: models:Step\ntrain: {epochs: 1}\n")
    find = here("find", "a.yaml", "--output", "found", "--quiet")
    assert find.returncode in {0, 3}, find.stderr
    done = here("train", "a.yaml", "--output", "run", "--lr-from", "found", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "another setting" not in done.stderr


PROXIES = """
import torch
from torch import nn
from torch.nn import functional as F

g = torch.Generator().manual_seed(0)
X = torch.randn(200, 6, generator=g)
Y = (X @ torch.randn(6, 3, generator=g)).argmax(1)


def data():
    return X, Y


class Proxies(nn.Module):
    def __init__(self):
        super().__init__()
        self.directions = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, embedding, targets):
        if self.training:
            self.calls += 1
        cosines = F.normalize(embedding) @ F.normalize(self.directions).T
        return F.cross_entropy(5 * cosines, targets)
"""
PROXIES_YAML = """
data: {source: "proxies:data", batch_size: 40}
model: {name: mlp, args: {hidden: [], num_outputs: 4}}
loss: "proxies:Proxies"
learning_rate: 0.05
train: {epochs: 3}
"""


def last_loss(run):
    return torch.load(run / "checkpoints/last/state.pt", weights_only=True)["loss"]


def test_the_weights_of_a_loss_are_trained_kept_and_resumed(here, write, tmp_path):
    write("proxies.py", PROXIES)
    write("a.yaml", PROXIES_YAML)
    facts = json.loads(here("check", "a.yaml", "--json").stdout)
    assert facts["trainable"] == 6 * 4 + 4 + 3 * 4

    whole = here("train", "a.yaml", "--output", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    epochs = json.loads(whole.stdout)["epochs"]
    assert last_loss(tmp_path / "whole")["calls"] == 3 * 4  # 160 samples; not while evaluating

    # In two parts, to the last bit.
    assert here("train", "a.yaml", "--epochs", "1", "--output", "parts", "-q").returncode == 0
    first = last_loss(tmp_path / "parts")
    assert here("train", "a.yaml", "--resume", "parts", "-q").returncode == 0
    second = last_loss(tmp_path / "parts")
    assert not torch.equal(first["directions"], second["directions"])
    assert torch.equal(second["directions"], last_loss(tmp_path / "whole")["directions"])

    # Evaluated with the weights of then: the best ones here are those of the last epoch.
    best = load_file(tmp_path / "whole/checkpoints/best/loss.safetensors")
    assert torch.equal(best["directions"], second["directions"])
    for which in ("best", "last"):
        done = here("evaluate", "whole", "--checkpoint", which)
        assert json.loads(done.stdout)["validation_loss"] == epochs[-1]["validation_loss"]

    # Another training may start from those of the model alone, and says so.
    notes = json.loads(here("check", "a.yaml", "--json", "--set", "model.checkpoint=whole").stdout)
    words = "not used: the trained weights of its loss, loss.safetensors"
    assert notes["checkpoint"]["notes"] == [words]


def test_a_moving_average_leaves_the_weights_of_a_loss_out(here, write):
    write("proxies.py", PROXIES)
    write("a.yaml", PROXIES_YAML.replace("epochs: 3", "epochs: 1, ema_decay: 0.9"))
    done = here("train", "a.yaml", "--output", "run", "-q")
    assert done.returncode == 0
    assert done.stderr == (
        "lrtool: warning: train.ema_decay averages the model's weights, not those of the loss\n"
    )


def test_groups_may_name_the_weights_of_a_loss(here, write):
    write("proxies.py", PROXIES)
    write("a.yaml", PROXIES_YAML + "optimizer: {groups: [{match: '^loss\\.', lr_ratio: 10}]}\n")
    done = here("train", "a.yaml", "--output", "run", "-q")
    assert done.returncode == 0, done.stderr


def test_a_find_trains_the_weights_of_a_loss(here, write):
    write("proxies.py", PROXIES)
    write("a.yaml", PROXIES_YAML.replace("epochs: 3", "epochs: 20"))
    done = here("find", "a.yaml", "--output", "run", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["reason"]
    assert 0.001 < report["suggestion"]["lr"] < 1


FROZEN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, own_train=False, pretrained=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)
        self.own_train = own_train
        if pretrained:
            self.eval()
        elif not own_train:
            self.body[1].eval()
            self.body[0].requires_grad_(False)

    def forward(self, x):
        with open("modes.txt", "a") as file:
            print(self.training, self.body[1].training, file=file)
        return self.head(self.body(x))

    def train(self, mode=True):
        super().train(mode)
        if self.own_train:
            self.body[1].eval()
        return self
"""


@pytest.mark.parametrize(
    ("args", "norm_trains"),
    [("{}", False), ("{own_train: true}", False), ("{pretrained: true}", True)],
)
def test_what_an_author_froze_stays_frozen(here, write, tmp_path, args, norm_trains):
    write("frozen.py", FROZEN)
    write(
        "a.yaml",
        f"data: {{source: iris}}\nmodel: {{name: 'frozen:Net', args: {args}}}\n"
        "learning_rate: 0.01\ntrain: {epochs: 2}\n",
    )
    done = here("train", "a.yaml", "--output", "run", "-q")
    assert done.returncode == 0, done.stderr
    modes = set((tmp_path / "modes.txt").read_text().splitlines())
    assert modes == {f"True {norm_trains}", "False False"}
    weights = load_file(tmp_path / "run/model.safetensors")
    assert (weights["body.1.num_batches_tracked"] > 0) == norm_trains
    if args == "{}":
        done = here("train", "a.yaml", "--output", "more", "--epochs", "5", "-q")
        longer = load_file(tmp_path / "more/model.safetensors")
        assert torch.equal(weights["body.0.weight"], longer["body.0.weight"])
        assert not torch.equal(weights["body.1.weight"], longer["body.1.weight"])
