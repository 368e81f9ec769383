"""Training as everyone writes it: a plain PyTorch loop with torch's own schedules."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import optimizers
import tasks
import torch
from torch.optim import lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells import Cell
    from tasks import Data
    from torch import Tensor, nn

SCHEDULES = ("constant", "cosine", "one_cycle")
WARMUP = 0.05  # share of the steps, before a cosine
LAST = 20  # steps whose mean is the training loss


class Final(NamedTuple):
    """Where a training ended; infinite where it diverged.

    Attributes:
        validation: loss of the validation part.
        train: mean loss of the last batches.
        error: share of the validation part that is classified wrongly; NaN for regression.
    """

    validation: float
    train: float
    error: float


def train(cell: Cell, lr: float, seed: int, *, steps: int | None = None) -> Final:
    """Train once; equal seeds give equal initial weights and equal batches at every rate.

    With `steps` the whole schedule is compressed into so many.
    """
    steps = cell.steps if steps is None else steps
    data = tasks.samples(cell.task)
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    opt = optimizers.build(cell.optimizer, model, lr)
    plan = schedule_of(opt, cell.schedule, steps, lr)
    loss_fn = partial(tasks.loss, task=cell.task)
    losses = []
    batches = shuffled(len(data.x), tasks.TASKS[cell.task].batch, seed)
    for step in range(steps):
        rows = next(batches)
        opt.zero_grad()
        loss = loss_fn(model(data.x[rows]), data.y[rows])
        loss.backward()
        opt.step()
        plan.step()
        losses.append(loss.detach())
        if step % 50 == 49 and not math.isfinite(float(loss.detach())):
            return Final(math.inf, math.inf, math.inf)
    validation, error = evaluate(cell.task, model, data)
    if not math.isfinite(validation):
        return Final(math.inf, math.inf, math.inf)
    return Final(validation, float(torch.stack(losses[-LAST:]).mean()), error)


def untrained(task: str, seed: int) -> float:
    """Return the validation loss before training."""
    torch.manual_seed(seed)
    return evaluate(task, tasks.model(task), tasks.samples(task))[0]


def shuffled(samples: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows of one batch after another, without end; the last of an epoch may be short."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(samples, generator=generator).split(batch)


def schedule_of(
    optimizer: torch.optim.Optimizer, name: str, steps: int, lr: float
) -> lr_scheduler.LRScheduler:
    """Return torch's schedule over `steps` updates."""
    if name == "constant":
        return lr_scheduler.ConstantLR(optimizer, 1.0)
    if name == "one_cycle":
        moving = any(key in optimizer.defaults for key in ("betas", "momentum"))
        cycled = moving and optimizer.defaults.get("momentum", 1) != 0
        return lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, cycle_momentum=cycled)
    early = max(1, round(WARMUP * steps))
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 1 / early, total_iters=early),
            lr_scheduler.CosineAnnealingLR(optimizer, steps - early),
        ],
        milestones=[early],
    )


@torch.no_grad()
def evaluate(task: str, model: nn.Module, data: Data) -> tuple[float, float]:
    """Return loss and error rate on the validation part."""
    model.eval()
    outputs = model(data.x_validation)
    loss = float(tasks.loss(outputs, data.y_validation, task=task))
    return loss, tasks.error_rate(outputs, data.y_validation)
