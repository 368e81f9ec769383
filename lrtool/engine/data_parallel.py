"""Data parallelism: each rank computes its share of a batch, and all have the same gradients."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from math import inf
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lrtool.engine.batch_norm import SharedStatistics, has_batch_norm
from lrtool.errors import LockstepError, OutOfStepError, RankFailedError, UserError
from lrtool.ranks import is_lost, lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.batch import Share
    from lrtool.engine.denominator import Denominator
    from lrtool.engine.device import Runtime
    from lrtool.engine.step import Step, StepOut
    from lrtool.ranks import Ranks


class BatchLoss(nn.Module):
    """The loss of a batch as a module, so that DDP covers all that a model may do to compute it.

    That is its forward, a `training_step` of its own, and the weights of a loss.

    Args:
        loss_of: returns the loss of a batch; None: the model skips it.
        modules: whose parameters take part.
    """

    def __init__(self, loss_of: Callable[[Any], Tensor | None], modules: Sequence[Any]) -> None:
        super().__init__()
        self.loss_of = loss_of
        self.parts = nn.ModuleList([part for part in modules if isinstance(part, nn.Module)])

    def forward(self, batch: Any) -> tuple[Tensor, bool]:
        """Return the loss, and whether there is one; else it is 0, for other ranks may have one."""
        loss = self.loss_of(batch)
        if loss is not None:
            return loss, True
        trained = [p for p in self.parameters() if p.requires_grad]
        return sum((p.sum() * 0.0 for p in trained), torch.zeros(())), False


class DataParallel:
    """The losses of a rank's shares of batches, whose gradients are averaged over all ranks.

    Attributes:
        may_skip: the model may have no loss for a batch.
    """

    def __init__(
        self, loss_of: Callable[[Any], Tensor | None], modules: Sequence[Any], runtime: Runtime
    ) -> None:
        losses = BatchLoss(loss_of, modules)
        self._plain, self._sharded = loss_of, runtime.sharded
        self._ddp: DistributedDataParallel | None = None
        # A sharded model exchanges its gradients by itself, in each backward pass; and DDP refuses
        # one without trainable parameters.
        if not runtime.sharded and any(p.requires_grad for p in losses.parameters()):
            self._ddp = DistributedDataParallel(
                losses, process_group=runtime.ranks.devices, static_graph=True
            )
            hook = lambda own, bucket: _averaged(own, bucket)  # noqa: E731, PLW0108  (torch refuses annotations as text)
            self._ddp.register_comm_hook(self, hook)
        self.ranks = runtime.ranks
        self.last = self._begun = False
        self._shared = SharedStatistics(runtime.ranks) if has_batch_norm(losses) else None
        self._expected = inf  # meetings in a forward pass
        self.may_skip = any(hasattr(part, "training_step") for part in losses.parts)

    def loss(self, batch: Any) -> tuple[Tensor | None, bool]:
        """Return the loss of a share, and whether the model has computed one.

        Raises:
            OutOfStepError: this rank has failed where others may wait for it, in a batch norm.
            UserError: a sharded model has computed none.
        """
        before = self._meetings()
        try:
            found: tuple[Tensor | None, bool]
            if self._ddp is not None:
                found = self._ddp(batch)
            else:
                loss = self._plain(batch)
                found = loss, loss is not None
        except LockstepError:
            raise
        except Exception as error:
            if self._shared is not None and self._meetings() - before < self._expected:
                raise OutOfStepError("this rank failed before a batch norm") from error
            raise
        if self._sharded and not found[1]:
            raise UserError(
                "training_step returned None for a rank's share of a batch, which only a model"
                " that is not sharded (runtime.shard) may do"
            )
        self._expected = self._meetings() - before
        return found

    def _meetings(self) -> int:
        return 0 if self._shared is None else self._shared.meetings

    @contextmanager
    def reduced(self, share: Share, *, last: bool) -> Iterator[None]:
        """Exchange gradients in the backward pass of an update's last batch alone.

        With a static graph, DDP asks for an exchange in each backward pass of the first update.
        """
        self.last = last
        waits = not (last or not self._begun or self._ddp is None)
        with (
            self._ddp.no_sync() if waits and self._ddp is not None else nullcontext(),
            self._shared.of(share) if self._shared is not None else nullcontext(),
        ):
            yield
        self._begun |= last


def _averaged(parallel: DataParallel, bucket: Any) -> torch.futures.Future[Tensor]:
    """Average some gradients over all ranks, in a backward pass, unless batches are to follow.

    An update must not depend on which updates this process has made before, or a resumed training
    would differ. gloo adds the ranks' numbers in an order that depends on their place in the
    bucket, and DDP makes other buckets after its first update; so they are added rank by rank.
    """
    gradients, ranks = bucket.buffer(), parallel.ranks
    averaged: torch.futures.Future[Tensor] = torch.futures.Future()
    if not parallel.last:
        averaged.set_result(gradients)
        return averaged
    gradients.div_(ranks.world_size)
    if ranks.backend == "gloo" and ranks.world_size > 2:
        parts = [torch.empty_like(gradients) for _ in range(ranks.world_size)]
        dist.all_gather(parts, gradients, group=ranks.devices)
        torch.sum(torch.stack(parts), 0, out=gradients)
        averaged.set_result(gradients)
        return averaged
    work: Any = dist.all_reduce(gradients, group=ranks.devices, async_op=True)
    reduced: torch.futures.Future[Tensor] = work.get_future()
    return reduced.then(lambda done: done.value()[0])


class _ToldError(Exception):
    """All ranks know that this one has failed, and leave the step with it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def leaving_lockstep() -> Iterator[None]:
    """Leave the lockstep with a failure that no other rank knows of, as inside an exchange.

    Each pass of a sharded model is an exchange of all ranks.

    Raises:
        OutOfStepError: the block failed, with the cause.
        LostRankError: another rank did, or is late.
    """
    try:
        yield
    except (LockstepError, RankFailedError, _ToldError):
        raise
    except Exception as error:
        if is_lost(error):
            raise lost(error) from error
        words = "this rank failed between two exchanges with the others"
        raise OutOfStepError(words) from error


class Failed(list[Any]):
    """Batches that this rank could not make; the step raises why, where all ranks learn of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def fetch(micro_batches: Iterator[Sequence[Any]], ranks: Ranks) -> Sequence[Any] | None:
    """Return the batches of the next update; None at the end of the epoch."""
    try:
        return next(micro_batches, None)
    except Exception as error:
        if not ranks.several:
            raise
        return Failed(error)


def exchange(runtime: Runtime, error: Exception | None, denominator: Denominator) -> Denominator:
    """Tell all ranks whether this one has failed; return the sum of all ranks' denominators.

    Args:
        runtime: ranks and device.
        error: what a forward pass, or reading data, has raised; None: it went well.
        denominator: of this rank's share of an update.

    Raises:
        RankFailedError: another rank has failed.
    """
    ranks, on_host = runtime.ranks, runtime.device.type == "cpu"
    own = 0.0 if denominator is None or not on_host else float(denominator)
    failed, summed, total = ranks.sums([error is not None, denominator is None, own])
    if error is not None:
        raise _ToldError(error)
    if failed:
        raise RankFailedError("another rank failed in this step")
    if summed:
        return None
    if on_host:
        return total
    own_total = torch.as_tensor(denominator, dtype=torch.float32, device=runtime.device)
    return ranks.add_up(own_total.clone())


def lockstep(step: Step, runtime: Runtime) -> Step:
    """Return a step that tells its failures apart: those that all ranks know of, and others.

    Raises, from the step:
        RankFailedError: another rank has failed, and all leave the step.
        OutOfStepError: this rank alone has failed, with the cause.
        Exception: this rank has failed, and all leave the step.
    """

    def step_of_share(micro_batches: Sequence[Any], lr: float) -> StepOut | None:
        try:
            with leaving_lockstep():
                if isinstance(micro_batches, Failed):
                    if runtime.sharded:  # the others have begun a pass
                        raise micro_batches.error
                    exchange(runtime, micro_batches.error, 0.0)
                return step(micro_batches, lr)
        except _ToldError as told:
            raise told.error from None

    return step_of_share
