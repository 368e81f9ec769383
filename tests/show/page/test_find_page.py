from dataclasses import replace

import pytest
from finds import (
    NO_SUGGESTION,
    make_candidate,
    make_full_trial,
    make_race,
    make_sweeps,
    make_trials,
)
from pages import Page

from lrtool.report import records
from lrtool.show import words
from lrtool.show.page import page as pages
from lrtool.show.page.plot import COLOURS

MOST_BYTES = 300_000
FOUND = "0.0032 (interval 0.0018 to 0.0056) for a constant schedule over 230 steps: confident."


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


@pytest.mark.parametrize(
    ("changes", "title", "opening"),
    [
        (
            {},
            "Learning rate 0.0032",
            [
                f"Train with {FOUND}",
                "three sweeps agree within 0.2 decades",
            ],
        ),
        (
            {"suggestion": NO_SUGGESTION},
            "No trustworthy learning rate",
            ["the loss never fell below where it began", "No rate can be recommended."],
        ),
        (
            {"status": "interrupted", "reason": "interrupted by SIGINT in sweep 2 of 3"},
            "The search was interrupted",
            [
                "interrupted by SIGINT in sweep 2 of 3",
                f"The rate found so far is {FOUND}",
                "three sweeps agree within 0.2 decades",
            ],
        ),
        (
            {"status": "failed", "reason": "out of memory", "suggestion": None, "sweeps": []},
            "The search failed",
            ["out of memory", "No rate was found until then."],
        ),
    ],
)
def test_a_page_begins_with_the_rate_or_with_why_there_is_none(make, draw, changes, title, opening):
    page = draw(make(**changes))
    assert page.texts("h1") == [title]
    assert page.texts("p", **{"class": "lead"}) == opening
    assert page.texts("h2")[0] == "What to do next"


def test_the_commands_to_go_on_name_the_run(make, tmp_path):
    run = tmp_path / "a run"
    commands = Page(pages.draw(make(), run)).texts("code")
    assert commands == [
        f"lrtool train '{run}/config.yaml' --lr-from '{run}'",
        "learning_rate: 0.0032",
    ]
    failed = make(status="failed", reason="why", suggestion=None)
    assert Page(pages.draw(failed, run)).texts("code") == [
        f"lrtool check '{run}/config.yaml'",
        f"lrtool find '{run}/config.yaml'",
    ]


def test_each_source_of_evidence_has_its_rate(make, draw):
    suggestions = {
        "sweep": records.MethodSuggestion(0.004),
        "auto": records.MethodSuggestion(0.0035),
        "race": records.MethodSuggestion(None, "nothing was compared"),
        "steep": records.MethodSuggestion(0.02),
    }
    first = records.FirstUpdate(critical_lr=0.05, ratio_lr=None, steps=4.0)
    changes = {"suggestions": suggestions}
    tried = make(first_update=first, trials=make_trials()).model_copy(update=changes)
    rows = draw(tried).numbers()
    begin = rows.index(["source", "rate", "what it is"])
    assert [row[:2] for row in rows[begin + 1 : begin + 7]] == [
        ["first update, critical rate", "0.05"],
        ["first update, ratio rate", "–"],
        ["sweep", "0.004"],
        ["trials", "0.0035"],
        ["race", "–"],
        ["steep", "0.02"],
    ]
    assert rows[begin + 5][2] == "nothing was compared"
    assert rows[begin + 4][2] == "that estimate, corrected by the trials"
    stopped = make().model_copy(update=changes)  # before its trials
    assert "trials" not in [row[0] for row in draw(stopped).numbers()]
    whole = tried.model_copy(update={"full_trial": make_full_trial()})
    [said] = [row[2] for row in draw(whole).numbers() if row[0] == "trials"]
    assert said == (
        "that estimate, corrected by the trials and by a full one; 0.004: validation loss lowest, "
        "0.5, after 138 of 230 steps"
    )
    cut = replace(make_full_trial(), interrupted=True)
    stopped = whole.model_copy(update={"full_trial": cut})
    [said] = [row[2] for row in draw(stopped).numbers() if row[0] == "trials"]
    assert said == "that estimate, corrected by the trials; 0.004: unfinished"


def test_a_long_search_of_a_wide_table_fits_into_the_page(make, tmp_path):
    columns = tuple(
        records.ColumnFacts("wide <&> " * 50, "input", "number", low=0.1, high=0.9)
        for _ in range(5000)
    )
    data = records.DataFacts({"train": 10}, {}, None, columns=columns)
    config = {"model": {"args": {f"{'key' * 100}{i}": "<>" * 10_000 for i in range(2000)}}}
    candidates = [make_candidate(10.0**-i, "lower", 0.9, 0.61, steps=50_000) for i in range(1, 8)]
    race = make_race(tuple(candidates), steps=50_000)
    report = make(sweeps=make_sweeps(100, 500), race=race, data=data, config=config)
    html = pages.draw(report, tmp_path)
    assert len(html.encode()) < MOST_BYTES
    assert "is shown; report.json has all" in html


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
