"""Losses that torch lacks, or spells otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def sequence_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all places: outputs (B, T, V), targets (B, T)."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def gaussian_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood; outputs (B, 2) are the mean and the logarithm of the variance."""
    mean, log_variance = outputs[:, :1], outputs[:, 1:].clamp(-8, 8)
    return 0.5 * (log_variance + (targets - mean) ** 2 / log_variance.exp()).mean()


def poisson_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of counts whose log rate is the output."""
    return F.poisson_nll_loss(outputs.clamp(max=20), targets)


def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean log cosh of the errors: squares near 0, absolute values far away."""
    errors = (outputs - targets).abs()
    return (errors + F.softplus(-2 * errors)).mean() - math.log(2)


def minus_reward(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return minus the mean reward of an action drawn by the outputs' softmax.

    Outputs and targets are (B, actions), the targets what each action is estimated to give: its
    gradient is that of policy gradients.
    """
    return -(outputs.softmax(1) * targets).sum(1).mean()
