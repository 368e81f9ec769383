"""Let ranks fail at random: each launch must end soon, with one message and whole files.

    python tests/cli/rank_failures.py --runs 200 --seed 0

Each run has two to four ranks, which find, train or evaluate. One of them, or all, fail in one of
the ways of `KINDS`, at a random call of a random part of the user's code. The exit code is 1 if a
run did not end as it should.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forks import Child, import_what_they_need, start_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
data: {source: "faulty:data", batch_size: 16}
model: "faulty:model"
loss: "faulty:loss"
metrics: ["faulty:Metric"]
optimizer: {name: "faulty:Optimizer"}
learning_rate: 0.01
find: {steps: 30, repeats: 1, verify: false}
train: {epochs: 3, checkpoint_every: 7, gradient_clip_norm: 10}
runtime: {device: cpu, timeout: 3}
"""

FAULTY = '''
"""Parts of a training, one of which fails, at a call whose number is in the environment."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

PLACE, CALL = os.environ.get("PLACE"), int(os.environ.get("CALL", "0"))
calls = 0


def passed(place):
    """Fail if it is time."""
    global calls
    if place != PLACE:
        return
    calls += 1
    if calls == CALL or (calls > CALL and "raise" in os.environ["WHAT"]):
        Path(os.environ["MARK"]).touch()
        exec(os.environ["WHAT"], globals())


class Data(torch.utils.data.Dataset):
    def __init__(self, size):
        generator = torch.Generator().manual_seed(size)
        self.inputs = torch.randn(size, 4, generator=generator)
        self.targets = (self.inputs.sum(1) > 0).long()

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        passed("loader")
        return self.inputs[index], self.targets[index]


def data():
    return Data(96), Data(40)


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        passed("backward")
        return gradient


poison = 0.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        passed("forward")
        return Backward.apply(self.layers(x)) + poison


def model():
    return Net()


def loss(outputs, targets):
    passed("loss")
    return nn.functional.cross_entropy(outputs, targets)


class Metric:
    higher_is_better = True

    def reset(self):
        self.right, self.seen = 0, 0

    def update(self, outputs, targets):
        passed("metric")
        self.right += (outputs.argmax(1) == targets).sum().item()
        self.seen += len(targets)

    def compute(self):
        return self.right / self.seen


class Optimizer(torch.optim.SGD):
    def step(self, closure=None):
        passed("optimizer")
        return super().step(closure)
'''

PLACES = ("forward", "backward", "loader", "loss", "optimizer", "metric")
IN_A_STEP = ("forward", "backward", "loader", "optimizer")
IN_EVALUATION = ("forward", "loader", "loss", "metric")


@dataclass(frozen=True)
class Kind:
    """A way to fail.

    Attributes:
        what: a rank does at the place; nothing, where it comes from outside.
        codes: what the failing rank and the others may end with.
        words: are said once; None: nothing is said.
        status: of the report, where there is one.
        on_all: all ranks fail alike.
        sent: signal that the test sends to all ranks when one is there.
        places: where it can happen.
    """

    what: str = "pass"
    codes: tuple[set[int], set[int]] = ({2}, {2})
    words: str | None = None
    status: str = "failed"
    on_all: bool = False
    sent: int | None = None
    places: tuple[str, ...] = PLACES


# A signal that comes too late to stop anything leaves a run that is done.
KINDS = {
    "exception": Kind("raise ValueError('it went wrong')", words="it went wrong"),
    "exception on all": Kind("raise KeyError('it went wrong')", words="it went wrong", on_all=True),
    "out of memory": Kind(
        "raise MemoryError('no room')", ({5}, {5}), "out of memory", places=IN_A_STEP
    ),
    "out of device memory": Kind(
        "raise torch.OutOfMemoryError('CUDA out of memory')",
        ({5}, {5}),
        "out of memory",
        places=IN_A_STEP,
    ),
    "killed": Kind("os.kill(os.getpid(), 9)", ({-9}, {137}), "ended without a word"),
    "too slow": Kind("time.sleep(60)", ({2}, {2}), "runtime.timeout"),
    "SIGTERM": Kind("os.kill(os.getpid(), 15)", ({143, 0}, {143, 0}), status="interrupted"),
    "SIGINT": Kind("os.kill(os.getpid(), 2)", ({130, 0}, {130, 0}), status="interrupted"),
    "SIGTERM to all": Kind(codes=({143, 0}, {143, 0}), status="interrupted", sent=signal.SIGTERM),
    "SIGINT to all": Kind(codes=({130, 0}, {130, 0}), status="interrupted", sent=signal.SIGINT),
    "divergence": Kind(
        "global poison; poison = float('nan')",
        ({4, 3, 0}, {4, 3, 0}),
        status="diverged",
        on_all=True,
        places=("forward",),
    ),
    "full disk": Kind(
        "raise OSError(28, 'No space left on device')", words="No space left", places=("disk",)
    ),
}


@dataclass
class Run:
    """A launch that is to fail."""

    kind: str
    place: str
    call: int
    rank: int
    world_size: int
    arguments: list[str]

    def __str__(self) -> str:
        who = "all" if KINDS[self.kind].on_all else f"rank {self.rank}"
        return (
            f"{' '.join(self.arguments)}: {self.kind}, {who} of {self.world_size}, "
            f"{self.place} {self.call}"
        )


def random_run(chance: random.Random) -> Run:
    """Draw a run."""
    kind = chance.choice(list(KINDS))
    command = chance.choice(["find", "train", "train", "train --lr auto", "evaluate"])
    places = KINDS[kind].places
    if command == "evaluate":
        places = tuple(place for place in places if place in IN_EVALUATION)
        if not places or kind == "divergence":
            return random_run(chance)
    elif command == "find":
        places = tuple(place for place in places if place != "metric")
    place = chance.choice(places)
    calls = {"loader": 150, "metric": 5, "disk": 5}.get(place, 25)
    if command == "evaluate":
        calls = {"loader": 15, "metric": 2}.get(place, 2)
    world_size = chance.choice([2, 2, 2, 3, 4])
    rank = 0 if place == "disk" else chance.randrange(world_size)
    target = "trained" if command == "evaluate" else "faulty.yaml"
    first, *rest = command.split()
    arguments = [first, target, *rest]
    if command != "evaluate":
        arguments += ["--output", "out", "--quiet"]
    if chance.random() < 0.2:
        arguments += ["--set", "data.workers=1"]
        if place == "loader":
            calls = 15  # in the first batch: a later one may be made ahead and never be read
    return Run(kind, place, chance.randint(1, calls), rank, world_size, arguments)


def problems_of(run: Run, folder: Path, seconds: float) -> list[str]:
    """Start a run, wait for its end, and return what is wrong with that."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    for path in folder.glob("mark*"):
        path.unlink()
    kind = KINDS[run.kind]

    def prepare(rank: int) -> None:
        os.setpgid(0, 0)
        _hurry()
        os.environ["MARK"] = str(folder / f"mark-{rank}")
        if kind.on_all or rank == run.rank:
            os.environ |= {"PLACE": run.place, "CALL": str(run.call), "WHAT": kind.what}
            if run.place == "disk":
                _fail_to_write(run.call, folder / f"mark-{rank}")

    children = start_ranks(folder, run.world_size, run.arguments, prepare)
    codes = _wait(children, folder, kind, seconds)
    return list(_problems(run, folder, children, codes))


def _hurry() -> None:
    """Give ranks seconds where they have minutes, and leave out the plots."""
    from lrtool import claims
    from lrtool.cli import launch, watch
    from lrtool.show.plots import find, train

    launch.TIMEOUT = 20.0
    claims.ANSWER_S = 1.5
    watch.GRACE_S = watch.REPORT_S = 6.0
    find.save = train.save = lambda *_: []


def _fail_to_write(call: int, mark: Path) -> None:
    """Let a file be found too large for the disk as it is written through to it."""
    write_through, calls = os.fsync, iter(range(1, 1 << 30))

    def failing(file: int) -> None:
        if next(calls) >= call:
            mark.touch()
            raise OSError(28, "No space left on device")
        write_through(file)

    os.fsync = failing


def _wait(children: list[Child], folder: Path, kind: Kind, seconds: float) -> list[int | None]:
    """Return the exit codes; None for a rank that had to be killed."""
    codes: dict[int, int] = {}
    deadline, sent = time.monotonic() + 60, False
    while len(codes) < len(children) and time.monotonic() < deadline:
        if not sent and any(folder.glob("mark*")):
            sent, deadline = True, time.monotonic() + seconds
            if kind.sent is not None:
                for child in children:
                    child.send(kind.sent)
        for number, child in enumerate(children):
            if number not in codes:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    codes[number] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    for number, child in enumerate(children):
        if number not in codes:
            child.send(signal.SIGKILL)
            os.waitpid(child.pid, 0)
    return [codes.get(number) for number in range(len(children))]


def _problems(
    run: Run, folder: Path, children: list[Child], codes: list[int | None]
) -> Iterator[str]:
    kind = KINDS[run.kind]
    said = [child.err.read_text() for child in children]
    if None in codes:
        yield f"it hangs: {codes}"
    happened = any(folder.glob("mark*"))
    wanted = [
        ({0, 3} if not happened else kind.codes[0 if kind.on_all or rank == run.rank else 1])
        for rank in range(run.world_size)
    ]
    if not all(code in allowed for code, allowed in zip(codes, wanted, strict=True)):
        yield f"exit codes {codes}, not {wanted}"
    # An evaluation may be done on the other ranks when a signal ends this one.
    late = run.arguments[0] == "evaluate" and kind.status == "interrupted"
    if len({code for code in codes if code != -signal.SIGKILL}) > 1 and not late:
        yield f"exit codes differ: {codes}"
    lines = "".join(said).splitlines()
    if happened and kind.words and sum(kind.words in line for line in lines) != 1:
        yield f"{kind.words!r} is not said once"
    if "Traceback" in "".join(said):
        yield "a traceback"
    for child in children:
        if _lives(child.pid):
            yield "a process is left"
            os.killpg(child.pid, signal.SIGKILL)
    yield from _broken_files(run, folder / "out", happened=happened)


def _lives(group: int, seconds: float = 5.0) -> bool:
    """Tell whether a process of a group lives on; a dead one may not have been collected yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        command = ["ps", "-A", "-o", "pgid=,stat="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = (row.split() for row in listed.stdout.splitlines())
        if not any(int(number) == group and state[0] != "Z" for number, state in rows):
            return False
        time.sleep(0.1)
    return True


def _broken_files(run: Run, out: Path, *, happened: bool) -> Iterator[str]:
    import torch

    kind, report = KINDS[run.kind], out / "report.json"
    state = out / "checkpoints" / "last" / "state.pt"
    writer_is_gone = run.kind in {"killed", "too slow"} and run.rank == 0
    # A signal in the last moment of the set-up ends the process some steps later, without saving.
    in_set_up = kind.status == "interrupted" and not state.exists()
    log = out / "metrics.jsonl"
    begun = log.exists() and log.stat().st_size > 0
    if begun and not report.exists() and not writer_is_gone and not in_set_up:
        yield "no report"
    if report.exists():
        status = json.loads(report.read_text())["status"]
        done = {"completed", "no_suggestion"}
        # A signal while one rank is set up ends the others as a failure does.
        if status not in {kind.status, "failed", *done}:
            yield f"the report says {status}"
        if happened and kind.status == "failed" and status in done and not writer_is_gone:
            yield f"the report says {status}"
        for path in out.rglob("*.tmp*"):
            yield f"{path.name} is left"
    if state.exists():
        torch.load(state, weights_only=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of a run, to repeat it alone")
    parser.add_argument("--seconds", type=float, default=30.0, help="from a failure to the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = fail(Path(folder), options.runs, options.seed, options.seconds, options.only)
    return 1 if wrong else 0


def fail(
    folder: Path, runs: int, seed: int, seconds: float = 30.0, only: int | None = None
) -> list[str]:
    """Make random runs, say what each did, and return what was wrong."""
    import_what_they_need()
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "faulty.yaml").write_text(CONFIG)
    trained = Child(folder, ["train", "faulty.yaml", "--output", "trained", "--quiet"], _hurry)
    assert trained.wait().returncode == 0, trained.err.read_text()
    chance, wrong, kinds, begun = random.Random(seed), [], Counter(), time.monotonic()  # noqa: S311
    for number in range(1, runs + 1):
        run = random_run(chance)
        if only not in {None, number}:
            continue
        started = time.monotonic()
        found = problems_of(run, folder, seconds)
        happened = any(folder.glob("mark*"))
        kinds[run.kind] += happened
        ended = "; ".join(found) or ("as it should" if happened else "it was done before")
        _say(f"{number}: {run}: {ended} ({time.monotonic() - started:.1f} s)")
        if found:
            wrong.append(f"{number}: {run}: {ended}")
            for rank in range(run.world_size):
                _say((folder / f".stderr-{rank}").read_text())
    _say(", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    _say(
        f"{runs} runs, of which {sum(kinds.values())} failed as they were to, "
        f"in {time.monotonic() - begun:.0f} s; {len(wrong)} did not end as they should"
    )
    return wrong


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (a script)


if __name__ == "__main__":
    sys.exit(main())
