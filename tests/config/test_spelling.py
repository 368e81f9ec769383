import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrtool.config import document as documents
from lrtool.config.spelling import count, number, spell


@pytest.mark.parametrize(
    ("value", "exact", "two"),
    [
        (0.00125, "0.00125", "0.0013"),
        (1e-7, "1e-7", "1e-7"),
        (0.0000123, "1.23e-5", "1.2e-5"),
        (0.0001, "0.0001", "0.0001"),
        (0.1 + 0.2, "0.30000000000000004", "0.3"),
        (83_400.0, "83400", "83000"),
        (999_999.0, "999999", "1e6"),
        (1e6, "1e6", "1e6"),
        (-2.5e38, "-2.5e38", "-2.5e38"),
        (0.0, "0", "0"),
        (12, "12", "12"),
        (math.nan, "nan", "nan"),
        (-math.inf, "-inf", "-inf"),
    ],
)
def test_numbers_are_spelled_as_people_type_them(value, exact, two):
    assert (number(value), number(value, 2)) == (exact, two)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself(value):
    text = number(value)
    assert float(text) == value
    assert documents.plain_scalar(text) == value
    assert "+" not in text


def test_one_thing_is_no_plural():
    assert [count(n, "epoch") for n in (0, 1, 2, 1000)] == [
        *("0 epochs", "1 epoch", "2 epochs", "1,000 epochs")
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (12, "12"),
        (1e-5, "1e-5"),
        (0.001, "0.001"),
        ("adam", "adam"),
        ([8, True, None], "[8, true, null]"),
        ({"a": [0.5, "x, y"], "b": {}}, "{a: [0.5, 'x, y'], b: {}}"),
    ],
)
def test_values_are_spelled_as_in_the_file(value, text):
    assert spell(value) == text
    assert documents.parse(f"key: {text}", "f.yaml").data == {"key": value}
