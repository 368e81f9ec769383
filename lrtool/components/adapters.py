"""Adapters such as LoRA, by PEFT, which freeze a model and train a few new weights inside it."""

from __future__ import annotations

import importlib
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lrtool.components import import_path
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from lrtool.config.schema import ComponentConfig

KEY = ("model", "peft")
MOST_NAMED = 8


def problems(spec: ComponentConfig, directories: Sequence[Path]) -> Iterator[Problem]:
    """Yield what is wrong with name and arguments of an adapter, before a model is built."""
    try:
        make = _configuration(spec.name, directories)
    except ConfigError as error:
        yield from error.problems
        return
    for problem in import_path.check_call(make, spec.args):
        yield Problem((*KEY, "args", *problem.path), problem.message.partition("; signature")[0])


def add_adapter(model: nn.Module, spec: ComponentConfig, directories: Sequence[Path]) -> None:
    """Put an adapter's layers into a model, in place; only these have `requires_grad` then.

    A copy of each module in the argument `modules_to_save`, such as a head, is trained as well.
    Names stay, but a layer with an adapter has its own weights in `base_layer`.

    Args:
        model: with the weights that stay as they are.
        spec: a configuration class of PEFT, and its arguments.
        directories: where modules of import paths are looked for.

    Raises:
        ConfigError: PEFT is not installed, or the adapter does not fit the model.

    Warns:
        LrtoolWarning: an argument names a module that the model does not have.
    """
    make, peft = _configuration(spec.name, directories), _peft()
    names = [name for name, _ in model.named_modules()]
    there = f"the model has {_layers(model)}"
    before = set(model.parameters())
    words = f"{spec.name} cannot be put into the model"
    with _failing(spec.name, words, there):
        config = make(**spec.args)
    if not isinstance(config, peft.PeftConfig):
        words = f"{spec.name} made a {type(config).__name__}, not a configuration of PEFT"
        raise ConfigError(Problem((*KEY, "name"), words))
    _refuse_calls_in_the_loop(spec.name, peft, config)
    with _failing(spec.name, words, there):
        peft.inject_adapter_in_model(config, model)
    if not any(p.requires_grad for p in model.parameters() if p not in before):
        words = f"{spec.name} adds nothing to train; {there}"
        raise ConfigError(Problem((*KEY, "args"), words))
    for key in ("target_modules", "modules_to_save"):
        given = getattr(config, key, None)
        for asked in sorted(given) if isinstance(given, list | set | tuple) else ():
            if not any(name == asked or name.endswith(f".{asked}") for name in names):
                words = f"model.peft: {asked!r} in {key} is ignored; {there}"
                warnings.warn(words, LrtoolWarning, stacklevel=2)


def freeze_replaced(model: nn.Module) -> None:
    """Freeze the modules in whose place a copy is trained, by the argument `modules_to_save`.

    A weight that is used elsewhere too, such as that of a tied embedding, stays as it is.
    """
    named = model.named_parameters(remove_duplicate=False)
    used = {parameter for name, parameter in named if "original_module" not in name.split(".")}
    for parameter in model.parameters():
        if parameter not in used:
            parameter.requires_grad = False


@contextmanager
def _failing(name: str, what: str, there: str) -> Iterator[None]:
    """Put into words what PEFT, or the user's code, raises."""
    try:
        yield
    except (Exception, SystemExit) as error:
        why = import_path.words(error) if import_path.is_import_path(name) else str(error)
        raise ConfigError(Problem(KEY, f"{what}: {why.rstrip('.')}; {there}")) from error


def _configuration(name: str, directories: Sequence[Path]) -> Callable[..., Any]:
    """Return what makes PEFT's configuration: a class of PEFT's, or the user's own."""
    peft, path = _peft(), (*KEY, "name")
    if import_path.is_import_path(name):
        try:
            found = import_path.resolve(name, directories)
        except UserError as error:
            raise ConfigError(Problem(path, str(error))) from error
        if not callable(found):
            words = f"'{name}' is a {type(found).__name__}; it cannot be called"
            raise ConfigError(Problem(path, words))
        made: Callable[..., Any] = found
        return made
    known = {
        each.removesuffix("Config").lower(): getattr(peft, each)
        for each in dir(peft)
        if each.endswith("Config") and "target_modules" in _fields(getattr(peft, each))
    }
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
        raise ConfigError(Problem(path, f"PEFT has no adapter called {name!r}{hint}"))
    cls: Callable[..., Any] = known[name]
    return cls


def _fields(cls: Any) -> Collection[str]:
    return getattr(cls, "__dataclass_fields__", {})


def _peft() -> Any:
    try:
        return importlib.import_module("peft")  # imports transformers, which takes seconds
    except ModuleNotFoundError as error:
        missing = "" if error.name == "peft" else f" (it lacks {error.name})"
        words = f"PEFT is not installed{missing}: pip install 'lrtool[peft]'"
        raise ConfigError(Problem(KEY, words)) from error
    except Exception as error:
        words = f"PEFT cannot be imported: {import_path.words(error)}"
        raise ConfigError(Problem(KEY, words)) from error


def _refuse_calls_in_the_loop(name: str, peft: Any, config: Any) -> None:
    """Refuse an adapter whose training loop has to call it, as AdaLoRA's has."""
    tuner = peft.PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    if hasattr(tuner, "update_and_allocate"):
        words = f"{name} needs calls of update_and_allocate, which lrtool's loop does not make"
        raise ConfigError(Problem((*KEY, "name"), words))


def _layers(model: nn.Module) -> str:
    """List the modules with parameters of their own: "0 (Linear), 2 (Linear), …"."""
    own = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name and any(True for _ in module.parameters(recurse=False))
    ]
    more = f" and {len(own) - MOST_NAMED} more" if len(own) > MOST_NAMED else ""
    return (", ".join(own[:MOST_NAMED]) or "no modules with parameters") + more
