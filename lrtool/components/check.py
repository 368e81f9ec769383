"""Everything that a configuration names, judged before any data is read, all problems at once."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lrtool.components import import_path, losses, models
from lrtool.components.losses import ALIASES, LOSSES
from lrtool.components.metrics import METRICS, higher_is_better, key
from lrtool.components.models import MODELS
from lrtool.components.optimizers import OPTIMIZERS, UNUSABLE
from lrtool.components.schedules import SCHEDULES, Length
from lrtool.errors import Problem, UserError, did_you_mean
from lrtool.report.records import EpochRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig, Config, ScheduleConfig
    from lrtool.errors import KeyPath

    Problems = Iterator[Problem]

LOSSES_OF_AN_EPOCH = ("validation_loss", "train_loss")
# What an epoch's row and its line in metrics.jsonl hold: no metric may have such a name.
COLUMNS = (*EpochRow.model_fields, "metrics", "kind", "not_finite")


def check(
    config: Config, sources: Mapping[str, Callable[..., Any]], directories: Sequence[Path]
) -> list[Problem]:
    """Return what is wrong with the names and arguments of a configuration.

    Args:
        config: with sound types.
        sources: the built-in data sources by name; the caller fills their first parameter.
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
    ]


def _source(
    config: Config, sources: Mapping[str, Callable[..., Any]], directories: Sequence[Path]
) -> Problems:
    name, path = config.data.source, ("data", "source")
    if import_path.is_import_path(name):
        found, problems = _import(name, path, directories)
        yield from problems
        positional = 0
    else:
        yield from _known(name, sources, "source", path)
        found, positional = sources.get(name), 1
    if found is not None:
        yield from _call(found, config.data.args, ("data", "args"), positional=positional)


def _model(component: ComponentConfig, directories: Sequence[Path]) -> Problems:
    path = ("model", "name")
    if import_path.is_import_path(component.name):
        found, problems = _import(component.name, path, directories)
        yield from problems
    else:
        yield from _known(component.name, MODELS, "model", path)
        found = MODELS.get(component.name)
    if found is not None:
        yield from _call(found, component.args, ("model", "args"), given=models.FACTS)


def _loss(component: ComponentConfig, directories: Sequence[Path]) -> Problems:
    path = ("loss", "name")
    if import_path.is_import_path(component.name):
        found, problems = _import(component.name, path, directories)
        yield from problems
        if found is not None:  # a class is built with the arguments, a function called with them
            positional = 0 if inspect.isclass(found) else 2
            yield from _call(found, component.args, ("loss", "args"), positional=positional)
        return
    yield from _known(component.name, [*LOSSES, *ALIASES], "loss", path, listed=LOSSES)
    if losses.canonical(component.name) in LOSSES:
        yield from _below(("loss", "args"), losses.check_args(component.name, component.args))


def _metrics(names: Sequence[str], directories: Sequence[Path]) -> Problems:
    taken = dict.fromkeys(COLUMNS, "a column of each epoch")
    for index, name in enumerate(names):
        path = ("metrics", index)
        if import_path.is_import_path(name):
            yield from _import(name, path, directories)[1]
        else:
            yield from _known(name, METRICS, "metric", path)
        column = key(name)
        if column in taken:
            owner = taken[column]
            words = f"'{column}' is the name of {owner} already; rename this one, or remove it"
            yield Problem(path, words)
        taken.setdefault(column, f"metrics.{index}")


def _optimizer(config: Config, directories: Sequence[Path]) -> Problems:
    spec = config.optimizer
    for index, group in enumerate(spec.groups):
        try:
            re.compile(group.match)
        except (re.error, OverflowError, RecursionError) as error:
            problem = f"{group.match!r} is no regular expression: {error}"
            yield Problem(("optimizer", "groups", index, "match"), problem)
    path = ("optimizer", "name")
    if import_path.is_import_path(spec.name):
        found, problems = _import(spec.name, path, directories)
        yield from problems
    elif spec.name in UNUSABLE:
        yield Problem(path, UNUSABLE[spec.name])
        return
    else:
        yield from _known(spec.name, OPTIMIZERS, "optimizer", path)
        found = OPTIMIZERS.get(spec.name)
    if found is None:
        return
    wrong = list(_call(found, spec.args, ("optimizer", "args"), given=("lr",), positional=1))
    yield from wrong
    if not wrong and spec.name in OPTIMIZERS:
        try:  # torch checks ranges in the constructor
            found([torch.nn.Parameter(torch.ones(2, 2))], **spec.args)
        except ValueError as error:
            yield Problem(("optimizer", "args"), str(error))
        except Exception as error:  # noqa: BLE001  (whatever a value of a wrong kind leads to)
            words = f"{spec.name} cannot take these: {type(error).__name__}: {error}"
            yield Problem(("optimizer", "args"), words)


def _schedule(spec: ScheduleConfig) -> Problems:
    path = ("train", "schedule")
    yield from _known(spec.name, SCHEDULES, "schedule", (*path, "name"))
    if spec.warmup:
        for words in import_path.check_value(Length, spec.warmup):
            yield Problem((*path, "warmup"), words)
    if spec.name in SCHEDULES:
        build = SCHEDULES[spec.name].build
        yield from _call(build, spec.args, (*path, "args"), positional=1)


def _early_stopping(config: Config, directories: Sequence[Path]) -> Problems:
    spec, path = config.train.early_stopping, ("train", "early_stopping")
    if spec is None:
        return
    own = {key(name): name for name in config.metrics}
    wanted = [*LOSSES_OF_AN_EPOCH, *own]
    if spec.metric not in wanted:
        hint = did_you_mean(key(spec.metric), wanted) or f"; there are {', '.join(wanted)}"
        words = f"must be a loss or one of metrics, not {spec.metric!r}{hint}"
        yield Problem((*path, "metric"), words)
    elif (
        spec.mode == "auto" and spec.metric in own and _says_nothing(own[spec.metric], directories)
    ):
        words = f"lrtool cannot know whether a lower or a higher {spec.metric} is better"
        yield Problem((*path, "mode"), f"{words}; give min or max")
    has_none = config.data.validation == 0 and not import_path.is_import_path(config.data.source)
    if spec.metric == "validation_loss" and has_none:
        words = "there is no validation_loss where data.validation is 0; give train_loss"
        yield Problem((*path, "metric"), words)


def _says_nothing(metric: str, directories: Sequence[Path]) -> bool:
    if metric not in METRICS and not import_path.is_import_path(metric):
        return False  # metrics.N says that there is none
    try:
        return higher_is_better(metric, directories) is None
    except UserError:  # metrics.N says what is wrong with it
        return False


def _known(
    name: str,
    names: Collection[str],
    what: str,
    path: KeyPath,
    *,
    listed: Collection[str] | None = None,
) -> Problems:
    if name not in names:
        hint = did_you_mean(name, names) or f"; there are {', '.join(listed or names)}"
        yield Problem(path, f"no {what} is called {name!r}{hint}")


def _import(
    name: str, path: KeyPath, directories: Sequence[Path]
) -> tuple[Callable[..., Any] | None, list[Problem]]:
    try:
        found = import_path.resolve(name, directories)
    except UserError as error:
        return None, [Problem(path, str(error))]
    if not callable(found):
        words = f"'{name}' is a {type(found).__name__}; it cannot be called"
        return None, [Problem(path, words)]
    return found, []


def _call(
    function: Callable[..., Any],
    args: Mapping[str, Any],
    path: KeyPath,
    *,
    given: Collection[str] = (),
    positional: int = 0,
) -> Problems:
    found = import_path.check_call(function, args, given=given, positional=positional)
    yield from _below(path, found)


def _below(path: KeyPath, problems: Iterable[Problem]) -> Problems:
    """Put the arguments that problems are about below the key that holds them all."""
    for problem in problems:
        yield replace(problem, path=(*path, *problem.path))
