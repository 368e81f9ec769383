"""How the constants do on tasks that they have not seen: each is left out of the fit in turn.

A task's variants are left out with it. Trials and races are recorded around such estimates, and
every figure that judges the constants comes from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.curve import constants as c
from lrtool.curve.combine import Estimate, canonical, estimate
from lrtool.curve.trials import correct
from research import record
from research.fit import (
    CURVE,
    constants,
    decision,
    density,
    judge,
    race_half_width,
    race_rates,
    rows,
    tried,
    with_trials,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.regret.cells import Cell
    from research.fit import Row, Told

    Array = NDArray[np.float64]

LONGEST = 1_000_000  # steps: no cell has as many
WITHOUT = {  # anchors that are left out, to see what they are worth
    "the first update": ("critical", "ratio"),
    "the curve": CURVE,
}


def left_out(
    given: Sequence[Row],
    dense: dict[str, float],
    without: Sequence[str] = (),
    most: int = LONGEST,
) -> list[Estimate]:
    """Return each row's estimate with constants that have not seen its task.

    Args:
        given: all rows.
        dense: see `fit.density`.
        without: anchors that are left out, to see what they are worth.
        most: steps of a training; a longer one is taken to have as many.
    """
    by_base = {
        base: constants([row for row in given if row.base != base], dense)
        for base in {row.base for row in given}
    }
    return [
        _required(
            estimate(
                {name: place for name, place in row.found.items() if name not in without},
                per_decade=c.PER_DECADE,
                optimizer=canonical(row.cell.optimizer),
                family=None,
                level=row.level,
                steps=min(row.cell.steps, most),
                constants=by_base[row.base],
            )
        )
        for row in given
    ]


def _means(found: Sequence[Estimate]) -> Array:
    return np.array([each.mean for each in found])


def _required(found: Estimate | None) -> Estimate:
    assert found is not None, "an optimizer of the development cells has a prior"
    return found


def trial_centres(chosen: Sequence[Cell], cache: Path) -> dict[str, dict[str, float]]:
    """Return around which rates trials are to be recorded, log10, by cell and finder seed.

    Those of a long training stand where those of a short one would.
    """
    given = rows(chosen, cache)
    found: dict[str, dict[str, float]] = {}
    for row, centre in zip(given, left_out(given, density(chosen, cache), most=c.STEPS), strict=True):
        found.setdefault(row.cell.name, {})[row.seed] = centre.mean
    return found


@dataclass(frozen=True)
class LeftOut:
    """What each row's finder makes of all it saw, with constants that have not seen its task.

    Attributes:
        dense: see `fit.density`.
        told: by its trials; None without any.
        counts: it has trials.
        before: its estimate without trials, log10.
        after: with them; `before` where `counts` is false.
        spread_before: standard deviation of `before`.
        spread_after: standard deviation of `after`.
    """

    dense: dict[str, float]
    told: list[Told | None]
    counts: NDArray[np.bool_]
    before: Array
    after: Array
    spread_before: Array
    spread_after: Array


def with_all(given: Sequence[Row], chosen: Sequence[Cell], cache: Path) -> LeftOut:
    """Return each row's estimates, before its trials and after, by constants of other tasks."""
    dense = density(chosen, cache)
    found = left_out(given, dense)
    before, spread_before = _means(found), np.array([each.spread for each in found])
    told = tried(given, _means(left_out(given, dense, most=c.STEPS)), cache)
    counts = np.array([each is not None for each in told])
    after = list(found)
    for base in sorted({row.base for row in given}):
        here = np.array([row.base == base for row in given])
        others = [row for row, out in zip(given, here, strict=True) if not out]
        seen = [each for each, out in zip(told, here, strict=True) if not out]
        known = with_trials(constants(others, dense), others, before[~here], seen)
        for index in np.flatnonzero(here & counts).tolist():
            each = told[index]
            assert each is not None, "a row that counts has trials"
            after[index] = correct(found[index], *each, given[index].share, known)
    spread_after = np.array([each.spread for each in after])
    return LeftOut(dense, told, counts, before, _means(after), spread_before, spread_after)


def race_centres(chosen: Sequence[Cell], cache: Path) -> dict[str, dict[str, float]]:
    """Return the rates around which races are to be recorded, log10, by cell and finder seed."""
    given = rows(chosen, cache)
    found: dict[str, dict[str, float]] = {}
    for row, centre in zip(given, with_all(given, chosen, cache).after, strict=True):
        found.setdefault(row.cell.name, {})[row.seed] = float(centre)
    return found


def constants_with_provenance(chosen: Sequence[Cell], cache: Path) -> dict[str, Any]:
    """Return the constants with where they come from, and how they do on tasks left out."""
    given = rows(chosen, cache)
    seen = with_all(given, chosen, cache)
    raced = race_rates(given, cache)
    swept = decision(given, seen.before, seen.spread_before)
    tried = decision(
        [row for row, has in zip(given, seen.counts, strict=True) if has],
        seen.after[seen.counts],
        seen.spread_after[seen.counts],
    )
    known = replace(
        with_trials(constants(given, seen.dense), given, seen.before, seen.told),
        caution={"swept": swept[0], "tried": tried[0]},
        half_width={"swept": swept[1], "tried": tried[1], "raced": race_half_width(given, raced)},
    )

    def regrets(means: Array, spreads: Array, caution: float) -> Array:
        return judge(given, means, spreads, caution)[0]

    without_trials = regrets(seen.before, seen.spread_before, swept[0])
    everything = np.where(
        seen.counts, regrets(seen.after, seen.spread_after, tried[0]), without_trials
    )
    bold = np.where(
        seen.counts,
        regrets(seen.after, seen.spread_after, 0.0),
        regrets(seen.before, seen.spread_before, 0.0),
    )
    with_race = np.where(np.isfinite(raced), regrets(raced, seen.spread_after, 0.0), everything)
    without = {
        name: regrets(_means(left_out(given, seen.dense, names)), seen.spread_before, swept[0])
        for name, names in WITHOUT.items()
    }
    provenance = {
        "script": "python -m research fit",
        "cells": len({row.cell.name for row in given}),
        "tasks": sorted({row.cell.task for row in given}),
        "optimizers": sorted({row.cell.optimizer for row in given}),
        "finder_seeds": len(record.FINDER_SEEDS),
        "regret_left_out": _summary(given, everything),
        "regret_left_out_with_race": _summary(given, with_race),
        "regret_left_out_without_caution": _summary(given, bold),
        "regret_left_out_without_trials": _summary(given, without_trials),
        "regret_left_out_without_trials_and": {
            name: _summary(given, values) for name, values in without.items()
        },
        "interval_decades": float(np.mean(2 * tried[1] * seen.spread_after)),
    }
    return {"provenance": provenance, **asdict(known)}


def _summary(given: Sequence[Row], regrets: Array) -> dict[str, dict[str, float]]:
    found = {}
    for steps in (300, 3000):
        for schedule in ("constant", "cosine", "one_cycle"):
            here = [row.cell.steps == steps and row.cell.schedule == schedule for row in given]
            if any(here):
                values = regrets[here]
                found[f"{schedule}, {steps} steps"] = {
                    "mean": float(values.mean()),
                    "median": float(np.median(values)),
                    "p90": float(np.quantile(values, 0.9)),
                    "failures": float(np.mean(values > 0.5)),
                }
    return found
