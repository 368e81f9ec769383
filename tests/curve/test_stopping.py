import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sweeps import loss_at, rates

from lrtool.curve.stopping import find_stop

NAN, INF = float("nan"), float("inf")


def diverging(seed=0, noise=0.03):
    clean = loss_at(np.log10(rates()))
    return clean + noise * np.random.default_rng(seed).normal(size=clean.size)


def test_nothing_to_stop():
    assert find_stop([]) is None
    assert find_stop([1.0]) is None
    assert find_stop([2.0] * 100) is None
    assert find_stop(2.3 + 0.5 * np.random.default_rng(0).normal(size=5000)) is None
    assert find_stop(np.linspace(3, 1, 100)) is None


@pytest.mark.parametrize(
    ("value", "reason"), [(NAN, "nan"), (INF, "inf"), (-INF, "inf")], ids=["nan", "inf", "-inf"]
)
@pytest.mark.parametrize("at", [0, 1, 51])
def test_stops_at_the_first_loss_that_is_not_finite(value, reason, at):
    losses = np.linspace(2.0, 1.0, 100)
    losses[at] = value
    losses[at + 1 :] = NAN
    assert find_stop(losses) == (at, reason)


def test_divergence_by_hand():
    # initial 2, best 1 (three in a row at most 1): the ceiling is 3, and the third loss in a row
    # above it is at index 12; the steps between batches are too small to raise the ceiling
    losses = [2, 2, 2, 2, 2, 1, 1, 1, 2.9, 3.1, 3.0, 3.1, 3.2, 3.3, 3.4]
    assert find_stop(losses) == (13, "diverged")
    losses[10] = 3.05
    assert find_stop(losses) == (11, "diverged")


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_gets_above_its_initial_loss_before_it_stops(seed):
    losses = diverging(seed)
    index, reason = find_stop(losses)
    assert reason == "diverged"
    assert losses[: index + 1].max() > 2.3 + 1.0
    assert abs(np.log10(rates()[index]) - -0.4) < 0.25


def test_spikes_do_not_stop():
    losses = diverging()
    index, _ = find_stop(losses)
    for at in (0, 3, 20, 90, 130):
        spiked = losses.copy()
        spiked[at] = 1e4
        assert find_stop(spiked) == (index, "diverged"), at
    spiked = losses.copy()
    spiked[[90, 91]] = 1e4  # two wild batches in a row
    assert find_stop(spiked) == (index, "diverged")


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e3, 0), (1, 1e3), (1, -12.3), (1e-3, 0), (1e3, -1e4), (1e-3, -10)]
)
@pytest.mark.parametrize("seed", range(3))
def test_scale_and_offset_do_not_matter(scale, offset, seed):
    losses = diverging(seed)
    assert find_stop(scale * losses + offset) == find_stop(losses)


def silent_at_first(seed, *, momentum=0.9, batch=8):
    """Sweep a logistic regression from weights of zero: at first all its losses are log 2."""
    rng = np.random.default_rng(seed)
    weights, velocity, losses = np.zeros(100), np.zeros(100), []
    truth = rng.normal(size=100)
    for rate in rates():
        inputs = rng.normal(size=(batch, 100))
        wrong = rng.random(batch) < 0.35
        signs = np.where(wrong, -1, 1) * np.sign(inputs @ truth)
        margins = signs * (inputs @ weights)
        losses.append(float(np.logaddexp(0, -margins).mean()))
        share = signs / (1 + np.exp(np.minimum(margins, 500)))
        velocity = momentum * velocity + (share[:, None] * inputs).mean(axis=0)
        weights = weights + rate * velocity
    return losses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("offset", [0, 100])
def test_noise_that_grows_from_nothing_is_no_divergence(momentum, offset):
    stopped = [
        rates()[stop[0]] if (stop := find_stop(offset + losses)) else math.inf
        for losses in (np.array(silent_at_first(seed, momentum=momentum)) for seed in range(40))
    ]
    assert min(stopped) > 0.01
    assert np.median(stopped) > (0.03 if momentum else 0.3)


def test_losses_near_the_largest_number_stop_without_a_warning():
    assert find_stop([1.0] * 5 + [1e300] * 5) == (7, "diverged")
    assert find_stop([1.0] * 5 + [1.7e308, -1.7e308] + [1.7e308] * 40) is None  # their jump is inf


def test_negative_losses_that_fall_go_on():
    assert find_stop(np.linspace(-10, -50, 200)) is None
    assert find_stop(np.full(100, -10.0)) is None


def test_diverging_at_once():
    index, reason = find_stop([2.3, 3, 9, 80, 1e3, 1e4, 1e5, 1e7, 1e9, 1e12])
    assert reason == "diverged"
    assert index <= 8


def test_losses_near_the_largest_float():
    assert find_stop([1.0, 1e308, -1e308, 1e308, 1e308, 1e308, 1e308, 1e308, INF]) is not None


def test_skipped_steps_are_neither_infinite_nor_diverged():
    losses = list(np.linspace(3, 1, 60))
    skipped = [False] * 60
    for at, value in ((0, INF), (10, NAN), (30, INF), (31, 1e9), (32, 1e9), (33, 1e9)):
        losses[at], skipped[at] = value, True
    assert find_stop(losses, skipped) is None
    losses[40] = NAN  # not skipped: the index is that of the step, skipped ones counted
    assert find_stop(losses, skipped) == (40, "nan")
    late = [*losses[:40], *([50.0] * 10)]
    index, reason = find_stop(late, skipped[:50])
    assert (index, reason) == (42, "diverged")


finite = st.floats(-1e6, 1e6)
anything = st.one_of(finite, finite, finite, st.sampled_from([NAN, INF, -INF, 1e30]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(anything, st.booleans()), max_size=40), st.data())
def test_every_prefix_that_holds_the_step_gives_the_same_answer(steps, data):
    losses = [loss for loss, _ in steps]
    skipped = [skip for _, skip in steps] if data.draw(st.booleans()) else None
    whole = find_stop(losses, skipped)
    for length in range(len(losses) + 1):
        part = find_stop(losses[:length], None if skipped is None else skipped[:length])
        assert part == (whole if whole is not None and length > whole[0] else None)


@pytest.mark.parametrize("every", [1, 7, 32, 1000])
def test_the_answer_does_not_depend_on_how_often_it_is_asked(every):
    losses = diverging(1)
    asked = (find_stop(losses[:n]) for n in [*range(every, losses.size, every), losses.size])
    assert next(found for found in asked if found) == find_stop(losses)


def test_a_forward_pass_that_overflows_for_good_has_diverged():
    losses = [2.0 - i / 100 for i in range(60)] + [math.nan] * 40
    skipped = [math.isnan(loss) for loss in losses]
    assert find_stop(losses, skipped) == (67, "diverged")  # the eighth in a row
    assert find_stop(losses[:68], skipped[:68]) == (67, "diverged")
    assert find_stop(losses[:67], skipped[:67]) is None
    # overflowing gradients of finite losses are what a scaler is there for
    assert find_stop([2.0] * 50, [i < 20 for i in range(50)]) is None
