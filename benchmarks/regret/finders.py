"""What each finder says about a cell: a rate by method and finder seed, and the steps it spent.

Beside lrtool and the peers stand controls, which need no curve: rates that anyone has without a
finder, and a grid of a finder's cost.
"""

from __future__ import annotations

import inspect
import json
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.modules import module

from benchmarks.regret import ours, peers, tasks, training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from benchmarks.regret.cells import Cell

Answers = dict[str, dict[str, Any]]  # method → rate, steps, …
Said = dict[str, Answers]  # finder seed → what was said

SEEDS = (0, 1, 2)  # apart from the seeds of training
ANY = "any"  # in the place of a finder's seed: the rate does not depend on it
OWN = (ours.FIND, ours.FIND_VERIFY, ours.FIND_LR, ours.FIND_LR_VERIFY)

DEFAULT, TUNED = "textbook default", "constant tuned on other tasks"
RANDOM, EQUAL_COST = "random log-uniform", "grid of equal cost"
TUNED_FILE = Path(__file__).with_name("constants_tuned.json")
LOW, HIGH = -5.0, 0.0  # log10 of the random rate
CANDIDATES, STEPS = (1e-4, 1e-3, 1e-2, 1e-1), 100  # of the grid of equal cost
FORWARD = 1 / 3  # of a step, which goes backward too and costs about twice as much there


def fixed(cell: Cell) -> Answers:
    """Return the rates that no seed moves: the class's own, and the one tuned on other tasks.

    A schedule that was not tuned for has the rate of a cosine, which falls too.
    """
    known = training.OPTIMIZERS[cell.optimizer]
    default = inspect.signature(known.build).parameters["lr"].default
    group = "scratch" if tasks.TASKS[cell.task].kind == "scratch" else "other"
    rates = json.loads(TUNED_FILE.read_text())[group][cell.optimizer]
    tuned = rates.get(cell.schedule, rates["cosine"])
    return {
        DEFAULT: {"lr": float(default), "steps": 0.0},
        TUNED: {"lr": 10.0**tuned, "steps": 0.0},
    }


def random(cell: Cell, seed: int) -> Answers:
    """Return a random rate."""
    draw = np.random.default_rng([seed, zlib.crc32(cell.name.encode())])
    return {RANDOM: {"lr": float(10 ** draw.uniform(LOW, HIGH))}}


def small_grid(cell: Cell, seed: int) -> Answers:
    """Return the best of a few short trainings."""
    ends = {
        rate: training.train(cell, rate, 1000 * (seed + 1), steps=STEPS).validation
        for rate in CANDIDATES
    }
    return {EQUAL_COST: {"lr": min(ends, key=lambda rate: (ends[rate], rate))}}


SOURCES: dict[str, list[Callable[[Cell, int], Answers]]] = {
    "controls": [random, small_grid],
    "lrtool": [partial(ours.find, verify=verify) for verify in (False, True)],
    "find_lr": [partial(ours.find_lr, verify=verify) for verify in (False, True)],
    "peers": [partial(peers.ask, peer) for peer in peers.PEERS],
    "lightning252": [partial(peers.ask, peers.LIGHTNING_252)],
}
BLIND = {"peers", "lightning252"}  # to schedule and length: one answer for a task and an optimizer


def ask(cell: Cell, source: str) -> Said:
    """Ask a source's finders for a rate, with every finder seed, and count the steps they spend."""
    found: Said = {ANY: fixed(cell)} if source == "controls" else {}
    for seed in SEEDS:
        own = found[str(seed)] = {}
        for finder in SOURCES[source]:
            with counted(tasks.TASKS[cell.task].batch) as spent:
                answers = finder(cell, seed)
            for method, answer in answers.items():
                own[method] = {**answer, "steps": round(spent.steps, 2)}
    return found


def file_of(cell: Cell, source: str, cache: Path) -> Path:
    """Return where a source's answer about a cell is kept."""
    name = f"{cell.task}-{cell.optimizer}" if source in BLIND else cell.name
    return cache / "rates" / source / f"{name}.json"


def said(cell: Cell, cache: Path) -> Said:
    """Return all that was said about a cell, whatever the source."""
    found: Said = {}
    for source in SOURCES:
        path = file_of(cell, source, cache)
        for seed, methods in (json.loads(path.read_text()) if path.exists() else {}).items():
            found.setdefault(seed, {}).update(methods)
    return found


class Cost:
    """Steps so far; evaluated samples count in batches of the training's size."""

    def __init__(self) -> None:
        self.steps = 0.0


@contextmanager
def counted(batch: int) -> Iterator[Cost]:
    """Count every pass through any model until the block ends.

    A pass with gradients is a step. The hooks are torch's own, so that it does not matter who
    calls the model, a package or we.
    """
    cost = Cost()
    depth = 0

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal depth
        if depth == 0:
            whole = torch.is_grad_enabled()
            cost.steps += 1 if whole else FORWARD * len(inputs[0]) / batch
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = [
        module.register_module_forward_pre_hook(enter),
        module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()
