"""The random states of a process, from which dropout, augmentation and shuffling draw."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

RandomStates = dict[str, Any]


def random_states(generators: Sequence[torch.Generator] = ()) -> RandomStates:
    """Return the states of Python, NumPy, torch, its devices, and `generators`.

    They are plain numbers and tensors, which `torch.load` reads with `weights_only=True`.
    """
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (the global state is what users' code draws from)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.array(keys)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "generators": [generator.get_state() for generator in generators],
    }


def restore_random_states(states: RandomStates, generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what `random_states` returned, for the same generators."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy(), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if states["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
    for generator, state in zip(generators, states["generators"], strict=True):
        generator.set_state(state)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' code draws from the global state)
    torch.manual_seed(seed)
