"""`lrtool train`: where its rate comes from, what it prints, and what it leaves."""

import json
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from lrtool.engine.weights import read_weights
from lrtool.report import report as reports

IRIS = """
data: {source: iris, batch_size: 30}
model: {name: mlp, args: {hidden: [8]}}
optimizer: adam
metrics: [accuracy]
find: {start: 1e-4, end: 10, steps: 80, repeats: 1}
train: {epochs: 2}
runtime: {device: cpu}
"""
QUIET = ("train", "a.yaml", "--quiet", "--output")
DIFFERS = "its rate was found for another setting"
ROOT = "the square-root rule for adaptive optimizers (Malladi et al. 2022, arXiv:2205.10287)"
LINEAR = "the linear rule for SGD (Goyal et al. 2017, arXiv:1706.02677)"

OWN_LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def loader(batch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch, shuffle=True)
"""

ROOTED = """
import torch

class Rooted(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                parameter -= group["lr"] * gradient.sign() * gradient.abs().sqrt()
"""


@pytest.fixture(autouse=True)
def _file(write):
    write("a.yaml", IRIS)


def report_of(folder):
    return reports.read(folder / "report.json")


def linear_on_iris(**arguments):
    """The linear model that seed 0 makes, and its loss over all standardised samples."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    inputs, targets = load_iris(return_X_y=True)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(targets)
    return model, nn.functional.cross_entropy(model(x), y, **arguments)


def test_a_training_leaves_everything_and_prints_a_table(here, tmp_path):
    done = here("train", "a.yaml", "--lr", 0.05)
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "runs/a").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-train", run.name)
    names = {path.name for path in run.iterdir()}
    plots = {"plot.png", "plot.svg", "report.html"}
    made = {"report.json", "config.yaml", "encoding.json", "metrics.jsonl"}
    made |= {"model.safetensors", "checkpoints"}
    assert names == made | plots | {".lock", ".lrtool"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last", "previous", "best"}
    report = report_of(run)
    assert (report.status, report.checkpoint) == ("completed", "checkpoints/last")
    assert [(epoch.epoch, epoch.step) for epoch in report.epochs] == [(1, 4), (2, 8)]
    losses = [epoch.validation_loss for epoch in report.epochs]
    assert (report.best.metric, report.best.value) == ("validation_loss", min(losses))
    assert 0 <= report.epochs[-1].metrics["accuracy"] <= 1
    assert str(run.relative_to(tmp_path)) in done.stdout
    assert "epoch 1/2" in done.stderr
    assert "epoch 1/2" not in done.stdout

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == [*["step"] * 4, "epoch"] * 2
    keys = ["kind", "step", "epoch", "lr", "loss", "samples", "grad_norm", "skipped"]
    assert list(rows[0]) == [*keys, "denominator"]
    assert [row["samples"] for row in rows if row["kind"] == "step"] == [30] * 8
    first = [row["loss"] for row in rows[:4]]
    assert rows[4]["train_loss"] == pytest.approx(np.mean(first))  # four batches of one size
    assert report.epochs[0].train_loss == rows[4]["train_loss"]
    right = sum(row[index] for index, row in enumerate(report.predictions.matrix))
    best = next(epoch for epoch in report.epochs if epoch.epoch == report.best.epoch)
    assert right / report.predictions.samples == pytest.approx(best.metrics["accuracy"])


@pytest.mark.usefixtures("no_plots")
def test_json_is_the_report_alone_and_fits_its_schema(here, tmp_path):
    done = here("train", "a.yaml", "--json", "--lr", 0.05, "--output", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((tmp_path / "run/report.json").read_text())
    schema = json.loads(here("schema", "report").stdout)
    properties = schema["$defs"]["TrainReport"]["properties"]
    assert set(json.loads(done.stdout)) == set(properties)
    assert {"epochs", "best", "checkpoint", "learning_rate", "steps"} <= set(properties)


def test_a_training_without_a_rate_shows_its_search(here, tmp_path):
    low = ("--set", "find.start=1e-9", "--set", "find.end=1e-6")
    done = here("train", "a.yaml", "--output", "run", "--lr", "auto", *low)
    assert done.returncode == 3
    assert done.stdout.startswith("Learning rate  no trustworthy suggestion")
    for part in ("\nWhy  ", "\nNext  ", "loss over learning rate", "\nPage, report and plots: run"):
        assert part in done.stdout
    plots = [tmp_path / folder / "plot.svg" for folder in ("run", "run/find")]
    assert plots[0].read_bytes() == plots[1].read_bytes()


@pytest.mark.usefixtures("no_plots")
class TestRates:
    def test_a_flag_wins_over_the_configuration(self, here, tmp_path, write):
        write("a.yaml", IRIS + "learning_rate: 0.02\n")
        assert here(*QUIET, "one", "--epochs", 1).returncode == 0
        rate = report_of(tmp_path / "one").learning_rate
        assert (rate.value, rate.origin, rate.run) == (0.02, "config", None)
        assert here(*QUIET, "two", "--epochs", 1, "--lr", "5e-2").returncode == 0
        rate = report_of(tmp_path / "two").learning_rate
        assert (rate.value, rate.origin, rate.run) == (0.05, "flag", None)

    def test_without_one_the_optimizers_own_is_said_aloud(self, here, tmp_path):
        done = here(*QUIET, "one", "--epochs", 1)
        assert done.stderr == (
            "lrtool: learning rate 0.001, adam's own default; --lr auto finds one\n"
        )
        rate = report_of(tmp_path / "one").learning_rate
        assert (rate.value, rate.origin) == (0.001, "optimizer")
        done = here(*QUIET, "two", "--epochs", 1, "--set", "optimizer.args.lr=0.03")
        assert done.stderr == (
            "lrtool: learning rate 0.03, from optimizer.args.lr; --lr auto finds one\n"
        )
        assert report_of(tmp_path / "two").learning_rate.value == 0.03
        done = here(*QUIET, "three", "--epochs", 1, "--lr", 1, "--set", "optimizer.args.lr=0.03")
        assert done.stderr == (
            "lrtool: warning: optimizer.args.lr (0.03) is ignored: learning_rate is 1\n"
        )

    def test_auto_finds_it_first_and_keeps_the_report(self, here, tmp_path):
        done = here(*QUIET, "run", "--lr", "auto", "--epochs", 1)
        assert (done.returncode, done.stdout) == (0, "run\n")
        report, found = report_of(tmp_path / "run"), report_of(tmp_path / "run/find")
        assert found.command == "find"
        assert report.learning_rate.value == found.suggestion.lr
        assert (report.learning_rate.origin, report.learning_rate.run) == ("find", "run/find")
        assert report.suggestion == found.suggestion

    def test_auto_without_a_suggestion_trains_nothing(self, here, tmp_path):
        low = ("--set", "find.start=1e-9", "--set", "find.end=1e-6")
        done = here(*QUIET, "run", "--lr", "auto", *low)
        assert (done.returncode, done.stdout) == (3, "run\n")
        assert done.stderr.startswith("lrtool: no suggestion: ")
        report = report_of(tmp_path / "run")
        assert (report.status, report.learning_rate) == ("no_suggestion", None)
        assert (report.epochs, report.suggestion.verdict) == ((), "none")
        assert not (tmp_path / "run/metrics.jsonl").exists()

    def test_it_comes_from_a_run_and_what_differs_is_named(self, here, tmp_path):
        assert here("find", "a.yaml", "--quiet", "--output", "found").returncode == 0
        found = report_of(tmp_path / "found").suggestion.lr
        for source in ("found", "found/report.json"):
            done = here(*QUIET, "run", "--overwrite", "--epochs", 1, "--lr-from", source)
            assert (done.returncode, done.stderr) == (0, "")
            rate = report_of(tmp_path / "run").learning_rate
            assert (rate.value, rate.origin, rate.run) == (found, "run", source)
        others = (
            "optimizer.name=sgd",
            "data.batch_size=15",
            "runtime.precision=bf16",
            "model.args.hidden=[4]",
            "train.schedule={name: cosine}",
        )
        sets = [part for key in others for part in ("--set", key)]
        done = here(*QUIET, "third", "--epochs", 1, "--lr-from", "run", *sets)
        assert done.returncode == 0
        assert done.stderr == (
            "lrtool: warning: --lr-from run: its rate was found for another setting: "
            "optimizer.name was adam, is sgd; data.batch_size was 30, is 15; "
            "train.schedule.name was constant, is cosine; runtime.precision was fp32, is bf16; "
            "model.args.hidden was [8], is [4]; the batch of an update over all ranks was 30, is "
            f"15: {LINEAR} scales rates by 0.5\n"
        )
        assert report_of(tmp_path / "third").learning_rate.value == found

    @pytest.mark.parametrize(
        ("key", "before", "now"),
        [
            ("optimizer.layer_decay", "null", "0.5"),
            ("optimizer.decay_norm_and_bias", "true", "false"),
            ("train.gradient_clip_norm", "null", "0.1"),
        ],
    )
    def test_what_scales_updates_is_named(self, here, key, before, now):
        own = ("--epochs", 1, "--set", "optimizer.args.weight_decay=0.1")
        assert here(*QUIET, "run", "--lr", 0.05, *own).returncode == 0
        done = here(*QUIET, "other", "--lr-from", "run", "--set", f"{key}={now}", *own)
        assert done.returncode == 0
        assert done.stderr == (
            f"lrtool: warning: --lr-from run: {DIFFERS}: {key} was {before}, is {now}\n"
        )

    def test_an_average_of_coarse_weights_is_said(self, here, write):
        write(
            "coarse.py",
            "import torch\n"
            "class Net(torch.nn.Linear):\n"
            "    def __init__(self):\n"
            "        super().__init__(4, 3, dtype=torch.bfloat16)\n"
            "    def forward(self, x):\n"
            "        return super().forward(x.bfloat16()).float()\n",
        )
        own = ("--set", "model=coarse:Net", "--set", "train.ema_decay=0.999", "--lr", 0.01)
        done = here(*QUIET, "run", *own)
        assert done.returncode == 0, done.stderr
        assert (
            "train.ema_decay averages weights of bfloat16, which is too coarse for steps of "
            "1 − 0.999"
        ) in done.stderr

    def test_another_length_is_named_where_it_is_far(self, here):
        assert here("find", "a.yaml", "--quiet", "--steps", 40, "--output", "found").returncode == 0
        for steps in (40, 41):  # five times as many as two epochs of four
            arguments = ("--lr-from", "found", "--overwrite", "--set", f"train.max_steps={steps}")
            done = here(*QUIET, "run", *arguments, "--set", "train.epochs=null")
            assert done.returncode == 0
            assert done.stderr == (
                ""
                if steps == 40
                else f"lrtool: warning: --lr-from found: {DIFFERS}: the training had 8 steps, has "
                "41: best rates fall by about half for ten times as many "
                "(Bjorck et al. 2024, arXiv:2409.19913)\n"
            )

    def test_another_batch_of_an_update_has_a_rule(self, here):
        assert here(*QUIET, "adam", "--epochs", 1, "--lr", 0.05).returncode == 0
        sgd = ("--set", "optimizer={name: sgd, args: {momentum: 0.9}}")
        assert here(*QUIET, "sgd", "--epochs", 1, "--lr", 0.4, *sgd).returncode == 0
        # 30 samples, with Adam at 0.05 and SGD at 0.4: by hand, 0.05 × √(120 / 30) = 0.1, ….
        cases = {
            ("adam", "data.batch_size=120"): f"120: {ROOT} scales rates by 2, from 0.05 to 0.1",
            (
                "adam",
                "train.accumulate=2",
            ): f"60: {ROOT} scales rates by 1.41, from 0.05 to 0.0707",
            ("adam", "data.batch_size=full"): f"120: {ROOT} scales rates by 2, from 0.05 to 0.1",
            ("sgd", "data.batch_size=120"): f"120: {LINEAR} scales rates by 4, from 0.4 to 1.6",
            ("sgd", "data.batch_size=3"): f"3: {LINEAR} scales rates by 0.1, from 0.4 to 0.04",
        }
        for (run, key), words in cases.items():
            own = sgd if run == "sgd" else ()
            arguments = ("--epochs", 1, "--lr-from", run, "--overwrite", "--set", key, *own)
            done = here(*QUIET, "other", *arguments)
            assert done.returncode == 0
            name, _, value = key.partition("=")
            before = 1 if name == "train.accumulate" else 30
            assert done.stderr == (
                f"lrtool: warning: --lr-from {run}: {DIFFERS}: {name} was {before}, is {value}; "
                f"the batch of an update over all ranks was 30, is {words}\n"
            )

    def test_the_same_batch_of_an_update_in_other_parts_is_no_difference(self, here):
        assert here(*QUIET, "run", "--epochs", 1, "--lr", 0.05).returncode == 0
        for keys in (
            ("data.batch_size=15", "train.accumulate=2"),
            ("data.batch_size=120", "data.batch_size=10", "train.accumulate=3"),
        ):
            sets = [part for key in keys for part in ("--set", key)]
            done = here(*QUIET, "other", "--epochs", 1, "--overwrite", "--lr-from", "run", *sets)
            assert (done.returncode, done.stderr) == (0, "")
        full = ("--batch-size", "full", "--overwrite", "--epochs", 1)
        assert here(*QUIET, "run", *full, "--lr", 0.05).returncode == 0
        for size in ("full", "120"):  # what accumulates ends with the epoch
            sets = ("--batch-size", size, "--set", "train.accumulate=4")
            done = here(*QUIET, "other", "--epochs", 1, "--overwrite", "--lr-from", "run", *sets)
            assert (done.returncode, done.stderr) == (0, "")

    def test_the_batch_of_an_own_loader_and_of_other_data_counts(self, here, write):
        write("own.py", OWN_LOADER)
        data = "data={source: 'own:loader', args: {batch: 10}, validation: 0}"
        own = ("--set", data)
        assert here(*QUIET, "run", "--epochs", 1, "--lr", 0.05, *own).returncode == 0
        other = (*own, "--set", "data.args.batch=40")
        done = here(*QUIET, "other", "--epochs", 1, "--lr-from", "run", *other)
        assert done.stderr == (
            f"lrtool: warning: --lr-from run: {DIFFERS}: data.args.batch was 10, is 40; "
            "the batch of an update over all ranks was 10, is 40: "
            f"{ROOT} scales rates by 2, from 0.05 to 0.1\n"
        )
        full = ("--batch-size", "full", "--overwrite", "--epochs", 1)
        assert here(*QUIET, "run", *full, "--lr", 0.05).returncode == 0
        fewer = ("--set", "data.validation=0.8")
        done = here(*QUIET, "other", *full, "--lr-from", "run", *fewer)
        assert done.stderr == (
            f"lrtool: warning: --lr-from run: {DIFFERS}: the batch of an update over all ranks was "
            f"120, is 30: {ROOT} scales rates by 0.5, from 0.05 to 0.025\n"
        )

    def test_an_optimizer_without_a_rule_has_none(self, here, write):
        write("own.py", ROOTED)
        own = ("--optimizer", "own:Rooted", "--epochs", 1)
        assert here(*QUIET, "run", *own, "--lr", 0.05).returncode == 0
        done = here(*QUIET, "other", *own, "--lr-from", "run", "--batch-size", 60)
        assert done.stderr == (
            "lrtool: warning: --lr-from run: its rate was found for another setting: "
            "data.batch_size was 30, is 60; the batch of an update over all ranks was 30, is 60\n"
        )

    def test_flags_that_contradict_and_runs_without_a_rate(self, here, tmp_path):
        done = here("train", "a.yaml", "--lr", 1, "--lr-from", "run")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--lr and --lr-from contradict each other" in done.stderr
        assert "Usage" in done.stderr
        (tmp_path / "empty").mkdir()
        done = here("train", "a.yaml", "--lr-from", "empty")
        assert done.returncode == 2
        assert done.stderr == (
            "lrtool: error: --lr-from empty: holds no report.json; give a run directory\n"
        )
        low = ("--start", "1e-9", "--end", "1e-6", "--quiet", "--output", "low")
        assert here("find", "a.yaml", *low).returncode == 3
        done = here("train", "a.yaml", "--lr-from", "low")
        assert done.returncode == 2
        assert done.stderr.startswith("lrtool: error: --lr-from low: its report names no rate")
        for rate, words in {"0": "0", "fast": "the text 'fast'"}.items():
            done = here("train", "a.yaml", "--lr", rate)
            assert done.returncode == 2
            assert done.stderr == (f"--lr: must be a positive number, or auto, not {words}\n")
        for nothing in ("", "null"):
            done = here("train", "a.yaml", "--lr", nothing)
            assert done.returncode == 2
            assert "Invalid value: --lr must be a positive number, or auto" in done.stderr

    def test_parameter_groups_keep_their_ratios(self, here, tmp_path):
        # One SGD update by hand: new weight = old weight − rate × gradient, of each group its own.
        groups = "optimizer={name: sgd, groups: [{match: weight, lr_ratio: 0.1}]}"
        one = ("--set", groups, "--batch-size", "full", "--set", "model=linear", "--epochs", 1)
        plain = ("--set", "data.validation=0", "--lr", 0.5)
        assert here(*QUIET, "run", *one, *plain).returncode == 0
        model, loss = linear_on_iris()
        loss.backward()
        weights = read_weights(tmp_path / "run/model.safetensors")
        (weight,) = (w for name, w in weights.items() if name.endswith("weight"))
        (bias,) = (w for name, w in weights.items() if name.endswith("bias"))
        torch.testing.assert_close(weight, model.weight - 0.05 * model.weight.grad)
        torch.testing.assert_close(bias, model.bias - 0.5 * model.bias.grad)


@pytest.mark.usefixtures("no_plots")
def test_the_loss_comes_once_an_epoch_with_full_batches_else_after_each_batch(here, tmp_path):
    assert here(*QUIET, "full", "--batch-size", "full", "--lr", 0.1).returncode == 0
    assert report_of(tmp_path / "full").steps.step == (1, 2)
    assert here(*QUIET, "batches", "--batch-size", 50, "--lr", 0.1).returncode == 0
    report = report_of(tmp_path / "batches")
    assert report.steps.step == (1, 2, 3, 4, 5, 6)
    losses, samples = np.array(report.steps.loss[:3]), np.array([50, 50, 20])
    weighted = (losses * samples).sum() / samples.sum()  # not each batch alike: the last is short
    assert report.epochs[0].train_loss == pytest.approx(weighted)
    assert abs(weighted - losses.mean()) > 1e-6


@pytest.mark.usefixtures("no_plots")
def test_the_loss_takes_its_arguments(here, tmp_path):
    smooth = ("--set", "loss.args.label_smoothing=0.1", "--set", "data.validation=0")
    full = ("--batch-size", "full", "--set", "model=linear", "--lr", 0.5, "--epochs", 1)
    assert here(*QUIET, "run", *smooth, *full).returncode == 0
    (loss,) = report_of(tmp_path / "run").steps.loss
    assert loss == pytest.approx(linear_on_iris(label_smoothing=0.1)[1].item(), rel=1e-5)
    assert loss != pytest.approx(linear_on_iris()[1].item(), rel=1e-3)


@pytest.mark.usefixtures("no_plots")
def test_bf16_trains_and_the_tensorboard_gets_its_files(here, tmp_path):
    pytest.importorskip("tensorboard")
    bf16 = ("--set", "runtime.precision=bf16", "--lr", 0.05, "--epochs", 8)
    done = here(*QUIET, "run", *bf16, "--tensorboard")
    assert (done.returncode, done.stderr) == (0, "")
    losses = [epoch.train_loss for epoch in report_of(tmp_path / "run").epochs]
    assert losses[-1] < losses[0] / 2
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))
    assert here(*QUIET, "run", "--lr", 0.05, "--epochs", 1, "--overwrite").returncode == 0
    assert not (tmp_path / "run/tensorboard").exists()


@pytest.mark.usefixtures("no_plots")
def test_deterministic_trains_and_twice_the_same(start, tmp_path):
    more = ("--set", "runtime.deterministic=true", "--lr", 0.05, "--epochs", 1)
    for name in ("one", "two"):  # in processes of their own: torch keeps the switch
        assert start(*QUIET, name, *more).wait().returncode == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.usefixtures("no_plots")
def test_a_warning_is_said_once(here):
    schedule = ("--set", "train.schedule={name: plateau}", "--lr", 0.05)
    done = here(*QUIET, "run", *schedule)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines
    assert len(lines) == len(set(lines))
    assert all(line.startswith("lrtool: warning: ") for line in lines)
