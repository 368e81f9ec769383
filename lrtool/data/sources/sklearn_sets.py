"""Small data sets that come with scikit-learn; nothing is downloaded."""
# ruff: noqa: PLC0415  (scikit-learn is imported only when it is needed)
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.data.encoding import Classes, numbers_learned, values_learned
from lrtool.data.samples import Parts, divide
from lrtool.data.split import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray


def wine(split: Split) -> Parts:
    """178 wines by 13 chemical measurements, 3 classes.

    Inputs are standardised with the mean and deviation of the training set.
    """
    from sklearn.datasets import load_wine

    return _measurements(split, "wine", load_wine())


def breast_cancer(split: Split) -> Parts:
    """569 tumours by 30 measurements, 2 classes.

    Inputs are standardised with the mean and deviation of the training set.
    """
    from sklearn.datasets import load_breast_cancer

    return _measurements(split, "breast_cancer", load_breast_cancer())


def iris(split: Split) -> Parts:
    """150 iris flowers by 4 measurements, 3 classes.

    Inputs are standardised with the mean and deviation of the training set.
    """
    from sklearn.datasets import load_iris

    return _measurements(split, "iris", load_iris())


def diabetes(split: Split) -> Parts:
    """442 diabetes patients by 10 measurements, one regression target.

    Inputs *and targets* are standardised with the mean and deviation of the training set, so
    always predicting the mean costs a mean squared error of 1.
    """
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    rows, held_out = split.indices(len(bunch.target), "diabetes")
    columns = _columns(bunch)
    inputs = numbers_learned(split, columns, rows)
    values = values_learned(split, "progression", bunch.target, rows)
    return divide(
        inputs.encode(columns),
        values.encode(bunch.target),
        rows,
        held_out,
        learned=(inputs, values),
        num_outputs=1,
    )


def _measurements(split: Split, name: str, bunch: Any) -> Parts:
    """Split a table of numbers with classes, and standardise the numbers."""
    targets = bunch.target.astype(np.int64)
    rows, held_out = split.indices(len(targets), name, targets)
    columns = _columns(bunch)
    inputs = numbers_learned(split, columns, rows)
    classes = Classes(None, tuple(map(str, bunch.target_names)))
    return divide(
        inputs.encode(columns),
        targets,
        rows,
        held_out,
        learned=(inputs, classes),
        num_outputs=len(bunch.target_names),
    )


def _columns(bunch: Any) -> dict[str, NDArray[np.float64]]:
    return dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True))
