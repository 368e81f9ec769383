"""`lrtool train` when something goes wrong: what it says, and what it leaves."""

import json
import resource
import time
from itertools import count

import pytest
import torch
from small import CONFIG, NET

from lrtool.engine import step as steps
from lrtool.engine.checkpoint import newest_checkpoint
from lrtool.engine.weights import read_weights
from lrtool.report import report as reports

pytestmark = pytest.mark.usefixtures("no_plots")
TRAIN = ("train", "a.yaml", "--quiet", "--output", "run")
IRIS = """
data: {source: iris, batch_size: 30}
model: {name: mlp, args: {hidden: [8]}}
optimizer: sgd
learning_rate: 0.1
train: {epochs: 3}
runtime: {device: cpu}
"""


def finite_checkpoint(run):
    """The state of the newest checkpoint, and every weight in it and in the best one."""
    folder, state = newest_checkpoint(run / "checkpoints")
    for path in (folder / "model.safetensors", run / "checkpoints/best/model.safetensors"):
        if path.exists():
            weights = read_weights(path)
            assert all(torch.isfinite(w).all() for w in weights.values() if w.is_floating_point())
    return state


@pytest.mark.parametrize("clip", [False, True])
def test_too_high_a_rate_names_step_layer_rate_and_what_to_try(here, write, tmp_path, clip):
    write("a.yaml", IRIS.replace("loss", "loss"))
    clipping = ("--set", "train.gradient_clip_norm=1") if clip else ()
    rate = "1e38" if clip else "1e6"
    more = ("--set", "train.schedule={name: linear, warmup: 5}", "--lr", rate)
    done = here(*TRAIN, *more, *clipping, "--set", "train.checkpoint_every=1", "--epochs", 20)
    assert (done.returncode, done.stdout) == (4, "run\n")
    report = reports.read(tmp_path / "run/report.json")
    assert report.status == "diverged"
    assert done.stderr.endswith(f"lrtool: diverged: {report.reason}\n")
    step = report.steps.step[-1]
    assert report.reason.startswith(f"step {step} of epoch {report.steps.epoch[-1]}, rate ")
    assert "the first gradient that is not finite is that of " in report.reason
    assert f"; try a lower rate (--lr {'1e37' if clip else '100000'})" in report.reason
    assert ", or --lr auto, which finds one" in report.reason
    assert ("train.gradient_clip_norm" in report.reason) is not clip
    assert "train.schedule.warmup" not in report.reason
    state = finite_checkpoint(tmp_path / "run")
    assert state["position"]["step"] < step
    assert report.reason.endswith(
        f"the checkpoint of step {state['position']['step']} has finite weights"
    )
    assert report.checkpoint == "checkpoints/last"
    assert not (tmp_path / "run/model.safetensors").exists()


def test_divergence_in_the_very_last_update_leaves_no_bad_weights(here, write, tmp_path):
    write(
        "steep.py",
        "from torch.nn import functional as F\ndef loss(outputs, targets):\n"
        "    return 1e4 * F.cross_entropy(outputs, targets)\n",
    )
    write("a.yaml", IRIS.replace("optimizer", "loss: steep:loss\noptimizer"))
    length = ("--set", "train.epochs=null", "--set", "train.max_steps=1")
    done = here(*TRAIN, *length, "--lr", "1e38")
    assert done.returncode == 4, done.stderr
    report = reports.read(tmp_path / "run/report.json")
    assert all(loss is not None for loss in report.steps.loss)  # each is of before its update
    assert "step 1 of epoch 1, rate 1e38: " in report.reason
    assert report.reason.endswith("; no checkpoint had been saved yet")
    assert (report.checkpoint, report.best, report.epochs) == (None, None, ())


def test_nan_in_the_data_is_named_as_such(here, write, tmp_path):
    write(
        "net.py",
        NET + "        # \nclass Broken(Noisy):\n    def __getitem__(self, index):\n"
        "        return self.x[index] * (float('nan') if index == 33 else 1), self.y[index]\n"
        "def broken():\n    return Broken(60, 0), Noisy(20, 1)\n",
    )
    write("a.yaml", CONFIG.replace("net:data", "net:broken"))
    done = here(*TRAIN, "--set", "train.checkpoint_every=1")
    assert done.returncode == 4
    report = reports.read(tmp_path / "run/report.json")
    words = "the data of this step hold NaN or infinity; look at what data.source net:broken yields"
    assert f": {words}; " in report.reason
    assert "a lower rate" not in report.reason


def test_what_the_plateau_schedule_saw_is_seen_when_the_cause_is_looked_for(here, write, tmp_path):
    write(
        "net.py",
        NET + "class Counting(nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(4, 2)\n"
        "        self.register_buffer('calls', torch.zeros(()))\n"
        "    def forward(self, x):\n"
        "        self.calls += self.training\n"
        "        return super().forward(x) / (self.calls < 7)\n",  # the seventh update
    )
    write("a.yaml", CONFIG.replace("net:model", "net:Counting"))
    never_better = "{patience: 0, factor: 0.5, threshold: 1e9, threshold_mode: abs}"
    sets = (
        f"train.schedule={{name: plateau, args: {never_better}}}",
        "train.accumulate=1",
        "train.checkpoint_every=4",
        "data.batch_size=20",  # three updates an epoch
    )
    done = here(*TRAIN, *[part for each in sets for part in ("--set", each)])
    assert done.returncode == 4, done.stderr
    report = reports.read(tmp_path / "run/report.json")
    assert report.steps.lr == (0.01,) * 6 + (0.005,)
    assert report.reason.startswith("step 7 of epoch 3, rate 0.005: the loss is nan; the first out")
    assert report.reason.endswith("; the checkpoint of step 4 has finite weights")


def test_a_search_inside_that_fails_leaves_a_report_of_the_training_too(here, write, tmp_path):
    write(
        "net.py",
        NET + "class Tired(nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        Tired.calls += 1\n"
        "        if Tired.calls > 20:\n"
        "            raise RuntimeError('enough')\n"
        "        return super().forward(x)\n"
        "def tired():\n"
        "    return Tired(4, 3)\n",
    )
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [8]}}", "net:tired"))
    done = here(*TRAIN, "--lr", "auto")
    assert done.returncode == 2
    why = "net:tired failed: RuntimeError: enough"
    assert done.stderr.count(why) == 1
    for run, command in (("run/find", "find"), ("run", "train")):
        report = reports.read(tmp_path / run / "report.json")
        assert (report.command, report.status) == (command, "failed")
        assert report.reason.startswith(why)
        assert (tmp_path / run / "report.html").is_file()
    assert "under way" not in here("report", "run").stderr


def test_only_a_buffer_that_was_finite_at_first_must_stay_so(here, write, tmp_path):
    write(
        "net.py",
        NET + "class Masked(nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(4, 2)\n"
        "        self.register_buffer('mask', torch.full((4, 4), -torch.inf).triu(1))\n"
        "        self.register_buffer('unset', torch.tensor(torch.nan))\n"
        "        self.register_buffer('seen', torch.zeros(4))\n"
        "    def forward(self, x):\n"
        "        self.seen += {more} * self.training\n"
        "        return super().forward(x)\n",
    )
    write("a.yaml", CONFIG.replace("net:model", "net:Masked"))
    text = (tmp_path / "net.py").read_text()
    write("net.py", text.format(more="x.mean(0).detach()"))
    done = here(*TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert finite_buffers_of(tmp_path / "run") == {"mask": False, "unset": False, "seen": True}
    write("more.py", text.format(more="torch.inf"))
    done = here(*TRAIN, "--overwrite", "--set", "model=more:Masked")
    assert done.returncode == 4
    assert "step 2 of epoch 1, rate 0.0067: seen is not finite; " in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


def finite_buffers_of(run):
    weights = read_weights(run / "checkpoints/last/model.safetensors")
    return {name: bool(weights[name].isfinite().all()) for name in ("mask", "unset", "seen")}


def test_a_validation_loss_without_value_is_never_the_best(here, write, tmp_path):
    write("a.yaml", IRIS.replace("optimizer", "loss: far:loss\noptimizer"))
    write(
        "far.py",
        "import torch\nfrom torch.nn import functional as F\ncalls = []\n"
        "def loss(outputs, targets):\n"
        "    value = F.cross_entropy(outputs, targets)\n"
        "    if not torch.is_grad_enabled() and len(calls) < 4:\n"  # 2 of the preflight, 2 epochs
        "        calls.append(1)\n"
        "        return value * float('inf')\n"
        "    return value\n",
    )
    done = here(*TRAIN)
    assert done.returncode == 0, done.stderr
    warning = (
        "lrtool: warning: the validation loss of epoch {} is inf, though all weights are finite"
    )
    assert [line for line in done.stderr.splitlines() if "epoch" in line] == [
        warning.format(1),
        warning.format(2),
    ]
    report = reports.read(tmp_path / "run/report.json")
    assert [epoch.validation_loss is None for epoch in report.epochs] == [True, True, False]
    assert report.best.epoch == 3


GREEDY = (
    "import torch\nfrom torch import nn\nclass Net(nn.Linear):\n"
    "    def __init__(self, input_shape, num_outputs):\n"
    "        super().__init__(input_shape[0], num_outputs)\n"
    "        self.calls = 0\n"
    "    def forward(self, x):\n"
    "        self.calls += 1\n"
    "        if len(x) > 8 and self.calls > {calls}:\n"
    "            raise torch.OutOfMemoryError('CUDA out of memory')\n"
    "        return super().forward(x)\n"
)
FITS = (
    "out of memory with batches of 30 samples on cpu; 7 samples fit: data.batch_size: 7, with "
    "train.accumulate: 5 for updates from as many samples as now"
)
FITS_LATER = (
    "out of memory with batches of 30 samples on cpu; 15 samples fit: data.batch_size: 15, with "
    "train.accumulate: 2 for updates from as many samples as now"
)


@pytest.mark.parametrize(("calls", "words"), [(0, FITS), (5, FITS_LATER)])
def test_out_of_memory_names_a_batch_that_fits(here, write, tmp_path, calls, words):
    write("greedy.py", GREEDY.format(calls=calls))
    write("a.yaml", IRIS.replace("{name: mlp, args: {hidden: [8]}}", '"greedy:Net"'))
    done = here(*TRAIN)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"lrtool: error: {words}\n"
    if calls:
        report = reports.read(tmp_path / "run/report.json")
        assert report.status == "failed"
        assert report.steps.step[-1] == 4


def test_a_full_disk_leaves_the_last_good_checkpoint(start, here, write, tmp_path):
    write("net.py", NET)
    write("a.yaml", CONFIG)
    from lrtool.training import epochs

    def small_files_after_three_checkpoints():
        save, saved = epochs.save, []

        def limited(*arguments):
            saved.append(1)
            if len(saved) == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            save(*arguments)

        epochs.save = limited

    done = start(*TRAIN, prepare=small_files_after_three_checkpoints).wait()
    assert (done.returncode, done.stdout) == (2, "")
    state = finite_checkpoint(tmp_path / "run")
    step = state["position"]["step"]
    assert step > 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lrtool: error: run/checkpoints/.new/")
    assert "cannot be written: File too large" in last
    assert last.endswith(f"the checkpoint of step {step} is whole; --resume run goes on")
    assert not (tmp_path / "run/checkpoints/.new").exists()
    assert here(*TRAIN, "--resume", "auto").returncode == 0


def test_a_log_that_cannot_be_written_is_said(start, write):
    write("net.py", NET)
    write("a.yaml", CONFIG)

    def small_files():
        from lrtool.report import metrics_log

        append = metrics_log.append

        def limited(file, rows):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            append(file, rows)

        metrics_log.append = limited

    done = start(*TRAIN, prepare=small_files).wait()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "lrtool: error: run: cannot be written: File too large; no checkpoint had been saved yet\n"
    )


def test_a_full_disk_while_plots_are_made_names_the_file_and_what_is_left(start, write, tmp_path):
    write("net.py", NET)
    write("a.yaml", CONFIG)

    def small_pictures():
        from lrtool.show.plots import canvas
        from lrtool.show.plots import train as training_plot

        def limited(report, directory):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # stderr is a file too
            return canvas.save(training_plot.draw(report), directory)

        training_plot.save = limited

    done = start(*TRAIN, prepare=small_pictures).wait()
    assert (done.returncode, done.stdout) == (2, "")
    step = finite_checkpoint(tmp_path / "run")["position"]["step"]
    assert done.stderr.splitlines()[-1] == (
        "lrtool: error: run/plot.png: cannot be written: File too large; "
        f"the checkpoint of step {step} is whole; --resume run goes on"
    )
    assert reports.read(tmp_path / "run/report.json").status == "completed"


@pytest.mark.parametrize("part", ["training", "validation"])
def test_two_classes_are_needed(here, write, part):
    write(
        "net.py",
        "import torch\nx, y = torch.randn(40, 3), torch.arange(40) % 2\n"
        "def validation():\n    return (x, y), (x[:9], 0 * y[:9])\n"
        "def training():\n    return x, 0 * y + 1\n",
    )
    write(
        "a.yaml",
        f"data: {{source: 'net:{part}', batch_size: 8}}\nmetrics: [accuracy, auroc]\n"
        "loss: cross_entropy\nmodel: {name: linear}\n",
    )
    none = () if part == "validation" else ("--set", "data.validation=0")
    said = {
        "training": "a.yaml:1:16: data.source: the targets of net:training: every target is 1: "
        "there is nothing to learn from one class\n",
        "validation": "a.yaml:2:21: metrics.1: auroc needs two classes, and all targets of the "
        "validation set are the same\n",
    }
    for command in (TRAIN, ("check", "a.yaml")):
        done = here(*command, *none)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == said[part]


MORTAL = (
    NET
    + """
import os
class Mortal(Noisy):
    def __getitem__(self, index):
        if index == 33 and os.path.exists("armed"):
            {action}
        return super().__getitem__(index)
def mortal():
    return Mortal(60, 0), Noisy(20, 1)
"""
)


@pytest.fixture
def armed_later(monkeypatch, tmp_path):
    """Let the data fail from the second checkpoint on, when an epoch is over."""
    from lrtool.training import epochs

    save, saved = epochs.save, []

    def arming(*arguments):
        saved.append(1)
        if len(saved) == 2:
            (tmp_path / "armed").touch()
        save(*arguments)

    monkeypatch.setattr(epochs, "save", arming)


@pytest.mark.usefixtures("armed_later")
def test_a_worker_that_dies_is_said_in_words(start, write, tmp_path):
    write("net.py", MORTAL.format(action="os._exit(7)"))
    write("a.yaml", CONFIG.replace("net:data", "net:mortal"))
    started = time.monotonic()
    done = start(*TRAIN, "--set", "data.workers=1").wait()
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "lrtool: error: data.source net:mortal failed: a process that loads data ended by itself, "
        "or was ended: "
    )  # then torch's words, or those of a connection that broke, whichever comes first
    assert last.endswith("; data.workers: 0 loads without it")
    assert "bug" not in done.stderr
    assert reports.read(tmp_path / "run/report.json").status == "failed"


@pytest.fixture
def dies(here, write, tmp_path):
    """Run a command, which meets with a worker's death, and look at what it says and leaves."""
    write("net.py", NET)
    write("a.yaml", CONFIG)
    deaths = [RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")]

    def die(*_):
        if deaths:  # torch raises each once
            raise deaths.pop()

    def run(command):
        done = here(command, "a.yaml", "--quiet", "--output", "run")
        assert not deaths
        words = (
            "data.source net:data failed: a process that loads data ended by itself, or was ended: "
            "DataLoader worker (pid 7) is killed by signal: Killed; "
            "data.workers: 0 loads without it"
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"lrtool: error: {words}\n"
        report = reports.read(tmp_path / "run/report.json")
        assert (report.status, report.reason) == ("failed", words)

    return die, run


@pytest.mark.parametrize("command", ["find", "train"])
def test_a_worker_whose_death_torch_raises_while_progress_is_shown(dies, monkeypatch, command):
    from lrtool.show.terminal.find import Progress
    from lrtool.show.terminal.train import TrainProgress

    shown = {"find": Progress, "train": TrainProgress}
    die, run = dies
    monkeypatch.setattr(shown[command], "update", die)
    run(command)


@pytest.mark.parametrize("command", ["find", "train"])
def test_a_worker_whose_connection_breaks_before_torch_raises_its_death(dies, monkeypatch, command):
    from lrtool.experiment import failures as failure

    forward, calls = steps.batch_loss, count()

    def breaks(*batch):
        if next(calls) < 2:  # the batches that are tried
            return forward(*batch)
        raise ConnectionResetError

    die, run = dies
    monkeypatch.setattr(steps, "batch_loss", breaks)
    monkeypatch.setattr(failure, "_is_ours", die)  # asked for while words are looked for
    run(command)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_loader_of_the_users_own_that_ends_early_is_no_short_epoch(here, write, tmp_path, part):
    write(
        "net.py",
        NET + "from torch.utils.data import DataLoader\n"
        "class Stopping(Noisy):\n"
        "    def __getitem__(self, index):\n"
        "        if index == 40: raise StopIteration\n"
        "        return super().__getitem__(index)\n"
        "def training():\n"
        "    return DataLoader(Stopping(60, 0), 8), Noisy(20, 1)\n"
        "def validation():\n"
        "    return Noisy(60, 0), DataLoader(Stopping(60, 1), 8)\n",
    )
    write("a.yaml", CONFIG.replace("net:data", f"net:{part}"))
    done = here(*TRAIN)
    assert (done.returncode, done.stdout) == (2, "")
    words = (
        "the data ended after 5 of 8 batches: a dataset must not raise StopIteration, nor a "
        "sampler yield less than its length"
    )
    assert done.stderr.endswith(f"lrtool: error: {words}\n")
    report = reports.read(tmp_path / "run/report.json")
    assert (report.status, report.reason, report.epochs) == ("failed", words, ())


@pytest.mark.usefixtures("armed_later")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_users_data_names_its_place_and_keeps_the_rows(
    start, write, tmp_path, workers
):
    write("net.py", MORTAL.format(action="raise LookupError('no such picture')"))
    write("a.yaml", CONFIG.replace("net:data", "net:mortal"))
    done = start(*TRAIN, "--set", f"data.workers={workers}").wait()
    assert (done.returncode, done.stdout) == (2, "")
    place = f"{tmp_path / 'net.py'}:{NET.count(chr(10)) + 6}"
    assert done.stderr.splitlines()[-1].endswith(
        f"net:mortal failed: LookupError: no such picture ({place})"
    )
    report = reports.read(tmp_path / "run/report.json")
    assert report.status == "failed"
    logged = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in logged if row["kind"] == "step"] == list(report.steps.step)
    assert len(report.steps.step) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("data.source=net:nothing_to_validate",),
            "the validation set is empty: it yields no batch",
        ),
        (
            ("data.source=net:no_batch",),
            "--set data.source: net:no_batch: yields no training batch",
        ),
        (
            ("data.source=net:other_shape",),
            "evaluating failed on a validation batch of inputs (8, 5): RuntimeError: mat1 and mat2",
        ),
        (
            ("model=net:fails_when_evaluated",),
            "evaluating failed on a validation batch of inputs (8, 4): RuntimeError: not like",
        ),
        (("metrics=[mae]",), "metrics.0: mae compares values, and cross_entropy is for"),
        (("loss=l1",), "outputs (8, 2) float32, targets (8,) int64"),
        (
            ("train.schedule={name: cosine, warmup: 100}", "train.epochs=1"),
            "train.schedule.warmup",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(here, write, tmp_path, change, words):
    write(
        "net.py",
        NET + "from torch.utils.data import DataLoader\n"
        "def nothing_to_validate():\n"
        "    empty = DataLoader(Noisy(4, 1), batch_size=8, drop_last=True)\n"
        "    return DataLoader(Noisy(16, 0), batch_size=8), empty\n"
        "class Picky(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if not self.training: raise RuntimeError('not like this')\n"
        "        return super().forward(x)\n"
        "def fails_when_evaluated():\n"
        "    return Picky(4, 2)\n"
        "def no_batch():\n"
        "    return DataLoader(Noisy(4, 1), batch_size=8, drop_last=True), Noisy(20, 1)\n"
        "class Other(Noisy):\n"
        "    def __getitem__(self, index):\n"
        "        return self.x[index], self.y[index]\n"
        "def other_shape():\n"
        "    other = Noisy(20, 1)\n"
        "    other.x = torch.randn(20, 5)\n"
        "    other.__class__ = Other\n"
        "    return Noisy(16, 0), other\n",
    )
    write("a.yaml", CONFIG)
    sets = [part for key in change for part in ("--set", key)]
    for command in (TRAIN, ("check", "a.yaml")):
        done = here(*command, *sets)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
