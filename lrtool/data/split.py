"""Which samples are for training and which for validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """How a source must split its samples, and where it finds its files.

    Attributes:
        validation: a fraction below 1, a number of samples, or the path of a validation part;
            0 for none.
        seed: of the split, and of whatever else a source draws.
        directories: where relative paths are looked for, the first that has the file wins.
    """

    validation: float | int | str
    seed: int
    directories: tuple[Path, ...]

    @property
    def path(self) -> str | None:
        """The path of the validation part, or None when it is split off the training data."""
        return self.validation if isinstance(self.validation, str) else None

    def size(self, total: int, origin: str) -> int:
        """Return how many of `total` samples are for validation.

        Args:
            total: the number of samples.
            origin: the source or file, for messages.

        Raises:
            DataError: the validation part is a path, which `origin` cannot read, or it would be
                empty, or leave nothing to train on.
        """
        if isinstance(self.validation, str):
            raise DataError(
                f"data.validation: {origin} cannot read a validation part from a path"
                f" ({self.validation!r}); give a fraction below 1, a number of samples, or 0"
            )
        if not self.validation:
            return 0
        size = (
            self.validation if isinstance(self.validation, int) else round(self.validation * total)
        )
        if not size:
            raise DataError(
                f"data.validation: {self.validation} of the {total} samples of {origin} is none;"
                " give a larger fraction, or 0 for no validation"
            )
        if size >= total:
            raise DataError(
                f"data.validation: {self.validation} leaves nothing to train on, for {origin} has"
                f" {total} samples"
            )
        return size

    def indices(
        self, total: int, origin: str, classes: NDArray[np.int64] | None = None
    ) -> tuple[Rows, Rows | None]:
        """Return the rows for training and for validation, each in ascending order.

        With `classes` the parts hold each class in its share. A class of one row is for training.
        Where a part is too small to hold each class, rows are drawn regardless of class.

        Args:
            total: the number of rows.
            origin: the source or file, for messages.
            classes: the class index of each row, (total,), or None to draw rows at random.

        Raises:
            DataError: as `size`.
        """
        from sklearn.model_selection import train_test_split  # noqa: PLC0415  (slow to import)

        size = self.size(total, origin)
        rows = np.arange(total)
        if not size:
            return rows, None
        pool, strata = rows, None
        if classes is not None:
            _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
            several = np.flatnonzero(counts[inverse] > 1)
            kinds = int((counts > 1).sum())
            if 0 < kinds <= size <= len(several) - kinds:
                pool, strata = several, classes[several]
        _, drawn = train_test_split(pool, test_size=size, stratify=strata, random_state=self.seed)
        validation: Rows = np.sort(drawn)
        return np.setdiff1d(rows, validation), validation
