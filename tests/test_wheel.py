"""The wheel holds all it needs: installed elsewhere, it finds a rate."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    [found] = folder.glob("*.whl")
    return found


def test_the_examples_are_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "configs").iterdir():
        if path.is_file():
            assert f"lrtool/configs/{path.name}" in names
    assert {"lrtool/py.typed", "lrtool/curve/constants.json"} < set(names)
    assert {f"lrtool/data/sources/digits.{end}" for end in ("npz", "txt")} < set(names)
    assert not [name for name in names if name.startswith("tests")]


def test_it_runs_from_an_empty_environment(wheel, tmp_path):
    # Dependencies are those of this environment, through a .pth file; lrtool is the wheel's.
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    [packages] = home.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    here = Path(os.__file__).parent / "site-packages"
    outer = [p for p in sys.path if p.endswith("site-packages")] or [str(here)]
    (packages / "outer.pth").write_text("\n".join(outer))
    python = home / "bin" / "python"
    done = subprocess.run(
        [python, "-c", "import lrtool; print(lrtool.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(packages) in done.stdout
    for arguments in (["init", "ci_smoke"], ["find", "ci_smoke.yaml", "--quiet"]):
        done = subprocess.run(
            [python, "-m", "lrtool", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert 1e-3 < float(done.stdout) < 0.2
