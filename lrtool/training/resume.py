"""Which run to go on with, and whether it is still the same training."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrtool.components.schedules import build_schedule
from lrtool.config.differences import differences
from lrtool.config.schema import TrainConfig
from lrtool.engine.checkpoint import LAST, newest_checkpoint
from lrtool.engine.loop import Position
from lrtool.errors import LrtoolWarning, UserError
from lrtool.experiment.experiment import Experiment, resolved, steps_per_epoch, training_steps
from lrtool.report import report as reports
from lrtool.report.run_directory import CHECKPOINTS, CONFIG, FIND, METRICS, holds_run

if TYPE_CHECKING:
    from lrtool.errors import KeyPath

# What may differ between a run and its continuation: how long, and what is left behind.
MAY_CHANGE: tuple[KeyPath, ...] = (
    ("search_path",),
    ("find",),
    ("train", "epochs"),
    ("train", "max_steps"),
    ("train", "checkpoint_every"),
    ("train", "log_every"),
)
SAMPLED = 1_000  # rates that are compared; a warm-up or a cycle of another length shows in them


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        folder: where it lies.
        state: what it holds besides the weights.
    """

    folder: Path
    state: dict[str, Any]


def find_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run that is whole, or None.

    Warns:
        LrtoolWarning: one was skipped since it is truncated or corrupted.
    """
    found = newest_checkpoint(directory / CHECKPOINTS)
    return None if found is None else Checkpoint(*found)


def run_directory(resume: str, output: Path | None, parent: Path) -> Path | None:
    """Return the directory of the run that `--resume` means; None to begin a new one.

    Args:
        resume: "auto", or the path of a run or of its checkpoint `last`.
        output: of `--output`; with "auto" that directory is meant, whatever it holds.
        parent: where runs without `--output` are.

    Raises:
        UserError: there is no such run.
    """
    if resume == "auto":
        if output is not None:
            return output if output.is_dir() and not is_find(output) else None
        runs = sorted(path for path in parent.glob("*-train*") if path.is_dir())
        return runs[-1] if runs else None
    path = Path(resume)
    if path.parent.name == CHECKPOINTS:
        if path.name != LAST:
            raise UserError(
                f"--resume {resume}: a run goes on from its newest checkpoint; give "
                f"{path.parent.parent}"
            )
        path = path.parent.parent
    if is_find(path):
        raise UserError(f"--resume {resume}: is the run of a find; use --lr-from {resume}")
    if not holds_run(path):
        raise UserError(f"--resume {resume}: holds no run; give a run directory, or auto")
    return path


def is_find(path: Path) -> bool:
    """Tell whether a directory holds the run of a find."""
    report = path / reports.FILE_NAME
    return report.exists() and reports.read(report).command == "find"


def go_on(experiment: Experiment, directory: Path) -> Checkpoint | None:
    """Return where a run stands; None if it was killed before its first checkpoint.

    Raises:
        UserError: its configuration or its data have changed, or no checkpoint is whole.

    Warns:
        LrtoolWarning: it is longer already than it should become, or its rates would have been
            others, had it had its new length from the start.
    """
    checkpoint = find_checkpoint(directory)
    if checkpoint is not None:
        _refuse_changes(experiment, checkpoint)
        _warn_of_another_length(experiment, checkpoint)
    elif any((directory / CHECKPOINTS / name).exists() for name in ("last", "previous")):
        raise UserError(f"--resume {directory}: none of its checkpoints is whole; begin a new run")
    return checkpoint


def copy_run(checkpoint: Checkpoint, target: Path) -> Checkpoint:
    """Copy what a continuation in another directory needs: checkpoints, rows, the find.

    Raises:
        OSError: it cannot be read or written.
    """
    source = checkpoint.folder.parent.parent
    for folder in (CHECKPOINTS, FIND):
        if (source / folder).exists():
            shutil.copytree(source / folder, target / folder, dirs_exist_ok=True)
    if (source / METRICS).exists():
        shutil.copy(source / METRICS, target / METRICS)
    return replace(checkpoint, folder=target / CHECKPOINTS / checkpoint.folder.name)


def _refuse_changes(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Refuse to go on with another configuration or other data."""
    found = differences(checkpoint.state["config"], resolved(experiment))
    wrong = [
        str(difference)
        for difference in sorted(found, key=lambda difference: difference.path)
        if not _may_change(difference.path)
    ]
    run = checkpoint.folder.parent.parent
    if wrong:
        raise UserError(
            f"--resume {run}: the configuration has changed: {'; '.join(wrong)}. Change it back "
            f"(the run's own is {run / CONFIG}), or begin a new run"
        )
    if checkpoint.state["data"] != experiment.data.digest:
        raise UserError(f"--resume {run}: the data have changed since; begin a new run")


def _may_change(path: KeyPath) -> bool:
    return any(path[: len(free)] == free for free in MAY_CHANGE)


def _warn_of_another_length(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Warn where nothing is left to train, and where the rates so far are not the schedule's."""
    train, before = experiment.config.train, TrainConfig(**checkpoint.state["config"]["train"])
    changed = [
        key for key in ("epochs", "max_steps") if getattr(train, key) != getattr(before, key)
    ]
    if not changed:
        return
    position = Position(**checkpoint.state["position"])
    begun = position.epoch + bool(position.batches)
    if begun > (train.epochs or inf) or position.step > (train.max_steps or inf):
        key = "max_steps" if train.max_steps else "epochs"
        words = (
            f"--resume {checkpoint.folder.parent.parent}: stands at step {position.step:,} of "
            f"epoch {begun}, beyond train.{key}: {getattr(train, key)}; nothing is trained"
        )
    elif _factors(experiment, before, position.step) != _factors(experiment, train, position.step):
        keys = " and ".join(f"train.{key}" for key in changed)
        warm_up = " with its warm-up" if train.schedule.warmup else ""
        words = (
            f"{keys} changed: the {train.schedule.name} schedule{warm_up} now spans the new length,"
            " so its rates differ from those so far"
        )
    else:
        return
    warnings.warn(words, LrtoolWarning, stacklevel=3)


def _factors(experiment: Experiment, train: TrainConfig, made: int) -> list[float]:
    """Return what a schedule multiplies the rate with in the first updates, or some of them."""
    experiment = replace(experiment, config=experiment.config.model_copy(update={"train": train}))
    per_epoch = steps_per_epoch(experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)  # the preflight has said so
        schedule = build_schedule(
            train.schedule, steps=training_steps(experiment), steps_per_epoch=per_epoch
        )
    steps = [*range(made)[:: ceil(made / SAMPLED) or 1], *range(made)[-1:]]
    return [schedule.factor(step, step // per_epoch if per_epoch else 0) for step in steps]
