"""What a run learned of its training set: `encoding.json`. Other data are read with it.

Inputs and targets are turned into numbers by what the training set holds: its classes, words,
characters, means and deviations. Learned anew from other data they would mean something else.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from lrtool.errors import DataError, LrtoolWarning, UserError, key_path
from lrtool.report.files import write_text
from lrtool.report.records import RECORD, Count, FromOne, TargetScale
from lrtool.report.run_directory import ENCODING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from lrtool.data.split import Rows, Split

SCHEMA_VERSION = 1

Kind = TypeVar("Kind")
Deviation = Annotated[float, Field(gt=0)]


@dataclass(config=RECORD, frozen=True, slots=True)
class NumberColumn:
    """A column of numbers x: (x − mean) / deviation, and `fill` where x is missing."""

    name: str
    fill: float
    mean: float
    deviation: Deviation
    kind: Literal["number"] = "number"
    marks: Annotated[
        str | None,
        Field(description="beside its numbers, such as $ or kg; null: they are not looked for"),
    ] = None


@dataclass(config=RECORD, frozen=True, slots=True)
class WordsColumn:
    """A column of words: one input for each, 1 or 0; "" is a missing one."""

    name: str
    words: Annotated[tuple[str, ...], Field(min_length=1)]
    kind: Literal["words"] = "words"


Column = Annotated[NumberColumn | WordsColumn, Field(discriminator="kind")]


@dataclass(config=RECORD, frozen=True, slots=True)
class TableInputs:
    """The columns of a table, in the order of the inputs made of them."""

    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    fields: Annotated[
        int | None,
        Field(description="of a line of a file without a header; null where names are known"),
    ] = None
    kind: Literal["table"] = "table"

    @model_validator(mode="after")
    def _different(self) -> Self:
        _refuse_repeated([column.name for column in self.columns])
        for column in self.columns:
            if isinstance(column, WordsColumn):
                _refuse_repeated(column.words)
        return self

    @property
    def width(self) -> int:
        """The number of inputs."""
        return sum(
            len(column.words) if isinstance(column, WordsColumn) else 1 for column in self.columns
        )

    def encode(self, columns: Mapping[str, Any], *, warn: bool = False) -> NDArray[np.float32]:
        """Return the inputs, (N, width).

        Args:
            columns: by name: numbers, NaN where missing, or words, "" where missing.
            warn: tell how many words are unknown; all their inputs are 0.

        Warns:
            LrtoolWarning: there are some.
        """
        size = len(columns[self.columns[0].name])
        inputs = np.zeros((size, self.width), np.float32)
        place = 0
        for column in self.columns:
            values = columns[column.name]
            if isinstance(column, NumberColumn):
                numbers = np.array(values, np.float64)
                numbers[np.isnan(numbers)] = column.fill
                with np.errstate(over="ignore"):  # too large for float32: refused as infinite
                    inputs[:, place] = (numbers - column.mean) / column.deviation
                place += 1
                continue
            number = {word: index for index, word in enumerate(column.words)}
            number |= _by_value(set(values) - number.keys(), number)
            found = np.array([number.get(word, -1) for word in values], np.int64)
            rows = np.flatnonzero(found >= 0)
            inputs[rows, place + found[rows]] = 1
            place += len(column.words)
            if warn and len(rows) < size:
                unknown = dict.fromkeys(values[row] for row in np.flatnonzero(found < 0))
                word = next((word for word in unknown if word), "")
                what = [f"a word that the training set does not have, such as {word!r}"] * bool(
                    word
                )
                what += ["no value, as none does in the training set"] * ("" in unknown)
                warnings.warn(
                    f"column {column.name!r}: {size - len(rows)} of {size} rows hold"
                    f" {' or '.join(what)}; its inputs are 0",
                    LrtoolWarning,
                    stacklevel=2,
                )
        return inputs


def _by_value(unknown: Collection[str], known: Mapping[str, int]) -> dict[str, int]:
    """Return the places of words that are known numbers in another spelling, as 1.0 is 1."""
    values = {value: place for word, place in known.items() if (value := _value(word)) is not None}
    found = {word: value for word in unknown if (value := _value(word)) is not None}
    return {word: values[value] for word, value in found.items() if value in values}


def _value(word: str) -> Decimal | None:
    try:
        value = Decimal(word)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


@dataclass(config=RECORD, frozen=True, slots=True)
class GreyInputs:
    """Images of bytes x: (x / 255 − mean) / deviation."""

    mean: float
    deviation: Deviation
    kind: Literal["grey"] = "grey"

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return images (N, H, W) as inputs, (N, 1, H, W)."""
        grey = np.arange(256) / 255
        table: NDArray[np.float32] = ((grey - self.mean) / self.deviation).astype(np.float32)
        return table[images][:, None]


@dataclass(config=RECORD, frozen=True, slots=True)
class CharacterInputs:
    """Characters: their places in `characters`, and the next number for all others."""

    characters: Annotated[str, Field(min_length=1, description="in the order of code points")]
    kind: Literal["characters"] = "characters"

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in zip(self.characters, self.characters[1:], strict=False)):
            raise ValueError("characters must ascend")
        return self

    def encode(self, codes: NDArray[np.uint32], *, warn: bool = False) -> NDArray[np.int64]:
        """Return the token of each code point.

        Warns:
            LrtoolWarning: some are unknown, if `warn` is set.
        """
        known = code_points(self.characters)
        tokens = np.searchsorted(known, codes)
        unseen = known[np.minimum(tokens, len(known) - 1)] != codes
        if warn and unseen.any():
            warnings.warn(
                f"{unseen.sum()} of {len(codes)} characters are not in the training set, such as"
                f" {chr(codes[unseen][0])!r}",
                LrtoolWarning,
                stacklevel=2,
            )
        return np.where(unseen, len(known), tokens).astype(np.int64)


@dataclass(config=RECORD, frozen=True, slots=True)
class ArrayInputs:
    """Arrays of a type, which are taken as they are."""

    dtype: str
    kind: Literal["array"] = "array"


Inputs = TableInputs | GreyInputs | CharacterInputs | ArrayInputs


@dataclass(config=RECORD, frozen=True, slots=True)
class Classes:
    """Classes with names: those of a column, in the order of the model's outputs."""

    name: Annotated[str | None, Field(description="of the column")]
    classes: Annotated[tuple[str, ...], Field(min_length=1, description="as the file has them")]
    numbers: Annotated[
        bool, Field(description="they are numbers, so that 1 and 1.0 are the same class")
    ] = False
    kind: Literal["classes"] = "classes"

    @model_validator(mode="after")
    def _different(self) -> Self:
        _refuse_repeated(self.classes)
        if self.numbers:
            try:
                [float(text) for text in self.classes]
            except ValueError:
                raise ValueError("classes must be numbers") from None
        return self


@dataclass(config=RECORD, frozen=True, slots=True)
class ClassIndices:
    """Classes that are numbered as they come, or tokens: 0 to count − 1."""

    count: FromOne
    names: Annotated[
        tuple[str, ...], Field(description="as the dataset names its classes; none: it does not")
    ] = ()
    kind: Literal["class indices"] = "class indices"


@dataclass(config=RECORD, frozen=True, slots=True)
class Values:
    """Numbers y to regress: the model learns (y − mean) / deviation."""

    name: Annotated[str | None, Field(description="of the column")] = None
    mean: float = 0.0
    deviation: Deviation = 1.0
    kind: Literal["values"] = "values"
    marks: Annotated[
        str | None, Field(description="beside its numbers; null: they are not looked for")
    ] = None

    def encode(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return numbers (N,) as targets, (N, 1)."""
        with np.errstate(over="ignore"):  # too large for float32: refused as infinite
            scaled: NDArray[np.float64] = (numbers[:, None] - self.mean) / self.deviation
            return scaled.astype(np.float32)


Targets = Classes | ClassIndices | Values


@dataclass(config=RECORD, frozen=True, slots=True)
class StoredSplit:
    """Which samples are the validation set: the rule, and what shows that the data are the same."""

    validation: Annotated[
        float | int | str | None,
        Field(description="data.validation; null: the source has a set of its own, or none"),
    ]
    seed: int
    samples: dict[str, Count | None]
    train_digest: Annotated[
        str | None, Field(description="SHA-256 of the training set; null unless it is in memory")
    ]
    digest: Annotated[
        str | None, Field(description="SHA-256 of all samples; null unless all are in memory")
    ]


@dataclass(config=RECORD, frozen=True, slots=True)
class Encoding:
    """What a run learned of its training set.

    Attributes:
        source: `data.source`.
        inputs: how inputs were made; None for batches that are not (inputs, targets).
        targets: how targets were made; None where that is unknown.
        input_shape: of one sample's inputs; None unless batches are (inputs, targets).
        num_outputs: of the model; None where unknown.
        vocabulary: the number of different tokens among the inputs; None unless they are tokens.
        split: into training and validation set.
    """

    source: str
    inputs: Annotated[Inputs | None, Field(discriminator="kind")]
    targets: Annotated[Targets | None, Field(discriminator="kind")]
    input_shape: tuple[Count, ...] | None
    num_outputs: int | None
    vocabulary: int | None
    split: StoredSplit

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.inputs, TableInputs) and self.input_shape != (self.inputs.width,):
            raise ValueError(f"{self.inputs.width} inputs do not have the shape {self.input_shape}")
        return self

    @property
    def classes(self) -> int | None:
        """The number of classes; None for values."""
        if isinstance(self.targets, Classes):
            return len(self.targets.classes)
        return self.targets.count if isinstance(self.targets, ClassIndices) else None


def class_names(targets: Targets | None) -> tuple[str, ...]:
    """Return the names of classes, in the order of a model's outputs; () where they have none."""
    if isinstance(targets, Classes):
        return targets.classes
    return targets.names if isinstance(targets, ClassIndices) else ()


def target_scale(encoding: Encoding) -> TargetScale | None:
    """Return the scale of the target; None if it was not standardised."""
    targets = encoding.targets
    if not isinstance(targets, Values) or (targets.mean, targets.deviation) == (0.0, 1.0):
        return None
    return TargetScale(targets.name, targets.mean, targets.deviation)


def _refuse_repeated(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice")


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def numbers_learned(
    split: Split, columns: Mapping[str, NDArray[np.float64]], rows: Rows
) -> TableInputs:
    """Return what a run has learned of columns of numbers, or learn it from `rows`."""
    if split.encoding is not None:
        return of_kind(split.encoding, split.encoding.inputs, TableInputs)
    values = np.column_stack(list(columns.values()))[rows]
    return TableInputs(learn_numbers(list(columns), values))


def values_learned(split: Split, name: str, numbers: NDArray[np.float64], rows: Rows) -> Values:
    """Return what a run has learned of a target to regress, (N,), or learn it from `rows`."""
    if split.encoding is not None:
        return of_kind(split.encoding, split.encoding.targets, Values)
    return Values(name) if split.unscaled else learn_values(name, numbers[rows])


def of_kind(encoding: Encoding, learned: Inputs | Targets | None, kind: type[Kind]) -> Kind:
    """Return `learned`, a part of an encoding.

    Raises:
        DataError: it is of another kind.
    """
    if not isinstance(learned, kind):
        raise DataError(f"the run's {ENCODING} does not fit data.source {encoding.source}")
    return learned


def learn_table(frame: pd.DataFrame) -> TableInputs:
    """Learn columns from the training rows: first all columns of numbers, then those of words.

    Args:
        frame: floats, NaN where missing, and words, "" where missing.

    Raises:
        DataError: numbers are too large for a mean.
    """
    numeric = [name for name in frame.columns if frame[name].dtype == np.float64]
    numbers = learn_numbers(numeric, frame[numeric]) if numeric else ()
    words = [
        WordsColumn(name, tuple(sorted(set(frame[name]))))
        for name in frame.columns
        if name not in numeric
    ]
    return TableInputs((*numbers, *words))


def learn_numbers(
    names: Sequence[str], values: pd.DataFrame | NDArray[Any]
) -> tuple[NumberColumn, ...]:
    """Learn columns of numbers, (N, k), NaN where missing: median, mean and deviation.

    The deviation of a constant column is taken for 1.

    Raises:
        DataError: numbers are too large for a mean.
    """
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  (slow to import)
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415  (likewise)

    median = SimpleImputer(strategy="median", keep_empty_features=True)
    scaler = StandardScaler()
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.fit(median.fit_transform(values))
    columns = zip(names, median.statistics_, scaler.mean_, scaler.scale_, strict=True)
    learned = []
    for name, fill, mean, deviation in columns:
        if not np.isfinite([fill, mean, deviation]).all():
            raise DataError(f"column {name!r} holds numbers that are too large to be standardised")
        learned.append(NumberColumn(name, float(fill), float(mean), float(deviation)))
    return tuple(learned)


def learn_values(name: str, numbers: NDArray[np.float64]) -> Values:
    """Learn mean and deviation of the target, (N,).

    Raises:
        DataError: numbers are too large for a mean.
    """
    (column,) = learn_numbers([name], numbers[:, None])
    return Values(name, column.mean, column.deviation)


def write(encoding: Encoding, directory: Path) -> None:
    """Write `encoding.json`, whole.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    data = _ENCODING.dump_python(encoding, mode="json")
    content = {"schema_version": SCHEMA_VERSION, "sha256": _checksum(data), "encoding": data}
    write_text(directory / ENCODING, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read(directory: Path) -> Encoding | None:
    """Read what `write` wrote; None if the run has no such file, as those of older versions.

    Raises:
        UserError: the file cannot be read, is damaged, or comes from a newer lrtool.
    """
    path = directory / ENCODING
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        whole = _FILE.validate_json(content)
        if whole.schema_version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: written by a newer lrtool (schema version {whole.schema_version}; this "
                f"one reads {SCHEMA_VERSION}): update lrtool"
            )
        if whole.sha256 != _checksum(whole.encoding):
            raise UserError(f"{path}: is damaged: its content does not fit its sha256")
        return _ENCODING.validate_json(json.dumps(whole.encoding))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = f"{key_path(first['loc'])}: " if first["loc"] else ""
        raise UserError(f"{path}: not an encoding of lrtool: {place}{first['msg']}") from None


def _checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@dataclass(config=RECORD, frozen=True, slots=True)
class _EncodingFile:
    """The content of `encoding.json`."""

    schema_version: int
    sha256: str
    encoding: dict[str, JsonValue]


_ENCODING: TypeAdapter[Encoding] = TypeAdapter(Encoding)
_FILE: TypeAdapter[_EncodingFile] = TypeAdapter(_EncodingFile)
