"""The best rate from anchors and first update: by hand, and against least squares."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from round_constants import ANCHORS, PRIORS, ROUND

from lrtool.curve.anchors import Anchors
from lrtool.curve.combine import canonical, estimate, knowledge, lengthening, places
from lrtool.report.records import FirstUpdate


def estimated(found, constants=ROUND, **changes):
    arguments = {
        "per_decade": 12.5,
        "optimizer": None,
        "family": None,
        "level": 0.5,
        "steps": 300,
    }
    return estimate(found, constants=constants, **(arguments | changes))


def generalised_least_squares(means, covariance):
    """The mean of equations that all say the same unknown, by ordinary least squares, whitened."""
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    design = whiten @ np.ones((len(means), 1))
    mean = np.linalg.lstsq(design, whiten @ means)[0][0]
    return mean, np.linalg.norm(design) ** -1


def test_places_are_logarithms_by_name():
    anchors = Anchors(2.3, 1.5, minimum=-2.0, rise=None, divergence=-0.5)
    found = places(anchors, FirstUpdate(critical_lr=0.1, ratio_lr=None, steps=1.0))
    assert found == {"minimum": -2.0, "divergence": -0.5, "critical": pytest.approx(-1)}
    assert places(None, FirstUpdate(None, 100.0, 1.0)) == {"ratio": 2.0}
    assert places(None, None) == {}


def test_one_anchor_is_its_place_plus_the_offset():
    found = estimated({"minimum": -2.0})
    assert (found.mean, found.spread, found.conflict) == pytest.approx((-2.6, 0.8, 0))


def with_two(correlation, first=0.3, second=0.6):
    spreads = {"minimum": first, "rise": second}
    matrix = np.eye(5)
    matrix[0, 1] = matrix[1, 0] = correlation
    return replace(
        ROUND,
        spreads={**ROUND.spreads, "pooled": spreads},
        correlation=tuple(map(tuple, matrix)),
    )


@pytest.mark.parametrize(
    ("correlation", "weight", "variance"),
    [
        (0.0, 0.8, 0.072),  # 1/.09 : 1/.36
        (0.25, 0.875, 0.084375),  # (.36 − .045) / (.09 + .36 − .09)
        (0.5, 1.0, 0.09),  # the second one adds nothing
        (0.8, 1.0, 0.09),  # nor here, where its weight would be below 0
    ],
)
def test_two_anchors_by_hand(correlation, weight, variance):
    # −1.4 − .6 = −2, and .1 − 1.1 = −1
    found = estimated({"minimum": -1.4, "rise": 0.1}, with_two(correlation))
    assert found.mean == pytest.approx(-2 * weight - (1 - weight))
    assert found.spread**2 == pytest.approx(variance)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 5),
    optimizer=st.sampled_from([None, "adamw"]),
)
def test_it_is_the_best_linear_unbiased_estimate(*, seed, count, optimizer):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(5, 3))
    covariance = factors @ factors.T + np.diag(rng.uniform(1, 4, 5))
    spread = np.sqrt(np.diag(covariance))
    level = "pooled" if optimizer is None else "optimizer"
    constants = replace(
        ROUND,
        spreads={**ROUND.spreads, level: dict(zip(ANCHORS, spread, strict=True))},
        correlation=tuple(map(tuple, covariance / np.outer(spread, spread))),
    )
    names = [str(name) for name in rng.permutation(ANCHORS)[:count]]
    used = [name for name in ANCHORS if name in names]
    key = "pooled" if optimizer is None else optimizer
    means = [rng.uniform(-2.2, -1.8) for _ in used]
    found = {name: mean - ROUND.offsets[name][key] for name, mean in zip(used, means, strict=True)}
    rows = [ANCHORS.index(name) for name in used]
    part = covariance[np.ix_(rows, rows)]
    combined = estimated(found, constants, optimizer=optimizer)
    assert min(means) - 1e-9 <= combined.mean <= max(means) + 1e-9  # whatever the covariance
    assert combined.spread <= spread[rows].max() + 1e-9
    weights = np.linalg.solve(part, np.ones(len(rows)))
    assume(weights.min() >= 0)
    mean, error = generalised_least_squares(means, part)
    assert combined.mean == pytest.approx(mean)
    assert combined.spread == pytest.approx(error)


@pytest.mark.parametrize("above", [-3.0, 0.9, 1.1, 3.0])
def test_a_first_update_far_above_the_curve_is_left_out(above):
    """The other way round the first update is right."""
    curve = {"divergence": -2 - ROUND.offsets["divergence"]["pooled"]}
    first = {"ratio": -2 + above - ROUND.offsets["ratio"]["pooled"]}
    alone, both = estimated(curve), estimated(curve | first)
    assert (both.mean == alone.mean) == (above > 1)
    # a curve that ends before the loss rises cannot contradict
    falling = {"minimum": -2 - ROUND.offsets["minimum"]["pooled"]}
    cut = estimated(falling | first)
    assert (cut.mean > estimated(falling).mean) == (above > 0)


@pytest.mark.parametrize(("distance", "conflict"), [(1.9, 0), (-1.9, 0), (2.1, 2.1), (-3.0, -3.0)])
def test_a_usual_rate_far_away_is_noted_and_not_followed(distance, conflict):
    alone = PRIORS["adamw"] - distance
    found = estimated({"minimum": alone + 0.5}, optimizer="adamw")
    assert (found.mean, found.spread) == pytest.approx((alone, 0.4))
    assert found.conflict == pytest.approx(conflict)
    # what schedule and length add to the rate is no contradiction
    moved = estimated({"minimum": alone + 0.5}, optimizer="adamw", steps=3000)
    assert moved.conflict == found.conflict


def test_without_an_anchor_there_is_the_prior_or_nothing():
    found = estimated({}, optimizer="sgd")
    assert (found.mean, found.spread, found.conflict) == (PRIORS["sgd"], 0.4, 0)
    assert estimated({}) is None
    assert estimated({}, family="adaptive") is None


def test_denser_sweeps_have_other_anchors():
    # ten times the steps a decade: +.1 for the minimum, −.3 for the rise, nothing for the others
    for name, by in (("minimum", 0.1), ("rise", -0.3), ("divergence", 0.0), ("critical", 0.0)):
        dense, usual = estimated({name: -1.0}, per_decade=125), estimated({name: -1.0})
        assert dense.mean - usual.mean == pytest.approx(by)


@pytest.mark.parametrize(
    ("level", "by", "unknown"),
    [
        (1.0, -0.3, -0.4),
        (0.75, -0.15, -0.2),
        (0.5, 0, 0),
        (0.2, 0, 0),
        (1.5, -0.3, -0.4),
    ],
)
def test_a_schedule_that_stays_high_lowers_the_rate(level, by, unknown):
    for known, expected in (
        ({}, unknown),
        ({"family": "adaptive"}, unknown),
        ({"optimizer": "lion"}, by),
    ):
        plain = estimated({"minimum": -1.0}, **known)
        moved = estimated({"minimum": -1.0}, level=level, **known)
        assert moved.mean - plain.mean == pytest.approx(expected)
        assert moved.spread == plain.spread
    prior = estimated({}, optimizer="lion", level=level)
    assert prior.mean - PRIORS["lion"] == pytest.approx(by)


def test_a_longer_training_wants_a_lower_rate():
    assert [lengthening(n) for n in (None, 30, 300, 3000)] == pytest.approx([0, -1, 0, 1])
    usual = estimated({"minimum": -1.0}).mean
    assert estimated({"minimum": -1.0}, steps=None).mean == usual
    assert estimated({"minimum": -1.0}, steps=3000).mean == pytest.approx(usual - 0.4)
    assert estimated({"minimum": -1.0}, steps=30).mean == pytest.approx(usual + 0.4)


@pytest.mark.parametrize(
    ("optimizer", "family", "expected"),
    [
        ("adamw", None, ("optimizer", "adamw")),
        ("NAdam", "proportional", ("optimizer", "adamw")),
        ("sgd+momentum", None, ("optimizer", "sgd_momentum")),
        ("rmsprop", None, ("family", "adaptive")),
        ("mine:Shampoo", "proportional", ("family", "proportional")),
        (None, "adaptive", ("family", "adaptive")),
        ("mine:Shampoo", None, ("pooled", "pooled")),
        (None, None, ("pooled", "pooled")),
    ],
)
def test_what_is_known_of_an_optimizer(optimizer, family, expected):
    assert knowledge(optimizer, family, ROUND) == expected


def test_names_of_one_optimizer():
    assert canonical("SGD_Nesterov") == canonical("sgd+momentum") == "sgd_momentum"
    assert canonical("mine") == "mine"
    assert canonical(None) is None


@given(
    st.dictionaries(st.sampled_from(ANCHORS), st.floats(-6, 2), min_size=1),
    st.sampled_from([None, "adaptive", "proportional"]),
    st.floats(-5, 5),
)
def test_without_a_prior_the_estimate_moves_with_the_rates(found, family, by):
    here = estimated(found, None, family=family)  # the constants of this version
    there = estimated({k: place + by for k, place in found.items()}, None, family=family)
    assert there.mean == pytest.approx(here.mean + by, abs=1e-9)
    assert there.spread == pytest.approx(here.spread)


def test_a_first_update_larger_than_the_rest_counts_for_an_unknown_adaptive_optimizer():
    known = {"optimizer": "rmsprop"}
    for name, by in (("critical", 1.0), ("ratio", 1.0), ("minimum", 0.0)):
        plain = estimated({name: -2.0}, **known)
        assert estimated({name: -2.0}, opening=10.0, **known).mean == pytest.approx(plain.mean + by)
        for other in ({"optimizer": "adamw"}, {"family": "proportional"}, {}):
            plain = estimated({name: -2.0}, **other)
            assert estimated({name: -2.0}, opening=10.0, **other) == plain
