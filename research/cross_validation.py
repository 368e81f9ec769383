"""How the constants do on tasks that they have not seen: each is left out of the fit in turn.

A task's variants are left out with it. Trials and races are recorded around such estimates, and
every figure that judges the constants comes from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.regret import tasks
from benchmarks.regret.statistics import SMALL
from lrtool.curve import constants as c
from lrtool.curve.combine import Estimate, canonical, estimate
from lrtool.curve.trials import correct
from research import record
from research.fit import (
    COVERAGE,
    CURVE,
    certain,
    constants,
    density,
    half_width,
    judge,
    raced,
    rows,
    tried,
    tried_as_a_whole,
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
    for row, centre in zip(
        given, left_out(given, density(chosen, cache), most=c.STEPS), strict=True
    ):
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
        tried: with them; `before` where `counts` is false.
        spreads: standard deviations of `before`.
    """

    dense: dict[str, float]
    told: list[Told | None]
    counts: NDArray[np.bool_]
    before: Array
    tried: Array
    spreads: Array


def with_trials_of_all(given: Sequence[Row], chosen: Sequence[Cell], cache: Path) -> LeftOut:
    """Return each row's estimates, before its trials and with them, by constants of other tasks."""
    dense = density(chosen, cache)
    found = left_out(given, dense)
    before = _means(found)
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
            after[index] = correct(
                found[index], each.position, each.overfitting, given[index].share, known
            )
    spreads = np.array([each.spread for each in found])
    return LeftOut(dense, told, counts, before, _means(after), spreads)


def full_trial_centres(chosen: Sequence[Cell], cache: Path) -> dict[str, dict[str, float]]:
    """Return where full trials are to be recorded, log10, by cell and finder seed.

    Where one is due with one seed, it may be with the others, once constants change a little.
    """
    given = rows(chosen, cache)
    seen = with_trials_of_all(given, chosen, cache)
    due = {row.cell for row, told in zip(given, seen.told, strict=True) if told and told.full_trial}
    found: dict[str, dict[str, float]] = {}
    for row, centre in zip(given, seen.tried, strict=True):
        if row.cell in due:
            found.setdefault(row.cell.name, {})[row.seed] = float(centre)
    return found


def race_centres(chosen: Sequence[Cell], cache: Path) -> dict[str, dict[str, float]]:
    """Return the rates around which races are to be recorded, log10, by cell and finder seed."""
    given = rows(chosen, cache)
    seen = with_trials_of_all(given, chosen, cache)
    found: dict[str, dict[str, float]] = {}
    rates = tried_as_a_whole(given, seen.tried, seen.told, cache)
    for row, centre in zip(given, rates, strict=True):
        found.setdefault(row.cell.name, {})[row.seed] = float(centre)
    return found


def constants_with_provenance(chosen: Sequence[Cell], cache: Path) -> dict[str, Any]:
    """Return the constants with where they come from, and how they do on tasks left out."""
    given = rows(chosen, cache)
    seen = with_trials_of_all(given, chosen, cache)
    after = tried_as_a_whole(given, seen.tried, seen.told, cache)
    has = seen.counts
    noise = np.array([each.noise for each in seen.told if each is not None])

    race, race_noise = raced(given, cache)
    race = np.where(np.isfinite(race), race, after)

    regrets, away = judge(given, after)
    least = certain(regrets[has], noise)
    widths = {
        "swept": float(np.quantile(judge(given, seen.before)[1] / seen.spreads, COVERAGE)),
        "tried": half_width(away[has], noise, least),
        "raced": half_width(judge(given, race)[1], race_noise, least),
    }
    known = replace(
        with_trials(constants(given, seen.dense), given, seen.before, seen.told),
        half_width=widths,
        certain=least,
    )
    # the same with limits that have not seen the task, or the optimizer
    limits = {"task": [row.base for row in given], "optimizer": [row.optimizer for row in given]}
    apart = {name: sure_without(of, has, regrets, seen.told) for name, of in limits.items()}
    without = {name: _means(left_out(given, seen.dense, names)) for name, names in WITHOUT.items()}
    sure = np.ones(len(given), dtype=bool)
    sure[has] = noise <= least

    def summary(rates: Array) -> dict[str, dict[str, float]]:
        return _summary(given, judge(given, rates)[0])

    provenance = {
        "script": "python -m research fit",
        "cells": len({row.cell.name for row in given}),
        "tasks": sorted({row.cell.task for row in given}),
        "optimizers": sorted({row.optimizer for row in given}),
        "finder_seeds": len(record.FINDER_SEEDS),
        "regret_left_out": summary(after),
        "regret_left_out_with_race": summary(race),
        "regret_left_out_without_full_trials": summary(seen.tried),
        "regret_left_out_without_trials": summary(seen.before),
        "regret_left_out_without_trials_and": {
            name: summary(rates) for name, rates in without.items()
        },
        "verdicts": {
            "find": _verdicts(regrets, sure),
            **{
                f"find, with the limit of other {name}s": _verdicts(regrets, each)
                for name, each in apart.items()
            },
            "with a race": _verdicts(judge(given, race)[0], race_noise <= least),
        },
    }
    return {"provenance": provenance, **asdict(known)}


def sure_without(
    of: Sequence[str], has: NDArray[np.bool_], regrets: Array, told: Sequence[Told | None]
) -> NDArray[np.bool_]:
    """Return which rows are confident, each by a limit that rows of the same name have no part in.

    Args:
        of: the name of each row's task, or optimizer.
        has: which rows have trials; the others are confident.
        regrets: of each row.
        told: by its trials.
    """
    names, sure = np.array(of), ~has
    noise = np.array([np.nan if each is None else each.noise for each in told])
    for name in set(of):
        others = has & (names != name)
        sure |= has & (names == name) & (noise <= certain(regrets[others], noise[others]))
    return sure


def _verdicts(regrets: Array, sure: NDArray[np.bool_]) -> dict[str, float]:
    """Return how much verdicts by noise alone tell."""
    return {
        "confident": float(sure.mean()),
        "confident_small": float(np.mean(regrets[sure] <= SMALL)),
        "confident_mean": float(regrets[sure].mean()),
        "uncertain_mean": float(regrets[~sure].mean()),
    }


def _summary(given: Sequence[Row], regrets: Array) -> dict[str, dict[str, float]]:
    """Return the regrets by schedule and length; of other kinds than from nothing by kind."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(given):
        kind = tasks.TASKS[row.cell.task].kind
        name = f"{row.cell.schedule}, {row.cell.steps} steps" if kind == "scratch" else kind
        groups.setdefault(name, []).append(index)
        if kind != "scratch":
            groups.setdefault("other kinds", []).append(index)
    return {
        name: {
            "mean": float(regrets[here].mean()),
            "median": float(np.median(regrets[here])),
            "p90": float(np.quantile(regrets[here], 0.9)),
            "failures": float(np.mean(regrets[here] > 0.5)),
        }
        for name, here in groups.items()
    }
