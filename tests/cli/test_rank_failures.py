"""Ranks that fail at random, in a few launches; rank_failures.py makes many."""

from rank_failures import fail


def test_every_launch_ends_as_it_should(tmp_path):
    assert fail(tmp_path, runs=4, seed=44) == []
