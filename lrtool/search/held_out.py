"""Validation batches to measure candidates on: small chunks, or whole batches where these fail.

A race pairs the losses of its candidates by batch, so it wants many. A model may take no other
batches than those of its loader.
"""

from __future__ import annotations

from itertools import zip_longest
from math import ceil
from typing import TYPE_CHECKING, Any

from lrtool.data.batches import at_least
from lrtool.engine.evaluation import losses, of_all_ranks
from lrtool.experiment.same_data import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction


def together(own: Callable[[int], list[Any]], most: int, runtime: Runtime) -> list[Any]:
    """Return validation batches of all ranks, the same ones on each.

    A rank's loader may yield the whole validation set, as those of all ranks do, or its own part of
    it. What all have alike counts once.

    Args:
        own: returns batches of this rank's loader with at least so many samples, or all.
        most: samples of all batches, at least, or all.
        runtime: device and ranks.

    Raises:
        RankFailedError: another rank's loader failed.
    """
    ranks, found = runtime.ranks, list[Any]()

    def read() -> str:
        found.extend(own(most))
        return digest_of(found)

    if len(set(ranks.by_each(read))) == 1:
        return found
    part = at_least(found, ceil(most / ranks.world_size))
    turns = zip_longest(*of_all_ranks(part, runtime))
    return [batch for turn in turns for batch in turn if batch is not None]


def usable(
    model: nn.Module,
    loss_fn: LossFunction | None,
    runtime: Runtime,
    chunks: list[Any],
    whole: Callable[[], list[Any] | None],
) -> list[Any]:
    """Return the chunks if the model takes the first and the last of them, else what it takes.

    That is whole batches, without a smaller last one that fails; or the chunks, if nothing works.

    Args:
        model: to try.
        loss_fn: None for a model that computes its own loss.
        runtime: device and precision.
        chunks: of validation samples.
        whole: makes as many samples in whole batches.
    """

    def takes(some: Sequence[Any]) -> bool:
        failed = False
        try:
            losses(model, loss_fn, [some[0], some[-1]], runtime.alone())
        except Exception:  # noqa: BLE001  (where nothing works, the measurement raises it)
            failed = True
        return not runtime.ranks.any(flag=failed)

    if not chunks or takes(chunks):
        return chunks
    made = whole() or []
    return next((some for some in (made, made[:-1]) if some and takes(some)), chunks)
