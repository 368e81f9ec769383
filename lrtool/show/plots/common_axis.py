"""The losses of several runs on one axis."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from lrtool.show import words
from lrtool.show.plots.limits import numbers
from lrtool.show.plots.span import Span, ceiling, of_rates, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lrtool.report.report import TrainReport


def losses_of(report: TrainReport) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return steps and losses: of validation, else of training, by epoch, else by step."""
    if not report.epochs:
        return np.array(report.steps.step, dtype=float), numbers(report.steps.loss)
    validation = part_of(report) == "validation"
    losses = [epoch.validation_loss if validation else epoch.train_loss for epoch in report.epochs]
    return np.array([epoch.step for epoch in report.epochs], dtype=float), numbers(losses)


def part_of(report: TrainReport) -> str:
    """Return the part of the data that the losses of `losses_of` are of."""
    return "validation" if report.epochs and words.validated(report) else "training"


def settled(report: TrainReport, loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the losses that must be seen: of a diverged training those up to the lowest."""
    if report.status == "diverged":
        loss = loss[: least(loss) + 1]
    return loss[loss <= ceiling(report)]


def least(loss: NDArray[np.float64]) -> int:
    """Return the index of the lowest loss: what follows may be a diverging end."""
    return int(np.nanargmin(loss)) if np.isfinite(loss).any() else 0


def joined(core: Sequence[NDArray[np.float64]], values: Sequence[NDArray[np.float64]]) -> Span:
    """Return the axis of `span` for all runs."""
    return span(np.concatenate([*core, []]), np.concatenate([*values, []]))


def of_all_rates(trainings: Sequence[TrainReport]) -> Span:
    """Return an axis for all rates: logarithmic if one training, or their peaks, need it."""
    each = [of_rates(np.array(report.steps.lr)) for report in trainings if report.steps.lr]
    rates = np.array([lr for report in trainings for lr in report.steps.lr])
    peaks = span(np.array([max(report.steps.lr) for report in trainings if report.steps.lr]))
    if peaks.log or any(limits.log for limits in each):
        return span(rates[rates > 0])
    return max(each, key=lambda limits: limits.top, default=of_rates(rates))


def steps_per_epoch(report: TrainReport) -> float:
    """Return the updates of a whole epoch: the last one may be incomplete, and the only one."""
    known = report.data and report.data.samples_per_update
    samples = report.data.samples.get("train") if report.data else None
    seen = max(epoch.step / epoch.epoch for epoch in report.epochs)
    cut = len(report.epochs) == 1 and words.setting(report, "train", "max_steps") is not None
    return max(seen, ceil(samples / known)) if cut and known and samples else seen
