"""Generated samples, of any size and noise."""
# ruff: noqa: PLC0415  (scikit-learn is imported only when it is needed)
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from lrtool.data.encoding import ClassIndices, numbers_learned, values_learned
from lrtool.data.samples import Parts, divide
from lrtool.data.split import Split
from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST = 10**9  # of each size: two of them multiply to a number of bytes that can be refused


def synthetic(
    split: Split,
    *,
    task: Literal["classification", "regression"] = "classification",
    samples: int = 1000,
    features: int = 20,
    informative: int | None = None,
    classes: int | None = None,
    noise: float = 0.1,
) -> Parts:
    """Made-up samples: Gaussian clusters to classify, or a linear function to regress.

    Drawn with the seed of the run. Inputs and regression targets are standardised with the mean and
    deviation of the training set.

    Args:
        split: how to split.
        task: classification: each class is two Gaussian clusters at corners of a hypercube
            (Guyon 2003, "Design of experiments for the NIPS 2003 variable selection benchmark").
            regression: a random linear function of the inputs.
        samples: the number of samples.
        features: the number of input columns.
        informative: how many of them the target depends on; null: all.
        classes: the number of classes; null: 2. Only for classification.
        noise: classification: the share of targets drawn at random. regression: the deviation of
            the Gaussian noise, divided by that of the noiseless target.

    Raises:
        ConfigError: the sizes contradict each other.
    """
    from sklearn.datasets import make_classification, make_regression

    informative = features if informative is None else informative
    _check(samples=samples, features=features, informative=informative)
    if noise < 0:
        raise _wrong("noise", f"must be at least 0, not {noise:g}")
    if task == "regression":
        if classes is not None:
            raise _wrong("classes", "has no meaning for task: regression; remove it")
        inputs, signal = make_regression(
            samples, features, n_informative=informative, random_state=split.seed
        )
        random = np.random.default_rng(split.seed)
        targets = signal + noise * signal.std() * random.standard_normal(samples)
        rows, held_out = split.indices(samples, "synthetic")
        columns = _columns(inputs)
        table = numbers_learned(split, columns, rows)
        values = values_learned(split, "y", targets, rows)
        return divide(
            table.encode(columns),
            values.encode(targets),
            rows,
            held_out,
            learned=(table, values),
            num_outputs=1,
        )

    classes = 2 if classes is None else classes
    if classes < 2:
        raise _wrong("classes", f"must be at least 2, not {classes}")
    room = 2 ** min(informative - 1, 62)
    if classes > room:
        raise _wrong(
            "informative",
            f"{informative} informative features have room for {room} classes, not {classes};"
            " raise informative or features",
        )
    if noise > 1:
        raise _wrong("noise", f"is a share of the targets: at most 1, not {noise:g}")
    inputs, labels = make_classification(
        samples,
        features,
        n_informative=informative,
        n_redundant=0,
        n_classes=classes,
        flip_y=noise,
        random_state=split.seed,
    )
    labels = labels.astype(np.int64)
    rows, held_out = split.indices(samples, "synthetic", labels)
    columns = _columns(inputs)
    table = numbers_learned(split, columns, rows)
    return divide(
        table.encode(columns),
        labels,
        rows,
        held_out,
        learned=(table, ClassIndices(classes)),
        num_outputs=classes,
    )


def _columns(inputs: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {f"x{number}": column for number, column in enumerate(inputs.T)}


def _check(*, samples: int, features: int, informative: int) -> None:
    for name, value in (("samples", samples), ("features", features), ("informative", informative)):
        if not 1 <= value <= _MOST:
            raise _wrong(name, f"must be from 1 to {_MOST:,}, not {value}")
    if informative > features:
        raise _wrong("informative", f"{informative} of {features} features cannot be informative")


def _wrong(argument: str, problem: str) -> ConfigError:
    return ConfigError(Problem(("data", "args", argument), problem))
