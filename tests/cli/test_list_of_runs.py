"""`lrtool runs`: what is shown of runs that ended, run, were killed, or are damaged."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from filelock import FileLock
from finds import make_report
from trainings import make_training

from lrtool.report import marker, run_directory
from lrtool.report import report as reports

HEAVY = {"torch", "matplotlib", "pandas", "scipy"}
FOUND, TRAINED = make_report(), make_training()


@pytest.fixture
def run(tmp_path):
    """Leave a run that ended so many seconds ago, or one that has not."""

    def run(name, report, *, age=60, ended=True):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        marker.begin(directory, report.command)
        path = reports.write(report, directory)
        if ended:
            marker.end(directory)
        then = datetime.now(UTC).timestamp() - age
        os.utime(path, (then, then))
        return directory

    return run


def rows(done):
    """The cells of the table, by the name of the run."""
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["name", "command", "rate", "verdict", "best", "status", "age"]
    starts = [head.index(word) for word in head.split()]
    ends = [*starts[1:], None]
    table = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines]
    return {name: cells for name, *cells in table}


def test_runs_are_listed_the_newest_first(here, run):
    run("digits/old", TRAINED, age=50 * 3600)
    run("digits/look", FOUND, age=90)
    run("digits/new", TRAINED, age=5)
    (run("digits/other", FOUND) / marker.MARKER).unlink()  # no run any more
    table = rows(here("runs"))
    assert list(table) == ["new", "look", "old"]
    rate = f"{FOUND.suggestion.lr:.2g}"
    assert table["look"] == ["find", rate, "confident", "–", "completed", "1 min"]
    best = TRAINED.best
    assert table["old"] == [
        "train",
        "0.0032",
        "–",
        f"{best.metric} {best.value:.4g} in epoch {best.epoch}",
        "completed",
        "2 days",
    ]


def test_json_has_the_same_for_a_program(here, run, tmp_path):
    run("digits/base", TRAINED, age=90)
    none = make_report(suggestion=None, status="failed", reason="it rained")
    run("tabular/base", none, age=3)
    newest, older = json.loads(here("runs", "--json").stdout)
    assert newest["name"] == "tabular/base"
    assert newest["learning_rate"] is newest["verdict"] is newest["best"] is None
    assert (newest["status"], newest["reason"]) == ("failed", "it rained")
    assert older["path"] == "runs/digits/base"
    assert older["command"] == "train"
    assert older["learning_rate"] == TRAINED.learning_rate.value
    assert older["best"] == {
        "epoch": TRAINED.best.epoch,
        "step": TRAINED.best.step,
        "metric": TRAINED.best.metric,
        "value": TRAINED.best.value,
    }
    assert 90 <= older["age_s"] < 150
    ended = datetime.fromisoformat(older["time"])
    assert (datetime.now(UTC) - ended).total_seconds() == pytest.approx(older["age_s"], abs=20)
    # The same of a folder inside, and of one elsewhere, whose runs have no names.
    [inside] = json.loads(here("runs", "runs/digits", "--json").stdout)
    assert (inside["name"], inside["path"]) == ("digits/base", "runs/digits/base")
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert set(rows(here("runs", "elsewhere"))) == {
        "elsewhere/digits/base",
        "elsewhere/tabular/base",
    }


def test_runs_that_have_not_ended(here, run):
    directory = run("digits/killed", TRAINED, ended=False)
    (directory / reports.FILE_NAME).unlink()
    stopped = make_training(status="interrupted", reason="by Ctrl-C")
    run("digits/stopped", stopped, ended=False)
    busy = run("digits/busy", stopped, ended=False, age=500)
    new = run("digits/busy/.new", FOUND, ended=False)
    with FileLock(busy / run_directory.LOCK):
        table = rows(here("runs"))
        assert not (directory / run_directory.LOCK).exists()
    statuses = {name: cells[-2] for name, cells in table.items()}
    assert statuses == {
        "killed": "unfinished",
        "stopped": "interrupted",
        "busy": "running",
        ".new": "running",
    }
    assert table["busy"][-1].endswith(" s")  # since it was begun again
    assert rows(here("runs"))["busy"][-2] == "interrupted"
    assert new.exists()


def test_a_damaged_run_is_a_row_that_says_so(here, run):
    for name, content in {
        "cut": reports.to_json(FOUND)[:99],
        "deep": "[" * 100_000,
        "empty": "",
        "newer": reports.to_json(FOUND).replace('"schema_version": 1', '"schema_version": 99'),
        "text": "\x00\x1b[2Jboo",
    }.items():
        (run(name, FOUND) / reports.FILE_NAME).write_text(content)
    (run("gone", FOUND) / reports.FILE_NAME).unlink()
    changed = run("edited", FOUND) / reports.FILE_NAME
    changed.write_text(changed.read_text() + "\n")
    (run("mark", FOUND) / marker.MARKER).write_text("{")
    done = here("runs")
    table = rows(done)
    damaged = {name for name, cells in table.items() if cells[-2] == "damaged"}
    assert damaged == {"cut", "deep", "empty", "newer", "text", "gone"}
    assert all(table[name][1:4] == ["–"] * 3 for name in damaged)
    assert table["edited"][-2] == table["mark"][-2] == "completed"
    assert "runs/newer/report.json: written by a newer lrtool (schema version 99" in done.stderr
    assert "runs/cut/report.json: not a report of lrtool" in done.stderr
    assert "runs/gone: holds no report.json" in done.stderr
    assert "runs/edited/report.json: changed since the run ended" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    reasons = {row["name"]: row["reason"] for row in json.loads(here("runs", "--json").stdout)}
    assert reasons["gone"] == "runs/gone: holds no report.json"


def test_where_there_are_none(here, tmp_path):
    done = here("runs")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "lrtool: there are no runs under runs\n"
    assert here("runs", "--json").stdout == "[]\n"
    (tmp_path / "file").write_text("")
    for path in ("nowhere", "file"):
        done = here("runs", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"lrtool: error: {path}: there is no such directory\n"


def test_a_list_needs_neither_torch_nor_plots(run, tmp_path):
    run("digits/base", TRAINED)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lrtool", "runs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "base" in done.stdout
    assert not HEAVY & {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
