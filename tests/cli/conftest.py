"""The command line as a user runs it: another process, in an empty directory."""

import os
import subprocess
import sys

import pytest

# A terminal of the developer's must not colour or widen what is tested.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "FORCE_COLOR", "TERM"}}


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
