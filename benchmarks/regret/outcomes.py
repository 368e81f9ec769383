"""What became of each suggestion: trained at exactly that rate, its regret, what it cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.regret import finders, grid, tasks, training
from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.regret.cells import Cell
    from benchmarks.regret.grid import Grid

    Array = NDArray[np.float64]

Ends = dict[str, dict[str, list[float]]]  # repr(rate) → training seed → where the training ended

# Of each finder's seed: an even one and an odd one, so that both halves of the seeds judge. A long
# training has the first alone: together they take most of the time.
TRAINING_SEEDS = {"0": (100, 101), "1": (103, 102), "2": (104, 101)}
LONG = 3000  # steps
UNSEEN = {"rmsprop", "muon"}  # that resemble no optimizer of development
OVERFIT = 0.5  # decades from the best rate for validation up to the best for the training loss


def file_of(cell: Cell, cache: Path) -> Path:
    """Return where a cell's trainings are kept."""
    return cache / "exact" / f"{cell.name}.json"


def training_seeds(cell: Cell, finder_seed: str) -> list[int]:
    """Return from which seeds a finder's rate trains; where none moves it, from those of all."""
    finders_seeds = map(str, finders.SEEDS) if finder_seed == finders.ANY else [finder_seed]
    count = 1 if cell.steps >= LONG else 2
    return sorted({seed for each in finders_seeds for seed in TRAINING_SEEDS[each][:count]})


def trained(cell: Cell, cache: Path) -> Ends:
    """Return the trainings that there are, at the grid's rates those of the grid among them.

    Equal seeds train alike at equal rates: none of these has to be trained anew.
    """
    record, _ = grid.read(cell, cache)
    found: Ends = {repr(grid.rate(int(place))): ends for place, ends in record["grid"].items()}
    for rate, ends in _kept(file_of(cell, cache)).items():
        found.setdefault(rate, {}).update(ends)
    return found


def _kept(path: Path) -> Ends:
    found: Ends = json.loads(path.read_text()) if path.exists() else {}
    return found


def missing(cell: Cell, cache: Path) -> list[tuple[float, int]]:
    """Return the rates and seeds that have not trained yet."""
    done = trained(cell, cache)
    wanted = sorted(
        {
            (answer["lr"], seed)
            for finder_seed, methods in finders.said(cell, cache).items()
            for answer in methods.values()
            if answer["lr"] is not None
            for seed in training_seeds(cell, finder_seed)
        }
    )
    return [(rate, seed) for rate, seed in wanted if str(seed) not in done.get(repr(rate), ())]


def train(cell: Cell, cache: Path) -> None:
    """Train what is missing; every training is kept as it ends."""
    path = file_of(cell, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _kept(path)
    for rate, seed in missing(cell, cache):
        done.setdefault(repr(rate), {})[str(seed)] = list(training.train(cell, rate, seed))
        files.write_text(path, json.dumps(done))


@dataclass(frozen=True)
class Outcome:
    """One suggestion of one method for one cell, trained at.

    Attributes:
        cell: which cell.
        method: of which finder.
        seed: of the finder; it decides the seeds of the trainings too.
        fixed: no finder's seed moves the rate.
        lr: the rate, None where there is none.
        regret: 1 where there is none.
        decades: log10 of the rate over the best one, NaN where there is none.
        window: the rates with little regret, log10.
        steps: the finder's cost.
        best_regret: regret of the best epochs, by the rate whose best epochs are the best.
        final: mean validation loss, training loss and error rate at the end of training.
        said: all that the method said.
    """

    cell: Cell
    method: str
    seed: str
    fixed: bool
    lr: float | None
    regret: float
    best_regret: float
    decades: float
    window: tuple[float, float]
    steps: float
    final: tuple[float, float, float]
    said: dict[str, Any]


def of_cell(cell: Cell, cache: Path) -> list[Outcome]:
    """Return the outcomes of all that was said about a cell.

    A rate that no finder's seed moves has an outcome for each of them all the same: its trainings
    from the same seeds as those of all other methods, for fair pairs.

    Raises:
        KeyError: a rate has not been trained at.
    """
    _, found = grid.read(cell, cache)
    _, best = grid.read(cell, cache, epoch="best")
    ends = trained(cell, cache)
    outcomes = []
    for whose, methods in finders.said(cell, cache).items():
        fixed = whose == finders.ANY
        for method, said in methods.items():
            for seed in map(str, finders.SEEDS) if fixed else [whose]:
                seeds = training_seeds(cell, seed)
                regret, best_regret, final = _judged(found, best, ends, said["lr"], seeds)
                outcomes.append(
                    Outcome(
                        cell=cell,
                        method=method,
                        seed=seed,
                        fixed=fixed,
                        lr=said["lr"],
                        regret=regret,
                        best_regret=best_regret,
                        decades=math.log10(said["lr"] or math.nan) - found.middle,
                        window=found.window,
                        steps=said["steps"],
                        final=final,
                        said=said,
                    )
                )
    return outcomes


def _judged(
    found: Grid, best: Grid, ends: Ends, rate: float | None, seeds: Sequence[int]
) -> tuple[float, float, tuple[float, float, float]]:
    """Return the regrets of a rate, and mean losses and error rate at the end of training."""
    if rate is None:
        return 1.0, 1.0, (math.nan, math.nan, math.nan)
    ended = [training.Final(*ends[repr(rate)][str(seed)]) for seed in seeds]
    finals = np.array(ended, dtype=float)
    validation, train_loss, error, *_ = finals.mean(0).tolist()
    rows = np.array(seeds) - grid.SEEDS[0]
    regrets = found.excess(rows, finals[:, 0]), best.excess(rows, finals[:, 3])
    return *regrets, (validation, train_loss, error)


def regrets(outcomes: Sequence[Outcome], cells: Sequence[Cell], methods: Sequence[str]) -> Array:
    """Return the regrets, shape (methods, cells, finder seeds).

    Raises:
        SystemExit: a method has not answered for a cell: leaving it out would flatter somebody.
    """
    place = {(o.method, o.cell, o.seed): o.regret for o in outcomes}
    table = np.full((len(methods), len(cells), len(finders.SEEDS)), np.nan)
    for m, method in enumerate(methods):
        for c, cell in enumerate(cells):
            for s, seed in enumerate(finders.SEEDS):
                table[m, c, s] = place.get((method, cell, str(seed)), np.nan)
    for method, own in zip(methods, table, strict=True):
        lacking = [cell.name for cell, row in zip(cells, own, strict=True) if np.isnan(row).any()]
        if lacking:
            raise SystemExit(f"{method} has no answer for {', '.join(lacking)}: run `rates` first")
    return table


def overfits(record: dict[str, Any], found: Grid) -> bool:
    """Tell whether the training loss is lowest at a far higher rate than the validation loss.

    There a low rate acts as early stopping, which no short test can see.
    """
    train_loss = {
        int(place): float(np.mean([final[1] for final in ends.values()]))
        for place, ends in record["grid"].items()
    }
    lowest = min(train_loss, key=lambda place: (train_loss[place], place)) / grid.PER_DECADE
    return lowest - found.middle >= OVERFIT


def groups(chosen: Sequence[Cell], cache: Path) -> dict[str, list[Cell]]:
    """Return the cells that are looked at together, by what they have in common."""
    overfitting = {cell for cell in chosen if overfits(*grid.read(cell, cache))}
    found = {
        "all": list(chosen),
        "constant": [c for c in chosen if c.schedule == "constant"],
        "warmup + cosine": [c for c in chosen if c.schedule == "cosine"],
        "one-cycle": [c for c in chosen if c.schedule == "one_cycle"],
        "prior-breaking": [c for c in chosen if _breaking(c)],
        "unseen optimizers": [c for c in chosen if c.optimizer in UNSEEN],
        "T ≥ 3,000": [c for c in chosen if c.steps >= LONG],
        "each sample once": [c for c in chosen if tasks.TASKS[c.task].base == "stream"],
        "overfitting": [c for c in chosen if c in overfitting],
        "not overfitting": [c for c in chosen if c not in overfitting],
    }
    kinds = dict.fromkeys(tasks.TASKS[c.task].kind for c in chosen)
    if len(kinds) > 1:
        found |= {kind: [c for c in chosen if tasks.TASKS[c.task].kind == kind] for kind in kinds}
    return {name: cells for name, cells in found.items() if cells}


def _breaking(cell: Cell) -> bool:
    task = tasks.TASKS[cell.task]
    changed = task.base != task.name and not task.name.endswith("_large")
    return changed and task.kind == "scratch"
