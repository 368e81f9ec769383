"""The ranks of the caller's own script: they meet, search in lockstep, and fail together.

They share a model in DistributedDataParallel. Each has a loader of its own: the batch of an update
is that of all ranks together.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from socket import gethostname
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

from lrtool.claims import named
from lrtool.config.schema import RuntimeConfig
from lrtool.errors import (
    LockstepError,
    LostRankError,
    LrtoolWarning,
    RankFailedError,
    UserError,
    said,
)
from lrtool.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.nn.parallel import DistributedDataParallel

MEETING_SECONDS = 60.0  # for all ranks to call find_lr
TOLD_SECONDS = 10.0  # for the words of a rank that failed
FAILED = "failed"  # the key of these words


@dataclass(slots=True)
class Meeting:
    """The ranks that search together.

    Attributes:
        ranks: this process alone without others, and after they have parted.
        store: keys of this search alone; None for one process alone.
    """

    ranks: Ranks = ALONE
    store: Any = None

    def part(self, error: BaseException) -> BaseException:
        """Leave the other ranks, and tell them why; return the error to raise.

        That is this rank's own; or, where it failed because another one did, that one's words. The
        connections are closed, which ends the waiting of the others, whatever they wait for.
        """
        if not self.ranks.several:
            return error
        own = not isinstance(error, RankFailedError | LockstepError)
        if own:
            words = f"rank {self.ranks.rank} failed in find_lr: {type(error).__name__}: "
            self.store.compare_set(FAILED, "", f"{words}{said(error)}")
        self._close()
        return error if own else self._of_another()

    def _close(self) -> None:
        """Close the connections.

        torch does so when the last reference to the group is gone; the error's traceback may hold
        on to the ranks, so they must let go of it.
        """
        dist.destroy_process_group(self.ranks.hosts)
        for name in ("hosts", "devices"):
            object.__setattr__(self.ranks, name, None)
        object.__setattr__(self.ranks, "world_size", 1)  # nothing may be exchanged any more
        gc.collect()

    def _of_another(self) -> BaseException:
        """Return the error of another rank in its own words, where it has left any."""
        try:
            self.store.wait([FAILED], timedelta(seconds=TOLD_SECONDS))
            return RankFailedError(self.store.get(FAILED).decode())
        except RuntimeError:
            return LostRankError(
                "another rank has ended, or kept this one waiting for too long, in find_lr"
            )

    def compare(self, given: Mapping[str, object]) -> None:
        """Refuse arguments that differ between ranks: these would not do the same.

        Raises:
            UserError: they do.
        """
        every = self.ranks.gather(given)
        for name, value in every[0].items():
            for rank, other in enumerate(every):
                if other[name] != value:
                    raise UserError(
                        f"all ranks must call find_lr with the same arguments: {name} is {value!r} "
                        f"on rank 0, but {other[name]!r} on rank {rank}"
                    )


def world_size() -> int:
    """Return the number of ranks of the caller's script."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def meeting(wrapper: DistributedDataParallel | None) -> Iterator[Meeting]:
    """Let the ranks that share a model meet; only the first one warns inside the block.

    A failure of one rank ends the block on all: that rank raises its own error.

    Args:
        wrapper: of the model; None: this process searches alone.

    Raises:
        UserError: some ranks do not come.
        RankFailedError: another rank failed.
        LostRankError: another rank has ended, or kept this one waiting for too long.

    Warns:
        LrtoolWarning: there are other ranks, but they do not share the model; or it has a
            communication hook.
    """
    size = world_size()
    if size == 1 or wrapper is None:
        if size > 1:
            warnings.warn(
                f"rank {dist.get_rank()} of {size} searches by itself, with its own batches: "
                "each rank may find another rate, and none is for the batch of all ranks. To "
                "search together, give find_lr the model in DistributedDataParallel on every rank",
                LrtoolWarning,
                stacklevel=4,
            )
        yield Meeting()
        return
    met = _meet(wrapper, dist.get_rank(), size)
    if met.ranks.first and wrapper._comm_hooks:  # noqa: SLF001  (no public way)
        warnings.warn(
            "the communication hook of the DistributedDataParallel is not used by the search: "
            "gradients are averaged as they are",
            LrtoolWarning,
            stacklevel=4,
        )
    try:
        with warnings.catch_warnings():
            if not met.ranks.first:
                warnings.simplefilter("ignore", LrtoolWarning)
            yield met
        met.ranks.barrier()
    except BaseException as error:
        told = met.part(error)
        if told is error:
            raise
        raise told from error
    if met.ranks.several:
        dist.destroy_process_group(met.ranks.hosts)


def _meet(wrapper: DistributedDataParallel, rank: int, size: int) -> Meeting:
    """Wait for the other ranks."""
    store = distributed_c10d.PrefixStore("lrtool.find_lr", distributed_c10d._get_default_store())  # noqa: SLF001  (no public way)
    call = store.add(f"calls of {rank}", 1)
    store = distributed_c10d.PrefixStore(str(call), store)
    store.set(f"rank {rank}", "")
    try:
        names = [f"rank {each}" for each in range(size)]
        store.wait(names, timedelta(seconds=MEETING_SECONDS))
    except RuntimeError as error:
        missing = [each for each in range(size) if not store.check([f"rank {each}"])]
        raise UserError(
            f"{named(missing)} did not call find_lr within {MEETING_SECONDS:g} s: all ranks "
            "that share a model in DistributedDataParallel must call it. Put "
            "torch.distributed.barrier() before it if some come late; give model.module to search "
            "on one rank alone"
        ) from error
    group, device = wrapper.process_group, wrapper.device
    limit = RuntimeConfig().timeout
    hosts = dist.new_group(backend="gloo", timeout=timedelta(seconds=limit))
    ranks = Ranks(
        rank,
        size,
        backend="gloo" if device.type == "cpu" else dist.get_backend(group),
        hosts=hosts,
        # On the host, a group of our own: closing it ends the waiting of others.
        devices=hosts if device.type == "cpu" else group,
        timeout=limit,
    )
    places = ranks.gather((gethostname(), str(device)))
    return Meeting(replace(ranks, places=tuple(places)), store)
