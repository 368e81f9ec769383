"""The tables of docs/reference, made from the Typer app, the JSON schemas and the catalogue.

    python tests/docs/reference.py

writes them anew. What stands between `<!-- generated: NAME -->` and `<!-- end -->` comes from here
and from nowhere else; a test compares.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import typer

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
ANY_NUMBER = 10**9  # a larger bound is there for the machine's sake
KINDS = ("models", "losses", "metrics", "optimizers", "schedules", "sources")

Schema = dict[str, Any]


def filled(text: str) -> str:
    """Return a page with its generated blocks written anew."""
    made = generated()
    return BLOCK.sub(lambda found: f"{found[1]}\n{made[found['name']]}\n\n{found[3]}", text)


@functools.cache
def generated() -> dict[str, str]:
    """Return every generated block by its name."""
    config, report = json.loads(printed("schema")), json.loads(printed("schema", "report"))
    return {
        "keys": keys(config),
        "commands": commands(),
        "report fields": report_fields(report),
        **{kind: names(kind) for kind in KINDS},
    }


def printed(*arguments: str) -> str:
    """Return what `lrtool …` prints."""
    before, sys.argv = sys.argv, ["lrtool", *arguments]
    stdout = io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout):
            runpy.run_module("lrtool", run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"lrtool {' '.join(arguments)}: exit code {end.code}"  # noqa: PT017  (no test)
    finally:
        sys.argv = before
    return stdout.getvalue()


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown; a column that is empty throughout is left out."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    lines = [[row[i].replace("|", "\\|") for i in kept] for row in [head, *rows]]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---------------------------------------------------------------------- the command line


def commands() -> str:
    """Describe each command with its arguments and flags."""
    from lrtool.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        usage = " ".join(
            [
                "lrtool",
                name,
                *(f"[{_shown(p)}]" if not p.required else _shown(p) for p in arguments),
            ]
        )
        rows = [[f"`{_shown(p)}`", p.help or ""] for p in arguments]
        rows += [[f"`{_flag(p)}`", p.help or ""] for p in command.params if p not in arguments]
        head = ["argument or flag", "meaning"]
        parts.append(f"### `{usage}`\n\n{command.help}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _shown(argument: Any) -> str:
    return argument.metavar or argument.name.upper()


def _flag(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    if option.secondary_opts:
        return f"{names} / {option.secondary_opts[0]}"
    if option.is_flag:
        return names
    value = option.metavar or option.name.upper()
    return f"{names} {value}" + (" …" if option.multiple else "")


# ------------------------------------------------------------------------ configuration keys


def keys(schema: Schema) -> str:
    """Describe every key of a configuration, a table for each section."""
    top, sections = [], []
    for name, spec in schema["properties"].items():
        section = _object(spec, schema)
        if section is None:
            top.append(_key(name, spec, schema))
            continue
        rows = _rows(name, section, spec.get("default"), schema)
        text = section.get("description", "")
        sections.append(f"### {name}\n\n{text}\n\n{table(KEY_HEAD, rows)}")
    return "\n\n".join([f"### Top level\n\n{table(KEY_HEAD, top)}", *sections])


KEY_HEAD = ["key", "value", "default", "meaning"]


def _rows(path: str, section: Schema, defaults: Any, schema: Schema) -> list[list[str]]:
    rows = []
    for name, spec in section["properties"].items():
        key = f"{path}.{name}"
        inner = _object(spec, schema)
        if inner is None:
            inner_items = _object(spec.get("items", {}), schema)
            rows.append(_key(key, spec, schema, defaults))
            if inner_items is not None:
                rows += _rows(f"{key}[]", inner_items, None, schema)
            continue
        if "anyOf" in spec:  # may be left out altogether
            rows.append(_key(key, {**spec, "anyOf": [{"type": "mapping"}]}, schema, defaults))
        rows += _rows(key, inner, spec.get("default"), schema)
    return rows


def _key(path: str, spec: Schema, schema: Schema, defaults: Any = None) -> list[str]:
    default = spec.get("default")
    name = path.rpartition(".")[2]
    if isinstance(defaults, dict) and defaults.get(name) is not None:
        default = defaults[name]
    shown = "" if "default" not in spec else f"`{_yaml(default)}`"
    return [f"`{path}`", _value(spec, schema), shown or "required", spec.get("description", "")]


def _yaml(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(spec: Schema, schema: Schema) -> Schema:
    if "$ref" in spec:
        return {**schema["$defs"][spec["$ref"].rpartition("/")[2]], **spec}
    return spec


def _object(spec: Schema, schema: Schema) -> Schema | None:
    """Return the mapping that a key holds, perhaps besides a short form; None if it holds none."""
    spec = _resolved(spec, schema)
    if spec.get("type") == "object" and "properties" in spec:
        return spec
    options = (_object(option, schema) for option in spec.get("anyOf", ()))
    return next((option for option in options if option), None)


def _value(spec: Schema, schema: Schema) -> str:
    """Spell what a key may hold."""
    spec = _resolved(spec, schema)
    if "anyOf" in spec:
        return " or ".join(_value(option, schema) for option in spec["anyOf"])
    if "enum" in spec or "const" in spec:
        return ", ".join(f"`{value}`" for value in spec.get("enum", [spec.get("const")]))
    kind = spec.get("type")
    if kind == "array":
        return f"list of {_plural(_value(spec.get('items', {}), schema))}"
    if kind in {"integer", "number"}:
        return f"{kind}{_bounds(spec)}"
    known = {"object": "mapping", "boolean": "`true`, `false`", "null": "`null`", None: "anything"}
    return known.get(kind, str(kind))


def _bounds(spec: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [
        f"{sign} {spec[key]:,}"
        for key, sign in signs.items()
        if key in spec and spec[key] < ANY_NUMBER
    ]
    return f" {' and '.join(found)}" if found else ""


def _plural(value: str) -> str:
    return re.sub(r"^(number|integer|string|mapping)", r"\1s", value)


# --------------------------------------------------------------------------- report fields


def report_fields(schema: Schema) -> str:
    """Describe the fields of report.json: those of both commands, of each one, and their parts."""
    mapping = schema["discriminator"]["mapping"]
    find, train = (_resolved({"$ref": mapping[name]}, schema) for name in ("find", "train"))
    both = [name for name in find["properties"] if name in train["properties"]]
    either = {**find["properties"], "command": {"enum": ["find", "train"]}}
    parts = [
        f"### Every report\n\n{_fields({'properties': either}, both, schema)}",
        "### `lrtool find` also\n\n"
        + _fields(find, [n for n in find["properties"] if n not in both], schema),
        "### `lrtool train` also\n\n"
        + _fields(train, [n for n in train["properties"] if n not in both], schema),
    ]
    reports = {place.rpartition("/")[2] for place in mapping.values()}
    for name, part in schema["$defs"].items():
        if name in reports or "properties" not in part:
            continue
        text = part.get("description", "")
        parts.append(f"### {name}\n\n{text}\n\n{_fields(part, list(part['properties']), schema)}")
    return "\n\n".join(parts)


def _fields(part: Schema, fields: list[str], schema: Schema) -> str:
    """Describe some fields of a part."""
    rows = [
        [
            f"`{field}`",
            _type(part["properties"][field], schema),
            part["properties"][field].get("description", ""),
        ]
        for field in fields
    ]
    return table(["field", "type", "meaning"], rows)


def _type(spec: Schema, schema: Schema) -> str:
    """Spell a field's type, with a link where it is a part of the report."""
    if "$ref" in spec:
        name = spec["$ref"].rpartition("/")[2]
        return "anything" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "anyOf" in spec:
        return " or ".join(_type(option, schema) for option in spec["anyOf"])
    if spec.get("type") == "array":
        return f"list of {_plural(_type(spec['items'], schema))}"
    if spec.get("type") == "object":
        inner = spec.get("additionalProperties")
        return f"mapping to {_type(inner, schema)}" if isinstance(inner, dict) else "mapping"
    return _value(spec, schema)


# ----------------------------------------------------------------------------------- names


def names(kind: str) -> str:
    """List the built-in names of a kind, as `lrtool list` does."""
    rows = json.loads(printed("list", kind, "--json"))
    hidden = {"optimizers": "arguments"}.get(kind)  # torch's own, and others in each version
    head = [key for key in rows[0] if key != hidden]
    cells = [
        [
            f"`{row[key]}`"
            if key == "name" or (key == "arguments" and row[key])
            else _yaml(row[key])
            for key in head
        ]
        for row in rows
    ]
    return table([key.replace("_", " ") for key in head], cells)


def main() -> None:
    """Write the blocks of every page of the reference."""
    for path in sorted(FOLDER.glob("*.md")):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
