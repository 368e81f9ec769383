"""Tables in a Parquet file, which knows the types of its columns."""

from __future__ import annotations

import io
from math import isnan
from typing import TYPE_CHECKING, Any

from lrtool.data.input_files import read_bytes
from lrtool.data.text_table import table_of
from lrtool.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.data.text_table import Table, TableFormat

# A small file may announce any number of fields, or bytes: more than these are a mistake or an
# attack, unless the file is as large.
_MOST_FIELDS, _MOST_BYTES = 10_000_000, 100_000_000
_MOST_A_BYTE = 100


def read_parquet(path: Path, table_format: TableFormat) -> Table:
    """Read a table; its numbers become text as Python writes them, so that they stay exact.

    Raises:
        DataError: pyarrow is not installed, the file is broken, or it holds no row.
    """
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  (optional)
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet files needs pyarrow: pip install 'lrtool[parquet]'"
        ) from None
    content = read_bytes(path)
    broken = (ArrowException, OSError, ValueError, OverflowError, RecursionError)
    try:
        file = parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        meta, schema = file.metadata, file.schema_arrow
        size = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    except broken as error:
        raise _unreadable(path, error) from None
    most = _MOST_A_BYTE * len(content)
    fields = meta.num_rows * meta.num_columns
    if fields > max(_MOST_FIELDS, most) or size > max(_MOST_BYTES, most):
        raise DataError(
            f"{path}: announces {fields:,} fields of {size:,} bytes, too many for"
            f" {len(content):,} bytes; the file is broken"
        )
    columns: list[list[str | None]] = [[] for _ in schema]
    spelled: list[dict[Any, str]] = [{} for _ in schema]
    types = {number: _type(field.type) for number, field in enumerate(schema)}
    try:
        for batch in file.iter_batches(use_threads=False):
            for number, column in enumerate(batch.columns):
                known = types[number] in {"number", "words"}
                values = column.to_pylist() if known else [None] * len(column)
                columns[number] += _texts(values, spelled[number])
    except broken as error:
        raise _unreadable(path, error) from None
    if not columns or not columns[0]:
        raise DataError(f"{path}: holds no row")
    header = [name.strip() for name in schema.names]
    places = [(path, row) for row in range(len(columns[0]))]
    return table_of(
        path, table_format, header, columns, places, place=f"{path}", types=types, unit="row"
    )


def _type(arrow: Any) -> str:
    """Return "number", "words", or what else a column holds."""
    from pyarrow import types  # noqa: PLC0415  (optional)

    if types.is_dictionary(arrow):
        return _type(arrow.value_type)
    if types.is_integer(arrow) or types.is_floating(arrow) or types.is_decimal(arrow):
        return "number"
    text = types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow)
    if text or types.is_boolean(arrow) or types.is_date(arrow) or types.is_time(arrow):
        return "words"
    if types.is_timestamp(arrow):
        return "words"
    return "number" if types.is_null(arrow) else str(arrow)


def _texts(values: list[Any], spelled: dict[Any, str]) -> list[str | None]:
    """Return values as text, equal ones as the same object; None for null and NaN."""
    texts: list[str | None] = []
    for value in values:
        if value is None or (isinstance(value, float) and isnan(value)):
            texts.append(None)
            continue
        if value not in spelled:
            spelled[value] = repr(value) if isinstance(value, float) else str(value).strip()
        texts.append(spelled[value])
    return texts


def _unreadable(path: Path, error: BaseException) -> DataError:
    first = str(error).strip().partition("\n")[0]
    return DataError(f"{path}: cannot be read; the file is broken: {first}")
