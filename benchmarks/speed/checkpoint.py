"""How long saving a checkpoint holds up a training, beside writing its bytes.

    python -m benchmarks.speed.checkpoint --rounds 7

A network of 100 million parameters with Adam: weights and two moments, 1.2 GB. Both write to the
same directory and wait for the disk, in turn, for disks are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from lrtool.components.schedules import Schedule
from lrtool.engine.checkpoint import TrainingState, save_checkpoint
from lrtool.engine.loop import BestTracker, Position
from lrtool.report.files import whole_file

WIDTH, LAYERS = 3162, 10
CHUNK = 1 << 24
TARGET = 2.0


def training() -> TrainingState:
    """Return a training of 100 million parameters after its first update."""
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(8, WIDTH)).square().mean().backward()
    optimizer.step()
    schedule = Schedule(lambda _step, _epoch: 1.0)
    best = BestTracker("train_loss", higher=False)
    return TrainingState(model, optimizer, None, schedule, None, Position(), best)


def save_seconds(state: TrainingState, folder: Path) -> float:
    """Save a checkpoint as a training does."""
    started = perf_counter()
    save_checkpoint(state, folder)
    return perf_counter() - started


def write_seconds(total: int, folder: Path) -> float:
    """Write as many bytes into one file, and wait for the disk."""
    chunk = torch.randint(256, (CHUNK,), dtype=torch.uint8).numpy().tobytes()
    started = perf_counter()
    with whole_file(folder / "bytes") as file:
        for begin in range(0, total, CHUNK):
            file.write(chunk[: total - begin])
    seconds = perf_counter() - started
    (folder / "bytes").unlink()
    return seconds


def main() -> None:
    """Measure, print, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure; else the temporary one"
    )
    options = parser.parse_args()
    state, ratios = training(), []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        save_checkpoint(state, folder)
        total = sum(path.stat().st_size for path in (folder / "last").iterdir())
        for _ in range(options.rounds):
            saving, writing = save_seconds(state, folder), write_seconds(total, folder)
            ratios.append(saving / writing)
            print(f"save {saving:.2f} s, write {writing:.2f} s: {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(f"{total / 1e6:,.0f} MB, median {ratio:.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"wanted < {TARGET}: {'yes' if ratio < TARGET else 'NO'}")
    sys.exit(0 if ratio < TARGET else 1)


if __name__ == "__main__":
    main()
