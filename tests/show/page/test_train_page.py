"""The page of a training, from its report alone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from finds import make_suggestion
from pages import Page
from trainings import step_rows

from lrtool.report.records import (
    BestEpoch,
    ClassFacts,
    EpochRow,
    PredictionFacts,
    Reached,
    ValueFacts,
)
from lrtool.show.page import page as pages
from lrtool.show.page import render

MOST_BYTES = 300_000
RUN = Path("run")


@pytest.fixture
def draw():
    return lambda report, search=None: Page(pages.draw(report, RUN, search))


def rows_of(page, caption):
    """The rows of the table with this caption, without its head."""
    captions = page.texts("caption")
    assert caption in captions, captions
    tables = []
    for tag, _, text in page.elements:
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in {"td", "th"}:
            tables[-1][-1].append("".join(text).strip())
    return tables[captions.index(caption)][1:]


def epochs(count, loss=lambda epoch: 1 / epoch, **metrics):
    return tuple(
        EpochRow(
            epoch=epoch,
            step=10 * epoch,
            lr=0.01,
            train_loss=loss(epoch),
            validation_loss=2 * loss(epoch),
            **{name: value(epoch) for name, value in metrics.items()},
        )
        for epoch in range(1, count + 1)
    )


def test_any_report_has_a_page_that_is_whole_small_and_asks_for_nothing(odd_training):
    html = pages.draw(odd_training, RUN)
    page = Page(html)
    assert page.wrong == []
    assert page.requests() == []
    assert len(html.encode()) < MOST_BYTES
    assert len(page.all("main")) == len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_best_epoch_leads_and_is_marked(train, draw):
    page = draw(train())
    assert page.texts("h1") == ["Best accuracy 0.9847 in epoch 10"]
    assert "was trained up to epoch 10 of 10, step 230" in page.texts("p", **{"class": "lead"})[0]
    (best,) = [
        row
        for row in rows_of(page, "Losses and metrics at the end of each epoch")
        if "best" in row[0]
    ]
    assert best[0] == "10 best"


def test_where_not_every_step_is_logged_no_other_is_spoken_of(train, draw):
    report = train()
    config = {**report.config, "train": {**report.config.get("train", {}), "log_every": 10}}
    page = draw(train(config=config, steps=step_rows()[9::10], epochs=report.epochs))
    notes = [text for text in page.texts("p") if "was logged" in text]
    assert notes
    for note in notes:
        assert note.startswith("One step in 10 was logged (train.log_every); ")
        assert note.endswith("metrics.jsonl has every logged step.")
    assert not any("Each point" in text for text in page.texts("p"))


def test_it_says_how_far_a_training_came_without_a_logged_step(train, draw):
    stopped = {"status": "interrupted", "reason": "stopped", "reached": Reached(1, 15)}
    page = draw(train(epochs=(), steps=[], best=None, **stopped))
    assert "was trained up to epoch 1 of 10, step 15" in " ".join(page.texts("p"))


def test_metrics_have_as_many_digits_as_in_a_terminal(train, draw):
    rows = epochs(2, mae=lambda epoch: 19494.1234 / epoch)
    best = BestEpoch(2, 20, "mae", 19494.1234 / 2)
    page = draw(train(epochs=rows, best=best))
    (said,) = [text for text in page.texts("dd") if "mae" in text]
    assert said == "training loss 0.5, validation loss 1, mae 9747.06"
    cells = rows_of(page, "Losses and metrics at the end of each epoch")
    assert [row[-1] for row in cells] == ["19494.1", "9747.06"]


def test_the_table_of_losses_holds_those_of_each_epoch(train, draw):
    report = train()
    rows = rows_of(draw(report), "Loss over epochs: loss by epoch")
    assert [row[0] for row in rows] == [f"{epoch.epoch}" for epoch in report.epochs]
    for column, key in ((1, "train_loss"), (2, "validation_loss")):
        expected = [getattr(epoch, key) for epoch in report.epochs]
        assert [float(row[column]) for row in rows] == pytest.approx(expected, rel=1e-3)


def test_five_thousand_epochs_are_thinned_without_losing_an_extreme(train):
    many = epochs(
        5_000, loss=lambda e: 9.0 if e == 3_333 else 0.001 if e == 4_001 else 1.0, f1=math.sin
    )
    best = BestEpoch(4_001, 40_010, "validation_loss", 0.002)
    report = train(epochs=many, best=best, steps=step_rows(500, 100))
    html = pages.draw(report, RUN)
    assert len(html.encode()) < MOST_BYTES
    page = Page(html)
    rows = rows_of(page, "Loss over epochs: loss by epoch")
    assert len(rows) <= 241
    assert rows[-1][0] == "5,000"
    assert min(float(row[2]) for row in rows) == 0.001
    assert max(float(row[3]) for row in rows) == 9.0
    table = rows_of(page, "Losses and metrics at the end of each epoch")
    assert 600 < len(table) < 2_000
    assert (table[0][0], table[-1][0]) == ("1", "5,000")
    assert "4,001 best" in [row[0] for row in table]
    (note,) = [text for text in page.texts("p") if "left out here" in text]
    assert note.startswith(f"{5_000 - len(table):,} of 5,000 epochs are left out here")
    assert any("Each point stands for 21 epochs" in text for text in page.texts("p"))


def test_all_epochs_are_in_the_table_as_long_as_they_fit(train, draw, monkeypatch):
    caption = "Losses at the end of each epoch"
    for count in (10, 132, 1_000):
        page = draw(train(epochs=epochs(count), best=None))
        assert [row[0] for row in rows_of(page, caption)] == [f"{n + 1:,}" for n in range(count)]
        assert not any("left out here" in text for text in page.texts("p"))
    report = train(epochs=epochs(1_000), best=None)
    monkeypatch.setattr(render, "MOST_BYTES", len(pages.draw(report, RUN).encode()) - 1)
    html = pages.draw(report, RUN)
    assert len(html.encode()) <= render.MOST_BYTES
    assert len(rows_of(Page(html), caption)) == 501  # every second one, and the last
    (note,) = [text for text in Page(html).texts("p") if "left out here" in text]
    assert note.startswith("499 of 1,000 epochs are left out here")


def test_an_epoch_that_is_no_number_is_not_hidden_in_its_bin(train, draw):
    many = epochs(1_000, loss=lambda e: math.nan if e == 500 else 1.0)
    page = draw(train(epochs=many, best=None))
    assert "beyond the axis, or not a number" in page.texts("li")
    cells = [row[1] for row in rows_of(page, "Loss over epochs: loss by epoch")]
    assert cells.count("NaN or infinite") == 1


@pytest.mark.parametrize(
    ("status", "title", "command"),
    [
        ("diverged", "Diverged at step 230", "lrtool train run/config.yaml --lr 0.00032"),
        ("interrupted", "The training was interrupted", "train run/config.yaml --resume run"),
        ("failed", "The training failed", "lrtool check run/config.yaml"),
    ],
)
def test_a_run_that_did_not_end_well_leads_with_why_and_what_to_do(
    train, draw, status, title, command
):
    page = draw(train(status=status, reason="The loss became NaN."))
    assert page.texts("h1", **{"class": status}) == [title]
    assert page.texts("p", **{"class": "lead"})[0] == "The loss became NaN."
    assert any(command in text for text in page.texts("code"))


def test_gradient_norms_are_shown_with_their_limit(train, draw):
    rows = [replace(row, grad_norm=row.step / 10) for row in step_rows(2, 20)]
    config = {**train().config, "train": {"gradient_clip_norm": 1.5}}
    page = draw(train(steps=rows, config=config))
    table = rows_of(page, "Norm of the gradients over steps: norm before clipping by step")
    found = {row[0]: row[1] for row in table if row[1]}
    assert (found["1"], found["40"]) == ("0.1", "4")
    assert not any("gradients" in text for text in draw(train()).texts("figcaption"))


def facts_of(matrix, names):
    columns = list(zip(*matrix, strict=True))
    classes = [
        ClassFacts(name, sum(row), sum(column), row[i], 0.5, None, 0.25)
        for i, (name, row, column) in enumerate(zip(names, matrix, columns, strict=True))
    ]
    return PredictionFacts(sum(map(sum, matrix)), tuple(classes), tuple(map(tuple, matrix)))


def test_the_confusion_matrix_and_the_figures_of_classes(train, draw):
    page = draw(train(predictions=facts_of([[8, 2], [3, 7]], ["<cat>", "dog"])))
    caption = next(text for text in page.texts("caption") if text.startswith("Confusion matrix"))
    assert rows_of(page, caption) == [["<cat>", "8", "2"], ["dog", "3", "7"]]
    assert rows_of(page, "Figures of each class")[0] == [
        "<cat>",
        "10",
        "11",
        "8",
        "0.500",
        "–",
        "0.250",
    ]
    confusions = rows_of(page, "Most often taken for another class")
    assert confusions == [["dog", "<cat>", "3", "30.0%"], ["<cat>", "dog", "2", "20.0%"]]


def test_a_matrix_that_is_too_wide_is_told_by_its_confusions(train):
    size = 40
    matrix = [
        [9 if i == j else 1 if j == (i + 1) % size else 0 for j in range(size)] for i in range(size)
    ]
    html = pages.draw(train(predictions=facts_of(matrix, list(map(str, range(size))))), RUN)
    assert len(html.encode()) < MOST_BYTES
    page = Page(html)
    assert not any(text.startswith("Confusion matrix") for text in page.texts("caption"))
    assert len(rows_of(page, "Most often taken for another class")) == 15
    assert len(rows_of(page, "Figures of each class")) == size


def test_values_are_shown_over_what_was_predicted(train, draw):
    value = ValueFacts("price", (10.0, 12.0), (11.0, 10.0), -0.5, 1.58, (-2.0, -0.5, 1.0), (1, 3))
    page = draw(
        train(
            predictions=PredictionFacts(
                4, values=(value,), reason="the first 4 of 6 outputs are shown"
            )
        )
    )
    rows = rows_of(page, "price: predicted over actual: predicted by actual")
    assert rows == [["10", "11"], ["12", "10"]]
    rows = rows_of(page, "price: residuals, predicted minus actual: samples by residual")
    assert rows == [["-2", "1"], ["-0.5", "3"]]  # a row for each bin, and no more
    steps = [each["d"] for _, each, _ in page.all("path", **{"class": "line"})][-1]
    assert steps.startswith("M0 ")
    assert steps.endswith("H1000")  # drawn up to the upper edge of the last bin
    assert "Left out: the first 4 of 6 outputs are shown." in page.texts("p")


def test_why_there_is_nothing_is_said(train, draw):
    page = draw(train(predictions=PredictionFacts(0, reason="the loss is of your own")))
    assert "Nothing is shown: the loss is of your own." in page.texts("p")


def test_the_search_inside_is_shown_as_on_its_own_page(train, make, draw):
    page = draw(train(), make())
    assert "The search for the rate" in page.texts("h2")
    assert "Loss over the learning rate" in page.texts("figcaption")
    assert "The search for the rate" not in draw(train()).texts("h2")
    doubted = make_suggestion(
        verdict="uncertain", reason="The curve is odd.", advice=("Race.", "Sweep again.")
    )
    page = draw(train(), make(suggestion=doubted))
    (said,) = [text for text in page.texts("p") if "The curve is odd." in text]
    assert said.endswith(": uncertain. The curve is odd. Race. Sweep again.")


def test_a_page_with_a_large_search_has_fewer_points_or_points_to_it(train, make, monkeypatch):
    whole = pages.draw(train(), RUN, make())
    monkeypatch.setattr(render, "MOST_BYTES", len(whole.encode()) - 1_000)
    less = Page(pages.draw(train(), RUN, make()))
    assert "Loss over the learning rate" in less.texts("figcaption")
    assert any("Each point stands for" in text for text in less.texts("p"))
    monkeypatch.setattr(render, "MOST_BYTES", 1_000)
    least = Page(pages.draw(train(), RUN, make()))
    assert "The search for the rate" in least.texts("h2")
    assert "Loss over the learning rate" not in least.texts("figcaption")
    (said,) = [text for text in least.texts("p") if "find/report.html" in text]
    assert said.startswith("Learning rate 0.0032. Train with 0.0032")


def test_metrics_that_are_not_drawn_are_named(train, draw):
    names = [f"m{index}" for index in range(6)]
    page = draw(train(epochs=epochs(3, **dict.fromkeys(names, float)), best=None))
    assert "Not drawn, but in report.json: m4, m5." in page.texts("p")
