"""`lrtool evaluate` and `lrtool compare`, on runs that `lrtool train` and `find` left."""

import json

import pytest
import torch
from small import CONFIG, NET

from lrtool.engine.weights import read_weights
from lrtool.report import report as reports

IRIS = """
data: {source: iris, batch_size: 30}
model: {name: linear}
optimizer: adam
learning_rate: 0.05
metrics: [accuracy]
find: {start: 1e-4, end: 10, steps: 80, repeats: 1}
train: {epochs: 4, ema_decay: 0.9}
runtime: {device: cpu}
"""


@pytest.fixture
def run(here, write, no_plots, tmp_path):  # noqa: ARG001  (a fixture that is used for its effect)
    write("a.yaml", IRIS)
    done = here("train", "a.yaml", "--quiet", "--output", "run", "--set", "train.schedule=cosine")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_it_gives_the_reports_best_validation_loss_again(here, run):
    done = here("evaluate", "run")
    assert (done.returncode, done.stderr) == (0, "")
    facts, report = json.loads(done.stdout), reports.read(run / "report.json")
    best = report.epochs[report.best.epoch - 1]
    assert facts == {
        "run": "run",
        "checkpoint": "best",
        "epoch": report.best.epoch,
        "step": report.best.step,
        "samples": 30,
        "validation_loss": report.best.value,
        "accuracy": best.metrics["accuracy"],
    }


def test_a_loss_that_is_infinite_is_said(here, write, no_plots):  # noqa: ARG001  (for its effect)
    write(
        "large.py",
        "import torch\n"
        "def data(scale=1.0):\n"
        "    x = torch.arange(40.0)[:, None]\n"
        "    return x * scale, x\n",
    )
    write("a.yaml", "data: {source: 'large:data', batch_size: 8}\nmodel: linear\nloss: mse\n"
          "learning_rate: 0.001\ntrain: {epochs: 1}\n")  # fmt: skip
    assert here("train", "a.yaml", "--quiet", "--output", "large").returncode == 0
    done = here("evaluate", "large", "--set", "data.args={scale: 1e30}")
    assert (done.returncode, json.loads(done.stdout)["validation_loss"]) == (0, None)
    assert done.stderr.endswith("lrtool: warning: the loss is inf\n")


def test_other_metrics_than_the_one_that_stopped_the_training(here, run):
    stopping = "train.early_stopping={metric: accuracy, patience: 2}"
    done = here("train", "a.yaml", "--quiet", "--output", run, "--overwrite", "--set", stopping)
    assert done.returncode == 0, done.stderr
    done = here("evaluate", "run", "--set", "metrics=[f1]")
    assert (done.returncode, done.stderr) == (0, "")
    assert "accuracy" not in json.loads(done.stdout)
    assert 0 < json.loads(done.stdout)["f1"] <= 1
    done = here("evaluate", "run", "--set", "metrics=[f2]")  # other mistakes are named
    assert done.returncode == 2
    assert "no metric is called 'f2'" in done.stderr


def test_a_best_checkpoint_that_was_never_written_is_none(here, run):
    (run / "checkpoints/best/model.safetensors").unlink()
    facts = json.loads(here("evaluate", "run").stdout)
    assert facts["checkpoint"] == "last"


def test_last_means_the_last_moving_average(here, run):
    facts = json.loads(here("evaluate", "run", "--checkpoint", "last").stdout)
    report = reports.read(run / "report.json")
    assert facts["validation_loss"] == report.epochs[-1].validation_loss
    assert (facts["checkpoint"], facts["epoch"]) == ("last", 4)
    last = run / "checkpoints/last"
    average = read_weights(last / "average.safetensors")
    raw = read_weights(last / "model.safetensors")
    assert any(not torch.equal(average[name], raw[name]) for name in average)
    final = read_weights(run / "model.safetensors")
    assert all(torch.equal(average[name], final[name]) for name in average)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # of the last weight
    path.write_bytes(content)


def test_a_flipped_bit_in_the_best_weights_is_noticed(here, run):
    best = run / "checkpoints/best/model.safetensors"
    flip(best)
    done = here("evaluate", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run/checkpoints/best/model.safetensors: damaged: its CRC-32 is" in done.stderr
    assert done.stderr.endswith("; --checkpoint last takes the last ones\n")
    assert here("evaluate", "run", "--checkpoint", "last").returncode == 0
    longer = ("train", "a.yaml", "-q", "--resume", "run", "--set", "train.schedule=cosine")
    done = here(*longer)
    assert done.returncode == 0
    assert "damaged: its CRC-32 is" in done.stderr
    assert "; they are written anew after the next better epoch" in done.stderr


def test_a_changed_configuration_or_report_is_said(here, run):
    for name in ("config.yaml", "report.json"):
        path = run / name
        path.write_text(path.read_text().replace("0.05", "0.06"))
    words = "damaged, or changed since the run ended\n"
    for command in (("evaluate",), ("compare",)):
        done = here(*command, "run")
        assert done.returncode == 0
        for name in ("config.yaml", "report.json"):
            assert f"lrtool: warning: run/{name}: {words}" in done.stderr


def test_a_damaged_search_is_left_out_of_a_training_that_goes_on(here, run):
    auto = ("train", "a.yaml", "-q", "--lr", "auto", "--epochs", 1)
    assert run.exists()
    assert here(*auto, "--output", "found").returncode == 0
    (run.parent / "found/find/report.json").write_text("{")
    done = here(*auto, "--resume", "found")
    assert done.returncode == 0
    assert "found/find/report.json: not a report of lrtool: " in done.stderr
    assert "; the search is left out\n" in done.stderr
    assert reports.read(run.parent / "found/report.json").learning_rate.run == "found/find"


def test_a_flipped_bit_in_the_last_weights_is_noticed(here, run):
    flip(run / "checkpoints/last/model.safetensors")
    done = here("evaluate", "run", "--checkpoint", "last")
    assert done.returncode == 0
    assert done.stderr == (
        "lrtool: warning: run/checkpoints/last is skipped: model.safetensors is corrupted (its "
        "CRC-32 differs)\n"
    )
    assert json.loads(done.stdout)["epoch"] == 3  # of the one before


@pytest.mark.usefixtures("run")
def test_metrics_may_be_others(here):
    sets = ("--set", "data.batch_size=11", "--set", "metrics=[accuracy, f1]")
    facts = json.loads(here("evaluate", "run", *sets).stdout)
    assert facts["samples"] == 30
    assert "f1" in facts


@pytest.mark.usefixtures("run")
def test_what_was_chosen_for_the_training_stays(here):
    done = here("evaluate", "run", "--set", "data.batch_size=7", "--set", "model=cnn")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lrtool: error: --set model: evaluate may change only data, metrics and runtime\n"
    )
    for split in ("0", "0.5", "60", "other.csv"):
        done = here("evaluate", "run", "--set", f"data.validation={split}")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "--set data.validation: which samples are for validation was chosen for the training;"
            " leave it out\n"
        )
    done = here("evaluate", "run", "--set", "data.source=wine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "--set data.source: the run was trained on iris, and can read nothing else\n"
    )


def test_what_cannot_be_evaluated(here, run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = here("evaluate", "empty")
    assert done.returncode == 2
    assert done.stderr == "lrtool: error: empty: holds no run; there is no empty/config.yaml\n"
    (run / "checkpoints/best/model.safetensors").unlink()
    done = here("evaluate", "run", "--checkpoint", "best")
    assert done.returncode == 2
    assert "run: has no checkpoint best; there is no run/checkpoints/best/model" in done.stderr


@pytest.mark.usefixtures("no_plots")
def test_a_users_error_while_evaluating_is_in_words(here, write):
    write("net.py", NET)
    write("a.yaml", CONFIG)
    assert here("train", "a.yaml", "-q", "-o", "run", "--epochs", 1).returncode == 0
    write("net.py", NET.replace("return (self", "raise LookupError('gone')\n        return (self"))
    import sys

    del sys.modules["net"]
    done = here("evaluate", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "LookupError: gone" in done.stderr
    assert "bug" not in done.stderr


def test_compare_prints_a_row_for_each_run_and_draws_them(here, run, tmp_path):
    assert here("find", "a.yaml", "--quiet", "--output", "found").returncode == 0
    done = here("compare", "run", "found", "--json", "--output", "both")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == ["run", "found"]
    assert {path.suffix for path in (tmp_path / "both").iterdir()} >= {".png", ".svg"}
    table = here("compare", str(run), "found", "--output", "both", "--overwrite")
    assert table.returncode == 0
    assert "found" in table.stdout
    assert "Plot: both/comparison.png" in table.stdout
    again = here("compare", "run", "found", "--output", "both")
    assert again.returncode == 2
    assert "both: holds a run already" in again.stderr
    (tmp_path / "empty").mkdir()
    missing = here("compare", "run", "nowhere")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.startswith("lrtool: error: nowhere: there is no such run; give a run")
    assert "empty: holds no report.json; give a run directory" in here("compare", "empty").stderr
