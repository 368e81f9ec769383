"""Validation batches to measure candidates on: small chunks, or whole batches where these fail.

A race pairs the losses of its candidates by batch, so it wants many. A model may take no other
batches than those of its loader.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lrtool.engine.evaluation import losses
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction


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
    alone = replace(runtime, ranks=ALONE)

    def takes(some: Sequence[Any]) -> bool:
        try:
            losses(model, loss_fn, [some[0], some[-1]], alone)
        except Exception:  # noqa: BLE001  (where nothing works, the measurement raises it)
            return False
        return True

    if not chunks or takes(chunks):
        return chunks
    made = whole() or []
    return next((some for some in (made, made[:-1]) if some and takes(some)), chunks)
