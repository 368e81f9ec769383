import datetime as dt
import io
import re
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as files

from lrtool.data.sources.table import csv, parquet
from lrtool.errors import LrtoolWarning, UserError

N = 24
COLUMNS = {
    "size": pa.array([None, *[i * 0.5 for i in range(N - 1)]]),
    "count": pa.array([i * i for i in range(N)], pa.int32()),
    "cost": [Decimal(f"{i}.25") for i in range(N)],
    "city": pa.array([["Rome", "Oslo", None][i % 3] for i in range(N)]),
    "town": pa.array([["u", "v"][i % 2] for i in range(N)]).dictionary_encode(),
    "open": [i % 3 == 0 for i in range(N)],
    "kind": [["a", "b"][i % 2] for i in range(N)],
}


@pytest.fixture
def write(tmp_path):
    def to_file(columns, name="t.parquet", **options):
        files.write_table(pa.table(columns), tmp_path / name, **options)
        return name

    return to_file


def test_the_same_numbers_as_from_csv(write, split, tmp_path):
    header = ",".join(COLUMNS)
    values = [
        column.to_pylist() if hasattr(column, "to_pylist") else column
        for column in COLUMNS.values()
    ]
    lines = [
        ",".join("" if v is None else str(v) for v in row) for row in zip(*values, strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines, ""]))
    expected = csv(split(0.25), path="t.csv", target="kind")
    found = parquet(split(0.25), path=write(COLUMNS), target="kind")
    for one, other in ((found.train, expected.train), (found.validation, expected.validation)):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, other.targets)
    assert found.columns == expected.columns
    assert found.learned == expected.learned


def test_types_of_the_file_tell_numbers_from_words(write, split):
    columns = {"code": [["10", "20"][i % 2] for i in range(N)], **COLUMNS}
    path = write(columns)
    with pytest.warns(LrtoolWarning, match=r"column 'code' holds numbers as text, such as '10'"):
        parts = parquet(split(), path=path, target="kind")
    assert {facts.name: facts.kind for facts in parts.columns} == {
        **dict.fromkeys(["code", "city", "town", "open", "kind"], "words"),
        **dict.fromkeys(["size", "count", "cost"], "number"),
    }
    for argument, kind in (("numeric", "number"), ("categorical", "words")):
        parts = parquet(split(), path=path, target="kind", **{argument: ["code"]})
        assert parts.columns[0].kind == kind


def test_numbers_stay_exact_and_do_not_depend_on_the_decimal_mark(write, split):
    columns = {"x": [0.1, 1e300, 1e-300, -2.5], "y": [2**53, 2**53 + 1, 2**53 + 2, 2**53]}
    parts = parquet(split(), path=write(columns), target="y", decimal=",", columns=["x"])
    assert parts.num_outputs == 3
    assert parts.train.targets.tolist() == [0, 1, 2, 0]
    assert (parts.columns[0].low, parts.columns[0].high) == (-2.5, 1e300)


def test_a_validation_table(write, split):
    other = write({name: column[:4] for name, column in COLUMNS.items()}, "other.parquet")
    parts = parquet(split(other), path=write(COLUMNS), target="kind")
    np.testing.assert_array_equal(parts.validation.inputs, parts.train.inputs[:4])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1, 2]] * N, r"column 'v' holds list<.*int64>, neither numbers nor words; leave it out"),
        ([b"a"] * N, "column 'v' holds binary, neither numbers nor words"),
        (
            [dt.date(2024, 1, i + 1) for i in range(N)],
            r"row 0 \(from 0\): column 'v' holds '2024-01-01', a date or time",
        ),
        (
            [dt.datetime(2024, 1, i + 1, 12) for i in range(N)],  # noqa: DTZ001
            "column 'v' holds '2024-01-01 12:00:00', a date or time",
        ),
        ([f"{i}%" for i in range(N)], r"row 0 \(from 0\): column 'v' holds '0%', a number with"),
        ([float("inf"), *range(N - 1)], r"row 0 \(from 0\): column 'v' holds 'inf', which is not"),
    ],
)
def test_columns_that_are_refused(column, message, write, split):
    path = write({**COLUMNS, "v": column})
    with pytest.raises(UserError, match=message):
        parquet(split(), path=path, target="kind")
    parquet(split(), path=path, target="kind", drop=["v"])


def test_row_numbers_of_pandas_are_left_out(write, split):
    columns = {**COLUMNS, "__index_level_0__": [5 * i for i in range(N)]}
    with pytest.warns(LrtoolWarning, match="'__index_level_0__' is left out: row numbers"):
        parquet(split(), path=write(columns), target="kind")


def test_missing_targets_name_the_row(write, split):
    columns = {"x": [1.5, 2.5, 3.5], "y": ["a", None, "b"]}
    message = "t.parquet: row 1 (from 0): the target 'y' is missing, as in 1 of 3 rows"
    with pytest.raises(UserError, match=re.escape(message)):
        parquet(split(), path=write(columns), target="y")


def test_a_table_without_rows(write, split):
    with pytest.raises(UserError, match=r"t\.parquet: holds no row"):
        parquet(split(), path=write({"x": [], "y": []}), target="y")


def test_broken_files(split, write, tmp_path):
    path = write(COLUMNS, write_page_checksum=True)
    content = (tmp_path / path).read_bytes()
    flipped = bytearray(content)
    flipped[60] ^= 4
    for broken in (
        b"PAR1",
        content[:-9],
        content[: len(content) // 2],
        bytes(flipped),
        b"x,y\n1,2\n",
    ):
        (tmp_path / path).write_bytes(broken)
        with pytest.raises(UserError, match=r"t\.parquet: cannot be read; the file is broken: \w"):
            parquet(split(), path=path, target="kind")


def test_a_small_file_that_announces_too_much(split, tmp_path):
    buffer = io.BytesIO()
    zeros = pa.array(np.zeros(6_000_000))
    files.write_table(pa.table({"x": zeros, "y": zeros}), buffer, compression="zstd")
    (tmp_path / "t.parquet").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"announces 12,000,000 fields of [\d,]+ bytes, too many"):
        parquet(split(), path="t.parquet", target="y")


def test_without_pyarrow_the_extra_is_named(split, write, monkeypatch):
    path = write(COLUMNS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'lrtool\[parquet\]'"):
        parquet(split(), path=path, target="kind")
