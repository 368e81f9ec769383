"""Which part of a model is trained, and what the rest does meanwhile: it stays as it is."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from lrtool.engine.evaluation import is_frozen, is_norm, set_training
from lrtool.engine.weights import plain
from lrtool.errors import ConfigError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

KEY = ("model", "train_only")


def train_only(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train the parameters whose names match a regular expression, and freeze all others.

    A module whose parameters are all frozen is put into evaluation mode, with all that is in it:
    its dropout is off, and the statistics of its batch norm stay. So is a batch norm without
    parameters, if no expression finds its `running_mean`. `set_training` keeps these modes.

    Args:
        model: new.
        patterns: searched for in the names; of a parameter with several names, in each.

    Raises:
        ConfigError: one matches no parameter.

    Warns:
        LrtoolWarning: all are trained; or one is that the model itself has frozen.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    every = [name for own in names.values() for name in own]
    bare = {f"{n}.running_mean": m for n, m in model.named_modules() if _is_bare_norm(m)}
    _refuse_what_matches_nothing(patterns, [*every, *bare])
    thawed = []
    for parameter, own in names.items():
        is_trained = any(_matches(patterns, name) for name in own)
        if is_trained and not parameter.requires_grad:
            thawed.append(own[0])
        parameter.requires_grad_(is_trained)
    set_training(model)  # now that a part which the model itself had frozen may be trained
    if all(parameter.requires_grad for parameter in names):
        words = "model.train_only matches all parameters of the model: nothing is frozen"
        warnings.warn(words, LrtoolWarning, stacklevel=2)
    if thawed:
        warnings.warn(
            f"model.train_only trains {', '.join(by_prefix(thawed, every))}, which the model itself"
            " had frozen",
            LrtoolWarning,
            stacklevel=2,
        )
    frozen = [module for module in model.modules() if is_frozen(module)]
    for module in [*frozen, *(m for name, m in bare.items() if not _matches(patterns, name))]:
        module.eval()
    for module in model.modules():  # one without dropout is the same, and cuDNN needs this mode
        if isinstance(module, nn.RNNBase) and not module.dropout:
            module.train()


def freeze_norms(model: nn.Module) -> None:
    """Put each batch norm that trains nothing into evaluation mode, which `set_training` keeps.

    Args:
        model: new.
    """
    set_training(model)
    for module in model.modules():
        if is_norm(module) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def _is_bare_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm without parameters, of its own statistics alone."""
    return is_norm(module) and not any(True for _ in module.parameters())


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _refuse_what_matches_nothing(patterns: Sequence[str], names: Sequence[str]) -> None:
    examples = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    problems = [
        Problem((*KEY, index), f"'{pattern}' matches no parameter; the model has {examples}")
        for index, pattern in enumerate(patterns)
        if not any(re.search(pattern, name) for name in names)
    ]
    if problems:
        raise ConfigError(*problems)


def parts(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what of a model is trained, and what is frozen, as `by_prefix` names it."""
    trained = {name: p.requires_grad for name, p in plain(model).named_parameters()}
    frozen = [name for name, is_trained in trained.items() if not is_trained]
    return (
        tuple(by_prefix([n for n, is_trained in trained.items() if is_trained], trained)),
        tuple(by_prefix(frozen, trained)),
    )


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that are trained, by name."""
    return {name: p for name, p in plain(model).named_parameters() if p.requires_grad}


def by_prefix(names: Collection[str], every: Collection[str]) -> dict[str, list[str]]:
    """Group names under the shortest module names that stand for nothing else.

    Of "a.w", "a.b", "c.w" and "c.b", the first three are "a" and "c.w".

    Args:
        names: some of `every`.
        every: all that there are.
    """
    whole = Counter(prefix for name in every for prefix in _prefixes(name))
    chosen = Counter(prefix for name in names for prefix in _prefixes(name))
    groups: dict[str, list[str]] = {}
    for name in names:
        prefix = next((p for p in _prefixes(name) if whole[p] == chosen[p]), name)
        groups.setdefault(prefix, []).append(name)
    return groups


def _prefixes(name: str) -> Iterator[str]:
    """Yield the names of the modules around a parameter, outermost first."""
    path = name.split(".")
    for count in range(1, len(path)):
        yield ".".join(path[:count])
