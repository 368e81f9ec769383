"""Batch norm over several ranks: with the statistics of the whole batch, not of a rank's share."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import batch_norm
from torch.nn.modules._functions import SyncBatchNorm

from lrtool.batch import Share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.engine.device import Runtime
    from lrtool.ranks import Ranks


def has_batch_norm(module: nn.Module) -> bool:
    """Tell whether there is a batch norm in a module."""
    return any(map(is_batch_norm, module.modules()))


def is_batch_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001  (torch's base of these has no public name)


class TooFewValuesError(ValueError):
    """A batch norm has one value of each channel over all ranks; they all raise this."""


class SharedStatistics:
    """Statistics over all ranks, by a function that stands in for torch's own inside a block.

    So no module is replaced, as torch's conversion to SyncBatchNorm does: a batch norm of the
    user's own class is covered, on the CPU too, and checkpoints, averages and whatever is tried on
    one rank alone know nothing of it. Only a module that does not call `F.batch_norm` is left out.
    The gradients are right for a loss that is added up over ranks.

    Attributes:
        meetings: how often the ranks have met in forward passes so far.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.meetings = 0
        self._ranks = ranks
        self._counts = True
        self._all_count = True
        # A compiler would trace the exchanges, and again for other counts; DDP imports it anyway.
        self._function: Any = torch.compiler.disable(self._batch_norm)  # type: ignore[no-untyped-call]

    @contextmanager
    def of(self, share: Share) -> Iterator[None]:
        """Share the statistics of a batch inside the block; those of a stand-in do not count.

        The backward pass belongs to it, for that may repeat a forward pass.
        """
        self._counts = share.counts
        self._all_count = share.samples >= self._ranks.world_size
        F.batch_norm = self._function
        try:
            yield
        finally:
            F.batch_norm = batch_norm

    def _batch_norm(  # noqa: PLR0917  (torch's own signature)
        self,
        input: Tensor,  # noqa: A002
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,  # noqa: FBT001, FBT002
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training or eps <= 0:
            return batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        self.meetings += 1
        if input.is_cuda and self._all_count:  # faster, and keeps less for the backward pass
            outputs: Tensor = SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
                input,
                weight,
                bias,
                running_mean,
                running_var,
                eps,
                momentum,
                self._ranks.devices or dist.group.WORLD,
                self._ranks.world_size,
            )
            return outputs
        wide = input if input.dtype == torch.float64 else input.float()
        mean, variance, count = self._moments(wide)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                unbiased = variance * (count / (count - 1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        shape = [1, -1] + [1] * (input.ndim - 2)
        normal = (wide - mean.view(shape)) * torch.rsqrt(variance + eps).view(shape)
        if weight is not None:
            normal = normal * weight.view(shape)
        if bias is not None:
            normal = normal + bias.view(shape)
        return normal.to(input.dtype)

    def _moments(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean and the variance of each channel over all ranks, and of how many values.

        The mean comes first: Σ x² − (Σ x)²/n loses what a mean far from 0 leaves of float32.

        Raises:
            TooFewValuesError: there is one value alone.
        """
        counted = inputs if self._counts else inputs[:0]
        others = [0, *range(2, inputs.ndim)]
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        values = counted.numel() // counted.shape[1]
        own = counted.new_full((1,), values)
        sums = _sum(torch.cat([counted.sum(others), own]), self._ranks)
        count = sums[-1].detach()
        # The host asks the other hosts rather than wait for a GPU.
        known = self._ranks.sums([values])[0] if inputs.is_cuda else float(count)
        if known <= 1:  # as torch says it
            raise TooFewValuesError(
                "Expected more than 1 value per channel when training, got input size "
                f"{inputs.shape} over all ranks"
            )
        mean = sums[:-1] / count
        squares = (counted - mean.view(shape)).square().sum(others)
        return mean, _sum(squares, self._ranks) / count, count


@contextmanager
def statistics_of(batch: Any, model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Take a model's statistics of a batch over all ranks inside the block, outside of a step."""
    shared = isinstance(batch, Share) and not runtime.own_statistics and has_batch_norm(model)
    with SharedStatistics(runtime.ranks).of(batch) if shared else nullcontext():
        yield


class _Sum(torch.autograd.Function):
    """The sum of all ranks' tensors; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.ranks), None


def _sum(tensor: Tensor, ranks: Ranks) -> Tensor:
    added: Tensor = _Sum.apply(tensor, ranks)  # type: ignore[no-untyped-call]
    return added
