"""`lrtool train --resume`: killed, stopped or longer, a run is the same to the last bit."""

import json
import os
import signal
import subprocess
import time
import weakref

import pytest
import torch
from small import CONFIG, NET, at_call, contents

from lrtool.engine import checkpoint, evaluation, step
from lrtool.report import metrics_log
from lrtool.report import report as reports
from lrtool.report.records import EpochRow, StepRow
from lrtool.training import session

pytestmark = pytest.mark.usefixtures("no_plots")
TRAIN = ("train", "a.yaml", "--quiet", "--output")


@pytest.fixture(autouse=True)
def _files(write):
    write("net.py", NET)
    write("a.yaml", CONFIG)


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def whole(start, made, tmp_path):
    """What a training leaves that nobody interrupts; each is made once."""

    def whole(*flags, name="whole"):
        if (name, flags) not in made:
            assert start(*TRAIN, name, *flags).wait().returncode == 0
            made[name, flags] = contents(tmp_path / name)
        return made[name, flags]

    return whole


def to_all(number):
    """Send a signal to this process and those it has started, as a batch system does."""
    kill = ["kill", f"-{int(number)}", "--", f"-{os.getpgrp()}"]
    subprocess.run(kill, check=True, start_new_session=True)
    time.sleep(0.3)  # for whoever dies of it


def rows(run, kind):
    return list(metrics_log.read(run / "metrics.jsonl", kind))


def test_killed_at_any_moment_and_resumed_it_is_the_same_to_the_last_bit(start, whole, tmp_path):
    moments = [
        (1, os, "fsync"),  # before anything is there
        (9, step, "batch_loss"),
        (6, os, "replace"),  # while a checkpoint takes the place of the one before
        (9, os, "fsync"),  # while one is written
        (6, step, "batch_loss"),
    ]
    codes = []
    for moment in moments:
        child = start(*TRAIN, "killed", "--resume", "auto", prepare=at_call(*moment))
        codes.append(child.wait().returncode)
    assert codes == [-signal.SIGKILL] * len(moments)
    done = start(*TRAIN, "killed", "--resume", "auto").wait()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == whole()


def test_killed_with_workers_it_is_the_same_to_the_last_bit(start, tmp_path):
    workers = ("--set", "data.workers=2", "--set", "train.epochs=2")
    assert start(*TRAIN, "whole", *workers).wait().returncode == 0
    killed = start(*TRAIN, "killed", *workers, prepare=at_call(14, step, "batch_loss")).wait()
    assert killed.returncode == -signal.SIGKILL
    done = start(*TRAIN, "killed", *workers, "--resume", "auto").wait()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_killed_while_the_rate_is_found_it_is_found_again(start, tmp_path):
    auto = ("--lr", "auto")
    assert start(*TRAIN, "whole", *auto).wait().returncode == 0
    assert start(*TRAIN, "k", *auto, prepare=at_call(40, step, "batch_loss")).wait().returncode < 0
    assert (tmp_path / "k/find/metrics.jsonl").exists()
    assert not (tmp_path / "k/checkpoints").exists()
    done = start("train", "a.yaml", *auto, "--quiet", "--resume", "k").wait()
    assert done.returncode == 0, done.stderr
    assert "k has no checkpoint yet: the training begins anew" in done.stderr
    assert contents(tmp_path / "k") == contents(tmp_path / "whole")
    rate = reports.read(tmp_path / "k/report.json").learning_rate
    assert (rate.origin, rate.run) == ("find", "k/find")
    assert rate.value == reports.read(tmp_path / "k/find/report.json").suggestion.lr


IN_AN_EPOCH, IN_AN_EVALUATION = (12, step, "batch_loss"), (5, evaluation, "_loss")


@pytest.mark.parametrize(
    ("number", "where"),
    [
        (signal.SIGTERM, IN_AN_EPOCH),
        (signal.SIGINT, IN_AN_EPOCH),
        (signal.SIGTERM, IN_AN_EVALUATION),
    ],
)
def test_a_signal_ends_a_training_which_goes_on_to_the_last_bit(
    start, whole, tmp_path, number, where
):
    stopped = start(*TRAIN, "run", prepare=at_call(*where, send=number)).wait()
    assert (stopped.returncode, stopped.stdout) == (128 + number, "run\n")
    assert stopped.stderr.endswith(f"lrtool: interrupted: stopped by {number.name}\n")
    report = reports.read(tmp_path / "run/report.json")
    assert (report.status, report.reason) == ("interrupted", f"stopped by {number.name}")
    assert report.checkpoint == "checkpoints/last"
    assert 0 < report.steps.step[-1] < 9
    assert not (tmp_path / "run/model.safetensors").exists()
    done = start(*TRAIN, "run", "--resume", "auto").wait()
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "run") == whole()
    assert reports.read(tmp_path / "run/report.json").status == "completed"


OWN_LOADERS = """
import torch
from torch.utils.data import DataLoader
from net import Noisy

def loaders():
    generator = torch.Generator().manual_seed(5)
    own = DataLoader(Noisy(60, 0), 8, shuffle=True, generator=generator)
    return own, DataLoader(Noisy(20, 1), 8)
"""
LOADERS = ("--set", "data={source: 'loaders:loaders'}")


def test_a_loader_with_a_generator_of_its_own_goes_on_to_the_last_bit(start, write, tmp_path):
    write("loaders.py", OWN_LOADERS)
    assert start(*TRAIN, "whole", *LOADERS).wait().returncode == 0
    # In an evaluation the sampler has drawn the number that ends its epoch.
    for folder, where in (("a", IN_AN_EPOCH), ("b", IN_AN_EVALUATION)):
        prepare = at_call(*where, send=signal.SIGTERM)
        assert start(*TRAIN, folder, *LOADERS, prepare=prepare).wait().returncode == 143
        assert start(*TRAIN, folder, *LOADERS, "--resume", "auto").wait().returncode == 0
        assert contents(tmp_path / folder) == contents(tmp_path / "whole")


OWN_WORKERS = (
    OWN_LOADERS.replace(
        "generator=generator)", "generator=generator, num_workers=1, worker_init_fn=begin)"
    )
    + """
def begin(worker):
    print("worker", worker, "begins")
"""
)


@pytest.mark.parametrize("changes", [("--set", "data.workers=2"), LOADERS])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_workers_too_is_answered_by_their_parent(
    start, whole, write, tmp_path, *, number, changes
):
    def prepare():
        os.setpgrp()
        at_call(10, step, "batch_loss", send=number, how=to_all)()

    write("loaders.py", OWN_WORKERS)
    stopped = start(*TRAIN, "run", *changes, prepare=prepare).wait()
    assert stopped.returncode == 128 + number, stopped.stderr
    assert ("worker 0 begins" in stopped.stderr) == (changes == LOADERS)
    assert reports.read(tmp_path / "run/report.json").checkpoint == "checkpoints/last"
    assert start(*TRAIN, "run", *changes, "--resume", "auto").wait().returncode == 0
    assert contents(tmp_path / "run") == whole(*changes, name="with-workers")


def test_what_was_read_before_does_not_decide_a_training(start, write, tmp_path):
    write("loaders.py", OWN_LOADERS)
    found = start(*TRAIN, "found", *LOADERS, "--lr", "auto").wait()
    assert found.returncode == 0, found.stderr
    assert start(*TRAIN, "given", *LOADERS, "--lr-from", "found").wait().returncode == 0
    assert contents(tmp_path / "given") == contents(tmp_path / "found")


def test_a_checkpoint_from_before_there_were_ranks_goes_on(start, whole, tmp_path):
    stop = at_call(*IN_AN_EPOCH, send=signal.SIGTERM)
    assert start(*TRAIN, "run", prepare=stop).wait().returncode == 143
    last = tmp_path / "run/checkpoints/last"
    state = torch.load(last / "state.pt", weights_only=True)
    assert state.pop("ranks") == []
    torch.save(state, last / "state.pt")
    (last / "manifest.json").unlink()
    checkpoint.seal(last)
    done = start(*TRAIN, "run", "--resume", "auto").wait()
    assert (done.returncode, done.stderr.count("warning")) == (0, 0), done.stderr
    assert contents(tmp_path / "run") == whole()


def test_a_second_signal_ends_it_at_once(start, tmp_path):
    def twice():
        at_call(12, step, "batch_loss", send=signal.SIGINT)()
        at_call(2, session, "save_checkpoint", send=signal.SIGTERM)()

    done = start(*TRAIN, "run", prepare=twice).wait()
    assert (done.returncode, done.stdout) == (143, "")
    assert not (tmp_path / "run/report.json").exists()


def test_a_changed_configuration_is_refused_with_its_keys(here):
    assert here(*TRAIN, "run").returncode == 0
    change = ("--set", "data.batch_size=4", "--set", "optimizer.args.eps=1e-6", "--lr", "0.02")
    done = here("train", "a.yaml", "--resume", "run", *change)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "lrtool: error: --resume run: the configuration has changed: data.batch_size was 8, is 4; "
        "learning_rate was 0.01, is 0.02; optimizer.args.eps was null, is 1e-6. Change it back "
        "(the run's own is run/config.yaml), or begin a new run\n"
    )
    done = here("train", "a.yaml", "--resume", "run", "--set", "data.args.n=61")
    assert done.returncode == 2
    assert "data.args.n was null, is 61" in done.stderr


def test_changed_data_are_refused(here, write):
    config = "data: {source: csv, args: {path: a.csv, target: y}, batch_size: 2}\nmodel: linear\n"
    write("b.yaml", config + "train: {epochs: 1}\n")
    table = "x,y\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(20))
    write("a.csv", table)
    assert here("train", "b.yaml", "-q", "-o", "run").returncode == 0
    write("a.csv", table.replace("7,b", "7.5,b"))
    done = here("train", "b.yaml", "-q", "--resume", "run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "lrtool: error: --resume run: the data have changed since; begin a new run"
    )


def test_a_completed_run_is_left_as_it_is(here, tmp_path):
    assert here(*TRAIN, "run").returncode == 0
    before = contents(tmp_path / "run")
    done = here("train", "a.yaml", "--quiet", "--resume", "run")
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert contents(tmp_path / "run") == before
    assert reports.read(tmp_path / "run/report.json").status == "completed"


def test_the_time_of_all_its_sessions_counts(here, tmp_path):
    def timing():
        return reports.read(tmp_path / "run/report.json").timing

    assert here(*TRAIN, "run", "--epochs", 1).returncode == 0
    first = timing()
    assert here(*TRAIN, "run", "--resume", "run", "--epochs", 3).returncode == 0
    whole = timing()
    assert (first.steps, whole.steps) == (3, 9)
    assert whole.total_s > first.total_s
    assert here(*TRAIN, "run", "--resume", "run", "--epochs", 3).returncode == 0
    assert timing().steps == 9
    assert timing().steps_per_s == pytest.approx(whole.steps_per_s, rel=0.2)


def test_a_resume_that_fails_leaves_what_the_run_had(start, write, tmp_path):
    assert start(*TRAIN, "run", "--epochs", 1).wait().returncode == 0
    before = reports.read(tmp_path / "run/report.json")
    assert before.predictions is not None
    wider = NET.replace("nn.Linear(4, 8), nn.BatchNorm1d(8)", "nn.Linear(4, 9), nn.BatchNorm1d(9)")
    write("net.py", wider.replace("nn.Linear(8, 2)", "nn.Linear(9, 2)"))
    done = start("train", "a.yaml", "-q", "--resume", "run", "--epochs", 2).wait()
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    report = reports.read(tmp_path / "run/report.json")
    assert report.status == "failed"
    assert (report.best, report.predictions) == (before.best, before.predictions)
    assert (report.checkpoint, report.epochs) == (before.checkpoint, before.epochs)


def test_a_training_that_was_to_replace_a_search_is_resumed(start, here, whole, tmp_path):
    assert here("find", "a.yaml", "--quiet", "--output", "run").returncode == 0
    stop = at_call(*IN_AN_EPOCH, send=signal.SIGTERM)
    stopped = start(*TRAIN, "run", "--overwrite", prepare=stop).wait()
    assert stopped.returncode == 143
    assert "--resume run goes on with it" in stopped.stderr
    assert reports.read(tmp_path / "run/report.json").command == "find"
    auto = start(*TRAIN, "run", "--resume", "auto", prepare=stop).wait()
    assert auto.returncode == 143, auto.stderr
    done = start("train", "a.yaml", "-q", "--resume", "run").wait()
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert contents(tmp_path / "run") == whole()
    assert reports.read(tmp_path / "run/report.json").command == "train"


def test_what_a_replacement_learned_of_its_data_is_its_own(start, here, tmp_path):
    """Of data that are not in memory the number of samples is compared: 60, and then 48."""
    assert here(*TRAIN, "run", "--epochs", 1).returncode == 0
    fewer = ("--set", "data.args={n: 48}")
    stop = at_call(*IN_AN_EPOCH, send=signal.SIGTERM)
    stopped = start(*TRAIN, "run", "--overwrite", *fewer, prepare=stop).wait()
    assert stopped.returncode == 143
    done = start("train", "a.yaml", "-q", "--resume", "run", *fewer).wait()
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert reports.read(tmp_path / "run/report.json").data.samples["train"] == 48


def test_weights_that_are_not_lrtools_stay(start, tmp_path):
    assert start(*TRAIN, "run", "--epochs", 1).wait().returncode == 0
    (tmp_path / "run/model.safetensors").write_bytes(b"mine")
    longer = (*TRAIN, "run", "--resume", "auto", "--epochs", 3)
    stopped = start(*longer, prepare=at_call(*IN_AN_EPOCH, send=signal.SIGTERM)).wait()
    assert stopped.returncode == 143
    assert (tmp_path / "run/model.safetensors").read_bytes() == b"mine"


def test_a_longer_training_that_is_stopped_has_no_weights_of_the_shorter_one(start, tmp_path):
    assert start(*TRAIN, "run", "--epochs", 1).wait().returncode == 0
    assert (tmp_path / "run/model.safetensors").exists()
    longer = (*TRAIN, "run", "--resume", "auto", "--epochs", 3)
    stopped = start(*longer, prepare=at_call(*IN_AN_EPOCH, send=signal.SIGTERM)).wait()
    assert stopped.returncode == 143
    assert not (tmp_path / "run/model.safetensors").exists()


GOES_ON = "lrtool: goes on with run, after 6 steps and 2 epochs\n"
ENDED = "lrtool: goes on with run, after 9 steps and 3 epochs\n"


def test_a_longer_training_goes_on_and_says_so_of_its_schedule(here, tmp_path):
    constant = ("--set", "train.schedule={name: constant}")
    assert here(*TRAIN, "whole", *constant, "--epochs", 4).returncode == 0
    assert here(*TRAIN, "run", *constant, "--epochs", 2).returncode == 0
    longer = (*TRAIN, "run", *constant, "--resume", "auto", "--epochs", 4)
    done = here(*longer, "--set", "train.log_every=1")
    assert (done.returncode, done.stderr) == (0, GOES_ON)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")

    cosine = ("--set", "train.schedule={name: cosine}")
    assert here(*TRAIN, "other", *cosine, "--epochs", 1).returncode == 0
    done = here(*TRAIN, "other", *cosine, "--resume", "auto", "--epochs", 2)
    assert done.returncode == 0
    assert done.stderr == (
        "lrtool: warning: train.epochs changed: the cosine schedule now spans the new length, so "
        "its rates differ from those so far\n"
        "lrtool: goes on with other, after 3 steps and 1 epoch\n"
    )


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{name: step, args: {step_size: 1}}", None),
        ("{name: plateau, args: {patience: 0}}", None),
        ("{name: triangular, args: {period: 4}, warmup: 2}", None),
        ("{name: wsd, args: {decay: 0.5}}", "wsd schedule"),
        ("{name: triangular}", "triangular schedule"),
        ("{name: constant, warmup: 0.5}", "constant schedule with its warm-up"),
        ("{name: exponential, args: {gamma: 0.5}, warmup: 0.5}", "exponential schedule with its"),
    ],
)
def test_another_length_is_said_where_rates_so_far_were_others(here, schedule, words):
    made = (*TRAIN, "run", "--set", f"train.schedule={schedule}", "--set", "train.log_every=1")
    assert here(*made, "--epochs", 2).returncode == 0
    done = here(*made, "--resume", "auto", "--epochs", 5)
    assert done.returncode == 0
    if words is None:
        assert done.stderr == GOES_ON
    else:
        assert done.stderr.startswith(f"lrtool: warning: train.epochs changed: the {words}")
        assert done.stderr.endswith(
            f" now spans the new length, so its rates differ from those so far\n{GOES_ON}"
        )
        assert done.stderr.count("\n") == 2


def test_another_length_is_not_said_before_the_rates_differ(start, here):
    wsd = ("--set", "train.schedule={name: wsd}")
    stopped = start(*TRAIN, "run", *wsd, prepare=at_call(*IN_AN_EPOCH, send=signal.SIGTERM)).wait()
    assert stopped.returncode == 143
    done = here(*TRAIN, "run", *wsd, "--resume", "auto", "--epochs", 4)
    assert done.returncode == 0
    assert done.stderr == "lrtool: goes on with run, after 4 steps and 1 epoch\n"


def test_fewer_epochs_than_there_are_train_nothing_and_say_so(here, tmp_path):
    constant = (*TRAIN, "run", "--set", "train.schedule=constant")
    assert here(*constant).returncode == 0
    before = contents(tmp_path / "run")
    done = here(*constant, "--resume", "auto", "--epochs", 1)
    assert (done.returncode, done.stdout) == (0, "run\n")
    assert done.stderr == (
        "lrtool: warning: --resume run: stands at step 9 of epoch 3, beyond train.epochs: 1; "
        f"nothing is trained\n{ENDED}"
    )
    assert contents(tmp_path / "run") == before
    steps = ("--set", "train.epochs=null", "--set", "train.max_steps=8")
    done = here(*constant, "--resume", "auto", *steps)
    assert done.stderr == (
        "lrtool: warning: --resume run: stands at step 9 of epoch 3, beyond train.max_steps: 8; "
        f"nothing is trained\n{ENDED}"
    )
    assert contents(tmp_path / "run") == before
    assert here(*constant, "--resume", "auto", "--epochs", 3).stderr == ENDED


def test_what_was_read_from_a_checkpoint_is_let_go(here, monkeypatch):
    assert here(*TRAIN, "run", "--epochs", 1).returncode == 0
    begin, seen = session.begin, []

    def looking(task, rate, directory, checkpoint):
        kept = weakref.ref(checkpoint.state["random"]["torch"])
        begun = begin(task, rate, directory, checkpoint)
        seen.append((kept(), checkpoint.state))
        return begun

    monkeypatch.setattr(session, "begin", looking)
    assert here(*TRAIN, "run", "--resume", "auto", "--epochs", 2).returncode == 0
    assert seen == [(None, {})]


@pytest.mark.parametrize("steps", [4, 6])  # inside an epoch of three updates; at its end
def test_more_steps_than_before_repeat_no_row(here, tmp_path, steps):
    constant = ("--set", "train.schedule={name: constant}", "--set", "train.epochs=null")
    assert here(*TRAIN, "whole", *constant, "--set", "train.max_steps=9").returncode == 0
    assert here(*TRAIN, "run", *constant, "--set", f"train.max_steps={steps}").returncode == 0
    more = ("--set", "train.max_steps=9", "--resume", "auto")
    assert here(*TRAIN, "run", *constant, *more).returncode == 0
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert contents(run)["model.safetensors"] == contents(whole)["model.safetensors"]
    assert rows(run, StepRow) == rows(whole, StepRow)
    ends = [row.step for row in rows(run, EpochRow)]
    assert ends == ([3, 4, 6, 9] if steps == 4 else [3, 6, 9])
    assert [row for row in rows(run, EpochRow) if row.step != 4] == rows(whole, EpochRow)


def test_a_corrupted_checkpoint_is_skipped_and_the_one_before_is_used(here, tmp_path):
    assert here(*TRAIN, "run").returncode == 0
    before = contents(tmp_path / "run")
    state = tmp_path / "run/checkpoints/last/state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    done = here("train", "a.yaml", "--quiet", "--resume", "run")
    assert done.returncode == 0
    assert done.stderr.startswith("lrtool: warning: run/checkpoints/last is skipped: state.pt has ")
    assert done.stderr.count("warning") == 1
    assert contents(tmp_path / "run") == before

    for name in ("last", "previous"):
        weights = tmp_path / "run/checkpoints" / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    done = here("train", "a.yaml", "--quiet", "--resume", "run")
    assert done.returncode == 2
    assert done.stderr.count("is corrupted (its CRC-32 differs)") == 2
    assert done.stderr.endswith("none of its checkpoints is whole; begin a new run\n")


def test_a_first_update_that_fails_is_the_checkpoints_doing(here, tmp_path):
    assert here(*TRAIN, "run", "--epochs", 1).returncode == 0
    last = tmp_path / "run/checkpoints/last"
    state = torch.load(last / "state.pt", weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"] = "x"
    torch.save(state, last / "state.pt")
    (last / "manifest.json").unlink()
    checkpoint.seal(last)
    done = here(*TRAIN, "run", "--epochs", 2, "--resume", "run")
    assert done.returncode == 2
    words = (
        "lrtool: error: run/checkpoints/last: may be damaged: the first update after it failed: "
    )
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_continuation_elsewhere_leaves_the_run_as_it_was(here, tmp_path):
    auto = ("--lr", "auto", "--set", "train.schedule={name: constant}")
    assert here(*TRAIN, "run", *auto, "--epochs", 1).returncode == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    done = here(*TRAIN, "new", *auto, "--resume", "run", "--epochs", 2)
    assert (done.returncode, done.stdout) == (0, "new\n")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    report = reports.read(tmp_path / "new/report.json")
    assert [epoch.epoch for epoch in report.epochs] == [1, 2]
    assert report.suggestion.lr == report.learning_rate.value
    again = here(*TRAIN, "new", *auto, "--resume", "run", "--epochs", 3)
    assert again.returncode == 2
    assert "new: holds a run already" in again.stderr
    # What does not fit is refused before the directory is emptied.
    wrong = here(*TRAIN, "new", *auto, "--resume", "run", "--overwrite", "--batch-size", 4)
    assert wrong.returncode == 2
    assert (tmp_path / "new/model.safetensors").exists()


def test_what_cannot_be_resumed(here, tmp_path):
    assert here("find", "a.yaml", "--quiet", "--output", "found").returncode == 0
    (tmp_path / "empty").mkdir()
    assert here(*TRAIN, "run", "--epochs", 1).returncode == 0
    for arguments, words in {
        ("--resume", "found"): "--resume found: is the run of a find; use --lr-from found",
        ("--resume", "empty"): "--resume empty: holds no run; give a run directory, or auto",
        ("--resume", "nowhere"): "--resume nowhere: there is no such run; give a run directory, or "
        "a name that `lrtool runs` shows",
        ("--resume", "auto", "-o", "found"): "found: holds a run already (report.json); "
        "choose another directory, or --overwrite",
        ("--resume", "run", "--overwrite"): "--overwrite and --resume contradict each other; give "
        "one of them",
    }.items():
        done = here("train", "a.yaml", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"lrtool: error: {words}\n"
    assert here(
        "train", "a.yaml", "-q", "--epochs", 1, "--resume", "run/checkpoints/last"
    ).stdout == ("run\n")


def test_auto_means_the_newest_run_or_a_new_one(here, tmp_path):
    first = here("train", "a.yaml", "--quiet", "--resume", "auto", "--epochs", 1)
    assert first.returncode == 0
    again = here("train", "a.yaml", "--quiet", "--resume", "auto", "--epochs", 1)
    assert again.stdout == first.stdout
    assert len(list((tmp_path / "runs/a").iterdir())) == 1


def test_a_second_process_on_one_directory_is_refused(start, here, tmp_path):
    stuck = tmp_path / "stuck"

    def wait_there():
        def waiting(*_):
            stuck.touch()
            signal.pause()

        step.batch_loss = waiting
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)

    def inside_the_training():
        begin = session.begin

        def late(*arguments):
            begun = begin(*arguments)
            wait_there()
            return begun

        session.begin = late

    child = start(*TRAIN, "run", prepare=inside_the_training)
    child.wait_for(stuck.exists)
    done = here("train", "a.yaml", "--quiet", "--resume", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lrtool: error: run: another process is using it\n"
    child.send(signal.SIGKILL)
    assert child.wait().returncode == -signal.SIGKILL
    assert here("train", "a.yaml", "--quiet", "--resume", "run").returncode == 0  # no lock is left


def test_rows_are_appended_and_complete(here, tmp_path):
    assert here(*TRAIN, "run", "--set", "train.log_every=2").returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [2, 4, 6, 8]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert list(epochs[0]) == [
        "kind",
        "epoch",
        "step",
        "lr",
        "train_loss",
        "validation_loss",
        "accuracy",
    ]


def test_lost_rows_are_said_and_the_training_goes_on(here, tmp_path, monkeypatch):
    constant = ("--set", "train.schedule={name: constant}")
    assert here(*TRAIN, "run", *constant, "--epochs", 2).returncode == 0
    (tmp_path / "run/metrics.jsonl").unlink()
    monkeypatch.undo()  # with plots
    monkeypatch.chdir(tmp_path)
    done = here(*TRAIN, "run", *constant, "--epochs", 3, "--resume", "auto")
    assert done.returncode == 0
    assert "run/metrics.jsonl has lost rows: 0 bytes are left of" in done.stderr
    assert [row.epoch for row in rows(tmp_path / "run", EpochRow)] == [3]
    assert (tmp_path / "run/plot.svg").exists()
