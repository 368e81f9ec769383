"""Set-ups that only several ranks can get wrong: exit 2 with words, by one rank, and no hang."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("no_plots")

MINE = """
import os
import torch
from torch import nn
from torch.nn import functional as F

generator = torch.Generator().manual_seed(0)
x = torch.randn(60, 4, generator=generator)


def data():
    part = torch.utils.data.TensorDataset(x, x[:, :3].argmax(1))
    return part, part


RANK = int(os.environ.get("RANK", 0))


def net(norm=nn.Identity):
    return nn.Sequential(nn.Linear(4, 8), norm(), nn.ReLU(), nn.Linear(8, 3))


def drawn():
    made = net()
    with torch.no_grad():
        made[3].bias.add_(RANK)
    return made


def wider():
    return nn.Sequential(nn.Linear(4, 8 + RANK), nn.ReLU(), nn.Linear(8 + RANK, 3))


def extra():
    made = net()
    if RANK:
        made.register_buffer("more", torch.ones(2))
    return made


class Norm(nn.Module):
    "Data-dependent: its scale comes from the first batch."
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.seen = False

    def forward(self, x):
        if not self.seen and self.training:
            self.scale.data.copy_(1 / (x.std(0) + 1))
            self.seen = True
        return x * self.scale


def data_dependent():
    return net(Norm)


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean


def running():
    return net(Running)


def normal():
    return net(lambda: nn.BatchNorm1d(8))


class Own(nn.Module):
    "A loss that starts otherwise on each rank."
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0 + RANK))

    def forward(self, outputs, targets):
        return F.cross_entropy(outputs * self.scale, targets)


class Branching(nn.Module):
    def __init__(self, first=True):
        super().__init__()
        self.body, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.some, self.never = nn.Linear(8, 8), nn.Linear(8, 8)
        self.calls, self.first = 0, first

    def forward(self, x):
        hidden = self.body(x).relu()
        self.calls += self.training
        if (self.calls % 2 == 1) == self.first:
            hidden = hidden + self.some(hidden)
        return self.last(hidden)


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        if RANK == 1:
            raise ValueError("a bad sample")
        return self.net(x)


class Unpicklable(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def training_loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def forward(self, x):
        return lambda: self.net(x)


class Sees:
    def reset(self):
        self.seen = 0

    def update(self, outputs, targets):
        self.seen += len(outputs())

    def compute(self):
        return self.seen


class Drifts(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(RANK * 1e-3)
"""
CONFIG = """
data: {source: "mine:data", batch_size: 15}
model: "mine:net"
optimizer: sgd
learning_rate: 0.1
train: {epochs: 1}
runtime: {device: cpu, timeout: 20}
"""


@pytest.fixture
def ranks(launch, write):
    """Run a command on two ranks; return what became of them."""

    def run(*arguments, command="train"):
        write("mine.py", MINE)
        write("a.yaml", CONFIG)
        more = ("--output", "run") if command == "train" else ()
        return [each.wait() for each in launch(2, command, "a.yaml", *more, *arguments)]

    return run


def refused(ended):
    """The words of an error that one rank alone has said."""
    assert [each.returncode for each in ended] == [2, 2], ended
    said = [each.stderr for each in ended if each.stderr]
    assert len(said) == 1, ended
    assert "Traceback" not in said[0]
    return said[0]


DRAW = "draw what is random from torch's generators"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("drawn", "the parameter 3.bias starts with other values on rank 1 than on rank 0"),
        ("wider", "0.weight has shape (8, 4) on rank 0 and (9, 4) on rank 1"),
        ("extra", "rank 1 alone has the parameter or buffer more, unlike rank 0"),
    ],
)
def test_a_model_that_starts_otherwise_on_one_rank(ranks, name, words):
    said = refused(ranks("--set", f"model=mine:{name}"))
    assert f"model: {words}: {DRAW}" in said


def test_a_loss_that_starts_otherwise_on_one_rank(ranks):
    said = refused(ranks("--set", "loss=mine:Own", command="find"))
    assert "loss: the parameter loss.scale starts with other values on rank 1" in said


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [("model", "data_dependent", "1.scale"), ("optimizer", "Drifts", "0.weight")],
)
def test_an_update_that_leaves_the_ranks_apart(ranks, key, value, name):
    said = refused(ranks("--set", f"{key}=mine:{value}"))
    words = f"after an update the parameter {name} has other values on rank 1 than on rank 0"
    assert f"model: {words}" in said


def test_a_failure_of_one_rank_is_said_by_it(ranks):
    said = refused(ranks("--set", "model=mine:Fails"))
    assert said.startswith("lrtool: error: rank 1: the model mine:Fails failed on a batch")
    assert "a bad sample" in said


def test_buffers_of_a_ranks_own_are_warned_of_and_follow_rank_0(ranks):
    ended = ranks("--set", "model=mine:running", "--set", "metrics=[accuracy]")
    assert [each.returncode for each in ended] == [0, 0], ended
    words = "the buffer 1.mean of mine:running changes with what a rank sees of a batch"
    assert ended[0].stderr.count(words) == 1
    assert not ended[1].stderr


def test_batch_norm_needs_no_warning_where_a_rank_has_one_sample(ranks):
    ended = ranks("--set", "model=mine:normal", "--set", "data.batch_size=29")  # 29, 29 and 2
    assert [each.returncode for each in ended] == [0, 0], ended
    assert "warning" not in ended[0].stderr


def test_batch_norm_of_one_sample_over_all_ranks_is_refused(ranks):
    said = refused(ranks("--set", "model=mine:normal", "--set", "data.batch_size=59"))
    assert "60 training samples in batches of 59 leave one sample alone" in said
    assert "Expected more than 1 value per channel when training" in said


def test_outputs_that_cannot_be_sent_to_a_metric_of_all_ranks(ranks):
    said = refused(
        ranks(
            "--set", "model=mine:Unpicklable", "--set", "loss=own", "--set", "metrics=[mine:Sees]"
        )
    )
    assert "outputs or targets cannot be sent to the other ranks" in said


def test_parameters_of_some_steps_are_looked_for(ranks, tmp_path):
    """Those that took no part in the first update are; here they come in the second."""
    model = "model={name: 'mine:Branching', args: {first: false}}"
    ended = ranks("--set", model)
    assert [each.returncode for each in ended] == [0, 0], ended
    words = "the parameter some.weight and 3 others take no part in the loss of the first batch"
    assert words in ended[0].stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["config"]["runtime"]["static_graph"] is False


def test_parameters_that_drop_out_of_a_step_are_an_error_that_names_the_key(ranks):
    ended = ranks("--set", "model=mine:Branching", "--set", "runtime.static_graph=true")
    said = refused(ended)
    assert "runtime.static_graph: some parameters, such as some.weight, take part in" in said
    ended = ranks("--overwrite", "--set", "model=mine:Branching")
    assert [each.returncode for each in ended] == [0, 0], ended
