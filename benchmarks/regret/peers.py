"""The peers, the packages themselves, each called as its documentation says: a cell's rate.

Every function returns rates by method, None where a method names none, and the steps it spent.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import optimizers
import tasks
import torch
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cells import Cell
    from torch import Tensor, nn

Rates = dict[str, float | None]
START, END, STEPS = 1e-7, 10.0, 100


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep progress bars and advice off the screen."""
    screen = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(screen),
        contextlib.redirect_stdout(screen),
    ):
        warnings.simplefilter("ignore")
        yield


def _fresh(cell: Cell, seed: int) -> tuple[nn.Module, DataLoader[Any], DataLoader[Any]]:
    """Return a model and the loaders of training and validation part."""
    torch.manual_seed(seed)
    model = tasks.model(cell.task)
    data, batch = tasks.samples(cell.task), tasks.TASKS[cell.task].batch
    train = DataLoader(TensorDataset(data.x, data.y), batch, shuffle=True)
    return model, train, DataLoader(TensorDataset(data.x_validation, data.y_validation), 256)


def fastai(cell: Cell, seed: int) -> tuple[Rates, int]:
    """`Learner.lr_find` with all four of its rules."""
    with _quietly():
        from fastai.callback.schedule import (  # noqa: PLC0415
            minimum,
            slide,
            steep,
            valley,
        )
        from fastai.data.core import DataLoaders  # noqa: PLC0415
        from fastai.learner import Learner  # noqa: PLC0415
        from fastai.optimizer import OptimWrapper  # noqa: PLC0415

        model, train, validation = _fresh(cell, seed)
        known, args = optimizers.OPTIMIZERS[cell.optimizer]
        learner = Learner(
            DataLoaders(train, validation),
            model,
            loss_func=partial(tasks.loss, task=cell.task),
            opt_func=partial(OptimWrapper, opt=optimizers.CLASSES[known], **args),
            wd=None,
        )
        rules = (valley, slide, steep, minimum)
        found = learner.lr_find(suggest_funcs=rules, show_plot=False)
        steps = len(learner.recorder.lrs)
    return {f"fastai {rule.__name__}": getattr(found, rule.__name__) for rule in rules}, steps


def lightning(cell: Cell, seed: int) -> tuple[Rates, int]:
    """`Tuner.lr_find` with its defaults."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _quietly():
        import lightning as pl  # noqa: PLC0415
        from lightning.pytorch.tuner import Tuner  # noqa: PLC0415

        class Module(pl.LightningModule):
            def __init__(self, net: nn.Module) -> None:
                super().__init__()
                self.net = net
                self.lr = 1e-3

            def training_step(self, batch: Any, _index: int) -> Tensor:
                return tasks.loss(self.net(batch[0]), batch[1], task=cell.task)

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return optimizers.build(cell.optimizer, self.net, self.lr)

        model, train, _ = _fresh(cell, seed)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
            )
            finder = Tuner(trainer).lr_find(Module(model), train)
        assert finder is not None
        version = "2.5.2" if pl.__version__ == "2.5.2" else pl.__version__
        return {f"Lightning {version}": finder.suggestion()}, len(finder.results["loss"])


def torch_lr_finder(cell: Cell, seed: int) -> tuple[Rates, int]:
    """`LRFinder.range_test` from a rate of 1e-7, and the rate that its plot suggests."""
    with _quietly():
        import matplotlib as mpl  # noqa: PLC0415

        mpl.use("agg")
        import matplotlib.pyplot as plt  # noqa: PLC0415
        from torch_lr_finder import LRFinder  # noqa: PLC0415

        model, train, _ = _fresh(cell, seed)
        optimizer = optimizers.build(cell.optimizer, model, START)
        finder = LRFinder(model, optimizer, partial(tasks.loss, task=cell.task), device="cpu")
        finder.range_test(train, end_lr=END, num_iter=STEPS)
        try:
            shown = finder.plot(suggest_lr=True)
        finally:
            plt.close("all")
    rate = shown[1] if isinstance(shown, tuple) else None
    return {"torch-lr-finder": rate}, len(finder.history["loss"])


def ignite(cell: Cell, seed: int) -> tuple[Rates, int]:
    """`FastaiLRFinder` from 1e-7 to 10 in 100 steps, and its `lr_suggestion`."""
    with _quietly():
        from ignite.engine import create_supervised_trainer  # noqa: PLC0415
        from ignite.handlers import FastaiLRFinder  # noqa: PLC0415

        model, train, _ = _fresh(cell, seed)
        optimizer = optimizers.build(cell.optimizer, model, START)
        trainer = create_supervised_trainer(model, optimizer, partial(tasks.loss, task=cell.task))
        finder = FastaiLRFinder()
        kept = {"model": model, "optimizer": optimizer}
        with finder.attach(
            trainer, to_save=kept, start_lr=START, end_lr=END, num_iter=STEPS
        ) as with_finder:
            with_finder.run(train)
        rate = finder.lr_suggestion()
        steps = len(finder.get_results()["loss"])
    return {"ignite": float(rate)}, steps
