"""The constants of the suggestion, fitted on development cells.

Nothing here judges them: `cross_validation.py` does, on tasks left out of the fit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from benchmarks.regret import grid, tasks, training
from benchmarks.regret.statistics import SMALL
from lrtool.curve import constants as c
from lrtool.curve import full_trial
from lrtool.curve.anchors import locate
from lrtool.curve.combine import canonical, places
from lrtool.curve.combine import held as held_by
from lrtool.curve.constants import Constants
from lrtool.curve.smooth import fit as smooth
from lrtool.curve.trials import (
    REACH,
    noise,
    outward,
    overfitting,
    position_of,
    weight,
    worthwhile,
)
from lrtool.report.records import Candidate, Race
from research import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.regret.cells import Cell
    from benchmarks.regret.grid import Grid

    Array = NDArray[np.float64]

CURVE = ("minimum", "rise", "divergence")
ANCHORS = (*CURVE, "critical", "ratio")
TO_FAMILY = 2  # tasks' worth of weight that an optimizer's offset gives to its family's
CLIPPED = 1.5  # decades beyond which an error counts no more in the line of the trials
CLIP = 3.0  # robust standard deviations beyond which an error counts no more
RELATIVES = {  # of optimizers that development has not seen, or hardly
    "adam": "adamw",
    "nesterov": "sgd_momentum",
    "adamw_decay": "adamw",
    "nadam": "adamw",
    "rmsprop": "adamw",
    "muon": "adamw",
}
HUGE = 1e9  # stands for a loss that is not finite, between two trials
COVERAGE = 0.8  # of the interval on development cells
CONFIDENT = 0.96  # how often: the 95% that are promised, and what choosing the limit costs
SHRINK = 0.3  # of the correlations, towards half of what they are


@dataclass(frozen=True)
class Row:
    """What one finder saw of a cell, and the truth.

    Attributes:
        cell: the cell.
        grid: its exhaustive grid.
        seed: of the finder.
        found: log10 of the rate at each anchor.
        best: the middle of the cell's window of good rates, log10.
    """

    cell: Cell
    grid: Grid
    seed: str
    found: dict[str, float]

    @property
    def best(self) -> float:
        """The middle of the window."""
        return self.grid.middle

    @property
    def optimizer(self) -> str:
        """The optimizer as the constants name it."""
        return canonical(self.cell.optimizer) or ""

    @property
    def base(self) -> str:
        """The task that stands for all its variants."""
        return tasks.TASKS[self.cell.task].base

    @property
    def level(self) -> float:
        """The mean of the cell's schedule, as a share of its base rate."""
        return _level(self.cell.schedule, self.cell.steps)

    @property
    def passes(self) -> float:
        """How many times the cell's training sees each sample."""
        return self.cell.steps / _epoch(self.cell.task)

    @property
    def share(self) -> float:
        """How much its trials count: without a curve they are all that there is."""
        return weight(self.cell.steps) if self.found.keys() & set(CURVE) else 1.0


@cache
def _level(schedule: str, steps: int) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = training.schedule_of(optimizer, schedule, steps, 1.0)
    total = 0.0
    for _ in range(steps):
        total += float(rates.get_last_lr()[0]) / steps
        optimizer.step()
        rates.step()
    return total


@cache
def _epoch(task: str) -> int:
    """Return the updates of one pass over a task's training samples."""
    return math.ceil(len(tasks.samples(task).x) / tasks.TASKS[task].batch)


class Told(NamedTuple):
    """What trials tell: see `lrtool.curve.trials`.

    Attributes:
        position: where they put the best rate.
        overfitting: how much the training will overfit.
        noise: of their descent.
        full_trial: a full trial is due.
    """

    position: float
    overfitting: float
    noise: float
    full_trial: bool


def rows(chosen: Sequence[Cell], cache: Path) -> list[Row]:
    """Return what finders saw of these cells."""
    looks: dict[Path, dict[str, dict[str, float]]] = {}
    found = []
    for cell in chosen:
        path = record.look_file(cell, cache)
        if path not in looks:
            seen = json.loads(path.read_text())
            looks[path] = {seed: _places(one, "sweep") for seed, one in seen.items()}
        _, truth = grid.read(cell, cache)
        found += [Row(cell, truth, seed, there) for seed, there in looks[path].items()]
    return found


def _places(seen: dict[str, Any], which: str) -> dict[str, float]:
    sweep, first = record.read_look(seen, which)
    fitted = smooth([sweep])
    return places(None if fitted is None else locate(fitted, fitted.loss), first)


def tried(given: Sequence[Row], centres: Array, cache: Path) -> list[Told | None]:
    """Return what the trials around each row's estimate tell; None where they show nothing.

    Args:
        given: rows.
        centres: each row's estimate for a training of 300 steps at most, log10.
        cache: of the recordings; a trial between two of these is interpolated.
    """
    return [
        _tried(row, centre, cache) if worthwhile(row.share, row.passes) else None
        for row, centre in zip(given, centres, strict=True)
    ]


def _tried(row: Row, centre: float, cache: Path) -> Told | None:
    seen = json.loads(record.trials_file(row.cell, cache).read_text())[row.seed]
    there = _between(seen, [centre - REACH, centre + REACH])
    while (more := outward(there)) is not None:
        places = [*(math.log10(one.lr) for one in there.candidates), more]
        there = _between(seen, places)
    position = position_of(there)
    if position is None:
        return None
    due = full_trial.is_due(there, row.cell.steps, row.passes)
    return Told(position, overfitting(there, row.passes), noise(there), due)


def _between(seen: dict[str, Any], places: Sequence[float]) -> Race:
    """Return trials at other rates than those recorded, every number of theirs interpolated."""
    recorded, steps = seen["candidates"], seen["steps"]
    rates = [one["lr"] for one in recorded]

    def at(place: float, values: Sequence[float | None]) -> float:
        known = [HUGE if v is None or not math.isfinite(v) else min(v, HUGE) for v in values]
        return float(np.interp(place, rates, known))

    def one(place: float) -> Candidate:
        losses = zip(*(_padded(each["loss"], steps) for each in recorded), strict=True)
        errors = [math.nan if (e := each["descent_error"]) is None else e for each in recorded]
        error = float(np.interp(place, rates, errors))
        return Candidate(
            lr=10.0**place,
            origin="lower",
            loss=tuple(at(place, loss) for loss in losses),
            half_loss=None,
            final_loss=at(place, [each["final"] for each in recorded]),
            standard_error=None,
            outcome="lost",
            descent_error=None if math.isnan(error) else error,
        )

    return Race(
        seed=0,
        steps=steps,
        steps_spent=0.0,
        measure="validation",
        examples=seen["examples"],
        untrained_loss=seen["untrained"],
        candidates=tuple(map(one, places)),
        interrupted=False,
    )


def _padded(loss: list[float], steps: int) -> list[float]:
    return loss + [HUGE] * (steps - len(loss))


def tried_as_a_whole(
    given: Sequence[Row], rates: Array, told: Sequence[Told | None], cache: Path
) -> Array:
    """Return the rates after the full trials of those rows that have one, log10.

    The sum of rates over steps at which the validation loss was lowest is taken to be the same for
    a trial at another rate nearby.

    Args:
        given: rows.
        rates: after their trials, log10.
        told: by these.
        cache: of the recordings.
    """
    after = rates.copy()
    for index, (row, each) in enumerate(zip(given, told, strict=True)):
        if each is not None and each.full_trial:
            seen = json.loads(record.full_trials_file(row.cell, cache).read_text())[row.seed]
            if seen["lowering"] < 0:
                after[index] = min(rates[index], seen["centre"] + seen["lowering"])
    return after


def raced(given: Sequence[Row], cache: Path) -> tuple[Array, Array]:
    """Return the rate that each row's race named, log10, and the race's noise.

    The rate is NaN where nothing could be compared.
    """
    rates, noise = [], []
    for row in given:
        seen = json.loads(record.races_file(row.cell, cache).read_text())[row.seed]
        rates.append(np.nan if seen["named"] is None else seen["named"])
        noise.append(seen["noise"])
    return np.array(rates), np.array(noise)


def held(given: Sequence[Row]) -> dict[str, float]:
    """Return how far a constant schedule's best rate lies above a cosine's, by optimizer and so on.

    An optimizer that was not trained with both takes its family's.
    """
    once = [row for row in given if row.seed == "0"]
    best = {(r.cell.task, r.cell.optimizer, r.cell.steps, r.cell.schedule): r.best for r in once}

    def of(row: Row, schedule: str) -> float:
        return best.get((row.cell.task, row.cell.optimizer, row.cell.steps, schedule), np.nan)

    return _offsets(np.array([of(row, "constant") - of(row, "cosine") for row in once]), once)


def length(given: Sequence[Row]) -> float:
    """Return by how much the best rate rises for ten times the steps, in the median.

    Longer cells have more samples than the short ones of the same name, where those are few.
    """
    once = [row for row in given if row.seed == "0"]
    short = {
        (r.cell.task, r.cell.optimizer, r.cell.schedule): r.best
        for r in once
        if r.cell.steps == c.STEPS
    }
    moved = []
    for row in once:
        task = row.cell.task.removesuffix("_large")
        before = short.get((task, row.cell.optimizer, row.cell.schedule))
        if row.cell.steps == 3000 and before is not None:
            moved.append(row.best - before)
    return float(np.median(moved)) if moved else 0.0


def density(chosen: Sequence[Cell], cache: Path) -> dict[str, float]:
    """Return by how much each anchor moves down when a sweep has ten times the steps a decade."""
    moved: dict[str, list[float]] = {name: [] for name in CURVE}
    for path in sorted({record.look_file(cell, cache) for cell in chosen}):
        for seen in json.loads(path.read_text()).values():
            usual, dense = _places(seen, "sweep"), _places(seen, "dense")
            for name in CURVE:
                if name in usual and name in dense:
                    moved[name].append((usual[name] - dense[name]) / record.DENSER_DECADES)
    return {name: float(np.median(values)) for name, values in moved.items()}


def constants(given: Sequence[Row], density: dict[str, float]) -> Constants:
    """Fit everything that the sweep and the first update decide."""
    higher, longer = held(given), length(given)

    def error(row: Row, anchor: str) -> float:
        """Return log(best / anchor) as it would be for a cosine of 300 steps."""
        there = 0.0 if anchor == "prior" else row.found.get(anchor, np.nan)
        shift = held_by(row.level) * higher[row.optimizer]
        return row.best - shift - longer * np.log10(row.cell.steps / c.STEPS) - there

    errors = {a: np.array([error(row, a) for row in given]) for a in (*ANCHORS, "prior")}
    offsets = {a: _offsets(errors[a], given) for a in errors}
    known = {row.optimizer for row in given}
    offsets["prior"] = {k: v for k, v in offsets["prior"].items() if k in known}
    levels = {"optimizer": _known, "family": _by_family, "pooled": _by_none}
    spreads = {}
    for level, offset in levels.items():
        spreads[level] = {
            a: _spread(errors[a] - offset(errors[a], given))
            for a in errors
            if a != "prior" or level == "optimizer"
        }
    left = np.column_stack([errors[a] - _known(errors[a], given) for a in ANCHORS])
    return Constants(
        anchors=ANCHORS,
        offsets=offsets,
        spreads=spreads,
        correlation=_correlation(left),
        density=density,
        held=higher,
        length=longer,
        trial_gain=0.0,
        trial_shift={},
        trial_overfit=0.0,
        certain=0.0,
        half_width={},
        window=float(np.median([np.ptp(row.grid.window) / 2 for row in given])),
    )


def _middle(values: Array) -> float:
    """Return Huber's estimate of location (1964): a mean in which nothing far off counts much."""
    values = values[np.isfinite(values)]
    middle = float(np.median(values))
    for _ in range(5):
        scale = 1.4826 * float(np.median(np.abs(values - middle))) + 0.05
        weight = np.minimum(1, 1.5 * scale / np.maximum(np.abs(values - middle), 1e-9))
        middle = float(np.average(values, weights=weight))
    return middle


def _offsets(error: Array, given: Sequence[Row]) -> dict[str, float]:
    """Return the offsets by optimizer, drawn towards their family's; by family; and pooled.

    An optimizer counts as much as it has tasks; one without any takes its family's.
    """
    names = np.array([row.optimizer for row in given])
    bases = np.array([row.base for row in given])
    has = np.isfinite(error)
    own = {name: _middle(error[has & (names == name)]) for name in sorted(set(names[has]))}
    pooled = float(np.mean(list(own.values())))
    families = {}
    for family in ("proportional", "adaptive"):
        members = [own[name] for name in own if c.FAMILIES[name] == family]
        families[family] = float(np.mean(members)) if members else pooled
    drawn = {}
    for name in sorted(set(names)):
        there = len(set(bases[has & (names == name)]))
        towards = families[c.FAMILIES[name]]
        drawn[name] = (there * own.get(name, 0.0) + TO_FAMILY * towards) / (there + TO_FAMILY)
    return {**drawn, **families, "pooled": pooled}


def _known(error: Array, given: Sequence[Row]) -> Array:
    found = _offsets(error, given)
    return np.array([found[row.optimizer] for row in given])


def _by_family(error: Array, given: Sequence[Row]) -> Array:
    """Return each row's offset as the other optimizers of its family give it."""
    return _by_others(error, given, lambda name, other: c.FAMILIES[name] == c.FAMILIES[other])


def _by_none(error: Array, given: Sequence[Row]) -> Array:
    """Return each row's offset as all other optimizers give it."""
    return _by_others(error, given, lambda _name, _other: True)


def _by_others(error: Array, given: Sequence[Row], alike: Callable[[str, str], bool]) -> Array:
    names = np.array([row.optimizer for row in given])
    own = {name: _middle(error[names == name]) for name in sorted(set(names))}
    others = {
        name: float(np.mean([own[k] for k in own if k != name and alike(name, k)])) for name in own
    }
    return np.array([others[name] for name in names])


def _spread(left: Array) -> float:
    left = left[np.isfinite(left)]
    scale = 1.4826 * float(np.median(np.abs(left)))
    return float(np.sqrt(np.mean(np.clip(left, -CLIP * scale, CLIP * scale) ** 2)))


def _correlation(left: Array) -> tuple[tuple[float, ...], ...]:
    """Return the correlations of the columns, each over the rows that both have, shrunk."""
    count = left.shape[1]
    scaled = left / np.array([_spread(left[:, k]) for k in range(count)])
    scaled = np.clip(scaled, -CLIP, CLIP)
    found = np.eye(count)
    for i in range(count):
        for j in range(i):
            both = np.isfinite(scaled[:, i]) & np.isfinite(scaled[:, j])
            found[i, j] = found[j, i] = np.mean(scaled[both, i] * scaled[both, j])
    found = (1 - SHRINK) * found + SHRINK * np.clip(found, 0, 1) / 2
    np.fill_diagonal(found, 1.0)
    assert np.linalg.eigvalsh(found).min() > 0.01, "the correlations contradict each other"
    return tuple(tuple(float(value) for value in row) for row in found)


def with_trials(
    base: Constants, given: Sequence[Row], before: Array, told: Sequence[Told | None]
) -> Constants:
    """Add what the trials decide, fitted on these rows.

    Args:
        base: constants of sweep and first update.
        given: rows.
        before: each row's estimate before its trials, log10, by constants that have not seen it.
        told: by its trials; None without any.
    """
    some = [(row, mean, each) for row, mean, each in zip(given, before, told, strict=True) if each]
    error = np.array([row.best - mean for row, mean, _ in some])
    seen = np.array(
        [(row.share, row.share * each.position, each.overfitting) for row, _, each in some]
    )
    line, *_ = np.linalg.lstsq(seen, np.clip(error, -CLIPPED, CLIPPED))
    shift, gain, lower = line.tolist()
    left = error - seen @ line
    left[seen[:, 0] < 1] = np.nan  # where trials count less, the shift is not seen as a whole
    shifts = _offsets(left, [row for row, _, _ in some])
    return replace(
        base,
        trial_gain=float(gain),
        trial_shift={key: shift + value for key, value in shifts.items()},
        trial_overfit=float(lower),
    )


def judge(given: Sequence[Row], rates: Array) -> tuple[Array, Array]:
    """Return each rate's regret, and its distance to the window of good rates, in decades."""
    regrets = [row.grid.regret(rate) for row, rate in zip(given, rates, strict=True)]
    away = [
        max(row.grid.window[0] - rate, rate - row.grid.window[1], 0.0)
        for row, rate in zip(given, rates, strict=True)
    ]
    return np.array(regrets), np.array(away)


def certain(regrets: Array, noise: Array) -> float:
    """Return the noise up to which a regret is hardly ever above `SMALL`."""
    order = np.argsort(noise)
    share = np.cumsum(regrets[order] <= SMALL) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(share >= CONFIDENT)
    return float(noise[order][enough[-1]]) if enough.size else 0.0


def half_width(away: Array, noise: Array, least: float) -> float:
    """Return the half-width, in units of noise, with which `COVERAGE` of intervals reach a window.

    Those that stand above the noise `least` alone: of the others, nearly all rates lie in it.

    Args:
        away: decades from each rate to the window of good ones.
        noise: of each one's trials or race.
        least: the noise up to which a suggestion is confident.
    """
    away, noise = away[noise > least], noise[noise > least]
    for width in np.arange(0.5, 10.01, 0.25):
        half = np.clip(width * noise, c.LEAST_HALF, c.MOST_HALF)
        if np.mean(away <= half) >= COVERAGE:
            return float(width)
    return 10.0


def tuned(chosen: Sequence[Cell], cache: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the control that needs no sweep: log10 of one rate for an optimizer and a schedule.

    It has the least mean regret on the development cells, of tasks trained from nothing ("scratch")
    and of all other kinds ("other"). Optimizers that are not among these take their nearest
    relative's rates, and schedules a cosine's; where other kinds have neither, they are those of
    "scratch".
    """
    rates = np.arange(-6.0, 2.0, 0.05)
    found: dict[str, dict[str, dict[str, float]]] = {"scratch": {}, "other": {}}
    grids: dict[tuple[str, str, str], list[Grid]] = {}
    for cell in chosen:
        group = "scratch" if tasks.TASKS[cell.task].kind == "scratch" else "other"
        key = group, cell.optimizer, cell.schedule
        grids.setdefault(key, []).append(grid.read(cell, cache)[1])
    for (group, optimizer, schedule), those in sorted(grids.items()):
        costs = [np.mean([each.regret(rate) for each in those]) for rate in rates]
        best = round(float(rates[int(np.argmin(costs))]), 2)
        found[group].setdefault(optimizer, {})[schedule] = best
    scratch, other = found["scratch"], found["other"]
    for mine in scratch.values():
        mine.setdefault("one_cycle", mine["cosine"])
    for optimizer, rates_of in scratch.items():
        other[optimizer] = rates_of | other.get(optimizer, {})
    return {
        group: mine | {name: mine[relative] for name, relative in RELATIVES.items()}
        for group, mine in found.items()
    }
