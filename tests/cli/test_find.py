"""`lrtool find`: streams, files, exit codes, interruption."""

import json
import re
import signal

import pytest

from lrtool.config import document
from lrtool.config.problems import validate
from lrtool.report import report as reports

QUICK = """
data: {source: iris, batch_size: 30}
model: {name: mlp, args: {hidden: [16]}}
optimizer: adam
find: {start: 1e-5, end: 10, steps: 100, repeats: 2}
train: {epochs: 20, schedule: cosine}
runtime: {device: cpu}
"""
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def plots(no_plots, monkeypatch, tmp_path):  # noqa: ARG001  (which it undoes)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)


def test_a_run_leaves_everything_and_says_what_to_do(lrtool, write, tmp_path):
    write("quick.yaml", QUICK)
    done = lrtool("find", "quick.yaml")
    assert done.returncode == 0, done.stderr
    [directory] = (tmp_path / "runs" / "quick").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-find", directory.name)
    names = {path.name for path in directory.iterdir()}
    made = {"report.json", "plot.png", "plot.svg", "config.yaml", "metrics.jsonl"}
    made |= {"encoding.json", "report.html"}
    assert names == made | {".lock", ".lrtool"}

    report = reports.read(directory / "report.json")
    assert report.status == "completed"
    assert report.command == "find"
    assert report.suggestion.for_schedule == "cosine"
    assert report.suggestion.for_steps == 20 * 4  # 120 training samples in batches of 30
    assert 1e-3 < report.suggestion.lr < 1
    assert report.suggestion.low <= report.suggestion.lr <= report.suggestion.high
    assert set(report.suggestions) == {"auto", "sweep", "valley", "slide", "steep", "minimum"}
    assert report.sweeps[0].seed == 0
    assert report.sweeps[1].seed > 2**20  # derived: runs with neighbouring seeds share no sweep
    assert report.sweeps[0].loss[0] != report.sweeps[1].loss[0]  # other weights
    assert report.data.samples == {"train": 120, "validation": 30}
    assert report.data.samples_per_update == 30
    assert report.model.parameters == 4 * 16 + 16 + 16 * 3 + 3
    assert report.environment.device == "cpu"
    assert report.timing.steps_per_s > 0
    assert report.timing.setup_s < report.timing.total_s

    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    swept = sum(len(sweep.lr) for sweep in report.sweeps)
    tried = [row for row in rows if "trial" in row]
    whole = [row for row in rows if row["kind"] == "full_trial"]
    assert rows[swept:] == tried + whole
    assert [row["loss"] for row in whole] == list(report.full_trial.loss)
    assert [row["loss"] for row in rows[:swept] if row["repeat"] == 1] == list(
        report.sweeps[1].loss
    )
    for number, trial in enumerate(report.trials.candidates):
        own = [row for row in tried if row["trial"] == number]
        assert [row["loss"] for row in own] == list(trial.loss)
        assert [row["step"] for row in own] == list(range(1, 76))
        assert {row["lr"] for row in own} == {trial.lr}
    assert list(tried[0]) == ["kind", "trial", "step", "lr", "loss"]
    assert rows[0] == {
        "kind": "sweep",
        "repeat": 0,
        "step": 0,
        "lr": 1e-5,
        "loss": report.sweeps[0].loss[0],
        "skipped": False,
        "denominator": 30.0,
    }

    rate = reports_rate(report)
    assert rate in done.stdout
    assert report.suggestion.verdict in done.stdout
    assert f"learning_rate: {rate}" in done.stdout
    assert str(directory.relative_to(tmp_path)) in done.stdout
    assert "step" in done.stderr


def reports_rate(report):
    from lrtool.show.words import rate

    return rate(report.suggestion.lr)


def test_the_resolved_configuration_gives_the_same_run_from_anywhere(here, write, tmp_path):
    write("own/quick.yaml", QUICK.replace("mlp, args: {hidden: [16]}", '"net:Net"'))
    write(
        "own/net.py",
        "from torch import nn\ndef Net(input_shape, num_outputs):\n"
        "    return nn.Linear(input_shape[0], num_outputs)\n",
    )
    first = here("find", "own/quick.yaml", "--output", "a", "--seed", 3, "--json")
    assert first.returncode == 0, first.stderr
    second = here("find", "a/config.yaml", "--output", "b", "--json")
    assert second.returncode == 0, second.stderr
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert one["sweeps"] == two["sweeps"]
    assert one["suggestion"] == two["suggestion"]
    assert one["config_hash"] == two["config_hash"]
    read, _ = validate(document.read(tmp_path / "a" / "config.yaml").data)
    assert read.seed == 3


def test_a_runs_copy_finds_its_files_from_anywhere(here, write, tmp_path, monkeypatch):
    rows = "".join(f"{i},{i % 2}\n" for i in range(60))
    write("lib/t.csv", f"a,y\n{rows}")  # in the search path
    write("held_out.csv", f"a,y\n{rows}")  # in the current directory
    write(
        "own/table.yaml",
        "search_path: [lib]\n"
        "data: {source: csv, args: {path: t.csv, target: y}, validation: held_out.csv,\n"
        "  batch_size: 20}\n"
        "model: linear\ntrain: {epochs: 1}\nfind: {steps: 30}\n",
    )
    done = here("train", "own/table.yaml", "--lr", 0.1, "--quiet", "--output", "run")
    assert done.returncode == 0, done.stderr
    read, _ = validate(document.read(tmp_path / "run" / "config.yaml").data)
    here_it_is = tmp_path.resolve()
    assert read.search_path == [str(here_it_is / part) for part in ("own", "lib", "")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert here("check", tmp_path / "run/config.yaml", "--quiet").returncode == 0
    done = here("evaluate", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 60


def test_json_puts_nothing_but_the_report_on_stdout(here, write, tmp_path):
    write("quick.yaml", QUICK)
    done = here("find", "quick.yaml", "--json", "--output", "out")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / "out/report.json").read_text())
    assert done.stderr == ""


def test_quiet_prints_the_rate_alone(here, write):
    write("quick.yaml", QUICK)
    done = here("find", "quick.yaml", "--quiet")
    assert done.returncode == 0
    assert 1e-3 < float(done.stdout) < 1
    assert done.stderr == ""


def test_shortcuts_are_keys_of_the_configuration(here, write):
    write("quick.yaml", QUICK)
    done = here(
        "find",
        "quick.yaml",
        "--loss",
        "multi_margin_loss",
        "--optimizer",
        "sgd",
        "--batch-size",
        "full",
        "--start",
        "1e-4",
        "--end",
        "100",
        "--steps",
        50,
        "--repeats",
        1,
        "--device",
        "cpu",
        "--seed",
        7,
        "--set",
        "train.max_steps=99",
        "--set",
        "train.schedule=linear",
        "--set",
        "train.epochs=~",
        "--output",
        "out",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    resolved = json.loads(done.stdout)["config"]
    assert resolved["loss"]["name"] == "multi_margin_loss"
    assert resolved["optimizer"]["name"] == "sgd"
    assert resolved["data"]["batch_size"] == "full"
    assert (resolved["find"]["start"], resolved["find"]["end"]) == (1e-4, 100)
    assert (resolved["find"]["steps"], resolved["find"]["repeats"]) == (50, 1)
    assert resolved["seed"] == 7
    assert json.loads(done.stdout)["suggestion"]["for_steps"] == 99


def test_another_optimizer_does_not_inherit_arguments(here, write):
    write(
        "quick.yaml", QUICK.replace("optimizer: adam", "optimizer: {name: adam, args: {eps: 1e-7}}")
    )
    done = here("find", "quick.yaml", "--optimizer", "sgd", "--json")
    assert done.returncode == 0, done.stderr
    assert (
        "lrtool: warning: --optimizer sgd: the arguments of adam (eps) are dropped" in done.stderr
    )
    assert json.loads(done.stdout)["config"]["optimizer"]["args"] == {}


@pytest.mark.usefixtures("plots")
def test_a_flat_curve_is_exit_3_with_a_report(here, write, tmp_path):
    write("quick.yaml", QUICK)
    done = here("find", "quick.yaml", "--end", "1e-4", "--start", "1e-9", "--output", "out")
    assert done.returncode == 3
    report = reports.read(tmp_path / "out" / "report.json")
    assert report.status == "no_suggestion"
    assert report.suggestion.lr is None
    assert report.suggestion.verdict == "none"
    assert report.suggestion.advice
    assert report.suggestion.advice[0] in " ".join(done.stdout.split())
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000


def test_a_directory_with_a_run_is_refused(here, write, tmp_path):
    write("quick.yaml", QUICK)
    (tmp_path / "out").mkdir()
    assert here("find", "quick.yaml", "--output", "out", "--quiet").returncode == 0
    write("out/mine.txt", "mine")
    before = (tmp_path / "out/report.json").read_bytes()
    again = here("find", "quick.yaml", "--output", "out")
    assert again.returncode == 2
    assert again.stdout == ""
    assert again.stderr == (
        "lrtool: error: out: holds a run already (report.json); choose another "
        "directory, or --overwrite\n"
    )
    assert (tmp_path / "out/report.json").read_bytes() == before
    over = here("find", "quick.yaml", "--output", "out", "--overwrite", "--quiet")
    assert over.returncode == 0
    assert (tmp_path / "out/report.json").read_bytes() != before  # other times
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_output_that_is_a_file_or_cannot_be_made(here, write):
    write("quick.yaml", QUICK)
    write("file", "")
    done = here("find", "quick.yaml", "--output", "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lrtool: error: file: is a file; a run needs a directory\n"
    done = here("find", "quick.yaml", "--output", "file/below")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("plots")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_sweep_and_the_report_follows(start, write, tmp_path, number, code):
    write("slow.yaml", QUICK.replace("steps: 100", "steps: 100000"))
    child = start("find", "slow.yaml", "--output", "out")
    metrics = tmp_path / "out" / "metrics.jsonl"
    child.wait_for(lambda: metrics.exists() and metrics.stat().st_size > 10_000, 120)
    child.send(number)
    done = child.wait(120)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    report = reports.read(tmp_path / "out" / "report.json")
    assert report.status == "interrupted"
    assert report.reason == f"stopped by {number.name}"
    assert report.sweeps[-1].stop_reason == "interrupted"
    assert len(report.sweeps[-1].lr) > 50
    assert (tmp_path / "out" / "plot.svg").exists()
    assert "out" in done.stdout


def test_out_of_memory_is_exit_5(here, write):
    write(
        "greedy.py",
        "import torch\nfrom torch import nn\nclass Net(nn.Linear):\n"
        "    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__(input_shape[0], num_outputs)\n"
        "    def forward(self, x):\n"
        "        torch.empty(10**15)\n"
        "        return super().forward(x)\n",
    )
    write("quick.yaml", QUICK.replace("{name: mlp, args: {hidden: [16]}}", '"greedy:Net"'))
    done = here("find", "quick.yaml")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == (
        "lrtool: error: out of memory with batches of 30 samples on cpu; try a smaller "
        "data.batch_size, or train.accumulate with smaller batches\n"
    )


def test_a_failure_in_the_sweep_leaves_a_report(here, write, tmp_path):
    write(
        "fragile.py",
        "from torch import nn\nclass Net(nn.Linear):\n"
        "    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__(input_shape[0], num_outputs)\n"
        "        self.calls = 0\n"
        "    def forward(self, x):\n"
        "        self.calls += 1\n"
        "        if self.calls == 40:\n"
        "            raise ValueError('the 40th batch')\n"
        "        return super().forward(x)\n",
    )
    write("quick.yaml", QUICK.replace("{name: mlp, args: {hidden: [16]}}", '"fragile:Net"'))
    done = here("find", "quick.yaml", "--output", "out", "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lrtool: error: fragile:Net failed: ValueError: the 40th batch "
        f"({tmp_path / 'fragile.py'}:9)\n"
    )
    report = reports.read(tmp_path / "out" / "report.json")
    assert report.status == "failed"
    assert "the 40th batch" in report.reason
    assert len(report.sweeps[0].loss) == 39


@pytest.mark.parametrize("command", ["find", "train"])
def test_a_bug_is_exit_1_and_says_so(here, write, monkeypatch, tmp_path, command):
    def broken(*_):
        raise RuntimeError("boom")

    monkeypatch.setattr("lrtool.engine.stopwatch.Stopwatch.timed", broken)
    write("quick.yaml", QUICK)
    done = here(command, "quick.yaml", "--quiet", "--output", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "RuntimeError: boom" in done.stderr
    assert "this is a bug in lrtool; please report it" in done.stderr
    report = reports.read(tmp_path / "out/report.json")
    assert (report.status, report.reason) == ("failed", "boom")


@pytest.mark.parametrize("command", ["find", "train"])
def test_a_bug_while_progress_is_shown_leaves_a_report_too(
    here, write, monkeypatch, tmp_path, command
):
    from lrtool.show.terminal.find import Progress
    from lrtool.show.terminal.train import TrainProgress

    def broken(*_):
        raise RuntimeError("a bar that cannot be drawn")

    shown = {"find": Progress, "train": TrainProgress}
    monkeypatch.setattr(shown[command], "update", broken)
    write("quick.yaml", QUICK)
    done = here(command, "quick.yaml", "--quiet", "--output", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "RuntimeError: a bar that cannot be drawn" in done.stderr
    assert "this is a bug in lrtool; please report it" in done.stderr
    report = reports.read(tmp_path / "out/report.json")
    assert (report.status, report.reason) == ("interrupted", "closed before the last step")


def test_no_color_and_no_escape_codes_without_a_terminal(here, write, monkeypatch):
    write("quick.yaml", QUICK)
    monkeypatch.setenv("NO_COLOR", "1")
    done = here("find", "quick.yaml")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_what_users_modules_print_stays_off_stdout(here, write):
    write(
        "chatty.py",
        "from torch import nn\nprint('imported')\ndef Net(input_shape, num_outputs):\n"
        "    print('built')\n    return nn.Linear(input_shape[0], num_outputs)\n",
    )
    write("quick.yaml", QUICK.replace("{name: mlp, args: {hidden: [16]}}", '"chatty:Net"'))
    done = here("find", "quick.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["parameters"] == 15
    assert "imported" in done.stderr
    assert "built" in done.stderr


@pytest.mark.parametrize(
    ("where", "stderr"),
    [
        ("import", "model.name: "),
        ("build", "model: u:Net cannot be built: it ended the program: sys.exit(0)"),
        ("forward", "u:Net failed: it ended the program: sys.exit(0)"),
    ],
)
def test_a_users_sys_exit_is_a_failure_in_words(here, write, where, stderr):
    write(
        "u.py",
        "import sys\nfrom torch import nn\n"
        + ("sys.exit(0)\n" if where == "import" else "")
        + "class Net(nn.Linear):\n    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__(input_shape[0], num_outputs)\n        self.calls = 0\n"
        + ("        sys.exit(0)\n" if where == "build" else "")
        + "    def forward(self, x):\n        self.calls += 1\n"
        + ("        if self.calls == 20: sys.exit(0)\n" if where == "forward" else "")
        + "        return super().forward(x)\n",
    )
    write("quick.yaml", QUICK.replace("{name: mlp, args: {hidden: [16]}}", '"u:Net"'))
    done = here("find", "quick.yaml", "--json", "--output", "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert stderr in done.stderr


def test_what_a_child_process_prints_stays_off_stdout(here, write):
    write(
        "low.py",
        "import os\nfrom torch import nn\ndef Net(input_shape, num_outputs):\n"
        "    os.write(1, b'low level')\n    return nn.Linear(input_shape[0], num_outputs)\n",
    )
    write("quick.yaml", QUICK.replace("{name: mlp, args: {hidden: [16]}}", '"low:Net"'))
    done = here("find", "quick.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    assert "low level" in done.stderr


def test_settings_reach_the_engine(here, write, tmp_path):
    """Probe, accumulation, clipping, groups and precision, each seen from inside a user's model."""
    write(
        "spy.py",
        "from torch import nn\nimport torch\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, input_shape, num_outputs):\n"
        "        super().__init__()\n"
        "        self.slow = nn.Linear(input_shape[0], 8)\n"
        "        self.fast = nn.Linear(8, num_outputs)\n"
        "    def forward(self, x):\n"
        "        with open('log.txt', 'a') as log:\n"
        "            print(len(x), self.training, torch.is_autocast_enabled('cpu'), file=log)\n"
        "        return self.fast(self.slow(x).relu())\n"
        "class Watch(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        norm = torch.stack([p.grad.norm() for g in self.param_groups\n"
        "                            for p in g['params']]).norm().item()\n"
        "        with open('steps.txt', 'a') as log:\n"
        "            print(*[g['lr'] for g in self.param_groups], norm, file=log)\n"
        "        return super().step(closure)\n",
    )
    write(
        "spy.yaml",
        "data: {source: iris, batch_size: 30, validation: 50}\n"
        'model: "spy:Net"\n'
        'optimizer: {name: "spy:Watch", groups: [{match: slow, lr_ratio: 0.1}]}\n'
        "find: {start: 1e-4, end: 1e-2, steps: 12, repeats: 1, loss: probe}\n"
        "train: {accumulate: 2, gradient_clip_norm: 0.001, epochs: 3}\n"
        "runtime: {device: cpu, precision: bf16}\n",
    )
    done = here("find", "spy.yaml", "--json")
    assert done.returncode in {0, 3}, done.stderr
    report = json.loads(done.stdout)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert all(line.endswith("True") for line in lines)  # autocast
    probes = [line for line in lines if line.startswith("50 False")]
    updates = [line for line in lines if line.startswith(("30 True", "10 True"))]
    assert len(probes) == 12
    # one look and one step with one batch, a step with the last batch of an epoch; updates
    # at two rates; the first update and looks along it; sweep; trials
    looks = round(3 * (report["first_update"]["steps"] - 1))
    assert looks > 4
    assert len(updates) == 3 + 4 + 2 * (1 + looks) + 2 * 12 + 2 * 6 * bool(report["trials"]) * 2
    steps = [line.split() for line in (tmp_path / "steps.txt").read_text().splitlines()]
    steps = [step for step in steps if len(step) == 3][4:]  # two groups; four are tries
    bases = [float(base) for base, _, _ in steps]
    assert bases[:13] == pytest.approx([1.0, *report["sweeps"][0]["lr"]])
    trials = [] if report["trials"] is None else report["trials"]["candidates"]
    assert bases[13:] == pytest.approx([trial["lr"] for trial in trials for _ in range(6)])
    assert all(float(slow) == pytest.approx(float(base) / 10) for base, slow, _ in steps)
    assert all(float(norm) <= 0.00101 for _, _, norm in steps)
    # 100 training samples are 4 batches an epoch: 12 batches in 3 epochs, 2 for each update
    assert report["suggestion"]["for_steps"] == 6


def test_a_failed_setup_leaves_the_earlier_run_and_no_empty_directory(here, write, tmp_path):
    write("quick.yaml", QUICK)
    assert here("find", "quick.yaml", "--output", "out", "--quiet").returncode == 0
    before = (tmp_path / "out/report.json").read_bytes()
    assert here("find", "quick.yaml", "-o", "out", "--overwrite", "--loss", "l1").returncode == 2
    assert (tmp_path / "out/report.json").read_bytes() == before
    assert here("find", "quick.yaml", "--loss", "l1").returncode == 2
    assert not (tmp_path / "runs").exists()


def test_arguments_beside_a_new_name_are_kept(here, write):
    write("bare.yaml", "data: {source: iris, batch_size: 30}\n")
    done = here(
        "find",
        "bare.yaml",
        "--optimizer",
        "sgd",
        "--set",
        "optimizer.args.momentum=0.9",
        "--json",
        "--repeats",
        1,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["optimizer"]["args"] == {"momentum": 0.9}
    assert done.stderr == ""


def test_quiet_says_why_there_is_no_rate(here, write):
    write("quick.yaml", QUICK)
    done = here("find", "quick.yaml", "--start", "1e-9", "--end", "1e-5", "--quiet")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("lrtool: no suggestion: ")


def test_a_tilde_is_the_home_directory(here, write, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "lib").mkdir(parents=True)
    rows = "".join(f"{i},{i % 2}\n" for i in range(60))
    (home / "lib/t.csv").write_text(f"a,y\n{rows}")
    monkeypatch.setenv("HOME", str(home))
    write("quick.yaml", QUICK)
    assert here("find", "quick.yaml", "--quiet", "--output=~/out").returncode == 0
    assert (home / "out" / "report.json").exists()
    assert not (tmp_path / "~").exists()
    write(
        "table.yaml",
        "search_path: ['~/lib']\n"
        "data: {source: csv, args: {path: t.csv, target: y}, batch_size: 16}\n",
    )
    assert here("check", "table.yaml", "--quiet").returncode == 0


def test_a_tilde_of_nobody_is_a_usage_error(here, write):
    write("quick.yaml", QUICK)
    done = here("find", "quick.yaml", "--output=~nobody-of-this-name/out")
    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert "~nobody-of-this-name/out: there is no user of that name" in words
