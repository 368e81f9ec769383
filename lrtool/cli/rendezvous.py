"""Where the ranks of a launch meet: a part of torchrun's store that is theirs alone."""

from __future__ import annotations

import secrets
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from torch._C._distributed_c10d import Store

PAUSE_S = 0.01


def new_round(store: Store, rank: int, world_size: int, limit: timedelta) -> str:
    """Return a name that the ranks of this start of a launch share, and no earlier start had.

    When torchrun starts its processes again, the store still has the keys of those that are gone,
    and what a rank counts as its restarts may differ from machine to machine. So each rank leaves a
    mark of its own, and rank 0 proposes the marks that it reads until every rank has found its own
    among them.

    Raises:
        RuntimeError: the others do not come within the limit.
    """
    mark = secrets.token_hex(8)
    store.set(f"mark {rank}", mark)
    deadline = monotonic() + limit.total_seconds()
    while monotonic() < deadline:
        if rank == 0:
            marks = [store.get(f"mark {r}").decode() for r in range(world_size)]
            store.set("round", " ".join(marks))
        name = store.get("round").decode()
        if mark in name:
            store.set(f"{name}: rank {rank}", "")
            if rank == 0 and store.check([f"{name}: rank {r}" for r in range(world_size)]):
                store.set(f"{name}: agreed", "")
            if store.check([f"{name}: agreed"]):
                return name
        sleep(PAUSE_S)
    raise RuntimeError(f"not all of {world_size} ranks came within {limit.total_seconds():g} s")
