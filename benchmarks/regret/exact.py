"""Training at exactly the rates that were suggested."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import finders
import grid
import plain

from lrtool.report import files

if TYPE_CHECKING:
    from pathlib import Path

    from cells import Cell

# Of each finder's seed: an even one and an odd one, so that both halves of the seeds judge.
SEEDS = {"0": (100, 101), "1": (102, 103), "2": (104, 101), finders.ANY: tuple(grid.SEEDS)}

Ends = dict[str, dict[str, list[float]]]  # repr(rate) → training seed → where the training ended


def file_of(cell: Cell, cache: Path) -> Path:
    """Return where a cell's trainings are kept."""
    return cache / "exact" / f"{cell.name}.json"


def read(cell: Cell, cache: Path) -> Ends:
    """Return the trainings that there are."""
    path = file_of(cell, cache)
    return json.loads(path.read_text()) if path.exists() else {}


def missing(cell: Cell, cache: Path) -> list[tuple[float, int]]:
    """Return the rates and seeds that have not trained yet."""
    done = read(cell, cache)
    wanted = sorted(
        {
            (answer["lr"], seed)
            for finder_seed, methods in finders.said(cell, cache).items()
            for answer in methods.values()
            if answer["lr"] is not None
            for seed in SEEDS[finder_seed]
        }
    )
    return [(rate, seed) for rate, seed in wanted if str(seed) not in done.get(repr(rate), ())]


def train(cell: Cell, cache: Path) -> None:
    """Train what is missing; every training is kept as it ends."""
    done = read(cell, cache)
    for rate, seed in missing(cell, cache):
        done.setdefault(repr(rate), {})[str(seed)] = list(plain.train(cell, rate, seed))
        files.write_text(file_of(cell, cache), json.dumps(done))
