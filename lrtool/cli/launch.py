"""This process as one of a launch by torchrun: how it joins the others, and how it leaves them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from lrtool.errors import UserError, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.ranks import Ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
COMMANDS = ("find", "train", "evaluate")  # that several ranks run together
TIMEOUT = 600.0  # seconds to wait for the others, until the configuration is read


def launched() -> bool:
    """Tell whether this is one of several processes of a launch."""
    return os.environ.get("WORLD_SIZE", "") not in {"", "0", "1"}


def first() -> bool:
    """Tell whether this process speaks for all."""
    return not launched() or os.environ.get("RANK", "0") == "0"


def speaker() -> str:
    """Return how a message of this rank's own begins: "rank 2: "; "" for the first rank."""
    return "" if first() else f"rank {os.environ['RANK']}: "


@contextmanager
def one_voice() -> Iterator[None]:
    """Send to nowhere what all ranks but the first print in the block, from C or a child too."""
    if first():
        yield
        return
    _flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        _flush()
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _check_environment() -> None:
    """Refuse the environment of a launch that is not whole.

    Raises:
        UserError: some of torchrun's variables are missing.
    """
    size = os.environ.get("WORLD_SIZE", "")
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if launched() and missing:
        raise UserError(
            f"WORLD_SIZE is {size}, but {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not set; start with torchrun, which sets all of"
            " them, or unset WORLD_SIZE for one process"
        )


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other processes of a launch inside the block; without a launch there are none.

    Raises:
        UserError: the environment is incomplete, or the others do not come.
    """
    _check_environment()
    if not launched():
        from lrtool.ranks import ALONE

        yield ALONE
        return
    from torch.distributed import distributed_c10d as dist
    from torch.distributed.rendezvous import rendezvous

    from lrtool.cli.rendezvous import new_round
    from lrtool.ranks import Ranks

    limit = timedelta(seconds=TIMEOUT)
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=limit))
        store = dist.PrefixStore(new_round(store, rank, world_size, limit), store)
        own = dist.PrefixStore("ranks", store)
        dist.init_process_group("gloo", store=own, rank=rank, world_size=world_size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        where = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        words = said(error).partition("\n")[0]
        raise UserError(f"the ranks did not meet at {where}: {words}") from error
    try:
        local = int(os.environ["LOCAL_RANK"])
        yield Ranks(rank, world_size, local, "gloo", store=dist.PrefixStore("lrtool", store))
    finally:
        dist.destroy_process_group()
