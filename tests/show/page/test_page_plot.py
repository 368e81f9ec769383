import math
from itertools import pairwise

import pytest
from pages import Page

from lrtool.show.page.axis import Axis
from lrtool.show.page.plot import Mark, Region, Series, plot

X, Y = Axis("step", 0, 10, whole=True), Axis("loss", 0, 2)


def test_a_line_goes_through_its_points_and_is_interrupted_where_there_is_none():
    html = plot("a", X, Y, [Series(name="s", x=[0, 5, 7.5, 10], y=[0, 1, None, 2])])
    assert 'class="line" d="M0 1000L500 500M1000 0"' in html


def test_a_long_line_is_drawn_to_its_end():
    html = plot("a", X, Y, [Series(name="s", x=[i / 100 for i in range(1001)], y=[1.0] * 1001)])
    (line,) = [part for part in html.split('"') if part.startswith("M0 500L")]
    assert line.count("L") == 1000
    assert line.endswith("L1000 500")


def test_levels_keep_their_height_up_to_the_next_point():
    html = plot("a", X, Y, [Series(name="s", x=[0, 5, 10], y=[2, 1, 1], shape="levels")])
    assert 'd="M0 0H500L500 500H1000L1000 500"' in html


def test_a_logarithmic_axis_places_values_by_their_decades():
    axis = Axis("rate", 1e-4, 1, log=True)
    assert [axis.place(value) for value in (1e-4, 1e-2, 1)] == pytest.approx([0, 0.5, 1])
    assert axis.place(0) == -math.inf
    assert axis.place(-1) == -math.inf


def test_what_the_plot_cannot_show_is_marked_at_its_edge_and_said():
    values = [1, 3, math.nan, math.inf, -1, None]
    html = plot("a", X, Y, [Series(name="s", x=range(6), y=values, shape="dots")])
    assert html.count('y="0"><path class="glyph"') == 3
    assert html.count('y="100%"><path class="glyph"') == 1
    assert "beyond the axis, or not a number" in html
    rows = Page(html).numbers()
    assert rows == [
        ["step", "s"],
        ["0", "1"],
        ["1", "3"],
        ["2", "NaN or infinite"],
        ["3", "NaN or infinite"],
        ["4", "-1"],
    ]


def test_series_over_the_same_x_share_a_row_and_equal_x_have_rows_of_their_own():
    series = [
        Series(name="a", x=[1, 2, 2], y=[0.1, 0.2, 0.3]),
        Series(name="b", x=[2, 3], y=[0.4, 0.5], low=[0.3, 0.4], high=[0.5, 0.6], band="error"),
    ]
    assert Page(plot("t", X, Y, series)).numbers() == [
        ["step", "a", "b", "error, from", "error, to"],
        ["1", "0.1", "", "", ""],
        ["2", "0.2", "0.4", "0.3", "0.5"],
        ["2", "0.3", "", "", ""],
        ["3", "", "0.5", "0.4", "0.6"],
    ]


def test_marks_and_regions_are_in_a_table_too():
    html = plot(
        "t",
        X,
        Y,
        [],
        regions=[Region("good", 2, 4, "good")],
        marks=[Mark("best", 3, "dotted"), Mark("elsewhere", 30)],
    )
    assert Page(html).numbers()[-3:] == [
        ["best", "3", ""],
        ["elsewhere", "30", ""],
        ["good", "2", "4"],
    ]
    assert html.count('class="mark dotted" x1="30.00%"') == 1
    assert "elsewhere" not in html.split("paths", 1)[0].split("canvas", 1)[1]


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis("", 1e-7, 10, log=True), ["1e-7", "1e-5", "0.001", "0.1", "10"]),
        (Axis("", 0.003, 0.2, log=True), ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]),
        (Axis("", 0.31, 0.38, log=True), ["0.32", "0.34", "0.36", "0.38"]),
        (Axis("", 0, 2.4), ["0", "0.5", "1", "1.5", "2"]),
        (Axis("", 0, 3, whole=True), ["0", "1", "2", "3"]),
        (Axis("", 0, 12_000, whole=True), ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]),
        (Axis("", 5, 5), ["5"]),
        (Axis("", 1e300, 1.2e308), ["2e307", "4e307", "6e307", "8e307", "1e308", "1.2e308"]),
    ],
)
def test_ticks_are_round_values_in_their_order(axis, texts):
    ticks = axis.ticks(6)
    assert [tick.text for tick in ticks][: len(texts)] == texts
    assert all(a.place < b.place for a, b in pairwise(ticks))
    assert all(-1e-9 <= tick.place <= 1 + 1e-9 for tick in ticks)


def test_narrow_figures_show_fewer_ticks_and_the_first_always():
    ticks = Axis("", 1e-7, 10, log=True).ticks(9)
    assert ticks[0].width == 0
    assert ticks[4].width < ticks[2].width < ticks[1].width


def test_what_is_hostile_is_escaped_everywhere():
    evil = '"><script>alert(1)</script>\x1b\u202e'
    html = plot(
        evil,
        Axis(evil, 0, 1),
        Axis(evil, 0, 1),
        [Series(name=evil, x=[0.5], y=[0.5], low=[0.4], high=[0.6], band=evil)],
        note=evil,
        regions=[Region(evil, 0, 1, "good")],
        marks=[Mark(evil, 0.5, label=evil)],
    )
    page = Page(html)
    assert page.wrong == []
    assert page.all("script") == []
    assert not {"\x1b", "\u202e"} & set(html)
