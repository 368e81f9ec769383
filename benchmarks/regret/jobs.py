"""Measurements side by side, each in a process of one thread that leaves a file of JSON."""

from __future__ import annotations

import json
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Job(NamedTuple):
    """One measurement.

    Attributes:
        name: for the progress.
        share: of the work, as it is expected, in any unit.
        do: measures and writes; a function of a module with its arguments, for another process.
    """

    name: str
    share: float
    do: Callable[[], None]


def to_file(path: Path, measure: Callable[..., Any], *args: Any) -> None:
    """Write what `measure` returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(measure(*args)))


def run(stage: str, jobs: Sequence[Job], processes: int) -> None:
    """Do all jobs, the longest first.

    Raises:
        SystemExit: with the names of those that failed.
    """
    print(f"{stage}: {len(jobs)} to do", file=sys.stderr)
    started, done, whole, failed = time.perf_counter(), 0.0, sum(job.share for job in jobs), []
    with ProcessPoolExecutor(processes) as pool:
        longest = sorted(jobs, key=lambda job: -job.share)
        running = {pool.submit(_alone, job.do): job for job in longest}
        for count, future in enumerate(as_completed(running), 1):
            name, share, _ = running[future]
            done += share
            elapsed = time.perf_counter() - started
            left = elapsed * (whole - done) / done
            print(
                f"{count} of {len(jobs)}: {name}; {elapsed / 60:.1f} min, {left / 60:.1f} left",
                file=sys.stderr,
            )
            error = future.exception()
            if error is not None:
                failed.append(name)
                print("".join(traceback.format_exception(error)), file=sys.stderr)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; run the same command again for these alone")


def _alone(do: Callable[[], None]) -> None:
    """Do a job in one thread; warnings of others' packages are no news."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    do()
