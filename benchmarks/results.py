"""Run `lrtool train CONFIG --lr auto` with several seeds, and a plain loop at the same rate.

    python -m benchmarks.results configs/digits.yaml --seeds 3

Each seed decides weights, data order and, where a fraction is held out, the split; each finds a
rate of its own. The plain loop is that of `try_rate.py`: torch's own schedule, not lrtool's engine.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.try_rate import report_of, train
from lrtool.experiment.experiment import open_experiment, training_steps
from lrtool.experiment.reading import read_config


def plain(config: Path, seed: int, lr: float, sets: list[str]) -> tuple[float, float]:
    """Return validation loss and accuracy of a plain loop at the same rate, on the same split."""
    task = open_experiment(*read_config(config, [*sets, f"seed={seed}"]))
    steps = training_steps(task)
    assert steps is not None
    _, loss, accuracy = train(task, lr, seed, steps)
    return loss, accuracy


def spell(values: list[float]) -> str:
    """Return mean ± standard deviation."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f} ± {spread:.4f}"


def main() -> None:
    """Print a line for each seed, then the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    options = parser.parse_args()
    print(f"{options.config}: {platform.machine()}, {torch.get_num_threads()} threads,", end=" ")
    print(f"torch {torch.__version__}; n = {options.seeds} seeds, mean ± standard deviation")
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        started = time.perf_counter()
        report = report_of(
            "train", options.config, options.sets, "--lr", "auto", "--seed", str(seed)
        )
        lr, last = report["learning_rate"]["value"], report["epochs"][-1]
        own = {name: value for name, value in last.items() if name not in {"epoch", "step", "lr"}}
        loss, accuracy = plain(options.config, seed, lr, options.sets)
        values = {**own, "plain loop: validation_loss": loss, "plain loop: accuracy": accuracy}
        for name, value in values.items():
            if np.isfinite(value):
                found.setdefault(name, []).append(value)
        elapsed = time.perf_counter() - started
        print(f"  seed {seed}: rate {lr:.2g}, {elapsed:.0f} s: ", end="")
        print(", ".join(f"{name} {value:.4f}" for name, value in values.items()), flush=True)
    for name, numbers in found.items():
        print(f"  {name:28} {spell(numbers)}")


if __name__ == "__main__":
    main()
