"""A small training that draws random numbers wherever one can be drawn."""

import json
import os
import signal

NET = """
import random
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

class Noisy(Dataset):
    classes = [0, 1]
    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 4, generator=generator)
        self.y = (self.x.sum(1) > 0).long()
    def __len__(self):
        return len(self.x)
    def __getitem__(self, index):
        noise = 0.1 * torch.randn(4) + 0.1 * np.random.randn() + random.gauss(0, 0.1)
        return (self.x[index] + noise).float(), self.y[index]

def data(n=60):
    return Noisy(n, 0), Noisy(20, 1)

def model():
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
    )
"""

CONFIG = """
seed: 3
data: {source: "net:data", batch_size: 8}
model: "net:model"
metrics: [accuracy]
learning_rate: 0.01
train:
  epochs: 3
  accumulate: 3
  ema_decay: 0.9
  checkpoint_every: 2
  schedule: {name: plateau, warmup: 2, args: {patience: 0, factor: 0.5}}
  early_stopping: {patience: 10}
find: {start: 1e-4, end: 10, steps: 60, repeats: 1}
runtime: {device: cpu}
"""

FILES = ("model.safetensors", "metrics.jsonl", "checkpoints/best/model.safetensors")


def contents(run):
    """The bytes that must not depend on how often a run was begun."""
    return {name: (run / name).read_bytes() for name in FILES}


def rows(run):
    """The rows of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def to_itself(number):
    os.kill(os.getpid(), number)


def at_call(number, owner, name, *, send=signal.SIGKILL, how=to_itself):
    """Let the process send itself a signal at the given call of a function."""

    def prepare():
        function, calls = getattr(owner, name), 0

        def counting(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == number:
                how(send)
            return function(*arguments, **named)

        setattr(owner, name, counting)

    return prepare
