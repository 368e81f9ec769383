"""Tables in a text file: fields, and which of them are missing."""

from __future__ import annotations

import csv as csv_format
import io
import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lrtool.data.input_files import read_text
from lrtool.data.number_format import NumberFormat
from lrtool.errors import ConfigError, DataError, LrtoolWarning, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

    from numpy.typing import NDArray

MISSING = ("?", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "null", "NULL", "None", "none")
_DELIMITERS = (";", "\t", "|", ",")


@dataclass(frozen=True, slots=True)
class TableFormat:
    """How a table is written.

    Attributes:
        delimiter: the character between fields.
        header: whether the first line holds the columns' names; or the names.
        missing: the fields that are missing, besides empty ones.
        missing_numbers: the numbers that are missing.
        numbers: how numbers are written.
        with_marks: the columns of numbers with marks, such as "$" or "%".
    """

    delimiter: str
    header: bool | tuple[str, ...]
    missing: frozenset[str]
    missing_numbers: frozenset[float]
    numbers: NumberFormat
    with_marks: frozenset[str]


def table_format(
    *,
    delimiter: str,
    header: bool | list[str],
    na_values: Sequence[str | float] | None,
    decimal: str,
    thousands: str,
    numeric: Sequence[str],
) -> TableFormat:
    """Return a table's format by `data.args`.

    Raises:
        ConfigError: an argument makes no sense.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise wrong_argument("delimiter", f"must be one character, not {delimiter!r}")
    if decimal == thousands:
        problem = f"{thousands!r} is the decimal mark too; set data.args.decimal"
        raise wrong_argument("thousands", problem)
    values = MISSING if na_values is None else na_values
    return TableFormat(
        delimiter=delimiter,
        header=header if isinstance(header, bool) else tuple(header),
        missing=frozenset({"", *map(str, values)}),
        missing_numbers=frozenset(v for v in values if not isinstance(v, str)),
        numbers=NumberFormat(decimal, thousands),
        with_marks=frozenset(numeric),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Fields as text, None where missing, and the file and line of each row.

    Attributes:
        path: of the file.
        format: how it is written.
        columns: by name; one without a name is called as by pandas, `Unnamed: 3` for the fourth.
        nameless: the names of those.
        places: file and line of each row.
        missing: how the missing fields of a column are spelled, where there are any.
        types: of columns whose file tells them: "number", "words", or another in its own words.
        unit: what the number of a place counts: a "line", or a "row" from 0.
    """

    path: Path
    format: TableFormat
    columns: dict[str, list[str | None]]
    nameless: tuple[str, ...]
    places: list[tuple[Path, int]]
    missing: dict[str, set[str]]
    types: dict[str, str] = field(default_factory=dict)
    unit: Literal["line", "row"] = "line"
    _numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def place(self, row: int) -> str:
        """Return file and line of a row, for a message."""
        path, number = self.places[row]
        return f"{path}: line {number}" if self.unit == "line" else f"{path}: row {number} (from 0)"

    @property
    def head(self) -> str:
        """The place of the columns' names, for a message."""
        return f"{self.path}: line 1" if self.unit == "line" else f"{self.path}"

    def format_of(self, name: str) -> NumberFormat:
        """Return how the numbers of a column are written."""
        return NumberFormat() if self.types.get(name) == "number" else self.format.numbers

    def has_marks(self, name: str) -> bool:
        """Tell whether the numbers of a column may have marks, such as "$" or "%"."""
        return name in self.format.with_marks and self.types.get(name) != "number"

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return the fields of a column as numbers, NaN for missing ones and words."""
        if name not in self._numbers:
            fields, numbers = self.columns[name], self.format_of(name)
            if self.has_marks(name):
                by_field = {text: numbers.value(text) for text in set(fields) if text is not None}
                values = np.array([by_field[f] if f is not None else np.nan for f in fields])
            else:
                values = numbers.numbers(fields)
            self._numbers[name] = values
        return self._numbers[name]

    def odd(self, name: str) -> list[int]:
        """Return the rows of a column that hold a word."""
        fields = self.columns[name]
        nan = np.flatnonzero(np.isnan(self.numbers(name))).tolist()
        return [row for row in nan if fields[row] is not None]

    def exact(self, name: str, text: str) -> Decimal:
        """Return a field of a column of numbers, exactly."""
        numbers = self.format_of(name)
        marked = numbers.marked(text) if self.has_marks(name) else None
        return numbers.exact(text) if marked is None or marked.exact is None else marked.exact

    def is_plain(self, name: str) -> bool:
        """Tell whether the numbers of a column are written as Python writes them."""
        return self.format_of(name) == NumberFormat() and not self.has_marks(name)


def read_table(path: Path, table_format: TableFormat, *, target: str | None = None) -> Table:
    """Read a table.

    Args:
        path: of the file.
        table_format: how it is written.
        target: the one of the names in `data.args.header` that the file may lack; None: it has all.

    Raises:
        DataError: not a text file, rows of different lengths, none, or two columns of a name; or
            other columns than those of a training.
        ConfigError: not as many columns as names in `data.args.header`.

    Warns:
        LrtoolWarning: rows without any value are left out.
    """
    lines, rows = _rows(path, table_format.delimiter)
    header, header_line = _header(path, table_format, rows, lines, target)
    kept = [row for row, fields in enumerate(rows) if any(fields)]
    if not kept:
        raise DataError(f"{path}: holds no row below the header")
    if len(kept) < len(rows):
        first = next(line for line, fields in zip(lines, rows, strict=True) if not any(fields))
        warnings.warn(
            f"{path}: line {first}: no field holds a value, as in {len(rows) - len(kept)} of"
            f" {len(rows)} rows; they are left out",
            LrtoolWarning,
            stacklevel=2,
        )
        rows, lines = [rows[row] for row in kept], [lines[row] for row in kept]
    columns = list(zip(*rows, strict=True))
    place = f"{path}: line {header_line}"
    places = [(path, line) for line in lines]
    return table_of(path, table_format, header, columns, places, place=place)


def table_of(
    path: Path,
    table_format: TableFormat,
    header: Sequence[str],
    columns: Sequence[Sequence[str | None]],
    places: list[tuple[Path, int]],
    *,
    place: str,
    types: Mapping[int, str] | None = None,
    unit: Literal["line", "row"] = "line",
) -> Table:
    """Return a table of fields, some of which are spellings of missing ones.

    Args:
        path: of the file.
        table_format: how it is written.
        header: the names of the columns, "" where there is none.
        columns: the fields of each, None where missing.
        places: file and line of each row.
        place: of the header, for a message.
        types: as in a `Table`, by the columns' numbers.
        unit: as in a `Table`.

    Raises:
        DataError: two columns have the same name.
    """
    names = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise DataError(f"{place}: two columns are named {name!r}{header_hint(header)}")
    table = Table(
        path=path,
        format=table_format,
        columns={},
        nameless=tuple(name for name, given in zip(names, header, strict=True) if not given),
        places=places,
        missing={},
        types={names[number]: kind for number, kind in (types or {}).items()},
        unit=unit,
    )
    for name, fields in zip(names, columns, strict=True):
        numbers = table.format_of(name)
        spelled = {text for text in set(fields) if text is not None}
        absent = spelled & table_format.missing
        if table_format.missing_numbers:
            absent |= {t for t in spelled if numbers.read(t) in table_format.missing_numbers}
        table.missing[name] = absent
        table.columns[name] = [None if text in absent else text for text in fields]
    return table


def _rows(path: Path, delimiter: str) -> tuple[list[int], list[list[str]]]:
    """Return the lines that are not blank: their numbers, and as many fields in each."""
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
            if rows and (fewer := len(rows[0]) - len(fields)) > 0 and not any(rows[0][-fewer:]):
                fields.extend([""] * fewer)  # delimiters end the header, but not this row
            if rows and len(fields) != len(rows[0]):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(fields)} field{'s'[: len(fields) != 1]},"
                    f" but the header has {len(rows[0])}{_fields_hint(rows[0], fields)}"
                )
            rows.append([field.strip() for field in fields])
            lines.append(reader.line_num)
    except csv_format.Error as error:
        other = "" if rows else _other_delimiter(content.splitlines()[0], delimiter)
        raise DataError(f"{path}: line {reader.line_num}: not a table: {error}{other}") from None
    return lines, rows


def _header(
    path: Path,
    table_format: TableFormat,
    rows: list[list[str]],
    lines: list[int],
    target: str | None,
) -> tuple[Sequence[str], int]:
    """Return the names of the columns, and their line; they are taken off the rows."""
    given = table_format.header
    if given is True:
        return (rows.pop(0), lines.pop(0)) if rows else ([], 1)
    width = len(rows[0]) if rows else 0
    if given is False:
        return [str(number) for number in range(width)], 1
    if target is not None:
        inputs = [name for name in given if name != target]
        if width not in {len(given), len(inputs)}:
            raise DataError(
                f"{path}: line 1: {width} column{'s'[: width != 1]}, but the run was trained on"
                f" {len(given)}, or {len(inputs)} without the target {target!r}"
            )
        return (given if width == len(given) else inputs), 1
    if len(given) != width:
        problem = f"these are {len(given)} names, but {path} has {width} columns"
        raise wrong_argument("header", problem)
    return given, 1


def _fields_hint(header: Sequence[str], fields: Sequence[str]) -> str:
    """Say why a line may have another number of fields than the header."""
    more = len(fields) - len(header)
    if more > 0 and not any(field.strip() for field in fields[-more:]):
        return f"; the line ends in {more} delimiter{'s'[: more > 1]} too many"
    if len(header) == 1 and not any(mark in header[0] for mark in _DELIMITERS):
        return "; if the first line is a title or a comment, remove it"
    return delimiter_hint(header)


def _other_delimiter(line: str, delimiter: str) -> str:
    """Say which other delimiter the first line seems to have."""
    best = max(_DELIMITERS, key=line.count)
    if best == delimiter or best not in line:
        return ""
    return f"; if {best!r} stands between fields, set data.args.delimiter: {json.dumps(best)}"


def delimiter_hint(header: Sequence[str]) -> str:
    """Say which delimiter a header of a single field seems to have."""
    if len(header) != 1:
        return ""
    best = max(_DELIMITERS, key=header[0].count)
    value = f": {json.dumps(best)}" if best in header[0] else ""
    return f"; if it should be more, set data.args.delimiter{value}"


def header_hint(header: Sequence[str]) -> str:
    """Say what to do if the header seems to be the first row of the data."""
    if not any(NumberFormat().read(name) is not None for name in header):
        return ""
    return "; if the first line is no header, set data.args.header: false"


def append(table: Table, other: Table, names: Sequence[str]) -> Table:
    """Append the rows of a validation table to the training table."""
    for name in names:
        if name not in other.columns:
            raise DataError(
                f"{other.head}: no column {name!r}, which {table.path} has"
                f"{did_you_mean(name, other.columns)}"
            )
    return Table(
        path=table.path,
        format=table.format,
        columns={name: table.columns[name] + other.columns[name] for name in names},
        nameless=table.nameless,
        places=table.places + other.places,
        missing={name: table.missing[name] | other.missing[name] for name in names},
        types=table.types,
        unit=table.unit,
    )


def wrong_argument(argument: str, problem: str) -> ConfigError:
    """Return the error for an argument of `data.args`."""
    return ConfigError(Problem(("data", "args", argument), problem))
