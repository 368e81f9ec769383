"""What two short trainings say, by numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from round_constants import ROUND
from scipy.stats import ttest_ind, ttest_ind_from_stats

from lrtool.curve import trials
from lrtool.curve.combine import Estimate
from lrtool.report.records import Candidate, Race

NAN = math.nan
HALF = math.sqrt(10)  # of the way, in decades, from 300 steps to 3,000


def falling(end, steps=90, seed=0, start=2.0, noise=0.05):
    rng = np.random.default_rng(seed)
    clean = end + (start - end) * np.exp(-np.arange(steps) / 10)
    return tuple((clean + noise * rng.normal(size=steps)).tolist())


def level(noise=0.05, steps=90):
    """Losses of 2 that go up and down, and begin no higher than they end."""
    return tuple(2 + noise * (-1) ** step for step in range(1, steps + 1))


def trials_of(
    losses=(1.0, 0.8), *, lr=(0.001, 0.01), curves=None, error=None, outcomes=None, **changes
):
    """Trials with these losses at the end, as a record."""
    curves = curves or [falling(0.5 if end is None else end) for end in losses]
    facts = {
        "seed": 1,
        "steps": 90,
        "steps_spent": 180.0,
        "measure": "validation",
        "examples": 100,
        "untrained_loss": 2.0,
        "interrupted": False,
    }
    origins = ("lower", "higher", "outward")
    outcomes = outcomes or ["lost"] * len(losses)
    candidates = tuple(
        Candidate(rate, origin, loss, None, end, error, outcome, error)
        for rate, origin, loss, end, outcome in zip(
            lr, origins, curves, losses, outcomes, strict=False
        )
    )
    return Race(candidates=candidates, **(facts | changes))


def test_in_a_training_of_few_steps_the_validation_loss_alone_can_fall():
    few = [(2.0, 1.9, 1.7, 1.4, 1.2, 1.1, 1.05, 1.0)] * 2
    assert trials.fell(trials_of((1.0, 0.9), curves=few, error=0.01))
    assert not trials.fell(trials_of((1.98, 1.99), curves=few, error=0.01))  # too little
    assert not trials.fell(trials_of((1.5, 1.5), curves=few, error=0.3))  # by chance
    assert not trials.fell(trials_of((1.0, 0.9), curves=few))  # its noise is not known
    assert not trials.fell(trials_of((1.0, 0.9), curves=few, measure="training"))


def test_75_steps_but_no_more_than_the_training():
    assert [trials.length(n) for n in (None, 30, 75, 3000)] == [75, 30, 75, 75]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 1.0), 0),
        # worse by 3% of what the better one has descended: e times less weight
        ((1.0, 1.03), -0.5 * math.tanh(0.5)),
        ((1.03, 1.0), 0.5 * math.tanh(0.5)),
        ((1.06, 1.0), 0.5 * math.tanh(1.0)),
        (
            (NAN, 1.0),
            0.5 * math.tanh(1 / 0.06),
        ),  # as if it had not trained: worse by all of the descent
        ((1.0, math.inf), -0.5 * math.tanh(1 / 0.06)),
        ((1.0, 2e9), -0.5 * math.tanh(1 / 0.06)),
        ((2.0, 3.0), -0.5),  # neither has descended: lower still
        ((NAN, NAN), -0.5),
    ],
)
def test_the_position_between_two_by_hand(losses, expected):
    assert trials.position((-0.5, 0.5), losses, 2.0) == pytest.approx(expected)


def test_the_position_between_three_by_hand():
    """The middle one is best; the others are worse by 3 and 6% of its descent."""
    weights = np.exp([-1, 0, -2])
    expected = weights @ (-2.5, -1.5, -0.5) / weights.sum()
    assert trials.position((-2.5, -1.5, -0.5), (1.03, 1.0, 1.06), 2.0) == pytest.approx(expected)


ends = st.floats(-1, 2).map(lambda loss: round(loss, 3))


@given(ends, ends, st.sampled_from([1e-3, 1.0, 1e3]), st.sampled_from([0.0, 1e3, -7.5]))
def test_neither_scale_nor_offset_matters_and_the_two_are_alike(lower, higher, scale, offset):
    places = (-1.0, 1.0)
    plain = trials.position(places, (lower, higher), 2.5)
    assert -1 <= plain <= 1
    assert trials.position(places, (higher, lower), 2.5) == pytest.approx(-plain)
    moved = [scale * loss + offset for loss in (lower, higher)]
    again = trials.position(places, moved, scale * 2.5 + offset)
    assert again == pytest.approx(plain, abs=1e-5)
    assert (plain > 0) == (higher < lower)


def test_the_position_of_a_record():
    near, far = (trials.position_of(trials_of((1.0, end))) for end in (1.03, None))
    assert near == pytest.approx(-0.5 * math.tanh(0.5))
    assert far == pytest.approx(-0.5)
    flat = falling(2.0)
    assert trials.position_of(trials_of((1.9, 1.95), curves=[flat, flat])) is None


def test_a_third_trial_counts_once_it_has_ended():
    three = trials_of((1.0, 0.8, 0.9), lr=(0.001, 0.01, 0.1))
    away = trials.position((-0.5, 0.5, 1.5), (1.0, 0.8, 0.9), 2.0)
    assert trials.position_of(three) == pytest.approx(away)
    stopped = trials_of(
        (1.0, 0.8, None), lr=(0.001, 0.01, 0.1), outcomes=("lost", "won", "unfinished")
    )
    assert trials.position_of(stopped) == trials.position_of(trials_of((1.0, 0.8)))
    only = trials_of((1.0, None), outcomes=("lost", "unfinished"))
    assert trials.position_of(only) is None


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 1.09), None),  # worse by a tenth of the descent: the best rate lies between them
        ((1.0, 1.11), -3.5),
        ((1.11, 1.0), -1.5),
        ((None, 1.0), -1.5),
        ((2.1, 2.5), -3.5),  # both rise: lower
        ((1.4, 1.0, 1.4), None),
        ((1.8, 1.4, 1.0), None),  # three are enough
    ],
)
def test_one_more_trial_goes_on_where_one_has_won_outright(losses, expected):
    tried = trials_of(losses, lr=(0.001, 0.01, 0.1)[: len(losses)])
    assert trials.outward(tried) == (None if expected is None else pytest.approx(expected))
    assert trials.outward(replace(tried, interrupted=True)) is None
    assert trials.outward(replace(tried, untrained_loss=NAN)) is None


def ending(*levels):
    """Training losses that begin at 2 and end level."""
    return [(2.0, *[end] * 89) for end in levels]


def test_overfitting_is_the_distance_between_two_positions_times_the_decades_of_passes():
    """Validation losses prefer the lower one, training losses the higher one: a decade apart."""
    apart = trials_of((1.0, 1.9), curves=ending(1.0, 0.1))
    assert trials.overfit(apart) == pytest.approx(1.0, abs=1e-4)
    assert trials.overfitting(apart, 100.0) == pytest.approx(2.0, abs=1e-4)
    assert trials.overfitting(apart, math.sqrt(10)) == pytest.approx(0.5, abs=1e-4)
    near = trials_of((1.0, 1.03), curves=ending(1.0, 1.0))
    assert trials.overfit(near) == pytest.approx(0.5 * math.tanh(0.5))
    for none in (1.0, 0.3, None):  # each sample once, or nobody knows
        assert trials.overfitting(apart, none) == 0
    assert trials.overfit(trials_of((1.0, 0.1), curves=ending(0.1, 1.0))) == 0
    assert trials.overfit(replace(apart, measure="training")) == 0
    assert trials.overfit(trials_of((1.0,), curves=ending(1.0))) == 0
    # one that diverged is as if it had not trained
    broken = trials_of((1.0, None), curves=[*ending(1.0), (2.0, 1e9, math.inf)])
    assert trials.overfit(broken) == 0


def test_noise_is_the_error_of_the_best_descent_as_a_share_of_it():
    assert trials.noise(trials_of((1.5, 1.0), error=0.05)) == pytest.approx(0.05)
    assert trials.noise(trials_of((1.6, 1.5), error=0.05)) == pytest.approx(0.1)
    assert trials.noise(trials_of((2.5, 2.1), error=0.05)) == 1
    assert trials.noise(trials_of((None, None))) == 1
    assert trials.noise(trials_of((NAN, NAN, 1.0), lr=(1, 2, 3), error=0.05)) == 0.05
    loss = falling(1.0)
    welch = ttest_ind(loss[:9], loss[-30:], equal_var=False).statistic
    assert trials.noise(trials_of((1.0, 1.0), curves=[loss] * 2)) == pytest.approx(1 / welch)


@pytest.mark.parametrize(
    ("ends", "place"),
    [
        ((2.13, 1.99), -3.5),  # one of them rose, by more than 2.5 standard errors
        ((2.12, 1.99), -1.5),
        ((2.01, 2.01), -1.5),
        ((None, 1.99), -3.5),
        ((1.99, 1.98), -1.5),
        ((2.0, 2.0), -1.5),
        ((1.99, 1.98, 1.97), None),  # three are enough
    ],
)
def test_a_third_one_is_tried_before_it_is_said_that_nothing_fell(ends, place):
    flat = trials_of(ends, lr=(0.001, 0.01, 0.1)[: len(ends)], curves=[level()] * 3, error=0.05)
    assert not trials.fell(flat)
    assert trials.outward(flat) == (None if place is None else pytest.approx(place))


def test_the_noise_of_a_trial_that_blew_up_hides_nothing():
    """Its loss of 12 is known to within 5 only; that of the other one to within 0.05."""
    blown = trials_of((1.99, 12.0), curves=[level()] * 2)
    low, high = blown.candidates
    blown = replace(
        blown, candidates=(replace(low, descent_error=0.05), replace(high, descent_error=5.0))
    )
    assert trials.outward(blown) == pytest.approx(-3.5)


@pytest.mark.parametrize(
    ("steps", "passes", "worth"),
    [
        (300, None, True),
        (2999, 1.0, True),
        (3000, None, False),
        (3000, 29.0, False),
        (9000, 30.0, True),
    ],
)
def test_long_trainings_have_trials_where_they_see_each_sample_often(steps, passes, worth):
    assert trials.worthwhile(trials.weight(steps), passes) == worth


def test_two_that_rose_speak_for_a_lower_rate():
    for ends in ((2.2, 2.3), (NAN, 2.5), (None, None), (math.inf, NAN)):
        up = trials_of(ends, curves=[falling(2.0)] * 2)
        assert trials.rose(up)
        assert trials.position_of(up) == -0.5
    assert not trials.rose(trials_of((2.0, 2.5)))
    # of an unknown error, by the noise of a batch, 0.05
    assert not trials.rose(trials_of((2.1, 2.5), curves=[falling(2.0)] * 2))
    within = trials_of((2.12, 2.01), curves=[level()] * 2, error=0.05)  # 2.5 standard errors
    assert not trials.rose(within)
    assert trials.position_of(within) is None
    assert trials.rose(trials_of((2.13, 2.13), curves=[level()] * 2, error=0.05))
    for untrained in (NAN, math.inf):  # nothing to compare with
        assert not trials.rose(trials_of((2.1, NAN), untrained_loss=untrained))
        assert trials.position_of(trials_of((1.0, 1.1), untrained_loss=untrained)) is None


def test_without_validation_a_rise_within_the_noise_of_training_losses_is_none():
    """Both ends of a trial are means over 30 of its batches: of equal ones half rise."""
    rng = np.random.default_rng(0)
    rose = downwards = 0
    for _ in range(200):
        curves = [tuple((2 + 0.3 * rng.normal(size=90)).tolist()) for _ in range(2)]
        ends = [float(np.mean(curve[-30:])) for curve in curves]
        untrained = 2 + 0.3 * float(rng.normal()) / np.sqrt(30)
        tried = trials_of(ends, curves=curves, measure="training", untrained_loss=untrained)
        rose += trials.rose(tried)
        if not trials.fell(tried):
            downwards += trials.outward(tried) < -3
    assert rose <= 2
    assert downwards <= 10
    up = trials_of((2.5, 2.6), curves=[falling(2.0)] * 2, measure="training")
    assert trials.rose(up)
    assert trials.outward(up) < -3


def test_updates_without_targets_have_no_loss_to_judge():
    gone = [4, 40, 89]  # of the whole batch, at the same updates in each trial
    whole = [falling(2.0), falling(1.0)]
    curves = [tuple(NAN if at in gone else loss for at, loss in enumerate(each)) for each in whole]
    left = [tuple(loss for at, loss in enumerate(each) if at not in gone) for each in whole]
    seen, alone = (trials_of((2.0, 1.0), curves=each, error=0.01) for each in (curves, left))
    for told in (trials.fell, trials.fell_in_training, trials.overfit, trials.noise):
        assert told(seen) == told(alone)
    assert trials.fell_in_training(seen)
    assert trials.overfit(trials_of((1.0, 1.9), curves=curves, error=0.01)) > 0.1
    broken = trials_of((2.0, None), curves=[falling(2.0), (*falling(1.0)[:-1], NAN)])
    assert not trials.fell(broken)


def test_a_loss_on_examples_has_fallen_by_five_halves_of_its_error():
    flat = [falling(2.0)] * 2  # batches differ by .05
    for drop, error, fallen in (
        (0.026, 0.01, True),
        (0.024, 0.01, False),
        (0.02, 1e-6, True),
        (0.01, 1e-6, False),  # of no account beside the noise of a batch
        (0.02, 0.0, True),  # no error at all is not an error that is not known
    ):
        record = trials_of((2 - drop, 2.0), curves=flat, error=error)
        assert trials.fell(record) is fallen
    assert trials.fell(trials_of((2.0, 1.9), curves=flat, error=0.01))
    assert not trials.fell(trials_of((2.0, 2.0), curves=flat, error=0.0))
    assert not trials.fell(trials_of((2.0, 1.97), curves=flat, error=0.005), least=0.035)


def test_a_share_of_the_untrained_loss_is_enough_beside_large_outliers():
    """Three in a hundred of it, where the noise of a batch is sixteen times as large."""
    heavy = level(1.0)
    for drop, fallen in ((0.061, True), (0.059, False)):
        for least in (0.0, 3.0):
            record = trials_of((2 - drop, 2.0), curves=[heavy] * 2, error=0.001)
            assert trials.fell(record, least) is fallen


def test_where_no_error_is_known_a_batchs_noise_stands_in_for_it():
    flat = level()
    five = 5 * np.std(flat[-30:], ddof=1)
    for drop, fallen in ((1.01 * five, True), (0.99 * five, False)):
        assert trials.fell(trials_of((2 - drop, 2.0), curves=[flat] * 2)) is fallen


@pytest.mark.parametrize("rising", [False, True])
def test_training_and_validation_losses_show_a_descent_together(rising):
    """Their standard scores add up to 2.5 · √2: here some 3 of the training losses, or below 0."""
    loss = np.array(level(0.3))
    loss[:9] += -0.35 if rising else 0.35
    welch = ttest_ind(loss[:9], loss[-30:], equal_var=False).statistic
    assert welch < 0 if rising else 2 < welch < 4
    curve = tuple(loss.tolist())
    needed = 2.5 if rising else 2.5 * math.sqrt(2) - welch
    for score, fallen in ((needed + 0.05, True), (needed - 0.05, False)):
        record = trials_of((2 - 0.2 * score, 2.0), curves=[curve] * 2, error=0.2)
        assert not trials.fell_in_training(record)
        assert trials.fell(record) is fallen


def test_a_constant_loss_has_not_fallen_by_a_rounding():
    same = [(1000.0,) * 90] * 2
    for drop, fallen in ((0.001, False), (0.01, True)):
        ends = (1000 - drop, 1000.0)
        record = trials_of(ends, curves=same, error=0.0, untrained_loss=1000.0)
        assert trials.fell(record) is fallen


def test_a_descent_is_seen_beside_a_trial_that_diverged():
    """The error is that of its own descent, which needs no other trial to compare with."""
    up = (*np.geomspace(2.07, 1e6, 30).tolist(), math.inf)
    record = trials_of((1.77, None), curves=[level(0.3), up], untrained_loss=2.07)
    assert not trials.fell_in_training(record)
    lower, higher = record.candidates
    for error, fallen in ((0.11, True), (0.13, False)):
        # the only one to end is the best, and differs from itself by 0
        lower = replace(lower, standard_error=0.0, descent_error=error)
        assert trials.fell(replace(record, candidates=(lower, higher))) is fallen


def test_one_that_fell_is_enough():
    flat, fallen = falling(2.0), falling(1.0)
    for curves, expected in (
        ((flat, flat), False),
        ((fallen, flat), True),
        ((flat, fallen), True),
        ((flat, tuple(reversed(fallen))), False),  # it rose
        ((falling(1.0, steps=9), flat), False),  # too few to say
        ((falling(1.0, steps=10), flat), True),
    ):
        assert trials.fell(trials_of((2.0, 2.0), curves=curves)) is expected


@given(st.integers(0, 10_000), st.floats(0, 0.2), st.integers(12, 90))
def test_to_have_fallen_is_five_of_welchs_standard_errors(seed, drop, steps):
    rng = np.random.default_rng(seed)
    loss = 2 + 0.05 * rng.normal(size=steps) - drop * np.linspace(0, 1, steps)
    before, after = loss[: max(2, steps // 10)], loss[-(steps // 3) :]
    statistic = ttest_ind(before, after, equal_var=False).statistic
    # one value, and a sample with the same variance
    alone = ttest_ind_from_stats(loss[0], 0, 1, after.mean(), after.std(ddof=1), after.size)
    fallen = statistic > 5 or (after.size >= 10 and alone.statistic > 5)
    record = trials_of((2.0, 2.0), curves=[tuple(loss.tolist()), (2.0,) * 20])
    assert trials.fell(record) == fallen


@pytest.mark.parametrize("pace", [0.3, 1.0, 3.0, 10.0])
def test_however_fast_it_fell(pace):
    """One that fell within its first tenth has no level there to compare with."""
    rng = np.random.default_rng(0)
    loss = 0.05 + np.exp(-np.arange(90) / pace) + 0.03 * rng.normal(size=90)
    assert trials.fell(trials_of((2.0, 2.0), curves=[tuple(loss.tolist()), (2.0,) * 90]))


def test_noise_alone_has_hardly_ever_fallen():
    rng = np.random.default_rng(1)
    flat = 2 + 0.3 * rng.normal(size=(2000, 90))
    found = [
        trials.fell(trials_of((2.0, 2.0), curves=[tuple(one.tolist()), (2.0,) * 90]))
        for one in flat
    ]
    assert sum(found) <= 2


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(None, 1), (10, 1), (300, 1), (300 * HALF, 0.5), (3000, 0), (100_000, 0)],
)
def test_they_count_less_the_longer_the_training(steps, expected):
    assert trials.weight(steps) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("decades", "overfit", "share", "mean"),
    [
        # the line −.1 + .75 · position − .5 · overfitting
        (0.0, 0.0, 1.0, -2.1),
        (1.0, 0.0, 1.0, -2 + 0.65),
        (-1.0, 0.0, 1.0, -2 - 0.85),
        (-1.0, 0.8, 1.0, -2 - 1.25),
        # overfitting counts however long the training
        (1.0, 0.8, 0.5, -2 + 0.5 * 0.65 - 0.4),
        (1.0, 0.8, 0.0, -2 - 0.4),
    ],
)
def test_moved_by_hand(decades, overfit, share, mean):
    found = trials.correct(Estimate(-2.0, 0.4, "adamw", 1.0), decades, overfit, share, ROUND)
    assert (found.mean, found.spread, found.conflict) == pytest.approx((mean, 0.4, 1.0))


def test_the_better_trial_shows_the_way():
    """With the constants of this version."""
    at = Estimate(-2.0, 0.4, "adamw")
    lower, middle, higher = (
        trials.correct(at, decades, 0.0, 1.0).mean for decades in (-0.5, 0, 0.5)
    )
    assert lower < middle < higher
    assert lower < -2 < higher
