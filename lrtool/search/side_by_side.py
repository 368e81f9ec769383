"""What ranks do side by side, each at work of its own: they meet after each turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.ranks import Ranks

Item = TypeVar("Item")


def side_by_side(ranks: Ranks, own: Iterator[Item]) -> Iterator[list[Item]]:
    """Run each rank's own iterator; yield the items of a turn, the same lists on every rank.

    In a turn each rank makes the next item of its own, and gets those of the others. A rank that
    has no more of them takes part until all are done. So the ranks stay in lockstep, though each
    does something else; whoever is early waits for one turn, not for all the work of the others.

    Args:
        ranks: one alone gets its own items, one by one.
        own: its items can be pickled.

    Raises:
        RankFailedError: another rank's iterator failed, in the same turn.
    """
    while True:
        turn = ranks.by_each(lambda: next(own, None))
        items = [item for item in turn if item is not None]
        if not items:
            return
        yield items
