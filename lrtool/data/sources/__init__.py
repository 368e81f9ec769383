"""The built-in sources by name.

A source is a function `source(split, *, …) -> Parts`. Its keyword-only arguments are `data.args` of
the configuration; `lrtool list sources` shows the first line of its docstring. It imports the
libraries that it needs when it is called, since every command imports this table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrtool.data.sources.digits import digits
from lrtool.data.sources.idx import idx
from lrtool.data.sources.npz import npz
from lrtool.data.sources.sklearn_sets import breast_cancer, diabetes, iris, wine
from lrtool.data.sources.synthetic import synthetic
from lrtool.data.sources.table import csv, parquet
from lrtool.data.sources.text import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrtool.data.samples import Parts

SOURCES: dict[str, Callable[..., Parts]] = {
    "digits": digits,
    "wine": wine,
    "breast_cancer": breast_cancer,
    "iris": iris,
    "diabetes": diabetes,
    "csv": csv,
    "parquet": parquet,
    "npz": npz,
    "idx": idx,
    "text": text,
    "synthetic": synthetic,
}
