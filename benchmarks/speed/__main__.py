"""How fast sweep and training are, beside a plain loop and the peers, alternating in one run.

    make bench                                            # in an environment with the peers
    python -m benchmarks.speed --rounds 9 --json speed.json

Each contender sweeps the same model over the same data with the same optimizer and batch size. A
round runs every contender once, in turn; the table gives medians over rounds, and ratios taken
within a round, for machines are noisy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import lrtool
from benchmarks.speed import sweep, training
from benchmarks.speed.cases import CASES, STEPS, WIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.speed.cases import Case

ROOT = Path(__file__).parents[2]
SWEEP_TARGETS = {  # over torch-lr-finder
    "mlp": {"lrtool find": 0.62, "lrtool.find_lr": 0.85},
    "cnn": {"lrtool find": 0.80, "lrtool.find_lr": 1.00},
}
EPOCH_TARGET = 1.02  # of `lrtool train` over the plain loop
PACKAGES = {
    "torch-lr-finder": "torch-lr-finder",
    "ignite": "pytorch-ignite",
    "Lightning": "lightning",
}
# Copies of the weights that each may hold beyond a plain loop: the first update keeps weights and
# the direction of its update, find_lr what it has to put back; a training keeps nothing.
PEAKS = {"plain loop": 0, "lrtool find": 3, "lrtool.find_lr": 3, "lrtool train": 0}
SLACK_MB = 50  # the allocator's, from run to run


def peak_mb(name: str) -> float:
    """Return the peak memory of a process that runs one contender on the wide network, in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", "--peak", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def compare_memory() -> dict[str, float]:
    """Print peak memory beside what is allowed over a plain loop's."""
    peaks = {name: peak_mb(name) for name in PEAKS}
    weights = sum(p.numel() * 4 for p in WIDE.model().parameters()) / 1e6
    print(f"peak memory, {weights:.0f} MB of weights, Adam")
    for name, peak in peaks.items():
        allowed = peaks["plain loop"] + PEAKS[name] * weights + SLACK_MB
        verdict = "yes" if peak <= allowed else "NO"
        print(f"  {name:16} {peak:8,.0f} MB, wanted ≤ {allowed:,.0f}: {verdict}")
    return peaks


def quietly(contender: Callable[[Case], Any], case: Case) -> Any:
    """Run a contender without its progress bars and advice on the screen."""
    screen = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(screen),
        contextlib.redirect_stdout(screen),
    ):
        warnings.simplefilter("ignore")
        return contender(case)


def compare_sweeps(case: Case, rounds: int) -> dict[str, list[float]]:
    """Print how long a step of a sweep is; return seconds, one for each round after the first."""
    times: dict[str, list[float]] = {name: [] for name in sweep.CONTENDERS}
    for number in range(rounds + 1):
        for name, contender in sweep.CONTENDERS.items():
            seconds = quietly(contender, case)
            if number:
                times[name].append(seconds)
        print(f"  {case.name}: round {number} of {rounds}", file=sys.stderr)
    print(f"{case.name:16} {'µs a step':>10} {'min – max':>18} {'over torch-lr-finder':>22}")
    for name, own in times.items():
        spread = f"{min(own) * 1e6:,.0f} – {max(own) * 1e6:,.0f}"
        ratio = ratio_of(times, name, "torch-lr-finder")
        print(f"{name:16} {statistics.median(own) * 1e6:10,.0f} {spread:>18} {ratio:22.2f}")
    return times


def compare_training(case: Case, rounds: int) -> dict[str, list[float]]:
    """Print how long an epoch of training is; return milliseconds, one for each epoch."""
    times: dict[str, list[float]] = {name: [] for name in training.CONTENDERS}
    for number in range(rounds):
        for name, contender in training.CONTENDERS.items():
            times[name] += [1e3 * seconds for seconds in quietly(contender, case)]
        print(f"  {case.name}: training, round {number + 1} of {rounds}", file=sys.stderr)
    batch, epochs = training.BATCHES[case.name], len(times["plain loop"])
    print(f"{case.name}: an epoch of {STEPS} steps, batch {batch}, {epochs} epochs")
    print(f"{'':16} {'ms':>10} {'min – max':>18} {'over plain loop':>16} {'over the fused':>15}")
    for name, own in times.items():
        spread = f"{min(own):,.0f} – {max(own):,.0f}"
        ratios = [ratio_of(times, name, base) for base in ("plain loop", "  fused, NHWC")]
        print(f"{name:16} {statistics.median(own):10,.0f} {spread:>18}", end="")
        print(f"{ratios[0]:17.2f}{ratios[1]:16.2f}")
    return times


def ratio_of(times: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median over rounds of a contender's time over another's."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(own / other for own, other in pairs)


def meets(name: str, ratio: float, target: float) -> bool:
    """Print whether a target is met."""
    print(f"{name}: {ratio:.2f}, wanted ≤ {target:.2f}: {'yes' if ratio <= target else 'NO'}")
    return ratio <= target


def machine() -> dict[str, Any]:
    """Describe the machine and what runs on it."""
    versions = {"torch": torch.__version__, "lrtool": lrtool.__version__}
    versions |= {name: metadata.version(package) for name, package in PACKAGES.items()}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> None:
    """Measure, print a table for each case, and say which targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the times here")
    parser.add_argument("--peak", choices=PEAKS, help="run one contender and print its peak memory")
    options = parser.parse_args()
    if options.peak is not None:
        if options.peak == "lrtool train":
            quietly(training.lrtool_train, WIDE)
        else:
            quietly(sweep.CONTENDERS[options.peak], WIDE)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        return
    for name in ("lightning.pytorch", "ignite", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    where = machine()
    print(
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads, Python", end=" "
    )
    print(
        where["python"],
        *(f"{name} {version}" for name, version in where["versions"].items()),
        sep=", ",
    )
    print(f"n = {options.rounds} rounds, {STEPS} steps each, batch {sweep.BATCH}, Adam\n")
    sweeps, epochs, met = {}, {}, []
    for case in CASES:
        times = sweeps[case.name] = compare_sweeps(case, options.rounds)
        for name, target in SWEEP_TARGETS[case.name].items():
            met.append(meets(name, ratio_of(times, name, "torch-lr-finder"), target))
        print()
    for case in CASES:
        times = epochs[case.name] = compare_training(case, options.rounds)
        met.append(
            meets("lrtool train", ratio_of(times, "lrtool train", "plain loop"), EPOCH_TARGET)
        )
        print()
    results = {
        "machine": where,
        "rounds": options.rounds,
        "seconds_per_step": sweeps,
        "ms_per_epoch": epochs,
        "peak_mb": compare_memory(),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
