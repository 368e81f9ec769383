"""The benchmark's result as plain data: what `report.json` holds."""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import finders
import grid
import inference
import numpy as np
import outcomes as outs
import tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cells import Cell
    from outcomes import Outcome


def summarize(chosen: Sequence[Cell], cache: Path) -> tuple[dict[str, Any], list[Outcome]]:
    """Return the whole result, and the outcomes that it is made of.

    Raises:
        SystemExit: something has not been measured yet.
    """
    found: list[Outcome] = []
    for cell in chosen:
        try:
            found += outs.of_cell(cell, cache)
        except (FileNotFoundError, KeyError) as error:
            raise SystemExit(f"{cell.name}: {error} is missing: run the stages before") from error
    methods = list(dict.fromkeys(outcome.method for outcome in found))
    groups = outs.groups(chosen, cache)
    report = {
        "cells": len(chosen),
        "tasks": len(set(_units(chosen))),
        "finder_seeds": len(finders.SEEDS),
        "training_seeds": len(grid.SEEDS),
        "environment": _environment(found),
        "groups": {name: _group(found, own, methods) for name, own in groups.items()},
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
    return report, found


def _units(cells: Sequence[Cell]) -> list[str]:
    """Return each cell's task; a variant belongs to the task that it varies."""
    return [tasks.TASKS[cell.task].base for cell in cells]


def _group(found: list[Outcome], own: list[Cell], methods: list[str]) -> dict[str, Any]:
    """Return the statistics of all methods over a group of cells."""
    units = _units(own)
    regrets = outs.regrets(found, own, methods)
    weight = inference.weights(units)
    values = {name: of(regrets, weight) for name, of in inference.STATISTICS.items()}
    spread = inference.intervals(regrets, units, inference.STATISTICS)
    table = {}
    for m, method in enumerate(methods):
        mine = [o for o in found if o.method == method and o.cell in own]
        row: dict[str, Any] = {}
        for name in inference.STATISTICS:
            row[name] = float(values[name][m])
            row[f"{name}_95"] = spread[name][m].tolist()
        table[method] = {**row, **_rates(mine)}
    return {"cells": len(own), "tasks": len(set(units)), "methods": table}


def _rates(mine: list[Outcome]) -> dict[str, Any]:
    """Return how a method's rates scatter and what they cost.

    The gap between seeds is that of cells where each seed has a rate; how many have none is said.
    """
    by_cell: dict[Cell, list[float]] = {}
    for outcome in mine:
        if not outcome.fixed:
            by_cell.setdefault(outcome.cell, []).append(outcome.decades)
    gaps = [max(d) - min(d) for d in by_cell.values() if not any(np.isnan(d))]
    away = [outcome.decades for outcome in mine if not math.isnan(outcome.decades)]
    return {
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
    regrets = outs.regrets(found, chosen, methods)
    by_task = inference.by_task(regrets, units)
    pairs = [(a, b) for a in own for b in methods if a != b]
    raw = [
        inference.wilcoxon(by_task[methods.index(a)], by_task[methods.index(b)]) for a, b in pairs
    ]
    p_values = dict(zip(pairs, inference.holm(raw), strict=True)) if pairs else {}
    table: dict[str, dict[str, Any]] = {}
    for a in own:
        statistic = inference.better(methods.index(a))
        wins = statistic(regrets, inference.weights(units))
        spread = inference.intervals(regrets, units, {"better": statistic})["better"]
        table[a] = {
            b: {
                "better": float(wins[m]),
                "better_95": spread[m].tolist(),
                "mean_difference": float((by_task[methods.index(a)] - by_task[m]).mean()),
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
    by_verdict = {
        verdict: {
            "share": verdicts.count(verdict) / len(mine),
            "mean": float(np.mean([o.regret for o in mine if o.said.get("verdict") == verdict])),
        }
        for verdict in sorted(set(verdicts))
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
        for _ in range(inference.REPLICATES)
    ]
    return np.quantile(drawn, (0.025, 0.975)).tolist()


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for a file: JSON has no NaN and no infinity."""
    numbers = {
        "regret": outcome.regret,
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
