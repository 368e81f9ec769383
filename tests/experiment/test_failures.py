"""Whose fault a failed step is."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import lrtool
from lrtool.data.workers import is_death_of_a_worker
from lrtool.errors import DataError, UserError
from lrtool.experiment.failures import explain
from lrtool.ranks import ALONE

PACKAGE = Path(lrtool.__file__).parent
TASK = SimpleNamespace(
    runtime=SimpleNamespace(ranks=ALONE),
    config=SimpleNamespace(
        model=SimpleNamespace(name="net:Net"),
        loss=SimpleNamespace(name="mse_loss"),
        optimizer=SimpleNamespace(name="adam", inner=None),
        data=SimpleNamespace(source="digits"),
    ),
)


def raised(code, filename):
    """What a line of code raises that stands in a file."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever it is)
        exec(compile(code, filename, "exec"), {})  # noqa: S102  (the test's own)
    return caught.value


@pytest.mark.parametrize("code", ["missing", "assert 1 == 2"])
def test_a_wrong_name_in_our_files_is_a_bug_of_ours(code):
    ours = raised(code, str(PACKAGE / "engine" / "step.py"))
    assert explain(TASK, ours) is ours


def test_a_wrong_name_in_a_file_beside_ours_is_the_user_s():
    file = f"{PACKAGE}_mine/net.py"  # begins with the same letters
    said = explain(TASK, raised("missing", file))
    assert type(said) is UserError
    assert str(said) == f"net:Net failed: NameError: name 'missing' is not defined ({file}:1)"


def test_what_is_worded_already_stays():
    error = DataError("broken")
    assert explain(TASK, error) is error


def test_a_process_that_died_is_known_by_torch_s_words():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. Details are lost.")
    assert is_death_of_a_worker(error)
    assert str(explain(TASK, error)) == (
        "data.source digits failed: a process that loads data ended by itself, or was ended: "
        "DataLoader worker (pid 7) is killed by signal: Killed; data.workers: 0 loads without it"
    )


def test_a_process_that_died_is_known_by_its_broken_connection():
    broken = raised("raise EOFError", "/lib/python3/multiprocessing/connection.py")
    assert is_death_of_a_worker(broken)
    assert not is_death_of_a_worker(raised("raise EOFError", "/mine/multiprocessing_connection.py"))
    assert not is_death_of_a_worker(raised("missing", "/lib/multiprocessing/connection.py"))
