"""How fast sweep and training are, beside a plain loop and the peers, alternating in one run.

    make bench                     # in an environment with the peers
    python benchmarks/speed.py --rounds 9 --json speed.json

Each contender sweeps the same model over the same data with the same optimizer and batch size; the
range of rates is low, so that no sweep ends early. A round runs every contender once, in turn; the
table gives medians over rounds, and ratios taken within a round, for machines are noisy.
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
import tempfile
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_training
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrtool
from lrtool.config import document
from lrtool.experiment.experiment import open_task
from lrtool.experiment.preflight import try_one_batch
from lrtool.experiment.reading import read_config
from lrtool.report.report import FindReport
from lrtool.search import run

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64
STEPS = 200
START, END = 1e-7, 1e-3
LONG = 3000  # steps of a training: for so many lrtool sweeps, and makes no trials


@dataclass(frozen=True)
class Case:
    """A model and the data it sweeps over."""

    name: str
    shape: tuple[int, ...]
    samples: int
    config_model: dict[str, Any]
    make: Callable[[], nn.Module]
    find_target: float
    find_lr_target: float
    steps: int = STEPS


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


CASES = [
    Case("mlp", (64,), 1437, {"name": "speed:mlp"}, mlp, 0.62, 0.85),
    Case("cnn", (1, 28, 28), 6400, {"name": "speed:cnn"}, cnn, 0.80, 1.00),
]


def data_of(case: Case) -> tuple[Tensor, Tensor]:
    """Return inputs and class indices, the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case.samples, *case.shape, generator=generator)
    targets = torch.randint(10, (case.samples,), generator=generator)
    return inputs, targets


def fresh(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """Return what a user of an object API has: a model, Adam, and a shuffled DataLoader."""
    torch.manual_seed(0)
    model = case.make()
    loader = DataLoader(TensorDataset(*data_of(case)), batch_size=BATCH, shuffle=True)
    return model, torch.optim.Adam(model.parameters(), lr=START), loader


def plain_loop(case: Case) -> float:
    """A loop as everyone writes it: DataLoader, zero_grad, backward, step, loss.item()."""
    model, optimizer, loader = fresh(case)
    done = 0
    started = perf_counter()
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == case.steps:
                return (perf_counter() - started) / case.steps


def lrtool_find(case: Case) -> float:
    """`lrtool find` on a configuration: the report's time in the sweep."""
    inputs, targets = data_of(case)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "data.npz", x=inputs.numpy(), y=targets.numpy())
        settings = {
            "search_path": [str(Path(__file__).parent)],
            "data": {
                "source": "npz",
                "args": {"path": "data.npz"},
                "batch_size": BATCH,
                "validation": 0,
            },
            "model": case.config_model,
            "optimizer": "adam",
            "find": {"start": START, "end": END, "steps": case.steps, "repeats": 1},
            "train": {"max_steps": LONG},
            "runtime": {"device": "cpu"},
        }
        (folder / "speed.yaml").write_text(document.dump(settings))
        task = open_task(*read_config(folder / "speed.yaml"))
        *_, report = run.find(task, try_one_batch(task), folder)
        assert isinstance(report, FindReport)
        assert report.timing.steps_per_s is not None
        assert len(report.sweeps[0].loss) == case.steps
        return report.timing.steps / report.timing.steps_per_s / case.steps


def lrtool_find_lr(case: Case) -> float:
    """`lrtool.find_lr` on the user's own objects: the report's time in the sweep."""
    result, _ = call_find_lr(case, LONG)
    timing = result.report()["timing"]
    return float(timing["steps"] / timing["steps_per_s"] / case.steps)


def lrtool_find_lr_call(case: Case) -> float:
    """The same, with the first update, copying, restoring, smoothing and suggesting."""
    return call_find_lr(case, LONG)[1] / case.steps


def lrtool_find_lr_trials(case: Case) -> float:
    """The same with its two trials of 90 steps: all that a call costs by default."""
    result, elapsed = call_find_lr(case, None)
    assert result.report()["trials"]["steps"] == 90
    return elapsed / case.steps


def call_find_lr(case: Case, for_steps: int | None) -> tuple[lrtool.FindResult, float]:
    """Return the result and the seconds of the whole call."""
    model, optimizer, loader = fresh(case)
    started = perf_counter()
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        loader,
        start=START,
        end=END,
        steps=case.steps,
        for_steps=for_steps,
    )
    elapsed = perf_counter() - started
    assert len(result.sweeps[0].loss) == case.steps
    return result, elapsed


def torch_lr_finder(case: Case) -> float:
    """torch-lr-finder's range_test."""
    from torch_lr_finder import LRFinder  # noqa: PLC0415

    model, optimizer, loader = fresh(case)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    started = perf_counter()
    finder.range_test(loader, end_lr=END, num_iter=case.steps, diverge_th=1e9)
    elapsed = perf_counter() - started
    assert len(finder.history["loss"]) == case.steps
    return elapsed / case.steps


def ignite(case: Case) -> float:
    """Ignite's FastaiLRFinder on a supervised trainer."""
    from ignite.engine import create_supervised_trainer  # noqa: PLC0415
    from ignite.handlers import FastaiLRFinder  # noqa: PLC0415

    model, optimizer, loader = fresh(case)
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    finder = FastaiLRFinder()
    started = perf_counter()
    with finder.attach(
        trainer,
        to_save={"model": model, "optimizer": optimizer},
        end_lr=END,
        num_iter=case.steps,
        diverge_th=1e9,
    ) as with_finder:
        with_finder.run(loader)
    elapsed = perf_counter() - started
    return elapsed / len(finder.get_results()["loss"])


def lightning(case: Case) -> float:
    """Lightning's Tuner.lr_find."""
    import lightning as pl  # noqa: PLC0415
    from lightning.pytorch.tuner import Tuner  # noqa: PLC0415

    class Module(pl.LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net
            self.lr = START

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    model, _, loader = fresh(case)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        started = perf_counter()
        found = Tuner(trainer).lr_find(
            Module(model),
            loader,
            min_lr=START,
            max_lr=END,
            num_training=case.steps,
            early_stop_threshold=None,
        )
        elapsed = perf_counter() - started
    assert found is not None
    return elapsed / len(found.results["loss"])


CONTENDERS: dict[str, Callable[[Case], float]] = {
    "plain loop": plain_loop,
    "lrtool find": lrtool_find,
    "lrtool.find_lr": lrtool_find_lr,
    "  the whole call": lrtool_find_lr_call,
    "  with its trials": lrtool_find_lr_trials,
    "torch-lr-finder": torch_lr_finder,
    "ignite": ignite,
    "Lightning": lightning,
}
PACKAGES = {
    "torch-lr-finder": "torch-lr-finder",
    "ignite": "pytorch-ignite",
    "Lightning": "lightning",
}


def wide() -> nn.Module:
    """Return a network of 33 million parameters, 134 MB, to see copies of it."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(2048, 2048), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, 2048), *layers, nn.Linear(2048, 10))


WIDE = Case("wide", (64,), 640, {"name": "speed:wide"}, wide, 0.0, 0.0, steps=8)
# Copies of the weights that each may hold beyond a plain loop: find keeps model and Adam's state,
# which is twice the weights, to put them back; a training keeps nothing.
PEAKS = {"plain loop": 0, "lrtool find": 3, "lrtool.find_lr": 3, "lrtool train": 0}
SLACK_MB = 50  # the allocator's, from run to run


def peak_mb(name: str) -> float:
    """Return the peak memory of a process that runs one contender on the wide network, in MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", name], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def compare_memory() -> dict[str, float]:
    """Print peak memory beside what is allowed over a plain loop's."""
    peaks = {name: peak_mb(name) for name in PEAKS}
    weights = sum(p.numel() * 4 for p in wide().parameters()) / 1e6
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


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Return seconds for a step, one for each round, after one round of warming up."""
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(rounds + 1):
        for name, contender in CONTENDERS.items():
            seconds = quietly(contender, case)
            if number:
                times[name].append(seconds)
        print(f"  {case.name}: round {number} of {rounds}", file=sys.stderr)
    return times


def compare_training(case: Case, rounds: int) -> dict[str, list[float]]:
    """Print how long an epoch of training is; return milliseconds, one for each epoch."""
    times: dict[str, list[float]] = {name: [] for name in speed_training.CONTENDERS}
    for number in range(rounds):
        for name, contender in speed_training.CONTENDERS.items():
            times[name] += [1e3 * seconds for seconds in quietly(contender, case)]
        print(f"  {case.name}: training, round {number + 1} of {rounds}", file=sys.stderr)
    steps, batch = speed_training.STEPS, speed_training.BATCHES[case.name]
    print(
        f"{case.name}: an epoch of {steps} steps, batch {batch}, {len(times['plain loop'])} epochs"
    )
    print(f"{'':16} {'ms':>10} {'min – max':>18} {'over plain loop':>16} {'over the fused':>15}")
    for name, own in times.items():
        spread = f"{min(own):,.0f} – {max(own):,.0f}"
        ratios = [ratio_of(times, name, base) for base in ("plain loop", "  fused, NHWC")]
        print(f"{name:16} {statistics.median(own):10,.0f} {spread:>18}", end="")
        print(f"{ratios[0]:17.2f}{ratios[1]:16.2f}")
    return times


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
            quietly(speed_training.lrtool_train, WIDE)
        else:
            quietly(CONTENDERS[options.peak], WIDE)
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
    print(f"n = {options.rounds} rounds, {STEPS} steps each, batch {BATCH}, Adam\n")
    results: dict[str, Any] = {"machine": where, "rounds": options.rounds, "seconds_per_step": {}}
    met = True
    for case in CASES:
        times = measure(case, options.rounds)
        results["seconds_per_step"][case.name] = times
        print(f"{case.name:16} {'µs a step':>10} {'min – max':>18} {'over torch-lr-finder':>22}")
        for name, seconds in times.items():
            ratio = ratio_of(times, name, "torch-lr-finder")
            spread = f"{min(seconds) * 1e6:,.0f} – {max(seconds) * 1e6:,.0f}"
            print(f"{name:16} {statistics.median(seconds) * 1e6:10,.0f} {spread:>18} {ratio:22.2f}")
        targets = (("lrtool find", case.find_target), ("lrtool.find_lr", case.find_lr_target))
        for name, target in targets:
            ratio = ratio_of(times, name, "torch-lr-finder")
            met &= ratio <= target
            print(
                f"{name}: {ratio:.2f}, wanted ≤ {target:.2f}: {'yes' if ratio <= target else 'NO'}"
            )
        print()
    results["ms_per_epoch"] = {}
    for case in CASES:
        times = compare_training(case, options.rounds)
        results["ms_per_epoch"][case.name] = times
        ratio = ratio_of(times, "lrtool train", "plain loop")
        met &= ratio <= speed_training.TARGET
        verdict = "yes" if ratio <= speed_training.TARGET else "NO"
        print(f"lrtool train: {ratio:.2f}, wanted ≤ {speed_training.TARGET}: {verdict}\n")
    results["peak_mb"] = compare_memory()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if met else 1)


def ratio_of(times: dict[str, list[float]], name: str, base: str) -> float:
    """Return the median over rounds of a contender's time over another's."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(own / other for own, other in pairs)


if __name__ == "__main__":
    main()
