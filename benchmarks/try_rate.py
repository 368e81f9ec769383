"""Train with the rate that `lrtool find` names, and with a third and three times of it.

    python -m benchmarks.try_rate configs/digits.yaml --seeds 3

A plain PyTorch loop: the configuration gives data, model, loss, optimizer, schedule and length, but
the loop and the schedule are torch's own, not lrtool's engine. The finder's seeds (0, 1, …) are
apart from the training seeds (1000, 1001, …).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as schedules

from lrtool.components.models import build_model
from lrtool.components.optimizers import build_optimizer
from lrtool.data import batches
from lrtool.experiment.experiment import Experiment, open_experiment, training_steps
from lrtool.experiment.reading import read_config

FACTORS = (1 / 3, 1.0, 3.0)


def report_of(command: str, config: Path, sets: list[str], *flags: str) -> dict[str, Any]:
    """Run a command of lrtool's and return its report.

    Raises:
        SystemExit: it failed, and has said why.
    """
    words = [sys.executable, "-m", "lrtool", command, str(config), "--json", *flags]
    for override in sets:
        words += ["--set", override]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--output", folder, "--overwrite"]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def schedule_of(
    optimizer: torch.optim.Optimizer, name: str, warmup: float | None, steps: int, lr: float
) -> schedules.LRScheduler:
    """Return torch's own schedule for a configuration's."""
    if warmup is None:
        warmup = 0.3 if name == "one_cycle" else 0.0
    early = max(1, round(warmup * steps) if warmup < 1 else int(warmup))
    if name == "one_cycle":
        return schedules.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=early / steps)
    if name == "cosine":
        return schedules.SequentialLR(
            optimizer,
            [
                schedules.LinearLR(optimizer, 1 / early, total_iters=early),
                schedules.CosineAnnealingLR(optimizer, steps - early),
            ],
            milestones=[early],
        )
    if name == "constant":
        return schedules.ConstantLR(optimizer, 1.0)
    raise SystemExit(f"this script knows no schedule {name}")


def train(experiment: Experiment, lr: float, seed: int, steps: int) -> tuple[float, float, float]:
    """Return the training loss (mean of the last 50 steps), validation loss and accuracy."""
    config, data = experiment.config, experiment.data
    torch.manual_seed(seed)
    facts = {
        "input_shape": data.input_shape,
        "num_outputs": data.num_outputs,
        "vocabulary": data.vocabulary,
    }
    model = build_model(config.model, facts, experiment.directories)
    optimizer = build_optimizer(config.optimizer, model, lr=lr, directories=experiment.directories)
    plan = config.train.schedule
    schedule = schedule_of(optimizer, plan.name, plan.warmup, steps, lr)
    stream = chain.from_iterable(
        batches.epoch(
            data.train,
            batch_size=data.batch_size,
            seed=seed,
            epoch=epoch,
            device=torch.device("cpu"),
        )
        for epoch in count()
    )
    recent: list[torch.Tensor] = []
    assert experiment.loss_fn is not None, "the tasks have losses"
    for _ in range(steps):
        x, y = next(stream)
        loss = experiment.loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if config.train.gradient_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.gradient_clip_norm)
        optimizer.step()
        schedule.step()
        recent = [*recent[-49:], loss.detach()]
    return float(torch.stack(recent).mean()), *evaluate(experiment, model)


@torch.no_grad()
def evaluate(experiment: Experiment, model: torch.nn.Module) -> tuple[float, float]:
    """Return loss and accuracy (NaN for regression) on the validation set."""
    model.eval()
    assert experiment.data.validation is not None
    assert experiment.loss_fn is not None
    total = right = count = predictions = 0.0
    for x, y in batches.ordered(
        experiment.data.validation, batch_size=500, device=torch.device("cpu")
    ):
        outputs = model(x)
        total += float(experiment.loss_fn(outputs, y)) * len(x)
        count += len(x)
        if not y.is_floating_point():
            right += float((outputs.argmax(1) == y).sum())
            predictions += y.numel()
    return total / count, right / predictions if predictions else float("nan")


def main() -> None:
    """Find a rate, then print a row for each factor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    options = parser.parse_args()
    experiment = open_experiment(*read_config(options.config, options.sets))
    steps = training_steps(experiment)
    assert steps is not None
    print(f"{options.config}: {platform.machine()}, {torch.get_num_threads()} threads,", end=" ")
    print(f"torch {torch.__version__}; {steps} steps, n = {options.seeds} seeds, mean ± deviation")
    found = report_of("find", options.config, options.sets)["suggestion"]
    lr = found["lr"]
    print(f"found {lr:.3g} ({found['low']:.3g} to {found['high']:.3g}), {found['verdict']}")
    for factor in FACTORS:
        started = time.perf_counter()
        runs = [train(experiment, factor * lr, 1000 + seed, steps) for seed in range(options.seeds)]
        cells = []
        for name, values in zip(
            ("train loss", "validation loss", "accuracy"), zip(*runs, strict=True), strict=True
        ):
            if not np.isnan(values).all():  # regression has no accuracy
                spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
                cells.append(f"{name} {np.mean(values):.4f} ± {spread:.4f}")
        elapsed = time.perf_counter() - started
        print(f"  {factor:4.2f} × = {factor * lr:.3g}: {', '.join(cells)} ({elapsed:.0f} s)")


if __name__ == "__main__":
    main()
