"""The exit codes; nothing else decides one.

0 done; 1 a bug; 2 usage, configuration or data; 3 no trustworthy suggestion; 4 training diverged;
5 out of memory; 130 and 143 interrupted; 141, from the system, stdout was closed.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from lrtool.cli.streams import say
from lrtool.data.workers import is_death_of_a_worker
from lrtool.errors import ConfigError, LrtoolError, OutOfMemoryError
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from lrtool.cli.signals import Stop
    from lrtool.report.report import Status

DONE, BUG, USAGE, NO_SUGGESTION, DIVERGED, OUT_OF_MEMORY = 0, 1, 2, 3, 4, 5


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


def of_error(error: Exception, speaker: str = "") -> int:
    """Say what went wrong and return its exit code.

    Args:
        error: that nothing caught.
        speaker: what the message begins with: "rank 2: ", or nothing.
    """
    if isinstance(error, ConfigError) and not speaker:  # its lines begin with file:line:column
        stderr_line(str(error))
        return USAGE
    if isinstance(error, LrtoolError):
        say(f"error: {speaker}{error}")
        return OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else USAGE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"error: {speaker}{where}{error.strerror or error}")
        return USAGE
    if _is_out_of_memory(error):
        say(f"error: {speaker}out of memory: {error}")
        return OUT_OF_MEMORY
    if is_death_of_a_worker(error):  # torch may raise this anywhere, from a signal
        say(
            f"error: {speaker}a process that loads data died: {error}; "
            "data.workers: 0 loads without it"
        )
        return USAGE
    traceback.print_exception(error)
    say(
        f"{speaker}this is a bug in lrtool; "
        "please report it with the lines above and the configuration"
    )
    return BUG
