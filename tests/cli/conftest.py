"""The command line as a user runs it, in an empty directory; where its process is not the point,
without waiting for a new one to import torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forks import Child, Done, import_what_they_need, main, start_ranks

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


@pytest.fixture
def start(tmp_path):
    """Start `lrtool …` in a fork of this process; `prepare` is called there first."""
    import_what_they_need()

    def start(*arguments, prepare=lambda: None):
        return Child(tmp_path, arguments, prepare)

    return start


@pytest.fixture
def launch(tmp_path):
    """Start `lrtool …` as so many ranks, as torchrun would; return the children.

    `prepare(rank)` is called in each of them first.
    """
    import_what_they_need()

    def launch(world_size, *arguments, prepare=lambda _: None):
        return start_ranks(tmp_path, world_size, arguments, prepare)

    return launch


@pytest.fixture
def here(tmp_path, monkeypatch, capfd):
    """Run `lrtool …` in this very process."""
    monkeypatch.chdir(tmp_path)
    for name in TERMINAL:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        capfd.readouterr()
        code = main(arguments)
        seen = capfd.readouterr()
        return Done(code, seen.out, seen.err)

    yield run
    _forget_modules_in(tmp_path)


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
