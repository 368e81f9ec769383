"""The running mean of the plots, by hand."""

import numpy as np
import pytest

from lrtool.show.smoothing import running_mean

NAN = np.nan


@pytest.mark.parametrize(
    ("losses", "means"),
    [
        # three wide in the middle, one at the start, and the last two at the end
        ([6.0, 3.0, 3.0, 0.0, 3.0], [6.0, 4.0, 2.0, 2.0, 1.5]),
        ([6.0], [6.0]),
        ([6.0, 3.0, 3.0, NAN, 3.0], [6.0, 4.0, NAN, NAN, NAN]),
        ([6.0, np.inf, 3.0], [6.0, NAN, NAN]),
    ],
)
def test_the_mean_of_a_window_of_three(losses, means):
    found = running_mean(np.array(losses), 3 * 15)
    assert found == pytest.approx(means, nan_ok=True)


def test_a_line_stays_a_line_but_at_its_end():
    line = np.arange(300.0)
    found = running_mean(line, 300)  # twenty wide
    assert found[:290] == pytest.approx(line[:290])
    assert found[-1] == pytest.approx(line[-11:].mean())


def test_a_short_one_is_left_as_it_is():
    losses = np.random.default_rng(0).normal(size=20)
    assert running_mean(losses, 20) == pytest.approx(losses)
