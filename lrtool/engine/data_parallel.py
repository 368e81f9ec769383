"""Data parallelism: each rank computes its share of a batch, and all have the same gradients."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lrtool.engine.batch_norm import SharedStatistics, TooFewValuesError, has_batch_norm
from lrtool.errors import ConfigError, LockstepError, OutOfStepError, Problem, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from lrtool.batch import Share
    from lrtool.engine.device import Runtime
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
    """The losses of a rank's shares of batches, whose gradients are added up over all ranks.

    Args:
        loss_of: as of `BatchLoss`; likewise the modules.
        runtime: device and ranks.
        like: whose settings are taken, for a model that is in a DDP of the caller's.

    Attributes:
        may_skip: the model may have no loss for a batch.
    """

    def __init__(
        self,
        loss_of: Callable[[Any], Tensor | None],
        modules: Sequence[Any],
        runtime: Runtime,
        like: DistributedDataParallel | None = None,
    ) -> None:
        self._losses, self._runtime = BatchLoss(loss_of, modules), runtime
        self.may_skip = any(hasattr(part, "training_step") for part in self._losses.parts)
        self._static = runtime.static_graph and not self.may_skip
        self._looks = not self._static  # for parameters that take no part
        if like is not None:
            self._static, self._looks = like.static_graph, like.find_unused_parameters
        shared = like is None and has_batch_norm(self._losses)
        self._shared = SharedStatistics(runtime.ranks) if shared else None
        self._like = like
        self._expected = inf  # meetings in a forward pass
        self._parameters = dict(self._losses.named_parameters())
        self._ddp: DistributedDataParallel | None = None
        self._trained: list[bool] | None = None  # each parameter
        self._used: list[bool] | None = None  # each one, in the first update
        self._exchange = _Exchange(runtime.ranks)
        self._begins = True
        self._begin()

    def _begin(self) -> None:
        """Make DDP anew where other parameters than before are trained, as after an unfreezing."""
        trained = [p.requires_grad for p in self._parameters.values()]
        if trained == self._trained:
            return
        self._trained, self._used = trained, None
        if self._ddp is not None:
            self._ddp = None
            gc.collect()  # it must not see any more gradients
        # A sharded model exchanges its gradients by itself, in each backward pass; and DDP refuses
        # one without trainable parameters.
        if any(trained) and not self._runtime.sharded:
            # whoever asks for the look need not hear that all have been found
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
            self._ddp = DistributedDataParallel(
                self._losses,
                process_group=self._runtime.ranks.devices,
                static_graph=self._static,
                find_unused_parameters=self._looks,
                init_sync=self._like is None,  # that one has done it
            )
            if self._like is not None:
                self._ddp.broadcast_buffers = self._like.broadcast_buffers
            hook = lambda own, bucket: _added_up(own, bucket)  # noqa: E731, PLW0108  (torch refuses annotations as text)
            self._ddp.register_comm_hook(self._exchange, hook)

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
                with self._words():
                    found = self._ddp(batch)
            else:
                loss = self._losses.loss_of(batch)
                found = loss, loss is not None
        except (LockstepError, TooFewValuesError):
            raise
        except Exception as error:
            if self._shared is not None and self._meetings() - before < self._expected:
                raise OutOfStepError("this rank failed before a batch norm") from error
            raise
        if self._runtime.sharded and not found[1]:
            raise UserError(
                "training_step returned None for a rank's share of a batch, which only a model"
                " that is not sharded (runtime.shard) may do"
            )
        self._expected = self._meetings() - before
        return found

    @property
    def meets_in_forward(self) -> bool:
        """Whether the next forward pass may wait for the other ranks.

        For shards, statistics or buffers; and once for the buckets that DDP makes anew.
        """
        ddp = self._ddp
        if ddp is None or self._shared is not None:
            return self._runtime.sharded or self._shared is not None
        buffers: bool = ddp.will_sync_module_buffers()  # type: ignore[no-untyped-call]
        return buffers or not ddp._has_rebuilt_buckets  # noqa: SLF001  (no public way)

    def _meetings(self) -> int:
        return 0 if self._shared is None else self._shared.meetings

    @contextmanager
    def reduced(self, share: Share, *, last: bool) -> Iterator[None]:
        """Exchange gradients in the backward pass of an update's last batch alone.

        With a static graph, DDP asks for an exchange in each backward pass of the first update.
        """
        if self._begins:
            self._begin()
        self._exchange.last = self._begins = last
        waits = not last and (self._used is not None or not self._static)
        with (
            self._ddp.no_sync() if waits and self._ddp is not None else nullcontext(),
            self._shared.of(share) if self._shared is not None else nullcontext(),
            self._words(),
        ):
            yield
        if last and self._static and self._ddp is not None and self._like is None:
            self._check_graph()

    def _words(self) -> AbstractContextManager[None]:
        """Return a context in which DDP's errors name a key; the caller of `like` has none."""
        return _in_words() if self._like is None else nullcontext()

    def _check_graph(self) -> None:
        """Refuse other parameters in an update than in the first: not all have been exchanged.

        DDP says so itself in the next forward pass, if there is one.
        """
        used = [p.grad is not None for p in self._parameters.values()]
        if self._used is None:
            self._used = used
        if used != self._used:
            flags = zip(self._parameters, used, self._used, strict=True)
            name = next(name for name, now, first in flags if now != first)
            raise _other_graph(f", such as {own_name(name)},")

    def close(self) -> None:
        """Let go of the parameters and the process group; no loss can be computed any more."""
        if self._ddp is not None:
            self._ddp._remove_autograd_hooks()  # type: ignore[no-untyped-call]  # noqa: SLF001  (no public way)
            vars(self._ddp).clear()  # a traceback may hold it
            self._ddp = None


@contextmanager
def _in_words() -> Iterator[None]:
    """Put into words what DDP says of parameters that take part in some steps only."""
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        if "not compatible with static_graph" in words:
            raise _other_graph() from error
        if "mark a variable ready only once" in words:
            problem = (
                "false does not go with parameters that take part in a backward pass several times,"
                " as by checkpointing with use_reentrant=True"
            )
            raise ConfigError(Problem(_KEY, problem)) from error
        raise


_KEY = ("runtime", "static_graph")


def _other_graph(which: str = "") -> ConfigError:
    problem = (
        f"some parameters{which} take part in the loss of some steps only, as by layer drop, a "
        "mixture of experts or a branch: set it to false, and the ranks look for those of each step"
    )
    return ConfigError(Problem(_KEY, problem))


def own_name(name: str) -> str:
    """Return a parameter's name in its model, or in the loss, from that in `BatchLoss`."""
    return name.split(".", 2)[-1]


@dataclass
class _Exchange:
    """What DDP's hook needs; not more, for nothing frees what DDP itself refers to.

    Attributes:
        ranks: that add up their gradients.
        last: no further batch of the update is to follow.
    """

    ranks: Ranks
    last: bool = False


def _added_up(exchange: _Exchange, bucket: Any) -> torch.futures.Future[Tensor]:
    """Add up some gradients over all ranks, in a backward pass, unless batches are to follow.

    They are no mean over ranks, as DDP's: for that each loss would be multiplied by the number of
    ranks, and gradients in half precision would overflow sooner than with one rank.

    An update must not depend on which updates this process has made before, or a resumed training
    would differ. gloo adds the ranks' numbers in an order that depends on their place in the
    bucket, and DDP makes other buckets after its first update; so they are added rank by rank.
    """
    gradients, ranks = bucket.buffer(), exchange.ranks
    added: torch.futures.Future[Tensor] = torch.futures.Future()
    if not exchange.last:
        added.set_result(gradients)
        return added
    if ranks.backend == "gloo" and ranks.world_size > 2 and not gradients.is_sparse:
        parts = [torch.empty_like(gradients) for _ in range(ranks.world_size)]
        dist.all_gather(parts, gradients, group=ranks.devices)
        torch.sum(torch.stack(parts), 0, out=gradients)
        added.set_result(gradients)
        return added
    work: Any = dist.all_reduce(gradients, group=ranks.devices, async_op=True)
    reduced: torch.futures.Future[Tensor] = work.get_future()
    return reduced.then(lambda done: done.value()[0])


def take_buffers_of_first(modules: Sequence[Any], ranks: Ranks) -> None:
    """Give all ranks the buffers of rank 0, which a checkpoint has, as DDP does before a step.

    Those whose shapes differ are what a module keeps for its own batches; they stay.
    """
    if not ranks.several:
        return
    buffers = [b for part in modules if isinstance(part, nn.Module) for b in part.buffers()]
    shapes = ranks.gather([(tuple(buffer.shape), buffer.dtype) for buffer in buffers])
    for number, buffer in enumerate(buffers):
        if all(each[number : number + 1] == shapes[0][number : number + 1] for each in shapes):
            ranks.tensor_from_first(torch.view_as_real(buffer) if buffer.is_complex() else buffer)
