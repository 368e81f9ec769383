"""What a run loads: a person waits for each import, so it loads what it uses and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = Path(__file__).parent.parent / "configs" / "digits.yaml"
# Top-level packages besides Python's own, with what they bring along.
MAY_LOAD = {
    "lrtool",
    *("torch", "torchgen", "typing_extensions", "tqdm"),  # the last one where it is installed
    "numpy",
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
    *("typer", "annotated_doc", "shellingham", "rich"),
    *("filelock", "safetensors", "yaml"),
    # for the plots, as files and on the terminal
    *("matplotlib", "mpl_toolkits", "PIL", "cycler", "dateutil", "fontTools", "kiwisolver"),
    *("packaging", "pyparsing"),
    *("uniplot", "readchar"),
    *("jinja2", "markupsafe"),  # for the page
}
RUN = """
import runpy, sys
before = set(sys.modules)  # an environment may load packages when Python starts
try:
    runpy.run_module("lrtool", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
found = {name for name, module in sys.modules.items() if getattr(module, "__spec__", None)}
print(*sorted(found - before))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", DIGITS, "--set", "find.steps=30"],
        ["train", DIGITS, "--lr", "0.01", "--epochs", "1"],
        ["check", DIGITS],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_run_of_digits_loads_only_what_it_uses(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments, "--set", "runtime.device=cpu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded
    own = {name for name in loaded if "." not in name} - set(sys.stdlib_module_names)
    assert {name for name in own if not name.startswith("_")} <= MAY_LOAD
