"""`lrtool.load`: a run's report, whatever became of it; the model when it is asked for."""

import subprocess
import sys

import pytest
from finds import make_report
from trainings import make_training

import lrtool
from lrtool.errors import LrtoolWarning, UserError
from lrtool.report import marker
from lrtool.report import report as reports

FOUND, TRAINED = make_report(), make_training()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Leave a run under `runs/` of the current directory."""
    monkeypatch.chdir(tmp_path)

    def run(name, report):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        marker.begin(directory, report.command)
        reports.write(report, directory)
        marker.end(directory)
        return directory

    return run


def refusal(path):
    with pytest.raises(UserError) as caught:
        lrtool.load(path)
    return str(caught.value)


def test_the_report_of_a_find(run):
    directory = run("digits/look", FOUND)
    for path in (directory, str(directory), "look", "digits/look", directory / "report.json"):
        loaded = lrtool.load(path)
        assert loaded.report == FOUND
        assert loaded.directory.samefile(directory)
    assert loaded.suggestion is loaded.report.suggestion  # short for it
    assert repr(lrtool.load("look")) == (
        "<Run digits/look: learning rate 0.0032 (0.0018 to 0.0056), confident>"
    )
    assert "Learning rate 0.0032" in loaded._repr_html_()
    assert loaded.plot()._repr_png_().startswith(b"\x89PNG")


def test_the_report_of_a_training(run):
    run("digits/base", TRAINED)
    loaded = lrtool.load("base")
    assert loaded.report == TRAINED
    assert loaded.epochs[-1].metrics == TRAINED.epochs[-1].metrics
    assert loaded.best.epoch == TRAINED.best.epoch
    assert {"report", "predict", "epochs", "best", "learning_rate"} <= {*dir(loaded)}
    assert repr(loaded) == "<Run digits/base: completed, accuracy 0.9847 in epoch 10>"
    assert "<strong>Completed, accuracy 0.9847 in epoch 10</strong>" in loaded._repr_html_()


def test_what_a_run_does_not_have(run):
    run("look", FOUND)
    loaded = lrtool.load("look")
    with pytest.raises(UserError, match=r"holds no run; there is no runs/look/config.yaml"):
        loaded.predict("a.csv")
    (loaded.directory / "config.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match="is the run of a find, which has no weights"):
        _ = loaded.model
    with pytest.raises(AttributeError, match="no attribute 'epoch'"):
        _ = loaded.epoch
    with pytest.raises(AttributeError, match="'Run' object has no attribute '_private'"):
        _ = loaded._private


def test_a_training_that_was_killed_has_no_report_yet(run):
    directory = run("base", TRAINED)
    (directory / "report.json").unlink()
    marker.begin(directory, "train")
    loaded = lrtool.load("base")
    assert repr(loaded) == "<Run base: without a report>"
    assert loaded._repr_html_() is None
    assert not hasattr(loaded, "epochs")
    with pytest.raises(UserError, match=r"base: has no report.json: the run is under way, or was"):
        _ = loaded.report


def test_what_is_no_run(run, tmp_path):
    directory = run("base", TRAINED)
    (tmp_path / "empty").mkdir()
    assert refusal("empty") == "empty: holds no run; there is no empty/report.json"
    assert refusal("bsae").startswith("bsae: there is no such run (did you mean 'base'?)")
    path = directory / "report.json"
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.warns(LrtoolWarning, match="damaged, or changed since the run ended"):
        assert refusal("base").startswith("runs/base/report.json: not a report of lrtool")
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.warns(LrtoolWarning, match="changed since"):
        assert "written by a newer lrtool (schema version 2" in refusal("base")


def test_a_home_directory_is_found(run, tmp_path, monkeypatch):
    run("base", TRAINED)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lrtool.load("~/runs/base").report == TRAINED


def test_a_report_needs_no_torch(run):
    run("base", FOUND)
    code = "import sys, lrtool; print(lrtool.load('base').report.status, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "completed False\n"
