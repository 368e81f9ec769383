"""The samples of the tasks: small, all offline."""

from __future__ import annotations

import gzip
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
TEXT = Path(__file__).parents[2] / "configs" / "char_lm.txt"


class Data(NamedTuple):
    """Inputs and targets to train on, to validate on, and to judge by.

    Without a test set of their own, the validation set judges.
    """

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor | None = None
    y_test: Tensor | None = None

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """What a training is judged by: inputs and targets."""
        if self.x_test is None or self.y_test is None:
            return self.x_validation, self.y_validation
        return self.x_test, self.y_test


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


def _fashion_arrays(images: int = 7000) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images, (28, 28) of bytes, and their classes.

    Raises:
        SystemExit: the files are not there.
    """
    if not FASHION_MNIST.is_dir():
        raise SystemExit(f"{FASHION_MNIST}: not there; apt-get install dataset-fashion-mnist")
    with gzip.open(FASHION_MNIST / "train-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read(16 + images * 784), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FASHION_MNIST / "train-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(8 + images), np.uint8, offset=8)
    return x, y


def small_fashion(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images, (1, 14, 14), and their classes."""
    x, y = _fashion_arrays(images)
    return x.reshape(-1, 1, 14, 2, 14, 2).mean((3, 5)), y


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
def made(
    arrays: Callable[[int], tuple[np.ndarray, np.ndarray]], samples: int, validation: int = 1000
) -> Data:
    """So many samples to train on of those that a function makes, and others to validate on."""
    return _split(*arrays(samples + validation), validation=validation)


@cache
def friedman3(samples: int) -> Data:
    """Friedman's third regression: the columns of his second, another target of unit variance."""
    x, y = datasets.make_friedman3(samples + 1000, noise=0.1, random_state=1)
    return _split(x, ((y - y.mean()) / y.std())[:, None], validation=1000)


@cache
def characters(
    part: int, context: int, parts: int = 2, written: Callable[[str], str] = str
) -> Data:
    """A part of Newton's Opticks (1730) as windows of characters, each target the next one.

    By default a half of it. `written` returns the part as it is written otherwise, in its letters.
    """
    text = TEXT.read_text()
    letters = sorted(set(text))
    size = len(text) // parts
    written_part = written(text[part * size : (part + 1) * size])
    codes = torch.tensor([letters.index(c) for c in written_part])
    cut = int(0.9 * len(codes))

    def windows(codes: Tensor, hop: int) -> tuple[Tensor, Tensor]:
        rows = codes.unfold(0, context + 1, hop)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    x, y = windows(codes[:cut], context // 4)
    x_validation, y_validation = windows(codes[cut:], context)
    return Data(x, y, x_validation[:200], y_validation[:200])


VOCABULARY = len(set(TEXT.read_text()))
