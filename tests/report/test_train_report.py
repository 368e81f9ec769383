import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trainings import make_training, step_rows

from lrtool.report import records
from lrtool.report import report as reports
from lrtool.report.records import BestEpoch, EpochRow, LearningRate, Steps
from lrtool.report.report import thin

numbers = st.floats()
counts = st.integers(1, 10**12)
rates = st.floats(min_value=0, max_value=1e300)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in EpochRow.model_fields
)


def epoch_row(epoch, step, lr, losses, metrics):
    train_loss, validation_loss = losses
    return EpochRow(
        epoch=epoch,
        step=step,
        lr=lr,
        train_loss=train_loss,
        validation_loss=validation_loss,
        **metrics,
    )


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            records.StepRow,
            counts,
            counts,
            rates,
            numbers,
            counts,
            st.none() | numbers,
            st.booleans(),
        ),
        max_size=5,
    ),
    st.lists(
        st.builds(
            epoch_row,
            counts,
            counts,
            rates,
            st.tuples(numbers, st.none() | numbers),
            st.dictionaries(names, numbers, max_size=3),
        ),
        max_size=5,
    ),
)
def test_a_written_report_reads_back_equal_and_is_strict_json(tmp_path_factory, steps, epochs):
    report = make_training(steps=steps, epochs=epochs, best=None)
    path = reports.write(report, tmp_path_factory.getbasetemp())
    read = reports.read(path)
    assert isinstance(read, reports.TrainReport)
    assert reports.to_json(read) == path.read_text(encoding="utf-8")
    stored = strict(path.read_text(encoding="utf-8"))
    assert [set(row.metrics) for row in epochs] == [
        set(epoch) - set(EpochRow.model_fields) for epoch in stored["epochs"]
    ]


def test_the_report_has_the_fields_of_a_find_and_those_of_a_training(make, train):
    stored = strict(reports.to_json(train()))
    own = {"first_update", "trials", "full_trial", "race"}
    shared = [key for key in strict(reports.to_json(make())) if key not in own]
    more = ["learning_rate", "epochs", "best", "checkpoint", "steps", "predictions"]
    more.append("reached")
    assert list(stored) == [*shared, *more]
    assert stored["command"] == "train"
    assert (stored["suggestion"], stored["suggestions"]) == (None, {})
    assert (stored["sweeps"], stored["curve"]) == ([], None)
    assert stored["learning_rate"] == {"value": 0.0032, "origin": "flag", "run": None}
    assert stored["checkpoint"] == "checkpoints/last"
    best = stored["best"]
    assert (best["epoch"], best["step"], best["metric"]) == (10, 230, "accuracy")
    kept = dict.fromkeys(("step", "epoch", "lr", "loss"), 230)
    none = dict.fromkeys(("lowest", "highest", "grad_norm"), 0)
    assert {key: len(values) for key, values in stored["steps"].items()} == kept | none


def test_each_metric_is_a_key_of_its_epoch_and_what_is_no_number_is_null(train):
    epochs = [
        epoch_row(1, 23, 0.1, (0.1 + 0.2, math.nan), {"accuracy": 0.5, "auroc": math.nan}),
        epoch_row(2, 46, 0.0, (math.inf, None), {}),
    ]
    report = train(epochs=epochs, best=BestEpoch(epoch=1, step=23, metric="accuracy", value=0.5))
    assert json.loads(reports.to_json(report))["epochs"] == [
        {
            "epoch": 1,
            "step": 23,
            "lr": 0.1,
            "train_loss": 0.30000000000000004,
            "validation_loss": None,
            "accuracy": 0.5,
            "auroc": None,
        },
        {"epoch": 2, "step": 46, "lr": 0.0, "train_loss": None, "validation_loss": None},
    ]
    assert report.epochs[0].metrics == {"accuracy": 0.5, "auroc": epochs[0].metrics["auroc"]}


def test_the_suggestion_is_that_of_the_find(make, train):
    found = make()
    by_find = LearningRate(value=found.suggestion.lr, origin="find", run="find")
    report = train(suggestion=found.suggestion, learning_rate=by_find)
    assert report.suggestion == found.suggestion
    assert report.learning_rate.run == "find"


def test_a_run_that_failed_early_still_reports(odd_training_named):
    report = odd_training_named("nothing")
    assert (report.status, report.reason) == ("failed", "out of memory")
    assert (report.learning_rate, report.epochs, report.best) == (None, (), None)
    assert report.steps == Steps(step=(), epoch=(), lr=(), loss=())


def test_few_steps_are_all_kept():
    rows = step_rows(2, 3, last=math.inf)
    assert thin(rows) == Steps(
        step=(1, 2, 3, 4, 5, 6),
        epoch=(1, 1, 1, 2, 2, 2),
        lr=tuple(row.lr for row in rows),
        loss=tuple(row.loss for row in rows),
    )


def numbered(count):
    return (
        records.StepRow(step, 1, 0.1, 1.0, 1, grad_norm=None, skipped=False)
        for step in range(count)
    )


def test_thinning_by_hand():
    assert thin(numbered(5), most=5).step == (0, 1, 2, 3, 4)
    assert thin(numbered(9), most=5).step == (0, 2, 4, 6, 8)
    assert thin(numbered(10), most=5).step == (0, 4, 8, 9)  # six would be one too many
    assert thin(numbered(11), most=5).step == (0, 4, 8, 10)


@given(st.integers(0, 3000), st.integers(3, 60))
def test_thinned_steps_are_few_evenly_spaced_and_hold_both_ends(count, most):
    kept = thin(numbered(count), most).step
    assert len(kept) <= most
    if count <= most:
        assert kept == tuple(range(count))
        return
    assert (kept[0], kept[-1]) == (0, count - 1)
    *strides, last = [after - before for before, after in pairwise(kept)]
    assert len(set(strides)) <= 1
    assert 0 < last <= (strides[0] if strides else count)
    assert len(kept) >= most // 2


def of_losses(losses, norms=()):
    norms = norms or [None] * len(losses)
    return [
        records.StepRow(step, 1, 0.1, loss, 1, grad_norm=norm, skipped=False)
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)
    ]


def test_extremes_of_the_steps_left_out_are_kept_by_hand():
    losses = [1.0, 9.0, 3.0, 0.5, 5.0, math.nan, 7.0]
    steps = thin(of_losses(losses, [0.1, 0.2, 0.9, None, 0.5, math.inf, 0.6]), most=5)
    assert steps.step == (1, 3, 5, 7)
    assert steps.loss == (1, 3, 5, 7)
    assert steps.lowest == (1, 0.5, 5, 7)
    assert steps.highest == (9, 3, math.inf, 7)
    assert steps.grad_norm == (0.2, 0.9, math.inf, 0.6)


def test_without_clipping_or_with_all_steps_nothing_more_is_kept():
    assert thin(of_losses([1.0] * 9), most=5).grad_norm == ()
    few = thin(of_losses([1.0, 2.0], [0.3, 0.4]))
    assert (few.lowest, few.highest, few.grad_norm) == ((), (), (0.3, 0.4))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(3, 20))
def test_no_extreme_is_lost(losses, most):
    steps = thin(of_losses(losses), most)
    if len(losses) > most:
        assert min(steps.lowest) == min(losses)
        assert max(steps.highest) == max(losses)
        assert all(
            a <= b <= c for a, b, c in zip(steps.lowest, steps.loss, steps.highest, strict=True)
        )
    else:
        assert list(steps.loss) == losses


def test_a_long_training_keeps_two_thousand_steps():
    steps = thin(numbered(123_457)).step
    assert 1000 <= len(steps) <= 2000
    assert steps[-1] == 123_456


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["epochs"][2].update(f1="x"), "epochs.2.f1: Input should be a valid num"),
        (lambda data: data["epochs"][2].pop("step"), "epochs.2.step: Field required"),
        (lambda data: data["epochs"][0].update(lr=-1.0), "epochs.0.lr: Input should be greater"),
        (lambda data: data["steps"]["lr"].pop(), "steps: Value error, steps have one epoch, one"),
        (lambda data: data["best"].update(value=None), "best.value: Input should be a valid numb"),
        (lambda data: data["learning_rate"].update(origin="x"), "learning_rate.origin: Input sho"),
        (lambda data: data["learning_rate"].update(value=0.0), "learning_rate.value: Input shoul"),
        (lambda data: data.update(more=1), "more: Extra inputs are not permitted"),
    ],
)
def test_a_changed_report_is_refused_with_the_place(train, refusal, change, message):
    assert refusal(train(), change).startswith(f"not a report of lrtool: {message}")


def test_a_report_cannot_be_changed(train):
    report = train()
    with pytest.raises(ValidationError, match="frozen"):
        report.checkpoint = "elsewhere"


def test_lists_of_numbers_stand_on_one_line_each(train, tmp_path):
    lines = Path(reports.write(train(), tmp_path)).read_text(encoding="utf-8").splitlines()
    assert sum('"loss": [' in line for line in lines) == 1
    assert len(lines) < 200
