"""Training with an adapter from the command line: its base stays, and a run is read back."""

import json

import pytest
import torch
from safetensors.torch import load_file

import lrtool

pytestmark = pytest.mark.usefixtures("no_plots")

BASE = """
data: {source: digits, batch_size: 300}
model: {name: mlp, args: {hidden: [16, 16], batch_norm: true}}
learning_rate: 0.01
train: {epochs: null, max_steps: 4}
"""
PEFT = "{name: lora, args: {r: 2, target_modules: ['1'], modules_to_save: ['7']}}"


@pytest.fixture
def base(here, write):
    """The weights of a trained network."""
    write("base.yaml", BASE)
    done = here("train", "base.yaml", "--output", "base")
    assert done.returncode == 0, done.stderr
    return load_file("base/model.safetensors")


@pytest.fixture
def lora(base, write):
    pytest.importorskip("peft")
    text = BASE.replace("model: {", f"model: {{checkpoint: base, peft: {PEFT}, ")
    write("lora.yaml", text.replace("max_steps: 4", "epochs: 3").replace("epochs: null, ", ""))
    return base


def test_the_base_stays_and_a_run_is_read_back(here, lora):
    done = here("train", "lora.yaml", "--json", "--output", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    after = load_file("out/model.safetensors")
    own = {name.replace(".base_layer", "").replace(".original_module", "") for name in after}
    assert set(lora) <= own
    for name, value in lora.items():
        module, _, key = name.rpartition(".")
        inner = {"1": "1.base_layer", "7": "7.original_module"}.get(module, module)
        assert torch.equal(after[f"{inner}.{key}"], value), name  # batch norm among them
    assert after["1.lora_B.default.weight"].any()
    assert not torch.equal(after["7.modules_to_save.default.weight"], lora["7.weight"])
    assert report["model"]["trained"] == ["1.lora_A", "1.lora_B", "7.modules_to_save"]
    evaluated = here("evaluate", "out", "--checkpoint", "last")
    assert evaluated.returncode == 0, evaluated.stderr
    last = report["epochs"][-1]["validation_loss"]
    assert json.loads(evaluated.stdout)["validation_loss"] == pytest.approx(last, rel=1e-6)
    outputs = lrtool.load("out", "last")(torch.zeros(2, 1, 8, 8))
    assert outputs.shape == (2, 10)


@pytest.mark.usefixtures("lora")
def test_a_training_of_an_adapter_resumes(here):
    assert here("train", "lora.yaml", "--output", "whole").returncode == 0
    short = ("--set", "train.epochs=2")
    assert here("train", "lora.yaml", "--output", "parts", *short).returncode == 0
    done = here("train", "lora.yaml", "--output", "parts", "--resume", "parts")
    assert done.returncode == 0, done.stderr
    whole, parts = (load_file(f"{run}/model.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.usefixtures("lora")
def test_train_only_says_what_of_the_whole_is_trained(here):
    kept = here("check", "lora.yaml", "--json", "--set", "model.train_only=['lora_B', '^4']")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["trained"] == ["1.lora_B", "4"]
    assert "had frozen" not in kept.stderr
    head = here("check", "lora.yaml", "--json", "--set", "model.train_only=['lora_', '^7']")
    assert head.returncode == 0, head.stderr
    assert json.loads(head.stdout)["trained"] == ["1.lora_A", "1.lora_B", "7.modules_to_save"]
    lost = here("check", "lora.yaml", "--set", "model.train_only=['^4']")
    assert lost.returncode == 2
    assert "model.train_only: freezes all that lora adds; match it too, as by 'lora_', or" in (
        " ".join(lost.stderr.split())
    )


@pytest.mark.usefixtures("lora")
def test_a_module_that_is_not_there_is_said_with_the_place(here):
    wrong = here("check", "lora.yaml", "--set", "model.peft.args.target_modules=['query']")
    assert wrong.returncode == 2
    words = " ".join(wrong.stderr.split())
    assert "lora.yaml:3:33: model.peft: lora cannot be put into the model: No modules " in words
    assert "the model has 1 (Linear), 2 (BatchNorm1d), " in words


def test_a_model_that_is_wrapped_by_its_own_factory(here, write):
    pytest.importorskip("peft")
    write(
        "wrapped.py",
        "from peft import LoraConfig, get_peft_model\n"
        "from torch import nn\n"
        "def net():\n"
        "    base = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))\n"
        "    lora = LoraConfig(r=2, target_modules=['1'], modules_to_save=['3'])\n"
        "    return get_peft_model(base, lora)\n",
    )
    model = "{name: mlp, args: {hidden: [16, 16], batch_norm: true}}"
    write("wrapped.yaml", BASE.replace(model, "wrapped:net"))
    done = here("train", "wrapped.yaml", "--json", "--output", "out")
    assert done.returncode == 0, done.stderr
    frozen = json.loads(done.stdout)["model"]["frozen"]
    assert frozen == ["base_model.model.1.base_layer", "base_model.model.3.original_module"]
    assert here("evaluate", "out").returncode == 0


def test_rates_by_depth_are_shown(here, write):
    write("depth.yaml", BASE + "optimizer: {name: adamw, layer_decay: 0.5}\n")
    shown = here("check", "depth.yaml")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "rates 1 × the base rate: 7 (170 parameters) 0.5 × the base rate: 4, 5 (" in words
    rates = json.loads(here("check", "depth.yaml", "--json").stdout)["rates"]
    assert [(rate["lr_ratio"], rate["parts"]) for rate in rates] == [
        (1.0, ["7"]),
        (0.5, ["4", "5"]),
        (0.25, ["1", "2"]),
    ]
    done = here("train", "depth.yaml", "--json", "--output", "out")
    assert json.loads(done.stdout)["model"]["rates"] == rates
    assert sum(rate["parameters"] for rate in rates) == 64 * 16 + 16 + 16 * 17 + 64 + 170


@pytest.mark.usefixtures("lora")
def test_a_rate_of_another_adapter_is_warned_of(here):
    assert here("train", "lora.yaml", "--quiet", "--output", "out").returncode == 0
    one = ("train", "lora.yaml", "--quiet", "--epochs", 1, "--set", "learning_rate=null")
    found = "lrtool: warning: --lr-from out: its rate was found for another setting: "
    wider = here(*one, "--lr-from", "out", "--output", "wider", "--set", "model.peft.args.r=8")
    assert (wider.returncode, wider.stderr) == (0, f"{found}model.peft.args.r was 2, is 8\n")
    whole = here(*one, "--lr-from", "out", "--output", "whole", "--set", "model.peft=null")
    assert whole.returncode == 0
    assert whole.stderr.startswith(f"{found}the frozen part was 1.base_layer, ")
    was = PEFT.replace("lora", "'lora'")
    assert whole.stderr.endswith(f"; model.peft was {was}, is null\n")
