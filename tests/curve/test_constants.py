"""The constants of this version: complete, consistent, and with where they come from."""

import json
from importlib import resources

import numpy as np
import pytest

from lrtool.curve import constants as c


@pytest.fixture
def stored():
    return json.loads(resources.files("lrtool.curve").joinpath("constants.json").read_text("utf-8"))


def test_they_say_where_they_come_from(stored):
    said = stored["provenance"]
    assert said["script"] == "python -m research fit"
    assert said["cells"] > len(said["tasks"]) > 1
    assert set(said["optimizers"]) == set(c.fitted().offsets["prior"])
    assert said["finder_seeds"] >= 1
    for summary in ("regret_left_out", "regret_left_out_without_trials"):
        assert all(0 <= cell["failures"] <= 1 for cell in said[summary].values())


def test_the_file_is_read_as_it_is(stored):
    known = c.fitted()
    assert known is c.fitted()
    for name in (
        "offsets",
        "spreads",
        "density",
        "held",
        "length",
        "trial_gain",
        "half_width",
        "certain",
    ):
        assert getattr(known, name) == stored[name]
    assert list(known.anchors) == stored["anchors"]
    assert np.array_equal(known.correlation, stored["correlation"])


def test_every_anchor_has_its_offsets_and_spreads():
    known = c.fitted()
    families = {"proportional", "adaptive", "pooled"}
    for anchor in known.anchors:
        assert set(known.offsets[anchor]) == set(known.offsets["prior"]) | families
        for level in ("optimizer", "family", "pooled"):
            assert known.spreads[level][anchor] > 0
    assert known.spreads["optimizer"]["prior"] > 0
    assert set(known.density) <= set(known.anchors)


def test_correlations_are_those_of_something():
    matrix = np.array(c.fitted().correlation)
    assert matrix.shape == (len(c.fitted().anchors),) * 2
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(np.diag(matrix), np.ones(len(matrix)))
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_every_optimizer_leads_to_a_constant():
    known = c.fitted()
    assert set(known.held) == set(known.offsets["prior"]) | {"proportional", "adaptive", "pooled"}
    assert set(c.ALIKE.values()) == set(known.offsets["prior"]) <= set(c.FAMILIES)
    assert set(c.FAMILIES.values()) == {"proportional", "adaptive"}


def test_what_every_fit_must_agree_with():
    """Signs that no fit may turn round: they are why the parts are there."""
    known = c.fitted()
    assert max(known.held.values()) < 0  # a rate that never falls must be lower
    assert known.length < 0  # and so must that of a longer training
    assert known.trial_gain > 0  # the better of two trials shows the way
    assert known.trial_overfit < 0  # a model that overfits needs a lower rate
    assert 0 < known.certain < 0.2
    assert all(width > 0 for width in known.half_width.values())
    assert 0.2 < known.window < 1  # of three quarters of a decade (the pilot), half
    assert known.offsets["rise"]["pooled"] < known.offsets["minimum"]["pooled"]
    assert known.offsets["divergence"]["pooled"] < known.offsets["rise"]["pooled"]
