"""How well suggested learning rates train: measure cells, a file a cell, and report.

    python -m benchmarks.regret grids published                      the exhaustive grids
    python -m benchmarks.regret rates controls lrtool published      what finders suggest
    python -m benchmarks.regret exact published                      training at these rates
    python -m benchmarks.regret report published                     report.html, report.json
    python -m benchmarks.regret publish                              both sets into the pages

Run it from the repository's root. What is there is not measured again. `rates peers` needs the
environment of benchmarks/requirements.txt, `rates lightning252` that of
requirements-lightning252.txt; `make regret` does all of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.regret import cells, finders, grid, outcomes, page, statistics
from benchmarks.regret.jobs import Job, run, to_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.regret.cells import Cell

CACHE = Path("runs/regret")


def grids(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what measures the grids that are missing."""
    return [
        Job(cell.name, cell.steps, partial(to_file, path, grid.measure, cell))
        for cell in chosen
        if not (path := grid.file_of(cell, cache)).exists()
    ]


def rates(sources: Sequence[str], chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what asks finders where their answer is missing."""
    wanted = {
        path: (cell, source)
        for source in sources
        for cell in chosen
        if not (path := finders.file_of(cell, source, cache)).exists()
    }
    return [
        Job(f"{source}: {path.stem}", 1, partial(to_file, path, finders.ask, cell, source))
        for path, (cell, source) in wanted.items()
    ]


def exact(chosen: Sequence[Cell], cache: Path) -> list[Job]:
    """Return what trains at the suggested rates that have not trained."""
    left = [(cell, len(outcomes.missing(cell, cache))) for cell in chosen]
    return [
        Job(cell.name, cell.steps * count, partial(outcomes.train, cell, cache))
        for cell, count in left
        if count
    ]


def report(name: str, chosen: Sequence[Cell], cache: Path) -> None:
    """Write report.json, report.html and pictures for a set of cells, and print the table."""
    from benchmarks.regret import pictures  # noqa: PLC0415  (matplotlib, for this stage alone)

    result, found = statistics.summarize(name, chosen, cache)
    folder = cache / name
    folder.mkdir(exist_ok=True)
    page.write(result, pictures.draw(result, found, folder), folder)
    print(page.markdown(result))
    print(folder / "report.html", file=sys.stderr)


def main() -> None:
    """Do one stage for a set of cells."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.regret",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    for name in ("grids", "rates", "exact", "report", "publish"):
        stage = stages.add_parser(name)
        if name == "rates":
            stage.add_argument("sources", nargs="+", choices=finders.SOURCES)
        if name != "publish":
            stage.add_argument("cells", choices=cells.SETS)
        stage.add_argument("--cache", type=Path, default=CACHE)
        if name in {"grids", "rates", "exact"}:
            stage.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    cache = options.cache
    if options.stage == "publish":
        page.publish(cache)
        return
    chosen = cells.SETS[options.cells]
    if options.stage == "report":
        report(options.cells, chosen, cache)
        return
    if options.stage == "grids":
        jobs = grids(chosen, cache)
    elif options.stage == "rates":
        jobs = rates(options.sources, chosen, cache)
    else:
        jobs = exact(chosen, cache)
    run(options.stage, jobs, options.processes)


if __name__ == "__main__":
    main()
