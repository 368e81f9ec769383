"""Import paths `package.module:attribute`, and whether a call will fit before it is made."""

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

from lrtool.errors import Problem, UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pydantic_core import ErrorDetails


_WORKER = re.compile(r"Original Traceback .*:\n(?P<frames>(?:  .*\n)+)(?P<what>(?:.|\n)+?)\s*$")


@dataclass(frozen=True, slots=True)
class Range:
    """Which values an argument may have, beyond its type: `Annotated[float, Range(…)]`.

    Attributes:
        words: such as "must be above 0".
        allows: tells whether a value of the right type is one of them.
    """

    words: str
    allows: Callable[[Any], bool]


def is_import_path(name: str) -> bool:
    """Tell an import path from a built-in name: it has a colon."""
    return ":" in name


def resolve(path: str, directories: Sequence[Path]) -> Any:
    """Return what `package.module:attribute` names; the attribute may be dotted.

    `directories` come first on `sys.path` and stay there: modules of the user's may import others
    as late as they are called.

    Raises:
        UserError: the path is malformed, no such module, no such attribute, or the user's own
            code fails.
    """
    module_name, _, attribute = path.partition(":")
    parts = attribute.split(".")
    if not all(part.isidentifier() for part in [*module_name.split("."), *parts]):
        raise UserError(f"{path!r} must look like package.module:attribute")
    for directory in reversed([str(directory) for directory in directories]):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    found: Any = _import(module_name, directories)
    owner = f"module '{module_name}'"
    for depth, part in enumerate(parts, 1):
        try:
            found = _attribute(found, part, owner)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"'{part}' of {owner} cannot be read: {words(error)}") from error
        owner = f"'{'.'.join(parts[:depth])}'"
    return found


def _attribute(owner: Any, name: str, spelled: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        hint = did_you_mean(name, [known for known in dir(owner) if not known.startswith("_")])
        raise UserError(f"{spelled} has no attribute '{name}'{hint}") from None


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
    """Say what an exception of the user's code is, and where it was raised."""
    said = error.msg if isinstance(error, SyntaxError) else _text(error)
    what = f"{type(error).__name__}: {said}".removesuffix(": ")
    in_worker = _WORKER.search(said)
    if in_worker is not None:  # a DataLoader's worker sends its traceback as the message
        files = re.findall(r'^  File "(.+)", line (\d+)', in_worker["frames"], re.MULTILINE)
        own = [f"{name}:{line}" for name, line in files if _is_own(name)]
        return in_worker["what"] + (f" ({own[-1]})" if own else "")
    if isinstance(error, SystemExit):
        what = f"it ended the program: sys.exit({error.code!r})"
    return f"{what}{place(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as own:  # noqa: BLE001  (a user's exception may have a __str__ that fails)
        return f"its __str__ raised {type(own).__name__}"


def place(error: BaseException) -> str:
    """Return " (file:line)" of the last line of the user's own code on the way to an error."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f" ({error.filename}:{error.lineno})"
    own = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename)]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _is_own(filename: str) -> bool:
    """Tell whether a file is the user's: neither lrtool's nor a library's."""
    path = Path(filename)
    foreign = (Path(__file__).parents[1], sysconfig.get_path("stdlib"))
    return not (
        filename.startswith("<")
        or any(path.is_relative_to(directory) for directory in foreign)
        or {"site-packages", "dist-packages"} & {*path.parts}
    )


def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a callable's signature with its annotations evaluated; None for some of C's."""
    for evaluate in (True, False):  # some annotations make sense to a type checker only
        try:
            return inspect.signature(function, eval_str=evaluate)
        except Exception:  # noqa: BLE001, S112  (an annotation may raise anything; then without)
            continue
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
) -> list[Problem]:
    """Find out what is wrong with calling `function(…, **args)`, without calling it.

    Args:
        function: a class or function; built-in ones have their annotations checked too.
        args: the user's keyword arguments.
        given: parameters that the caller will fill where the signature names them.
        positional: how many leading parameters the caller fills by position.

    Returns:
        Problems whose path is the argument alone, or () for one that is missing.
    """
    known = signature(function)
    if known is None:
        return []
    parameters = list(known.parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    parameters = parameters[positional:]
    usable = {p.name: p for p in parameters if p.kind in {p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD}}
    yours = [name for name in usable if name not in given]
    problems: list[Problem] = []
    for name, value in args.items():
        if name in usable:
            wrong = check_value(usable[name].annotation, value)
            problems += [Problem((name,), words) for words in wrong]
        elif not takes_any:
            hint = did_you_mean(name, yours)
            shape = f"signature ({', '.join(map(spell, (usable[n] for n in yours)))})"
            problems.append(Problem((name,), f"unknown argument{hint}; {shape}", at_key=True))
    for name in yours:
        if usable[name].default is inspect.Parameter.empty and name not in args:
            problems.append(Problem((), f"the argument '{name}' is required"))
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
    "dict_type": "a mapping",
    "none_required": "null",
}


def check_value(annotation: Any, value: Any) -> list[str]:
    """Hold a value against an annotation of plain types; others are the function's own affair.

    A `Range` beside the type counts as well.
    """
    ranges: list[Any] = []
    if get_origin(annotation) is Annotated:
        annotation, *ranges = get_args(annotation)
    parts = get_args(annotation)
    if float in parts and Tensor in parts:  # torch's rates; no file holds a tensor
        annotation = Union[tuple(part for part in parts if part is not Tensor)]  # noqa: UP007  (a computed union)
    if not _is_plain(annotation):
        return []
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        ranges = [beside for beside in ranges if isinstance(beside, Range)]
        return [f"{known.words}, not {value}" for known in ranges if not known.allows(value)]
    spelled = json.dumps(value, ensure_ascii=False)  # true and null, as in the file
    shown = f"the text {value!r}" if isinstance(value, str) else spelled
    for detail in details:
        item = next((part for part in detail["loc"] if isinstance(part, int)), None)
        if item is not None:
            return [f"item {item} must be {_wanted(detail)}, in {shown}"]
    hint = did_you_mean(value, _choices(annotation)) if isinstance(value, str) else ""
    return [f"must be {' or '.join(dict.fromkeys(map(_wanted, details)))}, not {shown}{hint}"]


def _wanted(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        choices = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
        return f"one of {choices}"
    return _EXPECTED.get(detail["type"], detail["msg"])


def _choices(annotation: Any) -> list[str]:
    """Return the texts that an annotation's Literals name."""
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
