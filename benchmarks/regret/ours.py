"""lrtool itself: what `lrtool find` and `lrtool.find_lr` suggest for a cell.

`opened` and `_search` are all that this benchmark knows of lrtool's inside.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lrtool
from benchmarks.regret import tasks, training
from lrtool.config.document import dump
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import LrtoolError
from lrtool.experiment.experiment import open_experiment
from lrtool.experiment.preflight import run_preflight
from lrtool.experiment.reading import read_config
from lrtool.search.experiment_subject import ExperimentSubject, plan_of
from lrtool.search.search import run_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.regret.cells import Cell
    from lrtool.experiment.experiment import Experiment
    from lrtool.report.records import Finding

FIND, FIND_VERIFY = "lrtool find", "lrtool find --verify"
FIND_LR, FIND_LR_VERIFY = "lrtool.find_lr", "lrtool.find_lr(verify=True)"
RATE = 1e-3  # of the optimizer given to `find_lr`, which must not matter


def find(cell: Cell, seed: int, *, verify: bool) -> dict[str, dict[str, Any]]:
    """Return what `lrtool find` suggests, all else its default."""
    with opened(cell, seed, verify=verify) as experiment:
        try:
            said = _search(experiment).suggestion
        except LrtoolError as error:
            answer: dict[str, Any] = {"lr": None, "reason": str(error)}
        else:
            answer = {"lr": said.lr, "low": said.low, "high": said.high, "verdict": said.verdict}
    return {FIND_VERIFY if verify else FIND: answer}


def find_lr(cell: Cell, seed: int, *, verify: bool) -> dict[str, dict[str, Any]]:
    """Return what `lrtool.find_lr` suggests for a model, an optimizer and loaders."""
    model, train, validation = training.fresh(cell, seed)
    try:
        found = lrtool.find_lr(
            model,
            training.optimizer_of(cell.optimizer, model, RATE),
            partial(tasks.loss, task=cell.task),
            train,
            validation=validation,
            verify=verify,
            schedule=cell.schedule,
            for_steps=cell.steps,
        )
    except LrtoolError as error:
        answer: dict[str, Any] = {"lr": None, "reason": str(error)}
    else:
        low, high = found.interval or (None, None)
        answer = {"lr": found.lr, "low": low, "high": high, "verdict": found.verdict}
    return {FIND_LR_VERIFY if verify else FIND_LR: answer}


def configuration(cell: Cell, seed: int, *, verify: bool) -> dict[str, Any]:
    """Return the configuration of a cell's training."""
    known = training.OPTIMIZERS[cell.optimizer]
    schedule: dict[str, Any] = {"name": cell.schedule}
    if cell.schedule in training.WARMED:
        schedule["warmup"] = training.WARMUP
    return {
        "seed": seed,
        "data": {
            "source": "benchmarks.regret.tasks:data",
            "args": {"task": cell.task},
            "batch_size": tasks.TASKS[cell.task].batch,
        },
        "model": {"name": "benchmarks.regret.tasks:model", "args": {"task": cell.task}},
        "loss": {"name": "benchmarks.regret.tasks:loss", "args": {"task": cell.task}},
        "optimizer": {"name": known.name, "args": known.args},
        "find": {"verify": verify},
        "train": {"max_steps": cell.steps, "schedule": schedule},
        "runtime": {"device": "cpu"},
    }


@contextmanager
def opened(cell: Cell, seed: int, *, verify: bool) -> Iterator[Experiment]:
    """Open a cell's training, as the command line does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(dump(configuration(cell, seed, verify=verify)))
        yield open_experiment(*read_config(path))


def _search(experiment: Experiment) -> Finding:
    """Run lrtool's own search to its end: that of `lrtool find`, without report and plots."""
    experiment, _ = run_preflight(experiment)  # it costs a step
    found = run_search(ExperimentSubject(experiment), plan_of(experiment), Stopwatch())
    if found.failure is not None:
        raise found.failure
    assert found.finding is not None, "a search without a failure has a finding"
    return found.finding
