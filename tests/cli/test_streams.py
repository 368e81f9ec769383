"""What becomes of a run whose reader goes away, or that was started without streams."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrtool.cli.streams import deaths_of_workers_said_once, result

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


def nowhere_to_write(number):
    """Let a descriptor lead to a disk that is full."""
    full = os.open("/dev/full", os.O_WRONLY)
    return lambda: os.dup2(full, number)


def closed_terminal(number):
    """Let a descriptor lead to a terminal whose window was closed."""
    ours, theirs = pty.openpty()

    def close():
        os.dup2(theirs, number)
        os.close(ours)

    return close


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("broken", [nowhere_to_write, closed_terminal])
@pytest.mark.parametrize("command", [("train", "--epochs", "3"), ("find",)])
def test_progress_that_cannot_be_written_stops_nothing(broken, command, *, quick, start):
    name, *flags = command
    done = start(name, "quick.yaml", *flags, "-o", "run", "--json", prepare=broken(2)).wait()
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "completed")
    assert json.loads((quick / "run/report.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("broken", [nowhere_to_write, closed_terminal])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(broken, start):
    assert start("train", "missing.yaml", prepare=broken(2)).wait().returncode == 2


def test_an_error_that_nobody_reads_keeps_its_exit_code(quick):
    with without_reader() as pipe:
        assert started(quick, "check", "missing.yaml", stderr=pipe).returncode == 2


@pytest.mark.parametrize("arguments", [("schema",), ("list", "losses"), ("--help",)])
def test_a_result_that_cannot_be_written_is_an_error(arguments, start):
    done = start(*arguments, prepare=nowhere_to_write(1)).wait()
    assert done.returncode == 2
    assert done.stderr == "lrtool: error: stdout: No space left on device\n"


def test_python_says_no_more_at_the_end_about_a_full_disk(quick):
    with Path("/dev/full").open("w") as full:
        done = started(quick, "list", "losses", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"lrtool: error: stdout: No space left on device\n"


def test_a_name_is_printed_as_it_is_for_a_program_and_harmless_for_a_terminal(monkeypatch, capsys):
    result("runs/\x1b[31mred")
    assert capsys.readouterr().out == "runs/\x1b[31mred\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result("runs/\x1b[31mred")
    assert capsys.readouterr().out == "runs/\\x1b[31mred\n"


def test_names_that_are_no_text_are_refused(quick, here):
    done = here("check", "\udcff.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        "\\udcff.yaml: its name is not UTF-8, which torch and a report need; rename it\n"
    )
    done = here("find", "quick.yaml", "--output", "\udcff")
    assert (done.returncode, (quick / "runs").exists()) == (2, False)
    assert "is not UTF-8" in done.stderr


def test_a_worker_that_dies_at_a_loaders_end_is_no_traceback(monkeypatch):
    class Loader:
        def __init__(self, words):
            self.words = words

        def __del__(self):
            raise RuntimeError(self.words)

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: seen.append(str(error.exc_value)))
    with deaths_of_workers_said_once():
        Loader("DataLoader worker (pid 7) exited unexpectedly with exit code 3.")
        Loader("something else")
    Loader("afterwards")
    assert seen == ["something else", "afterwards"]
