"""The exit codes; nothing else decides one.

0 done; 1 a bug; 2 usage, configuration or data; 3 no trustworthy suggestion; 4 training diverged;
5 out of memory; 130 and 143 interrupted; 137 a rank of a launch was lost, as the shell says of a
killed process; 141, from the system, stdout was closed.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from lrtool.cli.streams import say
from lrtool.data.workers import is_death_of_a_worker
from lrtool.errors import ConfigError, EndedLaunchError, LrtoolError, OutOfMemoryError, said
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from lrtool.cli.signals import Stop
    from lrtool.report.report import Status

DONE, BUG, USAGE, NO_SUGGESTION, DIVERGED, OUT_OF_MEMORY = 0, 1, 2, 3, 4, 5
LOST_RANK = 137


def of_run(status: Status, stop: Stop) -> int:
    """Return the exit code of a run that has written its report."""
    if stop.signal is not None and status == "interrupted":
        return stop.exit_code()
    return {"completed": DONE, "no_suggestion": NO_SUGGESTION, "diverged": DIVERGED}[status]


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from lrtool.engine.device import is_out_of_memory

    return is_out_of_memory(error)


def of_error(error: Exception) -> int:
    """Return the exit code of an error that nothing caught."""
    if isinstance(error, EndedLaunchError):
        lost = USAGE if error.late else LOST_RANK
        return lost if error.exit_code is None else error.exit_code
    if _is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, LrtoolError | OSError) or is_death_of_a_worker(error):
        return USAGE
    return BUG


def words(error: Exception) -> str:
    """Return what to say of an error that nothing caught; a bug has a traceback besides."""
    if isinstance(error, LrtoolError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    if _is_out_of_memory(error):
        return f"out of memory: {error}"
    if is_death_of_a_worker(error):  # torch may raise this anywhere, from a signal
        return f"a process that loads data died: {error}; data.workers: 0 loads without it"
    return f"{type(error).__name__}: {said(error)}"


def end(error: Exception, speaker: str = "") -> int:
    """Say what went wrong, unless another rank has done so; return the exit code.

    Args:
        error: that nothing caught.
        speaker: what the message begins with: "rank 2: ", or nothing.
    """
    code = of_error(error)
    if isinstance(error, EndedLaunchError):
        if error.exit_code is None:
            say(f"error: {error}")
    elif code == BUG:
        traceback.print_exception(error)
        say(
            f"{speaker}this is a bug in lrtool; "
            "please report it with the lines above and the configuration"
        )
    elif isinstance(error, ConfigError) and not speaker:  # its lines begin with file:line:column
        stderr_line(str(error))
    else:
        say(f"error: {speaker}{words(error)}")
    return code
