"""`lrtool …` in forks of a process that has imported torch already: as one, or as ranks."""

import atexit
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import pytest

# What a command imports where it needs it, and what DDP does: once, rather than in each fork.
NEEDED = (
    "lrtool.cli.app",
    "lrtool.search.experiment_subject",
    "lrtool.search.search",
    "lrtool.show.terminal.find",
    "lrtool.show.terminal.race",
    "lrtool.show.terminal.train",
    "lrtool.training.epochs",
    "lrtool.training.evaluated_data",
    "lrtool.training.initial_rate",
    "torch._dynamo",
)


def import_what_they_need():
    """Import what forks of this process would import."""
    for module in NEEDED:
        import_module(module)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


class Child:
    """`lrtool …` in a fork of the test's own process, which has torch already."""

    def __init__(self, folder, arguments, prepare, name=""):
        self.out, self.err = folder / f".stdout{name}", folder / f".stderr{name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks of threads, since 3.12
            self.pid = os.fork()
        if self.pid == 0:
            self._become(folder, arguments, prepare)

    def _become(self, folder, arguments, prepare):
        code = 99
        atexit._clear()  # what is registered is the test's own
        try:
            for number, path in ((1, self.out), (2, self.err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            os.chdir(folder)
            prepare()
            code = main(arguments)
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001  (nothing may return into the test's own process)
            traceback.print_exc()
        finally:
            os._exit(code)

    def send(self, number):
        os.kill(self.pid, number)

    def wait_for(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.002)

    def wait(self, seconds=60):
        """Return what became of it; one that hangs is killed, and fails the test."""
        deadline = time.monotonic() + seconds
        while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail(f"it hangs: {self.err.read_text()}")
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(ended[1])
        return Done(code, self.out.read_text(), self.err.read_text())


def start_ranks(folder, world_size, arguments, prepare):
    """Start so many ranks, as torchrun would; return the children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def become(rank):
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        prepare(rank)

    return [
        Child(folder, arguments, partial(become, rank), f"-{rank}") for rank in range(world_size)
    ]


def main(arguments):
    """Run `lrtool …` in this process; return its exit code."""
    from lrtool.cli import app as cli

    before = sys.argv
    sys.argv = ["lrtool", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0
