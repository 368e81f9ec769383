"""Sweeps with known landmarks: plateau, descent, valley, divergence, in log10 of the rate."""

import numpy as np

from lrtool.curve.stopping import find_stop
from lrtool.report.records import Sweep

INITIAL, LOWEST = 2.3, 0.8


def loss_at(log_lr, *, descent=-3.0, divergence=-0.5):
    """The loss that an update at this rate leads to, without noise."""
    fallen = 1 / (1 + np.exp(-(log_lr - descent) / 0.25))
    risen = np.exp(np.clip((log_lr - divergence) / 0.12, -50, 12))
    return INITIAL - (INITIAL - LOWEST) * fallen + (INITIAL - LOWEST) * risen


def rates(start=1e-7, end=10.0, steps=200):
    return start * (end / start) ** (np.arange(steps) / (steps - 1))


def sweep(
    seed=0, *, noise=0.03, lr=None, curve=loss_at, scale=1.0, offset=0.0, stop=True, **places
):
    """One sweep with Gaussian noise; `loss[i + 1]` follows the update with `lr[i]`."""
    lr = rates() if lr is None else np.asarray(lr, dtype=float)
    clean = np.append(INITIAL, curve(np.log10(lr[:-1]), **places))
    loss = clean + noise * np.random.default_rng(seed).normal(size=lr.size)
    return recorded(lr, scale * loss + offset, seed=seed, stop=stop)


def recorded(lr, loss, *, seed=0, skipped=None, stop=True):
    """The record of these losses, ended where a sweep would have ended."""
    skipped = [False] * len(loss) if skipped is None else skipped
    found = find_stop(loss, skipped) if stop else None
    end, reason = (len(loss), "completed") if found is None else (found[0] + 1, found[1])
    return Sweep(
        seed=seed,
        lr=tuple(map(float, lr[:end])),
        loss=tuple(map(float, loss[:end])),
        skipped=tuple(index for index in range(end) if skipped[index]),
        stop_reason=reason,
    )
