"""The wheel holds all it needs to find a rate elsewhere, the sdist all that its tests need."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    kinds = ["--wheel", "--sdist", "--no-isolation"]
    subprocess.run(
        [sys.executable, "-m", "build", *kinds, "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def wheel(built):
    [found] = built.glob("*.whl")
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
    shutil.unpack_archive(wheel, packages, "zip")
    here = Path(os.__file__).parent / "site-packages"
    outer = [p for p in sys.path if p.endswith("site-packages")] or [str(here)]
    (packages / "outer.pth").write_text("\n".join(outer))
    python = home / "bin" / "python"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", "import lrtool; print(lrtool.__file__)"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(packages) in done.stdout
    for arguments in (["init", "ci_smoke"], ["find", "ci_smoke.yaml", "--quiet"]):
        done = subprocess.run(
            [python, "-m", "lrtool", *arguments],
            cwd=tmp_path,
            env=alone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert 1e-3 < float(done.stdout) < 0.2


def test_the_sdist_has_every_file_that_its_tests_need(built):
    """What is collected here is collected there, as the files are the same."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("lrtool", "configs", "tests", "benchmarks", "research", "docs"):
        paths = (path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)
        assert {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()} <= inside
    texts = {f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "README")}
    assert {"LICENSE", "Makefile", "constraints.txt", "pyproject.toml", *texts} <= inside


def test_pytest_collects_every_test_file(pytestconfig):
    """It leaves out folders by names such as `build`."""
    left_out = pytestconfig.getini("norecursedirs")
    files = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 50
    for path in files:
        assert not [part for part in path.parts for name in left_out if fnmatch(part, name)], path
        assert re.search(r"^ *def test_", (ROOT / path).read_text("utf-8"), re.MULTILINE), path
