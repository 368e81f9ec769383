"""Made-up reports of trainings: a falling loss in any number of variations."""

import math
from dataclasses import replace

import numpy as np

from lrtool.report import records
from lrtool.report.records import LearningRate
from lrtool.report.report import TrainReport, thin

ENVIRONMENT = records.Environment(
    lrtool="0.1.0",
    torch="2.13.0",
    python="3.11.9",
    platform="Linux",
    device="cpu",
    device_name="x86_64",
    threads=2,
)
TIMING = records.Timing(
    total_s=12.5, setup_s=0.5, steps=230, steps_per_s=1200.0, samples_per_s=76_800.0
)
CONFIG = {
    "seed": 0,
    "data": {"source": "digits", "batch_size": 64},
    "model": {"name": "mlp", "args": {"hidden": [128, 128]}},
    "optimizer": {"name": "adamw", "args": {}},
    "train": {"epochs": 10, "schedule": {"name": "one_cycle", "args": {}, "warmup": 0.05}},
}
FACTS = {
    "config_hash": "c0ffee",
    "seed": 0,
    "data": records.DataFacts(
        samples={"train": 1437, "validation": 360},
        shapes={"inputs": (64,), "targets": ()},
        hash="abc",
    ),
    "model": records.ModelFacts(name="mlp", parameters=26_122, trainable=26_122),
    "environment": ENVIRONMENT,
}
UNVALIDATED = replace(FACTS["data"], samples={"train": 1797, "validation": 0})
BY_FLAG = LearningRate(value=0.0032, origin="flag", run=None)


def falling(progress):
    """2.3 at the beginning, 0.1 at the end."""
    return 0.1 + 2.2 * np.exp(-6 * progress)


def one_cycle(progress):
    """Up in 30% of the steps, down to nearly zero."""
    up = 0.5 - 0.5 * np.cos(np.pi * np.minimum(progress / 0.3, 1))
    down = 0.5 + 0.5 * np.cos(np.pi * np.clip((progress - 0.3) / 0.7, 0, 1))
    return 0.0032 * (0.04 + 0.96 * up) * down


def accuracy(progress):
    return 0.985 - 0.8 * np.exp(-8 * progress)


def step_rows(epochs=10, per_epoch=23, *, loss=falling, rate=one_cycle, noise=0.08, last=None):
    """Rows of `epochs` epochs; `last` replaces the last loss."""
    count = epochs * per_epoch
    progress = np.arange(count) / count
    losses = loss(progress)
    losses = losses * (1 + noise * np.random.default_rng(0).standard_normal(count))
    if last is not None:
        losses[-1] = last
    return [
        records.StepRow(
            step=index + 1,
            epoch=index // per_epoch + 1,
            lr=float(rate(progress[index])),
            loss=float(losses[index]),
            samples=64,
            grad_norm=None,
            skipped=False,
        )
        for index in range(count)
    ]


def epoch_rows(steps, *, validation=lambda loss: 1.1 * loss + 0.05, metrics=None, total=None):
    """One row for each epoch of the steps; metrics are functions of the progress."""
    metrics = {"accuracy": accuracy} if metrics is None else metrics
    rows = []
    total = total or len(steps)
    for epoch in range(1, steps[-1].epoch + 1):
        own = [row for row in steps if row.epoch == epoch]
        progress = own[-1].step / total
        rows.append(
            records.EpochRow(
                epoch=epoch,
                step=own[-1].step,
                lr=own[-1].lr,
                train_loss=float(np.mean([row.loss for row in own])),
                validation_loss=float(validation(own[-1].loss)) if validation else None,
                **{name: float(metric(progress)) for name, metric in metrics.items()},
            )
        )
    return rows


def best_of(epochs, metric="accuracy", choose=max):
    """The best row by a metric or by one of the losses."""

    def value(row):
        return row.metrics.get(metric, getattr(row, metric, None))

    finite = [row for row in epochs if value(row) is not None and math.isfinite(value(row))]
    if not finite:
        return None
    row = choose(finite, key=value)
    return records.BestEpoch(epoch=row.epoch, step=row.step, metric=metric, value=value(row))


DEFAULT = object()


def make_training(*, steps=DEFAULT, epochs=DEFAULT, best=DEFAULT, **changes):
    steps = step_rows() if steps is DEFAULT else steps
    epochs = epoch_rows(steps) if epochs is DEFAULT else epochs
    facts = {
        "learning_rate": BY_FLAG,
        "checkpoint": "checkpoints/last",
        "status": "completed",
        "reason": None,
        "suggestion": None,
        "config": CONFIG,
        "timing": TIMING,
        **FACTS,
    }
    if best is DEFAULT:
        best = best_of(epochs) if any(row.metrics for row in epochs) else None
    rows = {"epochs": tuple(epochs), "steps": thin(steps)}
    return TrainReport(best=best, **rows, **(facts | changes))


def odd_trainings():
    nan = math.nan

    def plain(steps, metric="validation_loss", *, metrics=None, **changes):
        validation = changes.pop("validation", lambda loss: 1.1 * loss + 0.05)
        epochs = epoch_rows(steps, validation=validation, metrics=metrics or {})
        return make_training(
            steps=steps, epochs=epochs, best=best_of(epochs, metric, min), **changes
        )

    def scaled(scale, offset=0.0):
        steps = step_rows(loss=lambda p: scale * falling(p) + offset, noise=0.02)
        return plain(steps, validation=lambda loss: loss + 0.02 * scale)

    def exploding(progress):
        return falling(progress) + 10 ** (60 * np.maximum(progress - 0.8, 0)) - 1

    def wide(progress):
        return 10 ** (9 - 18 * progress)

    many = {
        "accuracy": accuracy,
        "top_5_accuracy": lambda p: 1 - 0.2 * np.exp(-9 * p),
        "f1": lambda p: accuracy(p) - 0.03,
        "perplexity": lambda p: 1e4 * np.exp(-7 * p) + 15,
        "my_package.metrics:a_metric_with_a_very_long_name_that_never_ends": lambda p: -1e-9 * p,
        "auroc": lambda _: nan,
        "r2": accuracy,
    }
    usual = step_rows()
    diverged = step_rows(loss=exploding, last=nan)
    at_once = step_rows(1, 6, loss=lambda p: 2.3 * 10 ** (36 * p), last=math.inf)
    blown_up = step_rows(2, 3, loss=lambda p: 2.3 * 10 ** (66 * p), last=nan)
    spoilt = step_rows(6, loss=lambda p: np.where(abs(p - 0.06) < 0.03, 1e13, 2.3 + p))
    return {
        "usual": make_training(),
        "one epoch": make_training(steps=step_rows(1)),
        "one epoch, one step": make_training(steps=step_rows(1, 1)),
        "two epochs": make_training(steps=step_rows(2)),
        "an epoch is a step": plain(step_rows(40, 1)),
        "500 epochs": make_training(steps=step_rows(500, 10)),
        "12345 steps an epoch": make_training(steps=step_rows(3, 12_345, noise=0.3)),
        "no validation": plain(usual, "train_loss", validation=None, data=UNVALIDATED),
        "metrics without validation": make_training(
            epochs=epoch_rows(usual, validation=None), data=UNVALIDATED
        ),
        "validation always NaN": plain(usual, "train_loss", validation=lambda _: nan),
        "overfit": plain(usual, validation=lambda loss: 0.5 + 1 / (0.3 + loss)),
        "diverged": make_training(
            steps=diverged,
            epochs=epoch_rows(diverged)[:-1],
            status="diverged",
            reason="the loss is NaN at step 230 with rate 6.5e-8; first in layers.3.weight: "
            "try half the rate, or train.gradient_clip_norm: 1",
        ),
        "diverged at once": make_training(
            steps=at_once, epochs=[], status="diverged", reason="the loss is infinite at step 6"
        ),
        "diverged after an epoch at once": make_training(
            steps=blown_up,
            epochs=epoch_rows(blown_up, validation=lambda _: nan, metrics={"f1": lambda _: nan})[
                :1
            ],
            best=best_of(epoch_rows(blown_up), "train_loss", min),
            status="diverged",
            reason="the loss is nan at step 6",
        ),
        "spoilt beginning": plain(spoilt),
        "NaN at the first step": make_training(
            steps=step_rows(1, 1, last=nan), epochs=[], status="diverged", reason="NaN at step 1"
        ),
        "interrupted": make_training(
            steps=usual[:100],
            epochs=epoch_rows(usual[:100], total=230),
            status="interrupted",
            reason="interrupted by SIGTERM",
        ),
        "interrupted before an epoch": make_training(
            steps=usual[:9], epochs=[], status="interrupted", reason="interrupted by SIGINT"
        ),
        "nothing": make_training(
            steps=[],
            epochs=[],
            status="failed",
            reason="out of memory",
            learning_rate=None,
            checkpoint=None,
            data=None,
            model=None,
        ),
        "many metrics": make_training(epochs=epoch_rows(usual, metrics=many)),
        "1e9 to 1e-9": plain(step_rows(loss=wide)),
        "negative": scaled(1.0, -10.0),
        "huge": scaled(1e30),
        "largest": scaled(1e306),
        "tiny": scaled(1e-12),
        "plus 1000": scaled(0.001, 1000.0),
        "constant": plain(step_rows(loss=np.ones_like, noise=0, rate=lambda _: 0.1)),
        "zero": plain(
            step_rows(loss=np.zeros_like, noise=0, rate=lambda p: 0.1 * (1 - p)),
            validation=lambda _: 0.0,
        ),
        "spikes": make_training(
            steps=step_rows(loss=lambda p: falling(p) + 50 * (np.arange(p.size) % 70 == 69))
        ),
        "step schedule": make_training(
            steps=step_rows(rate=lambda p: 0.1 * 0.1 ** (p // 0.34)),
            learning_rate=LearningRate(value=0.1, origin="optimizer", run=None),
        ),
        "rate from a run": make_training(
            learning_rate=LearningRate(
                value=0.0032, origin="run", run="runs/digits/20260101T000000Z-find"
            ),
        ),
        "odd text": make_training(
            model=records.ModelFacts(
                name="[bold]my_package.$x_1$:模型" + "ResNet" * 20, parameters=1, trainable=1
            ),
            reason="see [red]notes[/red] \\[x] $y^2$ :smile: 100%; " + "and so on " * 40,
            learning_rate=LearningRate(value=0.0032, origin="run", run="runs/" + "$x_1$模" * 30),
        ),
    }


ODD_TRAININGS = odd_trainings()
