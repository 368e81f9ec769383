"""Which run to resume, and whether it is still the same training."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil, inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lrtool.claims import named
from lrtool.components.schedules import build_schedule
from lrtool.config.differences import differences
from lrtool.config.document import read
from lrtool.config.schema import RuntimeConfig, TrainConfig
from lrtool.config.spelling import count
from lrtool.data import encoding
from lrtool.engine.checkpoint import BEST, LAST, STATE, newest_checkpoint, restoring
from lrtool.engine.loop import Position
from lrtool.engine.stopwatch import Stopwatch
from lrtool.engine.weights import check_sum
from lrtool.errors import LrtoolWarning, UserError
from lrtool.experiment.experiment import (
    Experiment,
    resolved_config,
    steps_per_epoch,
    training_steps,
)
from lrtool.report import marker, run_directory
from lrtool.report import report as reports
from lrtool.report.records import CheckpointFacts, LearningRate
from lrtool.report.run_directory import CHECKPOINTS, CONFIG, ENCODING, FIND, METRICS, MODEL
from lrtool.report.runs import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrtool.config.schema import Config
    from lrtool.errors import KeyPath

# These keys may change when a run is resumed; all others must stay.
MAY_CHANGE: tuple[KeyPath, ...] = (
    ("search_path",),
    ("find",),
    ("data", "timeout"),
    ("train", "epochs"),
    ("train", "max_steps"),
    ("train", "checkpoint_every"),
    ("train", "log_every"),
    ("runtime", "timeout"),
    ("runtime", "shard"),
    ("runtime", "static_graph"),
    ("runtime", "threads"),  # on another machine; the last bits may differ then
)
_NAME = re.compile(r"(?P<time>\d{8}T\d{6}Z)-train(-(?P<number>\d{1,9}))?\Z")
AUTO = Path("auto")
SAMPLES = 1_000  # steps at which two schedules are compared


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        folder: its directory.
        state: its content besides the weights.
    """

    folder: Path
    state: dict[str, Any]


def find_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run that is whole, or None.

    Warns:
        LrtoolWarning: one was skipped because it is truncated or corrupted.
    """
    checkpoint = newest_checkpoint(directory / CHECKPOINTS)
    return None if checkpoint is None else Checkpoint(*checkpoint)


def run_to_resume(resume: Path, output: Path | None, parent: Path) -> Path | None:
    """Return the directory of the run that `--resume` names; None to begin a new one.

    Args:
        resume: "auto", or a run by its path or name, or the path of its checkpoint `last`.
        output: of `--output` or `--name`; "auto" means the training in that directory.
        parent: directory of the runs without `--output`; "auto" means the newest training there
            that has not ended, else the newest one.

    Raises:
        UserError: there is no such run.
    """
    if resume == AUTO:
        if output is not None:
            return output if _command_of(output) == "train" else None
        runs = [path for path in parent.glob("[!.]*") if _command_of(path) == "train"]
        return max(runs, key=_recency, default=None)
    path = resolve(resume, "--resume ")
    if path.parent.name == CHECKPOINTS:
        if path.name != LAST:
            raise UserError(
                f"--resume {resume}: a run goes on from its newest checkpoint; give "
                f"{path.parent.parent}"
            )
        path = path.parent.parent
    path = run_directory.place(path)
    command = _command_of(path)
    if command == "find":
        raise UserError(f"--resume {resume}: is the run of a find; use --lr-from {resume}")
    if command != "train":
        raise UserError(f"--resume {resume}: holds no run; give a run directory, or auto")
    return path


def _command_of(run: Path) -> str | None:
    """Return the command of the run to go on with, which may be one that replaces another."""
    return marker.command_of(run_directory.unfinished(run))


def _recency(run: Path) -> tuple[bool, float, int]:
    """Order runs: those that have not ended last, then by the time in their names."""
    under_way = marker.is_under_way(run) or run_directory.unfinished(run) != run
    if found := _NAME.match(run.name):
        began = datetime.strptime(f"{found['time']}+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        return under_way, began, int(found["number"] or 1)
    return under_way, run.stat().st_mtime, 1


def with_threads_of(run: Path, config: Config, ranks: int = 1) -> Config:
    """Return a configuration with the number of threads of an earlier run, if its own is `auto`.

    The order in which numbers are added depends on it, and so do the last bits of a loss. With
    another number of ranks they differ anyway, and each rank has another part of the machine.
    """
    run = run_directory.unfinished(run)
    if config.runtime.threads != "auto" or not (run / CONFIG).is_file():
        return config
    if _world_size_of(run) not in {None, ranks}:
        return config
    # Whoever needs the run's configuration tells what is wrong with it.
    with suppress(ValueError, OSError, AttributeError):
        data = read(run / CONFIG).data
        threads = data.get("runtime", {}).get("threads", "auto")
        runtime = RuntimeConfig(threads=threads)
        runtime = config.runtime.model_copy(update={"threads": runtime.threads})
        return config.model_copy(update={"runtime": runtime})
    return config


def _world_size_of(run: Path) -> int | None:
    """Return the number of ranks that made a run's last checkpoint or report; None without any."""
    state, report = run / CHECKPOINTS / LAST / STATE, run / reports.FILE_NAME
    with suppress(Exception):  # whoever needs them tells what is wrong with them
        if state.exists():  # the tensors' own bytes are not read
            return world_size(torch.load(state, map_location="cpu", weights_only=True, mmap=True))
        return reports.read(report).environment.world_size
    return None


def checkpoint_to_resume(experiment: Experiment, directory: Path) -> Checkpoint | None:
    """Return a run's checkpoint; None if it was killed before its first one.

    Raises:
        UserError: its configuration or its data have changed, or no checkpoint is whole.

    Warns:
        LrtoolWarning: the run is already beyond its new length, or with that length its rates
            so far would have been different; or the number of ranks is another.
    """
    checkpoint = find_checkpoint(directory)
    _refuse_other_directories(experiment, directory, checkpoint)
    if checkpoint is not None:
        with restoring(checkpoint.folder):
            _check_types(checkpoint.state)
            _refuse_changes(experiment, checkpoint)
            _warn_of_another_length(experiment, checkpoint)
            _warn_of_other_ranks(experiment, checkpoint)
        _warn_of_damaged_weights(directory / CHECKPOINTS / BEST / MODEL)
    elif any((directory / CHECKPOINTS / name).exists() for name in ("last", "previous")):
        run = run_directory.place(directory)
        raise UserError(f"--resume {run}: none of its checkpoints is whole; begin a new run")
    return checkpoint


def pretrained_of(checkpoint: Checkpoint) -> CheckpointFacts | None:
    """Return the pretrained weights that a training began with; None without any."""
    facts = checkpoint.state.get("pretrained")  # older ones have none
    return None if facts is None else CheckpointFacts(**facts)


def _check_types(state: Mapping[str, Any]) -> None:
    """Raise an error if what a session adds to a checkpoint is not there, or of another type."""
    kinds = {"config": dict, "data": str | None, "log_bytes": int, "loss": dict}
    for name, kind in {**kinds, "random": dict, "epoch_random": dict}.items():
        if name not in state or not isinstance(state[name], kind):
            raise TypeError(f"{name} is missing, or of another type")
    if state["log_bytes"] < 0:
        raise ValueError("log_bytes is below 0")
    for each in state.get("ranks", []):
        if not all(isinstance(each[name], dict) for name in ("random", "epoch_random", "model")):
            raise TypeError("the random states of the ranks are of another type")
    LearningRate(**state["learning_rate"])
    if state.get("pretrained") is not None:
        CheckpointFacts(**state["pretrained"])
    if state.get("timing") is not None:
        Stopwatch().load_state_dict(state["timing"])


def _warn_of_damaged_weights(best: Path) -> None:
    """Warn if the best weights so far are damaged: a training goes on without reading them."""
    if best.is_file():
        try:
            check_sum(best)
        except UserError as error:
            words = f"{error}; they are written anew after the next better epoch"
            warnings.warn(words, LrtoolWarning, stacklevel=3)


def world_size(state: Mapping[str, Any]) -> int:
    """Return how many ranks have written a checkpoint; older versions were one process."""
    return len(state.get("ranks", ())) or 1


def copy_run(checkpoint: Path, target: Path) -> Path:
    """Copy what is needed to resume in another directory: checkpoints, rows, encoding, the find.

    Args:
        checkpoint: its own folder.
        target: the other run directory.

    Returns:
        The copy's folder.

    Raises:
        OSError: it cannot be read or written.
    """
    source = checkpoint.parent.parent
    for folder in (FIND, CHECKPOINTS):
        if (source / folder).exists():
            with tempfile.TemporaryDirectory(dir=target, prefix=run_directory.COPY) as temporary:
                copy = shutil.copytree(source / folder, Path(temporary) / folder)
                copy.replace(target / folder)  # whole, or not at all
    for name in (METRICS, ENCODING):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return target / CHECKPOINTS / checkpoint.name


def _refuse_changes(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Refuse to resume with another configuration or other data."""
    changes = differences(checkpoint.state["config"], resolved_config(experiment))
    began, there = pretrained_of(checkpoint), experiment.pretrained
    may_change = MAY_CHANGE
    if began and (there is None or began.hash == there.digest):  # the same weights elsewhere
        may_change = (*may_change, ("model", "checkpoint"))
    forbidden = [
        str(change)
        for change in sorted(changes, key=lambda change: change.path)
        if not any(change.path[: len(free)] == free for free in may_change)
    ]
    own = checkpoint.folder.parent.parent
    run = run_directory.place(own)  # which still holds what this one is to replace
    if forbidden:
        raise UserError(
            f"--resume {run}: the configuration has changed: {'; '.join(forbidden)}. Change it "
            f"back (the run's own is {own / CONFIG}), or begin a new run"
        )
    now, before = experiment.data.encoding, encoding.read(own)
    changed = checkpoint.state["data"] != now.split.digest
    if now.split.digest is None and before is not None:  # what is known of data not in memory
        changed = before.split.samples != now.split.samples
    if changed:
        raise UserError(f"--resume {run}: the data have changed since; begin a new run")
    if began and there and began.hash != there.digest:
        raise UserError(
            f"--resume {run}: the pretrained weights in {there.path} have changed since; put back "
            "those that the run began with, move them away, or begin a new run"
        )


def _warn_of_another_length(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Warn if nothing is left to train, or if the rates so far are not those of the schedule."""
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
        run = run_directory.place(checkpoint.folder.parent.parent)
        words = (
            f"--resume {run}: stands at step {position.step:,} of "
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


def _refuse_other_directories(
    experiment: Experiment, directory: Path, checkpoint: Checkpoint | None
) -> None:
    """Refuse ranks that find another checkpoint than rank 0, as on a disk of their own.

    Raises:
        UserError: some rank does.
    """
    found = checkpoint and (checkpoint.folder.name, checkpoint.state["position"]["step"])
    seen = experiment.runtime.ranks.gather(found)
    others = [rank for rank, each in enumerate(seen) if each != seen[0]]
    if others:
        raise UserError(
            f"--resume {run_directory.place(directory)}: {named(others)} found another checkpoint "
            "there than rank 0, or none: the directory must be on a disk that all machines share"
        )


def _warn_of_other_ranks(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Warn if the number of ranks is not that of the checkpoint."""
    before, now = world_size(checkpoint.state), experiment.runtime.ranks.world_size
    if now != before:
        run = run_directory.place(checkpoint.folder.parent.parent)
        warnings.warn(
            f"--resume {run}: was trained by {count(before, 'rank')} so far, and now by {now}: the "
            "batches stay the same; what the model draws, as for dropout, and the last digits of "
            "the losses do not",
            LrtoolWarning,
            stacklevel=3,
        )


def _factors(experiment: Experiment, train: TrainConfig, count: int) -> list[float]:
    """Return a schedule's factors of the rate over the first `count` steps, `SAMPLES` of them."""
    experiment = replace(experiment, config=experiment.config.model_copy(update={"train": train}))
    per_epoch = steps_per_epoch(experiment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)  # the preflight has given it
        schedule = build_schedule(
            train.schedule, steps=training_steps(experiment), steps_per_epoch=per_epoch
        )
    steps = [*range(count)[:: ceil(count / SAMPLES) or 1], *range(count)[-1:]]
    return [schedule.factor(step, step // per_epoch if per_epoch else 0) for step in steps]
