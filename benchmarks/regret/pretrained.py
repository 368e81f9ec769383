"""Models that have learned something before: fine-tuned, under a new head, or with adapters.

They learn offline, from a seed, on one half of the classes or of a text; a task then trains them on
the other half. Their weights are kept in `FOLDER`: whoever changes how they are made deletes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.regret.data import Data

FOLDER = Path(__file__).parents[2] / "runs" / "regret" / "pretrained"
SEED = 7  # of pretraining; those of finders and trainings are others
RATE, BATCH = 3e-3, 32


@dataclass(frozen=True)
class Pretraining:
    """What a model has learned before.

    Attributes:
        name: of the file of its weights.
        data: returns the samples.
        model: returns the model with weights from torch's random state: a `Sequential` that ends
            with its head, or a module with a `head`.
        loss: of a batch.
        steps: of training with AdamW and a cosine.
    """

    name: str
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    steps: int = 600


@cache
def weights(source: Pretraining) -> dict[str, Tensor]:
    """Return the pretrained weights; they are trained the first time, and kept in a file."""
    path = FOLDER / f"{source.name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]), files.whole_file(path) as file:
            torch.save(_pretrained(source).state_dict(), file)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def _pretrained(source: Pretraining) -> nn.Module:
    torch.manual_seed(SEED)
    model, data = source.model(), source.data()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=source.steps)
    for _ in range(source.steps):
        rows = torch.randint(len(data.x), (BATCH,))
        optimizer.zero_grad()
        source.loss(model(data.x[rows]), data.y[rows]).backward()
        optimizer.step()
        schedule.step()
    return model


def tuned(source: Pretraining, *, new_head: bool) -> nn.Module:
    """Return a pretrained model, all of which trains."""
    model = source.model()
    head = f"{_head_of(model)}."
    kept = {
        key: value
        for key, value in weights(source).items()
        if not (new_head and key.startswith(head))
    }
    model.load_state_dict({**model.state_dict(), **kept})
    return model


def under_new_head(source: Pretraining) -> nn.Module:
    """Return a pretrained model that is frozen under a new head."""
    model = tuned(source, new_head=True)
    name = _head_of(model)
    head = model.get_submodule(name)
    setattr(model, name, nn.Identity())
    return nn.Sequential(Frozen(model), head)


def adapted(source: Pretraining, rank: int, alpha: float, *, new_head: bool = False) -> nn.Module:
    """Return a frozen pretrained model with an adapter at each linear layer.

    A new head has none: it trains itself.
    """
    model = tuned(source, new_head=new_head).requires_grad_(requires_grad=False)
    name = _head_of(model)
    for path, layer in list(model.named_modules()):
        under_head = path == name or path.startswith(f"{name}.")
        if isinstance(layer, nn.Linear) and not (new_head and under_head):
            above, _, own = path.rpartition(".")
            setattr(model.get_submodule(above), own, LoRA(layer, rank, alpha))
    if new_head:
        model.get_submodule(name).requires_grad_(requires_grad=True)
    return model


def _head_of(model: nn.Module) -> str:
    return "head" if hasattr(model, "head") else list(dict(model.named_children()))[-1]


class Frozen(nn.Module):
    """A model that no longer learns: batch norm and dropout stay as in evaluation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(requires_grad=False)
        self.train()

    def train(self, mode: bool = True) -> Frozen:  # noqa: FBT001, FBT002  (torch's signature)
        """Keep what is inside in evaluation."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """As the model's."""
        out: Tensor = self.model(x)
        return out


class LoRA(nn.Module):
    """A frozen linear layer and a product of two thin matrices (Hu et al. 2021, arXiv 2106.09685).

    The second matrix is 0 at first: the layer then gives what it gave before, and the first matrix
    has no gradient.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        out: Tensor = self.linear(x) + self.scale * F.linear(F.linear(x, self.a), self.b)
        return out


@cache
def classes(whole: Callable[[], Data], kept: range, samples: int | None = None) -> Data:
    """Return the samples of some classes, numbered from 0; of the training set the first ones."""
    data = whole()
    train = (data.y >= kept.start) & (data.y < kept.stop)
    validation = (data.y_validation >= kept.start) & (data.y_validation < kept.stop)
    return type(data)(
        data.x[train][:samples],
        data.y[train][:samples] - kept.start,
        data.x_validation[validation],
        data.y_validation[validation] - kept.start,
    )


def gratings(samples: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy stripes of 10 × 10 pixels and their 10 classes: five slopes, coarse and fine.

    Every second class is coarse.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=samples)
    slope = (y // 2) * np.pi / 5 + 0.1 * rng.normal(size=samples)
    waves = np.where(y % 2, 1.5, 0.9) * np.exp(0.1 * rng.normal(size=samples))
    phase = rng.uniform(0, 2 * np.pi, samples)
    down, across = np.mgrid[:10, :10]
    along = np.multiply.outer(np.cos(slope), across) + np.multiply.outer(np.sin(slope), down)
    x = np.sin(waves[:, None, None] * along + phase[:, None, None])
    return x[:, None] + 1.5 * rng.normal(size=(samples, 1, 10, 10)), y


def scores(judge: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 16 columns and 4 targets, which judge 0 or 1 makes of the same hidden traits."""
    rng = np.random.default_rng(0)
    hidden, judges = rng.normal(size=(16, 24)) / 2, rng.normal(size=(2, 24, 4))
    rng = np.random.default_rng(1 + judge)
    x = rng.normal(size=(samples, 16))
    y = np.tanh(x @ hidden) @ judges[judge]
    return x, y / y.std() + 0.2 * rng.normal(size=y.shape)


def verdicts(judge: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 16 columns and which of 4 classes has a judge's highest score."""
    x, y = scores(judge, samples)
    return x, y.argmax(1)


def backwards(text: str) -> str:
    """Return a text from its end to its start."""
    return text[::-1]


def with_turned_vowels(text: str) -> str:
    """Return a text in which each vowel is the next one: a for u."""
    return text.translate(str.maketrans("aeiouAEIOU", "eiouaEIOUA"))


def without_spaces(text: str) -> str:
    """Return a text whose words are not parted."""
    return text.replace(" ", "")


def in_capitals(text: str) -> str:
    """Return a text in capital letters, as far as the text has them."""
    return text.replace("ê", "e").upper()
