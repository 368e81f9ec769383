"""The preflight: one batch through a throwaway model, so that misfits show before the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool import __version__
from lrtool.components import losses, metrics
from lrtool.components.metric_inputs import Units
from lrtool.components.metrics import METRICS
from lrtool.components.models.convolutional import channels_last
from lrtool.components.schedules import Schedule, build_schedule
from lrtool.config.document import located
from lrtool.data import batches
from lrtool.data.checks import class_problem
from lrtool.data.encoding import target_scale
from lrtool.data.facts import labels_of
from lrtool.data.part import Resident
from lrtool.engine.denominator import reduction_of
from lrtool.engine.device import environment
from lrtool.engine.evaluation import evaluate, evaluating, outputs_of
from lrtool.engine.lightning import transferred
from lrtool.engine.step import forward
from lrtool.errors import ConfigError, LrtoolError, LrtoolWarning, Problem, UserError
from lrtool.experiment.experiment import (
    build,
    first_epoch,
    resolved_config,
    step_of,
    steps_per_epoch,
    training_steps,
)
from lrtool.experiment.failures import explain
from lrtool.report.records import DataFacts, Environment, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.engine.evaluation import Metric
    from lrtool.engine.step import LossFunction
    from lrtool.experiment.experiment import Built, Experiment


@dataclass(frozen=True, slots=True)
class Preflight:
    """The result of one batch.

    Attributes:
        inputs: shape, with the batch dimension; None for what is no tensor.
        targets: likewise; None for a model that computes its own loss.
        outputs: likewise.
        loss: before any update; NaN where the model skips the batch.
        parameters: number of the parameters of the model, and of the loss if it has any.
        trainable: number of those that are trained.
    """

    inputs: tuple[int, ...] | None
    targets: tuple[int, ...] | None
    outputs: tuple[int, ...] | None
    loss: float
    parameters: int
    trainable: int


def run_preflight(experiment: Experiment) -> Preflight:
    """Make one step with a throwaway model.

    Raises:
        UserError: model, loss and data do not fit each other, in words.
        OutOfMemoryError: the batch is too large for the device.
    """
    config, runtime = experiment.config, experiment.runtime
    built = build(experiment, config.seed)
    batch = _first_of(experiment, built.loss_fn)
    with located(experiment.document):
        _refuse_a_probe_of_nothing(experiment)
        _refuse_a_batch_of_one(experiment, built.model, batch)
        if built.loss_fn is not None:
            _refuse_bad_labels(experiment, built.loss_fn)
    _warn_of_channels_last(experiment, built.model)
    outputs = targets = None
    failed = f"the model {config.model.name}"
    try:
        if built.loss_fn is not None:
            with located(experiment.document), torch.no_grad(), runtime.autocast():
                outputs, targets = forward(built.model, transferred(built.model, batch))
                _refuse_a_misfit(config.loss.name, built.loss_fn, outputs, targets)
        failed = f"a step of {config.optimizer.name} with the model {config.model.name}"
        step = step_of(experiment, built, runtime.scaler())
        out = step([batch], config.find.start)
    except LrtoolError:
        raise
    except (Exception, SystemExit) as error:
        shape = _shape(_first_input(batch))
        raise explain(experiment, error, f"{failed} failed on a batch of inputs {shape}") from error
    sizes = [(p.numel(), p.requires_grad) for p in _parameters(built)]
    return Preflight(
        inputs=_shape(_first_input(batch)),
        targets=_shape(targets),
        outputs=_shape(outputs),
        loss=nan if out is None else float(out.loss),
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, trainable in sizes if trainable),
    )


def _parameters(built: Built) -> list[nn.Parameter]:
    """Return the parameters of the model, and of the loss if it has any, each once."""
    modules = [part for part in (built.model, built.loss_fn) if isinstance(part, nn.Module)]
    return list({p: None for module in modules for p in module.parameters()})


def facts(experiment: Experiment, preflight: Preflight) -> dict[str, Any]:
    """Return the fields that all reports share: configuration, data, model and environment."""
    config, data = experiment.config, experiment.data
    return {
        "config": resolved_config(experiment),
        "config_hash": config.digest(),
        "seed": config.seed,
        "data": DataFacts(
            samples={k: n for k, n in data.samples.items() if n is not None},
            shapes=data.shapes,
            hash=data.digest,
            target=target_scale(data.encoding),
            columns=data.columns,
        ),
        "model": ModelFacts(
            name=config.model.name, parameters=preflight.parameters, trainable=preflight.trainable
        ),
        "environment": Environment(lrtool=__version__, **environment(experiment.runtime.device)),
    }


def run_training_preflight(experiment: Experiment) -> None:
    """Build what only a training needs, and evaluate a throwaway model on one batch.

    Raises:
        UserError: schedule or metrics cannot be built, model and loss do not fit the validation
            set, or it is empty.
        OutOfMemoryError: the batch is too large for the device.
    """
    schedule_of(experiment)
    metrics_of(experiment)
    with located(experiment.document):
        _refuse_one_class(experiment)
    part, stopping = experiment.data.validation, experiment.config.train.early_stopping
    if part is None:
        if stopping is not None and stopping.metric == "validation_loss":
            with located(experiment.document):
                problem = "there is no validation_loss, as the data have no validation set"
                raise ConfigError(Problem(("train", "early_stopping", "metric"), problem))
        return
    built = build(experiment, experiment.config.seed)
    stream = batches.ordered(
        part, batch_size=experiment.data.batch_size, device=experiment.runtime.device
    )
    with _data_source(experiment):
        batch = next(stream, None)
    if batch is None:
        raise empty_validation()
    try:
        for _ in evaluate(built.model, built.loss_fn, [batch], experiment.runtime, {}):
            pass
    except (Exception, SystemExit) as error:
        shape = _shape(_first_input(batch))
        failed = f"evaluating failed on a validation batch of inputs {shape}"
        raise explain(experiment, error, failed) from error


def empty_validation() -> UserError:
    """Return the error to raise for a validation set without a batch."""
    return UserError("the validation set is empty: it yields no batch")


def schedule_of(experiment: Experiment) -> Schedule:
    """Build the schedule of the whole training.

    Raises:
        ConfigError: it does not fit the training's length.
    """
    with located(experiment.document):
        return build_schedule(
            experiment.config.train.schedule,
            steps=training_steps(experiment),
            steps_per_epoch=steps_per_epoch(experiment),
        )


def metrics_of(experiment: Experiment) -> Mapping[str, Metric]:
    """Build the configuration's metrics, by key, and try them on one batch.

    Raises:
        UserError: they cannot be built or do not fit what the model returns, in words.
    """
    config = experiment.config
    if not config.metrics:
        return {}
    built = build(experiment, config.seed)
    batch = _first_of(experiment, built.loss_fn)
    try:
        with (
            located(experiment.document),
            evaluating(built.model),
            torch.no_grad(),
            experiment.runtime.autocast(),
        ):
            batch = transferred(built.model, batch)
            outputs, targets, _ = outputs_of(built.model, built.loss_fn, batch)
            return metrics.build_metrics(
                config.metrics,
                loss=config.loss.name,
                loss_args=config.loss.args,
                outputs=outputs,
                targets=targets,
                device=experiment.runtime.device,
                directories=experiment.directories,
                units=_units(experiment),
            )
    except (Exception, SystemExit) as error:
        raise explain(experiment, error, "the metrics failed on a training batch") from error


def _units(experiment: Experiment) -> Units | None:
    """Return the units of the target, in which metrics are given; None if they are the loss's."""
    scale = target_scale(experiment.data.encoding)
    return None if scale is None else Units(scale.mean, scale.deviation)


def _first_of(experiment: Experiment, loss_fn: LossFunction | None) -> Any:
    """Return the first batch of the training set that has a target which is not ignored.

    Raises:
        DataError: there is none.
    """
    reduction = reduction_of(loss_fn)
    with _data_source(experiment):
        for group in first_epoch(experiment):
            for batch in group:
                if reduction.denominator(batch) != 0:
                    return batch
    raise reduction.no_targets("the training data")


@contextmanager
def _data_source(experiment: Experiment) -> Iterator[None]:
    """Name the data source where reading from it fails."""
    try:
        yield
    except (Exception, SystemExit) as error:
        failed = f"data.source {experiment.config.data.source} failed"
        raise explain(experiment, error, failed) from error


def _refuse_a_misfit(loss: str, loss_fn: LossFunction, outputs: Any, targets: Any) -> None:
    problem = losses.fit_problem(loss, loss_fn, outputs, targets)
    if problem is not None:
        raise ConfigError(Problem(("loss",), problem))


def _refuse_bad_labels(experiment: Experiment, loss_fn: LossFunction) -> None:
    """Refuse labels that are no classes, or all the same, where a built-in loss needs classes."""
    name = experiment.config.loss.name
    labels = labels_of(experiment.data.train)
    if labels is None or not losses.takes_classes(name):
        return
    problem = class_problem(labels, ignored=losses.ignored_index(name, loss_fn))
    if problem is not None:
        problem = f"the targets of {experiment.config.data.source}: {problem}"
        raise ConfigError(Problem(("data", "source"), problem))


def _warn_of_channels_last(experiment: Experiment, model: nn.Module) -> None:
    """Warn where a convolution takes an image's height for its channels."""
    shape = experiment.data.input_shape
    if shape is None or not channels_last(shape):
        return
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels == shape[0]:
        warnings.warn(
            f"an input of {experiment.config.data.source} has shape {shape}, as of an image with "
            f"the channels last, and the model takes {shape[0]} for the number of channels: "
            f"torch's convolutions expect (channels, height, width), as from "
            "images.transpose(0, 3, 1, 2)",
            LrtoolWarning,
            stacklevel=2,
        )


def _refuse_a_batch_of_one(experiment: Experiment, model: nn.Module, batch: Any) -> None:
    """Refuse a last batch of one sample if the model cannot train on it, as with batch norm."""
    part, size = experiment.data.train, experiment.data.batch_size
    if not isinstance(part, Resident) or part.size % size != 1:
        return
    try:
        with torch.no_grad(), experiment.runtime.autocast():
            model(batch[0][:1])
    except ValueError as error:  # "Expected more than 1 value per channel when training"
        problem = (
            f"{part.size:,} training samples in batches of {size} leave one sample alone in the "
            f"last batch, which this model cannot train on ({error}); change it by one"
        )
        raise ConfigError(Problem(("data", "batch_size"), problem)) from error


def _refuse_one_class(experiment: Experiment) -> None:
    """Refuse a metric over thresholds on targets of one class, where they are in memory."""
    validation = experiment.data.validation
    part = experiment.data.train if validation is None else validation
    if not isinstance(part, Resident) or bool((part.targets != part.targets[:1]).any()):
        return
    for index, name in enumerate(experiment.config.metrics):
        if name in METRICS and METRICS[name].needs_two_classes():
            which = "training" if validation is None else "validation"
            problem = f"{name} needs two classes, and all targets of the {which} set are the same"
            raise ConfigError(Problem(("metrics", index), problem))


def _refuse_a_probe_of_nothing(experiment: Experiment) -> None:
    if experiment.config.find.loss == "probe" and experiment.data.validation is None:
        problem = "a probe needs a validation set; set data.validation, or find.loss: batch"
        raise ConfigError(Problem(("find", "loss"), problem))


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _first_input(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next(iter(batch.values()), None)
    return batch[0] if isinstance(batch, Sequence) and batch else batch
