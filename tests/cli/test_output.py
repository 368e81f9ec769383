"""`--output`, `--overwrite` and `--resume auto`: nothing of the user's is lost."""

import json
import os
import signal

import pytest
from small import CONFIG, NET

from lrtool.engine import step
from lrtool.report import marker
from lrtool.report import report as reports

pytestmark = pytest.mark.usefixtures("no_plots")
TRAIN = ("train", "a.yaml", "--quiet", "--epochs", "1")


@pytest.fixture(autouse=True)
def _files(write):
    write("net.py", NET)
    write("a.yaml", CONFIG)


@pytest.fixture
def run(here, tmp_path):
    """A run of one epoch."""
    assert here(*TRAIN, "--output", "run").returncode == 0
    return tmp_path / "run"


def contents(directory):
    """Every file but the lock, and the marker, which is written anew when a run is opened."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths if path.name not in {".lock", ".lrtool"}}


def test_the_run_that_is_resumed_is_never_overwritten(here, run):
    before = contents(run)
    run.with_name("link").symlink_to(run)
    for output in ("run", run, "./run/", "run/../run", "link"):
        done = here(*TRAIN, "--resume", "run", "--output", output, "--overwrite")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "lrtool: error: --overwrite and --resume contradict each other; give one of them\n"
        )
        assert contents(run) == before
    for output in ("run", run, "link"):
        assert here(*TRAIN, "--resume", "run", "--output", output).returncode == 0
        assert contents(run).keys() == before.keys()
    done = here(*TRAIN, "--resume", "run", "--output", "run/again")
    assert done.returncode == 2
    assert "run/again: lies in run, which is read" in done.stderr


def test_the_directory_of_the_configuration_is_no_run(here, tmp_path, write):
    write("config.yaml", CONFIG)
    for command in ("find", "train"):
        for output in (".", tmp_path, "../" + tmp_path.name):
            for more in ((), ("--overwrite",)):
                done = here(command, "config.yaml", "--output", output, *more)
                assert (done.returncode, done.stdout) == (2, "")
                assert "holds a.yaml and others, but no run; choose a new or" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == CONFIG
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("a.yaml", "config.yaml", "net.py", "__pycache__")
    }


def test_a_runs_own_configuration_and_data_inside_of_it_are_not_replaced(here, run, write):
    given = (run / "config.yaml").read_bytes()
    done = here("train", "run/config.yaml", "-q", "--output", "run", "--overwrite")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run: holds run/config.yaml, which is read; --overwrite would" in done.stderr
    assert (run / "config.yaml").read_bytes() == given
    table = "data: {source: csv, args: {path: run/mine.csv, target: y}, batch_size: 2}\n"
    write("b.yaml", table + "model: linear\ntrain: {epochs: 1}\n")
    write("run/mine.csv", "x,y\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(20)))
    before = contents(run)
    for command in ("find", "train"):
        done = here(command, "b.yaml", "-q", "--output", "run", "--overwrite")
        assert done.returncode == 2
        assert "run/mine.csv, which is read; --overwrite would replace it" in done.stderr
    assert contents(run) == before


def test_the_runs_that_are_compared_and_the_rates_run_stay(here, run, tmp_path):
    before = contents(run)
    for output, where in (("run", "is"), (run, "is"), ("run/plots", "lies in")):
        done = here("compare", "run", "--output", output, "--overwrite")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{output}: {where} run, which is read" in done.stderr
        done = here(*TRAIN, "--lr-from", "run", "--output", output, "--overwrite")
        assert done.returncode == 2
        assert f"{output}: {where} run, which is read" in done.stderr
        done = here(*TRAIN, "--lr-from", "run/report.json", "--output", output, "--overwrite")
        assert done.returncode == 2
    assert contents(run) == before
    auto = ("--lr", "auto", "--output", "whole")
    assert here(*TRAIN, *auto).returncode == 0
    before = contents(tmp_path / "whole")
    for command in ((*TRAIN, "--lr-from", "whole/find"), ("compare", "run", "whole/find")):
        done = here(*command, "--output", "whole", "--overwrite")
        assert done.returncode == 2
        assert "whole: holds whole/find, which is read" in done.stderr
    assert contents(tmp_path / "whole") == before


def test_what_is_not_lrtools_survives_its_run(here, run, write):
    mine = [write(f"run/{name}", "mine") for name in ("notes.txt", "comparison.png", "find/mine")]
    mine.append(write("run/checkpoints/best/mine.pt", "mine"))
    assert here("find", "a.yaml", "-q", "--output", "run", "--overwrite").returncode == 0
    assert all(path.read_text() == "mine" for path in mine)
    assert not (run / "checkpoints/last").exists()
    assert reports.read(run / "report.json").command == "find"
    assert marker.command_of(run) == "find"


def test_a_comparison_is_replaced(here, run):
    assert run.exists()
    for _ in range(2):
        done = here("compare", "run", "--output", "both", "--overwrite")
        assert done.returncode == 0
        assert "Page: both/report.html\nPlot: both/comparison.png" in done.stdout
    assert sorted(path.name for path in run.with_name("both").iterdir()) == [
        *(".lock", ".lrtool", "comparison.json", "comparison.png", "comparison.svg", "report.html")
    ]


def test_a_training_that_fails_leaves_the_run_it_was_to_replace(here, run, write):
    before = contents(run)
    write("other.py", NET.replace("def model():", "def model():\n    raise OSError('gone')"))
    broken = NET.replace("nn.Sequential(", "Late(").replace("def data", LATE + "\ndef data")
    write("late.py", broken)
    for model in ("other:model", "late:model"):
        done = here(*TRAIN, "--output", "run", "--overwrite", "--set", f"model={model}")
        assert done.returncode == 2, done.stderr
        assert contents(run) == before
        assert reports.read(run / "report.json").status == "completed"


LATE = """
class Late(nn.Sequential):
    calls = 0
    def forward(self, x):
        Late.calls += 1
        if Late.calls > 8:  # in the first update, after those that are tried
            raise LookupError("late")
        return super().forward(x)
"""


def at_batch(number, send):
    """Let a training send itself a signal at a batch."""

    def prepare():
        real, calls = step.batch_loss, 0

        def counting(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), send)
            return real(*arguments, **named)

        step.batch_loss = counting

    return prepare


def test_a_killed_replacement_leaves_the_old_run_and_goes_on(start, here, run, tmp_path):
    before = contents(run)
    longer = ("train", "a.yaml", "--quiet", "--output")
    assert start(*longer, "whole").wait().returncode == 0
    killed = start(*longer, "run", "--overwrite", prepare=at_batch(14, signal.SIGKILL)).wait()
    assert killed.returncode == -signal.SIGKILL
    found = contents(run)
    assert {path: found[path] for path in before} == before
    assert (run / ".new/checkpoints/last").exists()
    assert json.loads(here("evaluate", "run").stdout)["epoch"] == 1  # of the old run
    done = start(*longer, "run", "--resume", "auto").wait()
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert done.stderr == "lrtool: goes on with run, after 4 steps and 1 epoch\n"
    for name in ("model.safetensors", "metrics.jsonl", "checkpoints/best/model.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (run / ".new").exists()
    assert marker.own_files(run) == marker.own_files(tmp_path / "whole")


def test_an_interrupted_replacement_leaves_the_old_run_and_says_so(start, here, run):
    before = contents(run)
    longer = ("train", "a.yaml", "--quiet", "--output", "run")
    stopped = start(*longer, "--overwrite", prepare=at_batch(14, signal.SIGTERM)).wait()
    assert (stopped.returncode, stopped.stdout) == (143, "run/.new\n")
    assert (
        "lrtool: warning: run keeps the run that was there; this one is in run/.new until it ends: "
        "--resume run goes on with it\n"
    ) in stopped.stderr
    found = contents(run)
    assert {path: found[path] for path in before} == before
    done = here(*longer, "--resume", "run")
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert reports.read(run / "report.json").status == "completed"
    assert [epoch.epoch for epoch in reports.read(run / "report.json").epochs] == [1, 2, 3]


def test_where_a_rate_was_found_is_said_as_the_place_it_has_in_the_end(here, run):
    done = here(*TRAIN, "--lr", "auto", "--output", "run", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert reports.read(run / "report.json").learning_rate.run == "run/find"
    assert (run / "find/report.json").exists()


def test_temporary_files_of_a_killed_write_are_gone_after_the_next_start(start, here, run):
    def while_writing(number):
        def prepare():
            real, calls = os.fsync, 0

            def counting(file):
                nonlocal calls
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(file)

            os.fsync = counting

        return prepare

    assert run.exists()
    left = 0
    for number in range(1, 12, 2):
        killed = start(
            *TRAIN, "--output", "killed", "--resume", "auto", prepare=while_writing(number)
        )
        assert killed.wait().returncode == -signal.SIGKILL
        left += len(list(run.with_name("killed").rglob(".*.tmp")))
    assert left
    assert here(*TRAIN, "--output", "killed", "--resume", "auto").returncode == 0
    assert list(run.with_name("killed").rglob("*.tmp")) == []
    assert list(run.with_name("killed").rglob(".new")) == []


def test_auto_takes_the_newest_training_that_has_not_ended(here, tmp_path):
    assert here(*TRAIN).returncode == 0
    runs = tmp_path / "runs/a"
    (first,) = runs.iterdir()
    stem = first.name
    for number in (2, 10, 9):
        copied = runs / f"{stem}-{number}"
        assert here(*TRAIN, "--output", copied).returncode == 0
    auto = (*TRAIN, "--resume", "auto")
    done = here(*auto)
    assert done.stdout == f"runs/a/{stem}-10\n"
    assert f"lrtool: goes on with runs/a/{stem}-10, after 3 steps and 1 epoch\n" in done.stderr
    marker.begin(runs / f"{stem}-2", "train")  # as if it had been killed
    assert here(*auto).stdout == f"runs/a/{stem}-2\n"
    assert here(*auto).stdout == f"runs/a/{stem}-10\n"  # the other one has ended now
    earlier = runs / "20200101T000000Z-train-11"
    first.rename(earlier)
    (earlier / ".lrtool").unlink()  # of an older version, by its report
    assert here(*auto).stdout == f"runs/a/{stem}-10\n"
    report = json.loads((earlier / "report.json").read_text())
    (earlier / "report.json").write_text(json.dumps({**report, "status": "interrupted"}))
    assert here(*auto).stdout == "runs/a/20200101T000000Z-train-11\n"


def test_auto_says_that_it_begins_anew(here, tmp_path):
    words = "lrtool: --resume auto: there is no run to go on with: the training begins anew\n"
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs/a/20200101T000000Z-train").mkdir(parents=True)
    for output in ((), ("--output", "empty"), ("--output", "new")):
        done = here(*TRAIN, "--resume", "auto", *output)
        assert done.returncode == 0
        assert words in done.stderr


def test_a_refused_resumption_leaves_a_run_ended(here, run):
    assert here(*TRAIN, "--resume", "run", "--batch-size", 4).returncode == 2
    assert not marker.is_under_way(run)


def test_a_backup_of_hard_links_keeps_its_rows(here, run, tmp_path):
    backup = tmp_path / "backup.jsonl"
    os.link(run / "metrics.jsonl", backup)
    before = backup.read_bytes()
    assert here("train", "a.yaml", "-q", "--epochs", 2, "--resume", "run").returncode == 0
    assert backup.read_bytes() == before
    assert (run / "metrics.jsonl").read_bytes().startswith(before)
