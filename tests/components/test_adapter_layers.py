"""Adapters by PEFT: what is trained, what stays as it is, and what is said of arguments."""

import sys

import pytest
import torch
from torch import nn

from lrtool.components.adapters import add_adapter, freeze_replaced, problems
from lrtool.components.layers import layers_of
from lrtool.config.schema import ComponentConfig
from lrtool.errors import ConfigError, LrtoolWarning

THERE = "the model has body.0 (Linear), body.1 (BatchNorm1d), body.3 (Linear), head (Linear)"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


def adapted(name="lora", model=None, directories=(), **args):
    model = model or Net()
    add_adapter(model, ComponentConfig(name=name, args=args), directories)
    return model


def error(name="lora", directories=(), **args):
    with pytest.raises(ConfigError) as caught:
        adapted(name, directories=directories, **args)
    [problem] = caught.value.problems
    return problem.path, problem.message


@pytest.fixture
def peft():
    return pytest.importorskip("peft")


@pytest.mark.usefixtures("peft")
def test_lora_changes_nothing_at_its_start_and_trains_its_own_weights():
    torch.manual_seed(0)
    model = Net().eval()
    x = torch.randn(5, 4)
    before = model(x)
    assert adapted(model=model, r=2, target_modules=["body.0", "3"]) is model
    assert type(model) is Net
    assert torch.equal(model(x), before)  # B = 0
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        "body.0.lora_A.default.weight": (2, 4),
        "body.0.lora_B.default.weight": (8, 2),
        "body.3.lora_A.default.weight": (2, 8),
        "body.3.lora_B.default.weight": (8, 2),
    }
    assert not model.body[0].lora_B.default.weight.any()
    assert len(layers_of(model)) == 3


@pytest.mark.usefixtures("peft")
def test_a_head_is_trained_as_a_copy():
    model = adapted(target_modules=["body.0"], modules_to_save=["head"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora" not in name} == {
        "head.modules_to_save.default.weight",
        "head.modules_to_save.default.bias",
    }
    assert not model.head.original_module.weight.requires_grad


def test_what_a_copy_has_replaced_is_frozen_unless_it_is_used_elsewhere():
    # As PEFT wraps what `modules_to_save` names.
    head = nn.ModuleDict({"original_module": nn.Linear(4, 3), "modules_to_save": nn.Linear(4, 3)})
    model = nn.ModuleDict({"embed": nn.Embedding(3, 4), "head": head})
    model["embed"].weight = head["original_module"].weight
    freeze_replaced(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "embed.weight",
        "head.modules_to_save.weight",
        "head.modules_to_save.bias",
    }


@pytest.mark.usefixtures("peft")
def test_other_adapters_and_the_users_own_configurations(module, tmp_path):
    trained = [
        n for n, p in adapted("loha", target_modules=["3"]).named_parameters() if p.requires_grad
    ]
    assert all(name.startswith("body.3.hada") for name in trained)
    name = module("from peft import LoraConfig\ndef small(**a): return LoraConfig(r=1, **a)\n")
    model = adapted(f"{name}:small", directories=[tmp_path], target_modules=["3"])
    assert model.body[3].lora_A.default.weight.shape == (1, 8)


@pytest.mark.usefixtures("peft")
def test_modules_that_are_not_there():
    path, words = error(target_modules=["query"])
    assert path == ("model", "peft")
    assert words.startswith("lora cannot be put into the model: Target modules {'query'} not found")
    assert words.endswith(THERE)
    for key, args in (
        ("target_modules", {"target_modules": ["3", "query"]}),
        ("modules_to_save", {"target_modules": ["3"], "modules_to_save": ["query"]}),
    ):
        with pytest.warns(LrtoolWarning) as caught:
            adapted(**args)
        assert str(caught[0].message) == f"model.peft: 'query' in {key} is ignored; {THERE}"


@pytest.mark.usefixtures("peft")
def test_arguments_that_do_not_fit(module, tmp_path):
    path, words = error(target_modules=["body.1"])
    assert (path, words[:60]) == (
        ("model", "peft"),
        "lora cannot be put into the model: Target module BatchNorm1d"[:60],
    )
    path, words = error(target_modules=["3"], inference_mode=True)
    assert (path, words) == (("model", "peft", "args"), f"lora adds nothing to train; {THERE}")
    path, words = error("adalora", target_modules=["3"], total_step=10)
    assert path == ("model", "peft", "name")
    assert words == "adalora needs calls of update_and_allocate, which lrtool's loop does not make"
    name = module("def other(**a): return a\n")
    path, words = error(f"{name}:other", directories=[tmp_path])
    assert path == ("model", "peft", "name")
    assert words == f"{name}:other made a dict, not a configuration of PEFT"


@pytest.mark.usefixtures("peft")
def test_what_a_check_says():
    def said(name, args=None):
        spec = ComponentConfig(name=name, args=args or {})
        return [(problem.path, problem.message) for problem in problems(spec, [])]

    assert said("lora", {"r": 4, "target_modules": ["a"]}) == []
    [(path, words)] = said("lora", {"target_moduls": ["a"]})
    assert path == ("model", "peft", "args", "target_moduls")
    assert words == "unknown argument (did you mean 'target_modules'?)"
    [(path, words)] = said("lorra")
    assert path == ("model", "peft", "name")
    assert words == "PEFT has no adapter called 'lorra' (did you mean 'lora'?)"
    [(path, words)] = said("no_such_module:config")
    assert words.startswith("no module named 'no_such_module'")
    [(path, words)] = said("math:pi")
    assert words == "'math:pi' is a float; it cannot be called"


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    [problem] = problems(ComponentConfig(name="lora"), [])
    assert problem.path == ("model", "peft")
    assert problem.message == "PEFT is not installed: pip install 'lrtool[peft]'"
