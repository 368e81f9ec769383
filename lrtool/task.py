"""From a configuration to everything it names, built and tried on one batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lrtool.build import lookup, losses, models, optimizers
from lrtool.data import batches
from lrtool.data.load import Loaded, as_binary, load, to_device
from lrtool.engine import runtime as runtimes
from lrtool.engine.step import forward, make_step
from lrtool.engine.sweep import make_probe
from lrtool.errors import (
    ComponentError,
    LrtoolError,
    OutOfMemoryError,
    Problem,
    UserError,
)
from lrtool.settings import directories_of, located

if TYPE_CHECKING:
    from pathlib import Path

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
            data = as_binary(data)
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
    if task.runtime.compile:
        model.compile()
    model.train()
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
    with located(task.document):
        _refuse_a_batch_of_one(task, built.model)
        _refuse_a_probe_of_nothing(task)
    batch = next(stream(task, task.config.seed))
    outputs = targets = None
    try:
        if built.loss_fn is not None:
            with located(task.document), torch.no_grad(), task.runtime.autocast():
                outputs, targets = forward(built.model, batch)
                _refuse_what_does_not_fit(task.config.loss.name, built.loss_fn, outputs, targets)
        loss = step_of(task, built)([batch], task.config.find.start).loss
    except LrtoolError:
        raise
    except Exception as error:
        if runtimes.is_out_of_memory(error):
            raise worded(task, error) from error
        raise UserError(
            f"the model {task.config.model.name} failed on a batch of inputs "
            f"{_shape(_first_input(batch))}: {type(error).__name__}: {error}{lookup.place(error)}"
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


def _refuse_what_does_not_fit(name: str, loss_fn: LossFunction, outputs: Any, targets: Any) -> None:
    problem = losses.fit_problem(name, loss_fn, outputs, targets)
    if problem is not None:
        raise ComponentError([Problem(("loss",), problem)])


def _refuse_a_batch_of_one(task: Task, model: nn.Module) -> None:
    """Batch norm cannot train on a single sample, which may be all the last batch has."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    count = task.data.samples["train"]
    if count is None or not any(isinstance(module, norms) for module in model.modules()):
        return
    if task.data.batch_size == 1 or count % task.data.batch_size == 1:
        problem = (
            f"{count:,} training samples in batches of {task.data.batch_size} leave one sample "
            "alone in the last batch, which batch norm cannot train on; change it by one"
        )
        raise ComponentError([Problem(("data", "batch_size"), problem)])


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


def stream(task: Task, seed: int) -> Iterator[Any]:
    """Return training batches for ever, epoch after epoch, in an order that the seed decides."""
    return batches.endless(
        task.data.train, batch_size=task.data.batch_size, seed=seed, device=task.runtime.device
    )


def step_of(task: Task, built: Built) -> Step:
    """Return the step of a model with the configuration's clipping and precision."""
    return make_step(
        built.model,
        built.loss_fn,
        built.optimizer,
        task.runtime,
        ratios=built.ratios,
        clip_norm=task.config.train.gradient_clip_norm,
        scaler=task.runtime.scaler(),
    )


def probe_of(task: Task, built: Built) -> Callable[[], torch.Tensor]:
    """Return a probe over the first samples of the validation part, the same for all repeats."""
    assert task.data.validation is not None, "try_one_batch refuses a probe of nothing"
    stream = batches.ordered(
        task.data.validation, batch_size=PROBE_SAMPLES, device=task.runtime.device
    )
    return make_probe(built.model, built.loss_fn, next(stream), task.runtime)


def training_steps(task: Task) -> int | None:
    """Return the number of updates of the training that the configuration describes."""
    train, count = task.config.train, task.data.samples["train"]
    if train.max_steps is not None or train.epochs is None:
        return train.max_steps
    if count is None:
        return None
    return train.epochs * ceil(ceil(count / task.data.batch_size) / train.accumulate)


def worded(task: Task, error: Exception) -> Exception:
    """Return the error to raise in place of one from a step: words where it is the user's."""
    config, data = task.config, task.data
    if runtimes.is_out_of_memory(error):
        return OutOfMemoryError(
            f"out of memory with batches of {data.batch_size:,} samples on {task.runtime.device}; "
            "try a smaller data.batch_size, or train.accumulate with smaller batches"
        )
    own = [
        n
        for n in (config.model.name, config.loss.name, config.data.source)
        if lookup.is_import_path(n)
    ]
    if own and not isinstance(error, LrtoolError):
        return UserError(
            f"{' or '.join(own)} failed: {type(error).__name__}: {error}{lookup.place(error)}"
        )
    return error
