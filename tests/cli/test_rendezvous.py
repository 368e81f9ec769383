"""Ranks that torchrun starts again find one another, and nothing that is left of those before."""

import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from lrtool.cli import rendezvous
from lrtool.cli.rendezvous import new_round
from lrtool.errors import LrtoolError, UserError

LIMIT = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(rendezvous, "GRACE_S", 0.6)


def start(store, ranks, world_size, limit=LIMIT):
    """What each rank calls its round; None: it did not get one."""
    names = dict.fromkeys(ranks)

    def join(rank):
        with suppress(LrtoolError):
            names[rank] = new_round(store, rank, world_size, limit)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return names


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_ranks_share_a_name_that_no_start_before_had(order):
    store, seen = HashStore(), set()
    for _ in range(5):
        names = start(store, order, 3)
        assert len(set(names.values())) == 1
        assert None not in names.values()
        assert not seen & set(names.values())
        seen |= set(names.values())


def test_a_start_that_not_all_lived_to_see_misleads_none_after_it():
    store = HashStore()
    short = timedelta(seconds=0.2)
    assert start(store, (0, 1), 3, short) == {0: None, 1: None}
    assert start(store, (1, 2), 3, short) == {1: None, 2: None}
    names = start(store, (0, 1, 2), 3)
    assert len(set(names.values())) == 1
    assert None not in names.values()
    assert start(store, (0, 1), 3, short) == {0: None, 1: None}
    fewer = start(store, (0, 1), 2)  # torchrun may go on with fewer machines
    assert len(set(fewer.values())) == 1
    assert None not in fewer.values()
    assert not set(fewer.values()) & set(names.values())


def test_a_rank_that_does_not_come_is_not_waited_for_without_end():
    store = HashStore()
    store.set("mark 1", "of a process that is gone")
    with pytest.raises(UserError, match=r"^rank 1 of 2 did not come within 0\.1 seconds$"):
        new_round(store, 0, 2, timedelta(seconds=0.1))


def test_rank_0_says_who_is_missing_though_another_rank_came_before_it(monkeypatch):
    monkeypatch.setattr(rendezvous, "GRACE_S", 2.0)
    store, said = HashStore(), {}

    def join(rank):
        try:
            new_round(store, rank, 3, timedelta(seconds=0.5))
        except UserError as error:
            said[rank] = str(error)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in (2, 0)]
    threads[0].start()
    time.sleep(0.3)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert list(said) == [0, 2]  # the second is too late to be heard: rank 0 has ended the launch
    assert said[0] == "rank 1 of 3 did not come within 0.5 seconds"


class LateStore(HashStore):
    """A store to which rank 1 comes just after rank 0 has looked."""

    def check(self, keys):
        if keys == ["mark 0"]:
            self.set("mark 1", "late")
        return super().check(keys)


def test_a_rank_that_comes_between_two_looks_at_the_last_moment():
    with pytest.raises(UserError, match=r"^rank 1 of 2 did not come within 0 seconds$"):
        new_round(LateStore(), 0, 2, timedelta(0))
