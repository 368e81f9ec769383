"""Two GPUs train as one does; where there are two."""

import subprocess
import sys

import pytest
import torch

from lrtool.report import report as reports

RANKS = 2

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < RANKS, reason="needs two GPUs")

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 8)),
            nn.Conv1d(1, 8, 3, bias=False),
            nn.BatchNorm1d(8),
            nn.Flatten(),
            nn.Tanh(),
            nn.Linear(48, 10),
        )

    def forward(self, inputs):
        return super().forward(inputs.reshape(len(inputs), -1)[:, 16:24])
"""
CONFIG = """
data: {source: digits, batch_size: 64, validation: 0.2}
model: "net:Net"
metrics: [accuracy]
optimizer: adamw
learning_rate: 0.01
train: {epochs: 2, gradient_clip_norm: 1.0, accumulate: 2}
find: {start: 1e-4, end: 1, steps: 40, verify: true}
"""
COMMANDS = {
    "batch norm": (),
    "shards": ("--set", "runtime.shard=true", "--set", "model=mlp"),
    "scaler": ("--set", "runtime.precision=fp16"),
}


def run(tmp_path, ranks, output, *arguments):
    start = ["torch.distributed.run", "--nproc-per-node", ranks, "-m", "lrtool"]
    command = [sys.executable, "-m", *(start if ranks > 1 else ["lrtool"]), *arguments]
    command += ["--device", "cuda", "--output", output, "--quiet"]
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return reports.read(tmp_path / output / "report.json")


@pytest.mark.parametrize("name", COMMANDS)
def test_two_gpus_train_as_one(tmp_path, write, name):
    write("net.py", NET)
    write("a.yaml", CONFIG)
    one, two = (
        run(tmp_path, ranks, f"of {ranks}", "train", "a.yaml", *COMMANDS[name])
        for ranks in (1, RANKS)
    )
    assert (two.environment.world_size, two.environment.backend) == (RANKS, "nccl")
    tolerance = 1e-3 if name != "scaler" else 1e-2
    for own, other in zip(one.epochs, two.epochs, strict=True):
        assert other.train_loss == pytest.approx(own.train_loss, rel=tolerance)
        assert other.validation_loss == pytest.approx(own.validation_loss, rel=tolerance)


def test_two_gpus_search_side_by_side(tmp_path, write):
    write("net.py", NET)
    write("a.yaml", CONFIG)
    one, two = (
        run(tmp_path, ranks, f"of {ranks}", "find", "a.yaml", "--set", "model=mlp")
        for ranks in (1, RANKS)
    )
    assert two.suggestion.lr == pytest.approx(one.suggestion.lr, rel=1e-2)
