"""How much faster several ranks train, and what torchrun costs one: a CNN, batch 256.

    python -m benchmarks.ranks                          # GPUs if there are any, else the cores
    python -m benchmarks.ranks --rounds 9 --json ranks.json

Each contender is `lrtool train` as a user starts it, by itself or under torchrun. A round runs
every contender once, in turn; the table gives medians over rounds, and ratios taken within a round,
for machines are noisy. Steps per second are those of the report: the loop alone, without set-up.
The batch is 256 over all ranks, so all contenders compute the same losses, to rounding; the last
column shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrtool
from lrtool.config import document

BATCH = 256
STEPS_PER_EPOCH = 25
OVERHEAD_TARGET = 1.02  # of a plain run's steps per second over those of one rank under torchrun
PLAIN = "plain run"


@dataclass(frozen=True)
class Contender:
    """A way to start the training.

    Attributes:
        ranks: under torchrun; None: without it.
        threads: of each rank, on the CPU.
    """

    ranks: int | None
    threads: int

    @property
    def name(self) -> str:
        """Name the contender by what differs."""
        how = (
            PLAIN if self.ranks is None else f"torchrun, {self.ranks} rank" + "s" * (self.ranks > 1)
        )
        return f"{how}, {self.threads} thread" + "s" * (self.threads > 1)

    def command(self) -> list[str]:
        """Return how a user starts it."""
        launcher = []
        if self.ranks is not None:
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks)]
        return [sys.executable, *launcher, "-m", "lrtool", "train", "ranks.yaml"]


def contenders(device: str) -> list[Contender]:
    """Return what is compared: a plain run, one rank, then 2, 4, … up to all GPUs or cores."""
    most = torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1
    several = [2**power for power in range(1, most.bit_length()) if 2**power < most]
    several += [most] if most > 1 else []
    threads = 1 if device == "cuda" else most
    alone = [Contender(None, threads), Contender(1, threads)]
    if threads > 1:
        alone.append(Contender(None, 1))
    return [*alone, *(Contender(ranks, max(threads // ranks, 1)) for ranks in several)]


def prepare(folder: Path, device: str, epochs: int) -> None:
    """Write random images, and the configuration that all contenders train with."""
    generator = np.random.default_rng(0)
    samples = BATCH * STEPS_PER_EPOCH
    inputs = generator.standard_normal((samples, 1, 28, 28), dtype=np.float32)
    np.savez(folder / "images.npz", x=inputs, y=generator.integers(10, size=samples))
    config = {
        "data": {
            "source": "npz",
            "args": {"path": "images.npz"},
            "batch_size": BATCH,
            "validation": 0,
        },
        "model": {"name": "cnn", "args": {"channels": [32, 64], "batch_norm": False}},
        "optimizer": "adam",
        "learning_rate": 0.001,
        "train": {"epochs": epochs, "checkpoint_every": 10**6},
        "runtime": {"device": device},
    }
    (folder / "ranks.yaml").write_text(document.dump(config))


def train(contender: Contender, folder: Path) -> tuple[float, float]:
    """Train once; return steps per second and the last epoch's training loss."""
    threads = str(contender.threads)
    flags = ["--output", "run", "--overwrite", "--json", "--set", f"runtime.threads={threads}"]
    done = subprocess.run(
        [*contender.command(), *flags],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": threads},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["environment"]["world_size"] == (contender.ranks or 1)
    return report["timing"]["steps_per_s"], report["epochs"][-1]["train_loss"]


def measure(
    compared: list[Contender], rounds: int, folder: Path
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return steps per second of each contender, one for each round, and its loss."""
    rates: dict[str, list[float]] = {contender.name: [] for contender in compared}
    losses = {}
    for number in range(rounds):
        for contender in compared:
            rate, losses[contender.name] = train(contender, folder)
            rates[contender.name].append(rate)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
    return rates, losses


def ratios(rates: dict[str, list[float]], name: str, base: str) -> list[float]:
    """Return a contender's steps per second over another's, one for each round."""
    return [own / other for own, other in zip(rates[name], rates[base], strict=True)]


def spread(values: list[float]) -> str:
    """Return the median, the lowest and the highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})"


def machine(device: str) -> dict[str, Any]:
    """Describe the machine and what runs on it."""
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": gpus if device == "cuda" else [],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lrtool": lrtool.__version__,
    }


def main() -> None:
    """Measure, print a table, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help=f"of {STEPS_PER_EPOCH} steps each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where, compared = machine(device), contenders(device)
    print(", ".join(f"{name} {value}" for name, value in where.items() if value))
    steps = options.epochs * STEPS_PER_EPOCH
    print(f"n = {options.rounds} rounds, {steps} steps each, CNN, batch {BATCH} over all ranks\n")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), device, options.epochs)
        rates, losses = measure(compared, options.rounds, Path(folder))

    plain, one_rank = compared[0].name, compared[1].name
    print(f"{'':30} {'steps a second':>26} {'over the first':>22} {'train_loss':>11}")
    for name, own in rates.items():
        print(f"{name:30} {spread(own):>26} {spread(ratios(rates, name, plain)):>22}", end="")
        print(f" {losses[name]:11.6f}")
    overheads = ratios(rates, plain, one_rank)
    met = statistics.median(overheads) <= OVERHEAD_TARGET
    print(
        f"one rank under torchrun: {spread(overheads)} of a plain run's time, "
        f"wanted ≤ {OVERHEAD_TARGET:.2f}: {'yes' if met else 'NO'}"
    )
    if options.json:
        results = {"machine": where, "steps": steps, "steps_per_s": rates, "train_loss": losses}
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
