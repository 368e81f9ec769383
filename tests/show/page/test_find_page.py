import pytest
from pages import Page

from lrtool.show import words
from lrtool.show.page import page as pages
from lrtool.show.page.plot import COLOURS

MOST_BYTES = 300_000


@pytest.fixture
def draw(tmp_path):
    return lambda report: Page(pages.draw(report, tmp_path / "run"))


def test_any_report_has_a_page_that_is_whole_small_and_asks_for_nothing(odd, tmp_path):
    html = pages.draw(odd, tmp_path / "run")
    page = Page(html)
    assert page.wrong == []
    assert page.requests() == []
    assert len(html.encode()) < MOST_BYTES
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert page.texts("title") == page.texts("h1")


def test_any_race_has_a_page_that_is_whole_and_small(odd_race, tmp_path):
    html = pages.draw(odd_race, tmp_path / "run")
    page = Page(html)
    assert page.wrong == []
    assert len(html.encode()) < MOST_BYTES
    rows = page.numbers()
    for candidate in odd_race.race.candidates:
        assert any(row[0] == words.rate(candidate.lr) for row in rows)


def test_every_raw_loss_and_the_curve_are_in_the_table(make, draw):
    report = make()
    rows = draw(report).numbers()
    columns = list(zip(*rows[1 : rows.index(next(r for r in rows if "what" in r))], strict=True))
    for sweep, column in zip(report.sweeps, columns[1:4], strict=True):
        assert [float(cell) for cell in column if cell] == pytest.approx(sweep.loss, rel=1e-3)
    curve = [[float(cell) for cell in column if cell] for column in columns[4:]]
    drawn = (report.curve.loss, report.curve.low, report.curve.high)
    for seen, values in zip(curve, drawn, strict=True):
        assert seen == pytest.approx(values, rel=1e-3)


def test_only_the_styles_and_the_script_of_the_page_are_allowed(make, draw):
    (policy,) = [
        attributes["content"]
        for _, attributes, _ in draw(make()).all("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_colours_of_the_style_are_those_of_plots(make, draw):
    (style,) = draw(make()).texts("style")
    assert f".c{COLOURS} " in style
    assert f".c{COLOURS + 1} " not in style
