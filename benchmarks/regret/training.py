"""Training as everyone writes it: a plain PyTorch loop, with torch's own optimizers and schedules.

Nothing here uses lrtool: this loop judges its rates.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.regret import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.regret.cells import Cell
    from benchmarks.regret.data import Data

WARMUP = 0.05  # share of the steps, before a rate that falls: cosine, linear and wsd
WARMED = {"cosine", "linear", "wsd"}
DECAY = 0.2  # share of the steps at the end of wsd
LAST = 20  # steps whose mean is the training loss
EVALUATIONS = 20  # at most, in a training: after each epoch, or after every few


class Lion(torch.optim.Optimizer):
    """The sign of two momenta (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            early, late = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum: Tensor = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(torch.lerp(p.grad, momentum, early)))
                momentum.lerp_(p.grad, 1 - late)
        return loss


class Known(NamedTuple):
    """An optimizer that cells name.

    Attributes:
        name: in a configuration of lrtool's.
        build: its class.
        args: of the class.
    """

    name: str
    build: Callable[..., torch.optim.Optimizer]
    args: dict[str, Any]


OPTIMIZERS = {
    "sgd": Known("sgd", torch.optim.SGD, {}),
    "sgd_momentum": Known("sgd", torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": Known("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adamw": Known("adamw", torch.optim.AdamW, {"weight_decay": 0.01}),
    "adam": Known("adam", torch.optim.Adam, {}),
    "adamw_decay": Known("adamw", torch.optim.AdamW, {"weight_decay": 0.1}),
    "nadam": Known("nadam", torch.optim.NAdam, {}),
    "adagrad": Known("adagrad", torch.optim.Adagrad, {}),
    "rmsprop": Known("rmsprop", torch.optim.RMSprop, {}),
    "muon": Known("torch.optim:Muon", torch.optim.Muon, {}),  # torch's, for matrices alone
    "lion": Known("benchmarks.regret.training:Lion", Lion, {}),
}
FUSED = {"sgd", "adam", "adamw", "adagrad"}  # on a CPU too: the same numbers, sooner


def optimizer_of(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return a cell's optimizer over a model's parameters that are not frozen."""
    known = OPTIMIZERS[name]
    fused = {"fused": True} if known.name in FUSED else {}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return known.build(trained, lr=lr, **known.args, **fused)


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
    after, last = steps - early, round(DECAY * steps)

    def wsd(step: int) -> float:
        return 1 - math.sqrt(min(1.0, max(0.0, (step - (after - last)) / last)))

    falls: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
        "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=after),
        "linear": partial(lr_scheduler.LinearLR, start_factor=1, end_factor=0, total_iters=after),
        "wsd": partial(lr_scheduler.LambdaLR, lr_lambda=wsd),
    }
    return lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 1 / early, total_iters=early), falls[name](optimizer)],
        milestones=[early],
    )


def fresh(cell: Cell, seed: int) -> tuple[nn.Module, DataLoader[Any], DataLoader[Any]]:
    """Return what a user of an object API has: a model, and loaders of training and validation."""
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    data, batch = tasks.samples(cell.task), tasks.TASKS[cell.task].batch
    train = DataLoader(TensorDataset(data.x, data.y), batch, shuffle=True)
    return model, train, DataLoader(TensorDataset(data.x_validation, data.y_validation), 256)


class Final(NamedTuple):
    """Where a training ended; infinite where it diverged.

    Attributes:
        validation: loss of the task's test set; of the validation set where it has none.
        train: mean loss of the last batches.
        error: share of that set that is classified wrongly; NaN for regression.
        best: the same loss after that epoch, or at the end, when the loss of the validation set was
            lowest; finite where a training diverged only after an epoch.
        seen: loss of the validation set, by which a user judges; `validation` where the task has no
            test set.
    """

    validation: float
    train: float
    error: float
    best: float
    seen: float = math.inf


def train(cell: Cell, lr: float, seed: int, *, steps: int | None = None) -> Final:
    """Train once; equal seeds give equal initial weights and equal batches at every rate.

    With `steps` the whole schedule is compressed into so many, and only the end is evaluated, as a
    user can: on the validation set.
    """
    data, batch = tasks.samples(cell.task), tasks.TASKS[cell.task].batch
    every = evaluated_every(len(data.x), batch, cell.steps) if steps is None else steps
    if steps is None:
        steps = cell.steps
    else:
        data = data._replace(x_test=None, y_test=None)
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    optimizer = optimizer_of(cell.optimizer, model, lr)
    schedule = schedule_of(optimizer, cell.schedule, steps, lr)
    loss_fn = partial(tasks.loss, task=cell.task)
    losses, best = [], Evaluation(math.inf, math.inf, math.nan)
    batches = shuffled(len(data.x), batch, seed)
    for step in range(steps):
        rows = next(batches)
        optimizer.zero_grad()
        loss = loss_fn(model(data.x[rows]), data.y[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % 50 == 49 and not math.isfinite(float(loss.detach())):
            return Final(math.inf, math.inf, math.inf, best.loss)
        if (step + 1) % every == 0 and step + 1 < steps:
            best = better(best, evaluate(cell.task, model, data))
            model.train()
    end = evaluate(cell.task, model, data)
    if not math.isfinite(end.loss):
        return Final(math.inf, math.inf, math.inf, best.loss)
    train_loss = float(torch.stack(losses[-LAST:]).mean())
    return Final(end.loss, train_loss, end.error, better(best, end).loss, end.validation)


def evaluated_every(samples: int, batch: int, steps: int) -> int:
    """Return how many steps, of whole epochs, lie between two evaluations of a training."""
    epoch = math.ceil(samples / batch)
    return epoch * math.ceil(steps / (epoch * EVALUATIONS))


def untrained(task: str, seed: int) -> float:
    """Return the loss before training."""
    torch.manual_seed(seed)
    return evaluate(task, tasks.model(task), tasks.samples(task)).loss


def shuffled(samples: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows of one batch after another, without end; the last of an epoch may be short."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(samples, generator=generator).split(batch)


class Evaluation(NamedTuple):
    """What a model is worth.

    Attributes:
        validation: loss of the validation set, by which a user chooses.
        loss: of the test set, which judges; of the validation set where the task has none.
        error: share of that set that is classified wrongly; NaN for regression.
    """

    validation: float
    loss: float
    error: float


def better(best: Evaluation, seen: Evaluation) -> Evaluation:
    """Return the evaluation with the lower loss of the validation set, if all of it is finite."""
    finite = math.isfinite(seen.validation) and math.isfinite(seen.loss)
    return seen if finite and seen.validation < best.validation else best


@torch.no_grad()
def evaluate(task: str, model: nn.Module, data: Data) -> Evaluation:
    """Return losses and error rate."""
    model.eval()
    x, y = data.test
    outputs = model(x)
    loss = float(tasks.loss(outputs, y, task=task))
    validation = loss
    if x is not data.x_validation:
        found = tasks.loss(model(data.x_validation), data.y_validation, task=task)
        validation = float(found)
    return Evaluation(validation, loss, tasks.error_rate(outputs, y))
