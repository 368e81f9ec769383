"""A plot in a page: SVG of our own, and the same numbers as a table.

The script reads that table to show the values under the pointer, or one after another by keyboard,
so nothing is in the page twice. Lines and dots are paths in a square of 1,000 that is stretched to
the plot's size, which does not touch the width of their strokes; whatever must not be stretched is
placed in percent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import isfinite, isnan
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from lrtool.show import words
from lrtool.show.page.axis import Axis, room_for
from lrtool.show.page.render import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = 7
BEYOND = "beyond the axis, or not a number"
X_TICKS, Y_TICKS = 9, 6
MOST_EDGES = 200  # marks at an edge, beside one another
FAR = 3.0  # plots above or below: lines go no further

Shape = Literal["line", "levels", "dots", "squares", "crosses", "diamonds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values over x.

    Attributes:
        name: in the legend and the table.
        x: where they are.
        y: the values; None: none there; NaN and infinity are marked at the upper edge.
        shape: levels are lines that go on to the next x before they step.
        colour: from 1 to 7, each its own dash.
        low, high: of a band around a line, or of a bar at each dot; as long as y, or empty.
        band: what these are.
        faint: raw values behind a smooth line.
        hidden: from the legend.
        smooth: of raw values that are drawn too, so that only those are marked beyond the axis.
        only_drawn: not in the table, as its numbers say nothing more.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    shape: Shape = "line"
    colour: int = 1
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    band: str = "band"
    faint: bool = False
    hidden: bool = False
    smooth: bool = False
    only_drawn: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A range of x: its shade over the height of the plot, and its name above, where it fits.

    Attributes:
        kind: of the shade: a class in style.css. "interval" is a bar instead, at the upper edge,
            and "guideline" one at the lower edge.
    """

    name: str
    low: float
    high: float
    kind: Literal["low", "good", "high", "interval", "guideline"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line, or a diamond at the upper edge, at one x.

    Attributes:
        name: in the legend and the table.
        label: above the line; empty for none.
    """

    name: str
    x: float
    kind: Literal["solid", "dashed", "dotted", "diamond"] = "solid"
    label: str = ""


def plot(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    note: str = "",
    regions: Sequence[Region] = (),
    marks: Sequence[Mark] = (),
    tall: bool = False,
    zoom: bool = False,
) -> Markup:
    """Return a figure: title, legend, plot, and its numbers in a table to unfold.

    Args:
        title: above the plot, and its name for a screen reader.
        x: the axis from left to right.
        y: the axis from bottom to top.
        series: drawn in this order.
        note: a sentence below the plot.
        regions: behind everything.
        marks: in front of everything.
        tall: a large plot.
        zoom: the script lets a range of x be chosen, whose values then fill the height.
    """
    y_ticks = y.ticks(Y_TICKS if tall else 4)
    heads, rows = _table(x, series)
    edges = [edge for each in series if not each.smooth for edge in _edges(each, x, y)]
    return render(
        "plot.html",
        title=title,
        note=note,
        x=x,
        y=y,
        x_ticks=x.ticks(X_TICKS),
        y_ticks=y_ticks,
        letters=min(max((len(tick.text) for tick in y_ticks), default=1), 9),
        series=[_drawn(each, x, y) for each in series],
        entries=_entries(series),
        edges=edges,
        beyond=BEYOND if edges else "",
        regions=[_region(each, x) for each in regions],
        marks=[(mark, x.place(mark.x)) for mark in marks if 0 <= x.place(mark.x) <= 1],
        named_marks=list({mark.name: mark for mark in marks}.values()),
        heads=heads,
        rows=rows,
        places=_places(x, regions, marks),
        tall=tall,
        zoom=zoom,
    )


def _entries(series: Iterable[Series]) -> list[Series]:
    return list({each.name: each for each in series if not each.hidden}.values())


def _drawn(series: Series, x: Axis, y: Axis) -> dict[str, object]:
    """Return what the template draws of a series: paths in a square of 1,000."""
    at = [x.place(value) for value in series.x]
    points = [(left, _height(y, value)) for left, value in zip(at, series.y, strict=True)]
    lines = series.shape in {"line", "levels"}
    band = bars = ""
    if series.low and series.high:
        ends = [
            (left, _height(y, low), _height(y, high))
            for left, low, high in zip(at, series.low, series.high, strict=True)
        ]
        whole = [(a, low, high) for a, low, high in ends if low is not None and high is not None]
        if lines:
            there = [(a, low) for a, low, _ in whole] + [(a, high) for a, _, high in whole[::-1]]
            band = f"{_line(there)}z" if there else ""
        else:
            bars = "".join(_line([(a, low), (a, high)]) for a, low, high in whole)
    seen = [(a, up) for a, up in points if up is not None and 0 <= up <= 1 and 0 <= a <= 1]
    line = _levels(points) if series.shape == "levels" else _line(points) if lines else ""
    dots = series.shape in {"dots", "squares"}
    paths = {
        "band": band,
        "bars": bars,
        "line": line,
        "dots": "".join(f"{_at(*point)}h0" for point in seen) if dots else "",
    }
    return {
        "series": series,
        **{name: Markup(path) for name, path in paths.items()},  # noqa: S704  (whole: no text)
        "glyphs": seen if series.shape in {"crosses", "diamonds"} else [],
    }


def _height(y: Axis, value: float | None) -> float | None:
    """Return where a value lies, at most some plots away; None where there is none to draw."""
    if value is None or isnan(value):
        return None
    return min(max(y.place(value), -FAR), 1 + FAR)


def _line(points: Sequence[tuple[float, float | None]]) -> str:
    """Return a path through points; it is interrupted where there is none."""
    path, pen = "", "M"
    for left, up in points:
        if up is None:
            pen = "M"
            continue
        path += _at(left, up, pen)
        pen = "L"
    return path


def _levels(points: Sequence[tuple[float, float | None]]) -> str:
    """Return a path that keeps each height up to the next point."""
    path, pen = "", "M"
    for index, (left, up) in enumerate(points):
        if up is None:
            pen = "M"
            continue
        path += _at(left, up, pen)
        if index + 1 < len(points):
            path += f"H{_number(points[index + 1][0])}"
        pen = "L"
    return path


def _at(left: float, up: float, pen: str = "M") -> str:
    return f"{pen}{_number(left)} {_number(1 - up)}"


def _number(fraction: float) -> str:
    return f"{fraction * 1000:.1f}".removesuffix(".0")


def _edges(series: Series, x: Axis, y: Axis) -> list[tuple[float, bool, int]]:
    """Return place, whether above, and colour of values that the plot cannot show.

    Of those that would cover each other, the first one.
    """
    found: dict[tuple[int, bool], float] = {}
    for left, value in zip(series.x, series.y, strict=True):
        if value is None or not 0 <= x.place(left) <= 1:
            continue
        above = not isfinite(value) or y.place(value) > 1
        if above or y.place(value) < 0:
            found.setdefault((int(x.place(left) * MOST_EDGES), above), x.place(left))
    return [(place, above, series.colour) for (_, above), place in found.items()]


def _region(region: Region, x: Axis) -> dict[str, object]:
    low, high = (min(max(x.place(end), 0.0), 1.0) for end in (region.low, region.high))
    width = room_for(len(region.name), high - low)
    return {"region": region, "left": low, "width": high - low, "room": width}


def _table(x: Axis, series: Sequence[Series]) -> tuple[list[tuple[str, int]], list[list[str]]]:
    """Return heads with colours, 0 for none, and a row for each x: the numbers that are drawn."""
    columns: list[tuple[str, int, Sequence[float], Sequence[float | None]]] = []
    for each in (each for each in series if not each.only_drawn):
        columns.append((each.name, each.colour, each.x, each.y))
        if each.low and each.high:
            columns.append((f"{each.band}, from", 0, each.x, each.low))
            columns.append((f"{each.band}, to", 0, each.x, each.high))
    cells: dict[tuple[float, int], dict[int, str]] = {}
    for column, (_, _, places, values) in enumerate(columns):
        times: Counter[float] = Counter()
        for place, value in zip(places, values, strict=True):
            if value is not None:
                text = words.value(value) if isfinite(value) else "NaN or infinite"
                cells.setdefault((place, times[place]), {})[column] = text
            times[place] += 1
    rows = [
        [x.spell(place), *(cells[place, time].get(column, "") for column in range(len(columns)))]
        for place, time in sorted(cells)
    ]
    return [(x.name, 0), *((name, colour) for name, colour, _, _ in columns)], rows


def _places(x: Axis, regions: Sequence[Region], marks: Sequence[Mark]) -> list[list[str]]:
    """Return a row for each mark and region: name, from, to."""
    rows = [[mark.name, x.spell(mark.x), ""] for mark in marks]
    return rows + [[each.name, x.spell(each.low), x.spell(each.high)] for each in regions]
