"""From a configuration to everything it names, built and tried on one batch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lrtool.build import lookup, losses, metrics, models, optimizers
from lrtool.data import batches
from lrtool.data.load import Loaded, as_binary, load, to_device
from lrtool.data.part import OwnLoader, Resident
from lrtool.engine import runtime as runtimes
from lrtool.engine.evaluation import evaluating
from lrtool.engine.step import forward, make_step
from lrtool.engine.sweep import make_probe
from lrtool.errors import (
    ComponentError,
    DataError,
    LrtoolError,
    LrtoolWarning,
    OutOfMemoryError,
    Problem,
    UserError,
)
from lrtool.settings import directories_of, located

if TYPE_CHECKING:
    from lrtool.build.metrics import Metric
    from lrtool.config import Config
    from lrtool.document import Document
    from lrtool.engine.runtime import Runtime
    from lrtool.engine.step import LossFunction, Step

PROBE_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class Task:
    """A configuration and everything it names that is not built anew for each sweep."""

    config: Config
    document: Document
    directories: tuple[Path, ...]
    runtime: Runtime
    data: Loaded
    loss_fn: LossFunction
    started: float


def open_task(config: Config, document: Document) -> Task:
    """Read the data, bring it to the device, and build what all sweeps share.

    Raises:
        UserError: something that the configuration names cannot be built.

    Warns:
        LrtoolWarning: a setting is ignored.
    """
    started = perf_counter()
    directories = directories_of(config, document)
    with located(document):
        runtime = runtimes.open_runtime(config.runtime)
        loss_fn = losses.build_loss(config.loss, directories)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(runtime.device)
        source = config.data.source
        factory = lookup.resolve(source, directories) if lookup.is_import_path(source) else None
        seed_everything(config.seed)  # a factory may draw numbers
        data = load(config.data, seed=config.seed, factory=factory, directories=directories)
        if losses.wants_binary(config.loss.name):
            try:
                data = as_binary(data)
            except DataError as error:
                problem = f"{error}; losses that fit: cross_entropy, multi_margin_loss"
                raise ComponentError([Problem(("loss",), problem)]) from error
    task = Task(config, document, directories, runtime, data, loss_fn, started)
    memory_format = runtimes.to_memory_format(runtime, build(task, config.seed).model)
    return replace(task, data=to_device(data, runtime.device, memory_format))


@dataclass(frozen=True, slots=True)
class Built:
    """A model with its loss and optimizer, fresh from a seed.

    Attributes:
        model: on the device, in training mode.
        loss_fn: None for a model that computes its own loss.
        optimizer: over the model's parameters.
        ratios: each parameter group's rate over the base rate.
    """

    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: torch.optim.Optimizer
    ratios: list[float]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (users' code draws from the global state)
    torch.manual_seed(seed)


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of one repeat: the run's own for the first, then others no run shares."""
    if repeat == 0:
        return seed
    return int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def build(task: Task, seed: int) -> Built:
    """Build model and optimizer from a seed, the same weights on every device.

    Raises:
        UserError: they cannot be built from the configuration.
    """
    config, data = task.config, task.data
    facts = {
        "input_shape": data.input_shape,
        "num_outputs": data.num_outputs,
        "vocabulary": data.vocabulary,
    }
    seed_everything(seed)
    with located(task.document):
        model = runtimes.place(
            models.build_model(config.model, facts, task.directories), task.runtime
        )
        optimizer = optimizers.build_optimizer(
            config.optimizer, model, lr=1.0, directories=task.directories
        )
    ratios = [float(group["lr"]) for group in optimizer.param_groups]
    loss_fn = None if hasattr(model, "training_loss") else task.loss_fn
    model.train()
    if task.runtime.compile:
        if loss_fn is None:
            warnings.warn(
                "runtime.compile is ignored: training_loss(batch) is not the model's forward",
                LrtoolWarning,
                stacklevel=2,
            )
        else:
            compiled: Any = torch.compile(model)
            model = compiled
    return Built(model, loss_fn, optimizer, ratios)


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """What became of one batch.

    Attributes:
        inputs: shape with the batch; None for a model with a loss of its own.
        targets: likewise.
        outputs: likewise.
        loss: before any update.
        parameters: how many numbers the model has.
        trainable: how many of them are trained.
        optimizer: name of the optimizer for the suggestion's constants.
        family: how its updates follow the gradient's scale, if that could be measured.
    """

    inputs: tuple[int, ...] | None
    targets: tuple[int, ...] | None
    outputs: tuple[int, ...] | None
    loss: float
    parameters: int
    trainable: int
    optimizer: str
    family: str | None


def try_one_batch(task: Task) -> FirstBatch:
    """Take one step with a throwaway model, so that what does not fit shows before the sweeps.

    Raises:
        UserError: model, loss and data do not fit each other, in words.
        OutOfMemoryError: the batch is too large for the device.
    """
    built = build(task, task.config.seed)
    batch = _first_of(task)
    with located(task.document):
        _refuse_a_probe_of_nothing(task)
        _refuse_a_batch_of_one(task, built.model, batch)
    outputs = targets = None
    what = f"the model {task.config.model.name}"
    try:
        if built.loss_fn is not None:
            with located(task.document), torch.no_grad(), task.runtime.autocast():
                outputs, targets = forward(built.model, batch)
                _refuse_what_does_not_fit(task.config.loss.name, built.loss_fn, outputs, targets)
        what = f"a step of {task.config.optimizer.name} with the model {task.config.model.name}"
        loss = step_of(task, built, task.runtime.scaler())([batch], task.config.find.start).loss
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:
        if runtimes.is_out_of_memory(error):
            raise worded(task, error) from error
        shape = _shape(_first_input(batch))
        raise UserError(
            f"{what} failed on a batch of inputs {shape}: {lookup.words(error)}"
        ) from error
    sizes = [(p.numel(), p.requires_grad) for p in built.model.parameters()]
    return FirstBatch(
        inputs=_shape(_first_input(batch)),
        targets=_shape(targets),
        outputs=_shape(outputs),
        loss=float(loss),
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, trainable in sizes if trainable),
        optimizer=optimizers.kind(built.optimizer),
        family=optimizers.family(built.optimizer),
    )


def metrics_of(task: Task) -> dict[str, Metric]:
    """Build the metrics that the configuration names, tried on one batch, by their keys.

    Raises:
        UserError: they cannot be built or do not fit what the model returns, in words.
    """
    config = task.config
    if not config.metrics:
        return {}
    built = build(task, config.seed)
    batch = _first_of(task)
    with located(task.document), evaluating(built.model), torch.no_grad(), task.runtime.autocast():
        outputs, targets = forward(built.model, batch)
        return metrics.build_metrics(
            config.metrics,
            loss=config.loss.name,
            loss_args=config.loss.args,
            outputs=outputs,
            targets=targets,
            device=task.runtime.device,
            directories=task.directories,
        )


def _first_of(task: Task) -> Any:
    """Return the first batch; a data set of the user's may fail on it."""
    try:
        return next(updates(task, task.config.seed))[0]
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:
        if runtimes.is_out_of_memory(error):
            raise worded(task, error) from error
        source = task.config.data.source
        raise UserError(f"data.source {source} failed: {lookup.words(error)}") from error


def _refuse_what_does_not_fit(name: str, loss_fn: LossFunction, outputs: Any, targets: Any) -> None:
    problem = losses.fit_problem(name, loss_fn, outputs, targets)
    if problem is not None:
        raise ComponentError([Problem(("loss",), problem)])


def _refuse_a_batch_of_one(task: Task, model: nn.Module, batch: Any) -> None:
    """Batch norm may not be able to train on a single sample, if that is all the last batch has."""
    part, size = task.data.train, task.data.batch_size
    if not isinstance(part, Resident) or part.size % size != 1:
        return
    try:
        with torch.no_grad(), task.runtime.autocast():
            model(batch[0][:1])
    except ValueError as error:  # "Expected more than 1 value per channel when training"
        problem = (
            f"{part.size:,} training samples in batches of {size} leave one sample alone in the "
            f"last batch, which this model cannot train on ({error}); change it by one"
        )
        raise ComponentError([Problem(("data", "batch_size"), problem)]) from error


def _refuse_a_probe_of_nothing(task: Task) -> None:
    if task.config.find.loss == "probe" and task.data.validation is None:
        problem = "a probe needs a validation part; set data.validation, or find.loss: batch"
        raise ComponentError([Problem(("find", "loss"), problem)])


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _first_input(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next(iter(batch.values()), None)
    return batch[0] if isinstance(batch, Sequence) and batch else batch


def updates(task: Task, seed: int) -> Iterator[list[Any]]:
    """Return the batches of each update for ever, in an order that the seed decides."""
    return batches.updates(
        task.data.train,
        batch_size=task.data.batch_size,
        accumulate=task.config.train.accumulate,
        seed=seed,
        device=task.runtime.device,
    )


def step_of(task: Task, built: Built, scaler: torch.amp.GradScaler | None) -> Step:
    """Return the step of a model with the configuration's clipping and precision."""
    return make_step(
        built.model,
        built.loss_fn,
        built.optimizer,
        task.runtime,
        ratios=built.ratios,
        clip_norm=task.config.train.gradient_clip_norm,
        scaler=scaler,
    )


def probe_of(task: Task, built: Built) -> Callable[[], torch.Tensor]:
    """Return a probe over random samples of the validation part, the same for all repeats."""
    assert task.data.validation is not None, "try_one_batch refuses a probe of nothing"
    samples = batches.epoch(
        task.data.validation,
        batch_size=PROBE_SAMPLES,
        seed=task.config.seed,
        epoch=0,
        device=task.runtime.device,
    )
    return make_probe(built.model, built.loss_fn, next(samples), task.runtime)


def training_steps(task: Task) -> int | None:
    """Return the number of updates of the training that the configuration describes, if known."""
    train, steps = task.config.train, steps_per_epoch(task)
    if train.max_steps is not None or train.epochs is None or steps is None:
        return train.max_steps
    return train.epochs * steps


def steps_per_epoch(task: Task) -> int | None:
    """Return the number of updates in an epoch; None where only reading the data could tell."""
    part = task.data.train
    if isinstance(part, OwnLoader):
        count = len(part.loader) if isinstance(part.loader.dataset, Sized) else None
    else:
        count = None if part.size is None else ceil(part.size / task.data.batch_size)
    return None if count is None else ceil(count / task.config.train.accumulate)


def resolved(task: Task) -> dict[str, Any]:
    """Return the whole configuration as plain data, which works from any directory."""
    own = str(Path(task.document.name).resolve().parent)
    data = task.config.model_dump(mode="json")
    if own not in data["search_path"]:
        data["search_path"] = [own, *data["search_path"]]
    return data


def worded(task: Task, error: Exception | SystemExit) -> BaseException:
    """Return the error to raise in place of one from a step: words where it is the user's."""
    config, data = task.config, task.data
    if runtimes.is_out_of_memory(error):
        return OutOfMemoryError(
            f"out of memory with batches of {data.batch_size:,} samples on {task.runtime.device}; "
            "try a smaller data.batch_size, or train.accumulate with smaller batches"
        )
    names = (config.model.name, config.loss.name, config.optimizer.name, config.data.source)
    own = [name for name in names if lookup.is_import_path(name)]
    if own and not isinstance(error, LrtoolError):
        return UserError(f"{' or '.join(own)} failed: {lookup.words(error)}")
    return error
