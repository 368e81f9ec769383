"""What is measured of a cell once and for all: its grid, and what finders may look at.

A file of JSON a cell. Rules are then tried on the files, without training again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grid
import numpy as np
import optimizers
import plain
import tasks
import torch

from lrtool.curve.anchors import locate
from lrtool.curve.smooth import fit
from lrtool.engine.runtime import Runtime
from lrtool.engine.step import make_step
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep

if TYPE_CHECKING:
    from cells import Cell

    from lrtool.records import Sweep

FINDER_SEEDS = (0, 1, 2)  # apart from the seeds of training
SWEEPS = 3
START, END, STEPS = 1e-7, 10.0, 100
BELOW, ABOVE = 2.5, 1.0  # decades of the narrow sweeps, below and above the broad one's minimum
SHORT = 100  # steps of a short training


def record(cell: Cell) -> dict[str, Any]:
    """Measure a cell."""
    found = grid.search(cell)
    return {
        "cell": cell.name,
        "initial": [plain.untrained(cell.task, seed) for seed in grid.SEEDS],
        "grid": {
            place: {seed: list(final) for seed, final in found[place].items()}
            for place in sorted(found)
        },
        "finders": {seed: _looked_at(cell, seed) for seed in FINDER_SEEDS},
    }


def _looked_at(cell: Cell, seed: int) -> dict[str, Any]:
    """Return sweeps and short trainings, all from the seeds of one finder."""
    seeds = [1000 * (seed + 1) + repeat for repeat in range(SWEEPS)]
    broad = [swept(cell, own, START, END) for own in seeds]
    top = _top(broad[0])
    low, high = 10 ** (top - BELOW), 10 ** (top + ABOVE)
    places = range(round(4 * (top - BELOW + 0.5)), round(4 * (top + ABOVE - 0.25)))
    return {
        "broad": [_plain(found) for found in broad],
        "narrow": [_plain(swept(cell, own, low, high)) for own in seeds],
        "short": {
            place: list(plain.train(cell, grid.rate(place), seeds[0], steps=SHORT))
            for place in places
        },
        "first_update": _first_update(cell, seeds[0]),
    }


def swept(cell: Cell, seed: int, start: float, end: float, steps: int = STEPS) -> Sweep:
    """Sweep with lrtool's engine, weights and data order from the seed."""
    data = tasks.samples(cell.task)
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    step = make_step(
        model,
        partial(tasks.loss, task=cell.task),
        optimizers.build(cell.optimizer, model, 1.0),
        Runtime(torch.device("cpu"), torch.float32),
    )
    order = plain.shuffled(len(data.x), tasks.TASKS[cell.task].batch, seed)
    batches = ([(data.x[rows], data.y[rows])] for rows in order)
    rows = list(sweep(step, batches, sweep_rates(start, end, steps)))
    return to_sweep(rows, seed=seed, planned=steps)


def _top(broad: Sweep) -> float:
    """Return log10 of the rate of the lowest loss, or of the end where there is none."""
    fitted = fit([broad])
    if fitted is None:
        return float(np.log10(broad.lr[-1]))
    minimum = locate(fitted, fitted.loss).minimum
    return float(np.log10(broad.lr[-1])) if minimum is None else minimum


def _plain(found: Sweep) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "start": found.lr[0],
        "last": found.lr[-1],
        "loss": list(found.loss),
        "stop": found.stop_reason,
    }


def _first_update(cell: Cell, seed: int) -> list[float]:
    """Return log10 of weights over first update at a rate of 1, for each matrix: 2-norms."""
    data = tasks.samples(cell.task)
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    before = [p.detach().clone() for p in model.parameters()]
    rate = 1e-6
    optimizer = optimizers.build(cell.optimizer, model, rate)
    rows = next(plain.shuffled(len(data.x), tasks.TASKS[cell.task].batch, seed))
    tasks.loss(model(data.x[rows]), data.y[rows], task=cell.task).backward()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()  # so that an update far smaller than a weight is not rounded away
    optimizer.step()
    return [
        float((old.norm() / (p.detach().norm() / rate)).log10())
        for p, old in zip(model.parameters(), before, strict=True)
        if p.ndim > 1
    ]
