"""The preflight: one batch through a throwaway model, so that misfits show before the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool import __version__
from lrtool.batch import own
from lrtool.components import losses, metrics
from lrtool.components.import_path import is_import_path
from lrtool.components.metric_inputs import Units
from lrtool.components.metrics import METRICS
from lrtool.components.models.convolutional import channels_last
from lrtool.components.schedules import Schedule, build_schedule
from lrtool.config.document import located
from lrtool.data import batches
from lrtool.data.checks import class_problem
from lrtool.data.encoding import Classes, Values, target_scale
from lrtool.data.facts import labels_by_sample, yields
from lrtool.data.part import Resident
from lrtool.engine import freeze
from lrtool.engine.copies import detached
from lrtool.engine.denominator import reduction_of
from lrtool.engine.device import environment
from lrtool.engine.evaluation import evaluate, evaluating, of_all_ranks, outputs_of
from lrtool.engine.lightning import transferred
from lrtool.engine.nonfinite import bad_inputs
from lrtool.engine.step import forward
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError
from lrtool.experiment.divided_batches import with_divided_batches
from lrtool.experiment.endless import refuse_endless, refuse_endless_training
from lrtool.experiment.experiment import (
    build,
    first_epoch,
    resolved_config,
    samples_per_update,
    step_of,
    steps_per_epoch,
    training_steps,
)
from lrtool.experiment.failures import explain
from lrtool.experiment.fallbacks import part, settled
from lrtool.experiment.last_batch import refuse_a_failing_last_batch
from lrtool.experiment.memory_format import refuse_other_results
from lrtool.experiment.optimizer_preflight import refuse_unmoved_shards, try_optimizer
from lrtool.experiment.ranks_preflight import refuse_different_models, try_update
from lrtool.experiment.summed_loss import warn_of_a_sum
from lrtool.experiment.untrained_parameters import (
    warn_of_unregistered_parameters,
    warn_of_untrained_parameters,
)
from lrtool.report.records import DataFacts, Environment, ModelFacts, RateFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.data.part import Part
    from lrtool.engine.evaluation import Metric
    from lrtool.engine.step import LossFunction
    from lrtool.experiment.experiment import Built, Experiment
    from lrtool.report.records import CheckpointFacts


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
        validated: whether the validation set has a batch.
        trained: what of the model is trained; the name of a module stands for all in it.
        frozen: what is not.
        checkpoint: the pretrained weights that it starts from; None without any.
        rates: of its parts, highest first; empty if they are all the same.
    """

    inputs: tuple[int, ...] | None
    targets: tuple[int, ...] | None
    outputs: tuple[int, ...] | None
    loss: float
    parameters: int
    trainable: int
    validated: bool
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    checkpoint: CheckpointFacts | None
    rates: tuple[RateFacts, ...]


def run_preflight(experiment: Experiment) -> tuple[Experiment, Preflight]:
    """Make one step with a throwaway model, and evaluate it on one validation batch.

    Returns:
        The experiment, with the plain ways that the model needs (`fallbacks`), and the result.

    Raises:
        UserError: model, loss and data do not fit each other, in words.
        OutOfMemoryError: the batch is too large for the device.

    Warns:
        LrtoolWarning: a plain way is taken.
    """
    if experiment.config.runtime.shard and not experiment.runtime.sharded:
        words = "runtime.shard is ignored: one process has nobody to share the model with"
        warnings.warn(words, LrtoolWarning, stacklevel=2)
    refuse_different_models(experiment)
    with located(experiment.document):
        _refuse_a_probe_of_nothing(experiment)
        if experiment.loss_fn is not None:
            _refuse_bad_labels(experiment)
    experiment = with_divided_batches(experiment)
    experiment, preflight = settled(experiment, _try_batch)
    if not isfinite(preflight.loss):
        with located(experiment.document):
            _refuse_bad_numbers(experiment)
    with located(experiment.document):
        refuse_a_failing_last_batch(experiment)
    if experiment.runtime.ranks.several:
        experiment = try_update(experiment, _first_of(experiment, experiment.loss_fn))
    return experiment, preflight


def _try_batch(experiment: Experiment) -> Preflight:
    config, runtime = experiment.config, experiment.runtime
    built = build(experiment, config.seed)
    share = _first_of(experiment, built.loss_fn)
    batch = own(share)
    _warn_of_channels_last(experiment, built.model)
    on = f"failed on a batch of inputs {_shape(_first_input(batch))}"
    outputs = targets = None
    if built.loss_fn is not None:
        with (
            part(f"the model {config.model.name} {on}"),
            located(experiment.document),
            runtime.autocast(),
        ):
            outputs, targets = forward(built.model, transferred(built.model, batch))
            _refuse_a_misfit(experiment, built.loss_fn, outputs, targets)
            _refuse_other_numbers(experiment, outputs, targets)
            warn_of_a_sum(config.loss.name, built.loss_fn, outputs, targets)
            warn_of_untrained_parameters(
                config.loss.name, built.loss_fn, outputs, targets, _parameters(built)
            )
            if not runtime.sharded:  # whose parameters are others while it computes
                warn_of_unregistered_parameters(config.model.name, outputs, _parameters(built))
    with part(f"a step of {config.optimizer.name} with the model {config.model.name} {on}"):
        step = step_of(experiment, built, runtime.scaler())
        out = step([share], config.find.start)
    validation = experiment.data.validation
    if validation is None and config.metrics:  # these are of the training set then
        validation = experiment.data.train
    validated = validation is not None and _evaluate_a_batch(experiment, built, validation)
    with part(f"the model {config.model.name} {on}"):
        refuse_other_results(experiment, built, batch)
    refuse_unmoved_shards(experiment, built, share)
    sizes = [(p.numel(), p.requires_grad) for p in _parameters(built)]
    trained, frozen = freeze.parts(built.model)
    return Preflight(
        inputs=_shape(_first_input(batch)),
        targets=_shape(targets),
        outputs=_shape(outputs),
        loss=nan if out is None else float(out.loss),
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, trainable in sizes if trainable),
        validated=validated,
        trained=trained,
        frozen=frozen,
        checkpoint=built.checkpoint,
        rates=_rates(built),
    )


def run_evaluation_preflight(experiment: Experiment, samples: Part) -> Experiment:
    """Evaluate a throwaway model on one batch; return the experiment with what it needs for that.

    Args:
        experiment: as it was opened.
        samples: that are to be evaluated on.

    Raises:
        UserError: model, loss and data do not fit each other, in words.
        OutOfMemoryError: the batch is too large for the device.

    Warns:
        LrtoolWarning: a plain way is taken.
    """

    def try_batch(experiment: Experiment) -> bool:
        return _evaluate_a_batch(experiment, build(experiment, experiment.config.seed), samples)

    refuse_endless(experiment, samples, ("data", "source"), "all of the data are evaluated")
    return settled(experiment, try_batch)[0]


def _evaluate_a_batch(experiment: Experiment, built: Built, samples: Part) -> bool:
    """Evaluate a model on the first batch of an evaluation; return whether there is one."""
    stream = batches.ordered(
        samples, batch_size=experiment.data.batch_size, device=experiment.runtime.device
    )
    with _data_source(experiment):
        batch = next(stream, None)
    if batch is None:
        return False
    which = "training" if samples is experiment.data.train else "validation"
    shape = _shape(_first_input(batch))
    with part(f"evaluating failed on a {which} batch of inputs {shape}"):
        for _ in evaluate(built.model, built.loss_fn, [batch], experiment.runtime.alone(), {}):
            pass
    return True


def _parameters(built: Built) -> list[nn.Parameter]:
    """Return the parameters of the model, and of the loss if it has any, each once."""
    modules = [part for part in (built.model, built.loss_fn) if isinstance(part, nn.Module)]
    return list({p: None for module in modules for p in module.parameters()})


def _rates(built: Built) -> tuple[RateFacts, ...]:
    """Return which parameters have which rate, or nothing if all have the same."""
    names = {parameter: name for name, parameter in freeze.trained(built.model).items()}
    if isinstance(built.loss_fn, nn.Module):
        names |= {p: f"loss.{name}" for name, p in freeze.trained(built.loss_fn).items()}
    members: dict[float, list[nn.Parameter]] = {}
    for ratio, group in zip(built.ratios, built.optimizer.param_groups, strict=True):
        members.setdefault(ratio, []).extend(p for p in group["params"] if p in names)
    if len(members) == 1:
        return ()
    return tuple(
        RateFacts(
            lr_ratio=ratio,
            parameters=sum(parameter.numel() for parameter in own),
            parts=tuple(freeze.by_prefix([names[p] for p in own], list(names.values()))),
        )
        for ratio, own in sorted(members.items(), key=lambda item: -item[0])
    )


def facts(experiment: Experiment, preflight: Preflight) -> dict[str, Any]:
    """Return the fields that all reports share: configuration, data, model and environment."""
    config, data = experiment.config, experiment.data
    return {
        "config": resolved_config(experiment),
        "config_hash": config.digest(),
        "seed": config.seed,
        "data": DataFacts(
            samples=data.taken,
            shapes=data.shapes,
            hash=data.digest,
            target=target_scale(data.encoding),
            columns=data.columns,
            samples_per_update=samples_per_update(experiment),
        ),
        "model": ModelFacts(
            name=config.model.name,
            parameters=preflight.parameters,
            trainable=preflight.trainable,
            checkpoint=preflight.checkpoint,
            trained=preflight.trained,
            frozen=preflight.frozen,
            rates=preflight.rates,
        ),
        "environment": Environment(lrtool=__version__, **environment(experiment.runtime)),
    }


def run_training_preflight(experiment: Experiment, preflight: Preflight) -> None:
    """Build what only a training needs.

    Raises:
        UserError: schedule or metrics cannot be built, the state cannot be saved, or the validation
            set is empty.
    """
    refuse_endless_training(experiment)
    schedule_of(experiment)
    metrics_of(experiment)
    try:
        try_optimizer(experiment, _first_of(experiment, experiment.loss_fn))
    except (Exception, SystemExit) as error:
        raise explain(experiment, error) from error
    with located(experiment.document):
        _refuse_one_class(experiment)
    stopping = experiment.config.train.early_stopping
    if experiment.data.validation is None:
        if stopping is not None and stopping.metric == "validation_loss":
            with located(experiment.document):
                problem = "there is no validation_loss, as the data have no validation set"
                raise ConfigError(Problem(("train", "early_stopping", "metric"), problem))
    elif not preflight.validated:
        raise empty_validation()


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
    loss, loss_args = what_loss(experiment)
    built = build(experiment, config.seed)
    batch = own(_first_of(experiment, built.loss_fn))
    try:
        with (
            located(experiment.document),
            evaluating(built.model),
            experiment.runtime.no_grad(),
            experiment.runtime.autocast(),
        ):
            batch = transferred(built.model, batch)
            outputs, targets, _ = outputs_of(built.model, built.loss_fn, batch)
            made = metrics.build_metrics(
                config.metrics,
                loss=loss,
                loss_args=loss_args,
                outputs=detached(outputs),
                targets=targets,
                device=experiment.runtime.device,
                directories=experiment.directories,
                units=units_of(experiment),
            )
            if experiment.runtime.ranks.several and not all(each.merges for each in made.values()):
                of_all_ranks((detached(outputs), targets), experiment.runtime)
            return made
    except (Exception, SystemExit) as error:
        raise explain(experiment, error, "the metrics failed on a training batch") from error


def what_loss(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of the loss, which tell a metric what outputs and targets are."""
    known = losses.known_as(experiment.config.loss, experiment.loss_fn)
    ignored = reduction_of(experiment.loss_fn).ignored  # of the user's own, too
    return known.name, {"ignore_index": ignored, **known.args}


def units_of(experiment: Experiment) -> Units | None:
    """Return the units of the target, in which metrics are given; None if they are the loss's."""
    scale = target_scale(experiment.data.encoding)
    return None if scale is None else Units(scale.mean, scale.deviation)


def _first_of(experiment: Experiment, loss_fn: LossFunction | None) -> Any:
    """Return the first batch of the training set that has a target which is not ignored.

    With several ranks it is this rank's share of it.

    Raises:
        DataError: there is none.
    """
    reduction = reduction_of(loss_fn)
    with _data_source(experiment):
        for group in first_epoch(experiment):
            for batch in group:
                if experiment.runtime.ranks.any(flag=bool(reduction.denominator(batch) != 0)):
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


def _refuse_a_misfit(
    experiment: Experiment, loss_fn: LossFunction, outputs: Any, targets: Any
) -> None:
    loss, data = experiment.config.loss.name, experiment.data
    problem = losses.fit_problem(loss, loss_fn, outputs, targets)
    if problem is None:
        return
    learned = data.encoding.targets
    if data.columns and isinstance(learned, Classes) and learned.numbers:
        problem += f"; if {learned.name!r} is no class, set data.args.task: regression"
    if data.columns and isinstance(learned, Values):
        problem += f"; if {learned.name!r} is a class, set data.args.task: classification"
    raise ConfigError(Problem(("loss",), problem))


def _refuse_other_numbers(experiment: Experiment, outputs: Any, targets: Any) -> None:
    """Refuse numbers of a table taken for classes, whose indices a loss may compare as numbers.

    The user's own loss does not say which it takes. One output for each sample is no score of
    several classes.
    """
    config, learned = experiment.config, experiment.data.encoding.targets
    guessed = bool(experiment.data.columns) and config.data.args.get("task", "auto") == "auto"
    known = losses.known_as(config.loss, experiment.loss_fn).name
    if not guessed or not is_import_path(known) or not isinstance(learned, Classes):
        return
    one_each = isinstance(outputs, torch.Tensor) and outputs.numel() == targets.numel()
    numbers = [float(name) for name in learned.classes] if learned.numbers else []
    if one_each and numbers and numbers != [*range(len(numbers))]:
        problem = (
            f"{config.loss.name} gets one output for each sample, but the numbers of "
            f"{learned.name!r} are taken for classes, with indices 0 to {len(numbers) - 1} as "
            "targets; set regression to predict the numbers, or classification if that is meant"
        )
        raise ConfigError(Problem(("data", "args", "task"), problem))


def _refuse_bad_numbers(experiment: Experiment) -> None:
    """Refuse a batch that holds NaN or infinity, if the model makes no number of it."""
    source = experiment.config.data.source
    if bad_inputs([_first_of(experiment, experiment.loss_fn)]):
        problem = (
            f"the first training batch of {source} holds NaN or infinity, and so is its loss: "
            "correct or remove such samples"
        )
        raise ConfigError(Problem(("data", "source"), problem))


def _refuse_bad_labels(experiment: Experiment) -> None:
    """Refuse labels that are no classes, or all the same, where a built-in loss needs classes."""
    loss, loss_args = what_loss(experiment)
    labels = labels_by_sample(experiment.data.train)
    if labels is None or not losses.takes_classes(loss):
        return
    problem = class_problem(labels, ignored=loss_args["ignore_index"])
    if problem is not None and yields(experiment.data.train, labels):
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
