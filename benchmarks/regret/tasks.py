"""The tasks: small data, a model, a loss; all offline, all on one thread in about a second.

A task with `base` is a variant of another one: it breaks what a prior may expect by inputs, loss,
width, initial weights or batch of an unusual size, or has more samples for longer training. A
configuration names data, model and loss of a task by import path: `benchmarks.regret.tasks:data`,
`:model` and `:loss`.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

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

if TYPE_CHECKING:
    from collections.abc import Callable

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
LARGE = 40_000  # samples for 3,000 steps, which see each a few times rather than a hundred
TEXT = Path(__file__).parents[2] / "configs" / "char_lm.txt"


class Data(NamedTuple):
    """Inputs and targets to train on, and to validate on."""

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor


@dataclass(frozen=True)
class Task:
    """What is learned, by which model.

    Attributes:
        name: of the task.
        base: the task that this one is a variant of; its own name otherwise.
        data: returns the samples.
        model: returns the model with weights from torch's random state.
        loss: of a batch, the mean over its samples.
        batch: samples in a batch.
        input_scale: factor of the inputs.
        loss_scale: factor of the loss.
        loss_shift: added to the loss.
        init_scale: factor of all weights of two dimensions or more.
        kind: of training, as people speak of it; figures are published by kind.
    """

    name: str
    base: str
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    batch: int = 64
    input_scale: float = 1.0
    loss_scale: float = 1.0
    loss_shift: float = 0.0
    init_scale: float = 1.0
    kind: str = "scratch"


def _split(x: np.ndarray, y: np.ndarray, validation: int, *, scaled: bool = True) -> Data:
    """Shuffle and cut off the validation set; scale the inputs by the training set's moments."""
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    y = y.astype(np.float32 if np.issubdtype(y.dtype, np.floating) else np.int64)
    held, kept = slice(None, validation), slice(validation, None)
    if scaled:
        axis = 0 if x.ndim == 2 else None  # columns have units of their own, pixels one
        x = (x - x[kept].mean(axis)) / (x[kept].std(axis) + 1e-6)
    tensors = [torch.from_numpy(a) for a in (x[kept], y[kept], x[held], y[held])]
    return Data(*tensors)


@cache
def digits() -> Data:
    """Handwritten digits as (64,) vectors, 10 classes."""
    data = digit_images()
    return data._replace(x=data.x.flatten(1), x_validation=data.x_validation.flatten(1))


@cache
def digit_images() -> Data:
    """Handwritten digits as (1, 8, 8) images."""
    x, y = datasets.load_digits(return_X_y=True)
    return _split(x.reshape(-1, 1, 8, 8), y, validation=397)


@cache
def breast_cancer() -> Data:
    """Tumours by 30 measurements, 2 classes."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _split(x, y, validation=169)


@cache
def friedman1(samples: int = 3000) -> Data:
    """Friedman's first regression, 10 columns, one target of unit variance."""
    x, y = datasets.make_friedman1(samples, noise=1.0, random_state=0)
    return _split(x, ((y - y.mean()) / y.std())[:, None], validation=1000)


@cache
def friedman2(samples: int = 4000) -> Data:
    """Friedman's second regression, 4 columns, one target of unit variance."""
    x, y = datasets.make_friedman2(samples, noise=20.0, random_state=0)
    return _split(x, ((y - y.mean()) / y.std())[:, None], validation=1000)


@cache
def tabular(samples: int = 4000) -> Data:
    """Clusters with 20 columns, 4 classes, one label in twenty wrong."""
    x, y = datasets.make_classification(
        samples, 20, n_informative=10, n_classes=4, flip_y=0.05, random_state=0
    )
    return _split(x, y, validation=1000)


@cache
def imbalanced() -> Data:
    """Clusters with 30 columns, 3 classes of 80, 15 and 5%."""
    x, y = datasets.make_classification(
        5000,
        30,
        n_informative=8,
        n_classes=3,
        weights=[0.8, 0.15],
        flip_y=0.02,
        random_state=1,
    )
    return _split(x, y, validation=1000)


@cache
def heteroscedastic(samples: int = 4000) -> Data:
    """A curved function of 6 columns whose noise grows with the third."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (samples, 6))
    noise = np.exp(0.7 * x[:, 2] - 1) * rng.normal(size=samples)
    y = np.sin(x[:, 0] * x[:, 1]) + x[:, 2] + noise
    return _split(x, y[:, None], validation=1000)


@cache
def counts(samples: int = 4000) -> Data:
    """Counts whose logarithm is a curved function of 8 columns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8))
    rate = np.exp(0.8 * np.tanh(x[:, 0] + x[:, 1]) + 0.5 * np.sin(2 * x[:, 2]) + 0.5)
    return _split(x, rng.poisson(rate)[:, None].astype(float), validation=1000)


@cache
def stream(samples: int = 24_000) -> Data:
    """Inputs of a random network, each seen once: 16 columns, 4 targets."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    first, second = draw(16, 64) / 4, draw(64, 4) / 4
    x = draw(samples, 16)
    y = torch.relu(x @ first) @ second
    y = (y - y.mean(0)) / y.std(0) + 0.1 * draw(samples, 4)
    return Data(x[1000:], y[1000:], x[:1000], y[:1000])


@cache
def ratings() -> Data:
    """Ratings that users give to items, from 4 hidden traits: two indices, one target."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(200, 4)), rng.normal(size=(100, 4))
    pairs = np.stack([rng.integers(200, size=8000), rng.integers(100, size=8000)], 1)
    y = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) / 2 + 0.3 * rng.normal(size=8000)
    tensors = [torch.from_numpy(pairs), torch.from_numpy(y.astype(np.float32))[:, None]]
    return Data(tensors[0][1000:], tensors[1][1000:], tensors[0][:1000], tensors[1][:1000])


def _fashion_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Return the first 7,000 images, (28, 28) of bytes, and their classes.

    Raises:
        SystemExit: the files are not there.
    """
    if not FASHION_MNIST.is_dir():
        raise SystemExit(f"{FASHION_MNIST}: not there; apt-get install dataset-fashion-mnist")
    with gzip.open(FASHION_MNIST / "train-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read(16 + 7000 * 784), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FASHION_MNIST / "train-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(8 + 7000), np.uint8, offset=8)
    return x, y


@cache
def fashion(side: int = 28, *, flat: bool = False, raw: bool = False) -> Data:
    """Clothes, 10 classes: 6,000 images to train on, (1, side, side) or flat.

    With `raw` the pixels are 0 to 255, as a beginner forgets to scale them.
    """
    x, y = _fashion_arrays()
    if side == 14:
        x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    x = (x - x.mean()) / x.std() if flat and not raw else x  # one unit, though flat
    shaped = x.reshape(len(x), -1) if flat else x[:, None]
    return _split(shaped, y, validation=1000, scaled=not flat)


@cache
def fashion_pixels() -> Data:
    """Clothes of 14 × 14 pixels between 0 and 1, to be reproduced."""
    x = torch.from_numpy(_fashion_arrays()[0].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255).float()
    x = x.reshape(len(x), -1)
    return Data(x[1000:], x[1000:], x[:1000], x[:1000])


@cache
def digit_pixels() -> Data:
    """Digits to be reproduced from a noisy picture."""
    data = digits()
    generator = torch.Generator().manual_seed(0)
    noisy = [
        x + 0.3 * torch.randn(x.shape, generator=generator) for x in (data.x, data.x_validation)
    ]
    return Data(noisy[0], data.x, noisy[1], data.x_validation)


@cache
def characters(part: int, context: int) -> Data:
    """A half of Newton's Opticks (1730) as windows of characters, each target the next one."""
    text = TEXT.read_text()
    letters = sorted(set(text))
    half = len(text) // 2
    codes = torch.tensor([letters.index(c) for c in text[part * half : (part + 1) * half]])
    cut = int(0.9 * len(codes))

    def windows(codes: Tensor, hop: int) -> tuple[Tensor, Tensor]:
        rows = codes.unfold(0, context + 1, hop)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    x, y = windows(codes[:cut], context // 4)
    x_validation, y_validation = windows(codes[cut:], context)
    return Data(x, y, x_validation[:200], y_validation[:200])


VOCABULARY = len(set(TEXT.read_text()))


def sequence_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all places: outputs (B, T, V), targets (B, T)."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def gaussian_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood; outputs (B, 2) are the mean and the logarithm of the variance."""
    mean, log_variance = outputs[:, :1], outputs[:, 1:].clamp(-8, 8)
    return 0.5 * (log_variance + (targets - mean) ** 2 / log_variance.exp()).mean()


def poisson_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of counts whose log rate is the output."""
    return F.poisson_nll_loss(outputs.clamp(max=20), targets)


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
DEVELOPMENT_NEW: list[Task] = []
PUBLISHED_NEW: list[Task] = []

_ALL = [*DEVELOPMENT, *PUBLISHED, *DEVELOPMENT_NEW, *PUBLISHED_NEW]
TASKS = {task.name: task for task in _ALL}
assert len(TASKS) == len(_ALL), "two tasks of one name"


def samples(task: str) -> Data:
    """Return the samples of a task, scaled."""
    found = TASKS[task]
    data = found.data()
    if found.input_scale == 1:
        return data
    return data._replace(
        x=data.x * found.input_scale, x_validation=data.x_validation * found.input_scale
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
