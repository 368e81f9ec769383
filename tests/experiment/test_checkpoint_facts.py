"""Pretrained weights under a configuration: each start has them, and what is said of them."""

import pytest
import torch

from lrtool.errors import ConfigError
from lrtool.experiment.experiment import build

NET = """
class Net(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.head = nn.Linear(3, num_outputs)

    def forward(self, x):
        return self.head(self.body(x))

def data():
    return torch.randn(20, 2), torch.arange(20) % 2
"""
CONFIG = """
data: {source: "mine:data", validation: 4, batch_size: 5}
model: {name: "mine:Net"}
runtime: {device: cpu}
"""
CHECKPOINT = ("model.checkpoint=a.pt", "model.partial=true")


@pytest.fixture
def saved(tmp_path):
    """Write a state dict beside the configuration."""

    def saved(content):
        torch.save(content, tmp_path / "a.pt")
        return tmp_path / "a.pt"

    return saved


def weights():
    torch.manual_seed(9)
    body = {"0.weight": (3, 2), "0.bias": (3,), "1.weight": (3,), "1.bias": (3,)}
    body |= {"1.running_mean": (3,), "1.running_var": (3,), "2.weight": (3, 3), "2.bias": (3,)}
    return {f"body.{name}": torch.rand(shape) for name, shape in body.items()}


def test_each_start_has_them_and_fresh_parts_from_its_own_seed(opened, saved):
    given = weights()
    saved(given)
    tuned, plain = opened(NET, CONFIG, *CHECKPOINT), opened(NET, CONFIG)
    for seed in (0, 1):
        model, fresh = build(tuned, seed).model, build(plain, seed).model
        assert all(torch.equal(model.state_dict()[name], value) for name, value in given.items())
        assert torch.equal(model.head.weight, fresh.head.weight)
    assert not torch.equal(build(tuned, 0).model.head.weight, build(tuned, 1).model.head.weight)


def test_what_is_said_of_them(opened, saved):
    given = weights()
    double = torch.full((3,), 0.1, dtype=torch.float64)
    old = {"old.0.w": torch.ones(1), "old.1.w": torch.ones(1), "older": torch.ones(1)}
    path = saved({"model": {**given, **old, "body.2.bias": double, "head.bias": torch.ones(7)}})
    facts = build(opened(NET, CONFIG, *CHECKPOINT), 0).checkpoint
    assert facts.path == str(path)
    assert facts.loaded == 8
    assert facts.fresh == ("head.weight", "head.bias")
    assert facts.unused == ("old", "older")
    assert facts.notes == (
        "the weights are those under model in the file",
        "left at fresh values: head.weight, which the file lacks",
        "left at fresh values: head.bias, which is 2 here and 7 in the file",
        "not used: old (2 keys), which the model lacks",
        "not used: older, which the model lacks",
        "body.2.bias is rounded from float64 to float32, the model's type",
    )


def test_names_that_begin_otherwise_are_said(opened, saved):
    saved({f"module.{name}": value for name, value in weights().items()})
    facts = build(opened(NET, CONFIG, *CHECKPOINT), 0).checkpoint
    assert facts.notes == (
        "all its names begin with module., which is left out",
        "left at fresh values: head, which the file lacks",
    )
    saved({"n": torch.ones(1), **{f"module.{n[5:]}": value for n, value in weights().items()}})
    facts = build(opened(NET, CONFIG, *CHECKPOINT), 0).checkpoint
    assert facts.unused == ("n",)
    assert facts.notes == (
        "some names begin with module., which is left out",
        "its names are those of the model's body",
        "left at fresh values: head, which the file lacks",
        "not used: n, which the model lacks",
    )


def test_it_is_looked_for_beside_the_configuration_and_in_the_search_path(
    opened, saved, tmp_path, monkeypatch
):
    path = saved(weights())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert opened(NET, CONFIG, *CHECKPOINT).pretrained.path == path
    path = path.rename(tmp_path / "b/a.pt")
    found = opened(NET, CONFIG, *CHECKPOINT, f"search_path=['{tmp_path}/b']").pretrained.path
    assert found == path
    with pytest.raises(ConfigError, match=r"a\.pt: no such file \(looked in "):
        opened(NET, CONFIG, *CHECKPOINT)


def test_a_file_that_is_written_over_meanwhile_is_refused(opened, saved, tmp_path):
    path = saved(weights())
    experiment = opened(NET, CONFIG, *CHECKPOINT)
    path.rename(tmp_path / "moved.pt")
    build(experiment, 0)  # what was opened is still there
    (tmp_path / "moved.pt").rename(path)
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    words = r"a\.pt was written over while the run was under way; begin anew"
    with pytest.raises(ConfigError, match=words):
        build(experiment, 0)
