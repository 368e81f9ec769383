"""A YAML file as plain data, with the position of each key and value.

PyYAML parses; plain scalars are read by YAML 1.2's core schema, so `1e-3` is a number and `no` a
string. Tags are refused, and nesting and aliases are limited.
"""

from __future__ import annotations

import math
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from lrtool.config.schema import LossConfig, OptimizerConfig
from lrtool.errors import ConfigError, KeyPath, LrtoolWarning, Place, Problem, key_path, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 20_000  # with aliases expanded

_LONGEST_INDEX = 9  # digits
_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: no encoding can write one alone
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]{1,4000}\Z|0x[0-9a-fA-F]{1,3000}\Z")  # str() writes those
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


@dataclass(frozen=True, slots=True)
class Override:
    """A value from the command line, and the flag for error messages."""

    flag: str
    path: KeyPath
    value: Any


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and the place of the key and the value at each key path."""

    name: str
    data: dict[str, Any]
    keys: dict[KeyPath, Place]
    values: dict[KeyPath, Place]

    def locate(self, problem: Problem) -> Problem:
        """Return a problem with the place of its key or value, or of the nearest section."""
        if problem.place is not None:
            return problem
        path = problem.path
        places = self.keys if problem.at_key and path in self.keys else self.values
        above = [path[:length] for length in range(len(path), -1, -1)]
        nearest = next((places[key] for key in above if key in places), Place(self.name))
        return replace(problem, place=nearest)


@contextmanager
def located(document: Document) -> Iterator[None]:
    """Add places to the problems of a ConfigError raised inside."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*map(document.locate, error.problems)) from error


def read(
    path: Path,
    sets: Sequence[str] = (),
    flags: Sequence[Override] = (),
    names: Sequence[Override] = (),
) -> Document:
    """Read a YAML file whose top level is a mapping, and apply overrides.

    Args:
        path: the file.
        sets: the values of `--set`, each `key.path=value`, typed as in the file.
        flags: values of other flags, applied last.
        names: other names for components, applied first; they drop the old one's arguments.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[Problem] = []
    document = Document(str(path), {}, {}, {})
    overrides: list[Override] = []
    try:
        document = parse(_read_text(path), str(path))
    except ConfigError as error:
        problems += error.problems
    for text in sets:
        try:
            overrides.append(parse_override(text))
        except ConfigError as error:
            problems += error.problems
    for name in names if not problems else ():
        _rename(document, name)
    for override in [*overrides, *flags] if not problems else []:
        try:
            lay_over(document, override)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return document


def parse(text: str, name: str) -> Document:
    """Turn YAML text into a document; `name` is the file in messages.

    Raises:
        ConfigError: as `read`.
    """
    node = _compose(text, name)
    if node is None:
        raise _wrong(Place(name), "the file is empty; `lrtool init digits` writes an example")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise _wrong(
            _place(name, node.start_mark),
            f"the file holds {kind}; it must be a mapping, like 'seed: 0'",
        )
    walk = _Walk(name)
    return Document(name, walk.all_of(node, ()), walk.keys, walk.values)


def parse_override(text: str) -> Override:
    """Read `a.b=value` from `--set`; the value is typed as in the file.

    Raises:
        ConfigError: there is no "=", a part of the key is empty, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise _wrong(Place(f"--set {text}"), "must look like key.path=value, for instance seed=1")
    flag = f"--set {key}"
    path = tuple(_step(part) for part in key.split("."))
    if len(path) > MAX_DEPTH:
        raise _wrong(Place(f"--set {text}"), f"is nested more than {MAX_DEPTH} levels deep")
    if _HALVES.search(key):
        raise _wrong(Place(f"--set {text}"), "is not UTF-8 text")
    if len(value) == 1 and not value.isalnum() and value != "~" and value.isprintable():
        return Override(flag, path, value)  # as in delimiter=| and decimal=, without quotes
    try:
        node = _compose(value, flag)
        return Override(flag, path, None if node is None else _Walk(flag).all_of(node, path))
    except ConfigError as error:
        place = Place(flag, sets=path)  # without line and column
        raise ConfigError(
            *(replace(p, path=p.path or path, place=place) for p in error.problems)
        ) from None


def _step(part: str) -> str | int:
    """Return a step of a key's path: an index of a list, or a key."""
    return int(part) if part.isdecimal() and len(part) <= _LONGEST_INDEX else part


def plain_scalar(text: str) -> str | int | float | bool | None:
    """Return the value of a plain (unquoted) scalar in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _INT.match(text):
            return int(text)
        if _OCTAL_OR_HEX.match(text):
            return int(text[2:], 8 if text[1] == "o" else 16)
    except ValueError:  # Python reads at most 4,300 digits
        return text
    if _FLOAT.match(text):
        return float(text)
    return text


def dump(data: dict[str, Any]) -> str:
    """Write plain data as YAML that `parse` reads back as the same data."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.2 would read as something else, such as "1e-3"."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (the base class's signature)
        return True


def _represent_str(dumper: _Dumper, text: str) -> yaml.Node:
    style = None if isinstance(plain_scalar(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)


def _wrong(place: Place, message: str) -> ConfigError:
    """Return the error for a single problem without a key."""
    return ConfigError(Problem((), message, place=place))


def _read_text(path: Path) -> str:
    place = Place(str(path))
    if path.is_dir():
        raise _wrong(place, "is a directory, not a configuration file")
    if _HALVES.search(str(path)):
        raise _wrong(place, "its name is not UTF-8, which torch and a report need; rename it")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _wrong(
            place, "no such file; `lrtool init digits` writes an example to start from"
        ) from None
    except OSError as error:
        raise _wrong(place, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _wrong(place, f"larger than {MAX_BYTES:,} bytes; not a configuration file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte {raw[error.start]:#04x} at {error.start}"
        raise _wrong(Place(str(path), line), f"not UTF-8 text ({byte})") from None


def _compose(text: str, name: str) -> yaml.Node | None:
    """Parse to nodes."""
    try:
        _check_events(text, name)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except ConfigError:
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        sign = ascii(error.character if isinstance(error.character, str) else chr(error.character))
        raise _wrong(Place(name, line), f"not a text file (character {sign})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _wrong(_place(name, mark), f"not valid YAML: {_in_words(error)}") from None
    except Exception as error:  # noqa: BLE001  (PyYAML lets through what an escape or a version raises)
        raise _wrong(Place(name), f"not valid YAML: {said(error)}") from None


def _check_events(text: str, name: str) -> None:
    """Refuse tags, and nesting too deep to recurse."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            place = _place(name, event.start_mark)
            raise _wrong(place, f"nested more than {MAX_DEPTH} levels deep")
        if tag := getattr(event, "tag", None):
            place = _place(name, event.start_mark)
            raise _wrong(place, f"tags are not allowed, found {tag!r}; remove it")


def _place(name: str, mark: Any) -> Place:
    return Place(name) if mark is None else Place(name, mark.line + 1, mark.column + 1)


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "unreadable"
    if r"'\t'" in problem:
        return "a tab; YAML is indented with spaces"
    if "escape" in problem:
        return (
            "in double quotes, a backslash begins an escape such as \\n; write a path in single"
            " quotes, or with /"
        )
    if "mapping values are not allowed" in problem:
        return "a second ':' on this line, or the line before is indented differently"
    if error.context:
        problem = f"{error.context}, {problem}"
    return problem


class _Walk:
    """Turns nodes into plain data; collects places and problems."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: dict[KeyPath, Place] = {}
        self.values: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self.count = 0

    def all_of(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the data of the node at `path`, or raise all its problems."""
        data = self.value(node, path, 0)
        if self.problems:
            raise ConfigError(*self.problems)
        return data

    def value(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.count += 1
        place = _place(self.name, node.start_mark)
        # An alias inside its own anchor never ends; aliases of aliases multiply.
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise _wrong(place, "aliases expand to more than a configuration can hold")
        self.values[path] = place
        if isinstance(node, yaml.ScalarNode):
            self._check_text(node.value, path, place)
            return plain_scalar(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.value(n, (*path, i), depth + 1) for i, n in enumerate(node.value)]
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            here = _place(self.name, key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem((), "a key must be a single word", place=here))
                continue
            key = str(key_node.value)
            inner = (*path, key)
            self._check_text(key, inner, here)
            if key in result:
                words = f"duplicate key, first given on line {self.keys[inner].line}"
                self.problems.append(Problem(inner, words, at_key=True, place=here))
                continue
            self.keys[inner] = here
            result[key] = self.value(value_node, inner, depth + 1)
        return result

    def _check_text(self, text: str, path: KeyPath, place: Place) -> None:
        if _HALVES.search(text):
            words = "holds half of a surrogate pair, which is no character"
            self.problems.append(Problem(path, words, place=place))


def lay_over(document: Document, override: Override) -> None:
    """Put a value into the document; missing sections are added."""
    parent: Any = document.data
    path: KeyPath = ()
    for part in override.path[:-1]:
        key, child = _child(parent, part, override.flag)
        path = (*path, key)
        if isinstance(child, str):
            child = {"name": child}  # `model: mlp` is short for `model: {name: mlp}`
        elif child is None:
            child = {}
            document.keys[path] = document.values[path] = Place(override.flag)
        if not isinstance(child, dict | list):
            raise _wrong(Place(override.flag), f"{key_path(path)} holds a value, not keys")
        parent[key] = child
        parent = child
    key, _ = _child(parent, override.path[-1], override.flag)
    parent[key] = override.value
    path = (*path, key)
    for places in (document.keys, document.values):
        for old in [known for known in places if known[: len(path)] == path]:
            del places[old]
        places[path] = Place(override.flag, sets=path)


def _rename(document: Document, name: Override) -> None:
    """Give a component another name, without the old one's arguments."""
    key = str(name.path[0])
    component = document.data.get(key)
    before = component if isinstance(component, dict) else {"name": component}
    default = (LossConfig() if key == "loss" else OptimizerConfig()).name
    args, called = before.get("args"), before.get("name") or default
    if args and called != name.value:
        if isinstance(args, dict):
            warnings.warn(
                f"{name.flag} {name.value}: the arguments of {called} ({', '.join(map(str, args))})"
                " are dropped",
                LrtoolWarning,
                stacklevel=2,
            )
        del before["args"]
    lay_over(document, Override(name.flag, (key, "name"), name.value))


def _child(parent: dict[str, Any] | list[Any], part: str | int, flag: str) -> tuple[Any, Any]:
    """Return the key in the parent, and its value or None."""
    if isinstance(parent, dict):
        return str(part), parent.get(str(part))
    if isinstance(part, int) and part < len(parent):
        return part, parent[part]
    raise _wrong(Place(flag), f"{part} is not an index of a list with {len(parent)} entries")
