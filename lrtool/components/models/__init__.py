"""Models by name or import path; their sizes come from the data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrtool.components import import_path
from lrtool.components.models.convolutional import cnn, resnet
from lrtool.components.models.dense import linear, mlp
from lrtool.components.models.sequence import gru, transformer
from lrtool.errors import ConfigError, Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lrtool.config.schema import ComponentConfig

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "gru": gru,
    "transformer": transformer,
}
FACTS = ("input_shape", "num_outputs", "vocabulary")


def build_model(
    component: ComponentConfig,
    facts: Mapping[str, Any],
    directories: Sequence[Path],
    unknown: str | None = None,
) -> nn.Module:
    """Return a model with weights drawn from torch's current random state.

    Args:
        component: a name or import path, and arguments.
        facts: of the data: `input_shape` (without the batch), `num_outputs`, `vocabulary`. The
            factory gets those that it has as parameters, unless the arguments set them.
        directories: where modules of import paths are looked for.
        unknown: why `num_outputs` is None.

    Raises:
        ConfigError: the factory fails, or needs a fact that is unknown.
        UserError: the import path leads nowhere.
        MemoryError: a built-in model is larger than the machine's memory.
    """
    name, args = component.name, component.args
    own = import_path.is_import_path(name)
    factory = import_path.resolve(name, directories) if own else MODELS[name]
    known = {k: v for k, v in import_path.facts_for(factory, facts).items() if k not in args}
    required = import_path.required(factory)
    missing = [fact for fact, value in known.items() if value is None and fact in required]
    if missing:
        keys = ", ".join(f"model.args.{fact}" for fact in missing)
        why = f" ({unknown})" if unknown and "num_outputs" in missing else ""
        raise _problem(
            f"{name} needs {' and '.join(missing)}, which the data do not tell{why}; give {keys}"
        )
    known = {k: v for k, v in known.items() if v is not None or not own}
    try:
        if not own:
            with torch.device("meta"):  # without memory for the weights
                _refuse_too_large(factory(**known, **args))
        model = factory(**known, **args)
    except MemoryError:
        raise
    except UserError as error:  # of a built-in model
        raise _problem(f"{name} {error}") from error
    except (Exception, SystemExit) as error:
        raise _problem(f"{name} cannot be built: {import_path.words(error)}") from error
    if not isinstance(model, nn.Module):
        raise _problem(
            f"{name} made a {type(model).__name__}, not a torch.nn.Module; "
            "name the model's class, or a function that returns the model itself"
        )
    return model


def _refuse_too_large(model: nn.Module) -> None:
    """Raise MemoryError for a model that no memory holds: the system would end the process."""
    if not hasattr(os, "sysconf"):  # Windows refuses what it has no memory for
        return
    parameters = sum(weight.numel() for weight in model.parameters())
    needed = 2 * 4 * parameters  # with gradients, 4 bytes each
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise MemoryError(
            f"{parameters:,} parameters need {needed / 1e9:,.0f} GB with their gradients, but the "
            f"machine has {there / 1e9:,.0f} GB"
        )


def _problem(message: str) -> ConfigError:
    return ConfigError(Problem(("model",), message))
