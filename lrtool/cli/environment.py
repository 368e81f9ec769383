"""Which process of a launch this is, by what torchrun has set in the environment."""

from __future__ import annotations

import os
import warnings

from lrtool.errors import EndedLaunchError, LrtoolWarning, UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Launchers that start copies of a program: the number of copies, and which one this is.
COPIES = {
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
}
HOW = "start with torchrun, which sets all of them"


def launched() -> bool:
    """Tell whether this is one of several processes of a launch."""
    return os.environ.get("WORLD_SIZE", "") not in {"", "0", "1"}


def first() -> bool:
    """Tell whether this process speaks for all."""
    return not launched() or os.environ.get("RANK", "0") == "0"


def speaker() -> str:
    """Return how a message of this rank's own begins: "rank 2: "; "" for the first rank."""
    return "" if first() else f"rank {os.environ['RANK']}: "


def check() -> None:
    """Refuse an environment that is neither that of one process, nor of a whole launch.

    Raises:
        UserError: what is wrong.
        EndedLaunchError: likewise; another process says it.

    Warns:
        LrtoolWarning: Slurm has tasks that one process does not use.
    """
    if not any(os.environ.get(name) for name in VARIABLES):
        _check_copies()
    elif launched() or not os.environ.get("WORLD_SIZE"):
        for name in ("RANK", "LOCAL_RANK"):
            if problem := _problem_of_rank(name):
                raise UserError(problem)
        if problem := _problem():
            raise UserError(problem) if first() else EndedLaunchError(problem, exit_code=2)


def _problem_of_rank(name: str) -> str | None:
    """Return what is wrong with this process's own number."""
    text, size = os.environ.get(name), os.environ.get("WORLD_SIZE", "")
    if text and not _is_number(text):
        return f"{name} is {text!r}, which is not a number from 0; {HOW}"
    if text and _is_number(size) and int(text) >= int(size):
        return f"{name} is {text}, but {size} ranks (WORLD_SIZE) count from 0; {HOW}"
    return None


def _problem() -> str | None:
    """Return what is wrong with the variables that all ranks have alike."""
    given = [name for name in VARIABLES if os.environ.get(name)]
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        return f"{_are(given)} set, but {_are(missing)} not; {HOW}, or unset them for one process"
    for name in ("WORLD_SIZE", "MASTER_PORT"):
        if not _is_number(os.environ[name]):
            return f"{name} is {os.environ[name]!r}, which is not a number; {HOW}"
    if not 0 < int(os.environ["MASTER_PORT"]) < 1 << 16:
        return f"MASTER_PORT is {os.environ['MASTER_PORT']}, which is no port; {HOW}"
    return None


def _check_copies() -> None:
    for launcher, (size, number) in COPIES.items():
        copies = os.environ.get(size, "")
        if copies not in {"", "0", "1"}:
            problem = (
                f"{launcher} has started lrtool {copies} times ({size}), and each copy would do all"
                f" of the work; let {launcher} start torchrun, once on each machine"
            )
            alone = os.environ.get(number, "0") == "0"
            raise UserError(problem) if alone else EndedLaunchError(problem, exit_code=2)
    tasks = os.environ.get("SLURM_NTASKS", "")
    if tasks not in {"", "0", "1"}:
        warnings.warn(
            f"Slurm has {tasks} tasks for this job (SLURM_NTASKS), and this process works alone; "
            "srun torchrun … starts several",
            LrtoolWarning,
            stacklevel=2,
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _are(names: list[str]) -> str:
    return f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'}"
