"""Loaders whose workers fail, hang, or are left behind."""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from lrtool.data.worker_process import begin
from lrtool.data.workers import is_hanging_worker, words

# From Python 3.12 on, a process with threads is warned when it forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Failing(Dataset):
    """Raises what cannot be sent to another process, or returns it."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, index):
        class LocalError(Exception):
            message = "a text"

            def __init__(self, first, second):
                super().__init__(f"{first} of {second}")

        if self.kind == "error":
            raise LocalError(index, 4)
        if self.kind == "hangs":
            time.sleep(60)
        return lambda: index


def read(kind, timeout=20.0):
    loader = DataLoader(
        Failing(kind),
        2,
        num_workers=1,
        worker_init_fn=begin,
        timeout=timeout,
        collate_fn=lambda samples: samples,
    )
    return list(loader)


def test_an_error_of_a_local_class():
    with pytest.raises(RuntimeError, match=r"LocalError: 0 of 4") as caught:
        read("error")
    assert words(caught.value).endswith("LocalError: 0 of 4")


def test_a_batch_that_cannot_be_pickled(capfd):
    with pytest.raises(Exception, match=r"Can't (pickle|get) local object") as caught:
        read("lambda")
    assert "Failing.__getitem__" in words(caught.value)
    assert capfd.readouterr().err == ""


def test_a_worker_that_hangs(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    with pytest.raises(RuntimeError) as caught:
        read("hangs", timeout=0.5)
    for child in multiprocessing.active_children():  # as a command does at its end
        child.kill()
        child.join()
    assert is_hanging_worker(caught.value)
    assert not is_hanging_worker(ValueError("DataLoader timed out after 3 seconds"))


ORPHANS = """
import os, time, torch
from torch.utils.data import DataLoader, Dataset
from lrtool.data.worker_process import begin

class Hanging(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        # In one piece: where PYTHONUNBUFFERED is set, print writes the end of the line on its own.
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)

next(iter(DataLoader(Hanging(), 1, num_workers=2, worker_init_fn=begin)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of a parent's end")
def test_workers_die_with_their_parent():
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            workers = [int(parent.stdout.readline()) for _ in range(2)]
        finally:
            parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(map(_runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_the_words_of_errors():
    assert words(ValueError("no such file")) == "ValueError: no such file"
    text = "Caught KeyError in a worker.\nOriginal Traceback (most recent call last):\nKeyError: 3"
    assert words(RuntimeError(text)) == "KeyError: 3"
