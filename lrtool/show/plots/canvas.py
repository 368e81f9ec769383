"""What every plot has in common: colours, fonts, the header, the two files.

The colours are those of Okabe and Ito (2008), for colour-blind readers too.
"""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from lrtool.report.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path


INK, GREY, RULE = "#1a1a1a", "#595959", "#e4e4e4"
CURVE, GOOD = "#0072B2", "#a9dcca"
SERIES = (  # colour and marker of each, then again from the first
    ("#56B4E9", "o"),
    ("#E69F00", "s"),
    ("#CC79A7", "^"),
    ("#009E73", "D"),
    ("#D55E00", "v"),
    ("#595959", "P"),
)
LEFT, WIDTH = 0.095, 0.875  # of the figure: what panels share
INCHES = 9.0  # across
LINE = 100  # letters of a header's line
BEYOND = "beyond the axis, or not a number"
VECTOR_POINTS = 20_000  # more become a bitmap inside the SVG

STYLE: dict[Any, Any] = {  # in place of the user's matplotlibrc
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first one comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "text.usetex": False,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lrtool",
}


def applied() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in this style, whatever the user's is."""
    return mpl.rc_context(STYLE)


class Plot(Figure):
    """A figure that shows itself at the end of a notebook's cell."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG of the size that a screen shows."""
    file = io.BytesIO()
    with applied():
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def new_figure(height: float) -> Plot:
    """Return an empty figure, 9 inches wide, that needs no display."""
    figure = Plot(figsize=(INCHES, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, directory: Path, name: str = "plot") -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, whole, and return their paths.

    Equal figures give equal bytes.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    paths = [directory / f"{name}.png", directory / f"{name}.svg"]
    for path, stamp in zip(paths, ("Software", "Date"), strict=True):
        with applied(), whole_file(path) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=160, metadata={stamp: None})
    return paths


def write_header(figure: Figure, title: str, lines: Sequence[str]) -> None:
    """Write a bold title and grey lines under it, from the figure's upper edge down."""
    inch = 1 / figure.get_figheight()
    style: dict[str, Any] = {"va": "top", "parse_math": False}  # a $ is a $
    figure.text(LEFT, 1 - 0.14 * inch, drawable(title), size=15, weight="bold", **style)
    for index, line in enumerate(lines):
        height = 1 - (0.45 + 0.19 * index) * inch
        figure.text(LEFT, height, drawable(line), color=GREY, **style)


def wrapped(text: str, lines: int = 2) -> list[str]:
    """Return `text` as at most `lines` lines of a header."""
    return textwrap.wrap(text, LINE, max_lines=lines, placeholder=" …")


def shortened(text: str, letters: int = LINE) -> str:
    """Return `text`, or its beginning where it is longer than a line."""
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def drawable(text: str) -> str:
    """Replace what the font cannot draw."""
    font = get_font(findfont("DejaVu Sans"))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in text)
