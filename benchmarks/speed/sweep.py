"""How long a step of a sweep takes, by contender, in seconds.

The range of rates is low, so that no sweep ends early.
"""

from __future__ import annotations

import tempfile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrtool
from benchmarks.speed.cases import opened
from lrtool.engine.stopwatch import Stopwatch
from lrtool.search.experiment_subject import ExperimentSubject, plan_of
from lrtool.search.search import run_search

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.speed.cases import Case

BATCH = 64
START, END = 1e-7, 3e-3
SWEEP_ALONE = "minimum"  # find.method: a rule of the literature has no trials, "auto" may


def fresh(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """Return what a user of an object API has: a model, Adam, and a shuffled DataLoader."""
    torch.manual_seed(0)
    model = case.model()
    loader = DataLoader(TensorDataset(*case.data(case.samples)), batch_size=BATCH, shuffle=True)
    return model, torch.optim.Adam(model.parameters(), lr=START), loader


def plain_loop(case: Case) -> float:
    """A loop as everyone writes it: DataLoader, zero_grad, backward, step, loss.item()."""
    model, optimizer, loader = fresh(case)
    done = 0
    started = perf_counter()
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == case.steps:
                return (perf_counter() - started) / case.steps


def lrtool_find(case: Case) -> float:
    """The search of `lrtool find` on a configuration: the report's time in the sweep."""
    find = {"start": START, "end": END, "steps": case.steps, "method": SWEEP_ALONE}
    with opened(case, case.samples, BATCH, find=find) as (experiment, _):
        found = run_search(ExperimentSubject(experiment), plan_of(experiment), Stopwatch())
    assert found.failure is None
    assert found.trials is None
    assert len(found.sweeps[0].loss) == case.steps
    return float(found.timing["steps"] / found.timing["steps_per_s"] / case.steps)


def lrtool_find_lr(case: Case) -> float:
    """`lrtool.find_lr` on the user's own objects: the report's time in the sweep."""
    result, _ = call_find_lr(case, SWEEP_ALONE)
    assert result.report()["trials"] is None
    timing = result.report()["timing"]
    return float(timing["steps"] / timing["steps_per_s"] / case.steps)


def lrtool_find_lr_call(case: Case) -> float:
    """The same, with the first update, copying, restoring, smoothing and suggesting."""
    return call_find_lr(case, SWEEP_ALONE)[1] / case.steps


def lrtool_find_lr_trials(case: Case) -> float:
    """The same with its trials, two or three: all that a call costs by default."""
    result, elapsed = call_find_lr(case, "auto")
    assert result.report()["trials"] is not None
    return elapsed / case.steps


def call_find_lr(case: Case, method: str) -> tuple[lrtool.FindResult, float]:
    """Return the result and the seconds of the whole call."""
    model, optimizer, loader = fresh(case)
    started = perf_counter()
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        loader,
        start=START,
        end=END,
        steps=case.steps,
        method=method,
    )
    elapsed = perf_counter() - started
    assert len(result.sweeps[0].loss) == case.steps
    return result, elapsed


def torch_lr_finder(case: Case) -> float:
    """torch-lr-finder's range_test."""
    from torch_lr_finder import LRFinder  # noqa: PLC0415

    model, optimizer, loader = fresh(case)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    started = perf_counter()
    finder.range_test(loader, end_lr=END, num_iter=case.steps, diverge_th=1e9)
    elapsed = perf_counter() - started
    assert len(finder.history["loss"]) == case.steps
    return elapsed / case.steps


def ignite(case: Case) -> float:
    """Ignite's FastaiLRFinder on a supervised trainer."""
    from ignite.engine import create_supervised_trainer  # noqa: PLC0415
    from ignite.handlers import FastaiLRFinder  # noqa: PLC0415

    model, optimizer, loader = fresh(case)
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
    finder = FastaiLRFinder()
    started = perf_counter()
    with finder.attach(
        trainer,
        to_save={"model": model, "optimizer": optimizer},
        end_lr=END,
        num_iter=case.steps,
        diverge_th=1e9,
    ) as with_finder:
        with_finder.run(loader)
    elapsed = perf_counter() - started
    return elapsed / len(finder.get_results()["loss"])


def lightning(case: Case) -> float:
    """Lightning's Tuner.lr_find."""
    import lightning as pl  # noqa: PLC0415
    from lightning.pytorch.tuner import Tuner  # noqa: PLC0415

    class Module(pl.LightningModule):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net
            self.lr = START

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    model, _, loader = fresh(case)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        started = perf_counter()
        found = Tuner(trainer).lr_find(
            Module(model),
            loader,
            min_lr=START,
            max_lr=END,
            num_training=case.steps,
            early_stop_threshold=None,
        )
        elapsed = perf_counter() - started
    assert found is not None
    return elapsed / len(found.results["loss"])


CONTENDERS: dict[str, Callable[[Case], float]] = {
    "plain loop": plain_loop,
    "lrtool find": lrtool_find,
    "lrtool.find_lr": lrtool_find_lr,
    "  the whole call": lrtool_find_lr_call,
    "  with its trials": lrtool_find_lr_trials,
    "torch-lr-finder": torch_lr_finder,
    "ignite": ignite,
    "Lightning": lightning,
}
