"""Fit the constants of the suggestion on the development cells, step by step: see README.md.

    python -m benchmarks.regret grids development     the truth: which rates train best
    python -m research looks                          sweeps and first updates
    python -m research trials                         seven short trainings around each estimate
    python -m research full_trials                    a whole training where they may mislead
    python -m research races                          a race around each estimate
    python -m research fit                            writes the constants

Run it from the repository's root. What is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.regret.cells import DEVELOPMENT, DEVELOPMENT_NEW
from benchmarks.regret.finders import TUNED_FILE
from benchmarks.regret.jobs import Job, run, to_file
from lrtool.report import files
from research import cross_validation, fit, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.regret.cells import Cell

CACHE = Path("runs/regret")
CELLS = [*DEVELOPMENT, *DEVELOPMENT_NEW]
CONSTANTS = Path(__file__).parents[1] / "lrtool" / "curve" / "constants.json"


def looks(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what records the sweeps and first updates that are missing."""
    cells = {path: cell for cell in chosen if not (path := record.look_file(cell, cache)).exists()}
    return [
        Job(path.stem, 1, partial(to_file, path, record.look, cell)) for path, cell in cells.items()
    ]


def trials(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what records the trials that are missing."""
    centres = cross_validation.trial_centres(chosen, cache)
    return [
        Job(cell.name, 1, partial(to_file, path, record.trials, cell, centres[cell.name]))
        for cell in chosen
        if cell.name in centres and not (path := record.trials_file(cell, cache)).exists()
    ]


def full_trials(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what records the full trials that are missing."""
    centres = cross_validation.full_trial_centres(chosen, cache)
    return [
        Job(cell.name, 1, partial(to_file, path, record.full_trials, cell, centres[cell.name]))
        for cell in chosen
        if cell.name in centres and not (path := record.full_trials_file(cell, cache)).exists()
    ]


def races(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what records the races that are missing."""
    centres = cross_validation.race_centres(chosen, cache)
    return [
        Job(
            cell.name,
            max(cell.steps / 1000, 1),
            partial(to_file, path, record.races, cell, centres[cell.name]),
        )
        for cell in chosen
        if not (path := record.races_file(cell, cache)).exists()
    ]


RECORDINGS = {"looks": looks, "trials": trials, "full_trials": full_trials, "races": races}


def write_constants(chosen: Sequence[Cell], cache: Path) -> None:
    """Write the constants of the suggestion, and those of the control that needs no sweep."""
    fitted = cross_validation.constants_with_provenance(chosen, cache)
    tuned = fit.tuned(chosen, cache)
    for path, values in ((CONSTANTS, fitted), (TUNED_FILE, tuned)):
        files.write_text(path, json.dumps(rounded(values), indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Return plain data with thousandths: more digits would be noise."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(
        "python -m research",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=[*RECORDINGS, "fit"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.step == "fit":
        write_constants(CELLS, options.cache)
    else:
        run(options.step, RECORDINGS[options.step](CELLS, options.cache), options.processes)


if __name__ == "__main__":
    main()
