"""Series of the UCR and UEA archives, read from the wheel of the package aeon, which holds some.

A wheel is a zip file. The package itself is neither installed nor imported: it needs numba.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

WHEEL = Path(__file__).parents[2] / "runs" / "regret" / "aeon-1.6.0-py3-none-any.whl"
GET = f"make {WHEEL.relative_to(Path(__file__).parents[2])}"


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all series of a problem, (N, channels, length), and their classes from 0, (N,).

    The archive's own two parts follow one another.

    Raises:
        SystemExit: the wheel is not there.
    """
    if not WHEEL.is_file():
        raise SystemExit(f"{WHEEL}: not there; {GET}")
    folder = name.removesuffix("_eq")  # series brought to one length lie beside the others
    x, labels = [], []
    with zipfile.ZipFile(WHEEL) as wheel:
        for part in ("TRAIN", "TEST"):
            text = wheel.read(f"aeon/datasets/data/{folder}/{name}_{part}.ts").decode()
            _, _, rows = text.partition("@data")
            for row in rows.split():
                *channels, label = row.split(":")
                x.append([[float(value) for value in channel.split(",")] for channel in channels])
                labels.append(label)
    return np.array(x, np.float32), np.unique(labels, return_inverse=True)[1]
