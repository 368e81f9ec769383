"""A model divided among the ranks of a launch trains as in one process."""

import json
import shutil

import pytest
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp  # once here, rather than in each fork
from safetensors.torch import load_file
from small import rows

TRAINING = """
data: {source: digits, batch_size: 96, validation: 250}
model: {name: mlp, args: {hidden: [33, 17]}}
metrics: [accuracy]
optimizer: {name: adamw, args: {weight_decay: 0.01}}
learning_rate: 0.003
train: {max_steps: 12, accumulate: 2, gradient_clip_norm: 0.5, ema_decay: 0.9}
runtime: {device: cpu, threads: 1}
"""
SHARDED = ("--set", "runtime.shard=true")


def steps_and_end(run):
    """All rows but those of epochs before the last: a shorter training has evaluated at its end."""
    return [row for row in rows(run)[:-1] if row["kind"] == "step"] + rows(run)[-1:]


def same(one, other, within):
    """Compare all numbers of all rows."""
    assert len(one) == len(other)
    for row, row_of_other in zip(one, other, strict=True):
        assert row.keys() == row_of_other.keys()
        for key, value in row.items():
            close = pytest.approx(value, rel=within) if isinstance(value, float) else value
            assert row_of_other[key] == close, key


def ended(children, code=0):
    done = [child.wait(120) for child in children]
    assert [each.returncode for each in done] == [code] * len(done), done[0].stderr
    return done


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_sharded_training_has_the_losses_of_one_process(ranks, here, launch, write, tmp_path):
    write("one.yaml", TRAINING)
    assert here("train", "one.yaml", "--output", "one", "--quiet").returncode == 0
    ended(launch(ranks, "train", "one.yaml", *SHARDED, "--output", "sharded", "--quiet"))
    same(rows(tmp_path / "one"), rows(tmp_path / "sharded"), 1e-5)
    last = tmp_path / "sharded/checkpoints/last"
    assert len(list(last.glob("shard-*"))) == ranks
    assert not (last / "model.safetensors").exists()

    # What the ranks have written is read by one process.
    weights = [load_file(tmp_path / run / "model.safetensors") for run in ("one", "sharded")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-6), name
    for checkpoint in ("best", "last"):
        judged = [
            json.loads(here("evaluate", run, "--checkpoint", checkpoint).stdout)
            for run in ("one", "sharded")
        ]
        assert judged[0].pop("run") != judged[1].pop("run")
        assert judged[0] == pytest.approx(judged[1])


@pytest.mark.usefixtures("no_plots")
def test_a_sharded_training_is_resumed(here, launch, write, tmp_path):
    write("one.yaml", TRAINING)
    sharded = ("train", "one.yaml", *SHARDED, "--quiet")
    ended(launch(2, *sharded, "--output", "whole"))
    ended(launch(2, *sharded, "--output", "half", "--set", "train.max_steps=7"))
    for name in ("by one", "by four"):
        shutil.copytree(tmp_path / "half", tmp_path / name)

    # As many ranks go on to the last bit.
    ended(launch(2, *sharded, "--resume", "half"))
    assert steps_and_end(tmp_path / "half") == steps_and_end(tmp_path / "whole")
    weights = [tmp_path / run / "model.safetensors" for run in ("whole", "half")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    # So does another number of them, but for rounding; one has nothing to share.
    done = ended(launch(4, *sharded, "--resume", "by four"))
    assert "was trained by 2 ranks so far, and now by 4" in done[0].stderr
    same(steps_and_end(tmp_path / "whole"), steps_and_end(tmp_path / "by four"), 1e-5)
    alone = here(*sharded, "--resume", "by one")
    assert "runtime.shard is ignored: one process has nobody to share the model" in alone.stderr
    same(steps_and_end(tmp_path / "whole"), steps_and_end(tmp_path / "by one"), 1e-5)
    assert (tmp_path / "by one/checkpoints/last/model.safetensors").exists()


@pytest.mark.usefixtures("no_plots")
def test_a_sharded_training_that_was_to_replace_another_goes_on(launch, write, tmp_path):
    write(
        "own.py",
        """
from pathlib import Path

import torch
from torch import nn


class Failing(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += self.training
        if self.calls > 5 and Path("failing").exists():
            raise RuntimeError("no luck")
        return super().forward(inputs)


def data():
    torch.manual_seed(0)
    return torch.randn(40, 4), torch.randint(2, (40,))
""",
    )
    write(
        "one.yaml",
        """
data: {source: "own:data", batch_size: 8}
model: "own:Failing"
learning_rate: 0.01
train: {max_steps: 8, checkpoint_every: 4}
runtime: {device: cpu, threads: 1, shard: true}
""",
    )
    training = ("train", "one.yaml", "--quiet")
    ended(launch(2, *training, "--output", "run"))
    write("failing", "")
    ended(launch(2, *training, "--output", "run", "--overwrite"), code=2)
    assert len(list((tmp_path / "run/.new/checkpoints/last").glob("shard-*"))) == 2
    (tmp_path / "failing").unlink()
    done = ended(launch(2, *training, "--resume", "run"))
    assert "goes on with run, after 4 steps" in done[0].stderr
    assert not (tmp_path / "run/.new").exists()


@pytest.mark.usefixtures("no_plots")
def test_ranks_divide_what_one_process_has_trained(here, launch, write, tmp_path):
    write("one.yaml", TRAINING)
    plain = ("train", "one.yaml", "--quiet")
    assert here(*plain, "--output", "whole").returncode == 0
    assert here(*plain, "--output", "run", "--set", "train.max_steps=7").returncode == 0
    done = ended(launch(2, *plain, *SHARDED, "--resume", "run"))
    assert "was trained by 1 rank so far, and now by 2" in done[0].stderr
    same(steps_and_end(tmp_path / "whole"), steps_and_end(tmp_path / "run"), 1e-5)
    assert list((tmp_path / "run/checkpoints/last").glob("shard-*"))


@pytest.mark.usefixtures("no_plots")
def test_a_search_over_a_sharded_model_finds_the_same(here, launch, write, tmp_path):
    write("one.yaml", TRAINING)
    assert here("find", "one.yaml", "--output", "one", "--quiet").returncode == 0
    ended(launch(2, "find", "one.yaml", *SHARDED, "--output", "sharded", "--quiet"))
    one, sharded = (
        [row for row in rows(tmp_path / run) if row["kind"] == "sweep"]
        for run in ("one", "sharded")
    )
    same(one, sharded, 1e-4)
    reports = [
        json.loads((tmp_path / run / "report.json").read_text()) for run in ("one", "sharded")
    ]
    pairs = list(zip(*(report["trials"]["candidates"] for report in reports), strict=True))
    assert len(pairs) >= 2
    for one, other in pairs:
        assert other["lr"] == pytest.approx(one["lr"], rel=1e-4)
        assert other["loss"][:3] == pytest.approx(one["loss"][:3], rel=1e-4)
    for key in ("lr", "low", "high"):
        one, other = (report["suggestion"][key] for report in reports)
        assert other == pytest.approx(one, rel=0.05)  # at a trial's rate roundings grow


def test_what_does_not_go_with_shards_is_said_at_once(here, write):
    write(
        "bad.yaml",
        """
        optimizer: muon
        runtime:
          shard: [blocks, '(']
          precision: fp16
          compile: true
          memory_format: channels_last
        """,
    )
    done = here("check", "bad.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "bad.yaml:2:20: optimizer.name: muon needs whole tensors; with runtime.shard use one of "
        "adadelta, adagrad, adam, adamax, adamw, asgd, nadam, radam, rmsprop, sgd\n"
        "bad.yaml:4:27: runtime.shard.1: '(' is not a regular expression: missing ), unterminated "
        "subpattern at position 0\n"
        "bad.yaml:5:22: runtime.precision: fp16 does not go with runtime.shard; use bf16\n"
        "bad.yaml:6:20: runtime.compile: true does not go with runtime.shard; remove one\n"
        "bad.yaml:7:26: runtime.memory_format: channels_last does not go with runtime.shard, whose "
        "tensors are contiguous\n"
    )
    write("bad.yaml", "runtime: {shard: blocks}")
    words = "must be true, false or a list of regular expressions"
    assert words in here("check", "bad.yaml").stderr


def test_a_loss_with_parameters_is_refused(launch, write):
    write(
        "own.py",
        """
from torch import nn, ones


class Scaled(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(ones(1))
""",
    )
    write("one.yaml", f"{TRAINING}\nloss: 'own:Scaled'")
    done = ended(launch(2, "train", "one.yaml", *SHARDED), code=2)
    assert "own:Scaled has parameters of its own, which do not go with runtime.shard" in (
        done[0].stderr
    )


def test_an_optimizer_that_does_not_reach_the_shards_is_refused(launch, write):
    write(
        "own.py",
        """
from torch import optim


class Replaces(optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad
""",
    )
    write("one.yaml", TRAINING)
    optimizer = ("--set", "optimizer={name: 'own:Replaces'}")
    done = ended(launch(2, "train", "one.yaml", *SHARDED, *optimizer), code=2)
    assert "own:Replaces does not change the parameters of a sharded model" in done[0].stderr
