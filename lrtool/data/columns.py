"""Columns of a table of text: read, and told apart as numbers and words."""

from __future__ import annotations

import re
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrtool.data.encoding import Classes, NumberColumn, Values
from lrtool.data.number_format import FORMATS, NumberFormat, is_date, same_unit
from lrtool.data.text_table import MISSING, delimiter_hint, header_hint, wrong_argument
from lrtool.errors import DataError, LrtoolWarning, did_you_mean
from lrtool.report.records import ColumnFacts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from lrtool.data.encoding import TableInputs, Targets
    from lrtool.data.number_format import Marked
    from lrtool.data.text_table import Table

_MOST_CLASSES = 20  # with more different whole numbers than this, the task is regression
_FEW_WORDS = 20  # more different words, in over half of the rows, are names or mistakes
_MANY_WORDS = 100  # with more, say so
_MOST_WORDS = 1000  # more are names, even where each occurs often
_MOST_INPUTS = 500_000_000  # rows × inputs made of words: 2 GB as float32
_LEAST_ROWS = 10  # in fewer, a column of 1, 2, 3 counts the rows by chance
_EXACT = 2**53  # larger whole numbers are not told apart as floats
# Of row numbers and identifiers: `Unnamed: 0` is pandas's index, "" what R writes.
_INDEX = re.compile(
    r"(?i:index|idx|rows?|row[ _.]?(?:id|no|nr|num|number|names?)|no|nr|#|__index_level_\d+__"
    r"|unnamed(?::? ?\d+.*)?)|(?:.*[_\W])?(?:id|ID|Id)|.*[a-z](?:Id|ID)"
)
_LEADING_ZERO = re.compile("[-+]?0[0-9]")
_SAMPLE = 1000  # so many different fields tell how numbers are written

Kind = Literal["number", "words"]


def check_known(argument: str, names: Sequence[str], known: Collection[str], path: Path) -> None:
    """Raise ConfigError for a name in `data.args.<argument>` that is no column, or comes twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise wrong_argument(argument, f"{name!r} is there twice")
        if name not in known:
            problem = (
                f"no such column in {path}: {name!r}{did_you_mean(name, known)}; there are"
                f" {', '.join(map(repr, known))}"
            )
            raise wrong_argument(argument, problem)


def features_of(
    table: Table, target: str, columns: list[str] | None, drop: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the names of the inputs, and why each other column but the target is left out.

    Raises:
        DataError: the header is a single field, or no input is left.
        ConfigError: an argument names a column that is not there.
    """
    header = list(table.columns)
    if len(header) == 1 and target not in header and table.unit == "line":
        raise DataError(
            f"{table.head}: the header is a single field, {header[0]!r}{delimiter_hint(header)}"
        )
    if target not in header and table.unit == "line" and (hint := header_hint(header)):
        problem = f"no such column in {table.path}: {target!r}; there are {_listed(header)}{hint}"
        raise wrong_argument("target", problem)
    check_known("target", [target], header, table.path)
    _warn_of_a_header_of_numbers(table)
    others = [name for name in header if name != target]
    for argument, names in (("drop", drop), ("columns", columns or [])):
        if target in names:
            raise wrong_argument(argument, f"{target!r} is data.args.target, which is no input")
        known = [*others, *("" for _ in table.nameless[:1] if argument == "drop")]
        check_known(argument, names, known, table.path)
    if columns == []:
        raise wrong_argument("columns", "names no column; null means every column but the target")
    left_out = _left_out(table, others, columns, drop)
    features = [name for name in columns or others if name not in left_out]
    if not features:
        raise DataError(f"{table.path}: no input column is left besides the target {target!r}")
    if empty := [name for name in table.nameless if left_out.get(name) == "no name and no value"]:
        _warn(
            f"{table.head}: {_listed(empty)} left out: no name and no value;"
            " data.args.drop: [''] says that this is meant"
        )
    return features, left_out


def _left_out(
    table: Table, others: Sequence[str], columns: Sequence[str] | None, drop: Sequence[str]
) -> dict[str, str]:
    """Return the columns that are no inputs, and why."""
    left_out = {}
    for name in others:
        if name in drop or ("" in drop and name in table.nameless):
            left_out[name] = "data.args.drop"
        elif columns is not None and name not in columns:
            left_out[name] = "data.args.columns"
        elif name in table.nameless and not any(table.columns[name]):
            left_out[name] = "no name and no value"
    return left_out


def _warn_of_a_header_of_numbers(table: Table) -> None:
    """Warn if the header may be the first row of the data; 0, 1, 2, … or years are names."""
    values = [NumberFormat().read(name) for name in table.columns]
    numbers = [value for value in values if value is not None]
    if table.unit == "row" or table.format.header is not True or len(numbers) < len(values):
        return
    if not np.array_equal(np.diff(numbers), np.ones(len(numbers) - 1)):
        _warn(
            f"{table.head}: the header holds numbers alone; if it is the first row of the"
            " data, set data.args.header: false"
        )


def kinds_of(
    table: Table, features: Sequence[str], categorical: Collection[str]
) -> dict[str, Kind]:
    """Tell columns of numbers from those of words.

    Raises:
        DataError: a column may be meant as either, or can be neither; with what to do.

    Warns:
        LrtoolWarning: a column may be meant otherwise.
    """
    kinds: dict[str, Kind] = {}
    problems = []
    for name in features:
        try:
            check_type(table, name)
            text = table.types.get(name) == "words" and not table.has_marks(name)
            if name in categorical:
                kinds[name] = "words"
            elif not text and not table.odd(name):
                _check_numbers(table, name)
                kinds[name] = "number"
            else:
                _check_words(table, name)
                kinds[name] = "words"
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    rows = len(table.places)
    words = {name: len(set(table.columns[name])) for name, kind in kinds.items() if kind == "words"}
    if rows * sum(words.values()) > _MOST_INPUTS:
        most = max(words, key=lambda name: words[name])
        raise DataError(
            f"{table.path}: {sum(words.values()):,} different words in {rows:,} rows are too many"
            f" for the memory, {words[most]:,} of them in column {most!r}: leave it out with"
            " data.args.drop"
        )
    if sum(words.values()) > _MOST_WORDS and not any(n > _MANY_WORDS for n in words.values()):
        most = max(words, key=lambda name: words[name])
        _warn(
            f"{table.path}: {len(words)} columns of words become {sum(words.values()):,} inputs,"
            f" {words[most]} of them column {most!r}; leave some out with data.args.drop"
        )
    return kinds


def warn_if_empty(table: Table, name: str, kind: Kind) -> None:
    """Warn of a column of numbers without a value, in another table than the training's."""
    if kind == "number" and np.isnan(table.numbers(name)).all():
        _warn(
            f"{table.path}: column {name!r} holds no value: the median of the training stands for "
            "it in all rows"
        )


def check_type(table: Table, name: str) -> None:
    """Refuse what is neither numbers nor words, such as lists."""
    kind = table.types.get(name, "number")
    if kind not in {"number", "words"}:
        raise DataError(
            f"{table.path}: column {name!r} holds {kind}, neither numbers nor words; leave it out"
            f" with data.args.drop: [{name!r}]"
        )


def _check_numbers(table: Table, name: str) -> None:
    """Refuse infinity, and warn of numbers that may be codes or identifiers."""
    fields, numbers = table.columns[name], table.numbers(name)
    if np.isnan(numbers).all():
        if name not in table.format.with_marks:
            _warn(
                f"{table.path}: column {name!r} holds no value; leave it out with data.args.drop:"
                f" [{name!r}], or say that it is meant with data.args.numeric: [{name!r}]"
            )
        return
    _check_finite(table, name)
    if table.has_marks(name):
        _check_marks(table, name)
    if name in table.format.with_marks:
        return
    whole = bool((np.nan_to_num(numbers) % 1 == 0).all())
    if not whole:
        return
    advice = f"data.args.categorical: [{name!r}] if they are codes, data.args.drop if no input"
    large = np.flatnonzero(np.abs(np.nan_to_num(numbers)) > _EXACT).tolist()
    row = next((row for row in large if str(fields[row]).lstrip("-+").isdecimal()), -1)
    if row >= 0:
        _warn(
            f"{table.place(row)}: column {name!r} holds {fields[row]}: beyond 2^53 whole numbers"
            f" are not told apart; {advice}"
        )
    zero = next((row for row, text in enumerate(fields) if text and _LEADING_ZERO.match(text)), -1)
    if zero >= 0:
        _warn(
            f"{table.place(zero)}: column {name!r} holds {fields[zero]!r}, read as a number"
            f" without its leading zero; {advice}, data.args.numeric if a number is meant"
        )


def _check_finite(table: Table, name: str) -> None:
    infinite = np.flatnonzero(np.isinf(table.numbers(name)))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"{table.place(row)}: column {name!r} holds {table.columns[name][row]!r}, which is not"
            " finite; correct it, or empty it if it is missing"
        )


def marks_of(table: Table, name: str) -> str | None:
    """Return what stands beside the numbers of a column, such as "$" or "kg"; None if unknown."""
    if not table.has_marks(name):
        return None
    numbers = table.format_of(name)
    marked = (numbers.marked(text) for text in table.columns[name] if text is not None)
    return next((found.marks for found in marked if found is not None), None)


def check_same_marks(table: Table, name: str, known: str | None) -> None:
    """Refuse a column whose numbers have other marks than those of the training.

    Args:
        table: another table than the training's.
        name: of the column.
        known: the marks in the training; None: they are not known.

    Raises:
        DataError: such as grams in place of kilograms, or shares in place of percent.
    """
    if table.has_marks(name):
        _check_marks(table, name)
    found = marks_of(table, name)
    if known is None or found is None or found == known:
        return
    row = next(row for row, text in enumerate(table.columns[name]) if text is not None)
    raise DataError(
        f"{table.place(row)}: column {name!r} holds {table.columns[name][row]!r}, but in the "
        f"training its numbers had {_marks(known)}; correct the column"
    )


def _marks(known: str) -> str:
    return f"the mark {known!r}" if known else "no marks"


def _check_marks(table: Table, name: str) -> None:
    """Refuse different marks in a column of numbers with marks, such as $ and €."""
    first: dict[str, int] = {}
    for row, text in enumerate(table.columns[name]):
        marked = None if text is None else table.format_of(name).marked(text)
        if marked is not None:
            first.setdefault(marked.marks, row)
    if len(first) > 1:
        one, other = list(first.values())[:2]
        fields = table.columns[name]
        raise DataError(
            f"{table.place(other)}: column {name!r} holds {fields[other]!r} and, in {table.unit}"
            f" {table.places[one][1]}, {fields[one]!r}: numbers with different marks cannot be"
            " compared; correct the column, or leave it out with data.args.drop"
        )


def _check_words(table: Table, name: str) -> None:
    """Refuse words that are meant as numbers, and too many words; warn of what may be."""
    as_words = f"data.args.categorical: [{name!r}] takes each as a word"
    refuse_marks(table, name, as_words, f", data.args.drop: [{name!r}] leaves it out")
    fields, odd = table.columns[name], table.odd(name)
    words = {text for text in fields if text is not None}
    plain = len(words) - len({fields[row] for row in odd})
    known = len(fields) - fields.count(None)
    if (
        odd
        and plain
        and (len(odd) <= 0.1 * known or (plain > len(words) / 2 and plain > _FEW_WORDS))
    ):
        raise DataError(
            f"{table.place(odd[0])}: column {name!r} holds {fields[odd[0]]!r} among numbers;"
            " correct it, empty it, say what is missing with data.args.na_values, or name the"
            " column in data.args.categorical"
        )
    count = f"{len(words):,} different words in {len(fields):,} rows"
    advice = "leave it out with data.args.drop, or name it in data.args.categorical"
    if len(words) > min(_MOST_WORDS, max(_FEW_WORDS, len(fields) // 2)):
        raise DataError(
            f"{table.path}: column {name!r} holds {count}, too many to learn from: {advice}"
        )
    if len(words) > _MANY_WORDS:
        _warn(
            f"{table.path}: column {name!r} holds {count}, each of which becomes an input; {advice}"
        )
    elif plain and not odd:
        _warn(
            f"{table.path}: column {name!r} holds numbers as text, such as {min(words)!r}, which"
            f" are taken for words; data.args.numeric: [{name!r}] reads numbers, {as_words} and"
            " says that this is meant"
        )
    elif plain > len(words) / 2:
        _warn(
            f"{table.place(odd[0])}: column {name!r} holds {fields[odd[0]]!r} beside numbers, which"
            f" are taken for words too; say that it is missing with data.args.na_values, or that"
            f" this is meant with data.args.categorical: [{name!r}]"
        )


def refuse_marks(table: Table, name: str, as_words: str, leaves_out: str = "") -> None:
    """Refuse a column whose words are numbers with marks, or dates.

    Args:
        table: the table.
        name: a column that holds words.
        as_words: what takes them as words, for the message.
        leaves_out: what leaves the column out, likewise.

    Raises:
        DataError: most different fields are such.

    Warns:
        LrtoolWarning: so few different dates, or numbers with units, that they may be words.
    """
    fields, different = table.columns[name], set(table.columns[name]) - {None}
    first: dict[str, int] = {}
    for row in table.odd(name):
        first.setdefault(str(fields[row]), row)
    if table.has_marks(name):
        text, row = next(iter(first.items()))
        raise DataError(
            f"{table.place(row)}: column {name!r} holds {text!r}, which data.args.numeric cannot"
            " read as a number; correct it, empty it, or say what is missing with"
            " data.args.na_values"
        )
    few = len(different) <= _FEW_WORDS
    dates = [text for text in first if is_date(text)]
    plain = len(different) - len(first)
    marked = _marked(first, table.format_of(name), plain)
    if len(dates) > len(different) / 2:
        text, what = dates[0], "a date or time"
        reading = "make numbers of these, such as days since the first one"
    elif few and not plain and all(found.bound for found in marked.values()):
        return  # ranges, such as "<=50K" and ">50K"
    elif marked and plain + len(marked) > len(different) / 2:
        text = next((text for text, m in marked.items() if np.isnan(m.value)), next(iter(marked)))
        what, reading = "a number with marks", _readings(table, name, text)
        few = few and all(found.unit for found in marked.values())
    else:
        return
    says = f"{table.place(first[text])}: column {name!r} holds {text!r}"
    if few:
        _warn(
            f"{says} and the like, taken for {len(different)} words; {as_words} and says that this"
            f" is meant, or else {reading}"
        )
    else:
        raise DataError(f"{says}, {what}: {reading}; {as_words}{leaves_out}")


def _marked(texts: Collection[str], numbers: NumberFormat, plain: int) -> dict[str, Marked]:
    """Return the numbers with marks among words.

    Those of different units are words. Few units among plain numbers are mistakes.
    """
    marked = {text: found for text in texts if (found := numbers.marked(text)) is not None}
    units = [found.unit for found in marked.values() if found.unit]
    if not same_unit(set(units)) or len(units) < plain:
        marked = {text: found for text, found in marked.items() if not found.unit}
    return marked


def _readings(table: Table, name: str, text: str) -> str:
    """Say which keys read a number with marks, and as what, if they read the whole column."""
    texts = {str(text) for text in table.columns[name] if text is not None}
    texts = set(sorted(texts)[:_SAMPLE]) | {text}
    readings: dict[float, str] = {}
    for numbers in (table.format.numbers, *FORMATS):
        if any(np.isnan(numbers.value(text)) for text in texts):
            continue
        keys = []
        if any(numbers.read(text) is None for text in texts):
            keys.append(f"data.args.numeric: [{name!r}]")
        if numbers.decimal != table.format.numbers.decimal:
            keys.append(f"data.args.decimal: '{numbers.decimal}'")
        if numbers.thousands != table.format.numbers.thousands:
            keys.append(f'data.args.thousands: "{numbers.thousands}"')
        value = numbers.value(text)
        readings.setdefault(value, f"{' and '.join(keys)} reads it as {value + 0:.15g}")
    return ", ".join(readings.values()) or "no one format reads all of the column, so correct it"


def numbers_rows(name: str, numbers: NDArray[np.float64], *, nameless: bool = False) -> bool:
    """Tell whether a column only numbers the rows, by its name and its values (N,)."""
    named = len(numbers) >= _LEAST_ROWS and _INDEX.fullmatch(name) is not None
    if not (named or nameless or name.startswith("Unnamed:")):
        return False
    return _whole_and_different(numbers)[1]


def _whole_and_different(numbers: NDArray[np.float64]) -> tuple[bool, bool]:
    whole = bool((numbers % 1 == 0).all())
    return whole, whole and len(np.unique(numbers)) == len(numbers)


def row_numbers(table: Table, kinds: dict[str, Kind], meant: Collection[str]) -> dict[str, str]:
    """Return the columns that only number the rows, with the reason why each is left out.

    Args:
        table: the training table.
        kinds: of the inputs.
        meant: the columns that the user named as inputs.

    Raises:
        DataError: a column without a name holds something else.

    Warns:
        LrtoolWarning: there are some, or there may be.
    """
    left_out, suspected = {}, []
    for name, kind in kinds.items():
        if name in meant:
            continue
        nameless = name in table.nameless
        numbers = table.numbers(name) if kind == "number" else np.array([np.nan])
        whole, different = _whole_and_different(numbers)
        long = len(numbers) >= _LEAST_ROWS
        if numbers_rows(name, numbers, nameless=nameless):
            left_out[name] = "row numbers or identifiers: all different whole numbers"
        elif name in table.nameless:
            number = list(table.columns).index(name) + 1
            raise DataError(
                f"{table.head}: column {number} has no name; leave it out with"
                " data.args.drop: [''], else name it"
            )
        elif long and different and np.ptp(numbers) == len(numbers) - 1:
            suspected.append((name, "counts the rows"))
        elif long and whole and _INDEX.fullmatch(name):
            suspected.append((name, "looks like identifiers, read as numbers"))
    if len(left_out) == len(kinds):
        suspected, left_out = list(left_out.items()), {}
    for name, why in left_out.items():
        _warn(
            f"{table.path}: column {name!r} is left out: {why}; data.args.numeric: [{name!r}]"
            f" keeps it, data.args.drop: [{name!r}] says that it is no input"
        )
    for name, why in suspected if len(kinds) > 1 else ():
        few = len(np.unique(table.numbers(name))) <= _FEW_WORDS
        codes = f", or with data.args.categorical: [{name!r}] if they are codes" if few else ""
        _warn(
            f"{table.path}: column {name!r} {why}; leave it out with data.args.drop: [{name!r}],"
            f" or say that it is meant with data.args.numeric: [{name!r}]{codes}"
        )
    return left_out


def frame_of(
    table: Table, kinds: Mapping[str, Kind], trained: TableInputs | None = None
) -> pd.DataFrame:
    """Return numeric columns as floats, NaN where missing, the others as words, "" likewise.

    Raises:
        DataError: a field of a numeric column is no finite number, with file and line.
    """
    import pandas as pd  # noqa: PLC0415  (slow to import)

    columns: dict[str, Any] = {}
    known = [each for each in trained.columns if isinstance(each, NumberColumn)] if trained else []
    marks = {column.name: column.marks for column in known}
    for name, kind in kinds.items():
        fields = table.columns[name]
        check_type(table, name)
        if trained is not None:
            warn_if_empty(table, name, kind)
        if kind == "words":
            columns[name] = ["" if text is None else text for text in fields]
            continue
        if odd := table.odd(name):
            raise DataError(
                f"{table.place(odd[0])}: column {name!r} holds {fields[odd[0]]!r}, but in the"
                " training it was a column of numbers; correct it, or empty it if it is missing"
            )
        _check_finite(table, name)
        check_same_marks(table, name, marks.get(name))
        columns[name] = table.numbers(name)
    return pd.DataFrame(columns)


def target_of(
    table: Table, target: str, task: str, count: int, *, values: bool = False
) -> tuple[NDArray[Any], Classes | None]:
    """Return class indices and the classes, or regression targets and None.

    Args:
        table: the training table, and the rows of a validation table below it.
        target: the column to predict.
        task: auto, classification or regression.
        count: the number of rows of the training table.
        values: the loss takes numbers, so that numbers are no classes if the task is auto.

    Raises:
        DataError: a target is missing or unsuitable, with file and line.
    """
    fields = _target_fields(table, target)
    if len(set(fields[:count])) == 1:
        raise DataError(
            f"{table.path}: every target {target!r} is {fields[0]!r}; there is nothing to learn"
        )
    if table.odd(target) and task != "classification":
        refuse_marks(table, target, "data.args.task: classification takes each as a class")
    numbers = table.numbers(target)
    odd = table.odd(target) or np.flatnonzero(np.isinf(numbers)).tolist()
    if task == "auto":
        few = len(set(fields)) <= _MOST_CLASSES
        whole = not odd and bool((numbers == np.round(numbers)).all())
        words = bool(odd) and (few or len(odd) > 0.1 * len(fields))
        task = "classification" if words or (few and whole and not values) else "regression"
    if not odd:
        check_same_marks(table, target, None)
    if task == "regression":
        if odd:
            raise DataError(
                f"{table.place(odd[0])}: the target {target!r} is {fields[odd[0]]!r}, not a"
                " number, which regression needs; correct it, or set data.args.task: classification"
            )
        return numbers, None
    keys = {text: text if odd else table.exact(target, text) for text in set(fields)}
    classes = sorted(set(keys.values()))
    place = {key: index for index, key in enumerate(classes)}
    indices = np.array([place[keys[text]] for text in fields], np.int64)
    if len(classes) > max(_FEW_WORDS, len(fields) // 2):
        raise DataError(
            f"{table.path}: the target {target!r} has {len(classes)} different values in"
            f" {len(fields)} rows, too many to be classes; set data.args.task: regression, or"
            " another data.args.target"
        )
    _refuse_unseen(table, target, fields, indices, count)
    names = [str(key) for key in classes]
    for text in reversed(dict.fromkeys(fields)):  # as it is spelled first
        if odd or (table.is_plain(target) and text.isascii()):
            names[place[keys[text]]] = text
    _warn_of_case(table, target, names)
    return indices, Classes(target, tuple(names), numbers=not odd)


def _refuse_unseen(
    table: Table, target: str, fields: Sequence[str], indices: NDArray[np.int64], count: int
) -> None:
    """Refuse classes that only the validation table has."""
    unseen = ~np.isin(indices, indices[:count])
    if unseen.any():
        row = int(unseen.argmax())
        raise DataError(
            f"{table.place(row)}: the class {fields[row]!r} of {target!r} is not in {table.path}"
        )


def _warn_of_case(table: Table, target: str, names: Sequence[str]) -> None:
    """Warn of classes that differ in case alone; single letters may well be two classes."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if other != name and len(name) > 1:
            _warn(
                f"{table.path}: {other!r} and {name!r} of {target!r}, which differ in case alone,"
                " are taken for two classes; correct them if one is meant"
            )
            return


def _target_fields(table: Table, target: str) -> list[str]:
    """Return the fields of the target, none of which may be missing."""
    check_type(table, target)
    fields = table.columns[target]
    missing = [row for row, text in enumerate(fields) if text is None]
    if missing:
        spelled = sorted(text for text in table.missing[target] if text)
        advice = "; remove these rows or fill it in"
        if spelled and (table.odd(target) or not {*spelled} <= {*MISSING}):
            others = "[]" if "NA" in spelled else "['NA'], or []"
            advice += (
                f"; if {spelled[0]!r} is a class, say what is missing with data.args.na_values:"
                f" {others}"
            )
        raise DataError(
            f"{table.place(missing[0])}: the target {target!r} is missing, as in {len(missing)} of"
            f" {len(fields)} rows{advice}"
        )
    return [text for text in fields if text is not None]


# What a run has learned, for other tables.


def check_trained(table: Table, names: Sequence[str]) -> None:
    """Raise DataError if columns are missing that a run was trained on."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.head}: no column {', '.join(map(repr, missing))}, which the run was"
            f" trained on{did_you_mean(missing[0], table.columns)}; there are"
            f" {', '.join(map(repr, table.columns))}"
        )


def target_as(
    table: Table, target: str, known: Targets | None
) -> tuple[NDArray[Any], Classes | None]:
    """Return the class indices of a run and its classes, or regression targets and None.

    Raises:
        DataError: a target is missing, no number, or a class that the run does not know, with file
            and line.
    """
    fields = _target_fields(table, target)
    numbers = table.numbers(target)
    if not isinstance(known, Classes):
        odd = table.odd(target) or np.flatnonzero(np.isinf(numbers)).tolist()
        if odd:
            raise DataError(
                f"{table.place(odd[0])}: the target {target!r} is {fields[odd[0]]!r}, not a"
                " number, and the run was trained on numbers"
            )
        check_same_marks(table, target, known.marks if isinstance(known, Values) else None)
        return numbers, None
    index: dict[Any, int] = {
        Decimal(name) if known.numbers else name: number
        for number, name in enumerate(known.classes)
    }
    values: dict[str, Any] = {text: text for text in set(fields)}
    if known.numbers:
        words = {fields[row] for row in table.odd(target)}
        values = {text: table.exact(target, text) for text in values if text not in words}
    found = np.array([index.get(values.get(text), -1) for text in fields], np.int64)
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


def facts_of(
    table: Table,
    kinds: Mapping[str, Kind],
    left_out: Mapping[str, str],
    target: str,
    classes: Classes | None,
) -> tuple[ColumnFacts, ...]:
    """Say of each column how it was read, in the order of the file."""
    facts = []
    for name, fields in table.columns.items():
        if name in left_out:
            facts.append(ColumnFacts(name, "left out", reason=left_out[name]))
            continue
        words = None
        if name == target and classes is not None:
            words = len(classes.classes)
        elif kinds.get(name) == "words":
            words = len(set(fields))
        numbers = np.array([]) if words is not None else table.numbers(name)
        numbers = numbers[~np.isnan(numbers)]
        facts.append(
            ColumnFacts(
                name,
                "target" if name == target else "input",
                kind="number" if words is None else "words",
                low=float(numbers.min()) if len(numbers) else None,
                high=float(numbers.max()) if len(numbers) else None,
                words=words,
                missing=fields.count(None),
            )
        )
    return tuple(facts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _warn(message: str) -> None:
    warnings.warn(message, LrtoolWarning, stacklevel=3)
