"""Lockstep: ranks make each step together, and learn of a failure before they wait in vain."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrtool.errors import LockstepError, LostRankError, OutOfStepError, RankFailedError
from lrtool.ranks import is_lost, lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lrtool.engine.data_parallel import DataParallel
    from lrtool.engine.denominator import Denominator
    from lrtool.engine.device import Runtime
    from lrtool.engine.step import Step, StepOut
    from lrtool.ranks import Ranks

ALONE_FAILED = "this rank failed between two exchanges with the others"


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
        raise OutOfStepError(ALONE_FAILED) from error


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
        OutOfStepError: this rank has failed, and the others are no longer there to be told.
    """
    ranks, on_device = runtime.ranks, isinstance(denominator, Tensor)
    own = 0.0 if denominator is None or on_device else float(denominator)
    try:
        failed, summed, some_on_device, total = ranks.sums(
            [error is not None, denominator is None, on_device, own]
        )
    except LostRankError as lost_rank:
        raise (OutOfStepError(ALONE_FAILED) if error else lost_rank) from error
    if error is not None:
        raise _ToldError(error)
    if failed:
        raise RankFailedError("another rank failed in this step")
    if summed:
        return None
    if not some_on_device:
        return total
    # Filled on the device: a copy from the host would wait for it.
    own_total = torch.full((), own, device=runtime.device)
    if isinstance(denominator, Tensor):
        own_total.copy_(denominator)
    return ranks.add_up(own_total)


def lockstep(step: Step, parallel: DataParallel, runtime: Runtime) -> Step:
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
                    if parallel.meets_in_forward:  # the others have begun a pass
                        raise micro_batches.error
                    exchange(runtime, micro_batches.error, 0.0)
                return step(micro_batches, lr)
        except _ToldError as told:
            raise told.error from None

    return step_of_share
