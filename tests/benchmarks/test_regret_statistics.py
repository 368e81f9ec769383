"""Statistics of the regret benchmark, against numbers by hand."""

import numpy as np
import pytest

from benchmarks.regret import statistics


def _regrets(*rows):
    """Return regrets of methods over cells, one finder seed."""
    return np.array(rows, dtype=float)[:, :, None]


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    regrets = _regrets([100, 1, 2, 3, 4, 5, 6, -50])
    assert statistics.interquartile_mean(regrets, np.ones(8)) == pytest.approx(
        [(2 + 3 + 4 + 5) / 4]
    )


def test_failures_count_single_suggestions_not_means_of_cells():
    regrets = np.array([[[0.9, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert statistics.failures(regrets, np.ones(2)) == pytest.approx([1 / 6])


def test_tasks_count_alike_however_many_cells_they_have():
    weight = statistics.weights(["a", "a", "a", "b"])
    assert weight == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert statistics.task_mean(_regrets([1, 1, 1, 0]), weight) == pytest.approx([0.5])


def test_better_pairs_trainings_from_the_same_seeds_and_splits_ties():
    ours = [[0.0, 0.9], [0.5, 0.5]]
    theirs = [[0.1, 1.0], [0.5, 0.6]]  # worse in three pairs, equal in one
    regrets = np.array([ours, theirs])
    found = statistics.better(0)(regrets, statistics.weights(["a", "b"]))
    assert found == pytest.approx([0.5, (1 + 0.75) / 2])


def test_intervals_come_from_drawing_tasks_not_cells():
    units = ["a"] * 50 + ["b"] * 50
    regrets = _regrets([0.0] * 50 + [1.0] * 50)
    low, high = statistics.intervals(regrets, units, {"mean": statistics.mean})["mean"][0]
    assert (low, high) == (0.0, 1.0)  # cells alone would give about .4 to .6


def test_intervals_hold_the_spread_of_finder_seeds():
    regrets = np.array([[[0.0, 1.0]] * 4])
    units = ["a", "b", "c", "d"]
    low, high = statistics.intervals(regrets, units, {"mean": statistics.mean})["mean"][0]
    assert low < 0.3
    assert high > 0.7


def test_six_tasks_that_all_agree_give_the_smallest_p_of_six_pairs():
    ours, theirs = np.arange(6) / 10, np.arange(6) / 10 + np.arange(1, 7)
    assert statistics.wilcoxon(ours, theirs) == pytest.approx(2 / 2**6)
    assert statistics.wilcoxon(ours, ours) == 1.0


def test_holm_multiplies_by_the_number_of_tests_left_and_never_falls():
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_by_task_averages_cells_and_seeds():
    regrets = np.array([[[0.0, 0.2], [0.4, 0.6], [1.0, 1.0]]])
    assert statistics.by_task(regrets, ["a", "a", "b"]) == pytest.approx(np.array([[0.3, 1.0]]))
