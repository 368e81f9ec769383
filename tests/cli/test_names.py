"""`--name`, and names wherever a command takes a run."""

import json
from pathlib import Path

import pytest

from lrtool.cli import flags
from lrtool.config.document import Document
from lrtool.report import report as reports

CONFIG = """
data: {source: iris, batch_size: 30}
model: {name: linear}
metrics: [accuracy]
find: {steps: 30}
train: {epochs: 2}
runtime: {device: cpu}
"""


pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(autouse=True)
def configuration(write):
    write("iris.yaml", CONFIG)


def refused(done):
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_a_configuration_in_the_root_directory_has_runs_too():
    assert flags.runs_of(Document("/c.yaml", {}, {}, {})) == Path("runs/c")


def test_a_runs_own_configuration_is_of_the_runs_that_it_is_one_of(here, tmp_path):
    done = here("find", "iris.yaml", "--quiet", "--name", "look")
    assert done.returncode == 0, done.stderr
    own = "runs/iris/look/config.yaml"
    done = here("train", own, "-q", "--lr-from", "look", "--name", "base", "--epochs", 1)
    assert (done.returncode, done.stdout) == (0, "runs/iris/base\n")
    done = here("find", "iris.yaml", "--quiet", "--output", "runs/lone")
    assert done.returncode == 0, done.stderr
    lone = "runs/lone/config.yaml"  # no run lies in another one
    done = here("train", lone, "-q", "--lr", 0.1, "--name", "y", "--epochs", 1)
    assert (done.returncode, done.stdout) == (0, "runs/config/y\n")
    (tmp_path / "config.yaml").write_text(CONFIG)  # of the user
    done = here("train", "config.yaml", "-q", "--lr", 0.1, "--name", "x", "--epochs", 1)
    assert (done.returncode, done.stdout) == (0, "runs/config/x\n")


def test_a_named_run_is_known_by_its_name_to_every_command(here, tmp_path):
    done = here("find", "iris.yaml", "--quiet", "--name", "look")
    assert done.returncode == 0, done.stderr
    found = reports.read(tmp_path / "runs/iris/look/report.json")
    done = here("train", "iris.yaml", "-q", "--lr-from", "look", "--name", "base", "--epochs", 1)
    assert (done.returncode, done.stdout) == (0, "runs/iris/base\n")
    trained = reports.read(tmp_path / "runs/iris/base/report.json")
    assert trained.learning_rate.value == found.suggestion.lr
    assert trained.learning_rate.run == "runs/iris/look"
    done = here("train", "iris.yaml", "-q", "--lr-from", "look", "--resume", "base")
    assert (done.returncode, done.stdout) == (0, "runs/iris/base\n")
    assert len(reports.read(tmp_path / "runs/iris/base/report.json").epochs) == 2
    done = here("evaluate", "iris/base")
    assert json.loads(done.stdout)["run"] == "runs/iris/base"
    (tmp_path / "new.csv").write_text("x,y\n1,2\n")
    assert "new.csv" in refused(here("predict", "base", "new.csv"))  # of the data, not the run
    done = here("compare", "look", "base", "--json")
    names = [row["name"] for row in json.loads(done.stdout)]
    assert names == ["runs/iris/look", "runs/iris/base"]


def test_auto_goes_on_with_a_named_training(here):
    first = here("train", "iris.yaml", "-q", "--lr", 0.1, "--name", "base", "--epochs", 1)
    assert first.returncode == 0
    here("find", "iris.yaml", "-q", "--name", "look")
    for where in ((), ("--name", "base")):
        done = here("train", "iris.yaml", "-q", "--lr", 0.1, "--resume", "auto", *where)
        assert (done.returncode, done.stdout) == (0, "runs/iris/base\n")
        assert "goes on with runs/iris/base, after" in done.stderr


def test_an_existing_name_needs_overwrite(here):
    assert here("find", "iris.yaml", "-q", "--name", "base").returncode == 0
    words = refused(here("find", "iris.yaml", "-q", "--name", "base"))
    assert "runs/iris/base: holds a run already (report.json)" in words
    assert "--overwrite" in words
    assert here("find", "iris.yaml", "-q", "--name", "base", "--overwrite").returncode == 0


@pytest.mark.parametrize("command", ["find", "train"])
def test_names_that_are_refused(here, tmp_path, command):
    words = refused(here(command, "iris.yaml", "--name", "base", "--output", "out"))
    assert "--output and --name contradict each other; give one of them" in words
    assert "Usage" in words
    for name in ("", "..", "a/b", "auto"):
        words = refused(here(command, "iris.yaml", "--name", name))
        assert "Invalid value for '--name'" in words
    assert not (tmp_path / "runs").exists()


def test_runs_that_are_not_there(here):
    here("find", "iris.yaml", "-q", "--name", "base")
    for arguments, words in {
        ("evaluate", "basee"): "basee: there is no such run (did you mean 'base'?); give a run",
        ("predict", "basee", "new.csv"): "basee: there is no such run (did you mean 'base'?)",
        ("compare", "base", "basee"): "basee: there is no such run (did you mean 'base'?)",
        ("train", "iris.yaml", "--lr-from", "basee"): "--lr-from basee: there is no such run (did",
        ("train", "iris.yaml", "--resume", "basee"): "--resume basee: there is no such run (did",
    }.items():
        assert refused(here(*arguments)).startswith(f"lrtool: error: {words}")
