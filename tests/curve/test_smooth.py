import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from synthetic_sweeps import INITIAL, loss_at, rates, recorded, sweep

from lrtool.curve.anchors import locate
from lrtool.curve.smooth import _centred_median, effects, fit, local_quadratic
from lrtool.report.records import Sweep


def at(found, log_lr):
    return np.interp(log_lr, found.log_lr, found.loss)


def test_a_loss_belongs_to_the_rate_of_the_update_before_it():
    log_lr, loss = effects(recorded([1e-3, 1e-2, 1e-1], [5.0, 4.0, 3.0]))
    np.testing.assert_allclose(log_lr, [-3, -2])
    np.testing.assert_allclose(loss, [4, 3])


def test_skipped_and_infinite_steps_are_left_out():
    one = Sweep(
        seed=0,
        lr=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        loss=(5.0, 4.0, 9.0, 3.0, float("nan")),
        skipped=(2,),
        stop_reason="nan",
    )
    log_lr, loss = effects(one)
    np.testing.assert_allclose(log_lr, [-5])  # -4 led to a skipped step, -3 made no update
    np.testing.assert_allclose(loss, [4])


def test_local_quadratic_reproduces_quadratics_and_matches_least_squares():
    x = np.sort(np.random.default_rng(0).uniform(-3, 0, 60))
    grid = np.linspace(-2.9, -0.1, 15)
    quadratic = 2 - 3 * x + 0.5 * x**2
    smoother = local_quadratic(x, grid, 0.8)
    np.testing.assert_allclose(smoother @ quadratic, 2 - 3 * grid + 0.5 * grid**2, atol=1e-7)
    y = np.sin(5 * x)
    weight = np.clip(1 - np.abs((x - grid[7]) / 0.8) ** 3, 0, None) ** 3
    expected = np.polyval(np.polyfit(x, y, 2, w=np.sqrt(weight)), grid[7])
    np.testing.assert_allclose((smoother @ y)[7], expected, atol=1e-7)


def test_no_lag():
    log_lr = np.log10(rates(steps=161))
    valley = 1 + np.minimum(0.5 * (log_lr + 2.5) ** 2, 2.0)  # symmetric, minimum at 10^-2.5
    loss = np.append(3.0, valley[:-1])
    found = fit([recorded(10**log_lr, loss, stop=False)])
    assert found.log_lr[np.argmin(found.loss)] == pytest.approx(-2.5, abs=0.03)
    ema, value = [], loss[0]
    for x in loss:  # what the peers smooth with lags by decades on the same curve
        value = 0.98 * value + 0.02 * x
        ema.append(value)
    assert log_lr[np.argmin(ema)] - -2.5 > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_close_to_the_truth_and_inside_the_band(seed):
    found = fit([sweep(10 * seed + k, noise=0.1) for k in range(3)])
    inside = (found.log_lr > -6.5) & (found.log_lr < -1.5)
    truth = loss_at(found.log_lr)
    assert np.abs(found.loss - truth)[inside].max() < 0.12
    curve = found.curve
    covered = (np.array(curve.low) <= truth) & (truth <= np.array(curve.high))
    assert covered[inside].mean() > 0.6
    assert all(low <= x <= high for low, x, high in zip(curve.low, curve.loss, curve.high))  # noqa: B905  (a Curve has one length)


def test_noise_widens_the_band_and_sweeps_narrow_it():
    def width(found):
        curve = found.curve
        return np.median(np.array(curve.high) - np.array(curve.low))

    calm, wild = fit([sweep(0, noise=0.02)]), fit([sweep(0, noise=0.2)])
    pooled = fit([sweep(k, noise=0.2) for k in range(6)])
    assert width(calm) < width(pooled) < width(wild)


@given(st.lists(st.floats(-3e38, 3e38), min_size=1, max_size=40))
def test_the_centred_median_is_scipys(loss):
    expected = median_filter(np.array(loss), size=7, mode="nearest")
    np.testing.assert_array_equal(_centred_median(np.array(loss)), expected, strict=True)


@pytest.mark.parametrize("at_step", [5, 60, 120, 150])
def test_a_spike_leaves_no_trace(at_step):
    clean = sweep(0)
    loss = list(clean.loss)
    loss[at_step] += 40
    spiked = fit([Sweep(0, clean.lr, tuple(loss), clean.skipped, clean.stop_reason)])
    np.testing.assert_allclose(spiked.loss, fit([clean]).loss, atol=0.06)


def test_a_sweep_that_diverged_counts_beyond_its_end():
    early, late = sweep(0, divergence=-1.5), sweep(1, divergence=-0.5)
    assert len(early.lr) < len(late.lr)
    both = fit([early, late])
    assert both.log_lr[-1] == pytest.approx(np.log10(late.lr[-2]))
    between = at(both, -1.0)  # late is still low, early is at the ceiling: the mean of the two
    assert between == pytest.approx((at(fit([late]), -1.0) + both.ceiling) / 2, abs=0.15)
    # an interrupted sweep says nothing about the rates that it did not reach
    short = Sweep(2, late.lr[:120], late.loss[:120], late.skipped, "interrupted")
    assert at(fit([short, late]), -1.0) == pytest.approx(at(fit([late]), -1.0), abs=0.1)


def test_the_order_of_sweeps_does_not_matter_and_fits_repeat():
    sweeps = [sweep(k) for k in range(3)]
    first, second = fit(sweeps), fit(sweeps[::-1])
    np.testing.assert_array_equal(first.loss, second.loss)
    np.testing.assert_array_equal(first.replicates, second.replicates)


@pytest.mark.parametrize(("scale", "offset"), [(1e3, 0.0), (1.0, 1e3), (0.5, -10.0)])
def test_fit_and_band_follow_scale_and_offset(scale, offset):
    plain = fit([sweep(k) for k in range(2)])
    moved = fit([sweep(k, scale=scale, offset=offset) for k in range(2)])
    np.testing.assert_allclose(moved.loss, scale * plain.loss + offset, rtol=1e-9)
    np.testing.assert_allclose(moved.replicates, scale * plain.replicates + offset, rtol=1e-6)


def test_linear_rates_leave_a_gap_undrawn():
    found = fit([sweep(0, lr=np.linspace(1e-7, 0.5, 300))])
    near = np.diff(found.log_lr)
    assert near.max() > 2  # nothing between 1e-7 and the second rate, .0017
    assert np.all(np.abs(found.loss) < 10)
    assert at(found, -1.5) == pytest.approx(loss_at(-1.5), abs=0.05)


def test_sweeps_of_ranges_apart_are_not_joined():
    found = fit([sweep(0, lr=rates(1e-7, 1e-4, 80)), sweep(1, lr=rates(1e-3, 10, 80))])
    assert np.isfinite(found.loss).all()
    assert not np.any((found.log_lr > -3.99) & (found.log_lr < -3.01))


def test_a_long_sweep_is_averaged():
    found = fit([sweep(0, noise=0.3, lr=rates(steps=20_000))])
    inside = (found.log_lr > -6.5) & (found.log_lr < -1.5)
    assert np.abs(found.loss - loss_at(found.log_lr))[inside].max() < 0.05


def test_losses_beyond_float32_count_as_infinite():
    one = sweep(0)
    huge = Sweep(0, one.lr, (*one.loss[:-2], 1e300, -1e200), one.skipped, "diverged")
    shorter = Sweep(0, one.lr[:-2], one.loss[:-2], one.skipped, "diverged")
    np.testing.assert_allclose(fit([huge]).loss, fit([shorter]).loss)
    assert fit([recorded(rates(), np.full(200, 1e308), stop=False)]) is None


def test_too_few_points():
    assert fit([sweep(0, lr=rates(steps=10))]) is None  # nine updates whose effect is seen
    assert fit([sweep(0, lr=rates(steps=11), stop=False)]) is not None


def test_initial_level_is_the_plateau():
    found = fit([sweep(k, noise=0.02) for k in range(3)])
    assert np.median(found.loss[:40]) == pytest.approx(INITIAL, abs=0.01)


def test_steps_without_targets_are_as_if_they_had_not_been_made():
    lr, loss = (0.001, 0.01, 0.1, 1.0, 10.0), (5.0, np.nan, 4.0, 3.0, np.nan)
    sparse = Sweep(0, lr, loss, (), "completed", without_targets=(1, 4))
    log_lr, after = effects(sparse)
    assert log_lr.tolist() == pytest.approx([-3, -1])
    assert after.tolist() == [4.0, 3.0]


def test_a_sweep_may_have_few_steps_in_its_last_decade():
    lr = tuple(10.0 ** np.append(np.linspace(-6, -4, 30), -1.0))
    fitted = fit([Sweep(0, (*lr, 1.0), tuple(np.linspace(3, 2, 32)), (), "completed")])
    assert 0 < fitted.per_decade < 1


def test_outliers_of_heavy_tails_do_not_pass_for_a_descent():
    """The first losses are high by chance: no model learns at a rate of 1e-7."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        loss = 4 + (0.25 * rng.standard_t(1.5, (64, 100)) ** 2).mean(0)
        loss[:4] += 12
        fitted = fit([Sweep(0, tuple(np.geomspace(1e-7, 10, 100)), tuple(loss), (), "completed")])
        found.append(bool(locate(fitted, fitted.loss).descent))
    assert np.mean(found) <= 0.1, found
