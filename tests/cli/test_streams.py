"""What becomes of a run whose reader goes away, or that was started without streams."""

import json
import os
import signal
import subprocess
import sys

import pytest

QUICK = """
data: {source: digits}
model: {name: mlp, args: {hidden: [8]}}
find: {steps: 30, repeats: 1}
runtime: {device: cpu}
"""


@pytest.fixture
def quick(tmp_path):
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path


def started(folder, *arguments, **streams):
    command = [sys.executable, "-m", "lrtool", *arguments]
    return subprocess.run(command, cwd=folder, check=False, timeout=120, **streams)


def without_reader():
    """Return the end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("arguments", [("schema",), ("list", "optimizers"), ("--help",)])
def test_a_result_that_nobody_reads_ends_as_the_shell_expects_it(quick, arguments):
    with without_reader() as pipe:
        done = started(quick, *arguments, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")  # 141, says the shell


def test_a_run_whose_result_nobody_reads_is_whole(quick):
    with without_reader() as pipe:
        done = started(
            quick, "find", "quick.yaml", "-o", "run", stdout=pipe, stderr=subprocess.PIPE
        )
    assert done.returncode == -signal.SIGPIPE
    assert b"Traceback" not in done.stderr
    assert json.loads((quick / "run/report.json").read_text())["status"] == "completed"
    assert (quick / "run/plot.png").exists()


def test_a_run_goes_on_when_nobody_reads_its_progress(quick):
    with without_reader() as pipe:
        train = ("train", "quick.yaml", "--epochs", "2", "-o", "run", "--json")
        done = started(quick, *train, stdout=subprocess.PIPE, stderr=pipe)
    assert done.returncode == 0
    report = json.loads(done.stdout)  # the line on the default rate found no reader, and no more
    assert (report["status"], len(report["epochs"])) == ("completed", 2)


def test_closed_streams_are_never_written_into_a_run_s_files(quick):
    # Without care the log would be opened as descriptor 2, and hold the words for stderr.
    command = f"{sys.executable} -m lrtool train quick.yaml --epochs 1 -o run <&- >&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=quick, check=False, timeout=120)
    assert done.returncode == 0
    rows = [json.loads(line) for line in (quick / "run/metrics.jsonl").read_text().splitlines()]
    assert rows
    assert json.loads((quick / "run/report.json").read_text())["status"] == "completed"
