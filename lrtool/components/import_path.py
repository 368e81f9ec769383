"""Import paths `package.module:attribute`, and checks of a call before it is made."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from lrtool.config.problems import TYPES
from lrtool.errors import Problem, UserError, did_you_mean, said

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic_core import ErrorDetails

# A DataLoader's worker sends its traceback as the message of an exception.
_WORKER = re.compile(r"Original Traceback .*:\n(?P<frames>(?:  .*\n)+)(?P<what>(?:.|\n)+?)\s*$")


@dataclass(frozen=True, slots=True)
class Range:
    """Which values an argument may have: `Annotated[float, Range(…)]`.

    Attributes:
        words: such as "must be above 0".
        allows: whether a value of the right type is in the range.
    """

    words: str
    allows: Callable[[Any], bool]


def is_import_path(name: str) -> bool:
    """Tell an import path from a built-in name: it has a colon."""
    return ":" in name


def resolve(path: str, directories: Sequence[Path]) -> Any:
    """Return what `package.module:attribute` names; the attribute may be dotted.

    `directories` come first on `sys.path` and stay there: the user's modules may import others when
    they are called.

    Raises:
        UserError: the path is malformed, there is no such module or attribute, or the user's code
            fails.
    """
    module_name, _, attribute = path.partition(":")
    parts = attribute.split(".")
    if not all(part.isidentifier() for part in [*module_name.split("."), *parts]):
        raise UserError(f"{path!r} must look like package.module:attribute")
    for directory in reversed([str(directory) for directory in directories]):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    value: Any = _import(module_name, directories)
    owner = f"module '{module_name}'"
    for depth, part in enumerate(parts, 1):
        try:
            value = getattr(value, part)
        except AttributeError:
            hint = did_you_mean(part, [name for name in dir(value) if not name.startswith("_")])
            raise UserError(f"{owner} has no attribute '{part}'{hint}") from None
        except (Exception, SystemExit) as error:
            raise UserError(f"'{part}' of {owner} cannot be read: {words(error)}") from error
        owner = f"'{'.'.join(parts[:depth])}'"
    return value


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
    except (Exception, SystemExit) as error:  # a script without a main guard may exit
        raise UserError(f"importing '{name}' failed: {words(error)}") from error


def words(error: BaseException) -> str:
    """Return type, message and place of an exception that the user's code raised."""
    text = error.msg if isinstance(error, SyntaxError) else said(error)
    what = f"{type(error).__name__}: {text}".removesuffix(": ")
    in_worker = _WORKER.search(text)
    if in_worker is not None:
        files = re.findall(r'^  File "(.+)", line (\d+)', in_worker["frames"], re.MULTILINE)
        own = [f"{name}:{line}" for name, line in files if _is_own(name)]
        return in_worker["what"] + (f" ({own[-1]})" if own else "")
    if isinstance(error, SystemExit):
        what = f"it ended the program: sys.exit({error.code!r})"
    return f"{what}{place(error)}"


def place(error: BaseException) -> str:
    """Return " (file:line)" of the innermost line of the user's code in a traceback, or ""."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f" ({error.filename}:{error.lineno})"
    own = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename)]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _is_own(filename: str) -> bool:
    """Tell whether a file is the user's, not lrtool's or a library's."""
    path = Path(filename)
    foreign = (Path(__file__).parents[1], sysconfig.get_path("stdlib"))
    return not (
        filename.startswith("<")
        or any(path.is_relative_to(directory) for directory in foreign)
        or {"site-packages", "dist-packages"} & {*path.parts}
    )


def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a callable's signature, annotations evaluated; None for some written in C."""
    for evaluate in (True, False):  # some annotations cannot be evaluated
        try:
            return inspect.signature(function, eval_str=evaluate)
        except Exception:  # noqa: BLE001, S112  (an annotation may raise anything; then without)
            continue
    return None


def takes(function: Callable[..., Any], positional: int, args: Mapping[str, Any]) -> bool:
    """Tell whether a call with so many positional arguments and these fits; yes if unknown."""
    known = signature(function)
    try:
        return known is None or bool(known.bind(*range(positional), **args))
    except TypeError:
        return False


def facts_for(function: Callable[..., Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those facts of the data that the function has as parameters."""
    parameters = _parameters(function)
    return {name: fact for name, fact in facts.items() if name in parameters}


def required(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters that have no default."""
    parameters = _parameters(function)
    return {name for name, p in parameters.items() if p.default is inspect.Parameter.empty}


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    known = signature(function)
    return known.parameters if known else {}


def check_call(
    function: Callable[..., Any],
    args: Mapping[str, Any],
    *,
    given: Collection[str] = (),
    positional: int = 0,
) -> list[Problem]:
    """Return what is wrong with a call `function(…, **args)`, without calling it.

    Args:
        function: a class or function; built-in ones have their annotations checked too.
        args: the user's keyword arguments.
        given: parameters that the caller passes by name if the signature has them.
        positional: how many leading parameters the caller passes by position.

    Returns:
        Problems whose path is the argument's name, or () for a missing argument.
    """
    known = signature(function)
    if known is None:
        return []
    parameters = list(known.parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    parameters = parameters[positional:]
    usable = {p.name: p for p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}}
    free = {name: p for name, p in usable.items() if name not in given}
    problems: list[Problem] = []
    for name, value in args.items():
        if name in usable:
            wrong = check_value(usable[name].annotation, value)
            problems += [Problem((name,), words) for words in wrong]
        elif not takes_any:
            hint = did_you_mean(name, free)
            shape = f"signature ({', '.join(map(spell_parameter, free.values()))})"
            problems.append(Problem((name,), f"unknown argument{hint}; {shape}", at_key=True))
    for name, parameter in free.items():
        if parameter.default is inspect.Parameter.empty and name not in args:
            problems.append(Problem((), f"the argument '{name}' is required"))
    return problems


def spell_parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter as `name` or `name=default`."""
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}"


_PLAIN = {int, float, bool, str, list, dict, type(None)}


def check_value(annotation: Any, value: Any) -> list[str]:
    """Return what is wrong with a value, by an annotation of plain types and its `Range`.

    Other annotations are not checked.
    """
    ranges: list[Any] = []
    if get_origin(annotation) is Annotated:
        annotation, *ranges = get_args(annotation)
    parts = get_args(annotation)
    if float in parts and Tensor in parts:  # torch's `lr`; a file holds no tensor
        annotation = Union[tuple(part for part in parts if part is not Tensor)]  # noqa: UP007  (a computed union)
    if not _is_plain(annotation):
        return []
    try:
        typed = TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        if any(type(item) is int and abs(item) >= 2**63 for item in _flat(typed)):
            return ["must be a whole number below 2^63 in size"]
        ranges = [extra for extra in ranges if isinstance(extra, Range)]
        return [f"{extra.words}, not {value}" for extra in ranges if not extra.allows(value)]
    as_json = json.dumps(value, ensure_ascii=False)  # true and null, as in the file
    shown = f"the text {value!r}" if isinstance(value, str) else as_json
    for detail in details:
        item = next((part for part in detail["loc"] if isinstance(part, int)), None)
        if item is not None:
            return [f"item {item} must be {_expected(detail)}, in {shown}"]
    hint = did_you_mean(value, _choices(annotation)) if isinstance(value, str) else ""
    return [f"must be {' or '.join(dict.fromkeys(map(_expected, details)))}, not {shown}{hint}"]


def _flat(value: Any) -> list[Any]:
    """Return the single values in lists and mappings."""
    if isinstance(value, dict):
        value = list(value.values())
    return [item for part in value for item in _flat(part)] if isinstance(value, list) else [value]


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        choices = str(detail["ctx"]["expected"]).replace(" or ", ", ")
        bare = choices.replace("'", "")
        words = re.fullmatch(r"[\w-]+(, [\w-]+)*", bare)  # rather than "," or ""
        return f"one of {bare if words else choices}"
    return TYPES.get(detail["type"], detail["msg"])


def _choices(annotation: Any) -> list[str]:
    """Return the strings among an annotation's Literals."""
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if isinstance(choice, str)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _is_plain(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is None:
        return isinstance(annotation, type) and annotation in _PLAIN
    if origin is Literal:
        return True
    return origin in {Union, UnionType, list, dict} and all(map(_is_plain, get_args(annotation)))
