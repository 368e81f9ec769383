"""Pages as a browser shows them."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from browser import axe, chromium
from finds import NO_SUGGESTION, make_candidate, make_race, make_report, make_sweeps, make_trials
from trainings import make_training, step_rows

from lrtool.report import records
from lrtool.show.page import compare
from lrtool.show.page import page as pages
from lrtool.show.terminal.compare import comparison

EVIL = '"><script>window.hit = 1</script><img src=x onerror="window.hit = 1">'


def evil_report():
    """A find of a table whose names are those of an attack."""
    columns = (
        records.ColumnFacts(EVIL, "input", "number", low=0.0, high=1.0),
        records.ColumnFacts(EVIL, "left out", reason=EVIL),
        records.ColumnFacts("colour", "target", "words", words=3, missing=2),
    )
    data = records.DataFacts({"train": 100, EVIL: 1}, {EVIL: (3,)}, None, columns=columns)
    model = records.ModelFacts(EVIL, 10, 5, trained=(EVIL,), frozen=(EVIL,))
    config = {"seed": 0, EVIL: {EVIL: EVIL}, "data": {"source": EVIL}, "metrics": [EVIL]}
    return make_report(
        sweeps=make_sweeps(1, 20), reason=EVIL, data=data, model=model, config=config
    )


def short_race():
    """A race of few steps: axe looks at each cell of a table."""
    candidates = [
        make_candidate(0.001, "lower", 0.9, 0.61, steps=9),
        make_candidate(0.0032, "suggestion", 0.7, 0.42, "won", steps=9, error=0),
        make_candidate(0.01, "outward", math.nan, None, "diverged", steps=9, error=None),
    ]
    return make_race(tuple(candidates), steps=9)


def clipped():
    """A training whose legend has a name of one long word."""
    rows = [replace(row, grad_norm=row.step / 10) for row in step_rows(2, 6)]
    config = {**make_training().config, "train": {"gradient_clip_norm": 0.5}}
    return make_training(steps=rows, config=config)


def compared():
    """Runs of different folders, whose names are paths of one long word."""
    steps = (step_rows(2, 6), step_rows(2, 6, noise=0.2))
    names = ("runs/digits/20261129T104447Z-train", "elsewhere/a_name_of_one_long_word/train")
    runs = {name: make_training(steps=rows) for name, rows in zip(names, steps, strict=True)}
    runs["finds/20261129T104447Z_of_another_folder"] = make_report(sweeps=make_sweeps(1, 20))
    return compare.draw(runs, comparison(runs))


REPORTS = {
    "race": lambda: make_report(sweeps=make_sweeps(2, 30), race=short_race(), trials=make_trials()),
    "long": lambda: make_report(sweeps=make_sweeps(6, 400)),
    "none": lambda: make_report(
        sweeps=make_sweeps(1, 30, loss=lambda lr: 2.3 + 0 * lr), suggestion=NO_SUGGESTION
    ),
    "interrupted": lambda: make_report(
        sweeps=make_sweeps(1, 20), status="interrupted", reason="interrupted by SIGINT"
    ),
    "failed": lambda: make_report(
        sweeps=[], suggestion=None, status="failed", reason="out of memory", data=None, model=None
    ),
    "evil": evil_report,
    "train": lambda: make_training(steps=step_rows(3, 8)),
    "clipped": clipped,
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    drawn = {name: pages.draw(make(), folder / "run") for name, make in REPORTS.items()}
    drawn["compared"] = compared()
    for name, html in drawn.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in drawn}


@pytest.fixture
def show(browser, files):
    """Open a page; what it logs or asks for, and where it fails, is in `page.noise`."""
    contexts = []

    def show(name, *, width=1000, **how):
        context = browser.new_context(viewport={"width": width, "height": 800}, **how)
        contexts.append(context)
        page = context.new_page()
        page.noise = []
        page.on("console", lambda message: page.noise.append(message.text))
        page.on("pageerror", lambda error: page.noise.append(str(error)))
        page.on("request", lambda request: page.noise.append(request.url))
        page.goto(files[name].as_uri())
        assert page.noise == [files[name].as_uri()]
        page.noise.clear()
        return page

    yield show
    for context in contexts:
        context.close()


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("name", ["race", "none", "failed", "evil", "train"])
def test_a_page_is_accessible_in_light_and_dark_and_quiet(show, name):
    source = axe()
    page = show(name)
    unfold(page)
    page.evaluate(source)
    for scheme, rules, least in (("light", "", 20), ("dark", "{runOnly: 'color-contrast'}", 1)):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(f"axe.run({rules})")
        assert len(found["passes"]) >= least
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert page.noise == []


def test_a_long_curve_is_drawn_without_a_word(show):
    page = show("long")
    drawn = page.locator(".paths .line").evaluate("each => each.getBBox().width")
    assert drawn > 700  # of the 1,000 that the plot is wide: the sweep ends as it diverges
    assert page.noise == []


@pytest.mark.parametrize("name", [*REPORTS, "compared"])
def test_a_page_has_room_on_a_small_screen_and_with_large_letters(show, name):
    page = show(name, width=320)
    unfold(page)
    for size in ("100%", "200%"):
        page.evaluate(f"document.documentElement.style.fontSize = '{size}'")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 320, f"{wide} pixels at {size}"


def test_the_names_in_a_report_run_nothing(show):
    page = show("evil")
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("main").inner_text()


def test_the_policy_of_a_page_refuses_what_comes_from_outside(show):
    page = show("none")
    page.evaluate(
        """() => {
            const image = Object.assign(new Image(), {src: "http://a.invalid/b"});
            const script = Object.assign(document.createElement("script"), {text: "hit = 1"});
            document.body.append(image, script);
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    assert len([line for line in page.noise if "Content Security Policy" in line]) == 2


def test_the_values_of_a_plot_are_under_the_pointer_and_by_keyboard(show):
    page = show("race")
    plot, values = page.locator(".plot").first, page.locator(".values").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert values.inner_text().startswith("learning rate: ")
    page.mouse.move(0, 0)
    assert not values.is_visible()

    page.keyboard.press("Tab")
    for _ in range(40):
        if plot.evaluate("each => each === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Home")
    first = page.locator("table.numbers").first.locator("tbody th").first.text_content()
    assert values.inner_text().splitlines()[0] == f"learning rate: {first}"
    said = [values.inner_text()]
    for key in ("ArrowRight", "PageUp", "ArrowLeft", "End"):
        page.keyboard.press(key)
        said.append(values.inner_text())
    assert len(set(said)) == 5
    assert plot.get_attribute("role") == "slider"
    assert plot.get_attribute("aria-valuenow") == plot.get_attribute("aria-valuemax")
    page.keyboard.press("Escape")
    assert not values.is_visible()


@pytest.mark.parametrize("name", ["race", "train"])
def test_the_keyboard_reaches_every_plot_table_and_fold(show, name):
    page = show(name)
    unfold(page)
    wanted = page.evaluate(
        "[...document.querySelectorAll('.plot, .scroll, summary, button, input')]"
        ".filter(each => each.checkVisibility()).map((each, index) => each.dataset.test = index)"
    )
    seen = set()
    for _ in range(2 * len(wanted) + 10):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.dataset.test"))
    assert {str(each) for each in wanted} <= seen


def test_without_javascript_everything_is_there_to_read(show):
    page = show("race", java_script_enabled=False)
    assert page.locator("h1").inner_text() == "Learning rate 0.0032"
    assert page.locator(".plot").first.get_attribute("role") == "img"
    table = page.locator("table.numbers").first
    assert not table.is_visible()
    page.locator("summary").first.click()
    assert table.is_visible()


def test_a_page_is_printed_in_ink_on_paper(show):
    page = show("race", color_scheme="dark")
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert page.evaluate(colours) == ["rgb(20, 23, 26)", "rgb(236, 238, 240)"]
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(26, 26, 26)"]
    page.emulate_media(color_scheme="light")
    assert page.pdf().startswith(b"%PDF")


def test_ticks_do_not_run_into_one_another(show):
    for width in (320, 600, 1000):
        page = show("race", width=width)
        boxes = page.evaluate(
            """[...document.querySelectorAll(".plot")].map(plot =>
                [...plot.querySelectorAll("text.x")].map(each => each.getBoundingClientRect())
                .filter(each => each.width).map(each => [each.left, each.right]))"""
        )
        for plot in boxes:
            assert plot
            for (_, right), (left, _) in pairwise(plot):
                assert right < left
            assert 0 <= plot[0][0] <= plot[-1][1] <= width


def test_a_dot_lies_where_the_axes_say(show):
    page = show("none")
    report = REPORTS["none"]()
    lr, loss = report.sweeps[0].lr[10], report.sweeps[0].loss[10]
    x = page.locator(".plot").get_attribute("data-x").split()
    y = page.locator(".plot").get_attribute("data-y").split()
    left, right = math.log(float(x[0])), math.log(float(x[1]))
    page.locator(".plot").scroll_into_view_if_needed()
    box = page.locator(".plot").bounding_box()
    up = (loss - float(y[0])) / (float(y[1]) - float(y[0]))
    across = (math.log(lr) - left) / (right - left)
    page.mouse.move(box["x"] + across * box["width"], box["y"] + 10)
    point = page.locator(".point").first.bounding_box()
    assert point["x"] + point["width"] / 2 == pytest.approx(box["x"] + across * box["width"], abs=1)
    assert point["y"] + point["height"] / 2 == pytest.approx(
        box["y"] + (1 - up) * box["height"], abs=1
    )
