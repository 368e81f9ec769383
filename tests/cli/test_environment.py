"""What torchrun and other launchers set, and what they do not."""

import os

import pytest

from lrtool.cli import environment
from lrtool.errors import EndedLaunchError, LrtoolWarning, UserError

WHOLE = {
    "RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
START = "start with torchrun, which sets all of them"


@pytest.fixture
def given(monkeypatch):
    """Set these variables alone."""

    def given(**variables):
        for name in (*environment.VARIABLES, *os.environ):
            if name in environment.VARIABLES or name.startswith(("SLURM_", "OMPI_", "PMI_")):
                monkeypatch.delenv(name, raising=False)
        for name, text in variables.items():
            monkeypatch.setenv(name, text)

    return given


@pytest.mark.parametrize(
    ("variables", "launched", "first", "speaker"),
    [
        ({}, False, True, ""),
        (WHOLE, True, True, ""),
        ({**WHOLE, "RANK": "1"}, True, False, "rank 1: "),
        ({**WHOLE, "WORLD_SIZE": "1"}, False, True, ""),
        ({"WORLD_SIZE": "1"}, False, True, ""),
    ],
)
def test_the_rank_is_what_torchrun_says(given, variables, launched, first, speaker):
    given(**variables)
    environment.check()
    assert environment.launched() == launched
    assert (environment.first(), environment.speaker()) == (first, speaker)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            (
                "RANK and WORLD_SIZE are set, but LOCAL_RANK and MASTER_ADDR and MASTER_PORT are "
                f"not; {START}, or unset them for one process"
            ),
        ),
        (
            {"MASTER_ADDR": "node1"},
            (
                "MASTER_ADDR is set, but RANK and WORLD_SIZE and LOCAL_RANK and MASTER_PORT are "
                f"not; {START}, or unset them for one process"
            ),
        ),
        ({**WHOLE, "WORLD_SIZE": "two"}, f"WORLD_SIZE is 'two', which is not a number; {START}"),
        ({**WHOLE, "WORLD_SIZE": "-2"}, f"WORLD_SIZE is '-2', which is not a number; {START}"),
        (
            {**WHOLE, "MASTER_PORT": "http"},
            f"MASTER_PORT is 'http', which is not a number; {START}",
        ),
        ({**WHOLE, "MASTER_PORT": "70000"}, f"MASTER_PORT is 70000, which is no port; {START}"),
        ({**WHOLE, "RANK": "x"}, f"RANK is 'x', which is not a number from 0; {START}"),
        ({**WHOLE, "RANK": "2"}, f"RANK is 2, but 2 ranks (WORLD_SIZE) count from 0; {START}"),
        (
            {**WHOLE, "LOCAL_RANK": "-1"},
            f"LOCAL_RANK is '-1', which is not a number from 0; {START}",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
            (
                "srun has started lrtool 4 times (SLURM_STEP_NUM_TASKS), and each copy would do "
                "all of the work; let srun start torchrun, once on each machine"
            ),
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": "2"},
            (
                "mpirun has started lrtool 2 times (OMPI_COMM_WORLD_SIZE), and each copy would do "
                "all of the work; let mpirun start torchrun, once on each machine"
            ),
        ),
    ],
)
def test_half_a_launch_is_refused(given, variables, problem):
    given(**variables)
    with pytest.raises(UserError) as caught:
        environment.check()
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "variables",
    [
        {**WHOLE, "RANK": "1", "MASTER_PORT": "http"},
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"},
    ],
)
def test_the_other_processes_leave_it_to_the_first_to_say_so(given, variables):
    given(**variables)
    with pytest.raises(EndedLaunchError) as caught:
        environment.check()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("tasks", ["", "1"])
def test_one_task_of_slurm_is_one_process(given, tasks):
    given(SLURM_NTASKS=tasks, SLURM_STEP_NUM_TASKS=tasks)
    environment.check()
    assert not environment.launched()


def test_tasks_of_slurm_that_nobody_uses_are_said(given):
    given(SLURM_NTASKS="4")
    words = r"Slurm has 4 tasks for this job \(SLURM_NTASKS\), and this process works alone; srun"
    with pytest.warns(LrtoolWarning, match=words):
        environment.check()
