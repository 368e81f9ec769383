"""How fast an epoch of training is, beside a plain loop and Lightning's Trainer.

The plain loop has its samples in memory, one permutation an epoch, and adds up losses on the
device. It is measured as everyone writes it, and once more with what lrtool chooses by itself: a
fused optimizer and, for convolutions, channels_last. The epoch alone is timed, with the rows that
lrtool writes; evaluation and checkpoints are not, which the others do not have here.
"""

from __future__ import annotations

import tempfile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.cases import STEPS, opened
from lrtool.report.records import EpochRow, LearningRate
from lrtool.training.epochs import train
from lrtool.training.session import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.speed.cases import Case

RATE = 1e-3
EPOCHS = 3  # the first one warms up
BATCHES = {"mlp": 256, "cnn": 128, "wide": 64}


def samples(case: Case) -> int:
    """Return the samples of an epoch."""
    return min(STEPS, case.steps) * BATCHES[case.name]


def plain_loop(case: Case) -> list[float]:
    """A loop over tensors in memory, as everyone writes it."""
    return _plain(case, tuned=False)


def tuned_loop(case: Case) -> list[float]:
    """The same loop with a fused optimizer and, for convolutions, channels_last."""
    return _plain(case, tuned=True)


def _plain(case: Case, *, tuned: bool) -> list[float]:
    inputs, targets = case.data(samples(case))
    batch = BATCHES[case.name]
    torch.manual_seed(0)
    model = case.model()
    nhwc = tuned and inputs.ndim == 4
    if nhwc:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = inputs.permute(0, 2, 3, 1).contiguous()  # a batch gathered so stays channels_last
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=tuned or None)
    seconds = []
    for _ in range(EPOCHS):
        started = perf_counter()
        total = torch.zeros(())
        order = torch.randperm(len(inputs))
        for rows in order.split(batch):
            x, y = inputs[rows], targets[rows]
            if nhwc:
                x = x.permute(0, 3, 1, 2)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        total.item()
        seconds.append(perf_counter() - started)
    return seconds[1:]


def lrtool_train(case: Case) -> list[float]:
    """`lrtool train` on a configuration."""
    rate = LearningRate(value=RATE, origin="flag", run=None)
    opening = opened(case, samples(case), BATCHES[case.name], train={"epochs": EPOCHS})
    with opening as (experiment, folder):
        session = begin(experiment, rate, folder, None)
        seconds = []
        started = last = perf_counter()
        for event in train(session):
            if isinstance(event, list):
                last = perf_counter()
            elif isinstance(event, EpochRow):
                seconds.append(last - started)
                started = perf_counter()
    return seconds[1:]


def lightning_trainer(case: Case) -> list[float]:
    """Lightning's Trainer.fit without logger, checkpoints, progress and summary."""
    import lightning as pl  # noqa: PLC0415

    seconds = []

    class Module(pl.LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net
            self.started = 0.0

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def on_train_epoch_start(self) -> None:
            self.started = perf_counter()

        def on_train_epoch_end(self) -> None:
            seconds.append(perf_counter() - self.started)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    torch.manual_seed(0)
    loader = DataLoader(
        TensorDataset(*case.data(samples(case))), batch_size=BATCHES[case.name], shuffle=True
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Module(case.model()), loader)
    return seconds[1:]


CONTENDERS: dict[str, Callable[[Case], list[float]]] = {
    "plain loop": plain_loop,
    "  fused, NHWC": tuned_loop,
    "lrtool train": lrtool_train,
    "Lightning": lightning_trainer,
}
