"""The rows of `lrtool list`: every name that a configuration may use, with its defaults."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lrtool.components import import_path
from lrtool.components.losses import LOSSES, RESERVED
from lrtool.components.metrics import METRICS
from lrtool.components.models import FACTS, MODELS
from lrtool.components.optimizers import OPTIMIZERS, default_rate
from lrtool.components.schedules import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Row = dict[str, Any]


def rows(kind: str, sources: Mapping[str, Callable[..., Any]]) -> list[Row]:
    """Return a row for each name of a kind, all with the same keys.

    Args:
        kind: losses, optimizers, schedules, models, metrics or sources.
        sources: the built-in data sources, which this package must not import.
    """
    match kind:
        case "losses":
            return [
                {
                    "name": name,
                    "also": ", ".join(loss.aliases),
                    "targets": loss.takes,
                    "arguments": _arguments(loss.function, 2, RESERVED),
                }
                for name, loss in LOSSES.items()
            ]
        case "optimizers":
            return [
                {
                    "name": name,
                    "learning_rate": default_rate(cls),
                    "arguments": _arguments(cls, 1, ("lr",)),
                }
                for name, cls in OPTIMIZERS.items()
            ]
        case "models":
            return [_described(n, f, _arguments(f, 0, FACTS)) for n, f in MODELS.items()]
        case "sources":
            return [_described(n, f, _arguments(f, 1)) for n, f in sources.items()]
        case "schedules":
            return [
                _described(name, entry.build, _arguments(entry.build, 1))
                for name, entry in SCHEDULES.items()
            ]
        case "metrics":
            return [{"name": n, "description": entry.description} for n, entry in METRICS.items()]
    raise AssertionError(kind)


def _described(name: str, function: Callable[..., Any], arguments: str) -> Row:
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    return {"name": name, "description": summary, "arguments": arguments}


def _arguments(function: Callable[..., Any], positional: int, hidden: Collection[str] = ()) -> str:
    """Return the arguments that a configuration may give, as `name=default`."""
    signature = import_path.signature(function)
    assert signature is not None, "built-in functions and classes have one"
    parameters = list(signature.parameters.values())[positional:]
    return ", ".join(import_path.spell_parameter(p) for p in parameters if p.name not in hidden)
