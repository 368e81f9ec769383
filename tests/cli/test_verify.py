"""`lrtool find --verify`: the race as a user sees it."""

import json
import math
import signal

import pytest
from small import CONFIG, NET

from lrtool.report import report as reports

IRIS = """
data: {source: iris, batch_size: 30}
model: {name: mlp, args: {hidden: [16]}}
optimizer: adam
find: {start: 1e-5, end: 10, steps: 60, repeats: 2}
train: {epochs: 20, schedule: cosine}
runtime: {device: cpu}
"""
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(autouse=True)
def _files(write):
    write("a.yaml", IRIS)
    write("net.py", NET)


def test_json_is_the_report_with_the_race(here, tmp_path):
    done = here("find", "a.yaml", "--verify", "--json", "--output", "out")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    race = report["race"]
    assert list(race) == [
        *("seed", "steps", "steps_spent", "measure", "examples", "untrained_loss"),
        *("candidates", "interrupted"),
    ]
    assert (race["steps"], race["measure"], race["examples"]) == (80, "validation", 30)
    assert race["seed"] not in {sweep["seed"] for sweep in report["sweeps"]}
    keys = ["lr", "origin", "loss", "half_loss", "final_loss", "standard_error", "outcome"]
    keys.append("descent_error")
    assert all(list(candidate) == keys for candidate in race["candidates"])
    assert [candidate["outcome"] for candidate in race["candidates"]].count("won") == 1
    said, named = report["suggestion"], report["suggestions"]
    assert named["race"] == {"lr": said["lr"], "reason": None}
    assert named["auto"]["lr"] != said["lr"]
    assert said["low"] <= said["lr"] <= said["high"]
    assert " by racing " in report["reason"]
    assert report["config"]["find"]["verify"] is True
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    raced = [row for row in rows if "candidate" in row]
    tried = [row for row in rows if "trial" in row]
    assert rows[-len(tried) - len(raced) :] == [*tried, *raced]
    assert [row["loss"] for row in tried] == [
        loss for trial in report["trials"]["candidates"] for loss in trial["loss"]
    ]
    assert raced[0] == {
        "kind": "race",
        "candidate": 0,
        "step": 1,
        "lr": race["candidates"][0]["lr"],
        "loss": race["candidates"][0]["loss"][0],
    }
    for number, candidate in enumerate(race["candidates"]):
        own = [row["loss"] for row in raced if row["candidate"] == number]
        assert own == candidate["loss"]
    properties = json.loads(here("schema", "report").stdout)["$defs"]
    assert set(race) == set(properties["Race"]["properties"])
    assert set(properties["FindReport"]["required"]) == set(report)


def test_the_same_race_again_and_the_same_sweeps_without_it(here):
    def found(name, *flags):
        return json.loads(here("find", "a.yaml", *flags, "--json", "--output", name).stdout)

    one, again, two = found("a", "--verify"), found("b", "--verify"), found("c")
    assert one["race"] == again["race"]
    assert one["suggestion"] == again["suggestion"]
    assert one["sweeps"] == again["sweeps"]

    assert one["sweeps"] == two["sweeps"]
    assert one["first_update"] == two["first_update"]
    assert one["suggestions"]["sweep"] == two["suggestions"]["sweep"]
    assert one["trials"] == two["trials"] is not None
    assert one["suggestions"]["auto"] == two["suggestions"]["auto"]
    assert (two["race"], "race" in two["suggestions"]) == (None, False)


def test_the_flag_wins_over_the_configuration(here, write):
    write("a.yaml", IRIS.replace("repeats: 2", "repeats: 2, verify: true"))
    report = json.loads(here("find", "a.yaml", "--no-verify", "--json", "-o", "a").stdout)
    assert (report["race"], report["config"]["find"]["verify"]) == (None, False)
    report = json.loads(here("find", "a.yaml", "--json", "-o", "b").stdout)
    assert report["race"] is not None


def test_auto_says_why_there_is_no_race(here):
    report = json.loads(here("find", "a.yaml", "--set", "find.verify=auto", "--json").stdout)
    assert report["race"] is None
    assert report["suggestions"]["race"] == {
        "lr": None,
        "reason": "a race of 4 × 80 steps and its evaluations would take more than 10% of the "
        "training's 80 steps; --verify runs it anyway",
    }


def test_a_table_and_plain_lines(here, tmp_path):
    done = here("find", "a.yaml", "--verify", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "race: rate " in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    head = next(i for i, line in enumerate(lines) if line[:2] == ["rate", "half-way"])
    report = reports.read(tmp_path / "out/report.json")
    count = len(report.race.candidates)
    outcomes = [line[-1] for line in lines[head + 1 : head + 1 + count]]
    expected = sorted(report.race.candidates, key=lambda candidate: candidate.lr)
    assert outcomes == [candidate.outcome for candidate in expected]


def test_rates_that_all_diverge_are_exit_3(here, write, tmp_path):
    write(
        "trap.py",
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Linear):\n"
        "    built = 0\n"
        "    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__(input_shape[0], num_outputs)\n"
        "        Net.built += 1\n"
        # the task's, the first batch's, the first update's, two sweeps': then trials and race
        "        self.wild = Net.built > 5\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) * (float('nan') if self.wild else 1)\n",
    )
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [16]}}", '"trap:Net"'))
    done = here("find", "a.yaml", "--verify", "--quiet", "--output", "out")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "lrtool: no suggestion: Every candidate of the race diverged.\n"
    report = reports.read(tmp_path / "out/report.json")
    assert (report.status, report.suggestion.verdict) == ("no_suggestion", "none")
    assert "train.schedule.warmup" in report.suggestion.advice[0]
    assert {candidate.outcome for candidate in report.race.candidates} == {"diverged"}
    assert math.isnan(report.race.untrained_loss)
    assert report.suggestions["auto"].lr is not None


def test_without_a_validation_part(here):
    done = here("find", "a.yaml", "--verify", "--json", "--set", "data.validation=0")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["race"]["measure"] == "training"
    assert "steps the training loss is lowest at" in report["reason"]


def test_nothing_to_race_around(here):
    low = ("--start", "1e-9", "--end", "1e-7")
    done = here("find", "a.yaml", "--verify", "--json", *low)
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert report["race"] is None
    assert report["suggestions"]["race"]["reason"] == "there is no suggestion to race around"


def test_a_model_with_all_kinds_of_random_numbers(here, write):
    write("a.yaml", CONFIG)
    done = here("find", "a.yaml", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    race = json.loads(done.stdout)["race"]
    assert race["steps"] == 9  # all of the training that there is
    assert race["examples"] == 20


def test_train_races_before_it_trains(here, tmp_path):
    verify = ("--set", "find.verify=true")
    done = here("train", "a.yaml", "--lr", "auto", "-q", "-o", "run", "--epochs", 3, *verify)
    assert done.returncode == 0, done.stderr
    found = reports.read(tmp_path / "run/find/report.json")
    trained = reports.read(tmp_path / "run/report.json")
    assert found.race is not None
    assert trained.learning_rate.value == found.suggestion.lr == found.suggestions["race"].lr


def test_a_schedule_that_does_not_fit_is_said_before_the_sweeps(here):
    done = here(
        *("find", "a.yaml", "--verify", "-o", "out"),
        *("--set", "train.schedule={name: linear, warmup: 80}"),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "a warm-up of 80 steps must be shorter than the training of 80" in done.stderr


# Built for the task, the first batch, the first update and two sweeps; then come the candidates.
SLOW = (
    "import time\nfrom torch import nn\n"
    "class Net(nn.Linear):\n"
    "    built = 0\n"
    "    def __init__(self, input_shape, num_outputs):\n"
    "        super().__init__(input_shape[0], num_outputs)\n"
    "        Net.built += 1\n"
    "        self.slow = Net.built > 7\n"  # the other five, and those of two trials
    "    def forward(self, x):\n"
    "        if self.slow and self.training:\n"
    "            time.sleep(0.01)\n"
    "        return super().forward(x)\n"
)


@pytest.mark.parametrize(("after", "compared"), [(5, False), (135, True)])
def test_an_interrupted_race_leaves_the_best_so_far(start, write, tmp_path, after, compared):
    write("slow.py", SLOW)
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [16]}}", '"slow:Net"'))
    child = start("find", "a.yaml", "--verify", "--output", "out")
    metrics = tmp_path / "out/metrics.jsonl"
    child.wait_for(lambda: metrics.exists() and metrics.read_text().count("candidate") > after, 120)
    child.send(signal.SIGINT)
    done = child.wait()
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    report = reports.read(tmp_path / "out/report.json")
    assert report.status == "interrupted"
    assert report.race.interrupted
    assert report.suggestion.lr is not None
    assert report.reason.startswith("stopped by SIGINT during the race. ")
    if compared:
        assert report.suggestion.lr == report.suggestions["race"].lr
        assert report.suggestion.verdict == "uncertain"
        assert report.suggestion.advice[0] == "Let the race run to its end."
        assert report.reason.count("after 40 steps the validation loss is lowest at") == 1
    else:
        assert report.suggestion.lr == report.suggestions["auto"].lr
        assert report.suggestions["race"].lr is None
        assert report.reason.endswith("Nothing was compared yet: the rate is that before the race.")


def test_a_failure_in_the_race_leaves_a_report(here, write, tmp_path):
    write("fragile.py", SLOW.replace("time.sleep(0.01)", "raise ValueError('in the race')"))
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [16]}}", '"fragile:Net"'))
    done = here("find", "a.yaml", "--verify", "--quiet", "--output", "out")
    assert (done.returncode, done.stdout) == (2, "")
    warned, failed = done.stderr.splitlines()
    report = reports.read(tmp_path / "out/report.json")
    rate = f"{report.suggestion.lr:.2g}"
    assert warned == (
        "lrtool: warning: the search failed in its short training runs; the rate found so far, "
        f"{rate}, is reported"
    )
    assert failed.startswith("lrtool: error: fragile:Net failed: ValueError: in the race")
    assert (report.status, report.race) == ("failed", None)
    assert report.suggestions["sweep"].lr == report.suggestion.lr
    assert report.trials.interrupted
    assert len(report.sweeps) == 2


@pytest.mark.parametrize("error", ["ValueError('late')", "torch.OutOfMemoryError('CUDA out of')"])
def test_a_race_that_fails_leaves_the_rate_and_its_losses(here, write, tmp_path, error):
    """First update, two sweeps, two trials and a full one are over by its 420th update."""
    write(
        "fragile.py",
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    calls = 0\n"
        "    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__(input_shape[0], num_outputs)\n"
        "    def forward(self, x):\n"
        "        Net.calls += torch.is_grad_enabled()\n"
        "        if Net.calls > 420:\n"
        f"            raise {error}\n"
        "        return super().forward(x)\n",
    )
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [16]}}", '"fragile:Net"'))
    done = here("find", "a.yaml", "--verify", "--quiet", "--output", "out")
    assert (done.returncode, done.stdout) == (5 if "Memory" in error else 2, "")
    assert "the search failed in its race (--no-verify leaves it out); the rate" in done.stderr
    report = reports.read(tmp_path / "out/report.json")
    assert (report.status, report.race.interrupted, report.trials.interrupted) == (
        *("failed", True),
        False,
    )
    assert report.suggestion.lr == report.suggestions["auto"].lr
    assert report.suggestions["race"].reason == "the race failed"
    assert any(candidate.loss for candidate in report.race.candidates)
