"""Where the ranks of a launch meet: a part of torchrun's store that is theirs alone."""

from __future__ import annotations

import os
import secrets
import socket
from time import monotonic, sleep
from typing import TYPE_CHECKING

from lrtool.claims import named
from lrtool.errors import EndedLaunchError, UserError, said

if TYPE_CHECKING:
    from datetime import timedelta

    from torch._C._distributed_c10d import Store

PAUSE_S = 0.01


def open_store(host: str, port: int, rank: int, limit: timedelta) -> Store:
    """Return the store of a launch: torchrun's own, or else one that rank 0 keeps.

    Raises:
        UserError: it cannot be reached, or its port is taken.
    """
    from torch._C._distributed_c10d import TCPStore

    try:
        socket.getaddrinfo(host, port)
        return TCPStore(
            host,
            port,
            is_master=rank == 0 and not is_torchruns(),
            timeout=limit,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except socket.gaierror as error:
        raise UserError(f"MASTER_ADDR is {host}, which is no machine: {error.strerror}") from error
    except RuntimeError as error:
        problem = said(error).partition("\n")[0]
        raise UserError(f"the ranks did not meet at {host}:{port}: {problem}") from error


def is_torchruns() -> bool:
    """Tell whether torchrun keeps the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def new_round(store: Store, rank: int, world_size: int, limit: timedelta) -> str:
    """Return a name that the ranks of this start of a launch share, and no earlier start had.

    When torchrun starts its processes again, the store still has the keys of those that are gone,
    and what a rank counts as its restarts may differ from machine to machine. So each rank leaves a
    mark of its own, and rank 0 shows the marks that it reads, until there is one of each rank and
    every rank has found its own among them. Who finds its own knows that rank 0 is there.

    Raises:
        UserError: the others do not come within the limit, and this rank is to say so.
        EndedLaunchError: likewise; the first rank says so.
        RuntimeError: the store is gone.
    """
    mark = secrets.token_hex(8)
    store.set(f"mark {rank}", mark)
    name, whole, deadline = "", False, monotonic() + limit.total_seconds()
    while monotonic() < deadline:
        if rank == 0:
            store.set("round", " ".join(_marks(store, world_size)))
        name = store.get("round").decode() if store.check(["round"]) else ""
        whole = mark in name and len(name.split()) == world_size
        if whole:
            store.set(f"{name}: rank {rank}", "")
            if rank == 0 and store.check([f"{name}: rank {r}" for r in range(world_size)]):
                store.set(f"{name}: agreed", "")
            if store.check([f"{name}: agreed"]):
                return name
        sleep(PAUSE_S)
    if rank > 0 and mark in name:
        raise EndedLaunchError("rank 0 says who is missing", exit_code=2)
    sign = f"{name}: rank" if whole else "mark"
    come = [store.check([f"{sign} {r}"]) for r in range(world_size)]
    missing = [r for r in range(world_size) if not come[r]] if rank == 0 else [0]
    raise UserError(
        f"{named(missing)} of {world_size} did not come within {limit.total_seconds():g} seconds"
    )


def _marks(store: Store, world_size: int) -> list[str]:
    """Return the marks of the ranks that have come, in this start or an earlier one."""
    keys = [f"mark {rank}" for rank in range(world_size)]
    return [store.get(key).decode() for key in keys if store.check([key])]
