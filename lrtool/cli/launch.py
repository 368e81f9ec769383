"""This process as one of a launch by torchrun: how it joins the others, and how it leaves them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lrtool import claims
from lrtool.cli import environment, exit_codes
from lrtool.cli.rendezvous import is_torchruns, new_round, open_store
from lrtool.cli.signals import Stop
from lrtool.errors import (
    EndedLaunchError,
    LostRankError,
    cause_of,
)
from lrtool.show.terminal.stderr import stderr_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.cli.watch import Watch
    from lrtool.ranks import Ranks

WATCH = "lrtool watch"  # the thread that a process has if it has joined others
COMMANDS = ("find", "train", "evaluate")  # that several ranks run together
TIMEOUT = 120.0  # seconds to wait for the others, until the configuration is read
CLOSING_S = 5.0  # to close connections when all is done
PRECEDENCE_S = 1.5  # for the first rank to tell of a problem that all have


@contextmanager
def one_voice() -> Iterator[None]:
    """Send to nowhere what all ranks but the first print in the block, from C or a child too."""
    if environment.first():
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


@contextmanager
def joined(stop: Stop | None = None) -> Iterator[Ranks]:
    """Join the other processes of a launch inside the block; without a launch there are none.

    A failure inside the block ends all ranks: the first one to fail tells the others.

    Args:
        stop: is told of signals, as in one process; None: they end the process at once.

    Raises:
        UserError: the environment is not that of a launch, or the others do not come.
        EndedLaunchError: another rank has failed.
    """
    from lrtool.ranks import ALONE

    environment.check()
    if not environment.launched():
        yield ALONE
        return
    from lrtool.cli.watch import Watch, tell_seen, wait_until_seen

    watch = Watch(WATCH, Stop() if stop is None else stop, TIMEOUT + 5.0)
    watch.start()
    ranks = _meet(watch)
    try:
        _connect(ranks)
        yield ranks
    except Exception as error:
        failure = _tell(ranks, watch, error)
        with suppress(RuntimeError):
            if not ranks.first:
                tell_seen(ranks)
            elif not is_torchruns():
                wait_until_seen(ranks)
        if failure is error:
            raise
        raise failure from error
    try:
        ranks.barrier()
    except LostRankError:  # the work is done, unless another rank says that it is not
        with suppress(RuntimeError):
            if found := watch.claim or claims.claimed(ranks):
                raise claims.of_claim(found) from None
    watch.end()


def _meet(watch: Watch) -> Ranks:
    """Wait until all ranks are here.

    Raises:
        UserError: they do not come, and this rank is to say so.
        EndedLaunchError: likewise; the first one says so.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    from lrtool.ranks import Ranks

    rank, world_size, local, port = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    )
    limit = timedelta(seconds=TIMEOUT)
    store: Any = open_store(os.environ["MASTER_ADDR"], port, rank, limit)
    try:
        store = PrefixStore(new_round(store, rank, world_size, limit), store)
    except RuntimeError as error:
        raise EndedLaunchError("rank 0 says who is missing", exit_code=exit_codes.USAGE) from error
    ranks = Ranks(rank, world_size, local, "gloo", store=store, timeout=TIMEOUT)
    watch.look_with(ranks)
    return ranks


def _connect(ranks: Ranks) -> None:
    """Make torch's default process group."""
    from torch.distributed import distributed_c10d as dist

    from lrtool.ranks import lost

    store = dist.PrefixStore("torch", ranks.store)
    limit = timedelta(seconds=TIMEOUT)
    try:
        dist.init_process_group(
            "gloo", store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=limit
        )
    except RuntimeError as error:
        raise lost(error) from error


def _tell(ranks: Ranks, watch: Watch, error: Exception) -> Exception:
    """Tell the other ranks of a failure; return what this one ends with."""
    from lrtool.ranks import is_lost

    cause = cause_of(error)
    failure = error if isinstance(cause, SystemExit) else cause
    if is_lost(failure):
        failure = claims.cause(ranks, failure)
    if isinstance(failure, EndedLaunchError) and failure.exit_code is not None:
        return failure
    if watch.claim is not None:
        return claims.of_claim(watch.claim)
    code = exit_codes.of_error(failure)
    try:
        first = None if ranks.first else claims.claimed(ranks, PRECEDENCE_S)
        first = first or claims.claim(ranks, exit_codes.words(failure), code)
    except RuntimeError:  # the first rank is gone, and the store with it
        return _without_store(ranks, watch, failure, code)
    return failure if first.rank == ranks.rank else claims.of_claim(first)


def _without_store(ranks: Ranks, watch: Watch, failure: Exception, code: int) -> Exception:
    """Return what a rank ends with that can tell nobody; its watch may have read a claim before."""
    if watch.claim is not None:
        return claims.of_claim(watch.claim)
    return failure if ranks.rank == 1 else EndedLaunchError(str(failure), exit_code=code)


def _close_groups() -> None:
    """Close the connections to the other ranks; NCCL may wait for one that has gone."""
    from torch import distributed as dist

    with suppress(RuntimeError, ValueError):
        dist.destroy_process_group()


@contextmanager
def left_at_once() -> Iterator[None]:
    """End the process after the block, without what C++ does at an end, if it has joined others.

    gloo's threads may abort there, which would make a failure of a run that is done.
    """
    try:
        yield
    except SystemExit as end:
        if not any(thread.name == WATCH for thread in threading.enumerate()):
            raise
        if end.code in {None, 0}:
            closing = threading.Thread(target=_close_groups, daemon=True)
            closing.start()
            closing.join(CLOSING_S)
        elif not isinstance(end.code, int):
            stderr_line(str(end.code))  # as Python does
        atexit._run_exitfuncs()  # noqa: SLF001  (os._exit leaves them out)
        _flush()
        os._exit(int(end.code or 0) if isinstance(end.code, int | None) else 1)
