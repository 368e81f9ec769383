"""Measure cells, each in a process of one thread, and keep what was measured: a file a cell.

python benchmarks/regret/run.py grids published
python benchmarks/regret/run.py rates controls lrtool peers published
python benchmarks/regret/run.py exact published
python benchmarks/regret/run.py report published
python benchmarks/regret/run.py publish published

The suggestion's constants come from development cells alone:

python benchmarks/regret/run.py grids development
python benchmarks/regret/run.py looks development
python benchmarks/regret/run.py trials development
python benchmarks/regret/run.py races development
python benchmarks/regret/run.py fit development

What is there is not measured again. `rates peers` needs the environment of
benchmarks/requirements.txt, `rates lightning252` that of requirements-lightning252.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cells
import controls
import exact
import finders
import fit
import grid
import record
import torch

from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cells import Cell

    Job = tuple[str, float, Callable[[], None]]  # name, expected share of the work, what to do

SETS = {
    "development": cells.DEVELOPMENT,
    "published": cells.PUBLISHED,
    "quick": cells.QUICK,
}


def _grids(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    return [
        (cell.name, cell.steps, partial(_write_grid, cell, path))
        for cell in chosen
        if not (path := grid.file_of(cell, cache)).exists()
    ]


def _write_grid(cell: Cell, path: Path) -> None:
    files.write_text(path, json.dumps(grid.measure(cell)))


def _rates(sources: Sequence[str], chosen: Sequence[Cell], cache: Path) -> list[Job]:
    wanted = {
        path: (cell, source)
        for source in sources
        for cell in chosen
        if not (path := finders.file_of(cell, source, cache)).exists()
    }
    return [
        (f"{source}: {path.stem}", 1, partial(_write_rates, cell, source, path))
        for path, (cell, source) in wanted.items()
    ]


def _write_rates(cell: Cell, source: str, path: Path) -> None:
    files.write_text(path, json.dumps(finders.SOURCES[source](cell)))


def _exact(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    left = [(cell, len(exact.missing(cell, cache))) for cell in chosen]
    return [
        (cell.name, cell.steps * count, partial(exact.train, cell, cache))
        for cell, count in left
        if count
    ]


def _looks(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    pairs = {(cell.task, cell.optimizer): cell for cell in chosen}
    return [
        (path.stem, 1, partial(_write_look, cell, path))
        for cell in pairs.values()
        if not (path := record.look_file(cell, cache)).exists()
    ]


def _write_look(cell: Cell, path: Path) -> None:
    files.write_text(path, json.dumps(record.look(cell)))


def _trials(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    centres = fit.centres(fit.rows(chosen, cache), fit.density(chosen, cache))
    return [
        (cell.name, 1, partial(_write_trials, cell, centres[cell.name], path))
        for cell in chosen
        if cell.name in centres and not (path := record.trials_file(cell, cache)).exists()
    ]


def _write_trials(cell: Cell, centres: dict[str, float], path: Path) -> None:
    files.write_text(path, json.dumps(record.trials(cell, centres)))


def _races(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    centres = fit.race_centres(chosen, cache)
    return [
        (
            cell.name,
            max(cell.steps / 1000, 1),
            partial(_write_races, cell, centres[cell.name], path),
        )
        for cell in chosen
        if not (path := record.races_file(cell, cache)).exists()
    ]


def _write_races(cell: Cell, centres: dict[str, float], path: Path) -> None:
    files.write_text(path, json.dumps(record.races(cell, centres)))


def _fit(chosen: Sequence[Cell], cache: Path) -> None:
    """Write the constants of the suggestion, and those of the control that needs no sweep."""
    for path, fitted in (
        (fit.CONSTANTS, fit.fit(chosen, cache)),
        (controls.CONSTANTS, fit.tuned(fit.rows(chosen, cache))),
    ):
        files.write_text(path, json.dumps(fit.rounded(fitted), indent=1) + "\n")


def _alone(do: Callable[[], None]) -> None:
    """Do a job in one thread; warnings of others' packages are no news."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    do()


def _all(jobs: list[Job], processes: int) -> list[str]:
    """Do all jobs, the longest first, and return the names of those that failed."""
    jobs = sorted(jobs, key=lambda job: -job[1])
    started, done, whole, failed = time.perf_counter(), 0.0, sum(job[1] for job in jobs), []
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(_alone, do): (name, share) for name, share, do in jobs}
        for count, future in enumerate(as_completed(running), 1):
            name, share = running[future]
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
    return failed


def main() -> None:
    """Do one stage for a set of cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    for name in ("grids", "rates", "exact", "report", "publish", "looks", "trials", "races", "fit"):
        stage = stages.add_parser(name)
        if name == "rates":
            stage.add_argument("sources", nargs="+", choices=finders.SOURCES)
        stage.add_argument("cells", choices=SETS)
        stage.add_argument("--cache", type=Path, default=Path("runs/regret"))
        stage.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen, cache = SETS[options.cells], options.cache
    for folder in (
        "grids",
        "exact",
        "looks",
        "trials",
        "races",
        *(f"rates/{source}" for source in finders.SOURCES),
    ):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    if options.stage == "report":
        import page  # noqa: PLC0415  (matplotlib, which no other stage needs)

        page.write(chosen, cache, options.cells)
        return
    if options.stage == "publish":
        import publish  # noqa: PLC0415  (likewise)

        publish.publish(cache)
        return
    if options.stage == "fit":
        _fit(chosen, cache)
        return
    jobs = {
        "looks": lambda: _looks(chosen, cache),
        "trials": lambda: _trials(chosen, cache),
        "races": lambda: _races(chosen, cache),
        "grids": lambda: _grids(chosen, cache),
        "rates": lambda: _rates(options.sources, chosen, cache),
        "exact": lambda: _exact(chosen, cache),
    }[options.stage]()
    print(f"{options.stage}: {len(jobs)} to do", file=sys.stderr)
    failed = _all(jobs, options.processes)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; run the same command again for these alone")


if __name__ == "__main__":
    main()
