"""Checks all names and arguments of a configuration, before any data is read."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lrtool.components import adapters, import_path, losses, models
from lrtool.components.losses import ALIASES, LOSSES
from lrtool.components.metrics import METRICS, higher_is_better, key
from lrtool.components.models import MODELS
from lrtool.components.optimizers import OPTIMIZERS, SHARDABLE, UNUSABLE
from lrtool.components.schedules import SCHEDULES, Length
from lrtool.components.user_metrics import has_totals
from lrtool.config.schema import OWN
from lrtool.errors import Problem, UserError, did_you_mean
from lrtool.report.records import EpochRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig, Config, ModelConfig, ScheduleConfig
    from lrtool.errors import KeyPath

    Problems = Iterator[Problem]

LOSSES_OF_AN_EPOCH = ("validation_loss", "train_loss")
# Keys of an epoch's row and of its line in metrics.jsonl: no metric may have such a name.
COLUMNS = (*EpochRow.model_fields, "metrics", "kind", "not_finite")


def check(
    config: Config, sources: Mapping[str, Callable[..., Any]], directories: Sequence[Path]
) -> list[Problem]:
    """Return all problems with the names and arguments of a configuration.

    Args:
        config: valid against the schema.
        sources: the built-in data sources by name; their first parameter is the split.
        directories: where modules of import paths are looked for.
    """
    return [
        *_source(config, sources, directories),
        *_model(config.model, directories),
        *_loss(config.loss, directories),
        *_metrics(config.metrics, directories),
        *_optimizer(config, directories),
        *_schedule(config.train.schedule),
        *_early_stopping(config, directories),
        *_shard(config),
    ]


def _shard(config: Config) -> Problems:
    """Say what does not go with a model that is divided among the ranks."""
    runtime, path = config.runtime, ("runtime", "shard")
    if not runtime.shard:
        return
    for index, pattern in enumerate(runtime.shard if isinstance(runtime.shard, list) else ()):
        yield from _pattern(pattern, (*path, index))
    if runtime.precision == "fp16":
        yield Problem(("runtime", "precision"), "fp16 does not go with runtime.shard; use bf16")
    if runtime.compile:
        yield Problem(("runtime", "compile"), "true does not go with runtime.shard; remove one")
    if runtime.memory_format == "channels_last":
        words = "channels_last does not go with runtime.shard, whose tensors are contiguous"
        yield Problem(("runtime", "memory_format"), words)
    inner = config.optimizer.inner
    name = (inner or config.optimizer).name
    if name in OPTIMIZERS and name not in SHARDABLE:
        words = f"{name} needs whole tensors; with runtime.shard use one of {', '.join(SHARDABLE)}"
        yield Problem(("optimizer", "inner", "name") if inner else ("optimizer", "name"), words)


def _pattern(pattern: str, path: KeyPath) -> Problems:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem(path, f"{pattern!r} is not a regular expression: {error}")


def _source(
    config: Config, sources: Mapping[str, Callable[..., Any]], directories: Sequence[Path]
) -> Problems:
    name = config.data.source
    source, problems = _find(name, sources, "source", ("data", "source"), directories)
    yield from problems
    if source is not None:
        positional = 0 if import_path.is_import_path(name) else 1
        yield from _call(source, config.data.args, ("data", "args"), positional=positional)


def _model(model: ModelConfig, directories: Sequence[Path]) -> Problems:
    factory, problems = _find(model.name, MODELS, "model", ("model", "name"), directories)
    yield from problems
    if factory is not None:
        yield from _call(factory, model.args, ("model", "args"), given=models.FACTS)
    if model.peft is not None:
        yield from adapters.problems(model.peft, directories)
    for index, pattern in enumerate(model.train_only or ()):
        yield from _pattern(pattern, ("model", "train_only", index))


def _loss(component: ComponentConfig, directories: Sequence[Path]) -> Problems:
    name, path = component.name, ("loss", "name")
    if name == OWN:
        if component.args:
            words = "own takes no arguments: the model computes its loss itself"
            yield Problem(("loss", "args"), words)
    elif import_path.is_import_path(name):
        loss, problems = _import(name, path, directories)
        yield from problems
        if loss is not None:  # a class is built with the arguments, a function called with them
            positional = 0 if inspect.isclass(loss) else 2
            yield from _call(loss, component.args, ("loss", "args"), positional=positional)
    elif losses.canonical(name) in LOSSES:
        yield from _below(("loss", "args"), losses.check_args(name, component.args))
    else:
        yield _unknown(name, [*LOSSES, *ALIASES, OWN], "loss", path, listed=[*LOSSES, OWN])


def _metrics(names: Sequence[str], directories: Sequence[Path]) -> Problems:
    taken = dict.fromkeys(COLUMNS, "a column of each epoch")
    for index, name in enumerate(names):
        path = ("metrics", index)
        if import_path.is_import_path(name):
            yield from _import(name, path, directories, or_else=has_totals)[1]
        elif name not in METRICS:
            yield _unknown(name, METRICS, "metric", path)
        column = key(name)
        owner = taken.setdefault(column, f"metrics.{index}")
        if owner != f"metrics.{index}":
            words = f"'{column}' is already the name of {owner}; rename this one, or remove it"
            yield Problem(path, words)


def _optimizer(config: Config, directories: Sequence[Path]) -> Problems:
    spec = config.optimizer
    for index, group in enumerate(spec.groups):
        yield from _pattern(group.match, ("optimizer", "groups", index, "match"))
    if spec.inner is None:
        yield from _one_optimizer(spec, ("optimizer",), directories)
        return
    yield from _one_optimizer(spec.inner, ("optimizer", "inner"), directories)
    path = ("optimizer", "name")
    if not import_path.is_import_path(spec.name):
        words = f"{spec.name} takes parameters, not another optimizer; remove optimizer.inner"
        yield Problem(path, words)
        return
    wrapper, problems = _import(spec.name, path, directories)
    yield from problems
    if wrapper is not None and (words := _of_sam(spec.name, wrapper)):
        yield Problem(path, words)
    elif wrapper is not None:
        yield from _call(wrapper, spec.args, ("optimizer", "args"), positional=1)


def _one_optimizer(
    spec: ComponentConfig, path: tuple[str, ...], directories: Sequence[Path]
) -> Problems:
    """Check the optimizer that gets the parameters."""
    if spec.name in UNUSABLE:
        yield Problem((*path, "name"), UNUSABLE[spec.name])
        return
    optimizer, problems = _find(spec.name, OPTIMIZERS, "optimizer", (*path, "name"), directories)
    yield from problems
    if optimizer is None:
        return
    if words := _of_sam(spec.name, optimizer):
        yield Problem((*path, "name"), words)
        return
    args = (*path, "args")
    if spec.args.get("maximize"):
        problem = "lrtool lowers the loss; give the loss with the other sign"
        yield Problem((*args, "maximize"), problem)
    wrong = list(_call(optimizer, spec.args, args, given=("lr",), positional=1))
    yield from wrong
    if not wrong and spec.name in OPTIMIZERS:
        try:  # torch checks ranges in the constructor
            optimizer([torch.nn.Parameter(torch.ones(2, 2))], **spec.args)
        except ValueError as error:
            yield Problem(args, str(error))
        except Exception as error:  # noqa: BLE001  (a value of a wrong type may raise anything)
            words = f"{spec.name} cannot take these: {type(error).__name__}: {error}"
            yield Problem(args, words)


def _of_sam(name: str, cls: Callable[..., Any]) -> str:
    """Return why all forms of SAM, which have these two methods, cannot be used; "" for others."""
    is_sam = hasattr(cls, "first_step") and hasattr(cls, "second_step")
    return UNUSABLE["lbfgs"].replace("lbfgs", name) if is_sam else ""


def _schedule(spec: ScheduleConfig) -> Problems:
    path = ("train", "schedule")
    if spec.warmup:
        for words in import_path.check_value(Length, spec.warmup):
            yield Problem((*path, "warmup"), words)
    if spec.name in SCHEDULES:
        build = SCHEDULES[spec.name].build
        yield from _call(build, spec.args, (*path, "args"), positional=1)
    else:
        yield _unknown(spec.name, SCHEDULES, "schedule", (*path, "name"))


def _early_stopping(config: Config, directories: Sequence[Path]) -> Problems:
    spec, path = config.train.early_stopping, ("train", "early_stopping")
    if spec is None:
        return
    metrics = {key(name): name for name in config.metrics}
    known = [*LOSSES_OF_AN_EPOCH, *metrics]
    if spec.metric not in known:
        hint = did_you_mean(key(spec.metric), known) or f"; there are {', '.join(known)}"
        words = f"must be a loss or one of metrics, not {spec.metric!r}{hint}"
        yield Problem((*path, "metric"), words)
    elif spec.mode == "auto" and _has_no_direction(metrics.get(spec.metric), directories):
        words = f"lrtool cannot know whether a lower or a higher {spec.metric} is better"
        yield Problem((*path, "mode"), f"{words}; give min or max")
    if spec.metric in LOSSES_OF_AN_EPOCH and spec.mode == "max":
        yield Problem((*path, "mode"), f"a lower {spec.metric} is better; give min or auto")
    has_none = config.data.validation == 0 and not import_path.is_import_path(config.data.source)
    if spec.metric == "validation_loss" and has_none:
        words = "there is no validation_loss when data.validation is 0; give train_loss"
        yield Problem((*path, "metric"), words)


def _has_no_direction(metric: str | None, directories: Sequence[Path]) -> bool:
    """Tell whether a metric exists, but does not say whether higher is better."""
    if metric is None or not (metric in METRICS or import_path.is_import_path(metric)):
        return False
    try:
        return higher_is_better(metric, directories) is None
    except UserError:  # `_metrics` says what is wrong with it
        return False


def _find(
    name: str,
    table: Mapping[str, Callable[..., Any]],
    what: str,
    path: KeyPath,
    directories: Sequence[Path],
) -> tuple[Callable[..., Any] | None, list[Problem]]:
    """Return what a built-in name or an import path leads to, or None and why."""
    if import_path.is_import_path(name):
        return _import(name, path, directories)
    if name in table:
        return table[name], []
    return None, [_unknown(name, table, what, path)]


def _import(
    name: str,
    path: KeyPath,
    directories: Sequence[Path],
    *,
    or_else: Callable[[Any], bool] = callable,
) -> tuple[Callable[..., Any] | None, list[Problem]]:
    """Return what can be called, or is fit otherwise, or None and why."""
    try:
        attribute = import_path.resolve(name, directories)
    except UserError as error:
        return None, [Problem(path, str(error))]
    if not callable(attribute) and not or_else(attribute):
        words = f"'{name}' is a {type(attribute).__name__}; it cannot be called"
        return None, [Problem(path, words)]
    return attribute, []


def _unknown(
    name: str,
    names: Collection[str],
    what: str,
    path: KeyPath,
    *,
    listed: Collection[str] | None = None,
) -> Problem:
    hint = did_you_mean(name, names) or f"; there are {', '.join(listed or names)}"
    return Problem(path, f"no {what} is called {name!r}{hint}")


def _call(
    function: Callable[..., Any],
    args: Mapping[str, Any],
    path: KeyPath,
    *,
    given: Collection[str] = (),
    positional: int = 0,
) -> Problems:
    problems = import_path.check_call(function, args, given=given, positional=positional)
    yield from _below(path, problems)


def _below(path: KeyPath, problems: Iterable[Problem]) -> Problems:
    """Prefix the problems' paths with that of the mapping that holds the arguments."""
    for problem in problems:
        yield replace(problem, path=(*path, *problem.path))
