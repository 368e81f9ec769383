import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from finds import make_full_trial
from hypothesis import given
from hypothesis import strategies as st
from trainings import FACTS

from lrtool.config import document as documents
from lrtool.report.records import LearningRate
from lrtool.show import words

NOTHING = "NaN or infinite"  # a report's null


def test_rates_are_spelled_as_people_write_them():
    spelled = {
        0.00316: "0.0032",
        0.0000123: "1.2e-5",
        0.00001: "1e-5",
        0.0001: "0.0001",
        0.1 + 0.2: "0.3",
        0.996: "1",
        9.96: "10",
        123.0: "120",
        99_999.0: "100000",
        2.5e6: "2.5e6",
        5e-324: "4.9e-324",
    }
    assert {lr: words.rate(lr) for lr in spelled} == spelled


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_a_spelled_rate_is_a_yaml_number_within_five_percent(lr):
    text = words.rate(lr)
    read = documents.plain_scalar(text)
    assert isinstance(read, int | float), text
    assert abs(read / lr - 1) <= 0.0501
    assert words.rate(read) == text
    assert len(re.sub(r"e.*", "", text).replace(".", "").strip("0")) <= 2


def test_subject_names_model_optimizer_data_and_batch(make):
    assert (
        words.subject(make()) == "mlp, 26,122 parameters · adamw · digits, 1,437 samples · batch 64"
    )


def test_subject_says_what_it_knows_of_a_call_without_configuration(make):
    report = make(config={"start": 1e-7}, data=None)
    assert words.subject(report) == "mlp, 26,122 parameters"


def test_the_batch_of_a_loader_of_ones_own_is_that_of_its_updates(make):
    report = make()
    own = replace(report.data, samples_per_update=24)
    report = report.model_copy(update={"data": own})
    assert words.subject(report).endswith("batch 24")
    config = {**report.config, "train": {"accumulate": 3}}
    assert words.subject(report.model_copy(update={"config": config})).endswith("batch 8")
    config["data"] = {**report.config["data"], "batch_size": "full"}
    assert words.subject(report.model_copy(update={"config": config})).endswith("batch full")


def test_several_ranks_are_counted_where_a_run_is_described(make):
    report = make()
    many = replace(report.environment, world_size=4)
    report = report.model_copy(update={"environment": many})
    assert words.subject(report).endswith("batch 64 · 4 ranks")
    assert words.took(report).endswith(" on 4 ranks")
    assert "rank" not in words.took(make()) + words.subject(make())


def test_purpose_says_schedule_and_length(make):
    said = make().suggestion
    assert words.purpose(said) == "constant schedule over 230 steps"
    unknown = replace(said, for_schedule="one_cycle", for_steps=None)
    assert words.purpose(unknown) == "one cycle schedule"
    once = replace(said, for_steps=1)
    assert words.purpose(once) == "constant schedule over 1 step"


@pytest.mark.parametrize(
    ("losses", "changes", "said"),
    [
        ((1.0, 0.8, 0.9), {}, "0.004: validation loss lowest, 0.8, after 153 of 230 steps"),
        ((1.0, math.nan, math.nan), {}, "0.004: validation loss lowest, 1, after 76 of 230 steps"),
        ((math.nan, math.inf), {}, "0.004: diverged"),
        ((1.0,), {"interrupted": True}, "0.004: unfinished"),
    ],
)
def test_a_full_trial(losses, changes, said):
    assert words.full_trial(make_full_trial(*losses, **changes)) == said


def test_interval(make):
    said = make().suggestion
    assert words.interval(said) == "0.0018 to 0.0056"
    assert words.interval(replace(said, low=None)) is None


def test_values_names_and_times():
    spelled = {0.123456: "0.1235", 1e-9: "1e-9", 12.0: "12", 7.953e20: "7.953e20", None: NOTHING}
    assert {number: words.value(number) for number in spelled} == spelled
    assert [words.value(number) for number in (math.nan, math.inf)] == ["nan", "inf"]
    assert words.name("top_5_accuracy") == "top 5 accuracy"
    assert [words.duration(seconds) for seconds in (0.4, 45, 725.4, 3723, 360_000)] == [
        "0:00",
        "0:45",
        "12:05",
        "1:02:03",
        "100:00:00",
    ]


@pytest.mark.parametrize(
    ("origin", "run", "said"),
    [
        ("flag", None, "given by --lr"),
        ("config", None, "from the configuration"),
        ("find", "find", "found before training"),
        ("run", "runs/a", "from runs/a"),
        ("optimizer", None, "adamw's own default"),
    ],
)
def test_the_origin_of_a_rate(train, origin, run, said):
    report = train(learning_rate=LearningRate(value=0.1, origin=origin, run=run))
    assert words.origin(report) == said


def test_a_rate_among_the_optimizers_arguments_is_no_default(train):
    report = train(learning_rate=LearningRate(value=0.1, origin="optimizer", run=None))

    def origin(**optimizer):
        config = {**report.config, "optimizer": optimizer}
        return words.origin(report.model_copy(update={"config": config}))

    assert origin(name="adam", args={"lr": 0.1}) == "from optimizer.args.lr"
    inner = {"name": "own:Around", "args": {}, "inner": {"name": "adam", "args": {}}}
    assert origin(**inner) == "adam's own default"
    inner["inner"]["args"]["lr"] = 0.1
    assert origin(**inner) == "from optimizer.inner.args.lr"


def test_a_slow_training_has_a_speed_too():
    assert words.per_second(0.3, "steps") == "0.3 steps/s"
    assert words.per_second(1234.5, "samples") == "1,234 samples/s"


def test_the_origin_of_a_found_rate_says_how_sure_it_is(make, train):
    report = train(
        learning_rate=LearningRate(value=0.0032, origin="find", run="find"),
        suggestion=make().suggestion,
    )
    assert words.origin(report) == "found before training (interval 0.0018 to 0.0056, confident)"


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("flag", "0.00125, given by --lr"),
        ("optimizer", "0.00125, adamw's own default"),
        ("find", "0.0013, found before training"),  # no more digits than a find tells
        ("run", "0.0013, from runs/a"),
    ],
)
def test_a_rate_that_someone_wrote_is_not_rounded(train, origin, said):
    rate = LearningRate(value=0.00125, origin=origin, run="runs/a")
    assert words.learning_rate(train(learning_rate=rate)) == said


def test_a_metric_of_the_training_part_is_called_one(train, odd_training_named):
    assert words.metric("top_5_accuracy", validated=True) == "top 5 accuracy"
    assert words.metric("top_5_accuracy", validated=False) == "training top 5 accuracy"
    assert words.metric("validation_loss", validated=True) == "validation loss"
    assert {words.metric("train_loss", validated=v) for v in (True, False)} == {"training loss"}
    assert words.best(train()) == "accuracy 0.9847 in epoch 10"
    alone = odd_training_named("metrics without validation")
    assert words.best(alone) == "training accuracy 0.9847 in epoch 10"


@pytest.mark.parametrize(
    ("samples", "validated"),
    [
        ({"train": 9, "validation": 3}, True),
        ({"train": 9, "validation": 0}, False),
        ({"train": 9}, True),  # a loader that does not tell its length
    ],
)
def test_whether_there_is_a_validation_part(train, samples, validated):
    data = replace(FACTS["data"], samples=samples)
    assert words.validated(train(data=data)) == validated


def test_schedule_and_progress(train, odd_training_named):
    assert words.schedule(train()) == "one cycle schedule, warm-up 0.05"
    assert words.schedule(train(config={})) == "constant schedule"
    assert words.progress(train()) == "epoch 10 of 10, step 230"
    assert words.progress(train(config={})) == "epoch 10, step 230"
    assert words.progress(odd_training_named("interrupted before an epoch")) == (
        "epoch 1 of 10, step 9"
    )


def test_commands_are_quoted_for_a_shell():
    assert words.command("train", Path("a b.yaml"), "--lr", "auto") == (
        "lrtool train 'a b.yaml' --lr auto"
    )
