"""Small data sets that come with scikit-learn; nothing is downloaded."""
# ruff: noqa: PLC0415  (scikit-learn is imported only when it is needed)
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import Any

import numpy as np

from lrtool.data.samples import Parts, divide, standardise
from lrtool.data.split import Split


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
    inputs, targets = (standardise(v, rows) for v in (bunch.data, bunch.target[:, None]))
    return divide(inputs, targets, rows, held_out, num_outputs=1)


def _measurements(split: Split, name: str, bunch: Any) -> Parts:
    """Split a table of numbers with classes, and standardise the numbers."""
    targets = bunch.target.astype(np.int64)
    rows, held_out = split.indices(len(targets), name, targets)
    inputs = standardise(bunch.data, rows)
    return divide(inputs, targets, rows, held_out, num_outputs=len(bunch.target_names))
