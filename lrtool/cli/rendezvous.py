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
GRACE_S = 2.0  # that the others wait longer than rank 0, which knows who is missing


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
    mark of its own, and rank 0 proposes the marks that it reads until every rank has found its own
    among them.

    Raises:
        UserError: the others do not come within the limit, and this rank is to say so.
        EndedLaunchError: likewise; the first rank says so.
        RuntimeError: the store is gone.
    """
    mark = secrets.token_hex(8)
    store.set(f"mark {rank}", mark)
    deadline = monotonic() + limit.total_seconds() + (GRACE_S if rank > 0 else 0.0)
    missing: list[int] = []
    while not missing:
        late = monotonic() >= deadline
        keys = [f"mark {r}" for r in range(world_size)]
        if rank == 0 and store.check(keys):
            store.set("round", " ".join(store.get(key).decode() for key in keys))
        name = store.get("round").decode() if store.check(["round"]) else ""
        if mark in name:
            keys = [f"{name}: rank {r}" for r in range(world_size)]
            store.set(keys[rank], "")
            if rank == 0 and store.check(keys):
                store.set(f"{name}: agreed", "")
            if store.check([f"{name}: agreed"]):
                return name
        if late and rank == 0:
            missing = [r for r in range(world_size) if not store.check([keys[r]])]
        elif late and mark in name:
            raise EndedLaunchError("rank 0 says who is missing", exit_code=2)
        elif late:
            missing = [0]
        sleep(PAUSE_S)
    raise UserError(
        f"{named(missing)} of {world_size} did not come within {limit.total_seconds():g} seconds"
    )
