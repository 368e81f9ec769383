"""Ranks at work of their own, which meet after each turn."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from lrtool.errors import RankFailedError
from lrtool.ranks import ALONE, Ranks
from lrtool.search.side_by_side import side_by_side


def on_ranks(*works):
    """Run each iterator on a rank of its own, a thread here; return the items, or the error."""
    given, barrier = [None] * len(works), Barrier(len(works), timeout=10)

    class Rank(Ranks):
        def gather(self, value):
            barrier.wait()
            given[self.rank] = value
            barrier.wait()
            return [*given]

    def run(rank):
        seen = []
        try:
            seen.extend(side_by_side(Rank(rank, len(works)), iter(works[rank])))
        except (Exception, SystemExit) as error:  # noqa: BLE001  (compared)
            return seen, error
        return seen, None

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, range(len(works))))


def test_all_ranks_see_the_items_of_each_turn():
    expected = [["a", 1], ["b", 2], ["c"]]
    assert on_ranks("abc", [1, 2], []) == [(expected, None)] * 3


def test_one_process_sees_its_own():
    assert list(side_by_side(ALONE, iter("abc"))) == [["a"], ["b"], ["c"]]
    assert list(side_by_side(ALONE, iter([]))) == []


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_a_failure_ends_the_same_turn_of_all(error):
    def failing():
        yield "a"
        raise error

    (own, raised), (other, told) = on_ranks(failing(), "xyz")
    assert (own, raised) == ([["a", "x"]], error)
    assert other == own
    assert isinstance(told, RankFailedError)


def test_a_failure_of_one_process_is_raised_as_it_is():
    def failing():
        yield 1
        raise KeyError("a")

    items = side_by_side(ALONE, failing())
    assert next(items) == [1]
    with pytest.raises(KeyError):
        next(items)


def test_whoever_closes_it_closes_the_work():
    closed = []

    def work():
        try:
            yield 1
        finally:
            closed.append(True)

    items = side_by_side(ALONE, work())
    next(items)
    items.close()
    assert closed == [True]
