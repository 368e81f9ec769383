"""Tables of numbers and words in a text file (CSV)."""
# ruff: noqa: PLC0415  (pandas and scikit-learn are imported only when they are needed)
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrtool.data.columns import (
    append,
    check_known,
    features_of,
    frame_of,
    read_table,
    target_of,
)
from lrtool.data.input_files import find_file
from lrtool.data.samples import Parts, divide, standardise
from lrtool.data.split import Split

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from lrtool.data.split import Rows


def csv(
    split: Split,
    *,
    path: str,
    target: str,
    task: Literal["auto", "classification", "regression"] = "auto",
    columns: list[str] | None = None,
    drop: list[str] = [],  # noqa: B006  (never changed; the annotation stays plain)
    categorical: list[str] = [],  # noqa: B006  (likewise)
    delimiter: str = ",",
) -> Parts:
    """A table with a header: numbers and words, one column to predict.

    A column is numeric if every value is a number, else categorical. Numeric inputs: missing values
    become the median, then the column is standardised. Categorical inputs: one column for each
    value, all 0 for a value not seen in training; missing is a value of its own. Regression targets
    are standardised too, so always predicting the mean costs a mean squared error of 1. All of it
    is fitted on the training set alone. Empty fields and `?`, `NA`, `N/A`, `NaN`, `null` or `None`
    are missing.

    Args:
        split: how to split; `data.validation` may be the path of another table of this form.
        path: the file, UTF-8.
        target: the column to predict.
        task: auto: classification if the target holds words, or at most 20 different whole
            numbers; otherwise regression.
        columns: the inputs; null: every column but the target.
        drop: columns to leave out.
        categorical: numeric columns to treat as words.
        delimiter: the character between fields.

    Raises:
        DataError: not UTF-8, rows of different lengths, a missing or unsuitable target, or a column
            that cannot be used; with file and line.
        ConfigError: an argument names a column that is not there.
    """
    table = read_table(find_file(path, split.directories), delimiter)
    features = features_of(table, target, columns, drop)
    check_known("categorical", categorical, features, table.path)
    count = len(table.places)
    if split.path is not None:
        other = read_table(find_file(split.path, split.directories), delimiter)
        table = append(table, other, [*features, target])
    frame = frame_of(table, features, categorical)
    labels, classes = target_of(table, target, task, count)
    if split.path is None:
        strata = labels if classes else None
        rows, held_out = split.indices(count, str(table.path), strata)
    else:
        rows, held_out = np.arange(count), np.arange(count, len(table.places))
    return divide(
        _encode(frame, rows),
        labels if classes else standardise(labels[:, None], rows),
        rows,
        held_out,
        num_outputs=classes or 1,
    )


def _encode(frame: pd.DataFrame, rows: Rows) -> NDArray[np.float32]:
    """Turn all rows into numbers, fitted on `rows` alone."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [name for name in frame.columns if frame[name].dtype == np.float64]
    words = [name for name in frame.columns if name not in numeric]
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    transformer = ColumnTransformer(
        [
            ("numeric", make_pipeline(median, StandardScaler()), numeric),
            ("words", one_hot, words),
        ]
    )
    encoded: NDArray[Any] = transformer.fit(frame.iloc[rows]).transform(frame)
    return encoded.astype(np.float32)
