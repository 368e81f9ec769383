"""The peers, the packages themselves, each called as its documentation says: a cell's rate.

Every function returns what each of the package's methods says: a rate, or in words why there is
none. Whatever a package raises is such a reason.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from functools import partial, wraps
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.regret import tasks, training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor, nn

    from benchmarks.regret.cells import Cell

Said = dict[str, float | str]
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


def _spelled(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def fastai(cell: Cell, seed: int) -> Said:
    """`Learner.lr_find` with its defaults, and each of its four rules on the same curve."""
    from fastai.callback import schedule  # noqa: PLC0415
    from fastai.data.core import DataLoaders  # noqa: PLC0415
    from fastai.learner import Learner  # noqa: PLC0415
    from fastai.optimizer import OptimWrapper  # noqa: PLC0415

    model, train, validation = training.fresh(cell, seed)
    known = training.OPTIMIZERS[cell.optimizer]
    said: Said = {}

    def kept(rule: Callable[..., Any]) -> Callable[..., Any]:
        """Let a rule that raises not silence the others."""

        @wraps(rule)
        def asked(*curve: Any) -> tuple[Any, Any]:
            name = f"fastai {rule.__name__}"
            try:
                rate, point = rule(*curve)
            except Exception as error:  # noqa: BLE001  (it is the answer)
                said[name] = _spelled(error)
                return None, None
            said[name] = float(rate)
            return rate, point

        return asked

    rules = (schedule.valley, schedule.slide, schedule.steep, schedule.minimum)
    with tempfile.TemporaryDirectory() as folder:
        learner = Learner(
            DataLoaders(train, validation),
            model,
            loss_func=partial(tasks.loss, task=cell.task),
            opt_func=partial(OptimWrapper, opt=known.build, **known.args),
            path=folder,
        )
        learner.lr_find(suggest_funcs=tuple(kept(rule) for rule in rules), show_plot=False)
    return said


def lightning(cell: Cell, seed: int) -> Said:
    """`Tuner.lr_find` with its defaults."""
    import lightning as pl  # noqa: PLC0415
    from lightning.pytorch.tuner import Tuner  # noqa: PLC0415

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    class Module(pl.LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net
            self.lr = 1e-3

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return tasks.loss(self.net(batch[0]), batch[1], task=cell.task)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return training.optimizer_of(cell.optimizer, self.net, self.lr)

    model, train, _ = training.fresh(cell, seed)
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
        rate = None if finder is None else finder.suggestion()
    return {f"Lightning {pl.__version__}": "no suggestion" if rate is None else float(rate)}


def torch_lr_finder(cell: Cell, seed: int) -> Said:
    """`LRFinder.range_test` from a rate of 1e-7, and the rate that its plot suggests."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from torch_lr_finder import LRFinder  # noqa: PLC0415

    model, train, _ = training.fresh(cell, seed)
    optimizer = training.optimizer_of(cell.optimizer, model, START)
    finder = LRFinder(model, optimizer, partial(tasks.loss, task=cell.task), device="cpu")
    finder.range_test(train, end_lr=END, num_iter=STEPS)
    try:
        _, rate = finder.plot()
    finally:
        plt.close("all")
    return {"torch-lr-finder": float(rate)}


def ignite(cell: Cell, seed: int) -> Said:
    """`FastaiLRFinder` from 1e-7 to 10 in 100 steps, and its `lr_suggestion`."""
    from ignite.engine import create_supervised_trainer  # noqa: PLC0415
    from ignite.handlers import FastaiLRFinder  # noqa: PLC0415

    model, train, _ = training.fresh(cell, seed)
    optimizer = training.optimizer_of(cell.optimizer, model, START)
    trainer = create_supervised_trainer(model, optimizer, partial(tasks.loss, task=cell.task))
    finder = FastaiLRFinder()
    kept = {"model": model, "optimizer": optimizer}
    with finder.attach(
        trainer, to_save=kept, start_lr=START, end_lr=END, num_iter=STEPS
    ) as with_finder:
        with_finder.run(train)
    return {"ignite": float(finder.lr_suggestion())}


class Peer(NamedTuple):
    """A package.

    Attributes:
        distribution: as pip names it.
        call: returns what each of its methods says about a cell.
        methods: their names, which a package that raises does not say.
    """

    distribution: str
    call: Callable[[Cell, int], Said]
    methods: tuple[str, ...]


PEERS = (
    Peer("fastai", fastai, ("fastai valley", "fastai slide", "fastai steep", "fastai minimum")),
    Peer("lightning", lightning, ("Lightning 2.6.6",)),
    Peer("torch-lr-finder", torch_lr_finder, ("torch-lr-finder",)),
    Peer("pytorch-ignite", ignite, ("ignite",)),
)
LIGHTNING_252 = Peer("lightning", lightning, ("Lightning 2.5.2",))


def ask(peer: Peer, cell: Cell, seed: int) -> dict[str, dict[str, Any]]:
    """Return each method's rate; null with the reason where there is none.

    Raises:
        ImportError: the environment lacks the package: that is no answer.
    """
    with _quietly():
        try:
            said = peer.call(cell, seed)
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001  (it is the answer)
            said = dict.fromkeys(peer.methods, _spelled(error))
    package = f"{peer.distribution} {metadata.version(peer.distribution)}"
    return {name: {**_answer(said[name]), "package": package} for name in peer.methods}


def _answer(said: float | str) -> dict[str, Any]:
    if isinstance(said, str):
        return {"lr": None, "reason": said}
    if not (math.isfinite(said) and said > 0):
        return {"lr": None, "reason": f"a rate of {said}"}
    return {"lr": said}
