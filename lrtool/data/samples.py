"""What a source returns: plain NumPy arrays, already split into training and validation sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lrtool.data.split import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The samples of one part.

    Attributes:
        inputs: float32 (N, …), or int64 tokens (N, T).
        targets: class indices, int64 (N,) or one for each token (N, T); or regression targets,
            float32 (N, k), always 2-D so that outputs (B, 1) never broadcast against (B,).
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts of a data set and what a model must know of it.

    Attributes:
        train: what the model learns from.
        validation: what it is judged on, or None.
        num_outputs: the number of classes, of regression targets, or of tokens to predict.
        vocabulary: how many different tokens the inputs hold, or None for numeric inputs.
    """

    train: Samples
    validation: Samples | None
    num_outputs: int
    vocabulary: int | None = None


def divide(
    inputs: NDArray[Any],
    targets: NDArray[Any],
    rows: Rows,
    held_out: Rows | None,
    *,
    num_outputs: int,
    vocabulary: int | None = None,
) -> Parts:
    """Put `rows` into the training set and `held_out` into the validation set."""
    return Parts(
        train=Samples(inputs[rows], targets[rows]),
        validation=None if held_out is None else Samples(inputs[held_out], targets[held_out]),
        num_outputs=num_outputs,
        vocabulary=vocabulary,
    )


def standardise(values: NDArray[Any], rows: Rows) -> NDArray[np.float32]:
    """Bring each column of `values` (N, k) to mean 0 and deviation 1 over `rows` alone.

    Rows that are held out for validation do not count. A constant column becomes 0.
    """
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415  (slow to import)

    scaled: NDArray[Any] = StandardScaler().fit(values[rows]).transform(values)
    return scaled.astype(np.float32)


def check_finite(values: NDArray[Any], origin: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: numbers, (N, …).
        origin: what they are, for the message: "x.npz: 'inputs'".

    Raises:
        DataError: naming the first row that holds one, counted from 0.
    """
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        held = values[row][~np.isfinite(values[row])].flat[0]
        raise DataError(
            f"{origin}: row {row} (counted from 0) holds {held}; {bad.sum()} of {len(values)} rows"
            " have a value that is not finite: mend or remove them"
        )
