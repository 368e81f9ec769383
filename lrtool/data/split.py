"""The split into training and validation set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lrtool.data.encoding import Encoding

    Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """How a source must split its samples, and where its files are.

    Attributes:
        validation: a fraction below 1, a number of samples, or the path of a validation set;
            0 for none.
        seed: of the split, and of the source's other random numbers.
        directories: where relative paths are looked for, in this order.
        encoding: what a run has learned, to read data with; None: it is learned from the training
            set.
        values: the loss takes numbers, so numbers to predict are no classes.
        unscaled: numbers to predict stay as they are: counts, probabilities or signs.
    """

    validation: float | int | str
    seed: int
    directories: tuple[Path, ...]
    encoding: Encoding | None = None
    values: bool = False
    unscaled: bool = False

    @property
    def path(self) -> str | None:
        """The path of the validation set; None if it is split off the training data."""
        return self.validation if isinstance(self.validation, str) else None

    def size(self, total: int, origin: str) -> int:
        """Return how many of `total` samples are for validation.

        Args:
            total: the number of samples.
            origin: the source or file, for messages.

        Raises:
            ConfigError: the validation set is a path, which `origin` does not support, would be
                empty, or would leave nothing to train on.
        """
        if isinstance(self.validation, str):
            raise _wrong(
                f"{origin} cannot read a validation set from a path ({self.validation!r}); give a"
                " fraction below 1, a number of samples, or 0"
            )
        if not self.validation:
            return 0
        size = (
            self.validation if isinstance(self.validation, int) else round(self.validation * total)
        )
        if not size:
            raise _wrong(
                f"{self.validation} of the {total} samples of {origin} is none; give a larger"
                " fraction, or 0 for no validation"
            )
        if size >= total:
            raise _wrong(
                f"{self.validation} leaves nothing to train on, for {origin} has {total} samples"
            )
        return size

    def indices(
        self, total: int, origin: str, classes: NDArray[np.int64] | None = None
    ) -> tuple[Rows, Rows | None]:
        """Return the rows for training and for validation, each in ascending order.

        With `classes` the split is stratified; a class of one row is for training. If a part is too
        small to hold each class, rows are drawn regardless of class.

        Args:
            total: the number of rows.
            origin: the source or file, for messages.
            classes: the class index of each row, (total,), or None to draw rows at random.

        Raises:
            ConfigError: as `size`.
        """
        size = self.size(total, origin)
        rows = np.arange(total)
        if not size:
            return rows, None
        # The same rows as from scikit-learn's train_test_split, which is slow to import.
        rng = np.random.RandomState(self.seed)
        drawn: Rows | None = None
        if classes is not None:
            _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
            several = np.flatnonzero(counts[inverse] > 1)
            kinds = int((counts > 1).sum())
            if 0 < kinds <= size <= len(several) - kinds:
                drawn = several[_in_shares(classes[several], size, rng)]
        validation: Rows = np.sort(rng.permutation(total)[:size] if drawn is None else drawn)
        return np.setdiff1d(rows, validation), validation


def _in_shares(classes: NDArray[np.int64], size: int, rng: np.random.RandomState) -> Rows:
    """Draw `size` indices of `classes`, stratified."""
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    kept = _shares(counts, len(classes) - size, rng)
    drawn = _shares(counts - kept, size, rng)  # the rest; called as scikit-learn does, for the rng
    places = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    shuffled = [rows[rng.permutation(len(rows))] for rows in places]
    parts = zip(shuffled, kept, drawn, strict=True)
    return np.concatenate([rows[first : first + count] for rows, first, count in parts])


def _shares(counts: NDArray[np.int64], size: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Return how many of each class make up `size`; ties are rounded up at random."""
    exact = counts / counts.sum() * size
    shares: NDArray[np.float64] = np.floor(exact)
    remainders = exact - shares
    missing = int(size - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        chosen = rng.choice(equal, size=min(len(equal), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(np.int64)


def _wrong(problem: str) -> ConfigError:
    return ConfigError(Problem(("data", "validation"), problem))
