"""Tables of numbers and words, in a text file (CSV) or a Parquet file."""
# ruff: noqa: TC001  (annotations are evaluated, to check data.args)

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lrtool.data.columns import (
    check_known,
    check_trained,
    check_type,
    facts_of,
    features_of,
    frame_of,
    kinds_of,
    marks_of,
    row_numbers,
    target_as,
    target_of,
    warn_if_empty,
)
from lrtool.data.encoding import (
    NumberColumn,
    TableInputs,
    learn_table,
    of_kind,
    values_learned,
)
from lrtool.data.input_files import find_file
from lrtool.data.parquet_table import read_parquet
from lrtool.data.samples import Parts, divide
from lrtool.data.split import Split
from lrtool.data.text_table import append, read_table, table_format, wrong_argument
from lrtool.errors import DataError, LrtoolWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lrtool.data.columns import Kind
    from lrtool.data.encoding import Targets
    from lrtool.data.text_table import Table


def csv(
    split: Split,
    *,
    path: str,
    target: str | int,
    task: Literal["auto", "classification", "regression"] = "auto",
    scale_target: bool = True,
    columns: list[str | int] | None = None,
    drop: list[str | int] = [],  # noqa: B006  (never changed; the annotation stays plain)
    categorical: list[str | int] = [],  # noqa: B006  (likewise)
    numeric: list[str | int] = [],  # noqa: B006  (likewise)
    delimiter: str = ",",
    header: bool | list[str] = True,
    na_values: list[str | int | float] | None = None,
    decimal: Literal[".", ","] = ".",
    thousands: Literal["", ",", ".", " ", "'", "_"] = "",
) -> Parts:
    """A table with a header: numbers and words, one column to predict.

    A column is numeric if every value is a number, else categorical. Numeric inputs: missing values
    become the median, then the column is standardised. Categorical inputs: one column for each
    value, all 0 for a value not seen in training; missing is a value of its own. Regression targets
    are standardised too, so always predicting the mean costs a mean squared error of 1; not for
    torch's losses of counts, probabilities or signs, nor with `scale_target: false`. All of it is
    fitted on the training set alone. `lrtool check` shows how each column was read.

    A column whose words look like numbers, such as $1,250.00, 45% or dates, is an error that says
    which argument to set. Row numbers and columns without name and values are left out.

    Args:
        split: how to split; `data.validation` may be the path of another table of this form.
        path: the file, UTF-8.
        target: the column to predict.
        task: auto: classification if the target holds words, or at most 20 different whole
            numbers and the loss is none of a regression; otherwise regression.
        scale_target: whether the target of a regression is standardised; false: it stays as it is,
            for a loss of your own that takes counts, rates or signs.
        columns: the inputs; null: every column but the target.
        drop: columns to leave out; '' for all that have no name.
        categorical: columns to treat as words.
        numeric: columns to treat as numbers: currency and percent signs, units, footnotes and
            parentheses (negative) are taken off, and row numbers are kept.
        delimiter: the character between fields.
        header: whether the first line is a header; without one, columns are named 0, 1, 2, …, or
            as in this list.
        na_values: what is missing, besides empty fields; null: `?`, `NA`, `N/A`, `NaN`, `null`,
            `None` and the like.
        decimal: the decimal mark.
        thousands: what stands between groups of three digits.

    Raises:
        DataError: not UTF-8, rows of different lengths, a missing or unsuitable target, or a column
            that cannot be used; with file and line.
        ConfigError: an argument names a column that is not there.

    Warns:
        LrtoolWarning: a column is left out, or may be meant otherwise.
    """
    form = table_format(
        delimiter=delimiter,
        header=header,
        na_values=na_values,
        decimal=decimal,
        thousands=thousands,
        numeric=list(map(str, numeric)),
    )
    return _parts(
        split,
        path,
        lambda file: read_table(file, form),
        target=str(target),
        task=task,
        scale_target=scale_target,
        columns=None if columns is None else list(map(str, columns)),
        drop=list(map(str, drop)),
        categorical=list(map(str, categorical)),
        numeric=list(map(str, numeric)),
    )


def parquet(
    split: Split,
    *,
    path: str,
    target: str,
    task: Literal["auto", "classification", "regression"] = "auto",
    scale_target: bool = True,
    columns: list[str] | None = None,
    drop: list[str] = [],  # noqa: B006  (never changed; the annotation stays plain)
    categorical: list[str] = [],  # noqa: B006  (likewise)
    numeric: list[str] = [],  # noqa: B006  (likewise)
    na_values: list[str | int | float] | None = None,
    decimal: Literal[".", ","] = ".",
    thousands: Literal["", ",", ".", " ", "'", "_"] = "",
) -> Parts:
    """A table in a Parquet file, read as `csv`; its types tell numbers from words.

    Needs pyarrow: `pip install 'lrtool[parquet]'`. Nulls are missing, booleans are words. Other
    types, such as lists, must be left out.

    Args:
        split: how to split; `data.validation` may be the path of another table of this form.
        path: the file.
        target: the column to predict.
        task: as for `csv`.
        scale_target: as for `csv`.
        columns: the inputs; null: every column but the target.
        drop: columns to leave out.
        categorical: columns to treat as words.
        numeric: columns to treat as numbers, those of text with marks among them, as for `csv`.
        na_values: what is missing, besides nulls and empty text; null: as for `csv`.
        decimal: the decimal mark, of numbers in text.
        thousands: what stands between groups of three digits, of numbers in text.

    Raises:
        DataError: pyarrow is not installed, a broken file, a missing or unsuitable target, or a
            column that cannot be used; with file and row.
        ConfigError: an argument names a column that is not there.

    Warns:
        LrtoolWarning: a column is left out, or may be meant otherwise.
    """
    form = table_format(
        delimiter=",",
        header=True,
        na_values=na_values,
        decimal=decimal,
        thousands=thousands,
        numeric=numeric,
    )
    return _parts(
        split,
        path,
        lambda file: read_parquet(file, form),
        target=target,
        task=task,
        scale_target=scale_target,
        columns=columns,
        drop=drop,
        categorical=categorical,
        numeric=numeric,
    )


def _parts(
    split: Split,
    path: str,
    read: Callable[[Path], Table],
    *,
    target: str,
    task: str,
    scale_target: bool,
    columns: list[str] | None,
    drop: list[str],
    categorical: list[str],
    numeric: list[str],
) -> Parts:
    """Read a table and, where there is one, that of the validation set."""
    split = replace(split, unscaled=split.unscaled or not scale_target)
    table = read(find_file(path, split.directories))
    learned: TableInputs | None = None
    left_out: dict[str, str]
    kinds: dict[str, Kind]
    if split.encoding is None:
        kinds, left_out = _kinds(
            table, target, columns, drop, categorical=categorical, numeric=numeric
        )
    else:
        learned = of_kind(split.encoding, split.encoding.inputs, TableInputs)
        if learned.fields is not None:
            _refuse_another_width(table, learned.fields, "the run was trained on")
        kinds = {column.name: column.kind for column in learned.columns}
        check_trained(table, [*kinds, target])
        left_out = dict.fromkeys({*table.columns} - {*kinds, target}, "no input of the run")
    whole, count = table, len(table.places)
    if split.path is not None:
        whole = _with_rows(table, read(find_file(split.path, split.directories)), kinds, target)
    if split.encoding is None:
        labels, classes = target_of(whole, target, task, count, values=split.values)
        if classes and not scale_target:
            warnings.warn(
                f"data.args.scale_target is ignored: {target!r} holds classes",
                LrtoolWarning,
                stacklevel=2,
            )
    else:
        labels, classes = target_as(whole, target, split.encoding.targets)
    if split.path is None:
        rows, held_out = split.indices(count, str(table.path), labels if classes else None)
    else:
        rows, held_out = np.arange(count), np.arange(count, len(whole.places))
    frame = frame_of(whole, kinds, learned)
    inputs = learned or _with_marks(
        replace(learn_table(frame.iloc[rows]), fields=_nameless_fields(table)), table
    )
    encoded = inputs.encode(frame, warn=learned is not None or split.path is not None)
    targets: Targets | None = classes
    if targets is None:
        values = values_learned(split, target, labels, rows)
        targets = values if learned else replace(values, marks=marks_of(table, target))
        labels = targets.encode(labels)
    parts = divide(
        encoded,
        labels,
        rows,
        held_out,
        learned=(inputs, targets),
        num_outputs=len(classes.classes) if classes else 1,
    )
    return replace(parts, columns=facts_of(table, kinds, left_out, target, classes))


def _kinds(
    table: Table,
    target: str,
    columns: list[str] | None,
    drop: list[str],
    *,
    categorical: list[str],
    numeric: list[str],
) -> tuple[dict[str, Kind], dict[str, str]]:
    """Return the kind of each input of a training, and why other columns are left out."""
    features, left_out = features_of(table, target, columns, drop)
    check_known("categorical", categorical, features, table.path)
    check_known("numeric", numeric, [*features, target], table.path)
    for name in numeric:
        if name in categorical:
            raise wrong_argument("numeric", f"{name!r} is in data.args.categorical too")
    kinds = kinds_of(table, features, categorical)
    meant = {*(columns or []), *categorical, *numeric}
    left_out |= row_numbers(table, kinds, meant)
    return {name: kind for name, kind in kinds.items() if name not in left_out}, left_out


def _with_rows(table: Table, other: Table, kinds: Mapping[str, Kind], target: str) -> Table:
    """Return a training table with the rows of a validation table below its own."""
    if not table.format.header:
        _refuse_another_width(other, len(table.columns), f"{table.path} has")
    whole = append(table, other, [*kinds, target])
    for name, kind in kinds.items():
        check_type(other, name)
        warn_if_empty(other, name, kind)
    return whole


def _refuse_another_width(table: Table, fields: int, what: str) -> None:
    """Refuse a file without a header, whose columns are known by their places, of another width.

    Raises:
        DataError: it has more columns, or fewer.
    """
    if len(table.columns) != fields:
        raise DataError(f"{table.path}: line 1: {len(table.columns)} columns, but {what} {fields}")


def _with_marks(inputs: TableInputs, table: Table) -> TableInputs:
    """Return what was learned of columns, with the marks beside their numbers."""
    columns = [
        replace(column, marks=marks_of(table, column.name))
        if isinstance(column, NumberColumn)
        else column
        for column in inputs.columns
    ]
    return replace(inputs, columns=tuple(columns))


def _nameless_fields(table: Table) -> int | None:
    """Return how many fields a line has; None if the columns have names."""
    return None if table.format.header else len(table.columns)
