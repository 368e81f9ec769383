"""Validates a configuration with pydantic, and puts its errors into words."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lrtool.config.schema import Config, FindConfig, ParameterGroupConfig, Section, TrainConfig
from lrtool.config.spelling import number, spell
from lrtool.errors import Problem, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from lrtool.errors import KeyPath

TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}


def validate(data: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """Return the configuration, or None and all problems."""
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    details += _contradictions(data, {detail["type"] for detail in details})
    return None, [_problem(detail, data) for detail in details]


def _contradictions(data: dict[str, Any], known: set[str]) -> list[ErrorDetails]:
    """Return contradictions between keys in sections that have other mistakes too.

    pydantic compares keys only if all keys of a section are valid.
    """
    contradictions: list[ErrorDetails] = []
    pairs: list[tuple[type[Section], str, tuple[str, str], set[str]]] = [
        (FindConfig, "find", ("start", "end"), {"start_end", "range"}),
        (TrainConfig, "train", ("epochs", "max_steps"), {"length"}),
    ]
    for section, name, keys, kinds in pairs:
        raw = data.get(name)
        if not isinstance(raw, dict) or kinds & known:
            continue
        try:
            section.model_validate({key: raw[key] for key in keys if key in raw})
        except ValidationError as error:
            errors = error.errors(include_url=False)
            contradictions += [{**e, "loc": (name,)} for e in errors if e["type"] in kinds]
    return contradictions


def sound_part(data: dict[str, Any]) -> Config:
    """Return the configuration with defaults in place of invalid values.

    Names and arguments of components can then be checked although something else is wrong.
    """
    kept = copy.deepcopy(data)
    while True:
        try:
            return Config.model_validate(kept)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                _remove(kept, detail["loc"])


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Delete the value at `path`, or the nearest section or list that holds it."""
    value: Any = data
    parent, key = data, path[0]
    for part in path:
        if not isinstance(value, dict) or part not in value:
            break
        parent, key = value, part
        value = value[part]
    parent.pop(str(key), None)


def _problem(detail: ErrorDetails, data: dict[str, Any]) -> Problem:
    """Return an error of pydantic as a problem."""
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        hint = did_you_mean(str(path[-1]), known) or f"; known here: {', '.join(known)}"
        return Problem(path, f"unknown key{hint}", at_key=True)
    if detail["type"] == "finite_number":
        path = _without_types(path, data)
    return Problem(path, _words(detail))


def _words(detail: ErrorDetails) -> str:  # noqa: C901, PLR0911  (a table of cases)
    """Return what a value must be, and what it is."""
    kind, context, given = detail["type"], detail.get("ctx", {}), _given(detail["input"])
    match kind:
        case "missing":
            return "is required"
        case "literal_error":  # the choices are in pydantic's text alone
            known = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            hint = did_you_mean(str(detail["input"]), known)
            return f"must be one of {', '.join(known)}, not {given}{hint}"
        case "greater_than":
            return f"must be greater than {number(context['gt'])}, not {given}"
        case "greater_than_equal":
            return f"must be at least {number(context['ge'])}, not {given}"
        case "less_than":
            return f"must be less than {number(context['lt'])}, not {given}"
        case "less_than_equal":
            return f"must be at most {context['le']:,}, not {given}"
        case "finite_number":
            return f"must be a finite number, not {given}"
        case "string_too_short" | "too_short":
            return "must not be empty"
        case "string_pattern_mismatch":  # runtime.device is the one field with a pattern
            return f"must be auto, cpu, mps, cuda or cuda:N, not {given}"
        case "batch_size" | "validation" | "learning_rate" | "verify":
            return f"{detail['msg']}, not {given}"
        case _ if kind in TYPES:
            return f"must be {TYPES[kind]}, not {given}"
        case _:
            return detail["msg"]


def _given(value: Any) -> str:
    """Return a value of the file, so that a reader can tell text from a number."""
    if isinstance(value, str):
        shown = value if len(value) <= 40 else value[:37] + "..."
        return f"the text {shown!r}"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e6:
        return f"{value:.1f}"  # 1.0 must not read as the whole number 1
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a whole number of more than 40 digits"
    return spell(value)


def _without_types(path: KeyPath, value: Any) -> KeyPath:
    """Return a path without the types that pydantic adds to it inside JSON values."""
    keys: list[str | int] = []
    for part in path:
        is_key = isinstance(value, dict) and part in value
        is_index = isinstance(value, list) and isinstance(part, int)
        if is_key or is_index:
            keys.append(part)
            value = value[part]
    return tuple(keys)


def _keys_at(path: KeyPath) -> list[str]:
    """Return the keys of the section at `path`."""
    section: Any = Config
    for part in path:
        if isinstance(part, int):  # optimizer.groups is the only list of sections
            section = ParameterGroupConfig
            continue
        annotation = section.model_fields[part].annotation
        types = getattr(annotation, "__args__", (annotation,))
        section = next(
            (t for t in types if isinstance(t, type) and issubclass(t, Section)), section
        )
    return list(section.model_fields)
