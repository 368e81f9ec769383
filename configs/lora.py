"""Digits that lie on their side: few samples of a new task, for lora.yaml."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

Samples = tuple[Tensor, Tensor]


def lying_digits(samples: int) -> tuple[Samples, Samples]:
    """Return (train, validation): digits turned by a quarter, (N, 1, 8, 8), and their classes."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    inputs, targets = inputs.rot90(1, dims=(2, 3)), torch.tensor(labels)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    train, validation = order[:samples], order[samples:]
    return (inputs[train], targets[train]), (inputs[validation], targets[validation])
