"""The handwritten digits that come with lrtool; see digits.txt for their origin."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from pathlib import Path

import numpy as np

from lrtool.data.encoding import ArrayInputs, ClassIndices
from lrtool.data.samples import Parts, divide
from lrtool.data.split import Split

_FILE = Path(__file__).with_suffix(".npz")


def digits(split: Split) -> Parts:
    """1,797 handwritten digits of 8 × 8 pixels, 10 classes.

    Inputs are (1, 8, 8), the grey values of 0 to 16 divided by 16.
    """
    with np.load(_FILE, allow_pickle=False) as file:
        images = file["images"].astype(np.float32)[:, None] / 16  # exact: 16 is a power of 2
        targets = file["labels"].astype(np.int64)
    rows, held_out = split.indices(len(targets), "digits", targets)
    learned = ArrayInputs("float32"), ClassIndices(10)
    return divide(images, targets, rows, held_out, learned=learned, num_outputs=10)
