"""The page of a comparison, from the reports alone."""

from dataclasses import replace

import pytest
from finds import NO_SUGGESTION
from pages import Page
from test_train_page import epochs, rows_of
from trainings import step_rows

from lrtool.report.records import LearningRate
from lrtool.show.page import compare
from lrtool.show.terminal.compare import comparison

MOST_BYTES = 300_000


def html_of(reports):
    return compare.draw(reports, comparison(reports))


def draw(**reports):
    page = Page(html_of(reports))
    assert page.wrong == []
    assert page.requests() == []
    return page


def test_a_row_for_each_run_that_can_be_sorted(train):
    high = LearningRate(value=0.5, origin="flag", run=None)
    page = draw(a=train(), b=train(learning_rate=high, status="diverged", reason="It became NaN."))
    assert page.texts("h1") == ["2 runs compared"]
    rows = rows_of(page, "A row for each run")
    assert [row[0] for row in rows] == ["1 a", "2 b"]
    assert [row[3] for row in rows] == ["0.0032", "0.5"]
    (table,) = page.all("table", **{"class": "sortable"})
    assert table
    keys = [
        attributes["data-sort"] for _, attributes, _ in page.elements if "data-sort" in attributes
    ]
    assert {"1", "2", "0.0032", "0.5", "diverged"} <= set(keys)
    assert rows_of(page, "How they ended") == [["2 b", "diverged", "It became NaN."]]


def test_the_keys_that_differ_are_beside_each_other(train):
    first = train()
    other = {**first.config, "seed": 3, "loss": {"name": "mse"}}
    page = draw(a=first, b=train(config=other), c=first)
    assert rows_of(page, "Keys whose values differ") == [
        ["seed", "0", "3", "0"],
        ["loss", "–", "{name: 'mse'}", "–"],
    ]
    assert "Nothing." in draw(a=first, b=first).texts("p")


def test_metrics_have_as_many_digits_as_in_a_terminal(train):
    many = epochs(1, mae=lambda _: 19494.1234)
    rows = rows_of(draw(a=train(epochs=many, best=None)), "A row for each run")
    assert "19494.1" in rows[0]


def test_a_find_without_a_rate_is_told_in_words(make):
    none = make(suggestion=NO_SUGGESTION)
    page = draw(a=make(), b=none)
    assert [row[2] for row in rows_of(page, "A row for each run")] == ["completed", "no suggestion"]
    assert rows_of(page, "How they ended")[0][:2] == ["2 b", "no suggestion"]
    assert "no_suggestion" not in html_of({"a": make(), "b": none})


def test_a_run_behind_an_identical_one_is_said(train):
    other = train(steps=step_rows(noise=0.3))
    page = draw(**{"runs/a": train(), "runs/b": other, "runs/c": train()})
    words = "Exactly the losses of 1 a, so that one line hides the other: 3 c."
    assert [text for text in page.texts("p") if "hides" in text] == [words]
    rates = "2 b, 3 c had exactly the rates of 1 a."
    assert rates in page.texts("p")


def test_losses_that_span_decades_are_on_a_logarithmic_axis(train):
    near = draw(a=train(), b=train(steps=step_rows(noise=0.2)))
    far = draw(a=train(), b=train(epochs=epochs(9, loss=lambda epoch: 10.0**-epoch), best=None))
    names = [page.texts("p", **{"class": "y-name"})[0] for page in (near, far)]
    assert names == ["loss", "loss (log scale)"]


def test_the_best_leads_but_not_across_losses_or_data(train):
    first, better = train(), train(steps=step_rows(loss=lambda p: 0.01 + 2 * (1 - p)))
    (lead,) = draw(a=first, b=better).texts("p", **{"class": "lead"})
    assert lead.startswith("Lowest validation loss: ")
    assert lead.endswith("of run 2 b.")
    mse = train(config={**first.config, "loss": {"name": "mse"}})
    (lead,) = draw(a=first, b=mse).texts("p", **{"class": "lead"})
    assert lead.endswith("But the runs minimise different losses (None, mse).")

    def lead_of(*reports):
        (lead,) = draw(**dict(zip("abc", reports, strict=False))).texts("p", **{"class": "lead"})
        return lead

    def configured(**section):
        return train(config={**first.config, **section})

    smooth = {"name": "cross_entropy", "args": {"label_smoothing": 0.1}}
    plain = configured(loss={"name": "cross_entropy", "args": {}})
    assert lead_of(plain, configured(loss=smooth)).endswith(
        "different losses (cross_entropy, cross_entropy (label_smoothing 0.1))."
    )
    own = [configured(loss={"name": "own"}, model={"name": name}) for name in ("a:Net", "b:Net")]
    assert lead_of(*own).endswith("different losses (own of a:Net, own of b:Net).")

    def streamed(n):
        data = replace(first.data, hash=None)
        return configured(data={"source": "mine:data", "args": {"n": n}}).model_copy(
            update={"data": data}
        )

    assert lead_of(streamed(1), streamed(2)).endswith("But the runs have different data.")
    assert "But" not in lead_of(streamed(1), streamed(1))
    assert not draw(a=first).texts("p", **{"class": "lead"})


def test_finds_and_trainings_each_have_their_plot(train, make):
    page = draw(a=train(), b=make(), c=make())
    titles = page.texts("figcaption")
    assert titles == [
        "Validation losses of the trainings",
        "Learning rates of the trainings",
        "Smoothed losses of the finds over the rate",
    ]
    assert page.texts("text", **{"class": "label"}) == ["2, 3"]


@pytest.mark.parametrize("count", [1, 6, 60])
def test_however_many_runs_there_are_the_page_is_small(train, make, count):
    reports = {
        f"runs/{'long' * 20}-{index}": make()
        if index % 3 == 2
        else train(steps=step_rows(noise=index / 99))
        for index in range(count)
    }
    html = html_of(reports)
    assert len(html.encode()) < MOST_BYTES
    page = Page(html)
    assert len(rows_of(page, "A row for each run")) == count
    assert ("The last 39 runs are not drawn." in page.texts("p")) == (count == 60)
    assert ("The last 40 runs are left out of this table." in page.texts("p")) == (count == 60)


def test_any_run_can_be_compared(odd_training, train):
    assert draw(a=odd_training, b=train()).texts("h1") == ["2 runs compared"]


def test_any_find_can_be_compared(odd, train):
    assert draw(a=odd, b=train()).texts("h1") == ["2 runs compared"]
