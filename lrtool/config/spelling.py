"""Words for a person: numbers as one types them, and pydantic's findings.

Of a finding: what must stand there, and what does.
"""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

from lrtool.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def sentence(clauses: Sequence[str]) -> str:
    """Return clauses as one sentence."""
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def number(value: float, digits: int | None = None) -> str:
    """Spell a number as one types it into YAML: 0.0001, 1.2e-5, 83000, 1e6; NaN as "nan".

    Args:
        value: any number.
        digits: how many significant ones; None: as many as tell it from all others.
    """
    if not isfinite(value):
        return str(value)
    exact = Decimal(repr(float(value)) if digits is None else f"{value:.{digits - 1}e}").normalize()
    if -5 < exact.adjusted() < 6:
        return f"{exact:f}"
    return f"{exact:e}".replace("e+", "e")


def count(things: int, name: str) -> str:
    """Spell how many things there are: 1 epoch, 2 epochs, 1,000 epochs."""
    return f"{things:,} {name}{'' if things == 1 else 's'}"


def describe(detail: ErrorDetails, known_keys: Sequence[str] = ()) -> str:  # noqa: C901, PLR0912  (a table of cases)
    """Word one pydantic error.

    Args:
        detail: from `ValidationError.errors()`.
        known_keys: the keys that the mapping may have, for one that it may not.
    """
    kind, context, given = detail["type"], detail.get("ctx", {}), spell(detail["input"])
    match kind:
        case "extra_forbidden":
            key = str(detail["loc"][-1])
            hint = did_you_mean(key, known_keys) or f"; known here: {', '.join(known_keys)}"
            message = f"unknown key{hint}"
        case "missing":
            message = "is required"
        case "literal_error":
            known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            hint = did_you_mean(str(detail["input"]), known)
            message = f"must be one of {', '.join(known)}, not {given}{hint}"
        case "greater_than":
            message = f"must be greater than {number(context['gt'])}, not {given}"
        case "greater_than_equal":
            message = f"must be at least {number(context['ge'])}, not {given}"
        case "less_than":
            message = f"must be less than {number(context['lt'])}, not {given}"
        case "less_than_equal":
            message = f"must be at most {context['le']:,}, not {given}"
        case "finite_number":
            message = f"must be a finite number, not {given}"
        case "string_too_short":
            message = "must not be empty"
        case "string_pattern_mismatch":  # runtime.device is the one field with a pattern
            message = f"must be auto, cpu, mps, cuda or cuda:N, not {given}"
        case "batch_size" | "validation" | "learning_rate" | "verify":
            message = f"{detail['msg']}, not {given}"
        case _ if kind in _EXPECTED:
            message = f"must be {_EXPECTED[kind]}, not {given}"
        case _:
            message = detail["msg"]
    return message


def spell(value: Any) -> str:
    """Say what stands in the file, so that a reader sees text where a number was meant."""
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"the text {shown!r}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, float):  # 1.0 must not read as the whole number 1
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1e6 else number(value)
    return f"{value}" if abs(value) < 10**40 else "a whole number of more than 40 digits"
