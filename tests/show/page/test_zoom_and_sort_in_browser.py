"""Zoom into a plot, and sort a table, as a browser does it."""

import math

import pytest
from browser import axe
from finds import make_report, make_suggestion
from test_page_in_browser import browser, show, unfold
from test_train_page import epochs, facts_of
from trainings import make_training, step_rows

from lrtool.report.records import LearningRate, PredictionFacts, ValueFacts
from lrtool.show.page import compare
from lrtool.show.page import page as pages
from lrtool.show.terminal.compare import comparison

__all__ = ["browser", "show"]


def at_rate(lr, **more):
    return make_training(learning_rate=LearningRate(value=lr, origin="flag", run=None), **more)


def long_training():
    many = epochs(400, loss=lambda epoch: 10.0 if epoch <= 100 else 1 + 1 / epoch, f1=math.sin)
    return make_training(epochs=many, steps=step_rows(4, 20), best=None)


def regression():
    values = ValueFacts("price", (10.0, 12.0), (11.0, 10.0), -0.5, 1.58, (-2.0, -0.5, 1.0), (1, 1))
    return make_training(steps=step_rows(2, 6), predictions=PredictionFacts(2, values=(values,)))


def classification():
    matrix = facts_of([[8, 2, 0], [3, 7, 1], [0, 0, 0]], ["cat", "dog", "bird"])
    return make_training(steps=step_rows(2, 6), predictions=matrix)


def compared():
    runs = {
        "runs/b": at_rate(0.1, steps=step_rows(2, 6)),
        "runs/a": at_rate(0.02, steps=step_rows(2, 6, noise=0.2), status="diverged", reason="NaN"),
        "runs/c": make_report(),
        "runs/d": at_rate(3.0, steps=step_rows(2, 6)),
        "runs/e": make_report(suggestion=make_suggestion(0.02, 0.012, 0.03)),
        "runs/f": make_report(suggestion=make_suggestion(2e-5, 1e-5, 3e-5)),
    }
    return compare.draw(runs, comparison(runs))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    run = folder / "run"
    search = make_report()
    bad = make_training(steps=step_rows(1, 9, last=math.nan), status="diverged", reason="NaN")
    drawn = {
        "long": pages.draw(long_training(), run),
        "twelve": pages.draw(make_training(steps=step_rows(12, 10)), run),
        "regression": pages.draw(regression(), run),
        "classes": pages.draw(classification(), run, search),
        "diverged": pages.draw(bad, run),
        "compared": compared(),
    }
    for name, html in drawn.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in drawn}


@pytest.mark.parametrize("name", ["regression", "classes", "diverged", "compared"])
def test_a_page_is_accessible_in_light_and_dark_and_quiet(show, name):
    source = axe()
    page = show(name)
    page.evaluate(source)
    for scheme, rules in (("light", ""), ("dark", "{runOnly: 'color-contrast'}")):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(f"axe.run({rules})")
        assert found["passes"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert page.noise == []


@pytest.mark.parametrize("name", ["long", "regression", "classes", "diverged", "compared"])
def test_a_page_has_room_on_a_small_screen_and_with_large_letters(show, name):
    page = show(name, width=320)
    unfold(page)
    for size in ("100%", "200%"):
        page.evaluate(f"document.documentElement.style.fontSize = '{size}'")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 320, f"{wide} pixels at {size}"


def value_at(page, plot, key):
    plot.focus()
    page.keyboard.press(key)
    return plot.get_attribute("aria-valuetext")


def test_a_range_fills_the_plot_and_its_values_the_height(show):
    """The first hundred epochs have a loss of 10, the others of about 1."""
    page = show("long")
    plot = page.locator(".plot").first
    slider = page.get_by_label("from epoch").first
    assert value_at(page, plot, "Home").startswith("epoch 1: ")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("PageUp")  # each a tenth of the way
        if slider.input_value() == "100":
            break
    slider.fill("100")
    assert "zoomed" in plot.get_attribute("class")
    first = value_at(page, plot, "Home")
    assert first.startswith("epoch 20"), first
    assert value_at(page, plot, "End").startswith("epoch 400: ")
    ticks = plot.locator("text.tick").all_text_contents()
    assert ticks
    assert all(195 <= float(tick) <= 406 for tick in ticks)
    heights = plot.locator("text.y:visible").all_text_contents()
    assert heights
    assert all(1 <= float(height) < 2.1 for height in heights)
    height = plot.evaluate("plot => parseFloat(plot.querySelector('.point').style.top)")
    assert 0 <= height <= 100  # percent
    page.get_by_role("button", name="show all: epoch").first.click()
    assert "zoomed" not in plot.get_attribute("class")
    assert value_at(page, plot, "Home").startswith("epoch 1: ")
    assert page.noise == []


def test_the_sliders_make_way_for_each_other(show):
    page = show("long")
    start, end = page.get_by_label("from epoch").first, page.get_by_label("to epoch").first
    end.fill("50")
    start.fill("120")
    assert (start.input_value(), end.input_value()) == ("120", "122")
    end.fill("0")
    assert (start.input_value(), end.input_value()) == ("0", "2")
    start.fill("200")
    assert (start.input_value(), end.input_value()) == ("198", "200")
    assert start.get_attribute("aria-valuetext") == "397"  # 1 + 0.99 × 399 is 396.01
    assert end.get_attribute("aria-valuetext") == "400"
    assert page.noise == []


@pytest.mark.parametrize("name", ["twelve", "long"])
def test_the_bounds_that_are_said_lie_in_the_range(show, name):
    page = show(name)
    plot = page.locator(".plot").first
    start, end = page.get_by_label("from epoch").first, page.get_by_label("to epoch").first
    for left, right in ((0, 200), (0, 90), (33, 90), (91, 93), (100, 150), (110, 200), (197, 200)):
        start.fill("0")
        end.fill(str(right))
        start.fill(str(left))
        said = [float(each.get_attribute("aria-valuetext")) for each in (start, end)]
        seen = plot.evaluate(  # x of the plot's sides, by where the whole plot lies in them
            """plot => {
                const view = plot.querySelector(".data .view");
                const share = name => parseFloat(view.getAttribute(name)) / 100;
                const [low, high] = plot.dataset.x.split(" ").map(Number);
                const left = -share("x") / share("width"), right = left + 1 / share("width");
                return [low + left * (high - low), low + right * (high - low)];
            }"""
        )
        assert seen[0] - 1e-3 <= said[0] <= said[1] <= seen[1] + 1e-3, (left, right)
        values = [value_at(page, plot, key) for key in ("Home", "End")]
        if said[0].is_integer():  # the values that the arrow keys reach are those between them
            reached = [float(value[len("epoch ") : value.index(":")]) for value in values]
            assert said[0] <= reached[0] <= reached[1] <= said[1]
    assert page.noise == []


def test_the_first_dot_and_the_last_one_are_whole(show):
    page = show("twelve")
    for plot in page.locator(".plot").all():
        room = plot.evaluate(
            """plot => [...plot.querySelectorAll(".paths .dots")].flatMap(dots => {
                const matrix = dots.getScreenCTM(), box = plot.getBoundingClientRect();
                const size = parseFloat(getComputedStyle(dots).strokeWidth) / 2;
                return [...dots.getAttribute("d").matchAll(/M([-\\d.]+)/g)].map(([, left]) => {
                    const x = new DOMPoint(+left, 0).matrixTransform(matrix).x;
                    return Math.min(x - box.left, box.right - x) - size;
                });
            })"""
        )
        assert all(each >= 0 for each in room)
    assert page.locator(".plot .dots").count() >= 3


def test_a_line_lies_where_the_ticks_of_the_range_say(show):
    """The place of the cursor's point is that of the drawn path's own coordinates."""
    page = show("long")
    plot = page.locator(".plot").first
    page.get_by_label("from epoch").first.fill("40")
    page.get_by_label("to epoch").first.fill("160")
    value_at(page, plot, "Home")
    page.keyboard.press("ArrowRight")
    near = plot.evaluate(  # at once, as the page may be scrolling
        """plot => {
            const point = plot.querySelector(".point").getBoundingClientRect();
            const x = point.left + point.width / 2, y = point.top + point.height / 2;
            const path = plot.querySelector(".data .line"), matrix = path.getScreenCTM();
            let least = Infinity;
            const points = path.getAttribute("d").matchAll(/[ML]([-\\d.]+) ([-\\d.]+)/g);
            for (const [, left, up] of points) {
                const seen = new DOMPoint(+left, +up).matrixTransform(matrix);
                least = Math.min(least, Math.hypot(seen.x - x, seen.y - y));
            }
            return least;
        }"""
    )
    assert near < 2


def names(page):
    return page.locator("table.sortable tbody th").all_text_contents()


def test_a_table_is_sorted_by_click_and_by_keyboard(show):
    page = show("compared")
    assert names(page) == ["1 b", "2 a", "3 c", "4 d", "5 e", "6 f"]
    head = page.get_by_role("columnheader", name="learning rate")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["6 f", "3 c", "2 a", "5 e", "1 b", "4 d"]  # from 2e-5 to 3
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == ["4 d", "1 b", "2 a", "5 e", "3 c", "6 f"]
    epochs = page.get_by_role("columnheader", name="epochs")
    epochs.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None
    finds = {"3 c", "5 e", "6 f"}
    assert set(names(page)[-3:]) == finds  # which have no epochs
    page.keyboard.press("Space")
    assert set(names(page)[-3:]) == finds
    interval = page.get_by_role("columnheader", name="interval").get_by_role("button")
    interval.click()
    assert names(page)[:3] == ["6 f", "3 c", "5 e"]  # from 1e-5, from 0.0018, from 0.012
    interval.click()
    assert names(page)[:3] == ["5 e", "3 c", "6 f"]
    page.get_by_role("columnheader", name="name").get_by_role("button").click()
    assert names(page) == ["1 b", "2 a", "3 c", "4 d", "5 e", "6 f"]
    assert page.noise == []


def test_without_javascript_tables_and_plots_are_there_and_nothing_dead(show):
    page = show("compared", java_script_enabled=False)
    assert names(page) == ["1 b", "2 a", "3 c", "4 d", "5 e", "6 f"]
    assert page.locator("button").count() == page.locator("input").count() == 0
