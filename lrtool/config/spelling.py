"""Values as text: numbers as one types them, others as in the configuration."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def sentence(clauses: Sequence[str]) -> str:
    """Return clauses as one sentence."""
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def number(value: float, digits: int | None = None) -> str:
    """Return a number as one types it into YAML: 0.0001, 1.2e-5, 83000, 1e6; NaN as "nan".

    Args:
        value: any number.
        digits: significant digits; None: as many as identify the number.
    """
    if not isfinite(value):
        return str(value)
    exact = Decimal(repr(float(value)) if digits is None else f"{value:.{digits - 1}e}").normalize()
    if -5 < exact.adjusted() < 6:
        return f"{exact:f}"
    return f"{exact:e}".replace("e+", "e")


def count(things: int, name: str) -> str:
    """Return a count with its noun: 1 epoch, 2 epochs, 1,000 epochs."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"


def spell(value: Any) -> str:
    """Return a value as in a configuration: 0.001, true, null, adam, [1, 'a'], {b: 2}.

    Text is quoted only inside lists and mappings, where it may hold a comma.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return number(value)
        case dict():
            return f"{{{', '.join(f'{key}: {_item(item)}' for key, item in value.items())}}}"
        case list():
            return f"[{', '.join(map(_item, value))}]"
        case _:
            return str(value)


def _item(value: Any) -> str:
    return repr(value) if isinstance(value, str) else spell(value)
