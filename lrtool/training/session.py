"""A training under way: how it is built or restored from a checkpoint, evaluated and saved."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool import __version__
from lrtool.components.metrics import higher_is_better, key
from lrtool.components.tally import Tally
from lrtool.data import batches, loader_state
from lrtool.data.encoding import Values, class_names
from lrtool.engine import evaluation, weights
from lrtool.engine.checkpoint import (
    BEST,
    LOSS,
    TrainingState,
    load_checkpoint,
    restoring,
    save_checkpoint,
    save_extra,
    unkeepable,
)
from lrtool.engine.data_parallel import take_buffers_of_first
from lrtool.engine.denominator import reduction_of
from lrtool.engine.ema import MovingAverage
from lrtool.engine.lightning import placed
from lrtool.engine.loop import BestTracker, Position, train_epoch
from lrtool.engine.randomness import RandomStates, random_states, restore_random_states
from lrtool.engine.sharded_tensors import whole_state
from lrtool.engine.step import set_mode
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import LrtoolWarning, UserError
from lrtool.experiment.experiment import (
    Experiment,
    build,
    resolved_config,
    rewind_generators,
    step_of,
)
from lrtool.experiment.preflight import (
    empty_validation,
    metrics_of,
    schedule_of,
    units_of,
    what_loss,
)
from lrtool.report import metrics_log
from lrtool.report.records import EpochRow
from lrtool.report.run_directory import CHECKPOINTS, MODEL, place
from lrtool.training.resume import pretrained_of, world_size
from lrtool.training.stored_weights import PREDICTIONS, dump_predictions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lrtool.components.schedules import Schedule
    from lrtool.engine.evaluation import Metric
    from lrtool.engine.step import Step
    from lrtool.experiment.experiment import Built
    from lrtool.ranks import Ranks
    from lrtool.report.records import CheckpointFacts, LearningRate, StepRow
    from lrtool.training.resume import Checkpoint


@dataclass(slots=True)
class Session:
    """A training under way.

    Attributes:
        experiment: the configuration and all that it names.
        rate: base rate.
        directory: of the run.
        built: model, loss and optimizer.
        schedule: of the rate.
        state: all that training changes.
        step: makes an update.
        metrics: of the validation set.
        tally: of its predictions; None without a validation set, or where the model computes its
            own loss.
        finite_buffers: buffers that were finite at the start, and must stay so.
        generators: that the user's own loaders draw from.
        epoch_random: random states at the start of the current epoch.
        watch: counts updates and their time.
        resumed_random: random states of a checkpoint inside an epoch, until that epoch goes on;
            else None.
        resumed_loader: state of the user's loader in a checkpoint, until its epoch goes on; else
            None.
        ended_loader: the same at the end of the current epoch's batches.
        saved: step of the newest checkpoint; None without one.
        pretrained: the weights that the training began with; None for random ones.
        log_bytes: size of metrics.jsonl at the checkpoint that was resumed; 0 without one.
    """

    experiment: Experiment
    rate: LearningRate
    directory: Path
    built: Built
    schedule: Schedule
    state: TrainingState
    step: Step
    metrics: Mapping[str, Metric]
    tally: Tally | None
    finite_buffers: Mapping[str, torch.Size]
    generators: list[torch.Generator]
    epoch_random: RandomStates
    watch: Stopwatch
    resumed_random: RandomStates | None = None
    resumed_loader: Any = None
    ended_loader: Any = None
    saved: int | None = None
    pretrained: CheckpointFacts | None = None
    log_bytes: int = 0

    @property
    def position(self) -> Position:
        """Steps, epochs and batches so far."""
        return self.state.position

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.experiment.runtime.ranks

    def averaged(self) -> AbstractContextManager[None]:
        """Use the weights that are evaluated inside the block, such as their moving average."""
        set_mode(self.built.optimizer, training=False)  # the next step sets it back
        average = self.state.average
        return average.in_place() if average is not None else nullcontext()


def begin(
    experiment: Experiment, rate: LearningRate, directory: Path, checkpoint: Checkpoint | None
) -> Session:
    """Build a training from the seed, and restore a checkpoint if there is one.

    The state of `checkpoint` is emptied, so that the optimizer's state is not in memory twice.

    Raises:
        UserError: something cannot be built, or the checkpoint does not fit.
    """
    config = experiment.config.train
    schedule = schedule_of(experiment)
    metrics = metrics_of(experiment)
    built = build(experiment, experiment.config.seed)
    generators = rewind_generators(experiment)
    scaler, watch = experiment.runtime.scaler(), Stopwatch(experiment.started)
    average = None
    if config.ema_decay is not None:
        average = MovingAverage(weights.plain(built.model), config.ema_decay)
        coarse = {p.dtype for p in built.model.parameters()} & {torch.bfloat16, torch.float16}
        if coarse:
            kind = str(coarse.pop()).removeprefix("torch.")
            warnings.warn(
                f"train.ema_decay averages weights of {kind}, which is too coarse for steps of "
                f"1 − {config.ema_decay}: keep them in float32; runtime.precision says in which "
                "numbers the model computes",
                LrtoolWarning,
                stacklevel=2,
            )
        if isinstance(built.loss_fn, nn.Module) and any(
            parameter.requires_grad for parameter in built.loss_fn.parameters()
        ):
            warnings.warn(
                "train.ema_decay averages the model's weights, not those of the loss",
                LrtoolWarning,
                stacklevel=2,
            )
    session = Session(
        experiment=experiment,
        rate=rate,
        directory=directory,
        built=built,
        schedule=schedule,
        state=TrainingState(
            model=built.model,
            optimizer=built.optimizer,
            scaler=scaler,
            schedule=schedule,
            average=average,
            position=Position(),
            best=_best(experiment),
        ),
        step=watch.counted(step_of(experiment, built, scaler, experiment.runtime.ranks)),
        metrics=metrics,
        tally=_tally(experiment),
        finite_buffers=weights.finite_buffers(built.model),
        generators=generators,
        epoch_random=random_states(generators),
        watch=watch,
        pretrained=built.checkpoint,
    )
    if checkpoint is not None:
        with restoring(checkpoint.folder):
            _restore(session, checkpoint)
    return session


def _restore(session: Session, checkpoint: Checkpoint) -> None:
    state, loss_fn = checkpoint.state, session.built.loss_fn
    load_checkpoint(session.state, checkpoint.folder, state, session.ranks)
    session.saved = session.position.step
    session.log_bytes = state["log_bytes"]
    if state.get("timing") is not None:  # older checkpoints have none
        session.watch.load_state_dict(state["timing"])
    session.pretrained = pretrained_of(checkpoint)
    if isinstance(loss_fn, nn.Module):
        loss_fn.load_state_dict(state["loss"])
    _restore_randomness(session, state)
    state.clear()


def _restore_randomness(session: Session, state: dict[str, Any]) -> None:
    """Put back this rank's random states, or those of rank 0 if the number of ranks has changed."""
    ranks, own_randomness, own = session.ranks, session.built.own_randomness, state
    if world_size(state) == ranks.world_size and ranks.several:
        own = state["ranks"][ranks.rank]
    if session.position.batches:
        session.epoch_random = own["epoch_random"]
        session.resumed_random = own["random"]
    session.resumed_loader = own.get("loader")
    for name in ("epoch_random", "random"):  # the first one is tried, should it be damaged
        restore_random_states(own[name], session.generators)
    if own_randomness is not None and own is not state:
        own_randomness.load_state_dict(own["model"])
    elif own_randomness is not None:
        own_randomness.begin(session.position.step)


def _tally(experiment: Experiment) -> Tally | None:
    """Return what adds up the predictions on the validation set; None where they are not known."""
    if experiment.loss_fn is None or experiment.data.validation is None:
        return None
    config, targets = experiment.config, experiment.data.encoding.targets
    return Tally(
        *what_loss(experiment),
        metrics=config.metrics,
        names=class_names(targets),
        target=targets.name if isinstance(targets, Values) else None,
        units=units_of(experiment),
        seed=config.seed,
    )


def _best(experiment: Experiment) -> BestTracker:
    """Return the tracker of the best epoch, for the metric of early stopping or the loss."""
    stopping = experiment.config.train.early_stopping
    if stopping is None:
        validated = experiment.data.validation is not None
        return BestTracker("validation_loss" if validated else "train_loss", higher=False)
    higher = stopping.mode == "max"
    if stopping.mode == "auto" and stopping.metric not in {"train_loss", "validation_loss"}:
        higher = bool(higher_is_better(stopping.metric, experiment.directories))
    return BestTracker(key(stopping.metric), higher, stopping.min_delta)


def updates(session: Session) -> Iterator[Sequence[Any]]:
    """Return the batches of each update of the current epoch, or of the rest of it."""
    experiment, position = session.experiment, session.position
    if position.exhausted:
        session.resumed_random = None
        return iter(())
    if session.resumed_random is None:
        session.epoch_random = random_states(session.generators)
    else:  # the loader makes the batches that are skipped from the same random states again
        restore_random_states(session.epoch_random, session.generators)
    made = batches.epoch(
        experiment.data.train,
        batch_size=experiment.data.batch_size,
        seed=experiment.config.seed,
        epoch=position.epoch,
        device=experiment.runtime.device,
        skip=position.batches,
        ranks=session.ranks,
        state=session.resumed_loader,
        must_end=experiment.config.train.max_steps is None,
    )
    session.resumed_loader = None
    if session.resumed_random is not None:
        restore_random_states(session.resumed_random, session.generators)
        session.resumed_random = None
    return placed(
        session.built.model,
        batches.micro_batches(_noted(session, made), experiment.config.train.accumulate),
        step=position.step,
        epoch=position.epoch,
        batch=position.batches,
    )


def _noted(session: Session, made: Iterator[Any]) -> Iterator[Any]:
    """Yield an epoch's batches; note the loader's state at their end, before another pass."""
    yield from made
    session.ended_loader = loader_state.end_of(session.experiment.data.train)


def _loader_state(session: Session) -> Any:
    """Return the state of the user's loader for a checkpoint; None if it is resumed by position.

    Warns:
        LrtoolWarning: it has a state that no checkpoint can hold.
    """
    position, part = session.position, session.experiment.data.train
    if position.exhausted or not position.batches:
        state = session.ended_loader
    else:
        state = loader_state.state_of(part)
    problem = None if state is None else unkeepable({"state": state})
    if problem is None:
        return state
    warnings.warn(
        f"the state of the training set's {type(loader_state.stateful(part)).__name__} holds "
        f"{problem}: a training that is resumed goes through its batches again instead",
        LrtoolWarning,
        stacklevel=2,
    )
    return None


def advance(session: Session, step: Step, pause_every: int | None) -> Iterator[list[StepRow]]:
    """Train to the end of the current epoch, or of the training; yield rows, several at a time.

    Args:
        session: the training.
        step: the session's own, or one that wraps it.
        pause_every: yield also when the number of updates is a multiple of this.
    """
    return train_epoch(
        step,
        updates(session),
        session.position,
        lr=session.rate.value,
        schedule=session.schedule,
        optimizer=session.built.optimizer,
        average=session.state.average,
        max_steps=session.experiment.config.train.max_steps,
        pause_every=pause_every,
        ranks=session.ranks,
    )


def evaluate(session: Session) -> Generator[int, None, EpochRow]:
    """Evaluate the model; yield the number of samples seen, return the epoch's row.

    The random states are left as before.

    Raises:
        UserError: the validation set is empty.
    """
    experiment, built, position = session.experiment, session.built, session.position
    validation = experiment.data.validation
    loss, metrics = None, {}
    part = experiment.data.train if validation is None and session.metrics else validation
    if part is not None:
        before = random_states(session.generators)
        samples = batches.ordered(
            part,
            batch_size=experiment.data.batch_size,
            device=experiment.runtime.device,
            ranks=session.ranks,
        )
        try:
            with session.averaged():
                take_buffers_of_first((built.model, built.loss_fn), session.ranks)
                result = yield from evaluation.evaluate(
                    built.model,
                    built.loss_fn,
                    samples,
                    experiment.runtime,
                    session.metrics,
                    observers=[] if session.tally is None else [session.tally],
                )
        finally:  # so that evaluations do not change the training
            restore_random_states(before, session.generators)
        if not result.samples:
            raise empty_validation()
        if result.denominator == 0:
            raise reduction_of(built.loss_fn).no_targets("the validation data")
        loss = None if validation is None else result.loss
        metrics = result.metrics
    row = EpochRow(
        epoch=position.epoch + 1,
        step=position.step,
        lr=position.lr,
        train_loss=position.train_loss(),
        validation_loss=loss,
        **metrics,
    )
    return session.ranks.from_first(row)  # for all decide by it


def observe(session: Session, row: EpochRow) -> bool:
    """Tell the schedule and early stopping of an epoch; return whether it is the best so far."""
    session.position.evaluated = session.position.step
    session.schedule.observe(row.train_loss if row.validation_loss is None else row.validation_loss)
    return session.state.best.observe(row)


def save(session: Session, log: IO[bytes]) -> None:
    """Save the checkpoint `last`, with the random states of all ranks.

    Raises:
        OSError: it cannot be written; the one before is kept.
    """
    set_mode(session.built.optimizer, training=False)  # `evaluate` may read these weights
    ranks, own_randomness = session.ranks, session.built.own_randomness
    random = {"random": random_states(session.generators), "epoch_random": session.epoch_random}
    loader = {"loader": _loader_state(session)}
    each: list[dict[str, Any]] = []
    if own_randomness is not None:
        each = ranks.gather({**random, **loader, "model": own_randomness.state_dict()})
    save_checkpoint(
        session.state,
        session.directory / CHECKPOINTS,
        ranks,
        lrtool=__version__,
        loss=_loss_state(session),
        config=resolved_config(session.experiment),
        data=session.experiment.data.digest,
        pretrained=session.pretrained and asdict(session.pretrained),
        learning_rate=asdict(session.rate),
        timing=session.watch.state_dict(),
        **random,
        **loader,
        ranks=each,
        log_bytes=metrics_log.synced_size(log) if ranks.first else 0,
    )
    session.saved = session.position.step


def save_weights(session: Session, path: Path, notes: dict[str, Any]) -> None:
    """Write the weights, or their moving average if there is one.

    Raises:
        OSError: they cannot be written.
    """
    with session.averaged():
        state = whole_state(weights.plain(session.built.model), keep=session.ranks.first)
        if session.ranks.first:
            path.parent.mkdir(parents=True, exist_ok=True)
            weights.write_weights(state, path, notes)


def save_best(session: Session, row: EpochRow) -> None:
    """Write `checkpoints/best`: the weights of the best epoch so far, the loss's own included.

    What they predict on the validation set is among the notes of the file.

    Raises:
        OSError: they cannot be written.
        UserError: an extra state of the model holds objects that cannot be read back.
    """
    best = session.state.best
    notes: dict[str, Any] = {"epoch": row.epoch, "step": row.step, best.metric: best.value}
    if session.tally is not None:
        notes[PREDICTIONS] = dump_predictions(session.tally.facts(session.ranks))
    folder = session.directory / CHECKPOINTS / BEST
    loss = _loss_state(session)
    if session.ranks.first:
        folder.mkdir(parents=True, exist_ok=True)
        save_extra(weights.plain(session.built.model).state_dict(), folder)
        if loss:
            weights.write_weights(loss, folder / LOSS, notes)
    save_weights(session, folder / MODEL, notes)


def _loss_state(session: Session) -> dict[str, Any]:
    """Return the weights and buffers of a loss that is a module; {} without any."""
    loss_fn = session.built.loss_fn
    return loss_fn.state_dict() if isinstance(loss_fn, nn.Module) else {}


@contextmanager
def writing(session: Session) -> Iterator[None]:
    """Explain an error in writing a file of the run, and say which checkpoint is left.

    Raises:
        UserError: a file cannot be written.
    """
    directory = place(session.directory)
    try:
        yield
    except OSError as error:
        kept = "no checkpoint had been saved yet"
        if session.saved is not None:
            kept = (
                f"the checkpoint of step {session.saved:,} is whole; --resume {directory} goes on"
            )
        what = f"{error.filename or directory}: cannot be written: {error.strerror or error}"
        raise UserError(f"{what}; {kept}") from error
