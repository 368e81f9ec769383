"""The constants of the suggestion, fitted on development cells.

Nothing here judges them: `cross_validation.py` does, on tasks left out of the fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.regret import grid, tasks
from lrtool.curve import constants as c
from lrtool.curve.anchors import locate
from lrtool.curve.combine import canonical, places
from lrtool.curve.constants import Constants
from lrtool.curve.smooth import fit as smooth
from lrtool.curve.trials import REACH, next_place, position
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
RELATIVES = {  # of optimizers that development has not seen
    "nesterov": "sgd_momentum",
    "adamw_decay": "adamw",
    "nadam": "adamw",
    "rmsprop": "adamw",
    "muon": "adamw",
}
LEAST_DESCENT = 0.02  # share of the descent of the best trial on the lattice that shows something
COVERAGE = 0.8  # of the interval on development cells
LEAST_HALF = 0.05  # decades: an interval narrower than this would mean nothing
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


def tried(given: Sequence[Row], centres: Array, cache: Path) -> list[float | None]:
    """Return what the trials around each row's estimate come to; None where they show nothing.

    Args:
        given: rows.
        centres: each row's estimate, log10.
        cache: of the recordings, of which losses between two rates are read.
    """
    return [_tried(row, centre, cache) for row, centre in zip(given, centres, strict=True)]


def _tried(row: Row, centre: float, cache: Path) -> float | None:
    seen = json.loads(record.trials_file(row.cell, cache).read_text())[row.seed]
    rates, losses, untrained = record.read_trials(seen)
    places = [centre - REACH, centre + REACH]
    while True:
        ends = list(np.interp(places, rates, losses))
        more = next_place(places, ends, untrained)
        if more is None:
            break
        places.append(more)
    if untrained - min(ends) < LEAST_DESCENT * (untrained - min(losses)):
        return None
    return position(places, ends, untrained) - centre


def race_rates(given: Sequence[Row], cache: Path) -> Array:
    """Return the rate that each row's race named, log10; NaN where nothing could be compared."""
    found = []
    for row in given:
        seen = json.loads(record.races_file(row.cell, cache).read_text())[row.seed]
        found.append(np.nan if seen["named"] is None else seen["named"])
    return np.array(found)


def schedules(given: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return by how much each schedule's best rate lies above a cosine's, by optimizer and so on.

    An optimizer that was not trained with a schedule takes its family's.
    """
    once = _once(given, 300)
    best = {(r.cell.task, r.cell.optimizer, r.cell.schedule): r.best for r in once}
    return {
        schedule: _offsets(
            np.array(
                [
                    best.get((r.cell.task, r.cell.optimizer, schedule), np.nan)
                    - best[r.cell.task, r.cell.optimizer, "cosine"]
                    for r in once
                ]
            ),
            once,
        )
        for schedule in sorted({r.cell.schedule for r in once})
    }


def length(given: Sequence[Row]) -> float:
    """Return by how much the best rate rises for ten times the steps, in the median.

    Longer cells have more samples than the short ones of the same name, where those are few.
    """
    short = {(r.cell.task, r.cell.optimizer, r.cell.schedule): r.best for r in _once(given, 300)}
    moved = [
        r.best - short[r.cell.task.removesuffix("_large"), r.cell.optimizer, r.cell.schedule]
        for r in _once(given, 3000)
    ]
    return float(np.median(moved)) if moved else 0.0


def _once(given: Sequence[Row], steps: int) -> list[Row]:
    return [row for row in given if row.cell.steps == steps and row.seed == "0"]


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
    moved, longer = schedules(given), length(given)

    def error(row: Row, anchor: str) -> float:
        """Return log(best / anchor) as it would be for a cosine of 300 steps."""
        there = 0.0 if anchor == "prior" else row.found.get(anchor, np.nan)
        shift = moved[row.cell.schedule][row.optimizer]
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
        schedules=moved,
        length=longer,
        trial_gain=0.0,
        trial_shift=0.0,
        trial_spread=0.0,
        caution={},
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
    base: Constants,
    given: Sequence[Row],
    before: Array,
    positions: Sequence[float | None],
) -> Constants:
    """Add what the trials decide, fitted on these rows.

    Args:
        base: constants of sweep and first update.
        given: rows.
        before: each row's estimate before its trials, log10, by constants that have not seen it.
        positions: of its trials; None without any.
    """
    error = np.array([row.best for row in given]) - before
    some = np.array([each is not None for each in positions])
    decades = np.array([0.0 if each is None else each for each in positions])[some]
    gain, shift = np.polyfit(decades, np.clip(error[some], -CLIPPED, CLIPPED), 1)
    return replace(
        base,
        trial_gain=float(gain),
        trial_shift=float(shift),
        trial_spread=_spread(error[some] - shift - gain * decades),
    )


def judge(
    given: Sequence[Row], means: Array, spreads: Array, caution: float
) -> tuple[Array, Array]:
    """Return each row's regret, and how many spreads from its rate the window of good ones is."""
    rates = means - caution * spreads**2
    regrets = np.array([row.grid.regret(rate) for row, rate in zip(given, rates, strict=True)])
    away = [
        max(row.grid.window[0] - rate, rate - row.grid.window[1], 0.0) / spread
        for row, rate, spread in zip(given, rates, spreads, strict=True)
    ]
    return regrets, np.array(away)


def decision(given: Sequence[Row], means: Array, spreads: Array) -> tuple[float, float]:
    """Return the caution that costs least, and the half-width that reaches the window in 80%."""
    cautions = np.arange(0.0, 3.01, 0.25)
    costs = [float(np.mean(judge(given, means, spreads, each)[0])) for each in cautions]
    caution = float(cautions[int(np.argmin(costs))])
    _, away = judge(given, means, spreads, caution)
    return caution, float(np.quantile(away, COVERAGE))


def race_half_width(given: Sequence[Row], rates: Array) -> float:
    """Return how far around a race's rate the interval must reach, in decades."""
    compared = np.isfinite(rates)
    _, away = judge(
        [row for row, has in zip(given, compared, strict=True) if has],
        rates[compared],
        np.ones(int(compared.sum())),
        0.0,
    )
    return max(float(np.quantile(away, COVERAGE)), LEAST_HALF)


def tuned(given: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the control that needs no sweep: log10 of one rate for an optimizer and a schedule.

    It has the least mean regret on the development cells; optimizers that are not among them take
    their nearest relative's.
    """
    found: dict[str, dict[str, float]] = {}
    for optimizer in sorted({row.cell.optimizer for row in given}):
        found[optimizer] = {}
        for schedule in ("constant", "cosine", "one_cycle"):
            grids = [
                row.grid
                for row in given
                if row.seed == "0"
                and (row.cell.optimizer, row.cell.schedule) == (optimizer, schedule)
            ] or [
                row.grid
                for row in given
                if row.seed == "0"
                and (row.cell.optimizer, row.cell.schedule) == (optimizer, "cosine")
            ]
            rates = np.arange(-6.0, 2.0, 0.05)
            costs = [np.mean([each.regret(rate) for each in grids]) for rate in rates]
            found[optimizer][schedule] = round(float(rates[int(np.argmin(costs))]), 2)
    return found | {name: found[relative] for name, relative in RELATIVES.items()}
