"""Tables of numbers and words in a text file (CSV)."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from lrtool.data.columns import (
    append,
    check_known,
    check_trained,
    columns_as,
    features_of,
    frame_of,
    read_table,
    target_as,
    target_of,
)
from lrtool.data.encoding import TableInputs, learn_table, of_kind, values_learned
from lrtool.data.input_files import find_file
from lrtool.data.samples import Parts, divide
from lrtool.data.split import Split

if TYPE_CHECKING:
    from lrtool.data.encoding import Targets


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
    if split.encoding is None:
        features = features_of(table, target, columns, drop)
        check_known("categorical", categorical, features, table.path)
    else:
        known = of_kind(split.encoding, split.encoding.inputs, TableInputs)
        features = [column.name for column in known.columns]
        check_trained(table, [*features, target])
    count = len(table.places)
    if split.path is not None:
        other = read_table(find_file(split.path, split.directories), delimiter)
        table = append(table, other, [*features, target])
    if split.encoding is None:
        labels, classes = target_of(table, target, task, count)
    else:
        labels, classes = target_as(table, target, split.encoding.targets)
    if split.path is None:
        rows, held_out = split.indices(count, str(table.path), labels if classes else None)
    else:
        rows, held_out = np.arange(count), np.arange(count, len(table.places))
    if split.encoding is None:
        frame = frame_of(table, features, categorical)
        inputs = learn_table(frame.iloc[rows])
        encoded = inputs.encode(frame)
    else:
        inputs = known
        encoded = inputs.encode(columns_as(table, known), warn=True)
    learned: Targets | None = classes
    if learned is None:
        learned = values_learned(split, target, labels, rows)
        labels = learned.encode(labels)
    return divide(
        encoded,
        labels,
        rows,
        held_out,
        learned=(inputs, learned),
        num_outputs=len(classes.classes) if classes else 1,
    )
