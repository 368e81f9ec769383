"""A training under way: built or brought back from a checkpoint, evaluated, saved."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from torch import nn

from lrtool import __version__
from lrtool.components.metrics import higher_is_better, key
from lrtool.data import batches
from lrtool.engine import checkpoint as checkpoints
from lrtool.engine import weights
from lrtool.engine.checkpoint import Training
from lrtool.engine.ema import MovingAverage
from lrtool.engine.evaluation import evaluate
from lrtool.engine.loop import BestTracker, Position, train_epoch
from lrtool.engine.randomness import RandomStates, random_states, restore_random_states
from lrtool.experiment.experiment import Task, build, resolved, rewound, step_of
from lrtool.experiment.preflight import empty_validation, metrics_of, schedule_of
from lrtool.report import metrics_log as history
from lrtool.report.records import EpochRow
from lrtool.report.run_directory import CHECKPOINTS, MODEL

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from lrtool.components.schedules import Schedule
    from lrtool.engine.evaluation import Metric
    from lrtool.engine.step import Step
    from lrtool.experiment.experiment import Built
    from lrtool.report.records import LearningRate, StepRow
    from lrtool.training.resume import Resumed


@dataclass(slots=True)
class Run:
    """A training under way.

    Attributes:
        task: what it is made of.
        rate: the base rate.
        directory: where it leaves what it makes.
        built: model, loss and optimizer.
        schedule: of the rate.
        state: all that changes.
        step: makes an update.
        metrics: of the validation part.
        finite_buffers: of the model when the training began; they must stay so.
        generators: that the user's own loaders draw from.
        epoch_random: the random states at the start of the epoch under way.
        resumed_random: the random states at the checkpoint inside that epoch from which the run
            goes on; None at an epoch's start.
        saved: the step of the newest checkpoint; None without one.
    """

    task: Task
    rate: LearningRate
    directory: Path
    built: Built
    schedule: Schedule
    state: Training
    step: Step
    metrics: Mapping[str, Metric]
    finite_buffers: Mapping[str, torch.Size]
    generators: list[torch.Generator]
    epoch_random: RandomStates
    resumed_random: RandomStates | None = None
    saved: int | None = None

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.state.position

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model its moving average inside the block, where there is one."""
        average = self.state.average
        return average.in_place() if average is not None else nullcontext()


def begin(task: Task, rate: LearningRate, directory: Path, resumed: Resumed | None) -> Run:
    """Build what is trained, fresh from the seed or as a checkpoint left it.

    The state of `resumed` is emptied: who still has it would hold the optimizer's a second time.

    Raises:
        UserError: something cannot be built, or the checkpoint does not fit.
    """
    config = task.config.train
    schedule = schedule_of(task)
    metrics = metrics_of(task)
    built = build(task, task.config.seed)
    generators = rewound(task)
    scaler = task.runtime.scaler()
    average = None
    if config.ema_decay is not None:
        average = MovingAverage(weights.plain(built.model), config.ema_decay)
    run = Run(
        task=task,
        rate=rate,
        directory=directory,
        built=built,
        schedule=schedule,
        state=Training(
            model=built.model,
            optimizer=built.optimizer,
            scaler=scaler,
            schedule=schedule,
            average=average,
            position=Position(),
            best=_best(task),
        ),
        step=step_of(task, built, scaler),
        metrics=metrics,
        finite_buffers=weights.finite_buffers(built.model),
        generators=generators,
        epoch_random=random_states(generators),
    )
    if resumed is not None:
        checkpoints.load(run.state, resumed.checkpoint, resumed.state)
        run.saved = run.position.step
        if run.position.batches:
            run.epoch_random = resumed.state["epoch_random"]
            run.resumed_random = resumed.state["random"]
        if isinstance(built.loss_fn, nn.Module):
            built.loss_fn.load_state_dict(resumed.state["loss"])
        restore_random_states(resumed.state["random"], generators)
        resumed.state.clear()
    return run


def _best(task: Task) -> BestTracker:
    """Say what the best epoch is judged by."""
    stopping = task.config.train.early_stopping
    if stopping is None:
        validated = task.data.validation is not None
        return BestTracker("validation_loss" if validated else "train_loss", higher=False)
    higher = stopping.mode == "max"
    if stopping.mode == "auto" and stopping.metric not in {"train_loss", "validation_loss"}:
        higher = bool(higher_is_better(stopping.metric, task.directories))
    return BestTracker(key(stopping.metric), higher, stopping.min_delta)


def updates(run: Run) -> Iterator[list[Any]]:
    """Return the batches of each update of the epoch under way, or of what is left of it."""
    task, position = run.task, run.position
    if position.exhausted:
        run.resumed_random = None
        return iter(())
    if run.resumed_random is None:
        run.epoch_random = random_states(run.generators)
    else:  # what the first batches were made from
        restore_random_states(run.epoch_random, run.generators)
    made = batches.epoch(
        task.data.train,
        batch_size=task.data.batch_size,
        seed=task.config.seed,
        epoch=position.epoch,
        device=task.runtime.device,
        skip=position.batches,
    )
    if run.resumed_random is not None:
        restore_random_states(run.resumed_random, run.generators)
        run.resumed_random = None
    return batches.micro_batches(made, task.config.train.accumulate)


def advance(run: Run, step: Step, pause_every: int | None) -> Iterator[list[StepRow]]:
    """Train to the end of the epoch under way, or of the training; yield rows, several at a time.

    Args:
        run: the training.
        step: the run's own, or one that does more.
        pause_every: rest when the number of updates is a multiple of this.
    """
    return train_epoch(
        step,
        updates(run),
        run.position,
        lr=run.rate.value,
        schedule=run.schedule,
        optimizer=run.built.optimizer,
        average=run.state.average,
        max_steps=run.task.config.train.max_steps,
        pause_every=pause_every,
    )


def evaluated(run: Run) -> Generator[int, None, EpochRow]:
    """Evaluate the model as it is; yield the samples seen, return the epoch's row.

    The random states are then as before.

    Raises:
        UserError: the validation part is empty.
    """
    task, position = run.task, run.position
    validation = task.data.validation
    loss, metrics = None, {}
    part = task.data.train if validation is None and run.metrics else validation
    if part is not None:
        before = random_states(run.generators)
        samples = batches.ordered(part, batch_size=task.data.batch_size, device=task.runtime.device)
        try:
            with run.averaged():
                found = yield from evaluate(
                    run.built.model, run.built.loss_fn, samples, task.runtime, run.metrics
                )
        finally:  # however often a model is evaluated, its training is the same
            restore_random_states(before, run.generators)
        if not found.samples:
            raise empty_validation()
        loss = None if validation is None else found.loss
        metrics = found.metrics
    return EpochRow(
        epoch=position.epoch + 1,
        step=position.step,
        lr=position.lr,
        train_loss=position.train_loss(),
        validation_loss=loss,
        **metrics,
    )


def observe(run: Run, row: EpochRow) -> bool:
    """Take note of an epoch that has been evaluated; return whether it is the best so far."""
    run.position.evaluated = run.position.step
    run.schedule.observe(row.train_loss if row.validation_loss is None else row.validation_loss)
    return run.state.best.observe(row)


def save(run: Run, log: IO[bytes]) -> None:
    """Save the checkpoint `last`.

    Raises:
        OSError: it cannot be written; the one before is still there.
    """
    checkpoints.save(
        run.state,
        run.directory / CHECKPOINTS,
        lrtool=__version__,
        loss=run.built.loss_fn.state_dict() if isinstance(run.built.loss_fn, nn.Module) else {},
        config=resolved(run.task),
        data=run.task.data.digest,
        learning_rate=asdict(run.rate),
        random=random_states(run.generators),
        epoch_random=run.epoch_random,
        log_bytes=history.synced_size(log),
    )
    run.saved = run.position.step


def save_weights(run: Run, path: Path, notes: dict[str, Any]) -> None:
    """Write the weights that are evaluated: their moving average where there is one.

    Raises:
        OSError: they cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with run.averaged():
        state = weights.plain(run.built.model).state_dict()
        weights.write_weights(state, path, notes)


def save_best(run: Run, row: EpochRow) -> None:
    """Write `checkpoints/best`: the weights of the best epoch so far.

    Raises:
        OSError: they cannot be written.
    """
    best = run.state.best
    notes = {"epoch": row.epoch, "step": row.step, best.metric: best.value}
    save_weights(run, run.directory / CHECKPOINTS / checkpoints.BEST / MODEL, notes)
