from decimal import Decimal
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrtool.data.number_format import FORMATS, NumberFormat, is_date

COMMA = NumberFormat(",", ".")


def spelled(value, numbers):
    """Write a number with groups of three digits, by hand."""
    whole, _, rest = f"{abs(value):f}".partition(".")
    groups = []
    while whole:
        whole, group = whole[:-3], whole[-3:]
        groups.insert(0, group)
    text = numbers.thousands.join(groups) + (numbers.decimal + rest if rest else "")
    return f"-{text}" if value < 0 else text


@given(
    st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=3),
    st.sampled_from(FORMATS),
)
def test_what_is_written_in_a_format_is_read_in_it(value, numbers):
    text = spelled(value, numbers)
    assert numbers.exact(text) == value
    assert numbers.numbers([text]).tolist() == [float(value)]
    assert numbers.value(f"${text}") == numbers.value(f"{text} %") == float(value)
    assert numbers.value(f"({text.removeprefix('-')})") == -abs(float(value))


@given(st.text("0123456789.,' _-+e", min_size=1, max_size=12))
def test_a_plain_number_is_one_in_python_too(text):
    value = NumberFormat().read(text)
    if value is None:
        return
    assert value == float(text.strip())
    assert NumberFormat().numbers([text]).tolist() == [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.234,5", 1234.5),
        ("20,5", 20.5),
        ("-3", -3),
        ("1e3", 1000),
        (",5", 0.5),
        ("1.5", nan),  # not three digits
        ("12.34.567", nan),
        ("1,2,3", nan),
        ("12,34,567", nan),
        ("x", nan),
        (None, nan),
    ],
)
def test_decimal_commas_by_hand(text, value):
    np.testing.assert_array_equal(COMMA.numbers([text]), [value])


@pytest.mark.parametrize(
    ("numbers", "text", "value"),
    [
        (NumberFormat(".", ","), "1,250.00", 1250),
        (NumberFormat(".", ","), "12,34,567.5", 1234567.5),  # as in India
        (NumberFormat(".", ","), "20,5", nan),
        (NumberFormat(",", " "), "1 250,5", 1250.5),
        (NumberFormat(",", " "), "1\u202f250\u00a0000", 1250000),
        (NumberFormat(".", "'"), "1'250", 1250),
        (NumberFormat(".", "'"), "1’250", 1250),
        (NumberFormat(".", "_"), "1_000", 1000),
        (NumberFormat(), "1_000", nan),
        (NumberFormat(), "\u22125", -5),  # a minus sign
        (NumberFormat(), "5\u00a0", 5),
        (NumberFormat(), "\uff11\uff12", 12),  # full width
        (NumberFormat(), "\u0663.5", 3.5),  # an Arabic digit
        (NumberFormat(), "5\u00b2", nan),  # squared
        (NumberFormat(), "0x1F", nan),
        (NumberFormat(), "inf", np.inf),
    ],
)
def test_formats_by_hand(numbers, text, value):
    np.testing.assert_array_equal(numbers.numbers([text]), [value])


@pytest.mark.parametrize(
    ("text", "value", "marks", "unit"),
    [
        ("$5", 5, "$", ""),
        ("-$5", -5, "$", ""),
        ("$-5", -5, "$", ""),
        ("($5)", -5, "$", ""),
        ("US$ 5", 5, "US$", ""),
        ("5 €", 5, "€", ""),
        ("EUR 5", 5, "EUR", ""),
        ("45%", 45, "%", ""),
        ("5*", 5, "", ""),
        ("<0.01", 0.01, "<", ""),
        ("5e3 kg", 5000, "kg", "kg"),
        ("7 m/s", 7, "m/s", "m/s"),
        ("20 °C", 20, "°C", "°C"),
        ("65+", 65, "+", "+"),
    ],
)
def test_numbers_with_marks(text, value, marks, unit):
    marked = NumberFormat().marked(text)
    assert (marked.value, marked.marks, marked.unit) == (value, marks, unit)


@pytest.mark.parametrize(
    "text", ["A1", "10-20", "1.2.3", "192.168.0.1", "1,2,3", "1/2", "$", "(5", "5)", "", "1 2"]
)
def test_words_with_digits_are_no_numbers(text):
    assert NumberFormat().marked(text) is None
    assert isnan(NumberFormat().value(text))


def test_a_number_in_another_format_has_no_value_in_this_one():
    marked = NumberFormat().marked("$1,250.00")
    assert isnan(marked.value)
    assert NumberFormat(".", ",").value("$1,250.00") == 1250


def test_whole_numbers_stay_exact():
    text = str(2**53 + 1)
    assert NumberFormat().exact(text) == 2**53 + 1
    assert NumberFormat().exact("1.0") == NumberFormat().exact("01") == Decimal(1)
    assert NumberFormat().marked(f"(${text})").exact == -(2**53) - 1
    with pytest.raises(ValueError, match="not a number: 'one'"):
        NumberFormat().exact("one")


@pytest.mark.parametrize(
    "text",
    [
        *("2024-01-31", "2024-01", "31.01.2024", "1/31/24", "2024-01-31T12:00:00Z"),
        *("20240131T120000", "20240131T1200Z"),
        *("2024/1/31 12:30", "12:30", "12:30:05.5", "9:05 pm", "125:30"),
        *("5-Jan-24", "5 January 2024", "5. März 2024", "Jan 5, 2024", "Sept. 5 2024"),
    ],
)
def test_dates_and_times(text):
    assert is_date(text)


@pytest.mark.parametrize(
    "text", ["10-20", "2019-2020", "2010-20", "1/2", "12:99", "555-1234", "1.2", "2024", "day"]
)
def test_no_dates(text):
    assert not is_date(text)
