"""What one whole training tells of overfitting, by hand."""

import math
from dataclasses import replace

import pytest
from test_trials import ending, trials_of

from lrtool.curve import full_trial, trials
from lrtool.report.records import FullTrial

NAN = math.nan


def full_of(*validation, share=None, **changes):
    """Return a full trial at a rate of 0.01, measured at equal shares of a constant rate."""
    count = len(validation)
    facts = {
        "seed": 3,
        "lr": 0.01,
        "steps": 100,
        "steps_spent": 110.0,
        "examples": 50,
        "untrained_loss": 2.0,
        "step": tuple(100 * part // count for part in range(1, count + 1)),
        "share": share or tuple(part / count for part in range(1, count + 1)),
        "validation": validation,
        "loss": (2.0,) * 100,
        "interrupted": False,
    }
    return FullTrial(**(facts | changes))


@pytest.mark.parametrize(
    ("losses", "decades"),
    [
        ((1.5, 1.2, 1.0, 0.9), 0.0),  # lowest at its end
        ((1.5, 1.0, 1.2, 1.5), math.log10(1 / 2)),
        ((1.0, 1.0, 1.0, 1.0), 0.0),  # of equal ones the last
        ((1.0, 1.5, 1.0, 1.5), math.log10(3 / 4)),
        ((2.1, 2.2, 2.3, 2.4), math.log10(1 / 8)),  # lowest before it began to be measured
        ((1.0, 1.5, NAN, NAN), math.log10(1 / 4)),
        ((NAN, NAN, NAN, NAN), -1.0),
        ((math.inf, 1.9, math.inf, math.inf), math.log10(1 / 2)),
    ],
)
def test_the_rate_is_too_high_by_the_share_until_the_lowest_loss(losses, decades):
    assert full_trial.lowering(full_of(*losses)) == pytest.approx(decades)


def test_no_more_than_a_decade():
    early = full_of(1.0, 1.5, 1.7, 1.8, share=(0.01, 0.2, 0.5, 1.0))
    assert full_trial.lowering(early) == -1


def test_one_that_was_interrupted_tells_nothing():
    assert full_trial.lowering(full_of(1.0, 1.5, interrupted=True)) == 0


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((1.5, 1.0, 1.2, 1.5), []),
        ((1.0, 1.5, 1.2, 1.5), ["the whole training overfits almost from its start"]),
        ((2.1, 2.2, 2.3, 2.4), ["the whole training was never below its untrained loss"]),
        ((2.0, 2.2, 2.3, 2.4), ["the whole training was never below its untrained loss"]),
        ((NAN, NAN, NAN, NAN), ["the whole training was never below its untrained loss"]),
    ],
)
def test_a_whole_training_that_shows_no_lowest_loss_on_its_way_is_a_doubt(losses, words):
    assert [doubt.reason for doubt in full_trial.doubts(full_of(*losses))] == words
    assert full_trial.doubts(full_of(*losses, interrupted=True)) == []
    assert full_trial.doubts(None) == []


def test_the_sum_of_rates_over_steps_is_what_counts():
    """Lowest half-way at 0.01: the end of a training at 0.005, whatever was estimated meanwhile."""
    half = full_of(1.5, 1.0, 1.2, 1.5)
    for estimate, rate in ((0.01, 0.005), (0.02, 0.005), (0.006, 0.005), (0.002, 0.002)):
        found = full_trial.correct(math.log10(estimate), half)
        assert found == pytest.approx(math.log10(rate))
    assert full_trial.correct(-1.0, full_of(1.5, 1.2, 1.0, 0.9)) == -1
    assert full_trial.correct(-1.0, None) == -1


def test_it_is_made_where_trials_overfit_and_the_training_is_short():
    apart = trials_of((1.0, 1.9), curves=ending(1.0, 0.1))  # by a decade
    due = [full_trial.is_due(apart, steps, 5.0) for steps in (1, 300, 301, None)]
    assert due == [True, True, False, False]
    alike = trials_of((1.0, 1.9), curves=ending(1.0, 1.9))
    assert not full_trial.is_due(alike, 300, 5.0)
    assert not full_trial.is_due(replace(apart, measure="training"), 300, 5.0)


@pytest.mark.parametrize(
    ("passes", "due"), [(None, True), (1.01, True), (1.0, False), (0.2, False)]
)
def test_what_sees_each_sample_once_cannot_overfit(passes, due):
    apart = trials_of((1.0, 1.9), curves=ending(1.0, 0.1))
    assert full_trial.is_due(apart, 300, passes) == due


@pytest.mark.parametrize(
    ("ends", "error", "due"),
    [
        ((1.9, 1.0), 0.051, True),  # known to 5.1% of a descent of 1
        ((1.9, 1.0), 0.049, False),
        ((1.0, 1.9), 0.08, False),  # the lower rate is better: nothing would lower it further
    ],
)
def test_it_is_made_where_noisy_trials_prefer_the_higher_rate(ends, error, due):
    noisy = trials_of(ends, curves=ending(*ends), error=error)
    assert trials.overfit(noisy) == pytest.approx(0)
    assert full_trial.is_due(noisy, 300, 5.0) == due


def test_trials_that_show_nothing_tell_nothing_of_overfitting_either():
    noise = [0.05 * (-1) ** step for step in range(90)]
    curves = [tuple(end + each for each in noise) for end in (2.0, 1.98)]
    flat = trials_of((1.98, 1.99), curves=curves, error=0.05)
    assert trials.overfit(flat) > full_trial.OVERFITS
    assert trials.position_of(flat) is None
    assert not full_trial.is_due(flat, 300, 5.0)


def test_ten_measurements_the_last_one_at_the_end():
    assert full_trial.moments(300) == [30 * part for part in range(1, 11)]
    assert full_trial.moments(3) == [1, 2, 3]
    assert full_trial.moments(25)[-1] == 25
    assert sorted(set(full_trial.moments(11))) == full_trial.moments(11)
