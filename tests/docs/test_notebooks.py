"""The notebooks of docs/ run from top to bottom in IPython's kernel, as a reader runs them.

Without a kernel neither the bar below a cell nor what a cell ends with would be shown as it is.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_the_notebook_runs_and_its_cells_show_what_they_should(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    folder = tmp_path / "folder"
    folder.mkdir()
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    bar, result = outputs["find"]
    assert bar.output_type == "display_data"
    assert bar.data["text/plain"].partition(" in ")[0].endswith(" steps")
    assert '<progress aria-label="search" max="1" value="1.0000">' in bar.data["text/html"]
    assert result.data["text/plain"].startswith("<FindResult: learning rate 0.0")
    assert "<strong>Learning rate 0.0" in result.data["text/html"]
    assert 'src="data:image/png;base64,' in result.data["text/html"]

    [said] = outputs["train"]
    assert float(said.text.removeprefix("validation accuracy ")) > 0.85

    assert (folder / "runs" / "digits" / "small" / "report.json").is_file()
    printed = "".join(output.text for output in outputs["run"])
    assert printed.startswith("runs/digits/small")
    assert re.search(r"^small +train +\S+ .* completed ", printed, re.MULTILINE)

    [run] = outputs["load"]
    assert run.data["text/plain"].startswith("<Run digits/small: completed, ")
    assert "<strong>Completed, " in run.data["text/html"]
    printed = "".join(output.text for output in outputs["report"])
    assert printed.startswith("BestEpoch(epoch=")
    assert "Linear(in_features=64, out_features=128" in printed
