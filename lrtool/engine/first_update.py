"""What the first update tells of the learning rate.

A sweep shows that a rate is too high some steps later. A few forward passes along the direction of
the first update show it at once: above the critical rate, the first step no longer lowers the loss
(Kalra & Barkeshli 2024, arXiv 2406.09405).
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lrtool.curve.stopping import RESOLUTION
from lrtool.engine.batch_norm import statistics_of
from lrtool.engine.copies import copied, detached
from lrtool.engine.denominator import loss_of_all, reduction_of
from lrtool.engine.device import is_out_of_memory
from lrtool.engine.lockstep import leaving_lockstep
from lrtool.engine.sharded_tensors import own_part, whole
from lrtool.engine.step import batch_loss
from lrtool.errors import RankFailedError
from lrtool.report.records import FirstUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lrtool.engine.device import Runtime
    from lrtool.engine.step import LossFunction, Step

STRIDE = 0.3  # decades: a factor of two
HALVINGS = 4  # of the last stride: down to a fiftieth of a decade
SCALINGS = 20  # skipped updates: a scaler's first scale, 2^16, is then far below 1
LOWEST, HIGHEST = -12.0, 6.0  # log10 of the rates that are evaluated


def first_update(
    step: Step,
    model: nn.Module,
    loss_fn: LossFunction | None,
    micro_batches: Sequence[Any],
    runtime: Runtime,
    *,
    optimized: Iterable[nn.Parameter] = (),
) -> FirstUpdate:
    """Make one update and measure the loss along its direction; do not use the model afterwards.

    Every forward pass draws the same random numbers (dropout), so only the rate differs. A model
    that raises an exception at some rate counts as a loss that rose.

    Args:
        step: of this model, none made yet.
        model: in training mode.
        loss_fn: None: the model's own loss.
        micro_batches: of one update.
        runtime: device and precision.
        optimized: what the optimizer has, which may be more than the parameters of both.
    """
    modules = [m for m in (model, loss_fn) if isinstance(m, nn.Module)]
    own = {p: None for module in modules for p in module.parameters() if p.requires_grad}
    own |= {p: None for p in optimized if p.requires_grad}
    parameters = list(own)
    state = [p.detach().clone() for p in parameters]
    updates = 0.0
    overflow = True
    while overflow and updates < SCALINGS:  # a gradient scaler may have to lower its scale first
        with _same_draws(runtime):
            out = step(copied(micro_batches), 1.0)  # they may change in place
        if out is None:  # the model skips these batches
            return FirstUpdate(None, None, updates)
        updates += 1
        overflow = out.skipped is not None and bool(out.skipped)
    with torch.no_grad():
        gradients = _gradients(parameters, state)
        counts = [_rows_with_gradients(gradient) for gradient in gradients]
        direction = [
            _only(p - before, rows)
            for p, before, rows in zip(parameters, state, counts, strict=True)
        ]
        moved = _moved(state, direction, gradients, counts)
        for p in parameters:
            p.grad = None
        del gradients
    if not moved.any:
        return FirstUpdate(None, None, updates)
    forwards = 0
    denominators = list(map(reduction_of(loss_fn, model).denominator, micro_batches))

    def loss_at(log_lr: float) -> float:
        nonlocal forwards
        forwards += 1
        rate = 0.0 if log_lr == -math.inf else 10.0**log_lr
        with torch.no_grad():
            for p, before, along in zip(parameters, state, direction, strict=True):
                torch.add(own_part(before), own_part(along), alpha=rate, out=own_part(p))
        parts, error = _losses(model, loss_fn, micro_batches, runtime)
        if not runtime.ranks.any(flag=error is not None):
            return loss_of_all(parts, denominators, runtime.ranks)
        # such weights break models in many ways, and none says anything new
        if rate == 0 or (error is not None and is_out_of_memory(error)):
            raise error or RankFailedError("another rank failed in a forward pass")
        return math.inf

    initial = loss_at(-math.inf)
    start = moved.log_ratio
    if start is None:
        start = _where_it_vanishes(initial, moved.slope)
    critical = _last_descent(loss_at, initial, start)
    return FirstUpdate(
        critical_lr=None if critical is None else 10.0**critical,
        ratio_lr=None if moved.log_ratio is None else 10.0**moved.log_ratio,
        steps=updates + forwards / 3,
    )


def _losses(
    model: nn.Module, loss_fn: LossFunction | None, micro_batches: Sequence[Any], runtime: Runtime
) -> tuple[list[Tensor | None], Exception | None]:
    """Return the loss of each batch, or why there is none.

    With gradients, as in a step: the forward of some models differentiates.
    """
    try:
        losses = []
        with _same_draws(runtime), runtime.autocast():
            for batch in micro_batches:
                with statistics_of(batch, model, runtime):
                    losses.append(detached(batch_loss(model, loss_fn, copied(batch))))
    except Exception as error:
        if runtime.sharded:
            with leaving_lockstep():
                raise
        return [], error  # the caller decides what it means
    return losses, None


@contextmanager
def _same_draws(runtime: Runtime) -> Iterator[None]:
    """Put torch's random states back after the block, so that each draws the same numbers."""
    devices = [runtime.device] if runtime.device.type == "cuda" else []
    of_apple = torch.mps.get_rng_state() if runtime.device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if of_apple is not None:
            torch.mps.set_rng_state(of_apple)


def _gradients(parameters: list[nn.Parameter], state: list[Tensor]) -> list[Tensor]:
    """Return the gradient of each parameter, 0 where it has none.

    Where the optimizer has dropped all of them, the update stands in for them, as with SGD.
    """
    if all(p.grad is None for p in parameters):
        return [before - p for p, before in zip(parameters, state, strict=True)]
    return [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in parameters]


def _rows_with_gradients(gradient: Tensor) -> Tensor:
    """Tell which rows of a parameter have a gradient, in a shape that broadcasts with it.

    The others do not count, as weight decay alone moves them: an adapter behind a matrix of zeros,
    the block of a closed gate, words that are not in the batch.
    """
    own = own_part(gradient)
    if own.ndim < 2:
        return own != 0
    rows = (own != 0).flatten(1).any(1)
    return rows.reshape(-1, *[1] * (own.ndim - 1))


def _only(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return a tensor with zeros in all but these rows of this rank's part, in the same memory."""
    own_part(tensor).masked_fill_(~rows, 0.0)
    return tensor


class _Moved(NamedTuple):
    """How far an update at a rate of 1 moves the parameters.

    Attributes:
        any: whether it moves them at all.
        log_ratio: log10 of the median over matrices of the weights' norm over their update's; None
            where no matrix that moves has weights other than 0.
        slope: how much the loss falls per rate at first.
    """

    any: bool
    log_ratio: float | None
    slope: float


def _moved(
    state: list[Tensor], direction: list[Tensor], gradients: list[Tensor], counts: list[Tensor]
) -> _Moved:
    """Measure the rows that count; all ranks of a sharded model must call this."""
    measured: list[Tensor] = []
    for weights, update, gradient, rows in zip(state, direction, gradients, counts, strict=True):
        kept = _only(weights.clone(), rows)
        slope = (gradient.conj() * update).sum().real
        three = torch.stack([whole(one) for one in (kept.norm(), update.norm(), slope)])
        measured.append(three.to(measured[0]) if measured else three)  # one may be on the CPU
    each = torch.stack(measured).tolist()  # one wait for the device
    matrices = [one for one, weights in zip(each, state, strict=True) if weights.ndim > 1]
    ratios = [
        math.log10(weights / update)
        for weights, update, _ in matrices or each
        if weights > 0 and update > 0 and math.isfinite(weights) and math.isfinite(update)
    ]
    return _Moved(
        any=any(update > 0 and math.isfinite(update) for _, update, _ in each),
        log_ratio=sorted(ratios)[len(ratios) // 2] if ratios else None,
        slope=-sum(slope for *_, slope in each),
    )


def _where_it_vanishes(loss: float, slope: float) -> float:
    """Return log10 of the rate at which a loss would be 0 if it went on falling as at first."""
    if loss and slope > 0 and math.isfinite(loss) and math.isfinite(slope):
        return math.log10(abs(loss) / slope)
    return (LOWEST + HIGHEST) / 2


def _last_descent(loss_at: Any, initial: float, start: float) -> float | None:
    """Return log10 of the rate above which the loss is higher than without an update.

    In strides from `start`, down or up, until the loss crosses its initial value; then by
    bisection. None if it does not cross it between `LOWEST` and `HIGHEST`.
    """
    level = initial + RESOLUTION * abs(initial)
    place = min(max(start, LOWEST), HIGHEST)
    lower = loss_at(place) <= level  # NaN counts as a rise
    stride = STRIDE if lower else -STRIDE
    while (loss_at(place + stride) <= level) == lower:
        place += stride
        if not LOWEST <= place <= HIGHEST:
            return None
    low, high = sorted((place, place + stride))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if loss_at(middle) <= level:
            low = middle
        else:
            high = middle
    return (low + high) / 2
