"""Import paths `package.module:attribute`, and whether a call will fit before it is made."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lrtool.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


def is_import_path(name: str) -> bool:
    """Tell an import path from a built-in name: it has a colon."""
    return ":" in name


def resolve(path: str, directories: Sequence[Path]) -> Any:
    """Return what `package.module:attribute` names; the attribute may be dotted.

    `directories` come first on `sys.path` and stay there: modules of the user's may import others
    as late as they are called.

    Raises:
        UserError: the path is malformed, no such module, no such attribute, or the module's own
            code fails.
    """
    module_name, _, attribute = path.partition(":")
    parts = attribute.split(".")
    if not all(part.isidentifier() for part in [*module_name.split("."), *parts]):
        raise UserError(f"'{path}' must look like package.module:attribute")
    for directory in reversed([str(directory) for directory in directories]):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    found: Any = _import(module_name, directories)
    for depth, part in enumerate(parts):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = f"module '{module_name}'" if depth == 0 else f"'{'.'.join(parts[:depth])}'"
            known = [name for name in dir(found) if not name.startswith("_")]
            hint = did_you_mean(part, known)
            raise UserError(f"{owner} has no attribute '{part}'{hint}") from None
    return found


def _import(name: str, directories: Sequence[Path]) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            looked = ", ".join(dict.fromkeys(str(directory) for directory in directories))
            raise UserError(
                f"no module named '{error.name}'; looked in {looked} and the installed packages"
            ) from error
        raise UserError(
            f"module '{name}' imports '{error.name}', which is not installed{place(error)}"
        ) from error
    except Exception as error:
        raise UserError(
            f"importing '{name}' failed: {type(error).__name__}: {error}{place(error)}"
        ) from error


def place(error: Exception) -> str:
    """Return " (file:line)" of the last line of the user's own code on the way to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    foreign = (str(Path(__file__).parent.parent), "importlib", "site-packages", sys.base_prefix)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in foreign)]
    own = [f for f in own if not f.filename.startswith("<")]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a callable's signature with its annotations evaluated; None for some of C's."""
    try:
        return inspect.signature(function, eval_str=True)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker knows
        pass
    except ValueError:
        return None
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return None


def facts_for(function: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those facts of the data that the function names as parameters."""
    known = signature(function)
    return {} if known is None else {k: v for k, v in facts.items() if k in known.parameters}


def required(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters that have no default."""
    known = signature(function)
    parameters = known.parameters.values() if known else ()
    return {p.name for p in parameters if p.default is inspect.Parameter.empty}


def check_call(
    function: Callable[..., Any],
    args: Mapping[str, Any],
    *,
    given: Collection[str] = (),
    positional: int = 0,
) -> list[tuple[str | None, str]]:
    """Find out what is wrong with calling `function(…, **args)`, without calling it.

    Args:
        function: a class or function; built-in ones have their annotations checked too.
        args: the user's keyword arguments.
        given: parameters that the caller will fill where the signature names them.
        positional: how many leading parameters the caller fills by position.

    Returns:
        For each problem the argument that it is about (None: one that is missing) and words.
    """
    known = signature(function)
    if known is None:
        return []
    parameters = list(known.parameters.values())[positional:]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    usable = {p.name: p for p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}}
    yours = [name for name in usable if name not in given]
    problems: list[tuple[str | None, str]] = []
    for name, value in args.items():
        if name in usable:
            problems += [(name, words) for words in _check_value(usable[name].annotation, value)]
        elif not takes_any:
            hint = did_you_mean(name, yours)
            shape = f"signature ({', '.join(map(spell, (usable[n] for n in yours)))})"
            problems.append((name, f"unknown argument{hint}; {shape}"))
    for name in yours:
        if usable[name].default is inspect.Parameter.empty and name not in args:
            problems.append((None, f"the argument '{name}' is required"))
    return problems


def spell(parameter: inspect.Parameter) -> str:
    """Return a parameter as `name` or `name=default`."""
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}"


_PLAIN = {int, float, bool, str, list, dict, type(None)}
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "none_required": "null",
}


def _check_value(annotation: Any, value: Any) -> list[str]:
    """Hold a value against an annotation of plain types; others are the function's own affair."""
    if not _is_plain(annotation):
        return []
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        wanted = [_EXPECTED.get(d["type"]) or d["msg"] for d in details]
        shown = f"the text {value!r}" if isinstance(value, str) else repr(value)
        if details[0]["loc"] and isinstance(details[0]["loc"][0], int):
            return [f"item {details[0]['loc'][0]} must be {wanted[0]}, in {shown}"]
        return [f"must be {' or '.join(dict.fromkeys(wanted))}, not {shown}"]
    return []


def _is_plain(annotation: Any) -> bool:
    parts = getattr(annotation, "__args__", None)
    if getattr(annotation, "__origin__", None) is not None and type(annotation).__name__ == (
        "_LiteralGenericAlias"
    ):
        return True
    if parts is None:
        return annotation in _PLAIN if isinstance(annotation, type) else False
    origin = getattr(annotation, "__origin__", None)
    return (origin is None or origin in _PLAIN) and all(_is_plain(part) for part in parts)
