"""Measure cells, each in a process of one thread, and keep what was measured: a file a cell.

python benchmarks/regret/run.py record development --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import cells
import record
import torch

from lrtool import files

if TYPE_CHECKING:
    from cells import Cell

SETS = {
    "development": cells.DEVELOPMENT,
    "published": cells.PUBLISHED,
    "quick": cells.QUICK,
}


def _measure(cell: Cell, folder: Path) -> tuple[str, float]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    started = time.perf_counter()
    files.write_text(folder / f"{cell.name}.json", json.dumps(record.record(cell)))
    return cell.name, time.perf_counter() - started


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", choices=SETS)
    parser.add_argument("--cache", type=Path, default=Path("runs/regret"))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    wanted = [
        cell for cell in SETS[options.cells] if not (options.cache / f"{cell.name}.json").exists()
    ]
    print(f"{len(wanted)} of {len(SETS[options.cells])} cells to measure", file=sys.stderr)
    with ProcessPoolExecutor(options.processes) as pool:
        running = [pool.submit(_measure, cell, options.cache) for cell in wanted]
        for done, future in enumerate(as_completed(running), 1):
            name, seconds = future.result()
            print(f"{done} of {len(wanted)}: {name}, {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
