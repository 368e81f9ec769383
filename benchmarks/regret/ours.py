"""lrtool itself: a cell as a configuration, and what it suggests for it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cost
import optimizers
import plain
import tasks

from lrtool.config import document as documents
from lrtool.errors import LrtoolError
from lrtool.experiment.experiment import open_task
from lrtool.experiment.preflight import try_one_batch
from lrtool.experiment.reading import read_config
from lrtool.search import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells import Cell

    from lrtool.experiment.experiment import Task
    from lrtool.report.records import Finding
    from lrtool.search.run import Found


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


@contextmanager
def opened(cell: Cell, seed: int, *, verify: bool) -> Iterator[Task]:
    """Open a cell's training, as the command line does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(documents.dump(configuration(cell, seed, verify=verify)))
        yield open_task(*read_config(path))


def suggestion(cell: Cell, seed: int, *, verify: bool) -> dict[str, Any]:
    """Return lrtool's suggestion, all else its default."""
    with (
        opened(cell, seed, verify=verify) as task,
        cost.counted(tasks.TASKS[cell.task].batch) as spent,
    ):
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
