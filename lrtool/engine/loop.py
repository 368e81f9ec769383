"""The training loop: an epoch's updates as plain rows, and its position between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from lrtool.batch import samples_in
from lrtool.engine.denominator import LossTotal
from lrtool.engine.lockstep import fetch
from lrtool.engine.readout import Readout
from lrtool.engine.step import set_momentum
from lrtool.errors import LockstepError
from lrtool.ranks import ALONE
from lrtool.report.records import StepRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from lrtool.engine.ema import MovingAverage
    from lrtool.engine.step import Step
    from lrtool.ranks import Ranks
    from lrtool.report.records import EpochRow

# A gradient scaler starts at 2^16 and halves at each overflow. After so many in a row its scale is
# below 1e-10, and is not what makes gradients overflow.
SKIPS_IN_A_ROW = 50


class RateSchedule(Protocol):
    """A schedule of the rate and the momentum; `step` and `epoch` count from 0."""

    def factor(self, step: int, epoch: int) -> float:
        """Return the rate of an update over the base rate."""

    def momentum(self, step: int) -> float | None:
        """Return the momentum of an update; None to leave the optimizer's alone."""


@dataclass(slots=True)
class Position:
    """Where a training stands between two updates.

    Attributes:
        step: updates made.
        epoch: epochs finished.
        batches: batches seen of the current epoch.
        loss_sum: sum of their losses, each times its denominator.
        denominator: sum of these; None where losses are added, not averaged.
        samples: how many samples they hold.
        lr: the base rate of the last update.
        skips: how many of the latest updates in a row the gradient scaler skipped.
        evaluated: the step at which the model was last evaluated.
        exhausted: the current epoch has no more batches; asking again may draw random numbers.
    """

    step: int = 0
    epoch: int = 0
    batches: int = 0
    loss_sum: float = 0.0
    denominator: float | None = 0.0
    samples: int = 0
    lr: float = 0.0
    skips: int = 0
    evaluated: int = 0
    exhausted: bool = False

    def train_loss(self) -> float:
        """Return the loss of the current epoch's batches as of one; NaN without a target."""
        return LossTotal(self.loss_sum, self.denominator).mean()

    def next_epoch(self) -> None:
        """Begin a new epoch."""
        self.epoch += 1
        self.batches, self.samples, self.exhausted = 0, 0, False
        self.loss_sum, self.denominator = 0.0, 0.0


def train_epoch(
    step: Step,
    micro_batches: Iterator[Sequence[Any]],
    position: Position,
    *,
    lr: float,
    schedule: RateSchedule,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage | None = None,
    max_steps: int | None = None,
    pause_every: int | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[list[StepRow]]:
    """Train until the epoch or `max_steps` ends; yield rows, several at a time.

    Whenever rows are yielded, the training is between two updates, and `position` is that of the
    last row. A row that `failed` is the last one, though later updates may have been made.

    Args:
        step: makes an update.
        micro_batches: the batches of each update, up to the epoch's end.
        position: kept up to date.
        lr: the base rate, which the schedule multiplies.
        schedule: of the rate, and of the momentum.
        optimizer: whose momentum the schedule may set.
        average: of the weights, updated after each step that was not skipped.
        max_steps: of the whole training.
        pause_every: yield whenever the number of updates is a multiple of this.
        ranks: that make the steps together.
    """
    readout = Readout(ranks)
    made: list[tuple[int, float, int, int]] = []
    skipped = 0  # batches since the last update
    while max_steps is None or position.step + len(made) < max_steps:
        number = position.step + len(made)
        try:
            group = fetch(micro_batches, ranks)
            if group is None:
                position.exhausted = True
                break
            rate = lr * schedule.factor(number, position.epoch)
            _set_momentum(optimizer, schedule.momentum(number))
            out = step(group, rate)
        except Exception as error:
            if made and not isinstance(error, LockstepError):
                yield _rows(made, readout, position)
            raise
        if out is None:
            skipped += len(group)
            continue
        readout.add(out)
        if average is not None:
            average.update(out.skipped)
        made.append((number + 1, rate, skipped + len(group), sum(map(samples_in, group))))
        skipped = 0
        paused = pause_every is not None and (number + 1) % pause_every == 0
        if paused or readout.due():
            rows = _rows(made, readout, position)
            yield rows
            if failed(rows[-1], position):
                return
    if made:
        yield _rows(made, readout, position)
    position.batches += skipped


def _set_momentum(optimizer: torch.optim.Optimizer, momentum: float | None) -> None:
    if momentum is not None:
        set_momentum(optimizer, momentum)


def _rows(
    made: list[tuple[int, float, int, int]], readout: Readout, position: Position
) -> list[StepRow]:
    """Read what the last updates returned, and move the position on."""
    rows: list[StepRow] = []
    for (number, rate, batches, samples), values in zip(made, readout.take(), strict=True):
        row = StepRow(
            step=number,
            epoch=position.epoch + 1,
            lr=rate,
            loss=values.loss,
            samples=samples,
            grad_norm=values.grad_norm,
            skipped=values.skipped,
            denominator=values.denominator,
        )
        rows.append(row)
        position.step = number
        position.batches += batches
        total = LossTotal(position.loss_sum, position.denominator)
        total.add(values.loss, values.denominator)
        position.loss_sum, position.denominator = total.loss, total.denominator
        position.samples += samples
        position.lr = rate
        position.skips = position.skips + 1 if values.skipped else 0
        if failed(row, position):
            break
    made.clear()
    return rows


def failed(row: StepRow, position: Position) -> bool:
    """Tell whether a training has failed at this row, the last one of `position`.

    The loss is not finite though there are targets, or the gradients are not and no scaler has
    skipped the update, or the scaler has skipped too many updates in a row.
    """
    bad_loss = not isfinite(row.loss) and row.denominator != 0
    bad_gradients = row.grad_norm is not None and not isfinite(row.grad_norm) and not row.skipped
    return bad_loss or bad_gradients or position.skips >= SKIPS_IN_A_ROW


@dataclass(slots=True)
class BestTracker:
    """The best epoch so far, and how long nothing better came.

    Attributes:
        metric: what is compared: "validation_loss", "train_loss" or a metric's name.
        higher: whether more is better.
        min_delta: early stopping counts only larger improvements.
        value: of the best epoch; None before the first one with a value.
        epoch: the best epoch, from 1.
        step: updates made then.
        reference: the value at the last improvement that counted.
        waited: epochs since then.
    """

    metric: str
    higher: bool
    min_delta: float = 0.0
    value: float | None = None
    epoch: int = 0
    step: int = 0
    reference: float | None = None
    waited: int = 0

    def observe(self, row: EpochRow) -> bool:
        """Take an epoch into account; return whether it is the best so far. NaN never is."""
        values = {"train_loss": row.train_loss, "validation_loss": row.validation_loss}
        value = {**row.metrics, **values}[self.metric]
        self.waited += 1
        if value is None or not isfinite(value):
            return False
        if self.reference is None or self._gain(value, self.reference) > self.min_delta:
            self.reference, self.waited = value, 0
        if self.value is not None and self._gain(value, self.value) <= 0:
            return False
        self.value, self.epoch, self.step = value, row.epoch, row.step
        return True

    def _gain(self, value: float, before: float) -> float:
        return value - before if self.higher else before - value
