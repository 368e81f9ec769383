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
    return {
        **_host_states(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "generators": [generator.get_state() for generator in generators],
    }


def restore_random_states(states: RandomStates, generators: Sequence[torch.Generator] = ()) -> None:
    """Put back what `random_states` returned, for the same generators."""
    _restore_host_states(states)
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if states["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
    for generator, state in zip(generators, states["generators"], strict=True):
        generator.set_state(state)


def _host_states() -> RandomStates:
    return {
        "python": random.getstate(),
        "numpy": _plain(np.random.get_state()),  # noqa: NPY002  (users' code draws from it)
        "torch": torch.get_rng_state(),
    }


def _plain(state: Any) -> tuple[Any, ...]:
    kind, keys, *rest = state
    signed = np.array(keys).view(np.int32)  # pickle reads no unsigned tensors back
    return (kind, torch.from_numpy(signed), *rest)


def _restore_host_states(states: RandomStates) -> None:
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().view(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])


class OwnRandomness:
    """A rank's own random states, from which a model draws inside a step, such as for dropout.

    All other states are the same on every rank, for all ranks see the data in the same order.
    Inside a `with` block the rank's own ones are in place; they go on in the next block.
    """

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        """Begin with states that no other seed or rank has, for a model on a device."""
        self._seeds = [seed, rank]
        self._device = device if device.type == "cuda" else None
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin anew with the states of a step, as where the number of ranks has changed."""
        sequence = np.random.SeedSequence([*self._seeds, step])
        python, numpy, host, own = sequence.generate_state(4)
        self._states: RandomStates = {
            "python": random.Random(int(python)).getstate(),  # noqa: S311  (no secret)
            "numpy": _plain(np.random.RandomState(numpy).get_state()),
            "torch": torch.Generator().manual_seed(int(host)).get_state(),
            "device": None,
        }
        if self._device is not None:
            generator = torch.Generator(self._device).manual_seed(int(own))
            self._states["device"] = generator.get_state()

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        """Put the kept states in place, and keep those that were there."""
        before = {**_host_states(), "device": None}
        if self._device is not None:
            before["device"] = torch.cuda.get_rng_state(self._device)
            torch.cuda.set_rng_state(self._states["device"], self._device)
        _restore_host_states(self._states)
        self._states = before

    def state_dict(self) -> RandomStates:
        """Return the states as plain numbers and tensors."""
        return self._states

    def load_state_dict(self, states: RandomStates) -> None:
        """Put back what `state_dict` returned; the device's, if it was of the same type."""
        device = states["device"] if self._device is not None else None
        self._states = {**states, "device": self._states["device"] if device is None else device}


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' code draws from the global state)
    torch.manual_seed(seed)
