"""The tasks: small data, a model, a loss; all offline, all on one thread in about a second.

A task with `base` is a variant of another one: it breaks what a prior may expect by inputs, loss,
width, initial weights or batch of an unusual size, or has more samples for longer training. A
configuration names data, model and loss of a task by import path: `benchmarks.regret.tasks:data`,
`:model` and `:loss`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.regret import kinds, transfer
from benchmarks.regret.data import (
    VOCABULARY,
    breast_cancer,
    characters,
    counts,
    digit_images,
    digit_pixels,
    digits,
    fashion,
    fashion_pixels,
    friedman1,
    friedman2,
    heteroscedastic,
    imbalanced,
    ratings,
    stream,
    tabular,
)
from benchmarks.regret.losses import gaussian_loss, poisson_loss, sequence_loss
from benchmarks.regret.models import (
    VIT,
    CharGRU,
    CharLSTM,
    CharTransformer,
    Factorization,
    LayerNormMLP,
    autoencoder,
    cnn,
    mlp,
    residual_mlp,
    resnet,
)
from benchmarks.regret.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.regret.data import Data

LARGE = 40_000  # samples for 3,000 steps, which see each a few times rather than a hundred


def _variants(task: Task, **changes: dict[str, object]) -> list[Task]:
    return [
        replace(task, name=f"{task.name}_{name}", **change)  # type: ignore[arg-type]
        for name, change in changes.items()
    ]


def _task(
    name: str,
    data: Callable[[], Data],
    model: Callable[[], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    batch: int = 64,
) -> Task:
    return Task(name, name, data, model, loss, batch)


_DIGITS = _task("digits_mlp", digits, partial(mlp, 64, 64, 64, 10))
_FASHION = _task("fashion_mlp", partial(fashion, 14, flat=True), partial(mlp, 196, 64, 10))
_FRIEDMAN = _task("friedman1", friedman1, partial(mlp, 10, 48, 48, 1, act=nn.Tanh), F.mse_loss)
_TABULAR = _task("tabular", tabular, partial(mlp, 20, 64, 64, 64, 64, 4))

# Tasks that constants are fitted on.
DEVELOPMENT = [
    _DIGITS,
    *_variants(
        _DIGITS,
        inputs_x10={"input_scale": 10.0},
        batch_8={"batch": 8},
        init_x3={"init_scale": 3.0},
        loss_x100={"loss_scale": 100.0},
        wide_x8={"model": partial(mlp, 64, 512, 512, 10)},
    ),
    _FASHION,
    *_variants(_FASHION, batch_512={"batch": 512}, loss_shifted={"loss_shift": 1000.0}),
    _FRIEDMAN,
    *_variants(_FRIEDMAN, loss_x100={"loss_scale": 100.0}, batch_8={"batch": 8}),
    _TABULAR,
    *_variants(_TABULAR, inputs_x10={"input_scale": 10.0}, init_x3={"init_scale": 3.0}),
    _task("digits_cnn", digit_images, partial(cnn, 1, 8, (8, 16)), batch=32),
    _task("denoising", digit_pixels, partial(mlp, 64, 96, 24, 96, 64), F.mse_loss),
    _task("cancer", breast_cancer, partial(mlp, 30, 32, 2, act=nn.SiLU), batch=16),
    _task(
        "char_lstm",
        partial(characters, 0, 24),
        partial(CharLSTM, VOCABULARY, 48),
        sequence_loss,
        16,
    ),
    _task("ratings", ratings, partial(Factorization, 200, 100, 8), F.mse_loss, 128),
    _task("layer_norm", tabular, partial(LayerNormMLP, 20, 64, 4, layers=3), batch=128),
    *_variants(_FRIEDMAN, large={"data": partial(friedman1, LARGE)}),
    *_variants(_TABULAR, large={"data": partial(tabular, LARGE)}),
]

_FRIEDMAN2 = _task("friedman2", friedman2, partial(mlp, 4, 64, 64, 1, act=nn.SiLU), F.huber_loss)
_COUNTS = _task("counts", counts, partial(mlp, 8, 64, 64, 1), poisson_loss, 32)
_RESIDUAL = _task("digits_resmlp", digits, partial(residual_mlp, 64, 64, 10, blocks=3))
_CNN = _task("fashion_cnn", partial(fashion, 14), partial(cnn, 1, 14, (8, 16)))
_HETERO = _task(
    "heteroscedastic", heteroscedastic, partial(mlp, 6, 64, 64, 2, act=nn.SiLU), gaussian_loss
)
_LINEAR = _task("fashion_linear", partial(fashion, 14, flat=True), partial(mlp, 196, 10))
_STREAM = _task("stream", stream, partial(mlp, 16, 128, 4, act=nn.GELU, bias=False), F.mse_loss)
_TRANSFORMER = _task(
    "char_transformer",
    partial(characters, 1, 24),
    partial(CharTransformer, VOCABULARY, 24, 40),
    sequence_loss,
    16,
)

# Tasks that published figures come from.
PUBLISHED = [
    _RESIDUAL,
    *_variants(_RESIDUAL, inputs_x10={"input_scale": 10.0}, batch_512={"batch": 512}),
    _CNN,
    *_variants(_CNN, batch_8={"batch": 8}, loss_x100={"loss_scale": 100.0}),
    _task("fashion_resnet", partial(fashion, 14), partial(resnet, 1, 8, 10)),
    _task("fashion_vit", partial(fashion, 14), partial(VIT, 14, 7, 32, 10), batch=32),
    _HETERO,
    *_variants(_HETERO, loss_shifted={"loss_shift": 1000.0}, init_x3={"init_scale": 3.0}),
    _FRIEDMAN2,
    _task("deep_tanh", tabular, partial(mlp, 20, *[48] * 7, 4, act=nn.Tanh, bias=False)),
    _task(
        "autoencoder",
        fashion_pixels,
        partial(autoencoder, 196, 96, 16),
        F.binary_cross_entropy_with_logits,
    ),
    _task(
        "char_gru", partial(characters, 1, 24), partial(CharGRU, VOCABULARY, 48), sequence_loss, 16
    ),
    _TRANSFORMER,
    _task("imbalanced", imbalanced, partial(mlp, 30, 128, 128, 3, dropout=0.3)),
    _COUNTS,
    _LINEAR,
    *_variants(_LINEAR, raw={"data": partial(fashion, 14, flat=True, raw=True)}),
    _STREAM,
    *_variants(
        _STREAM,
        wide_x8={"model": partial(mlp, 16, 1024, 4, act=nn.GELU, bias=False)},
        large={"data": partial(stream, 200_000)},
    ),
    *_variants(_HETERO, large={"data": partial(heteroscedastic, LARGE)}),
    *_variants(_FRIEDMAN2, large={"data": partial(friedman2, LARGE)}),
    *_variants(_COUNTS, large={"data": partial(counts, LARGE)}),
]

# The same two for other kinds of training than from nothing, on ample data, by a usual schedule.
DEVELOPMENT_NEW = [*transfer.DEVELOPMENT, *kinds.DEVELOPMENT]
PUBLISHED_NEW = [*transfer.PUBLISHED, *kinds.PUBLISHED]

_ALL = [*DEVELOPMENT, *PUBLISHED, *DEVELOPMENT_NEW, *PUBLISHED_NEW]
TASKS = {task.name: task for task in _ALL}
assert len(TASKS) == len(_ALL), "two tasks of one name"


def samples(task: str) -> Data:
    """Return the samples of a task, scaled."""
    found = TASKS[task]
    data, scale = found.data(), found.input_scale
    if scale == 1:
        return data
    return data._replace(
        x=data.x * scale,
        x_validation=data.x_validation * scale,
        x_test=None if data.x_test is None else data.x_test * scale,
    )


def data(task: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return training and validation set, as a configuration's factory of data does."""
    found = samples(task)
    return (found.x, found.y), (found.x_validation, found.y_validation)


def model(task: str) -> nn.Module:
    """Return a model as it is before training; what does not train is frozen."""
    found = TASKS[task]
    net = found.model()
    if found.init_scale != 1:
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(found.init_scale)
    return net


def loss(outputs: Tensor, targets: Tensor, *, task: str) -> Tensor:
    """Return a task's loss of a batch."""
    found = TASKS[task]
    return found.loss_scale * found.loss(outputs, targets) + found.loss_shift


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of wrong classes; NaN for regression."""
    if targets.is_floating_point():
        return math.nan
    wrong = outputs.flatten(0, -2).argmax(1) != targets.flatten()
    return float(wrong.float().mean())
