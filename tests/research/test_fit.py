"""Fitting the suggestion's constants: what is planted comes out, and no task judges itself."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.regret import cells, grid
from lrtool.curve import constants as c
from lrtool.curve import trials
from lrtool.curve.combine import estimate
from research import cross_validation, fit, record

SMALL = [
    cell
    for cell in cells.DEVELOPMENT
    if cell.task in {"cancer", "friedman1", "tabular"} and cell.steps == 300
]
LENGTHS = [
    cell
    for cell in cells.DEVELOPMENT
    if cell.steps == 3000 and cell.task in {"friedman1_large", "tabular_large"}
]
OFFSETS = {"minimum": -1.0, "rise": -1.5, "divergence": -2.0, "critical": -1.2, "ratio": -0.5}
NOISE = {"minimum": 0.2, "rise": 0.3, "divergence": 0.1, "critical": 0.4, "ratio": 0.6}


def _grid(best):
    """A cell whose regret is below .02 within a tenth of a decade of `best`."""
    log_lr = best + np.arange(-8, 9) / 4
    loss = np.minimum(0.2 * np.abs(log_lr - best) / 1.0, 1.0)
    return grid.Grid(log_lr, np.tile(loss, (5, 1)), np.ones(5))


def _rows(chosen, *, odd=None, seed=0):
    """Rows with planted offsets; those of the task `odd` have others."""
    rng = np.random.default_rng(seed)
    found = []
    for cell in chosen:
        best = rng.uniform(-4, -1)
        for finder in "012":
            there = {
                name: best - offset + rng.normal(0, NOISE[name]) - (1.0 if cell.task == odd else 0)
                for name, offset in OFFSETS.items()
            }
            found.append(fit.Row(cell, _grid(best), finder, there))
    return found


def test_planted_offsets_and_spreads_come_out(monkeypatch):
    level = dict.fromkeys(("sgd", "sgd_momentum", "adamw", "adagrad", "lion"), 0.0)
    monkeypatch.setattr(fit, "held", lambda _: level)
    many = [row for seed in range(8) for row in _rows(SMALL, seed=seed)]
    known = fit.constants(many, {})
    for name, offset in OFFSETS.items():
        assert known.offsets[name]["pooled"] == pytest.approx(offset, abs=0.1)
        assert known.spreads["optimizer"][name] == pytest.approx(NOISE[name], rel=0.15)
    assert np.abs(np.array(known.correlation) - np.eye(5)).max() < 0.15


def test_no_task_is_judged_by_constants_that_have_seen_it():
    found = _rows(SMALL + LENGTHS, odd="cancer")
    estimates = cross_validation.left_out(found, {})
    others = fit.constants([row for row in found if row.base != "cancer"], {})
    for row, left_out in zip(found, estimates, strict=True):
        if row.base == "cancer":
            expected = estimate(
                row.found,
                per_decade=c.PER_DECADE,
                optimizer=row.cell.optimizer,
                family=None,
                level=row.level,
                steps=300,
                constants=others,
            )
            assert left_out == expected
    error = np.array([each.mean - row.best for each, row in zip(estimates, found, strict=True)])
    odd = np.array([row.base == "cancer" for row in found])
    assert error[odd].mean() < -0.5  # its own offsets would have shown
    # a variant is its task: neither judges the other
    assert {row.base for row in found} == {"cancer", "friedman1", "tabular"}


def test_regret_and_distance_are_those_of_the_rate_that_is_named():
    row = fit.Row(SMALL[0], _grid(-2.0), "0", {})
    # the window is −2.1 to −1.9 on a grid of fiftieths
    regrets, away = fit.judge([row] * 3, np.array([-2.0, -2.5, -1.625]))
    assert regrets == pytest.approx([0.0, 0.1, 0.075])
    assert away == pytest.approx([0.0, 0.4, 0.275], abs=0.03)


def test_confident_is_what_the_noise_allows():
    noise = np.arange(100) / 1000
    regrets = np.where(noise < 0.05, 0.0, 0.2)
    # 50 of up to 52 are small, .96; of 53 no more than .94
    assert fit.certain(regrets, noise) == pytest.approx(0.051)
    assert fit.certain(regrets + 0.1, noise) == 0
    shuffled = np.random.default_rng(0).permutation(100)
    assert fit.certain(regrets[shuffled], noise[shuffled]) == pytest.approx(0.051)


def test_intervals_above_that_noise_reach_the_window_in_80_of_100():
    noise = np.full(1000, 0.05)
    away = np.linspace(0, 0.25, 1000)  # 80 of 100 are within .2, four times the noise
    assert fit.half_width(away, noise, 0.04) == pytest.approx(4.0)
    # what is below does not count
    more = np.append(away, np.full(500, 0.25)), np.append(noise, np.full(500, 0.01))
    assert fit.half_width(*more, 0.04) == pytest.approx(4.0)
    assert fit.half_width(away * 0 + 9, noise, 0.04) == 10  # no interval is as wide


def test_a_race_that_compared_nothing_names_no_rate(tmp_path):
    rows = [fit.Row(SMALL[0], _grid(-2.0), seed, {}) for seed in "01"]
    path = record.races_file(SMALL[0], tmp_path)
    path.parent.mkdir()
    path.write_text(
        json.dumps({"0": {"named": -2.5, "noise": 0.02}, "1": {"named": None, "noise": 1.0}})
    )
    rates, noise = fit.raced(rows, tmp_path)
    assert rates[0] == -2.5
    assert math.isnan(rates[1])
    assert noise.tolist() == [0.02, 1.0]


def test_a_constant_schedule_by_optimizer_and_what_was_not_trained_takes_its_familys():
    moved = {"adamw": -0.5, "lion": -0.3, "sgd": -0.2, "sgd_momentum": -0.1, "adagrad": -0.4}
    rows = [
        fit.Row(
            cell,
            _grid(-2.0 + (moved[cell.optimizer] if cell.schedule == "constant" else 0.0)),
            "0",
            {},
        )
        for cell in cells.DEVELOPMENT
        if cell.steps == 300
    ]
    constant = fit.held(rows)
    assert constant["adaptive"] == pytest.approx(-0.4, abs=0.02)
    assert constant["proportional"] == pytest.approx(-0.15, abs=0.02)
    assert constant["pooled"] == pytest.approx(-0.3, abs=0.02)
    # 10 tasks of its own against 2 of its family's
    assert constant["lion"] == pytest.approx((10 * -0.3 + 2 * -0.4) / 12, abs=0.02)


@pytest.mark.parametrize(
    ("schedule", "level"),
    [("constant", 1.0), ("cosine", 0.5), ("linear", 0.5), ("one_cycle", 0.51), ("wsd", 0.84)],
)
def test_the_mean_of_each_schedule(schedule, level):
    cell = cells.Cell("cancer", "adamw", schedule, 300)
    assert fit.Row(cell, _grid(-2.0), "0", {}).level == pytest.approx(level, abs=0.02)


def test_trials_count_by_length_but_for_those_without_a_curve():
    longer = cells.Cell("friedman1_large", "adamw", "cosine", 3000)
    for found, steps, share in (
        ({"minimum": -1.0}, 300, 1),
        ({"minimum": -1.0, "ratio": -1.0}, 3000, 0),
        ({"ratio": -1.0}, 3000, 1),
    ):
        cell = cells.Cell(longer.task, longer.optimizer, longer.schedule, steps)
        assert fit.Row(cell, _grid(-2.0), "0", found).share == share


def test_a_trial_between_two_recorded_ones_is_interpolated(tmp_path):
    """Losses fall to 1 at the middle of a lattice, and to 2 at its ends, half a decade away."""
    path = record.trials_file(SMALL[0], tmp_path)
    path.parent.mkdir()
    ends = {-2.5: 1.5, -2.0: 1.0, -1.5: 1.5, -1.0: 2.0, -0.5: None}
    recorded = [
        {
            "lr": lr,
            "final": end,
            "error": None,
            "descent_error": 0.01,
            "outcome": "lost",
            "loss": [3.0] * 9 + [end] * 81 if end else [3.0, 1e9],
        }
        for lr, end in ends.items()
    ]
    seen = {"centre": -1.5, "steps": 90, "untrained": 3.0, "examples": 100}
    path.write_text(json.dumps({"0": {**seen, "candidates": recorded}}))
    row = fit.Row(SMALL[0], _grid(-2.0), "0", {"minimum": -1.0})
    (told,) = fit.tried([row], np.array([-1.6]), tmp_path)
    # at −2 and −1.2: 1 and 1.8 of a descent of 2, so a third one at −2.5 of 1.5
    expected = trials.position([-2.0, -1.2, -2.5], [1.0, 1.8, 1.5], 3.0) + 1.6
    assert told == fit.Told(pytest.approx(expected), 0.0, pytest.approx(0.01 / 2), full_trial=False)
    # known to a tenth of its descent: a full trial where the higher rate is the better one
    noisy = [each | {"descent_error": 0.2} for each in recorded]
    path.write_text(json.dumps({"0": {**seen, "candidates": noisy}}))
    above, below = fit.tried([row, row], np.array([-1.6, -2.4]), tmp_path)
    assert (above.position < 0, above.full_trial) == (True, False)
    assert (below.position > 0, below.full_trial) == (True, True)


def test_the_line_of_the_trials_is_fitted():
    rng = np.random.default_rng(3)
    decades = rng.uniform(-1, 1, 400)
    error = 0.8 * decades - 0.1 + rng.normal(0, 0.2, 400)
    rows = [fit.Row(SMALL[0], _grid(-2.0), "0", {})] * 400
    overfitting = rng.uniform(0, 1, 400)
    error -= 0.4 * overfitting
    told = [
        fit.Told(at, over, 0.01, full_trial=False)
        for at, over in zip(decades, overfitting, strict=True)
    ]
    told[:50] = [None] * 50  # without trials
    error[:50] = 9.0
    known = fit.with_trials(c.fitted(), rows, rows[0].best - error, told)
    assert known.trial_overfit == pytest.approx(-0.4, abs=0.08)
    assert known.trial_gain == pytest.approx(0.8, abs=0.05)
    assert known.trial_shift[SMALL[0].optimizer] == pytest.approx(-0.1, abs=0.05)


def test_the_shift_of_trials_is_each_optimizers_own():
    """0.2 decades apart; the lone task of each draws it by two thirds towards its family's."""
    rng = np.random.default_rng(4)
    rows, error = [], []
    for optimizer, shift in (("adamw", 0.1), ("lion", -0.1)):
        cell = replace(SMALL[0], optimizer=optimizer)
        rows += [fit.Row(cell, _grid(-2.0), "0", {})] * 200
        error += (shift + rng.normal(0, 0.01, 200)).tolist()
    told = [fit.Told(position, 0.0, 0.01, full_trial=False) for position in rng.uniform(-1, 1, 400)]
    before = rows[0].best - np.array(error)
    shifts = fit.with_trials(c.fitted(), rows, before, told).trial_shift
    assert shifts["adamw"] - shifts["lion"] == pytest.approx(0.2 / 3, abs=0.01)
    assert shifts["adaptive"] == pytest.approx(0, abs=0.01)


def test_a_full_trial_is_read_where_one_is_due(tmp_path):
    path = record.full_trials_file(SMALL[0], tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"0": {"centre": -2.0, "lowering": -0.3}}))
    row = fit.Row(SMALL[0], _grid(-2.0), "0", {})
    due, none = (fit.Told(0.0, 0.3, 0.01, full_trial=due) for due in (True, False))
    rates = np.array([-1.9, -2.5, -1.9, -1.9])
    after = fit.tried_as_a_whole([row] * 4, rates, [due, due, none, None], tmp_path)
    assert after.tolist() == [-2.3, -2.5, -1.9, -1.9]
    assert rates[0] == -1.9, "what was given is left as it was"


def test_a_verdict_by_a_limit_that_has_not_seen_the_task():
    """Only b fails. Its own limit is that of tasks that never do; theirs ends where b stands."""
    told = [fit.Told(0.0, 0.0, noise, full_trial=False) for noise in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    regrets = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    has = np.array([True] * 6 + [False])  # the last one has no trials
    sure = cross_validation.sure_without([*"aabbcc", "d"], has, regrets, [*told, None])
    assert sure.tolist() == [False, False, True, True, False, False, True]
