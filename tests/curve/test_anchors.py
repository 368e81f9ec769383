import numpy as np
import pytest
from synthetic_sweeps import loss_at, rates, recorded, sweep

from lrtool.curve.anchors import locate, rules, suggestions
from lrtool.curve.smooth import fit


def found(*sweeps):
    fitted = fit(sweeps)
    return locate(fitted, fitted.loss)


def test_anchors_of_a_clean_curve():
    # landmarks by brute force on the formula itself, without smoothing
    fine = np.linspace(-7, 1, 80_001)
    truth = loss_at(fine)
    bottom = int(truth.argmin())
    descent = 2.3 - truth[bottom]
    start = fine[np.flatnonzero(truth[:bottom] > 2.3 - 0.1 * descent)[-1]]
    steepest = fine[np.argmin(np.gradient(truth, fine)[:bottom])]
    basin = fine[truth <= truth[bottom] + 0.05 * descent]
    minimum = (basin[0] + basin[-1]) / 2
    diverges = fine[bottom + np.flatnonzero(truth[bottom:] > 2.3)[0]]
    rises = fine[bottom + np.flatnonzero(truth[bottom:] > truth[bottom] + descent / 2)[0]]
    anchors = found(*(sweep(k, noise=0.001) for k in range(3)))
    assert anchors.initial == pytest.approx(2.3, abs=0.01)
    assert anchors.descent == pytest.approx(descent, abs=0.03)
    assert anchors.start == pytest.approx(start, abs=0.1)
    assert anchors.steepest == pytest.approx(steepest, abs=0.1)
    assert anchors.minimum == pytest.approx(minimum, abs=0.1)
    assert anchors.valley == pytest.approx((start + minimum) / 2, abs=0.1)
    assert anchors.divergence == pytest.approx(diverges, abs=0.1)
    assert anchors.rise == pytest.approx(rises, abs=0.1)
    assert anchors.minimum < anchors.rise < anchors.divergence


@pytest.mark.parametrize("move", [3.0, -3.0])
def test_anchors_move_with_the_rates(move):
    here = found(*(sweep(k) for k in range(2)))
    lr = rates() * 10**move
    there = found(*(sweep(k, lr=lr, descent=-3 + move, divergence=-0.5 + move) for k in range(2)))
    for name in ("start", "steepest", "valley", "minimum", "rise", "divergence"):
        assert getattr(there, name) == pytest.approx(getattr(here, name) + move, abs=1e-6)


def test_without_rise_and_divergence_these_anchors_are_censored():
    anchors = found(sweep(0, lr=rates(end=0.03)))
    assert (anchors.rise, anchors.divergence) == (None, None)


def test_a_rise_to_less_than_the_initial_loss_is_no_divergence():
    anchors = found(sweep(0, lr=rates(end=0.6), divergence=-0.25))
    assert anchors.divergence is None
    assert anchors.minimum < anchors.rise < np.log10(0.6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_curve_cut_by_nan_diverges_where_it_ends(value):
    one = sweep(0, lr=rates(end=0.03))
    cut = recorded(one.lr, [*one.loss[:-1], value])
    assert cut.stop_reason in {"nan", "inf"}
    assert found(cut).divergence == pytest.approx(np.log10(one.lr[-3]))


@pytest.mark.parametrize("seed", range(30))
def test_noise_alone_has_no_anchors(seed):
    anchors = found(sweep(seed, curve=lambda u: np.full_like(u, 2.3)))
    assert anchors.descent == 0
    assert anchors.minimum is None
    assert anchors.divergence is None


def test_an_exactly_flat_curve_has_no_anchors_however_large():
    for level in (2.3, 1e6, -10.0, 0.0):
        anchors = found(recorded(rates(), np.full(200, level)))
        assert anchors.descent == 0
        assert anchors.divergence is None


def test_a_plateau_then_divergence():
    anchors = found(sweep(0, curve=lambda u: 2.3 + np.exp(np.clip((u + 0.5) / 0.12, -50, 12))))
    assert (anchors.minimum, anchors.rise) == (None, None)
    assert anchors.divergence == pytest.approx(-0.9, abs=0.3)  # .03, the noise, above 2.3


def test_rules_in_log_lr():
    fitted = fit([sweep(k) for k in range(3)])
    anchors, rates_of = locate(fitted, fitted.loss), rules(fitted, fitted.loss)
    assert rates_of["valley"] == (anchors.start + anchors.minimum) / 2
    assert rates_of["steep"] == anchors.steepest
    assert rates_of["minimum"] == anchors.minimum - 1
    # the slide rule by its definition: the slopes at both ends of the interval agree, and they do
    # not at any interval further right
    slope = np.gradient(fitted.loss, fitted.log_lr)
    lower = np.linspace(rates_of["slide"] + 0.06, fitted.log_lr[-1] - 1.2, 50)
    apart = np.interp(lower + 1.2, fitted.log_lr, slope) - np.interp(lower, fitted.log_lr, slope)
    assert np.all(np.abs(apart) > 0.03 * anchors.descent)
    named = suggestions(fitted)
    assert {name: np.log10(c.lr) for name, c in named.items()} == pytest.approx(rates_of)
    assert all(candidate.reason is None for candidate in named.values())


def test_rules_without_a_descent_say_why():
    named = suggestions(fit([recorded(rates(), np.full(200, 1.0))]))
    assert set(named) == {"valley", "slide", "steep", "minimum"}
    for candidate in named.values():
        assert candidate.lr is None
        assert candidate.reason == "the loss never fell clearly below its initial value"


def test_the_slide_rule_needs_room():
    fitted = fit([sweep(0, lr=rates(1e-3, 1e-2, 40), descent=-2.5)])
    assert suggestions(fitted)["slide"].lr is None
    assert suggestions(fitted)["slide"].reason == (
        "the slopes at the ends of an interval of 1.2 decades never agree"
    )
