"""Numbers written as text: plain ones, and those with marks, such as "$1,250.00" or "45%"."""

from __future__ import annotations

import functools
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from math import nan
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SPACE = "[ \u00a0\u2007\u2009\u202f]"  # between digits: also those that do not break a line
_CURRENCY = "[$¢£¤¥฿\u20a0-\u20cf]"
_CODE = "(?:US|CA|AU?|NZ|HK|R)\\$|USD|EUR|GBP|JPY|CHF|CAD|AUD|INR|CNY|RMB|Rs\\.?|kr\\.?|zł"
_MONEY = f"(?:{_CODE}|{_CURRENCY})"
_UNIT = r"[^\W\d_]{1,12}(?:/[^\W\d_]{1,12})?[²³]?\.?|°[CF]?"
_DIGITS = f"[0-9]+(?:(?:[.,'’_]|{_SPACE})[0-9]+)*|[.,][0-9]+"
_MARKED = re.compile(
    rf"(?P<relation>[<>≤≥~≈]=?)?\s*(?P<opening>\()?\s*(?P<sign>[-+])?\s*(?P<before>{_MONEY})?\s*"
    rf"(?P<inner>[-+])?(?P<digits>{_DIGITS})(?P<exponent>[eE][-+]?[0-9]+)?"
    rf"\s*(?P<after>%|‰|{_MONEY}|(?P<unit>{_UNIT}|\+))?\s*(?P<closing>\))?[*†‡]*"
)
_DATE = re.compile(
    r"(?:(?:1[0-9]|2[0-9])[0-9]{2}([-/.])(?:0?[1-9]|1[0-2])(?:\1[0-3]?[0-9])?"
    r"|[0-3]?[0-9]([-/.])[0-3]?[0-9]\2(?:[0-9]{4}|[0-9]{2}))"
    r"(?:[ T][0-2]?[0-9]:[0-5][0-9].{0,25})?"
    r"|[12][0-9]{3}(?:0[1-9]|1[0-2])[0-3][0-9]T[0-9]{4,6}.{0,10}"
    r"|[0-9]{1,3}:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?(?: ?[AaPp]\.?[Mm]\.?)?"
    r"|[0-3]?[0-9][- .]{1,2}[^\W\d_]{3,9}[- .,]{1,2}[0-9]{2,4}"
    r"|[^\W\d_]{3,9}\.? [0-3]?[0-9],? [0-9]{4}"
)
_MAGNITUDES = {"k", "K", "m", "M", "b", "B", "bn", "G", "T"}
_THOUSANDS = {" ": _SPACE, "'": "['’]"}
_TO_ASCII = str.maketrans(dict.fromkeys("\u2212\u2012\u2013", "-") | {"\u00a0": " "})


@dataclass(frozen=True, slots=True)
class Marked:
    """A number with marks.

    Attributes:
        exact: None where the digits are no number in the table's format.
        marks: what else there is but sign and digits, such as "$" or "%".
        unit: that part of the marks that is a unit or a magnitude, such as "kg", "k" or "+".
    """

    exact: Decimal | None
    marks: str
    unit: str

    @property
    def value(self) -> float:
        """The nearest number that a float holds; NaN where there is none."""
        return nan if self.exact is None else float(self.exact)

    @property
    def bound(self) -> bool:
        """Whether it is the bound of a range, such as "<=50K" or ">8"."""
        return self.marks[:1] in {*"<>≤≥"}


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How the numbers of a table are written.

    Attributes:
        decimal: the decimal mark.
        thousands: what stands between groups of three digits; "" for nothing.
    """

    decimal: str = "."
    thousands: str = ""

    def numbers(self, fields: Sequence[str | None]) -> NDArray[np.float64]:
        """Return the fields as numbers, NaN for missing ones and words."""
        import pandas as pd  # noqa: PLC0415  (slow to import)

        if self != NumberFormat():
            plain = _plain(self)
            fields = [field and self._in_python(_ascii(field), plain) for field in fields]
        elif not "".join(filter(None, fields)).isascii():
            fields = [field and _ascii(field) for field in fields]
        series = pd.Series(list(fields), dtype=object)
        numbers: NDArray[np.float64] = pd.to_numeric(series, errors="coerce").to_numpy(np.float64)
        return numbers

    def marked(self, field: str) -> Marked | None:
        """Return a number with marks; None for a word.

        A word's digits are a number in no format at all: "10-20", "1.2.3", "A1".
        """
        found = _MARKED.fullmatch(_ascii(field))
        if found is None or bool(found["opening"]) != bool(found["closing"]):
            return None
        if not any(other.read(found["digits"]) is not None for other in FORMATS):
            return None
        marks = [found["relation"], found["before"], found["after"]]
        negative = [found["opening"], found["sign"] == "-", found["inner"] == "-"]
        exact: Decimal | None = None
        with suppress(ValueError):
            exact = self.exact(f"{found['digits']}{found['exponent'] or ''}")
        return Marked(
            exact=exact if exact is None or not any(negative) else -exact,
            marks="".join(mark for mark in marks if mark),
            unit=found["unit"] or "",
        )

    def value(self, field: str) -> float:
        """Return the value of a number with marks, NaN for a word."""
        marked = self.marked(field)
        return nan if marked is None else marked.value

    def read(self, text: str) -> float | None:
        """Return a number without marks; None if it is not one in this format."""
        plain = self._in_python(_ascii(text), _plain(self))
        return None if plain is None else float(plain)

    def exact(self, text: str) -> Decimal:
        """Return a number without marks, exactly.

        Raises:
            ValueError: it is not one in this format.
        """
        plain = self._in_python(_ascii(text), _plain(self))
        if plain is None:
            raise ValueError(f"not a number: {text!r}")
        return Decimal(plain)

    def _in_python(self, text: str, plain: re.Pattern[str]) -> str | None:
        """Return a number as Python writes it; None if it is not one in this format."""
        if not plain.fullmatch(text):
            return None
        if self.thousands:
            mark = _THOUSANDS.get(self.thousands, re.escape(self.thousands))
            text = re.sub(f"(?<=[0-9]){mark}(?=[0-9])", "", text)
        return text.replace(self.decimal, ".")


@functools.cache
def _plain(numbers: NumberFormat) -> re.Pattern[str]:
    """Return the pattern of numbers without marks, infinity among them."""
    decimal = re.escape(numbers.decimal)
    whole = "[0-9]+"
    if numbers.thousands:
        mark = _THOUSANDS.get(numbers.thousands, re.escape(numbers.thousands))
        whole += f"|[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+"
        if numbers.thousands == ",":  # as in India
            whole += "|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}"
    number = f"(?:{whole})(?:{decimal}[0-9]*)?|{decimal}[0-9]+"
    return re.compile(rf"[-+]?(?:(?:{number})(?:[eE][-+]?[0-9]+)?|inf(?:inity)?)", re.IGNORECASE)


# In the order in which they are offered: the first of those that mean the same.
FORMATS = (
    NumberFormat(),
    NumberFormat(".", ","),
    NumberFormat(","),
    NumberFormat(",", "."),
    NumberFormat(".", " "),
    NumberFormat(",", " "),
    NumberFormat(".", "'"),
    NumberFormat(",", "'"),
    NumberFormat(".", "_"),
)


def is_date(field: str) -> bool:
    """Tell whether a field is a date or a time of day."""
    return _DATE.fullmatch(field) is not None


def same_unit(units: set[str]) -> bool:
    """Tell whether the units of a column make numbers of it; those of "1st" and "2nd" do not."""
    return len(units) <= 1 or units <= {"", *_MAGNITUDES}


def _ascii(field: str) -> str:
    """Replace minus signs, spaces and digits of other scripts."""
    if field.isascii():
        return field.strip()
    plain = (str(unicodedata.decimal(character, character)) for character in field)
    return "".join(plain).translate(_TO_ASCII).strip()
