"""The stages one after another, on one tiny cell: from nothing to the report."""

import json
import sys
from functools import partial

import numpy as np
import pytest

from benchmarks.regret import __main__ as regret
from benchmarks.regret import cells, finders, grid, jobs, outcomes, statistics

CELL = cells.Cell("friedman1", "adamw", "constant", 20)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setitem(cells.SETS, "quick", [CELL])
    monkeypatch.setattr(statistics, "REPLICATES", 20)

    def do(*words):
        monkeypatch.setattr(sys, "argv", ["regret", *words, "--cache", str(tmp_path)])
        regret.main()

    return do


def test_from_nothing_to_the_report(stage, tmp_path, capsys):
    stage("grids", "quick", "--processes", "1")
    measured = grid.file_of(CELL, tmp_path).read_bytes()
    stage("rates", "controls", "lrtool", "quick", "--processes", "1")
    with pytest.raises(SystemExit, match=r"friedman1-adamw-constant-20: .* is missing"):
        stage("report", "quick")
    stage("exact", "quick", "--processes", "1")
    assert outcomes.missing(CELL, tmp_path) == []
    capsys.readouterr()
    stage("report", "quick")
    printed = capsys.readouterr().out

    folder = tmp_path / "quick"
    assert {path.name for path in folder.iterdir()} == {
        "report.json",
        "report.html",
        "profile.png",
        "cost.png",
        "distance.png",
    }
    report = json.loads((folder / "report.json").read_text())
    methods = report["groups"]["all"]["methods"]
    assert len(report["outcomes"]) == len(methods) * len(finders.SEEDS)
    for method, values in methods.items():
        own = [each["regret"] for each in report["outcomes"] if each["method"] == method]
        assert values["mean"] == pytest.approx(np.mean(own), abs=1e-12)
        assert f"| {method} |" in printed or f"| **{method}** |" in printed
    assert methods[finders.DEFAULT]["steps"] == 0
    evaluation = 1000 / 64 / 3
    assert methods[finders.EQUAL_COST]["steps"] == pytest.approx(4 * (100 + evaluation), abs=0.01)
    assert "`make regret-quick`: 1 quick cells (constant: 1)" in printed

    stage("grids", "quick", "--processes", "1")
    assert "grids: 0 to do" in capsys.readouterr().err  # what is there is not measured again
    assert grid.file_of(CELL, tmp_path).read_bytes() == measured


def test_a_job_that_fails_is_named_and_the_others_are_done(tmp_path, capsys):
    path = tmp_path / "made" / "one.json"
    todo = [
        jobs.Job("broken", 2, partial(divmod, 1, 0)),
        jobs.Job("sound", 1, partial(jobs.to_file, path, list, (4,))),
    ]
    with pytest.raises(SystemExit, match="failed: broken; run the same command again"):
        jobs.run("grids", todo, 1)
    assert json.loads(path.read_text()) == [4]
    said = capsys.readouterr().err
    assert "grids: 2 to do" in said
    assert "ZeroDivisionError" in said
