"""Models by name, or the user's own by import path; sizes come from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    component: ComponentConfig, facts: Mapping[str, Any], directories: Sequence[Path]
) -> nn.Module:
    """Return a model with random weights from torch's present random state.

    Args:
        component: the name and the arguments for its factory.
        facts: of the data: `input_shape` (without the batch), `num_outputs`, `vocabulary`; a
            factory gets those that its signature names, unless the arguments hold them.
        directories: where modules of import paths are looked for.

    Raises:
        ConfigError: the factory fails, or needs a fact that the data do not give.
        UserError: an import path leads nowhere.
    """
    own = import_path.is_import_path(component.name)
    factory = import_path.resolve(component.name, directories) if own else MODELS[component.name]
    named = {
        k: v for k, v in import_path.facts_for(factory, facts).items() if k not in component.args
    }
    required = import_path.required(factory)
    missing = [name for name, fact in named.items() if fact is None and name in required]
    if missing:
        problem = (
            f"{component.name} needs {' and '.join(missing)}, which the data do not tell; "
            "give it in model.args"
        )
        raise _problem(problem)
    named = {k: v for k, v in named.items() if v is not None or not own}
    try:
        model = factory(**named, **component.args)
    except UserError as error:  # a built-in model says what it cannot take
        raise _problem(f"{component.name} {error}") from error
    except (Exception, SystemExit) as error:
        raise _problem(f"{component.name} cannot be built: {import_path.words(error)}") from error
    if not isinstance(model, nn.Module):
        raise _problem(f"{component.name} made a {type(model).__name__}, not a torch.nn.Module")
    return model


def _problem(message: str) -> ConfigError:
    return ConfigError(Problem(("model",), message))
