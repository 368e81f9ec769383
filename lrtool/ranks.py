"""The processes of a launch by torchrun, and what they agree on.

Each process of a launch is a rank. All ranks run the same code in lockstep: what a run decides, it
decides from numbers that are the same on every rank, or that the ranks have exchanged.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from socket import gethostname
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from lrtool.errors import LockstepError, LostRankError, RankFailedError, UserError, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of a launch.

    Every method is a no-op for one process alone. All others must be called by every rank, in the
    same order.

    Attributes:
        rank: of this process, from 0.
        world_size: number of ranks.
        local_rank: number of this process on its machine, from 0.
        backend: "gloo" or "nccl", of the device's tensors; None for one process alone.
        hosts: torch's process group for values on the host; None: the default one.
        devices: for tensors on the device; None: the default one.
        places: host name and device of every rank; () for one process alone.
        store: keys that all ranks can read and write, whatever else they do; None alone.
        timeout: seconds that a rank waits for the others.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    backend: str | None = None
    places: tuple[tuple[str, str], ...] = ()
    hosts: Any = field(default=None, compare=False, repr=False)
    devices: Any = field(default=None, compare=False, repr=False)
    store: Any = field(default=None, compare=False, repr=False)
    timeout: float = field(default=0.0, compare=False)

    @property
    def first(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    def gather(self, value: Value) -> list[Value]:
        """Return every rank's value, a plain or picklable one, in the order of ranks."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.world_size
        with _collective():
            dist.all_gather_object(found, value, group=self.hosts)
        return found

    def from_first(self, value: Value) -> Value:
        """Return the value of rank 0."""
        return self.gather(value if self.first else None)[0]  # type: ignore[return-value]

    def by_first(self, work: Callable[[], Value]) -> Value:
        """Do some work on rank 0 alone; return its result, a picklable one, on every rank."""
        return self.from_first(work() if self.first else None)  # type: ignore[return-value]

    def by_each(self, work: Callable[[], Value]) -> list[Value]:
        """Do some work on every rank; return each one's result, a picklable one, in their order.

        Raises:
            RankFailedError: the work failed on another rank; where it failed, its own error is
                raised, once all know.
        """
        if not self.several:
            return [work()]
        result, failure = None, None
        try:
            result = work()
        except LockstepError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  (raised below)
            failure = error
        try:
            each = self.gather((result, failure is not None))
        except LostRankError as lost_rank:
            raise failure or lost_rank from None
        if failure is not None:
            raise failure
        if any(failed for _, failed in each):
            raise RankFailedError("another rank failed in the same work")
        return [result for result, _ in each]  # type: ignore[misc]

    @contextmanager
    def entered_by_first(self, context: AbstractContextManager[Value]) -> Iterator[Value]:
        """Enter a context on rank 0 alone; yield its value, a picklable one, on every rank."""
        with context if self.first else nullcontext() as value:
            yield self.from_first(value)  # type: ignore[misc]

    def any(self, *, flag: bool) -> bool:
        """Tell whether the flag is set on some rank."""
        return self.highest([float(flag)])[0] > 0

    def highest(self, values: Sequence[float]) -> list[float]:
        """Return the highest of every rank's values, one by one."""
        return self._reduced(values, "MAX")

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of every rank's values, one by one, in double precision."""
        return self._reduced(values, "SUM")

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        if not self.several:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with _collective():
            dist.all_reduce(tensor, getattr(dist.ReduceOp, operation), group=self.hosts)
        reduced: list[float] = tensor.tolist()
        return reduced

    def add_up(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all ranks up in place, on their device; return the tensor."""
        if self.several:
            with _collective():
                dist.all_reduce(tensor, group=self.devices)
        return tensor

    def tensor_from_first(self, tensor: Tensor) -> Tensor:
        """Return the tensor of rank 0, on the device; it may take the place of this rank's own."""
        if self.several:
            with _collective():
                dist.broadcast(tensor, group=self.devices, group_src=0)
        return tensor

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.highest([0.0])

    def on(self, device: torch.device, timeout: float) -> Ranks:
        """Return the ranks with process groups for a device, and another time limit.

        Raises:
            UserError: the device cannot take part.
        """
        if not self.several:
            return self
        if device.type not in {"cpu", "cuda"}:
            raise UserError(
                f"{self.world_size} ranks cannot share their work on {device.type}; use cpu or cuda"
            )
        kinds = self.gather(device.type)
        for rank, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise UserError(
                    f"rank 0 would compute on {kinds[0]} and rank {rank} on {kind}; "
                    "runtime.device: cpu is for all of them, or start ranks on machines with GPUs "
                    "alone"
                )
        limit = timedelta(seconds=timeout)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if backend == "nccl" and not dist.is_nccl_available():
            raise UserError("this torch has no NCCL, by which GPUs meet; use runtime.device: cpu")
        with _collective():
            hosts = dist.new_group(backend="gloo", timeout=limit)
            devices = dist.new_group(backend=backend, timeout=limit) if backend == "nccl" else hosts
        if backend == "nccl":
            _connect(device, devices)
        ranks = replace(self, backend=backend, hosts=hosts, devices=devices, timeout=timeout)
        return replace(ranks, places=tuple(ranks.gather((gethostname(), str(device)))))


ALONE = Ranks()
GLOO = ("/gloo/", "caused pair closure")  # its errors; a late one in a backward pass has no path


def _connect(device: torch.device, group: Any) -> None:
    """Let NCCL connect the GPUs now: it does so with the first tensor that they exchange.

    Raises:
        UserError: it cannot.
    """
    try:
        dist.all_reduce(torch.zeros(1, device=device), group=group)
        torch.cuda.synchronize(device)
    except dist.DistBackendError as error:
        why = said(error).strip().rpartition("\n")[2]
        raise UserError(
            f"NCCL cannot connect the GPUs of the ranks: {why}; NCCL_DEBUG=INFO tells more, and "
            "runtime.device: cpu works without it"
        ) from error


@contextmanager
def _collective() -> Iterator[None]:
    """Say that a rank is gone, or late, where torch raises anything.

    Raises:
        LostRankError: always, if the block fails.
    """
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error


def lost(error: Exception) -> LostRankError:
    """Return the error to raise for what torch raises in a collective."""
    return LostRankError(f"lost another rank: {said(error).partition(chr(10))[0]}")


def is_lost(error: BaseException) -> bool:
    """Tell whether another rank is the cause: torch may raise this inside a backward pass too."""
    return isinstance(error, LockstepError | RankFailedError | dist.DistError) or (
        isinstance(error, RuntimeError) and any(words in said(error) for words in GLOO)
    )
