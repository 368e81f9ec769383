"""The learning-rate range test (Smith 2015, arXiv:1506.01186): a rate that grows at each step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lrtool.curve.stopping import find_stop
from lrtool.engine.copies import copied
from lrtool.engine.evaluation import evaluating
from lrtool.engine.readout import Readout
from lrtool.engine.step import all_skipped, batch_loss, update
from lrtool.errors import LockstepError
from lrtool.ranks import ALONE
from lrtool.report.records import StepRow, StopReason, Sweep, SweepRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction, Step, StepOut
    from lrtool.ranks import Ranks


def sweep_rates(start: float, end: float, steps: int, mode: str = "exponential") -> list[float]:
    """Return `steps` rates from `start` to `end`, both included.

    exponential: lr_i = start · (end / start)^(i / (steps − 1)); linear: equal differences.
    """
    last = steps - 1
    if mode == "linear":
        rates = [start + (end - start) * i / last for i in range(steps)]
    else:
        rates = [start * (end / start) ** (i / last) for i in range(steps)]
    return [*rates[:-1], end]


def sweep(
    step: Step,
    micro_batches: Iterator[Sequence[Any]],
    rates: Sequence[float],
    *,
    repeat: int = 0,
    probe: Callable[[], Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[SweepRow]:
    """Yield one row for each rate until `find_stop` ends the sweep; that row is the last one.

    `row.loss` is that of its batch, or of the probe, before the update with `row.lr`. An exception
    from a step after the stop ends the sweep too: diverged weights break models in many ways.
    """
    rows: list[SweepRow] = []
    readout = Readout(ranks)
    for index, lr in enumerate(rates):
        failure: Exception | None = None
        try:
            probed = None if probe is None else ranks.tensor_from_first(probe())
            out: StepOut = update(step, micro_batches, lr, ranks)
            readout.add(out if probed is None else out._replace(loss=probed, denominator=1.0))
        except Exception as error:
            if isinstance(error, LockstepError):
                raise
            failure = error  # raised below, unless the sweep has stopped before
        last = index == len(rates) - 1 or failure is not None
        if not last and not readout.due():
            continue

        # Rows end at the stop, so the curve does not depend on how often losses are read.
        done = len(rows)
        for i, (loss, _, skipped, denominator) in enumerate(readout.take(), start=done):
            rows.append(SweepRow(repeat, i, rates[i], loss, skipped, denominator))
        stop = stop_of(rows)
        yield from rows[done : None if stop is None else stop[0] + 1]
        if stop is not None:
            return
        if failure is not None:
            raise failure


def to_sweep(rows: Sequence[SweepRow], *, seed: int, planned: int) -> Sweep:
    """Return the rows of one repeat as a record; it ended early with fewer than `planned` steps."""
    stop = stop_of(rows)
    reason: StopReason = "completed" if len(rows) == planned else "interrupted"
    return Sweep(
        seed=seed,
        lr=tuple(row.lr for row in rows),
        loss=tuple(row.loss for row in rows),
        skipped=tuple(index for index, row in enumerate(rows) if row.skipped),
        stop_reason=reason if stop is None else stop[1],
        without_targets=tuple(index for index, row in enumerate(rows) if row.denominator == 0),
    )


def stop_of(rows: Sequence[SweepRow | StepRow]) -> tuple[int, StopReason] | None:
    """Return what `find_stop` says of the steps so far."""
    return find_stop(
        [row.loss for row in rows],
        [row.skipped for row in rows],
        [row.denominator == 0 for row in rows],
    )


def make_probe(
    model: nn.Module, loss_fn: LossFunction | None, batch: Any, runtime: Runtime
) -> Callable[[], Tensor]:
    """Return a function that evaluates the loss on one fixed batch.

    Dropout is off. Batch norm uses the statistics of the probe itself, and updates none: running
    statistics lag behind weights that change this fast. One that is frozen keeps to its own.
    """

    def probe() -> Tensor:
        with runtime.no_grad(), runtime.autocast(), _probing(model, loss_fn):
            loss = batch_loss(model, loss_fn, copied(batch))
        if loss is None:
            raise all_skipped()
        return loss.detach()

    return probe


@contextmanager
def _probing(model: nn.Module, loss_fn: LossFunction | None) -> Iterator[None]:
    every = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001  (torch's public base of all batch norms has no public name)
    norms = [norm for norm in every if norm.training]
    tracking = [norm.track_running_stats for norm in norms]
    with evaluating(model, loss_fn):
        for norm in norms:
            norm.training = True
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracks in zip(norms, tracking, strict=True):
                norm.track_running_stats = tracks
