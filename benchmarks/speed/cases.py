"""What is measured: models, and random data that are the same for every contender."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lrtool.config import document
from lrtool.experiment.experiment import open_experiment
from lrtool.experiment.preflight import run_preflight
from lrtool.experiment.reading import read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lrtool.experiment.experiment import Experiment

STEPS = 200  # of a sweep, and of an epoch


@dataclass(frozen=True)
class Case:
    """A model and the data it trains on.

    Attributes:
        model: builds it; a function of this file, which a configuration names by import path.
        shape: of a sample.
        samples: of a sweep.
        steps: of a sweep, and of an epoch.
    """

    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Name the case after its model."""
        return self.model.__name__

    def data(self, samples: int) -> tuple[Tensor, Tensor]:
        """Return inputs and class indices."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(samples, *self.shape, generator=generator)
        return inputs, torch.randint(10, (samples,), generator=generator)


def mlp() -> nn.Module:
    """Return the 64-128-128-10 network."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def cnn() -> nn.Module:
    """Return two convolutions of 16 and 32 channels with batch norm, for 1 × 28 × 28."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


def wide() -> nn.Module:
    """Return a network of 33 million parameters, 134 MB, to see copies of it."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(2048, 2048), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, 2048), *layers, nn.Linear(2048, 10))


CASES = (Case(mlp, (64,), 1437), Case(cnn, (1, 28, 28), 6400))
WIDE = Case(wide, (64,), 640, steps=8)


@contextmanager
def opened(
    case: Case, samples: int, batch: int, **settings: Any
) -> Iterator[tuple[Experiment, Path]]:
    """Open a configuration as the command line does: the experiment, and a directory."""
    inputs, targets = case.data(samples)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "data.npz", x=inputs.numpy(), y=targets.numpy())
        config = {
            "data": {
                "source": "npz",
                "args": {"path": "data.npz"},
                "batch_size": batch,
                "validation": 0,
            },
            "model": {"name": f"benchmarks.speed.cases:{case.name}"},
            "optimizer": "adam",
            "runtime": {"device": "cpu"},
            **settings,
        }
        (folder / "speed.yaml").write_text(document.dump(config))
        experiment = open_experiment(*read_config(folder / "speed.yaml"))
        experiment, _ = run_preflight(experiment)
        yield experiment, folder
