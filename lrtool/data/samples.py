"""The NumPy arrays that a source returns, split into training and validation set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lrtool.data.encoding import Inputs, Targets
    from lrtool.data.split import Rows
    from lrtool.report.records import ColumnFacts


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The samples of the training or the validation set.

    Attributes:
        inputs: float32 (N, …), or int64 tokens (N, T).
        targets: class indices, int64 (N,) or one for each token (N, T); or regression targets,
            float32 (N, k), 2-D so that outputs (B, 1) never broadcast against (B,).
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A data set, and what a model must know of it.

    Attributes:
        train: the training set.
        validation: the validation set, or None.
        learned: how inputs and targets were made.
        num_outputs: the number of classes, of regression targets, or of tokens to predict.
        vocabulary: the number of different tokens among the inputs; None for numeric inputs.
        columns: how each column of a table was read; empty for other data.
    """

    train: Samples
    validation: Samples | None
    learned: tuple[Inputs, Targets]
    num_outputs: int
    vocabulary: int | None = None
    columns: tuple[ColumnFacts, ...] = ()


def divide(
    inputs: NDArray[Any],
    targets: NDArray[Any],
    rows: Rows,
    held_out: Rows | None,
    *,
    learned: tuple[Inputs, Targets],
    num_outputs: int,
    vocabulary: int | None = None,
) -> Parts:
    """Put `rows` into the training set and `held_out` into the validation set."""
    return Parts(
        train=Samples(inputs[rows], targets[rows]),
        validation=None if held_out is None else Samples(inputs[held_out], targets[held_out]),
        learned=learned,
        num_outputs=num_outputs,
        vocabulary=vocabulary,
    )


def check_finite(values: NDArray[Any], origin: str) -> None:
    """Raise DataError for NaN or infinity among `values` (N, …); `origin` is named."""
    if not np.isfinite(values).all():
        raise DataError(f"{origin}: {not_finite(values)}")


def not_finite(values: NDArray[Any]) -> str:
    """Return which row of `values` (N, …) holds the first NaN or infinity, and how many rows do."""
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    row = int(bad.argmax())
    value = values[row][~np.isfinite(values[row])].flat[0]
    return (
        f"row {row} (counted from 0) holds {value}; {bad.sum()} of {len(values)} rows have a value"
        " that is not finite: correct or remove them"
    )
