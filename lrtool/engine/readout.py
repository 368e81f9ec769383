"""Losses stay on the device and are read in bulk, so no step waits for the one before."""

from __future__ import annotations

from math import nan
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch

from lrtool.engine.denominator import to_numbers
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from lrtool.engine.step import StepOut
    from lrtool.ranks import Ranks

READ_AFTER_STEPS = 64
READ_AFTER_SECONDS = 0.1


class StepValues(NamedTuple):
    """A `StepOut` on the host; the loss is NaN where all targets are ignored."""

    loss: float
    grad_norm: float | None
    skipped: bool
    denominator: float | None


class Readout:
    """What steps returned and has not been read yet.

    Several ranks read after the same steps: whoever reads may end the loop.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._pending: list[StepOut] = []
        self._ranks = ranks
        self._agreed = 1  # steps after which several ranks read next
        self._started = perf_counter()

    def add(self, out: StepOut) -> None:
        """Keep what one step returned."""
        self._pending.append(out)

    def due(self) -> bool:
        """Tell whether to read: after 64 steps, or 0.1 s.

        Several ranks call this after each step. They agree on the number of steps that the slowest
        of them is expected to make in that time.
        """
        count, seconds = len(self._pending), perf_counter() - self._started
        if not self._ranks.several:
            return count >= READ_AFTER_STEPS or seconds >= READ_AFTER_SECONDS
        if count < self._agreed:
            return False
        slowest = self._ranks.highest([seconds / count])[0]
        steps = int(READ_AFTER_SECONDS / slowest)
        self._agreed = min(max(steps, 1), READ_AFTER_STEPS)
        return True

    def take(self) -> list[StepValues]:
        """Copy everything to the host, each kind of value at once."""
        pending, self._pending = self._pending, []
        losses = _to_host([out.loss for out in pending])
        norms = _to_host([out.grad_norm for out in pending if out.grad_norm is not None])
        marks = _to_host([out.skipped for out in pending if out.skipped is not None])
        denominators = to_numbers([out.denominator for out in pending])
        self._started = perf_counter()
        return [
            StepValues(
                loss if denominator != 0 else nan,
                norms[i] if norms else None,
                bool(marks[i]) if marks else False,
                denominator,
            )
            for i, (loss, denominator) in enumerate(zip(losses, denominators, strict=True))
        ]


def _to_host(values: list[torch.Tensor]) -> list[float]:
    return torch.stack(values).tolist() if values else []
