"""Processes that torchrun has started: how they start, speak, stop, fail and end."""

import json
import os
import signal
import socket
from threading import Event

import pytest

from lrtool import claims
from lrtool.cli import launch as launching
from lrtool.cli import watch

pytestmark = pytest.mark.usefixtures("no_plots")
CONFIG = """
data: {source: digits, batch_size: 300}
model: {name: "net:model"}
loss: cross_entropy
optimizer: sgd
learning_rate: 0.01
train: {max_steps: 60, epochs: null}
runtime: {device: cpu, timeout: 20}
"""

NET = """
import os, time
import torch
from torch import nn

class Net(nn.Sequential):
    steps = 0
    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == int(os.environ.get("AT", "-1")):
                print("it happens", flush=True)
                exec(os.environ["WHAT"])
        return super().forward(x)

def model():
    return Net(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def small(write):
    write("net.py", NET)
    write("small.yaml", CONFIG)


def happens(what, at=30, on=(1,), grace=5.0, seen=3.0):
    """Prepare ranks: something happens on these alone in a forward pass."""

    def prepare(rank):
        claims.ANSWER_S = 1.0
        watch.GRACE_S = watch.REPORT_S = 5.0
        watch.SEEN_S = seen
        if rank in on:
            launching.PRECEDENCE_S = 0.1
            watch.GRACE_S = grace
            os.environ |= {"WHAT": what, "AT": str(at)}

    return prepare


def report(tmp_path):
    return json.loads((tmp_path / "out/report.json").read_text())


def ends(children):
    done = [child.wait() for child in children]
    return [each.returncode for each in done], [each.stderr for each in done]


def test_a_command_of_one_process_is_run_by_the_first_rank_alone(launch):
    first, second = (child.wait() for child in launch(2, "list", "losses"))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("name")
    said = "lrtool: list runs in one process: rank 0 does it, the others end\n"
    assert first.stderr == said
    assert (second.stdout, second.stderr) == ("", "")


def test_a_problem_that_all_ranks_have_is_said_by_the_first(launch, write):
    write("small.yaml", "model: mlp\noptimiser: sgd\n")
    codes, said = ends(launch(2, "train", "small.yaml"))
    assert codes == [2, 2]
    assert said[0].startswith("small.yaml:2:1: optimiser: unknown key")
    assert said[1] == ""


@pytest.mark.usefixtures("small")
def test_the_failure_of_one_rank_ends_all_and_is_said_once(launch, tmp_path):
    fails = happens("raise ValueError('too hot')")
    codes, said = ends(launch(3, "train", "small.yaml", "--output", "out", prepare=fails))
    assert codes == [2, 2, 2]
    words = f"rank 1: net:model failed: ValueError: too hot ({tmp_path}/net.py:13)"
    assert said[1] == f"lrtool: error: {words}\n"
    assert "too hot" not in said[0] + said[2]
    assert (report(tmp_path)["status"], report(tmp_path)["reason"]) == ("failed", words)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_is_killed_ends_all(launch, tmp_path, lost):
    killed = happens("os.kill(os.getpid(), 9)", on=(lost,), seen=0.1)  # there is nobody else
    codes, said = ends(launch(2, "train", "small.yaml", "--output", "out", prepare=killed))
    assert codes == [-9 if rank == lost else 137 for rank in (0, 1)]
    words = f"rank {lost} ended without a word (killed, or out of memory?)"
    assert said[1 - lost].endswith(f"lrtool: error: {words}\n")
    if lost:
        assert (report(tmp_path)["status"], report(tmp_path)["reason"]) == ("failed", words)


@pytest.mark.usefixtures("small")
def test_a_rank_that_is_too_slow_ends_all(launch, tmp_path):
    slow = happens("time.sleep(60)", grace=0.5)
    arguments = ("train", "small.yaml", "--output", "out", "--set", "runtime.timeout=1")
    codes, said = ends(launch(2, *arguments, prepare=slow))
    assert codes == [2, 2]
    words = (
        "rank 1 kept the others waiting for more than 1 seconds; if that may be, raise "
        "runtime.timeout"
    )
    assert said[0].endswith(f"lrtool: error: {words}\n")
    assert said[1] == ""
    assert report(tmp_path)["reason"] == words


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(launch, tmp_path, number):
    asked = happens(f"os.kill(os.getpid(), {int(number)})")
    codes, said = ends(launch(2, "train", "small.yaml", "--output", "out", prepare=asked))
    assert codes == [128 + number] * 2
    assert said[1] == ""
    assert report(tmp_path)["status"] == "interrupted"
    assert report(tmp_path)["reason"] == f"stopped by {number.name}"
    assert (tmp_path / "out/checkpoints/last").exists()


@pytest.mark.usefixtures("small")
def test_a_signal_while_a_run_is_set_up_ends_all(launch):
    asked = happens("os.kill(os.getpid(), 15); time.sleep(60)", at=1)
    codes, _ = ends(launch(2, "train", "small.yaml", "--output", "out", prepare=asked))
    assert codes == [143, 143]


@pytest.mark.usefixtures("small")
def test_ranks_that_do_not_come_are_named(launch):
    def late(rank):
        launching.TIMEOUT = 1.0
        if rank == 1:
            os._exit(0)

    codes, said = ends(launch(3, "train", "small.yaml", prepare=late))
    assert codes == [2, 0, 2]
    assert said[0] == "lrtool: error: rank 1 of 3 did not come within 1 seconds\n"
    assert said[2] == ""


@pytest.mark.usefixtures("small")
def test_nobody_at_the_address(launch):
    def alone(rank):
        launching.TIMEOUT = 1.0
        if rank == 0:
            os._exit(0)

    codes, said = ends(launch(2, "train", "small.yaml", prepare=alone))
    assert codes == [0, 2]
    assert said[1].startswith("lrtool: error: rank 1: the ranks did not meet at 127.0.0.1:")


@pytest.mark.usefixtures("small")
def test_a_port_that_is_taken(launch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def prepare(_rank):
            launching.TIMEOUT = 1.0
            os.environ["MASTER_PORT"] = str(taken.getsockname()[1])

        codes, said = ends(launch(2, "train", "small.yaml", prepare=prepare))
    assert codes == [2, 2]
    assert said[0].startswith("lrtool: error: the ranks did not meet at 127.0.0.1:")
    assert "EADDRINUSE" in said[0]


@pytest.mark.usefixtures("small")
def test_connections_that_do_not_close_keep_no_finished_run(launch, monkeypatch):
    def waits(rank):
        launching.CLOSING_S = 0.2
        if rank:
            monkeypatch.setattr("torch.distributed.destroy_process_group", Event().wait)

    codes, _ = ends(launch(2, "train", "small.yaml", "--set", "train.max_steps=2", prepare=waits))
    assert codes == [0, 0]
