"""The benchmark's models: small, and none of lrtool's own."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable


def mlp(
    *widths: int,
    act: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    bias: bool = True,
) -> nn.Module:
    """Return a plain network of linear layers, (B, widths[0]) → (B, widths[-1])."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        if i:
            layers += [act(), nn.Dropout(dropout)] if dropout else [act()]
        layers.append(nn.Linear(before, after, bias=bias))
    return nn.Sequential(*layers)


class LayerNormMLP(nn.Module):
    """Linear layers, each followed by layer norm and GELU."""

    def __init__(self, inputs: int, width: int, outputs: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.GELU()) for a, b in pairwise(sizes)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) → (B, outputs)."""
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(x)
        return out


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


def residual_mlp(inputs: int, width: int, outputs: int, blocks: int) -> nn.Module:
    """Return a network of pre-norm residual blocks, without biases but in the norms."""
    body = [
        _Residual(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
        )
        for _ in range(blocks)
    ]
    return nn.Sequential(
        nn.Linear(inputs, width), *body, nn.LayerNorm(width), nn.Linear(width, outputs)
    )


def cnn(channels: int, side: int, widths: tuple[int, int], *, outputs: int = 10) -> nn.Module:
    """Return two convolutions with batch norm, (B, channels, side, side) → (B, outputs)."""
    a, b = widths
    left = side // 2 // 2
    return nn.Sequential(
        nn.Conv2d(channels, a, 3, padding=1),
        nn.BatchNorm2d(a),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(b * left * left, outputs),
    )


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.skip = nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def resnet(channels: int, width: int, outputs: int) -> nn.Module:
    """Return a small residual network with batch norm, (B, channels, S, S) → (B, outputs)."""
    return nn.Sequential(
        _Block(channels, width, 2),
        _Block(width, 2 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, outputs),
    )


def autoencoder(inputs: int, width: int, code: int) -> nn.Module:
    """Return a network that squeezes its inputs through `code` numbers."""
    return mlp(inputs, width, code, width, inputs, act=nn.GELU)


class _Attention(nn.Module):
    """Transformer layer, pre-norm: attention, then a network at each place."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.net = mlp(width, 4 * width, width, act=nn.GELU)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).unbind(2)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=self.causal
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        out: Tensor = x + self.net(self.norm2(x))
        return out


class VIT(nn.Module):
    """Vision transformer: square patches as words, their mean classified."""

    def __init__(self, side: int, patch: int, width: int, outputs: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn((side // patch) ** 2, width))
        self.layers = nn.Sequential(*(_Attention(width, 4, causal=False) for _ in range(2)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, side, side) → (B, outputs)."""
        words = self.patches(x).flatten(2).transpose(1, 2) + self.place
        out: Tensor = self.head(self.layers(words).mean(1))
        return out


class CharTransformer(nn.Module):
    """Language model of characters: causal attention."""

    def __init__(self, vocabulary: int, context: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(context, width))
        self.layers = nn.Sequential(*(_Attention(width, 4, causal=True) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) of codes → (B, T, V)."""
        out: Tensor = self.head(self.layers(self.embedding(x) + self.place))
        return out


class _CharRNN(nn.Module):
    def __init__(self, vocabulary: int, width: int, rnn: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.rnn = rnn
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) of codes → (B, T, V)."""
        out: Tensor = self.head(self.rnn(self.embedding(x))[0])
        return out


class CharLSTM(_CharRNN):
    """Language model of characters: an LSTM."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width, nn.LSTM(width, width, batch_first=True))


class CharGRU(_CharRNN):
    """Language model of characters: a GRU."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width, nn.GRU(width, width, batch_first=True))


class Factorization(nn.Module):
    """Rating = user's traits · item's traits + a bias of each."""

    def __init__(self, users: int, items: int, traits: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, traits), nn.Embedding(items, traits)
        self.bias = nn.Embedding(users, 1)
        for table in (self.user, self.item, self.bias):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, 2) of indices → (B, 1)."""
        user, item = pairs.unbind(1)
        dot = (self.user(user) * self.item(item)).sum(1, keepdim=True)
        out: Tensor = dot + self.bias(user)
        return out


def series_cnn(channels: int, width: int, outputs: int) -> nn.Module:
    """Return three convolutions along time and their mean, (B, channels, T) → (B, outputs)."""
    return nn.Sequential(
        nn.Conv1d(channels, width, 7, padding=3),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(width, width, 5, padding=2),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(width, width, 3, padding=1),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(width, outputs),
    )


class SeriesGRU(nn.Module):
    """A GRU along time; its last state is classified."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(channels, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, outputs)."""
        out: Tensor = self.head(self.rnn(x.transpose(1, 2))[0][:, -1])
        return out


class BagOfWords(nn.Module):
    """The mean of the words' vectors, classified by `layers` linear layers."""

    def __init__(self, words: int, width: int, outputs: int, layers: int = 1) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(words, width, mode="mean")
        self.head = mlp(*[width] * layers, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) of words → (B, outputs)."""
        out: Tensor = self.head(self.words(x))
        return out


class NextItem(nn.Module):
    """The items so far, one after another, squeezed into a vector that is compared to every item.

    With `tied` one table serves both.
    """

    def __init__(self, items: int, width: int, length: int, *, tied: bool = False) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width)
        self.squeeze = nn.Sequential(
            nn.Flatten(), nn.Linear(length * width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.scores = nn.Linear(width, items)
        if tied:
            nn.init.normal_(self.items.weight, std=width**-0.5)
            self.scores.weight = self.items.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, length) of items → (B, items)."""
        out: Tensor = self.scores(self.squeeze(self.items(x)))
        return out
