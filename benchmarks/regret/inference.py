"""Statistics over tasks: the task is the unit, optimizers, schedules and seeds lie inside it.

Arrays of regrets have the shape (methods, cells, finder seeds); `units` gives each cell's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array, Array], Array]  # regrets and cells' weights → one for each method

REPLICATES = 2000
FAILED = 0.5


def weights(units: Sequence[str]) -> Array:
    """Return a weight for each cell: tasks count alike, cells alike within their task."""
    _, inverse, counts = np.unique(units, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[inverse])


def mean(regrets: Array, _: Array) -> Array:
    """Mean over cells."""
    return regrets.mean((1, 2))


def task_mean(regrets: Array, weight: Array) -> Array:
    """Mean over tasks of the mean over a task's cells and seeds."""
    return regrets.mean(2) @ weight


def median(regrets: Array, _: Array) -> Array:
    """Median over cells of the mean over seeds."""
    return np.median(regrets.mean(2), axis=1)


def interquartile_mean(regrets: Array, _: Array) -> Array:
    """Mean of the middle half of the cells."""
    return np.asarray(stats.trim_mean(regrets.mean(2), 0.25, axis=1))


def p90(regrets: Array, _: Array) -> Array:
    """The regret that a tenth of the cells exceed."""
    return np.quantile(regrets.mean(2), 0.9, axis=1)


def failures(regrets: Array, _: Array) -> Array:
    """Share of single suggestions, cell by seed, with a regret above a half."""
    return (regrets > FAILED).mean((1, 2))


STATISTICS: dict[str, Statistic] = {
    "mean": mean,
    "task_mean": task_mean,
    "median": median,
    "iqm": interquartile_mean,
    "p90": p90,
    "failures": failures,
}


def better(ours: int) -> Statistic:
    """Return the statistic P(a method's regret is lower than each other's): ties count half.

    Pairs are trainings from the same seeds; the mean over a task's cells, then over tasks.
    """

    def statistic(regrets: Array, weight: Array) -> Array:
        own = regrets[ours]
        wins = (own < regrets).mean(2) + 0.5 * (own == regrets).mean(2)
        return np.asarray(wins @ weight)

    return statistic


def intervals(
    regrets: Array, units: Sequence[str], statistics: dict[str, Statistic], seed: int = 0
) -> dict[str, Array]:
    """Return 95% intervals of each statistic, shape (methods, 2), by hierarchical bootstrap.

    Tasks are drawn with replacement, and for each drawn task its finder seeds, the same for all
    methods and cells.
    """
    drawn: dict[str, list[Array]] = {name: [] for name in statistics}
    for rows, picks, weight in _replicates(units, regrets.shape[2], seed):
        again = regrets[:, rows[:, None], picks]
        for name, statistic in statistics.items():
            drawn[name].append(statistic(again, weight))
    return {
        name: np.quantile(np.array(values), (0.025, 0.975), axis=0).T
        for name, values in drawn.items()
    }


def _replicates(
    units: Sequence[str], seeds: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], Array]]:
    """Yield rows of cells, the seeds drawn for each row, and each row's weight."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(np.array(units) == unit) for unit in np.unique(units)]
    for _ in range(REPLICATES):
        chosen = rng.integers(len(members), size=len(members))
        sizes = [len(members[task]) for task in chosen]
        picks = rng.integers(seeds, size=(len(members), seeds))
        rows = np.concatenate([members[task] for task in chosen])
        weight = np.repeat(1 / np.array(sizes), sizes) / len(members)
        yield rows, np.repeat(picks, sizes, axis=0), weight


def by_task(regrets: Array, units: Sequence[str]) -> Array:
    """Return mean regrets of each task, shape (methods, tasks)."""
    cells = regrets.mean(2)
    own = np.array(units)
    return np.stack([cells[:, own == unit].mean(1) for unit in np.unique(own)], axis=1)


def wilcoxon(ours: Array, theirs: Array) -> float:
    """Return the two-sided p of the paired signed-rank test over tasks; 1 without a difference."""
    if np.array_equal(ours, theirs):
        return 1.0
    return float(stats.wilcoxon(ours, theirs).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the same order."""
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected.tolist()
