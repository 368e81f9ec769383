"""What is wrong with the keys and values of a configuration, in words: pydantic's findings."""

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


def validate(data: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """Return the configuration that plain data describe, or None and every problem."""
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    details += _contradictions(data, {detail["type"] for detail in details})
    return None, [_problem(detail, data) for detail in details]


def _contradictions(data: dict[str, Any], known: set[str]) -> list[ErrorDetails]:
    """Find keys that contradict each other in sections with other mistakes too.

    pydantic compares keys only once each of a section's keys is right by itself.
    """
    found: list[ErrorDetails] = []
    pairs: list[tuple[type[Section], str, tuple[str, str], str]] = [
        (FindConfig, "find", ("start", "end"), "start_end"),
        (TrainConfig, "train", ("epochs", "max_steps"), "length"),
    ]
    for section, name, keys, kind in pairs:
        raw = data.get(name)
        if not isinstance(raw, dict) or kind in known:
            continue
        try:
            section.model_validate({key: raw[key] for key in keys if key in raw})
        except ValidationError as error:
            errors = error.errors(include_url=False)
            found += [{**detail, "loc": (name,)} for detail in errors if detail["type"] == kind]
    return found


def sound_part(data: dict[str, Any]) -> Config:
    """Return a configuration without what cannot be read, defaults in its place.

    It lets the names and arguments of components be judged although something else is wrong.
    """
    kept = copy.deepcopy(data)
    while True:
        try:
            return Config.model_validate(kept)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                _remove(kept, detail["loc"])


def _remove(data: dict[str, Any], path: KeyPath) -> None:
    """Delete the value at `path`, or its nearest ancestor that can be deleted alone."""
    here: Any = data
    owner, key = data, path[0]
    for part in path:
        if not isinstance(here, dict) or part not in here:
            break
        owner, key = here, part
        here = here[part]
    owner.pop(str(key), None)


def _problem(detail: ErrorDetails, data: dict[str, Any]) -> Problem:
    """Word one of pydantic's findings."""
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        hint = did_you_mean(str(path[-1]), known) or f"; known here: {', '.join(known)}"
        return Problem(path, f"unknown key{hint}", at_key=True)
    if detail["type"] == "finite_number":
        path = _without_tags(path, data)
    return Problem(path, _words(detail))


def _words(detail: ErrorDetails) -> str:  # noqa: C901, PLR0911  (a table of cases)
    """Say what must stand there, and what does."""
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
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":  # runtime.device is the one field with a pattern
            return f"must be auto, cpu, mps, cuda or cuda:N, not {given}"
        case "batch_size" | "validation" | "learning_rate" | "verify":
            return f"{detail['msg']}, not {given}"
        case _ if kind in _EXPECTED:
            return f"must be {_EXPECTED[kind]}, not {given}"
        case _:
            return detail["msg"]


def _given(value: Any) -> str:
    """Say what stands in the file, so that a reader sees text where a number was meant."""
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


def _without_tags(path: KeyPath, data: Any) -> KeyPath:
    """Return the keys of a path alone: inside JSON, pydantic names the types on the way too."""
    found: list[str | int] = []
    here: Any = data
    for part in path:
        is_key = isinstance(here, dict) and part in here
        is_index = isinstance(here, list) and isinstance(part, int)
        if is_key or is_index:
            found.append(part)
            here = here[part]
    return tuple(found)


def _keys_at(path: KeyPath) -> list[str]:
    """Return the keys that the section at `path` knows."""
    here: Any = Config
    for part in path:
        if isinstance(part, int):  # the lists of sections: optimizer.groups
            here = ParameterGroupConfig
            continue
        annotation = here.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        here = next((o for o in options if isinstance(o, type) and issubclass(o, Section)), here)
    return list(here.model_fields)
