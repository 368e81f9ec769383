"""The result as plain data, as `report.json` holds it: statistics of regrets over tasks.

The task is the unit; optimizers, schedules and seeds lie inside it. Arrays of regrets have the
shape (methods, cells, finder seeds); `units` gives each cell's task.
"""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from benchmarks.regret import finders, grid, outcomes, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from benchmarks.regret.cells import Cell
    from benchmarks.regret.outcomes import Outcome

    Array = NDArray[np.float64]
    Statistic = Callable[[Array, Array], Array]  # regrets and cells' weights → one for each method

REPLICATES = 2000
FAILED = 0.5
SMALL = 0.05  # what "confident" promises


def summarize(
    name: str, chosen: Sequence[Cell], cache: Path
) -> tuple[dict[str, Any], list[Outcome]]:
    """Return the whole result of a set of cells, and the outcomes that it is made of.

    Raises:
        SystemExit: something has not been measured yet.
    """
    found: list[Outcome] = []
    for cell in chosen:
        try:
            found += outcomes.of_cell(cell, cache)
        except (FileNotFoundError, KeyError) as error:
            raise SystemExit(f"{cell.name}: {error} is missing: run the stages before") from error
    methods = list(dict.fromkeys(outcome.method for outcome in found))
    groups = outcomes.groups(chosen, cache)
    result = {
        "set": name,
        "cells": len(chosen),
        "tasks": len(set(_units(chosen))),
        "finder_seeds": len(finders.SEEDS),
        "training_seeds": len(grid.SEEDS),
        "environment": _environment(found),
        "groups": {
            name: {**_group(found, own, methods), "whole_grid": _whole_grid(own, cache)}
            for name, own in groups.items()
        },
        "comparisons": _comparisons(found, chosen, methods),
        "intervals": {
            name: {
                method: _intervals([o for o in found if o.method == method and o.cell in own])
                for method in methods
                if method in finders.OWN
            }
            for name, own in groups.items()
        },
        "outcomes": [_plain(outcome) for outcome in found],
    }
    return result, found


def _units(cells: Sequence[Cell]) -> list[str]:
    """Return each cell's task; a variant belongs to the task that it varies."""
    return [tasks.TASKS[cell.task].base for cell in cells]


def _group(found: list[Outcome], own: list[Cell], methods: list[str]) -> dict[str, Any]:
    """Return the statistics of all methods over a group of cells."""
    units = _units(own)
    regrets = outcomes.regrets(found, own, methods)
    weight = weights(units)
    values = {name: of(regrets, weight) for name, of in STATISTICS.items()}
    spread = intervals(regrets, units, STATISTICS)
    table = {}
    for m, method in enumerate(methods):
        mine = [o for o in found if o.method == method and o.cell in own]
        row: dict[str, Any] = {}
        for name in STATISTICS:
            row[name] = float(values[name][m])
            row[f"{name}_95"] = spread[name][m].tolist()
        table[method] = {**row, **_rates(mine)}
    return {"cells": len(own), "tasks": len(set(units)), "methods": table}


def _whole_grid(own: list[Cell], cache: Path) -> float:
    """Return what bounds every finder: the mean regret of all grids by the validation set."""
    return float(np.mean([grid.by_validation(cell, cache) for cell in own]))


def _rates(mine: list[Outcome]) -> dict[str, Any]:
    """Return how a method's rates do by the best epochs, how they scatter and what they cost.

    The gap between seeds is that of cells where each seed has a rate; how many have none is said.
    """
    by_cell: dict[Cell, list[float]] = {}
    for outcome in mine:
        if not outcome.fixed:
            by_cell.setdefault(outcome.cell, []).append(outcome.decades)
    gaps = [max(d) - min(d) for d in by_cell.values() if not any(np.isnan(d))]
    away = [outcome.decades for outcome in mine if not math.isnan(outcome.decades)]
    return {
        "best_epoch_mean": float(np.mean([outcome.best_regret for outcome in mine])),
        "seed_gap": float(np.mean(gaps)) if gaps else None,
        "seed_gap_cells": len(gaps),
        "without_rate": sum(outcome.lr is None for outcome in mine) / len(mine),
        "median_decades": float(np.median(away)) if away else None,
        "steps": float(np.mean([outcome.steps for outcome in mine])),
        "share_of_training": float(np.mean([o.steps / o.cell.steps for o in mine])),
    }


def _comparisons(
    found: list[Outcome], chosen: Sequence[Cell], methods: list[str]
) -> dict[str, dict[str, Any]]:
    """Hold each of lrtool's methods against every other; p is corrected for all of these tests."""
    own = [method for method in methods if method in finders.OWN]
    units = _units(chosen)
    regrets = outcomes.regrets(found, chosen, methods)
    means = by_task(regrets, units)
    pairs = [(a, b) for a in own for b in methods if a != b]
    raw = [wilcoxon(means[methods.index(a)], means[methods.index(b)]) for a, b in pairs]
    p_values = dict(zip(pairs, holm(raw), strict=True)) if pairs else {}
    table: dict[str, dict[str, Any]] = {}
    for a in own:
        statistic = better(methods.index(a))
        wins = statistic(regrets, weights(units))
        spread = intervals(regrets, units, {"better": statistic})["better"]
        table[a] = {
            b: {
                "better": float(wins[m]),
                "better_95": spread[m].tolist(),
                "mean_difference": float((means[methods.index(a)] - means[m]).mean()),
                "p_holm": p_values[a, b],
            }
            for m, b in enumerate(methods)
            if b != a
        }
    return table


def _intervals(mine: list[Outcome]) -> dict[str, Any]:
    """Return how often an interval reaches the rates that train well, and how wide it is."""
    with_one = [o for o in mine if o.said.get("low") is not None]
    reached = [_reaches(o) for o in with_one]
    widths = [math.log10(o.said["high"] / o.said["low"]) for o in with_one]
    verdicts = [o.said.get("verdict", "none") for o in mine]
    by_verdict = {}
    for verdict in sorted(set(verdicts)):
        own = np.array(
            [o.regret for o, said in zip(mine, verdicts, strict=True) if said == verdict]
        )
        by_verdict[verdict] = {
            "share": len(own) / len(mine),
            "mean": float(own.mean()),
            "small": float(np.mean(own <= SMALL)),
        }
    return {
        "n": len(mine),
        "coverage": float(np.mean(reached)) if reached else None,
        "coverage_95": _coverage_interval(with_one, reached),
        "width_median": float(np.median(widths)) if widths else None,
        "width_mean": float(np.mean(widths)) if widths else None,
        "inside_window": float(np.mean([_inside(o) for o in mine])),
        "window_median": float(np.median([o.window[1] - o.window[0] for o in mine])),
        "verdicts": by_verdict,
    }


def _reaches(outcome: Outcome) -> bool:
    low, high = (math.log10(outcome.said[end]) for end in ("low", "high"))
    return low <= outcome.window[1] and high >= outcome.window[0]


def _inside(outcome: Outcome) -> bool:
    if outcome.lr is None:
        return False
    return outcome.window[0] <= math.log10(outcome.lr) <= outcome.window[1]


def _coverage_interval(with_one: list[Outcome], reached: list[bool]) -> list[float] | None:
    """Return the 95% interval of the coverage, tasks drawn with replacement."""
    if not reached:
        return None
    units = np.array(_units([outcome.cell for outcome in with_one]))
    members = [np.array(reached)[units == unit] for unit in np.unique(units)]
    rng = np.random.default_rng(0)
    drawn = [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]).mean()
        for _ in range(REPLICATES)
    ]
    return np.quantile(drawn, (0.025, 0.975)).tolist()


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for a file: JSON has no NaN and no infinity."""
    numbers = {
        "regret": outcome.regret,
        "best_epoch_regret": outcome.best_regret,
        "decades": outcome.decades,
        "steps": outcome.steps,
        "validation_loss": outcome.final[0],
        "train_loss": outcome.final[1],
        "error_rate": outcome.final[2],
    }
    return {
        "cell": outcome.cell.name,
        "method": outcome.method,
        "seed": outcome.seed,
        "lr": outcome.lr,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        **{key: outcome.said[key] for key in ("low", "high", "verdict") if key in outcome.said},
    }


def _environment(found: list[Outcome]) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("lrtool", "torch", "numpy", "scipy")}
    for package in sorted({o.said["package"] for o in found if "package" in o.said}):
        name, version = package.split(" ")
        versions[name] = f"{versions[name]} and {version}" if name in versions else version
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads_per_process": 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
