"""Imports run one way, and the way to `--help` stays light."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import lrtool

PACKAGE = Path(lrtool.__file__).parent
FLOORS = {
    "errors": 0,
    "batch": 1,
    "ranks": 1,
    "claims": 1,
    "config": 1,
    "report": 1,
    "curve": 2,
    "components": 3,
    "data": 3,
    "engine": 3,
    "show": 3,
    "experiment": 4,
    "search": 5,
    "training": 6,
    "api": 6,
    "cli": 7,
    "__main__": 8,
}


def owner(module):
    """The room or ground-floor file that a dotted module name belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path, *, lazy):
    """The lrtool modules that a file imports; TYPE_CHECKING blocks do not count."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        deferred = isinstance(node, ast.FunctionDef) and not lazy
        if guarded or deferred:
            skipped.update(id(child) for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lrtool"):
            if node.module == "lrtool":
                yield from (f"lrtool.{a.name}" for a in node.names if a.name != "__version__")
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("lrtool"))


FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    here = parts[0]
    for module in imports(path, lazy=True):
        there = owner(module)
        if there == here:
            continue
        assert there in FLOORS, f"{module} has no floor"
        assert FLOORS[there] < FLOORS[here], (
            f"{'.'.join(parts)} imports {module}: not a floor below"
        )


def test_every_file_has_a_floor():
    tops = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert tops == set(FLOORS)


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if '.' not in m))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["lrtool", "lrtool.config.schema", "lrtool.report.report", "lrtool.cli.app"],
)
def test_the_way_to_help_is_light(module):
    heavy = {"torch", "matplotlib", "jinja2", "scipy", "sklearn", "pandas"}
    assert not heavy & loaded_after(f"import {module}")


@pytest.mark.parametrize("name", ["stopping", "smooth", "anchors", "suggest", "race"])
def test_the_curve_needs_no_torch(name):
    assert not {"torch", "matplotlib"} & loaded_after(f"import lrtool.curve.{name}")


@pytest.mark.parametrize("name", ["page.page", "terminal.find", "terminal.train", "words"])
def test_page_and_terminal_need_neither_torch_nor_matplotlib(name):
    heavy = {"torch", "matplotlib", "scipy"}
    assert not heavy & loaded_after(f"import lrtool.show.{name}")


def test_there_is_one_backward():
    found = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "backward"
    ]
    assert found == ["engine/step.py"]


def test_no_class_has_the_name_of_another():
    names = [
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(names) > 50
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_architecture_names_every_room_and_file():
    page = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    stems = {path.stem for path in FILES if path.stem not in {"__init__", "__main__"}}
    named = set(re.findall(r"[`./]([a-z_]+)\b", page)) | set(re.findall(r"`([a-z_]+)`", page))
    assert stems - named == set()
