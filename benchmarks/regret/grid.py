"""The exhaustive grid of a cell: quarter decades, five seeds near the best rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plain

if TYPE_CHECKING:
    from pathlib import Path

    from cells import Cell

PER_DECADE = 4
SEEDS = range(100, 105)  # of training; finders have others
NEAR = 2  # points on either side of the best rate that all seeds train
FIRST = {"sgd": -4, "sgd_momentum": -6, "nesterov": -6, "adagrad": -6, "muon": -8, "lion": -12}
LOWEST, HIGHEST = -40, 24  # in quarter decades: rates from 1e-10 to 1e6

Grid = dict[int, dict[int, plain.Final]]  # quarter decades → seed → where the training ended


def file_of(cell: Cell, cache: Path) -> Path:
    """Return where a cell's grid is kept."""
    return cache / "grids" / f"{cell.name}.json"


def measure(cell: Cell) -> dict[str, Any]:
    """Return a cell's grid, and the losses before training, as plain data."""
    found = search(cell)
    return {
        "cell": cell.name,
        "initial": [plain.untrained(cell.task, seed) for seed in SEEDS],
        "grid": {
            place: {seed: list(final) for seed, final in found[place].items()}
            for place in sorted(found)
        },
    }


def rate(place: int) -> float:
    """Return the rate at a place of the grid."""
    return float(10 ** (place / PER_DECADE))


def mean(grid: Grid, place: int) -> float:
    """Return the mean validation loss over the seeds that have trained there."""
    return float(np.mean([final.validation for final in grid[place].values()]))


def search(cell: Cell) -> Grid:
    """Train along the grid until the best rate lies well inside it.

    First every second place with one seed, outwards until the best one has two on each side; then
    all places near it with all seeds, for as long as the best one moves.
    """
    grid: Grid = {}

    def train(place: int, seeds: range) -> None:
        done = grid.setdefault(place, {})
        for seed in seeds:
            if seed not in done:
                done[seed] = plain.train(cell, rate(place), seed)

    one = SEEDS[:1]
    centre = FIRST.get(cell.optimizer, -10)
    wanted = set(range(centre - 4, centre + 5, 2))
    while wanted:
        for place in sorted(wanted):
            train(place, one)
        best = _best(grid)
        wanted = {p for p in range(best - 4, best + 5, 2) if LOWEST <= p <= HIGHEST} - set(grid)
    while True:
        best = _best(grid)
        near = range(best - NEAR, best + NEAR + 1)
        if all(len(grid.get(place, ())) == len(SEEDS) for place in near):
            return grid
        for place in near:
            train(place, SEEDS)


def _best(grid: Grid) -> int:
    """Return the place of the lowest mean; the lowest place when nothing trains."""
    means = {place: mean(grid, place) for place in grid}
    if not any(math.isfinite(value) for value in means.values()):
        return min(means) - 4
    return min(means, key=lambda place: (means[place], place))
