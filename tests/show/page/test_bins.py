"""Long series in few points, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrtool.show.page.bins import binned, some_of


def test_bins_by_hand():
    x, y = [1, 2, 3, 4, 5, 6, 7], np.array([5.0, 9, 1, 4, 4, 2, 8])
    assert binned(x, y, 3) == {
        "x": [1, 4, 7],
        "y": [5, 4, 8],
        "low": [1, 2, 8],
        "high": [9, 4, 8],
    }
    assert binned(x, y, 2) == {
        "x": [1, 5, 7],  # the last one is always there
        "y": [5, 4, 8],
        "low": [1, 2, 2],
        "high": [9, 8, 8],
    }


def test_few_values_are_as_they_are():
    assert binned([1, 2], np.array([3.0, math.inf]), 2) == {"x": [1, 2], "y": [3, math.inf]}
    assert binned([], np.array([]), 2, np.array([]), np.array([])) == {"x": [], "y": []}


def test_a_band_that_is_given_is_kept():
    y, low, high = np.array([2.0, 3, 4]), np.array([1.0, 0, 4]), np.array([5.0, 6, 4])
    assert binned([1, 2, 3], y, 5, low, high)["low"] == [1, 0, 4]
    assert binned([1, 2, 3], y, 2, low, high)["high"] == [6, 4]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_makes_its_bin_none(bad):
    found = binned([1, 2, 3, 4], np.array([1.0, bad, 2, 3]), 2)
    assert math.isnan(found["y"][0])
    assert (found["low"][0], found["high"][0]) == (None, None)
    assert found["low"][1:] == [2, 2]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=400), st.integers(2, 50))
def test_no_extreme_is_lost_and_the_points_are_few(values, most):
    found = binned(range(len(values)), np.array(values), most)
    assert len(found["x"]) <= most + 1
    assert (found["x"][0], found["x"][-1]) == (0, len(values) - 1)
    assert min(found.get("low", values)) == min(values)
    assert max(found.get("high", values)) == max(values)


def test_rows_of_a_long_table():
    assert some_of(0, 5) == []
    assert some_of(3, 5) == [0, 1, 2]
    assert some_of(20, 5, [7]) == [0, 4, 7, 8, 12, 16, 19]
