"""Trainings under the real torchrun: on two machines, started again, and interrupted.

What ranks compute is tested in forks, which are fast; here it is torchrun that starts, signals and
restarts its processes.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lrtool.report import report as reports

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
LONGEST = 240  # seconds; a few on an idle machine

NET = """
import os
import signal
from pathlib import Path

import torch
from torch import nn

from lrtool import claims

claims.ANSWER_S = 1.0  # of a rank that was killed nobody has to wait for long


class Net(nn.Module):
    def __init__(self, dies_at=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.dies_at, self.forwards = dies_at, 0

    def forward(self, inputs):
        self.forwards += self.training
        if self.forwards == self.dies_at and os.environ["RANK"] == "1":
            killed = Path("killed")
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(inputs)
"""

CONFIG = """
data: {source: iris, batch_size: 30}
model: "net:Net"
metrics: [accuracy]
optimizer: adam
learning_rate: 0.01
train: {epochs: 8, checkpoint_every: 6}
find: {start: 1e-4, end: 10, steps: 60}
runtime: {device: cpu, threads: 1}
"""
DIES = ("--set", "model.args.dies_at=22")  # in the middle of an epoch, between two checkpoints


@pytest.fixture(autouse=True)
def _files(write):
    write("net.py", NET)
    write("a.yaml", CONFIG)


@pytest.fixture
def start_group(tmp_path):
    """Start a command in a process group of its own, as a terminal does."""
    started = []

    def start(command, **environment):
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=LONGEST)


@pytest.fixture
def torchrun(start_group):
    """Start `torchrun … -m lrtool …`."""

    def start(options, *arguments):
        return start_group([*TORCHRUN, *options, "-m", "lrtool", *arguments])

    return start


def contents(run):
    """What must not depend on how often a run was begun."""
    names = ("model.safetensors", "metrics.jsonl", "checkpoints/best/model.safetensors")
    return {name: (run / name).read_bytes() for name in names}


def undisturbed(launch, tmp_path):
    """The files of the same training, without a failure."""
    children = launch(2, "train", "a.yaml", "--output", "calm", "--quiet", "--set", "model.args={}")
    assert [child.wait(LONGEST).returncode for child in children] == [0, 0]
    return contents(tmp_path / "calm")


def slurm_file():
    """The batch file that the page shows."""
    page = (Path(__file__).parents[2] / "docs/howto/ranks.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH .*?)```", page, re.DOTALL)
    return text


SLURM = {
    "scontrol": 'echo "$SLURM_JOB_NODELIST"',
    "srun": 'declare -a tasks; for _ in 1 2; do "$@" & tasks+=($!); done\n'
    'for task in "${tasks[@]}"; do wait "$task" || exit; done',
    "torchrun": f'exec {" ".join(TORCHRUN)} "$@"',
}


@pytest.mark.usefixtures("no_plots")
def test_the_file_for_slurm_works_and_two_machines_start_again_together(
    start_group, launch, write, tmp_path
):
    """Two of torchrun's agents on one machine stand for two machines."""
    for name, text in SLURM.items():
        write(f"bin/{name}", f"#!/bin/bash\n{text}\n").chmod(0o755)
    write(
        "my.yaml",
        CONFIG.replace('model: "net:Net"', "model: {name: 'net:Net', args: {dies_at: 22}}"),
    )
    with socket.socket() as free:  # the file makes a port of the job's number
        for job in range(os.getpid(), os.getpid() + 10_000):
            with suppress(OSError):
                free.bind(("127.0.0.1", 20_000 + job % 10_000))
                break
    run = start_group(
        ["bash", "-e", write("job.sh", slurm_file())],
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        SLURM_JOB_ID=str(job),
        SLURM_JOB_NODELIST="localhost",
        SLURM_NNODES="2",
        SLURM_GPUS_ON_NODE="1",
    )
    out, err = run.communicate(timeout=LONGEST)
    assert run.returncode == 0, err
    assert (tmp_path / "killed").exists()
    assert err.count("lrtool: goes on with runs/long, after ") == 1
    assert out.count("Checkpoint: runs/long/checkpoints/last") == 1, out
    assert contents(tmp_path / "runs/long") == undisturbed(launch, tmp_path)


@pytest.mark.usefixtures("no_plots")
def test_ctrl_c_leaves_a_checkpoint_and_a_report_and_resume_completes_it(
    torchrun, launch, tmp_path
):
    long = ("--output", "run", "--quiet", "--set", "train={epochs: 100000, checkpoint_every: 6}")
    run = torchrun(("--nproc-per-node", "2"), "train", "a.yaml", *long)
    log = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + LONGEST
    while not (log.exists() and log.read_bytes().count(b"\n") > 50):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=LONGEST)
    assert run.returncode == 1  # torchrun's own way to say that it was interrupted
    report = reports.read(tmp_path / "run/report.json")
    assert (report.status, report.checkpoint) == ("interrupted", "checkpoints/last")
    assert out == "run\n"
    assert err.count("lrtool: interrupted: ") == 1
    done = report.epochs[-1].step // 4

    more = ("--resume", "run", "--quiet", "--epochs", done + 3)
    children = launch(2, "train", "run/config.yaml", *more)
    assert [child.wait(LONGEST).returncode for child in children] == [0, 0]
    report = reports.read(tmp_path / "run/report.json")
    assert report.status == "completed"
    assert [epoch.epoch for epoch in report.epochs] == list(range(1, done + 4))
