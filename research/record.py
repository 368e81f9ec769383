"""What constants are fitted on: what a finder looks at, measured once and for all.

Of each task and optimizer a sweep and the first update, of each cell a few short trainings around
an estimate. A file of JSON each; rules are then tried on the files, without training again.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.regret import ours, tasks, training
from lrtool.curve.full_trial import lowering
from lrtool.curve.race import average, usual_rate
from lrtool.curve.trials import noise
from lrtool.engine.device import Runtime
from lrtool.engine.first_update import first_update
from lrtool.engine.step import make_step
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.sweep import sweep, sweep_rates, to_sweep
from lrtool.report.records import FirstUpdate, Sweep
from lrtool.search import candidates
from lrtool.search.experiment_subject import ExperimentSubject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.regret.cells import Cell
    from lrtool.engine.step import Step

FINDER_SEEDS = (0, 1, 2)  # apart from the seeds of training
LATTICE = 0.5  # decades between the rates of trials; what a trial between two would do is read off
AWAY = 3  # places of the lattice on either side of an estimate
START, END, STEPS = 1e-7, 10.0, 100
DENSE_STEPS = 200
DENSER_DECADES = math.log10(DENSE_STEPS / STEPS)
RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def look_file(cell: Cell, cache: Path) -> Path:
    """Return where what finders saw of a cell's task and optimizer is kept."""
    return cache / "looks" / f"{cell.task}-{cell.optimizer}.json"


def trials_file(cell: Cell, cache: Path) -> Path:
    """Return where a cell's short trainings are kept."""
    return cache / "trials" / f"{cell.name}.json"


def full_trials_file(cell: Cell, cache: Path) -> Path:
    """Return where a cell's full trials are kept."""
    return cache / "full_trials" / f"{cell.name}.json"


def races_file(cell: Cell, cache: Path) -> Path:
    """Return where a cell's races are kept."""
    return cache / "races" / f"{cell.name}.json"


def look(cell: Cell) -> dict[str, Any]:
    """Sweep a cell's task with its optimizer, and measure the first update, for each finder.

    A second sweep has more steps in each decade.
    """
    return {
        str(seed): {
            "sweep": _swept(cell, 1000 * (seed + 1), STEPS),
            "dense": _swept(cell, 1000 * (seed + 1), DENSE_STEPS),
            "first": asdict(_first(cell, 1000 * (seed + 1))),
        }
        for seed in FINDER_SEEDS
    }


def read_look(found: dict[str, Any], which: str) -> tuple[Sweep, FirstUpdate]:
    """Return what one finder saw, with one of its sweeps."""
    swept = found[which]
    count = len(swept["loss"])
    rates = sweep_rates(START, END, swept["steps"])[:count]
    return (
        Sweep(
            seed=swept["seed"],
            lr=tuple(rates),
            loss=tuple(swept["loss"]),
            skipped=(),
            stop_reason=swept["stop"],
        ),
        FirstUpdate(**found["first"]),
    )


def trials(cell: Cell, centres: dict[str, float]) -> dict[str, Any]:
    """Make lrtool's trials around each finder's estimate, as `lrtool find` does.

    Args:
        cell: whose training it is.
        centres: log10 of the estimate of each finder seed.
    """
    return {seed: _trials(cell, int(seed), centre) for seed, centre in centres.items()}


def _trials(cell: Cell, seed: int, centre: float) -> dict[str, Any]:
    with ours.opened(cell, seed, verify=False) as experiment:
        contest = candidates.open_trials(
            ExperimentSubject(experiment), 1, experiment.data.batch_size, cell.steps
        )
        middle = round(centre / LATTICE)
        places = [LATTICE * place for place in range(middle - AWAY, middle + AWAY + 1)]
        for _ in candidates.run_trials(contest, places, Stopwatch()):
            pass
        decision = candidates.judge(contest)
    assert decision is not None, "trials that ran can be compared"
    tried, _ = decision
    return {
        "centre": centre,
        "steps": contest.steps,
        "untrained": tried.untrained_loss,
        "examples": tried.examples,
        "candidates": [
            {
                "lr": math.log10(one.lr),
                "final": one.final_loss,
                "error": one.standard_error,
                "descent_error": one.descent_error,
                "outcome": one.outcome,
                "loss": [float(f"{loss:.5g}") for loss in one.loss],
            }
            for one in tried.candidates
        ],
    }


def full_trials(cell: Cell, centres: dict[str, float]) -> dict[str, Any]:
    """Train once at each finder's estimate, as `lrtool find` does where trials may mislead.

    Args:
        cell: whose training it is.
        centres: log10 of the estimate of each finder seed, after its trials.
    """
    return {seed: _full_trial(cell, int(seed), centre) for seed, centre in centres.items()}


def _full_trial(cell: Cell, seed: int, centre: float) -> dict[str, Any]:
    with ours.opened(cell, seed, verify=False) as experiment:
        contest = candidates.open_full_trial(
            ExperimentSubject(experiment), 3, experiment.data.batch_size, cell.steps
        )
        for _ in candidates.run_full_trial(contest, centre, Stopwatch()):
            pass
        full = candidates.judge_full_trial(contest)
    assert full is not None, "a full trial that ran was measured"
    return {
        "centre": centre,
        "step": list(full.step),
        "validation": list(full.validation),
        "lowering": lowering(full),
    }


def races(cell: Cell, centres: dict[str, float]) -> dict[str, Any]:
    """Race lrtool's candidates around each finder's estimate.

    Args:
        cell: whose training it is.
        centres: log10 of the estimate of each finder seed, after its trials.
    """
    return {seed: _race(cell, int(seed), centre) for seed, centre in centres.items()}


def _race(cell: Cell, seed: int, centre: float) -> dict[str, Any]:
    with ours.opened(cell, seed, verify=True) as experiment:
        contest = candidates.open_race(
            ExperimentSubject(experiment), 2, experiment.data.batch_size, cell.steps
        )
        for _ in candidates.run_race(contest, centre, usual_rate(cell.optimizer), Stopwatch()):
            pass
        decision = candidates.judge(contest)
    assert decision is not None, "a race that ran can be decided"
    raced, choice = decision
    named = average(choice, centre, raced)
    return {
        "centre": centre,
        "steps": contest.steps,
        "spent": raced.steps_spent,
        "untrained": raced.untrained_loss,
        "noise": noise(raced),
        "candidates": [
            {
                "lr": math.log10(one.lr),
                "final": one.final_loss,
                "error": one.standard_error,
                "descent_error": one.descent_error,
                "origin": one.origin,
                "outcome": one.outcome,
            }
            for one in raced.candidates
        ],
        "chosen": choice.log_lr,
        "named": named.log_lr,
    }


def _built(cell: Cell, seed: int) -> tuple[torch.nn.Module, Step, Iterator[list[Any]]]:
    """Return a model with its step, and its batches."""
    data = tasks.samples(cell.task)
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    loss = partial(tasks.loss, task=cell.task)
    step = make_step(model, loss, training.optimizer_of(cell.optimizer, model, 1.0), RUNTIME)
    order = training.shuffled(len(data.x), tasks.TASKS[cell.task].batch, seed)
    return model, step, ([(data.x[rows], data.y[rows])] for rows in order)


def _swept(cell: Cell, seed: int, steps: int) -> dict[str, Any]:
    _, step, batches = _built(cell, seed)
    made = list(sweep(step, batches, sweep_rates(START, END, steps)))
    found = to_sweep(made, seed=seed, planned=steps)
    return {"seed": seed, "steps": steps, "loss": list(found.loss), "stop": found.stop_reason}


def _first(cell: Cell, seed: int) -> FirstUpdate:
    model, step, batches = _built(cell, seed)
    return first_update(step, model, partial(tasks.loss, task=cell.task), next(batches), RUNTIME)
