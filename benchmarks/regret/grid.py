"""The exhaustive grid of a cell, and the regret of a rate on it.

The grid: quarter decades, five seeds near the best rate. The regret of a rate:

    r = (L(rate) − L(best)) / (L(untrained) − L(best)),

L the mean final validation loss over training seeds: 0 is as good as the best rate of the grid, 1
no better than not training. The best rate is chosen on a part of the seeds and judged on the
others, and the other way round: the lowest of several noisy means is too low, and so would be every
best loss that is judged where it was chosen.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.regret import tasks, training

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.regret.cells import Cell

    Array = NDArray[np.float64]

PER_DECADE = 4
SEEDS = range(100, 105)  # of training; finders have others
NEAR = 2  # points on either side of the best rate that all seeds train
FIRST = {"sgd": -4, "sgd_momentum": -6, "nesterov": -6, "adagrad": -6, "muon": -8, "lion": -12}
LOWEST, HIGHEST = -40, 24  # in quarter decades: rates from 1e-10 to 1e6
GOOD = 0.02  # regret of the rates that train almost as well as the best

Finals = dict[int, dict[int, training.Final]]  # quarter decades → seed → where the training ended


def file_of(cell: Cell, cache: Path) -> Path:
    """Return where a cell's grid is kept."""
    return cache / "grids" / f"{cell.name}.json"


def rate(place: int) -> float:
    """Return the rate at a place."""
    return float(10 ** (place / PER_DECADE))


def measure(cell: Cell) -> dict[str, Any]:
    """Return a cell's grid, and the losses before training, as plain data."""
    found = _search(cell)
    return {
        "cell": cell.name,
        "initial": [training.untrained(cell.task, seed) for seed in SEEDS],
        "grid": {
            place: {seed: list(final) for seed, final in found[place].items()}
            for place in sorted(found)
        },
    }


def _search(cell: Cell) -> Finals:
    """Train along the grid until the best rate lies well inside it.

    First every second place with one seed, outwards until the best one has two on each side; then
    all places near it with all seeds, for as long as the best one moves.
    """
    grid: Finals = {}

    def train(place: int, seeds: range) -> None:
        done = grid.setdefault(place, {})
        for seed in seeds:
            if seed not in done:
                done[seed] = training.train(cell, rate(place), seed)

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


def _best(grid: Finals) -> int:
    """Return the place of the lowest mean; the lowest place when nothing trains."""
    means = {
        place: float(np.mean([final.validation for final in ends.values()]))
        for place, ends in grid.items()
    }
    if not any(math.isfinite(value) for value in means.values()):
        return min(means) - 4
    return min(means, key=lambda place: (means[place], place))


@dataclass(frozen=True)
class Grid:
    """A cell's grid.

    Attributes:
        log_lr: log10 of the rates, ascending, shape (P,).
        loss: final validation loss, at most that of the untrained model, by seed, shape (S, P); NaN
            where a seed has not trained.
        initial: the untrained model's, shape (S,).
    """

    log_lr: Array
    loss: Array
    initial: Array

    @cached_property
    def _halves(self) -> list[tuple[int, Array]]:
        """Each part of the seeds that judges, with the best place of the others."""
        whole = np.flatnonzero(np.isfinite(self.loss).all(0))
        seeds = np.arange(len(self.loss))
        halves = []
        for judges in (seeds % 2 == 0, seeds % 2 == 1):
            means = self.loss[~judges][:, whole].mean(0)
            halves.append((int(whole[np.argmin(means)]), judges))
        return halves

    def excess(self, seeds: NDArray[np.intp], losses: Array) -> float:
        """Return the regret of a rate at which training from `seeds` ended with `losses`.

        It is 0 where that is below the best rate: other seeds have chosen that one, and where one
        seed in five diverges beside it, what is gained there would outweigh all else.
        """
        losses = np.minimum(np.where(np.isfinite(losses), losses, np.inf), self.initial[seeds])
        parts = []
        for place, judges in self._halves:
            mine = judges[seeds]
            if not mine.any():
                continue
            best, own = self.loss[seeds[mine], place].mean(), losses[mine].mean()
            span = self.initial[seeds[mine]].mean() - best
            if span > 0:
                parts.append((own - best) / span)
            else:  # the best rate of the others does not train these: only failing like it is worse
                parts.append(float(own >= best))
        return float(np.clip(np.mean(parts), 0.0, 1.0))

    @cached_property
    def regrets(self) -> Array:
        """Regret at each place, shape (P,)."""
        found = []
        for column in self.loss.T:
            seeds = np.flatnonzero(np.isfinite(column))
            found.append(self.excess(seeds, column[seeds]))
        return np.array(found)

    def regret(self, log_lr: float) -> float:
        """Return the regret of any rate, interpolated on the grid; 1 beyond the rates tried."""
        if not math.isfinite(log_lr):
            return 1.0
        return float(np.interp(log_lr, self.log_lr, self.regrets, left=1.0, right=1.0))

    @cached_property
    def window(self) -> tuple[float, float]:
        """The stretch of rates around the best one with a regret below `GOOD`, in log10."""
        best = round(float(np.mean([place for place, _ in self._halves])))
        fine = np.arange(self.log_lr[0], self.log_lr[-1] + 1e-9, 0.02)
        good = np.interp(fine, self.log_lr, self.regrets) <= GOOD
        here = int(np.argmin(np.abs(fine - self.log_lr[best])))
        bad = np.flatnonzero(~good)
        if not good[here]:
            return float(self.log_lr[best]), float(self.log_lr[best])
        low = bad[bad < here].max(initial=-1) + 1
        high = bad[bad > here].min(initial=len(fine)) - 1
        return float(fine[low]), float(fine[high])

    @property
    def middle(self) -> float:
        """The middle of the window."""
        return sum(self.window) / 2


def by_validation(cell: Cell, cache: Path) -> float:
    """Return the regret of the best rate of the whole grid by the validation set that finders see.

    The mean over all seeds chooses. Where the task has no test set of its own, that is the best
    rate.

    Raises:
        SystemExit: the grid was measured when nobody kept the losses of the validation set.
    """
    record, found = read(cell, cache)
    field = "validation" if tasks.samples(cell.task).x_test is None else "seen"
    finals = {
        int(place): [getattr(training.Final(*final), field) for final in ends.values()]
        for place, ends in record["grid"].items()
        if len(ends) == len(SEEDS)
    }
    means = {place: float(np.mean(losses)) for place, losses in finals.items()}
    best = min(means, key=lambda place: (means[place], place))
    if not math.isfinite(means[best]):
        path = file_of(cell, cache)
        raise SystemExit(f"{path} lacks the losses of the validation set: delete it, run `grids`")
    return found.regret(best / PER_DECADE)


def read(
    cell: Cell, cache: Path, epoch: Literal["last", "best"] = "last"
) -> tuple[dict[str, Any], Grid]:
    """Return a cell's record and its grid, of the losses of each training's last or best epoch."""
    record = json.loads(file_of(cell, cache).read_text())
    places = sorted(int(place) for place in record["grid"])
    initial = np.array(record["initial"])
    field = training.Final._fields.index("validation" if epoch == "last" else "best")
    loss = np.full((len(initial), len(places)), np.nan)
    for column, place in enumerate(places):
        for seed, final in record["grid"][str(place)].items():
            row = int(seed) - SEEDS[0]
            loss[row, column] = min(final[field], initial[row])
    return record, Grid(np.array(places) / PER_DECADE, loss, initial)
