"""The command line as a user runs it, in an empty directory; where its process is not the point,
without waiting for a new one to import torch."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

# A terminal of the developer's must not colour or widen what is tested.
TERMINAL = ("COLUMNS", "FORCE_COLOR", "TERM")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in TERMINAL}


@pytest.fixture
def lrtool(tmp_path):
    """Run `lrtool …` in an empty directory and return the finished process."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "lrtool", *map(str, arguments)],
            cwd=tmp_path,
            env={**ENVIRONMENT, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def write(tmp_path):
    """Write a file into that directory and return its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


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
            code = _main(arguments)
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


@pytest.fixture
def start(tmp_path):
    """Start `lrtool …` in a fork of this process; `prepare` is called there first."""
    import lrtool.search.search
    import lrtool.training.epochs  # noqa: F401  (once here, rather than in each fork)

    def start(*arguments, prepare=lambda: None):
        return Child(tmp_path, arguments, prepare)

    return start


@pytest.fixture
def launch(start, tmp_path):  # noqa: ARG001  (start imports what the forks need)
    """Start `lrtool …` as so many ranks, as torchrun would; return the children.

    `prepare(rank)` is called in each of them first.
    """
    import torch._dynamo  # noqa: F401  (DDP imports it: once here, rather than in each fork)

    def launch(world_size, *arguments, prepare=lambda _: None):
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
            Child(tmp_path, arguments, partial(become, rank), f"-{rank}")
            for rank in range(world_size)
        ]

    return launch


@pytest.fixture
def here(tmp_path, monkeypatch, capfd):
    """Run `lrtool …` in this very process."""
    monkeypatch.chdir(tmp_path)
    for name in TERMINAL:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        capfd.readouterr()
        code = _main(arguments)
        seen = capfd.readouterr()
        return Done(code, seen.out, seen.err)

    yield run
    _forget_modules_in(tmp_path)


def _main(arguments):
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


def _forget_modules_in(folder):
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_relative_to(folder):
            del sys.modules[name]


@pytest.fixture
def no_plots(monkeypatch):
    """Leave the plots out where they are not the point: they take most of a short run's time."""
    from lrtool.show.plots import find as plot
    from lrtool.show.plots import train as training_plot

    monkeypatch.setattr(plot, "save", lambda *_: [])
    monkeypatch.setattr(training_plot, "save", lambda *_: [])
