"""A configuration made real: device, data and loss, and the models built from it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool.batch import TARGET_KEYS, own
from lrtool.components import import_path, losses, models, optimizers
from lrtool.components.adapters import add_adapter, freeze_replaced
from lrtool.config.document import located
from lrtool.config.schema import OWN, LossConfig
from lrtool.data import batches, loader_state
from lrtool.data.load import Loaded, as_binary, load, to_device
from lrtool.data.part import OwnLoader, Resident, length
from lrtool.engine.copies import copied
from lrtool.engine.denominator import reduction_of
from lrtool.engine.device import (
    is_out_of_memory,
    open_runtime,
    place,
    set_memory_format,
    to_memory_format,
)
from lrtool.engine.evaluation import evaluating, set_training
from lrtool.engine.freeze import freeze_norms, train_only
from lrtool.engine.lightning import attach, has_forward, is_own, transferred, warn_of_hooks
from lrtool.engine.own_loss import loss_in, may_return_loss, method_of, own_loss, without_loss
from lrtool.engine.pretrained import load_pretrained
from lrtool.engine.randomness import OwnRandomness, seed_everything
from lrtool.engine.shard import shard
from lrtool.engine.step import forward, make_step
from lrtool.errors import (
    ConfigError,
    DataError,
    LrtoolWarning,
    OutOfMemoryError,
    Problem,
    said,
)
from lrtool.experiment.fitting import fitted_shape, fitted_types
from lrtool.experiment.pretrained import facts_of, open_pretrained, warn_of_other_meanings
from lrtool.experiment.reading import directories_of
from lrtool.experiment.same_data import refuse_different_data
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lrtool.config.document import Document
    from lrtool.config.schema import Config
    from lrtool.data.encoding import Encoding
    from lrtool.engine.device import Runtime
    from lrtool.engine.pretrained import Pretrained
    from lrtool.engine.step import LossFunction, Step
    from lrtool.ranks import Ranks
    from lrtool.report.records import CheckpointFacts


@dataclass(frozen=True, slots=True)
class Experiment:
    """A configuration, with what all of its trainings share.

    Attributes:
        config: the configuration.
        document: the file it was read from.
        directories: where data files and modules are looked for.
        runtime: device and precision.
        data: the training and the validation set, on the device where they are in memory.
        loss_fn: copied for each training if it is a module; None for the model's own loss.
        generator_states: of the user's own loaders, before anything was read from them.
        loader_starts: the states of loaders that know their place, of training and validation set.
        started: when it was opened, by `perf_counter`.
        pretrained: the weights that models start from; None for random ones.
    """

    config: Config
    document: Document
    directories: tuple[Path, ...]
    runtime: Runtime
    data: Loaded
    loss_fn: LossFunction | None
    generator_states: list[torch.Tensor]
    loader_starts: list[Any]
    started: float
    pretrained: Pretrained | None = None


def open_experiment(
    config: Config,
    document: Document,
    encoding: Encoding | None = None,
    *,
    ranks: Ranks = ALONE,
    with_checkpoint: bool = True,
) -> Experiment:
    """Open the device, read the data and pretrained weights, and build the loss.

    Args:
        config: the configuration.
        document: the file it was read from.
        encoding: what a run has learned, to read the data with; None: it is learned from them.
        ranks: that share the work.
        with_checkpoint: False: `model.checkpoint` is not read, as a run's own weights follow.

    Raises:
        UserError: something that the configuration names cannot be built.
        OutOfMemoryError: it does not fit in memory.

    Warns:
        LrtoolWarning: a setting is ignored.
    """
    started = perf_counter()
    directories = directories_of(config, document)
    if config.model.partial and config.model.checkpoint is None:
        words = "model.partial is ignored: there is no model.checkpoint to load"
        warnings.warn(words, LrtoolWarning, stacklevel=2)
    with located(document):
        runtime = open_runtime(config.runtime, ranks)
        checkpoint = config.model.checkpoint if with_checkpoint else None
        pretrained = open_pretrained(checkpoint, directories, runtime.ranks)
        seed_everything(config.seed)  # a loss may have weights
        loss_fn = None if config.loss.name == OWN else losses.build_loss(config.loss, directories)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(runtime.device)
        source, known = config.data.source, losses.known_as(config.loss, loss_fn).name
        factory = (
            import_path.resolve(source, directories) if import_path.is_import_path(source) else None
        )
        seed_everything(config.seed)  # a factory may draw numbers
        with in_memory(f"the data of {source} were read"):
            data = load(
                config.data,
                seed=config.seed,
                factory=factory,
                directories=directories,
                ignored=_ignored(config, loss_fn),
                encoding=encoding,
                binary=losses.wants_binary(known),
                values=losses.takes_values(known),
                unscaled=losses.takes_unscaled(known),
            )
        if losses.wants_binary(known):
            try:
                data = as_binary(data)
            except DataError as error:
                problem = f"{error}; losses that fit: cross_entropy, multi_margin_loss"
                raise ConfigError(Problem(("loss",), problem)) from error
        refuse_different_data(data, source, config.seed, runtime.ranks)
        warn_of_other_meanings(pretrained, data.encoding)
    states = [generator.get_state() for generator in _own_generators(data)]
    starts = [loader_state.start_of(part) for part in (data.train, data.validation)]
    experiment = Experiment(
        config, document, directories, runtime, data, loss_fn, states, starts, started, pretrained
    )
    model = build(experiment, config.seed).model
    memory_format = to_memory_format(runtime, model)
    set_memory_format(model, torch.contiguous_format)  # not every model takes another one
    experiment = replace(experiment, data=fitted_types(data, model))
    experiment = _with_own_loss(experiment, model)
    loss_fn, loss = experiment.loss_fn, experiment.config.loss.name
    if loss_fn is not None:
        data = fitted_shape(experiment.data, model, copied(loss_fn), loss, runtime)
    else:
        data = experiment.data
    warn_of_hooks(model)
    if "optimizer" not in config.model_fields_set and is_own(model, "configure_optimizers"):
        warnings.warn(
            f"configure_optimizers of {config.model.name} is not used: the optimizer is "
            f"{config.optimizer.name}, as the configuration names none",
            LrtoolWarning,
            stacklevel=2,
        )
    try:
        data = to_device(data, runtime.device, memory_format)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or runtime.device.type == "cpu":
            raise
        warnings.warn(
            f"the data do not fit in the memory of {runtime.device}: each batch is moved there",
            LrtoolWarning,
            stacklevel=2,
        )
        data = to_device(data, torch.device("cpu"), memory_format)
    return replace(experiment, data=data)


def _ignored(config: Config, loss_fn: LossFunction | None) -> int | None:
    """Return the label that the loss leaves out; None for a loss that is not known to have one."""
    reduction = reduction_of(loss_fn)
    known = losses.ignored_index(config.loss.name, loss_fn)
    return reduction.ignored if known is None and reduction.over == "classes" else known


@contextmanager
def in_memory(work: str) -> Iterator[None]:
    """Say at which work the memory ran out; the user's code may have raised it, and ours wrapped.

    Raises:
        OutOfMemoryError: that is why the block failed.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not is_out_of_memory(cause):
            cause = cause.__cause__
        if cause is None:
            raise
        words = " ".join(said(cause).split()) or type(cause).__name__
        raise OutOfMemoryError(f"out of memory while {work}; make it smaller: {words}") from error


def _with_own_loss(experiment: Experiment, model: nn.Module) -> Experiment:
    """Take the model's own loss where the configuration has none.

    Raises:
        ConfigError: the configuration asks for it, and the model has none.

    Warns:
        LrtoolWarning: the model's own loss is not used, or it is taken by itself.
    """
    config, name = experiment.config, experiment.config.model.name
    method, may_return = method_of(model), may_return_loss(model, TARGET_KEYS)
    if experiment.loss_fn is None:
        if method is None and not may_return:
            with located(experiment.document):
                raise ConfigError(Problem(("loss",), f"own: {without_loss(name)}"))
        return experiment
    if "loss" in config.model_fields_set and method is not None and not has_forward(model):
        words = f"loss is ignored: {name} has {method}(batch), and no forward to take a loss of"
        warnings.warn(words, LrtoolWarning, stacklevel=3)
    elif "loss" in config.model_fields_set:
        if method is not None:
            warnings.warn(
                f"the {method} of {name} is not used, for loss is {config.loss.name}; loss: own "
                "takes it",
                LrtoolWarning,
                stacklevel=3,
            )
        return experiment
    elif method is None and not (may_return and _returns_loss(experiment, model)):
        return experiment
    elif method != "training_loss":
        source = method or "forward"
        warnings.warn(
            f"the loss is that of {name}'s {source}, as the configuration has none; loss: own says "
            "so, and the name of a loss takes that instead",
            LrtoolWarning,
            stacklevel=3,
        )
    config = config.model_copy(update={"loss": LossConfig(name=OWN)})
    return replace(experiment, config=config, loss_fn=None)


def _returns_loss(experiment: Experiment, model: nn.Module) -> bool:
    """Tell whether a model returns its own loss for a batch."""
    with suppress(Exception, SystemExit):  # the preflight names what is wrong
        batch = own(first_batches(experiment)[0])
        with experiment.runtime.autocast():
            return isinstance(batch, Mapping) and loss_in(model(**batch)) is not None
    return False


@dataclass(frozen=True, slots=True)
class Built:
    """A model with its loss and optimizer, fresh from a seed.

    Attributes:
        model: on the device, in training mode.
        loss_fn: None for a model that computes its own loss.
        optimizer: over the parameters of the model, and of the loss if it has any.
        ratios: each parameter group's rate divided by the base rate.
        own_randomness: what the model draws from in a step; None: the global states.
        checkpoint: what the model has taken of pretrained weights; None without any.
    """

    model: nn.Module
    loss_fn: LossFunction | None
    optimizer: torch.optim.Optimizer
    ratios: list[float]
    own_randomness: OwnRandomness | None = None
    checkpoint: CheckpointFacts | None = None


def rewind_generators(experiment: Experiment) -> list[torch.Generator]:
    """Put the user's own loaders back to their start, and return the generators that they use.

    The order of a training must not depend on what was read before, such as by a search.
    """
    generators = _own_generators(experiment.data)
    for generator, state in zip(generators, experiment.generator_states, strict=True):
        generator.set_state(state)
    data = experiment.data
    for part, start in zip((data.train, data.validation), experiment.loader_starts, strict=True):
        loader_state.put_back(part, start)
    return generators


def _own_generators(data: Loaded) -> list[torch.Generator]:
    parts = [part for part in (data.train, data.validation) if isinstance(part, OwnLoader)]
    return [generator for part in parts for generator in batches.generators(part.loader)]


def build(experiment: Experiment, seed: int) -> Built:
    """Build model, loss and optimizer from a seed; the weights are the same on every device.

    Lazy layers get their weights from a forward pass, in evaluation mode if they take part in that.
    Then pretrained weights take the place of random ones, and what is not to be trained is frozen.

    Raises:
        UserError: they cannot be built from the configuration.
        OutOfMemoryError: they do not fit in memory.
    """
    config, data = experiment.config, experiment.data
    facts = {
        "input_shape": data.input_shape,
        "num_outputs": data.num_outputs,
        "vocabulary": data.vocabulary,
    }
    seed_everything(seed)
    with located(experiment.document):
        with in_memory(f"the model {config.model.name} was built"):
            model = models.build_model(
                config.model, facts, experiment.directories, unknown=data.unknown
            )
            whole = _is_lazy(model) or not experiment.runtime.sharded
            if whole:
                model.to(experiment.runtime.device)
                _make_lazy_weights(experiment, model)
            checkpoint = _load_pretrained(experiment, model)
            _choose_what_is_trained(experiment, model)
            if whole:
                model = place(model, experiment.runtime)
            if experiment.runtime.sharded:  # from the host, one block after another
                shard(model, experiment.runtime)
        loss_fn = _own_copy(experiment)
        if experiment.runtime.sharded:
            _refuse_trained_loss(config, loss_fn)
        with in_memory(f"the optimizer {config.optimizer.name} was built"):
            optimizer = optimizers.build_optimizer(
                config.optimizer, model, loss_fn, lr=1.0, directories=experiment.directories
            )
        if loss_fn is None:
            _refuse_metrics_of_nothing(config, model)
        attach(model, optimizer)
    ratios = [float(group["lr"]) for group in optimizer.param_groups]
    set_training(model)
    if experiment.runtime.compile:
        method = method_of(model)
        if loss_fn is None and method is not None:
            warnings.warn(
                f"runtime.compile is ignored: {method}(batch) is not the model's forward",
                LrtoolWarning,
                stacklevel=2,
            )
        else:
            compiled: Any = torch.compile(model)
            model = compiled
    ranks, own_randomness = experiment.runtime.ranks, None
    if ranks.several:
        own_randomness = OwnRandomness(seed, ranks.rank, experiment.runtime.device)
    return Built(model, loss_fn, optimizer, ratios, own_randomness, checkpoint)


def _load_pretrained(experiment: Experiment, model: nn.Module) -> CheckpointFacts | None:
    """Load the pretrained weights into a new model, if there are any; return what it has taken."""
    pretrained, spec = experiment.pretrained, experiment.config.model
    if pretrained is None:
        return None
    fit = load_pretrained(model, pretrained, partial=spec.partial, name=spec.name)
    return facts_of(pretrained, fit, [*model.state_dict()])


def _choose_what_is_trained(experiment: Experiment, model: nn.Module) -> None:
    """Put the adapter into a model, and freeze what it or `train_only` does not train."""
    spec = experiment.config.model
    if spec.peft is None:
        if spec.train_only is not None:
            train_only(model, spec.train_only)
        return
    whole = {parameter: parameter.requires_grad for parameter in model.parameters()}
    add_adapter(model, spec.peft, experiment.directories)
    if spec.train_only is None:
        freeze_norms(model)
        return
    for parameter, is_trained in whole.items():
        parameter.requires_grad_(is_trained)
    train_only(model, spec.train_only)
    freeze_replaced(model)
    if not any(p.requires_grad for p in model.parameters() if p not in whole):
        words = (
            f"freezes all that {spec.peft.name} adds; match it too, as by 'lora_', or leave "
            "train_only out, and name what is trained besides in model.peft.args.modules_to_save"
        )
        raise ConfigError(Problem(("model", "train_only"), words))


def _own_copy(experiment: Experiment) -> LossFunction | None:
    """Return the loss; if it is a module, one whose state does not pass to another training."""
    if not isinstance(experiment.loss_fn, nn.Module):
        return experiment.loss_fn
    try:
        return copy.deepcopy(experiment.loss_fn)
    except Exception:  # noqa: BLE001  (some attributes cannot be copied, such as locks)
        made = losses.build_loss(experiment.config.loss, experiment.directories)
        return made.to(experiment.runtime.device) if isinstance(made, nn.Module) else made


def _refuse_trained_loss(config: Config, loss_fn: object) -> None:
    """Refuse a loss with parameters beside a sharded model: an update takes all or no shards."""
    parameters = loss_fn.parameters() if isinstance(loss_fn, nn.Module) else ()
    if any(parameter.requires_grad for parameter in parameters):
        problem = (
            f"{config.loss.name} has parameters of its own, which do not go with runtime.shard; let"
            " the model hold them, and compute its loss itself (loss: own)"
        )
        raise ConfigError(Problem(("loss",), problem))


def _make_lazy_weights(experiment: Experiment, model: nn.Module) -> None:
    """Let lazy layers see a batch: an optimizer, a search and a checkpoint need their weights.

    If that fails, they stay lazy: the preflight says what is wrong.
    """
    for mode in (evaluating(model), nullcontext()):
        if not _is_lazy(model):
            return
        with suppress(Exception), mode, experiment.runtime.autocast():
            batch = transferred(model, own(first_batches(experiment)[0]))
            (forward if experiment.loss_fn is not None else own_loss)(model, batch)


def _is_lazy(model: nn.Module) -> bool:
    return any(nn.parameter.is_lazy(t) for t in (*model.parameters(), *model.buffers()))


def _refuse_metrics_of_nothing(config: Config, model: nn.Module) -> None:
    """Refuse metrics where a model computes its own loss and has no outputs."""
    method = method_of(model)
    if config.metrics and method is not None and not has_forward(model):
        problem = (
            f"{', '.join(config.metrics)} cannot be computed: {config.model.name} has "
            f"{method}(batch) but no forward; give it a forward(inputs) that returns what "
            "metrics compare with the targets, or remove metrics"
        )
        raise ConfigError(Problem(("metrics",), problem))


def first_batches(experiment: Experiment) -> list[Any]:
    """Return the batches of the first update."""
    return next(first_epoch(experiment))


def first_epoch(experiment: Experiment) -> Iterator[list[Any]]:
    """Yield the batches of each update of the first epoch, or a rank's share of each.

    Raises:
        DataError: there are none.
    """
    made = batches.epoch(
        experiment.data.train,
        batch_size=experiment.data.batch_size,
        seed=experiment.config.seed,
        epoch=0,
        device=experiment.runtime.device,
        ranks=experiment.runtime.ranks,
    )
    return batches.some(batches.micro_batches(made, experiment.config.train.accumulate), 0)


def step_of(
    experiment: Experiment,
    built: Built,
    scaler: torch.amp.GradScaler | None,
    ranks: Ranks = ALONE,
) -> Step:
    """Return the step of a model with the configuration's clipping and precision.

    Args:
        experiment: the configuration.
        built: from it.
        scaler: for fp16.
        ranks: that make each step together; by default this process alone tries something.
    """
    reduction, part = reduction_of(built.loss_fn, built.model), experiment.data.train
    if isinstance(part, Resident):
        reduction = reduction.for_all(part.targets)
    return make_step(
        built.model,
        built.loss_fn,
        built.optimizer,
        replace(experiment.runtime, ranks=ranks),
        ratios=built.ratios,
        clip_norm=experiment.config.train.gradient_clip_norm,
        scaler=scaler,
        reduction=reduction,
        random=built.own_randomness,
    )


def training_steps(experiment: Experiment) -> int | None:
    """Return the number of updates of the whole training; None if it is unknown."""
    train, steps = experiment.config.train, steps_per_epoch(experiment)
    if train.max_steps is not None or train.epochs is None or steps is None:
        return train.max_steps
    return train.epochs * steps


def steps_per_epoch(experiment: Experiment) -> int | None:
    """Return the number of updates in an epoch; None if it is unknown before reading the data."""
    count = length(experiment.data.train, experiment.data.batch_size)
    return None if count is None else ceil(count / experiment.config.train.accumulate)


def samples_per_update(experiment: Experiment) -> int:
    """Return the samples of an update over all ranks; the last one of an epoch may have fewer."""
    train, size = experiment.data.train, experiment.data.batch_size
    accumulate = experiment.config.train.accumulate
    samples = size * min(accumulate, length(train, size) or accumulate)
    whole = None if isinstance(train, OwnLoader) else train.size
    return samples if whole is None else min(samples, whole)


def resolved_config(experiment: Experiment) -> dict[str, Any]:
    """Return the whole configuration as plain data that works from any directory."""
    data = experiment.config.model_dump(mode="json")
    looked_in = (str(directory.resolve()) for directory in experiment.directories)
    data["search_path"] = list(dict.fromkeys(looked_in))
    if experiment.pretrained is not None:  # a run may hold another file of that name
        data["model"]["checkpoint"] = str(experiment.pretrained.named.resolve())
    return data
