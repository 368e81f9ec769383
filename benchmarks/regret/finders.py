"""What each finder says about a cell: a rate by method and finder seed, and the steps it spent."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import controls
import cost
import optimizers
import peers
import plain
import tasks

from lrtool import document as documents
from lrtool import run
from lrtool.errors import LrtoolError
from lrtool.settings import read_config
from lrtool.task import open_task
from lrtool.trial import try_one_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cells import Cell

    from lrtool.records import Finding
    from lrtool.run import Found
    from lrtool.task import Task

SEEDS = (0, 1, 2)  # apart from the seeds of training
ANY = "any"  # in the place of a finder's seed: the rate does not depend on it
OWN = {"lrtool find": False, "lrtool find --verify": True}  # method → find.verify

Said = dict[str, dict[str, dict[str, Any]]]  # finder seed → method → rate, steps, …


def _peers(known: peers.Peers, cell: Cell) -> Said:
    return {str(seed): peers.ask(cell, seed, known) for seed in SEEDS}


def _controls(cell: Cell) -> Said:
    return {
        ANY: controls.constant(cell),
        **{str(seed): controls.seeded(cell, seed) for seed in SEEDS},
    }


def _lrtool(cell: Cell) -> Said:
    return {
        str(seed): {method: lrtool(cell, seed, verify=verify) for method, verify in OWN.items()}
        for seed in SEEDS
    }


SOURCES: dict[str, Callable[[Cell], Said]] = {
    "controls": _controls,
    "lrtool": _lrtool,
    "peers": partial(_peers, peers.PEERS),
    "lightning252": partial(_peers, peers.PEERS_252),
}
BLIND = {"peers", "lightning252"}  # to schedule and length: one answer for a task and an optimizer


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


def configuration(cell: Cell, seed: int, *, verify: bool) -> dict[str, Any]:
    """Return the configuration of a cell's training, for lrtool."""
    known, args = optimizers.OPTIMIZERS[cell.optimizer]
    schedule: dict[str, Any] = {"name": cell.schedule}
    if cell.schedule == "cosine":
        schedule["warmup"] = plain.WARMUP
    return {
        "seed": seed,
        "search_path": [str(Path(__file__).parent)],
        "data": {
            "source": "tasks:data",
            "args": {"task": cell.task},
            "batch_size": tasks.TASKS[cell.task].batch,
        },
        "model": {"name": "tasks:model", "args": {"task": cell.task}},
        "loss": {"name": "tasks:loss", "args": {"task": cell.task}},
        "optimizer": {"name": known, "args": args},
        "find": {"verify": verify},
        "train": {"max_steps": cell.steps, "schedule": schedule},
        "runtime": {"device": "cpu"},
    }


def lrtool(cell: Cell, seed: int, *, verify: bool) -> dict[str, Any]:
    """Return lrtool's suggestion, all else its default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(documents.dump(configuration(cell, seed, verify=verify)))
        task = open_task(*read_config(path))
        with cost.counted(tasks.TASKS[cell.task].batch) as spent:
            try:
                finding = _search(task)
            except LrtoolError as error:
                return {"lr": None, "reason": str(error), "steps": round(spent.steps, 2)}
    said = finding.suggestion
    return {
        "lr": said.lr,
        "low": said.low,
        "high": said.high,
        "verdict": said.verdict,
        "steps": round(spent.steps, 2),
    }


def _search(task: Task) -> Finding:
    """Run lrtool's own search to its end: that of `lrtool find`, without report and plots."""
    searching = run.search(task, try_one_batch(task))
    while True:
        try:
            next(searching)
        except StopIteration as end:
            found: Found = end.value
            return found.finding
