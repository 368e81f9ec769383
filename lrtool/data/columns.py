"""Columns of a table of text: read, and told apart as numbers and words."""

from __future__ import annotations

import csv as csv_format
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.data.encoding import Classes, WordsColumn
from lrtool.data.input_files import read_text
from lrtool.errors import ConfigError, DataError, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from lrtool.data.encoding import TableInputs, Targets

MISSING = frozenset(
    {"", "?", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL", "None", "none"}
)
_MOST_CLASSES = 20  # with more different whole numbers than this, the task is regression
_MOST_WORDS = 20  # more different words, in over half of the rows, are names or mistakes


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Fields as text, None where missing, and the file and line of each row."""

    path: Path
    columns: dict[str, list[str | None]]
    places: list[tuple[Path, int]]

    def place(self, row: int) -> str:
        """Return file and line of a row, for a message."""
        path, line = self.places[row]
        return f"{path}: line {line}"


def read_table(path: Path, delimiter: str) -> Table:
    """Read a table and check that each row has as many fields as the header."""
    if len(delimiter) != 1 or delimiter in '"\r\n':
        problem = f"must be one character, not {delimiter!r}"
        raise ConfigError(Problem(("data", "args", "delimiter"), problem))
    content = read_text(path)
    if (zero := content.find("\0")) >= 0:
        line = content.count("\n", 0, zero) + 1
        raise DataError(f"{path}: line {line}: a zero byte; this is not a text file")
    reader = csv_format.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        skipinitialspace=delimiter != " ",
        strict=True,
    )
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if rows and len(fields) != len(rows[0]):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} field{'s'[: len(fields) != 1]},"
                    f" but the header has {len(rows[0])}"
                )
            rows.append([field.strip() for field in fields])
            lines.append(reader.line_num)
    except csv_format.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not a table: {error}") from None
    if len(rows) < 2:
        raise DataError(f"{path}: holds no row below the header")
    header, *rows = rows
    for number, name in enumerate(header):
        if name in header[:number]:
            raise DataError(f"{path}: line {lines[0]}: two columns are named {name!r}")
    columns = {
        name: [None if field in MISSING else field for field in fields]
        for name, fields in zip(header, zip(*rows, strict=True), strict=True)
    }
    return Table(path, columns, [(path, line) for line in lines[1:]])


def append(table: Table, other: Table, names: Sequence[str]) -> Table:
    """Append the rows of a validation table to the training table."""
    for name in names:
        if name not in other.columns:
            raise DataError(
                f"{other.path}: line 1: no column {name!r}, which {table.path} has"
                f"{did_you_mean(name, other.columns)}"
            )
    columns = {name: table.columns[name] + other.columns[name] for name in names}
    return Table(table.path, columns, table.places + other.places)


def check_known(argument: str, names: Sequence[str], known: Collection[str], path: Path) -> None:
    """Raise ConfigError for a name in `data.args.<argument>` that is no column."""
    for name in names:
        if name not in known:
            problem = (
                f"no such column in {path}: {name!r}{did_you_mean(name, known)}; there are"
                f" {', '.join(map(repr, known))}"
            )
            raise ConfigError(Problem(("data", "args", argument), problem))


def features_of(
    table: Table, target: str, columns: list[str] | None, drop: Sequence[str]
) -> list[str]:
    """Return the names of the input columns."""
    if len(table.columns) == 1 and target not in table.columns:
        raise DataError(
            f"{table.path}: line 1: the header is a single field, {next(iter(table.columns))!r};"
            " if it should be more, set data.args.delimiter"
        )
    others = [name for name in table.columns if name != target]
    check_known("target", [target], table.columns, table.path)
    check_known("drop", drop, others, table.path)
    if columns is not None:
        check_known("columns", columns, others, table.path)
    features = [name for name in columns or others if name not in drop]
    if not features:
        raise DataError(f"{table.path}: no input column is left besides the target {target!r}")
    if "" in features:
        number = list(table.columns).index("") + 1
        raise DataError(
            f"{table.path}: line 1: column {number} has no name; if it holds row numbers, leave it"
            " out with data.args.drop: [''], else name it"
        )
    return features


def frame_of(table: Table, features: Sequence[str], categorical: Collection[str]) -> pd.DataFrame:
    """Return numeric columns as floats, NaN where missing, the others as words."""
    import pandas as pd  # noqa: PLC0415  (slow to import)

    columns: dict[str, Any] = {}
    for name in features:
        fields = table.columns[name]
        numbers = _numbers(fields)
        odd = _odd(fields, numbers)
        if name in categorical or (odd and not _mostly_numbers(fields, odd)):
            words = {field for field in fields if field is not None}
            if name not in categorical and len(words) > max(_MOST_WORDS, len(fields) // 2):
                raise DataError(
                    f"{table.path}: column {name!r} holds {len(words)} different words in"
                    f" {len(fields)} rows, too many to learn from: leave it out with"
                    " data.args.drop, or name it in data.args.categorical"
                )
            columns[name] = ["" if field is None else field for field in fields]
            continue
        if odd:
            raise DataError(
                f"{table.place(odd[0])}: column {name!r} holds {fields[odd[0]]!r} among numbers;"
                " correct it, empty it, or name the column in data.args.categorical"
            )
        _check_finite(table, name, numbers)
        columns[name] = numbers
    return pd.DataFrame(columns)


def _check_finite(table: Table, name: str, numbers: NDArray[np.float64]) -> None:
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"{table.place(row)}: column {name!r} holds {table.columns[name][row]!r}, which is not"
            " finite; correct it, or empty it if it is missing"
        )


def target_of(
    table: Table, target: str, task: str, count: int
) -> tuple[NDArray[Any], Classes | None]:
    """Return class indices and the classes, or regression targets and None.

    The first `count` rows are those of the training table.
    """
    fields = _target_fields(table, target)
    if len(set(fields[:count])) == 1:
        raise DataError(
            f"{table.path}: every target {target!r} is {fields[0]!r}; there is nothing to learn"
        )
    numbers = _numbers(fields)
    odd = _odd(fields, numbers) or np.flatnonzero(np.isinf(numbers)).tolist()
    if task == "auto":
        few = len(set(fields)) <= _MOST_CLASSES
        whole = not odd and bool((numbers == np.round(numbers)).all())
        words = bool(odd) and (few or not _mostly_numbers(fields, odd))
        task = "classification" if words or (few and whole) else "regression"
    if task == "regression":
        if odd:
            raise DataError(
                f"{table.place(odd[0])}: the target {target!r} is {fields[odd[0]]!r}, not a"
                " number, which regression needs; correct it, or set data.args.task: classification"
            )
        return numbers, None
    labels = np.array(fields, dtype=object) if odd else numbers
    classes, first, indices = np.unique(labels, return_index=True, return_inverse=True)
    if len(classes) > max(_MOST_WORDS, len(fields) // 2):
        raise DataError(
            f"{table.path}: the target {target!r} has {len(classes)} different values in"
            f" {len(fields)} rows, too many to be classes; set data.args.task: regression, or"
            " another data.args.target"
        )
    unseen = ~np.isin(indices, indices[:count])
    if unseen.any():
        row = int(unseen.argmax())
        raise DataError(
            f"{table.place(row)}: the class {fields[row]!r} of {target!r} is not in {table.path}"
        )
    names = tuple(str(fields[row]) for row in first)
    return indices.astype(np.int64), Classes(target, names, numbers=not odd)


def _target_fields(table: Table, target: str) -> list[str | None]:
    """Return the fields of the target, none of which may be missing."""
    fields = table.columns[target]
    missing = [row for row, field in enumerate(fields) if field is None]
    if missing:
        raise DataError(
            f"{table.place(missing[0])}: the target {target!r} is missing, as in {len(missing)} of"
            f" {len(fields)} rows; remove these rows or fill it in"
        )
    return fields


# What a run has learned, for other tables.


def check_trained(table: Table, names: Sequence[str]) -> None:
    """Raise DataError if columns are missing that a run was trained on."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.path}: line 1: no column {', '.join(map(repr, missing))}, which the run was"
            f" trained on{did_you_mean(missing[0], table.columns)}; there are"
            f" {', '.join(map(repr, table.columns))}"
        )


def columns_as(table: Table, known: TableInputs) -> dict[str, Any]:
    """Return the input columns, each as numbers or words as in the training.

    Raises:
        DataError: a column of numbers holds something else, with file and line.
    """
    columns: dict[str, Any] = {}
    for column in known.columns:
        name = column.name
        fields = table.columns[name]
        if isinstance(column, WordsColumn):
            columns[name] = ["" if field is None else field for field in fields]
            continue
        numbers = _numbers(fields)
        if odd := _odd(fields, numbers):
            raise DataError(
                f"{table.place(odd[0])}: column {name!r} holds {fields[odd[0]]!r}, but in the"
                " training it was a column of numbers; correct it, or empty it if it is missing"
            )
        _check_finite(table, name, numbers)
        columns[name] = numbers
    return columns


def target_as(
    table: Table, target: str, known: Targets | None
) -> tuple[NDArray[Any], Classes | None]:
    """Return the class indices of a run and its classes, or regression targets and None.

    Raises:
        DataError: a target is missing, no number, or a class that the run does not know, with file
            and line.
    """
    fields = _target_fields(table, target)
    numbers = _numbers(fields)
    if not isinstance(known, Classes):
        odd = _odd(fields, numbers) or np.flatnonzero(np.isinf(numbers)).tolist()
        if odd:
            raise DataError(
                f"{table.place(odd[0])}: the target {target!r} is {fields[odd[0]]!r}, not a"
                " number, and the run was trained on numbers"
            )
        return numbers, None
    keys: list[Any] = (
        [float(name) for name in known.classes] if known.numbers else list(known.classes)
    )
    index = {key: number for number, key in enumerate(keys)}
    values = numbers.tolist() if known.numbers else fields
    found = np.array([index.get(value, -1) for value in values], np.int64)
    if (found < 0).any():
        row = int((found < 0).argmax())
        unknown = sorted({str(fields[each]) for each in np.flatnonzero(found < 0)})
        raise DataError(
            f"{table.place(row)}: the class {fields[row]!r} of {target!r} is not one that the run"
            f" knows, as in {int((found < 0).sum())} of {len(fields)} rows"
            f" ({named(unknown)}); it was trained on {named(known.classes)}"
        )
    return found, known


def named(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(map(repr, names[:most]))}{more}"


def _numbers(fields: Sequence[str | None]) -> NDArray[np.float64]:
    """Return the fields as numbers, NaN for missing ones and words."""
    import pandas as pd  # noqa: PLC0415  (slow to import)

    series = pd.Series(list(fields), dtype=object)
    numbers: NDArray[np.float64] = pd.to_numeric(series, errors="coerce").to_numpy(np.float64)
    return numbers


def _odd(fields: Sequence[str | None], numbers: NDArray[np.float64]) -> list[int]:
    """Return the rows that hold a word."""
    return [row for row in np.flatnonzero(np.isnan(numbers)).tolist() if fields[row] is not None]


def _mostly_numbers(fields: Sequence[str | None], odd: Sequence[int]) -> bool:
    """Tell whether so few fields are words that they look like mistakes."""
    return len(odd) <= 0.1 * sum(field is not None for field in fields)
