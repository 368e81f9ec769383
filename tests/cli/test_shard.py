"""A model divided among the ranks of a launch trains as in one process."""

import json

import pytest
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp  # once here, rather than in each fork
from safetensors.torch import load_file

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


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
