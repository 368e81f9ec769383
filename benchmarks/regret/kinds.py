"""Tasks of other kinds than ample data for 300 steps: what is trained from nothing all the same.

Little data, series, imbalance, noise, long trainings, embeddings of many rows, other schedules.

Where a kind would have only few samples to judge by, or where single targets say little, a task has
a test set of its own: finders see its validation set, of the size that a user would have; what
they name is judged by the test set.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn import datasets
from torch import nn
from torch.nn import functional as F

from benchmarks.regret import series
from benchmarks.regret.data import (
    Data,
    counts,
    digits,
    fashion,
    friedman1,
    heteroscedastic,
    small_fashion,
    stream,
    tabular,
)
from benchmarks.regret.losses import gaussian_loss, log_cosh, minus_reward, poisson_loss
from benchmarks.regret.models import (
    BagOfWords,
    LayerNormMLP,
    NextItem,
    SeriesGRU,
    cnn,
    mlp,
    series_cnn,
)
from benchmarks.regret.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _cut(x: np.ndarray, y: np.ndarray, train: int, validation: int) -> Data:
    """Shuffle and cut into three, the test set last; scale the inputs by the training set."""
    order = np.random.default_rng(0).permutation(len(x))
    return _thirds(x[order], y[order], train, validation, scaled=True)


def _few(x: np.ndarray, y: np.ndarray, train: int) -> Data:
    """Do the same with classes of equal size, or nearly, in the training set."""
    order = np.random.default_rng(0).permutation(len(x))
    turn = np.zeros(len(y), int)  # how many of its class come before a sample
    for label in np.unique(y):
        own = np.flatnonzero(y[order] == label)
        turn[own] = np.arange(len(own))
    first = np.sort(np.argsort(turn, kind="stable")[:train])
    order = np.concatenate([order[first], np.delete(order, first)])
    return _thirds(x[order], y[order], train, 30, scaled=True)


def _thirds(
    x: np.ndarray, y: np.ndarray, train: int, validation: int, *, scaled: bool = False
) -> Data:
    """Cut into training, validation and test set."""
    y = y.astype(np.float32 if np.issubdtype(y.dtype, np.floating) else np.int64)
    if scaled:
        axis = (0, *range(2, x.ndim))  # columns and channels have units of their own
        kept = x[:train]
        x = (x - kept.mean(axis, keepdims=True)) / (kept.std(axis, keepdims=True) + 1e-3)
        x = x.astype(np.float32)
    ends = train, train + validation
    parts = zip(np.split(x, ends), np.split(y, ends), strict=True)
    return Data(*(torch.from_numpy(array) for pair in parts for array in pair))


# --- little data: the validation set is little too, the test set is what is left


@cache
def wine(samples: int) -> Data:
    """Wines by 13 measurements, 3 classes."""
    x, y = datasets.load_wine(return_X_y=True)
    return _few(x, y, samples)


@cache
def few_digits(samples: int) -> Data:
    """Handwritten digits, (1, 8, 8), 10 classes."""
    x, y = datasets.load_digits(return_X_y=True)
    return _few(x.reshape(-1, 1, 8, 8), y, samples)


@cache
def diabetes(samples: int) -> Data:
    """The progress of a disease by 10 measurements, one target of unit variance."""
    x, y = datasets.load_diabetes(return_X_y=True)
    return _cut(x, ((y - y.mean()) / y.std())[:, None], train=samples, validation=30)


@cache
def tumours(samples: int) -> Data:
    """Tumours by 30 measurements, benign or malignant."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _few(x, y, samples)


@cache
def surface(samples: int, noise: float = 0.0) -> Data:
    """A smooth function of 3 columns, one target of unit variance, with noise or without."""
    rng = np.random.default_rng(13)
    x = rng.uniform(-1, 1, (2000 + samples, 3))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + np.exp(-2 * x[:, 2] ** 2)
    y = (y - y.mean()) / y.std() + noise * rng.normal(size=len(y))
    return _cut(x, y[:, None], train=samples, validation=30)


@cache
def few_friedman(samples: int) -> Data:
    """Friedman's first function of 10 columns, five of which do not matter, one noisy target."""
    x, y = datasets.make_friedman1(2000 + samples, noise=1.0, random_state=14)
    return _cut(x, ((y - y.mean()) / y.std())[:, None], train=samples, validation=30)


@cache
def iris(samples: int) -> Data:
    """Flowers by 4 measurements, 3 classes."""
    x, y = datasets.load_iris(return_X_y=True)
    return _few(x, y, samples)


@cache
def pendulum(samples: int) -> Data:
    """Where a pendulum is, by its length, its first angle, gravity and the time."""
    x = np.random.default_rng(12).uniform((0.5, 0.1, 5, 0), (2, 1, 15, 2), (2000 + samples, 4))
    length, angle, gravity, time = x.T
    y = angle * np.cos(np.sqrt(gravity / length) * time)
    return _cut(x, ((y - y.mean()) / y.std())[:, None], train=samples, validation=30)


@cache
def few_clothes(samples: int) -> Data:
    """Clothes, (1, 14, 14), 10 classes."""
    x, y = small_fashion(1500)
    return _few(x, y, samples)


# --- series


@cache
def archived(name: str, train: int, validation: int, *, every: int = 1) -> Data:
    """Series of an archive, (channels, length), `every` values averaged to one."""
    x, y = series.load(name)
    whole = x.shape[2] // every * every
    x = x[:, :, :whole].reshape(*x.shape[:2], -1, every).mean(3)
    return _cut(x, y, train, validation)


# --- classes of very unequal size


@cache
def rare_clusters(*shares: float) -> Data:
    """Clusters with 20 columns, one class for each share."""
    x, y = datasets.make_classification(
        12_000,
        20,
        n_informative=8,
        n_classes=len(shares),
        weights=list(shares),
        flip_y=0.0,
        class_sep=0.8,
        random_state=len(shares),
    )
    return _cut(x, y, train=3000, validation=1000)


@cache
def rare_clothes() -> Data:
    """T-shirts, and 2% shirts: (1, 14, 14)."""
    x, y = small_fashion(60_000)
    common, rare = np.flatnonzero(y == 0)[:5880], np.flatnonzero(y == 6)[:120]
    rows = np.concatenate([common, rare])
    return _cut(x[rows], (y[rows] == 6).astype(int), train=2500, validation=500)


@cache
def rare_shells() -> Data:
    """Clouds of 12 columns around each other: 90% inside, 8% around them, 2% outside."""
    rng = np.random.default_rng(1)
    y = rng.choice(3, 12_000, p=[0.9, 0.08, 0.02])
    x = rng.normal(size=(len(y), 12)) * np.array([0.7, 1.2, 1.8])[y, None]
    x[:, :2] += np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[y]
    return _cut(x, y, train=3000, validation=1000)


# --- noise: where the mean of noisy losses says little, the test set's targets have no noise


def _noisy(x: np.ndarray, truth: np.ndarray, noisy: np.ndarray, train: int) -> Data:
    """Train and validate on noisy targets, test on the true ones."""
    cut = train + 1000
    y = np.concatenate([noisy[:cut], truth[cut:]]).astype(np.float32)
    return _thirds(x.astype(np.float32), y, train, 1000)


@cache
def heavy_tails(samples: int) -> Data:
    """A curved function of 8 columns with noise of Student's t, 1.5 degrees of freedom."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(samples + 4000, 8))
    truth = np.sin(2 * x[:, :1]) + x[:, 1:2] * np.tanh(x[:, 2:3]) + 0.5 * x[:, 3:4]
    noise = 0.5 * rng.standard_t(1.5, truth.shape)
    return _noisy(x, truth, truth + noise, samples)


@cache
def sparse_returns(samples: int = 8000) -> Data:
    """A reward of 10 that seldom comes; how often depends on 6 columns. Tested on its mean."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (samples + 4000, 6))
    chance = 1 / (1 + np.exp(3 - 2 * x[:, :1] - 2 * np.sin(3 * x[:, 1:2]) * x[:, 2:3]))
    return _noisy(x, 10 * chance, 10.0 * (rng.uniform(size=chance.shape) < chance), samples)


@cache
def wrong_labels() -> Data:
    """Clusters with 16 columns, 3 classes; two labels in five are drawn anew."""
    x, y = datasets.make_classification(
        11_000, 16, n_informative=8, n_classes=3, flip_y=0.4, random_state=7
    )
    return _cut(x, y, train=6000, validation=1000)


@cache
def cauchy(samples: int) -> Data:
    """A curved function of 6 columns with Cauchy noise."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-2, 2, (samples + 4000, 6))
    truth = np.cos(2 * x[:, :1]) * x[:, 1:2] + np.abs(x[:, 2:3])
    return _noisy(x, truth, truth + 0.5 * rng.standard_cauchy(truth.shape), samples)


@cache
def wrong_clothes() -> Data:
    """Clothes as (196,) vectors, 10 classes; two labels in five are drawn anew."""
    x, y = small_fashion(11_000)
    rng = np.random.default_rng(5)
    y = np.where(rng.uniform(size=len(y)) < 0.4, rng.integers(10, size=len(y)), y)
    return _cut(x.reshape(len(x), -1), y, train=6000, validation=1000)


@cache
def bandit(samples: int = 8000) -> Data:
    """Rewards of 5 actions in a context of 8 columns, one of which was tried at random.

    The targets are the rewards that each action is estimated to give: 5 times the noisy one for the
    action that was tried, 0 for the others. Tested on the true means.
    """
    rng = np.random.default_rng(6)
    x = rng.normal(size=(samples + 4000, 8))
    truth = np.tanh(x @ rng.normal(size=(8, 5)) / 2)
    tried = np.eye(5)[rng.integers(5, size=len(x))]
    return _noisy(x, truth, 5 * tried * (truth + 2 * rng.normal(size=truth.shape)), samples)


# --- embeddings with many rows, of which a batch touches few


def _zipf(words: int, exponent: float) -> np.ndarray:
    return (np.arange(words) + 3.0) ** -exponent


@cache
def topics() -> Data:
    """Texts of 30 words out of 5,000, 4 topics; each topic has its own frequencies of words."""
    rng = np.random.default_rng(8)
    common = _zipf(5000, 1.0)
    y = rng.integers(4, size=7000)
    x = np.zeros((len(y), 30), np.int64)
    for topic in range(4):
        chances = common * np.exp(0.8 * rng.normal(size=len(common)))
        rows = np.flatnonzero(y == topic)
        x[rows] = rng.choice(len(common), (len(rows), 30), p=chances / chances.sum())
    return _thirds(x, y, 4000, 500)


@cache
def phrases() -> Data:
    """Texts of 10 words out of 2,000, good or bad: few texts for so many words."""
    rng = np.random.default_rng(15)
    chances = _zipf(2000, 0.9)
    mood = 2.0 * rng.normal(size=2000) * (rng.uniform(size=2000) < 0.3)
    x = rng.choice(2000, (4000, 10), p=chances / chances.sum())
    y = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-mood[x].sum(1)))
    return _thirds(x, y.astype(int), 1200, 300)


@cache
def opinions() -> Data:
    """Texts of 25 words out of 4,000 for, against, or neither; one word in four is of a side."""
    rng = np.random.default_rng(16)
    chances = _zipf(4000, 1.0)
    side = 3.0 * rng.normal(size=(4000, 3)) * (rng.uniform(size=(4000, 1)) < 0.25)
    x = rng.choice(4000, (6500, 25), p=chances / chances.sum())
    scores = side[x].sum(1) + rng.gumbel(size=(len(x), 3))
    return _thirds(x, scores.argmax(1), 3500, 500)


@cache
def moods() -> Data:
    """Texts of 20 words out of 3,000, good or bad; one word in five has a mood."""
    rng = np.random.default_rng(9)
    chances = _zipf(3000, 1.1)
    mood = 1.5 * rng.normal(size=3000) * (rng.uniform(size=3000) < 0.2)
    x = rng.choice(3000, (7000, 20), p=chances / chances.sum())
    y = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-mood[x].sum(1)))
    return _thirds(x, y.astype(int), 4000, 500)


@cache
def successors() -> Data:
    """Five items out of 1,000 and the next one: often one of the last one's few successors."""
    rng = np.random.default_rng(10)
    chances = _zipf(1000, 0.8)
    chances /= chances.sum()
    follow = rng.choice(1000, (1000, 4), p=chances)
    walks = np.zeros((12_500, 6), np.int64)
    walks[:, 0] = rng.choice(1000, len(walks), p=chances)
    for place in range(1, 6):
        chosen = follow[walks[:, place - 1], rng.integers(4, size=len(walks))]
        free = rng.choice(1000, len(walks), p=chances)
        walks[:, place] = np.where(rng.uniform(size=len(walks)) < 0.8, chosen, free)
    return _thirds(walks[:, :5], walks[:, 5], 9000, 500)


@cache
def tastes() -> Data:
    """Four items out of 2,000 and the next one, of people with each one favourite shelf of 40."""
    rng = np.random.default_rng(11)
    shelf, chances = rng.permutation(2000).reshape(50, 40), _zipf(2000, 0.9)
    within = _zipf(40, 1.0)
    walks = shelf[
        rng.choice(50, (12_500, 1), p=_zipf(50, 0.7) / _zipf(50, 0.7).sum()),
        rng.choice(40, (12_500, 5), p=within / within.sum()),
    ]
    free = rng.choice(2000, walks.shape, p=chances / chances.sum())
    walks = np.where(rng.uniform(size=walks.shape) < 0.7, walks, free)
    return _thirds(walks[:, :4], walks[:, 4], 9000, 500)


def _task(
    kind: str,
    name: str,
    data: Callable[[], Data],
    model: Callable[[], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    *,
    batch: int = 64,
) -> Task:
    return Task(name, name, data, model, loss, batch, kind=kind)


SAMPLES = 40_000  # of long trainings

# Tasks that constants are fitted on.
DEVELOPMENT = [
    _task("small", "wine_12", partial(wine, 12), partial(mlp, 13, 32, 3), batch=12),
    _task("small", "digits_60", partial(few_digits, 60), partial(cnn, 1, 8, (8, 16)), batch=16),
    _task(
        "small",
        "diabetes_100",
        partial(diabetes, 100),
        partial(mlp, 10, 64, 64, 1),
        F.mse_loss,
        batch=20,
    ),
    _task("small", "tumours_40", partial(tumours, 40), partial(mlp, 30, 32, 2), batch=8),
    _task(
        "small",
        "surface_30",
        partial(surface, 30),
        partial(mlp, 3, 48, 48, 1, act=nn.Tanh),
        F.mse_loss,
        batch=10,
    ),
    _task(
        "small",
        "surface_60",
        partial(surface, 60, 0.4),
        partial(mlp, 3, 64, 64, 1),
        F.mse_loss,
        batch=12,
    ),
    _task(
        "small",
        "friedman_50",
        partial(few_friedman, 50),
        partial(mlp, 10, 48, 48, 1, act=nn.GELU),
        F.mse_loss,
        batch=10,
    ),
    _task(
        "sequence",
        "appliances_cnn",
        partial(archived, "ACSF1", 80, 40, every=10),
        partial(series_cnn, 1, 12, 10),
        batch=16,
    ),
    _task(
        "sequence",
        "gunpoint_cnn",
        partial(archived, "GunPoint", 50, 30),
        partial(series_cnn, 1, 12, 2),
        batch=16,
    ),
    _task(
        "sequence",
        "power_gru",
        partial(archived, "ItalyPowerDemand", 67, 100),
        partial(SeriesGRU, 1, 24, 2),
        batch=16,
    ),
    _task(
        "sequence",
        "vowels_gru",
        partial(archived, "JapaneseVowels_eq", 270, 70),
        partial(SeriesGRU, 12, 32, 9),
        batch=32,
    ),
    _task(
        "imbalance", "rare_98_2", partial(rare_clusters, 0.98, 0.02), partial(mlp, 20, 64, 64, 2)
    ),
    _task(
        "imbalance",
        "rare_90_8_2",
        partial(rare_clusters, 0.9, 0.08, 0.02),
        partial(mlp, 20, 96, 3, act=nn.GELU),
    ),
    _task(
        "noise", "heavy_tails", partial(heavy_tails, 20_000), partial(mlp, 8, 64, 64, 1), F.mse_loss
    ),
    _task("noise", "sparse_returns", sparse_returns, partial(mlp, 6, 64, 64, 1), F.mse_loss),
    _task("noise", "wrong_labels", wrong_labels, partial(mlp, 16, 64, 64, 3)),
    _task(
        "long",
        "long_friedman1",
        partial(friedman1, SAMPLES),
        partial(mlp, 10, 32, 1, act=nn.Tanh),
        F.mse_loss,
    ),
    _task("long", "long_tabular", partial(tabular, SAMPLES), partial(mlp, 20, 32, 4)),
    _task("embedding", "phrases", phrases, partial(BagOfWords, 2000, 16, 2, layers=2), batch=32),
    _task("embedding", "opinions", opinions, partial(BagOfWords, 4000, 24, 3, layers=2), batch=32),
    _task("embedding", "topics", topics, partial(BagOfWords, 5000, 16, 4), batch=32),
    _task("embedding", "successors", successors, partial(NextItem, 1000, 24, 5)),
    _task("schedule", "schedule_digits", digits, partial(mlp, 64, 128, 10), batch=32),
    _task("schedule", "schedule_tabular", tabular, partial(LayerNormMLP, 20, 48, 4, layers=2)),
]

# Tasks that published figures come from.
PUBLISHED = [
    _task("small", "iris_12", partial(iris, 12), partial(mlp, 4, 32, 3), batch=12),
    _task(
        "small",
        "pendulum_30",
        partial(pendulum, 30),
        partial(mlp, 4, 48, 48, 1, act=nn.SiLU),
        F.mse_loss,
        batch=10,
    ),
    _task(
        "small", "clothes_100", partial(few_clothes, 100), partial(cnn, 1, 14, (8, 16)), batch=20
    ),
    _task(
        "sequence",
        "arrows_cnn",
        partial(archived, "ArrowHead", 36, 30, every=2),
        partial(series_cnn, 1, 12, 3),
        batch=12,
    ),
    _task(
        "sequence",
        "leaves_cnn",
        partial(archived, "OSULeaf", 200, 42, every=3),
        partial(series_cnn, 1, 16, 6),
        batch=32,
    ),
    _task(
        "sequence",
        "motions_gru",
        partial(archived, "BasicMotions", 32, 16, every=4),
        partial(SeriesGRU, 6, 24, 4),
        batch=8,
    ),
    _task("imbalance", "rare_clothes", rare_clothes, partial(cnn, 1, 14, (8, 8), outputs=2)),
    _task("imbalance", "rare_shells", rare_shells, partial(mlp, 12, 64, 64, 3)),
    _task("noise", "cauchy", partial(cauchy, 20_000), partial(mlp, 6, 64, 64, 1), log_cosh),
    _task("noise", "wrong_clothes", wrong_clothes, partial(mlp, 196, 64, 10)),
    _task("noise", "bandit", bandit, partial(mlp, 8, 64, 5, bias=False), minus_reward),
    _task("long", "long_counts", partial(counts, SAMPLES), partial(mlp, 8, 32, 1), poisson_loss),
    _task(
        "long",
        "long_stream",
        partial(stream, 200_000),
        partial(mlp, 16, 48, 4, act=nn.GELU),
        F.mse_loss,
    ),
    _task("embedding", "moods", moods, partial(BagOfWords, 3000, 16, 2, layers=2), batch=32),
    _task("embedding", "tastes", tastes, partial(NextItem, 2000, 24, 4, tied=True)),
    _task(
        "schedule",
        "schedule_clothes",
        partial(fashion, 14, flat=True),
        partial(mlp, 196, 48, 48, 10),
    ),
    _task(
        "schedule",
        "schedule_heteroscedastic",
        heteroscedastic,
        partial(mlp, 6, 48, 48, 2, act=nn.GELU),
        gaussian_loss,
    ),
]
