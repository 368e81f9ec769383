"""What a run loads: a person waits for each import, so it loads what it uses and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

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
COMMANDS = (  # in one process: what any of them loads besides shows
    ("check",),
    ("find", "--set", "find.steps=30"),
    ("train", "--lr", "0.01", "--epochs", "1"),
)
RUN = """
import json, runpy, sys
before = set(sys.modules)  # an environment may load packages when Python starts
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["lrtool", *arguments]
    try:
        runpy.run_module("lrtool", run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
    found = {name for name, module in sys.modules.items() if getattr(module, "__spec__", None)}
    print("\\nLOADED", *sorted(found - before))
"""


def test_a_run_of_digits_loads_only_what_it_uses(tmp_path):
    cpu = ("--set", "runtime.device=cpu")
    runs = [[name, str(DIGITS), *more, *cpu] for name, *more in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(runs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    for (command, *_), loaded in zip(COMMANDS, seen, strict=True):
        assert "torch" in loaded, command
        assert "torch._dynamo" not in loaded, command
        own = {name for name in loaded if "." not in name} - set(sys.stdlib_module_names)
        assert {name for name in own if not name.startswith("_")} <= MAY_LOAD, command
