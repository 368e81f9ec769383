"""The notebook of docs/ runs from top to bottom in IPython's kernel, as a reader runs it.

Without a kernel neither the bar below a cell nor what a cell ends with would be shown as it is.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""


def cells_of(path):
    """The outputs of each cell of code, by its name."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}


def printed(outputs):
    return "".join("".join(each["text"]) for each in outputs if each["name"] == "stdout")


def test_the_notebook_is_kept_without_outputs():
    cells = cells_of(NOTEBOOK)
    assert len(cells) > 3
    assert not any(cells.values())


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))),
    reason="needs nbclient and ipykernel, of the extra dev",
)
def test_the_notebook_runs_and_its_cells_show_what_they_should(tmp_path):
    jupyter = {
        f"JUPYTER_{name}_DIR": str(tmp_path / "jupyter") for name in ("CONFIG", "DATA", "RUNTIME")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for `!lrtool`
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK],
        cwd=tmp_path,
        env={**os.environ, **jupyter, "IPYTHONDIR": str(tmp_path / "ipython"), "PATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = cells_of(tmp_path / "executed.ipynb")

    bar, result = (output["data"] for output in cells["find"])
    assert "".join(bar["text/plain"]).partition(" in ")[0].endswith(" steps")
    assert '<progress aria-label="search" max="1" value="1.0000">' in "".join(bar["text/html"])
    assert "".join(result["text/plain"]).startswith("<FindResult: learning rate 0.0")
    assert "<strong>Learning rate 0.0" in "".join(result["text/html"])
    assert 'src="data:image/png;base64,' in "".join(result["text/html"])

    accuracy = printed(cells["train"]).removeprefix("validation accuracy ")
    assert float(accuracy) > 0.85

    assert (tmp_path / "runs" / "digits" / "small" / "report.json").is_file()
    assert printed(cells["run"]).startswith("runs/digits/small")
    listed = r"^small +train +\S+ .* completed "
    assert re.search(listed, printed(cells["run"]), re.MULTILINE)

    [run] = (output["data"] for output in cells["load"])
    assert "".join(run["text/plain"]).startswith("<Run digits/small: completed, ")
    assert "<strong>Completed, " in "".join(run["text/html"])
    assert printed(cells["report"]).startswith("BestEpoch(epoch=")
    assert "Linear(in_features=64, out_features=128" in printed(cells["report"])
