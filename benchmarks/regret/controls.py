"""What needs no curve: rates that anyone has without a finder, and a grid of a finder's cost."""

from __future__ import annotations

import inspect
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cost
import numpy as np
import optimizers
import plain
import tasks

if TYPE_CHECKING:
    from cells import Cell

CONSTANTS = Path(__file__).with_name("constants_tuned.json")
DEFAULT, TUNED = "textbook default", "constant tuned on other tasks"
RANDOM, EQUAL_COST = "random log-uniform", "grid of equal cost"
LOW, HIGH = -5.0, 0.0  # log10 of the random rate
CANDIDATES, STEPS = (1e-4, 1e-2, 1.0), 100


def constant(cell: Cell) -> dict[str, dict[str, Any]]:
    """Return the rates that no seed moves: the class's own, and the one tuned on other tasks."""
    known, _ = optimizers.OPTIMIZERS[cell.optimizer]
    default = inspect.signature(optimizers.CLASSES[known]).parameters["lr"].default
    tuned = json.loads(CONSTANTS.read_text())[cell.optimizer][cell.schedule]
    return {
        DEFAULT: {"lr": float(default), "steps": 0.0},
        TUNED: {"lr": 10.0**tuned, "steps": 0.0},
    }


def seeded(cell: Cell, seed: int) -> dict[str, dict[str, Any]]:
    """Return a random rate, and the best of a few short trainings."""
    draw = np.random.default_rng([seed, zlib.crc32(cell.name.encode())])
    with cost.counted(tasks.TASKS[cell.task].batch) as spent:
        ends = {
            rate: plain.train(cell, rate, 1000 * (seed + 1), steps=STEPS).validation
            for rate in CANDIDATES
        }
    best = min(ends, key=lambda rate: (ends[rate], rate))
    return {
        RANDOM: {"lr": float(10 ** draw.uniform(LOW, HIGH)), "steps": 0.0},
        EQUAL_COST: {"lr": best, "steps": round(spent.steps, 2)},
    }
