"""Each contender of the speed benchmark that needs no other package runs, on a tiny case."""

import pytest

from benchmarks.speed import checkpoint, sweep, training
from benchmarks.speed.__main__ import PACKAGES
from benchmarks.speed.cases import Case, mlp

TINY = Case(mlp, (64,), 256, steps=20)
SWEEPS = [name for name in sweep.CONTENDERS if name not in PACKAGES]
TRAININGS = [name for name in training.CONTENDERS if name not in PACKAGES]


def test_what_is_compared_with_the_peers_is_among_them():
    assert {"plain loop", "lrtool find", "lrtool.find_lr", "  with its trials"} < set(SWEEPS)
    assert {"plain loop", "lrtool train"} < set(TRAININGS)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep(name):
    assert sweep.CONTENDERS[name](TINY) > 0


@pytest.mark.parametrize("name", TRAININGS)
def test_epochs_of_a_training(name):
    seconds = training.CONTENDERS[name](TINY)
    assert len(seconds) == training.EPOCHS - 1  # the first one warms up
    assert min(seconds) > 0


def test_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WIDTH", 8)
    assert checkpoint.save_seconds(checkpoint.training(), tmp_path) > 0
    assert checkpoint.write_seconds(100, tmp_path) > 0
