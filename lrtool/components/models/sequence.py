"""Models of sequences.

Outputs for each token have the classes in the second dimension, (B, V, T), as torch's losses need.
They are stored as (B, T, V), so that cross-entropy needs no copy.
"""

from __future__ import annotations

from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrtool.components.models.dense import check_counts, check_share
from lrtool.errors import UserError


def gru(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    vocabulary: int | None = None,
    hidden: int = 128,
    layers: int = 1,
    embedding: int = 64,
    dropout: float = 0.0,
) -> nn.Module:
    """Gated recurrent units: an output for each token, or one for a whole sequence of numbers.

    Args:
        input_shape: tokens (T,); numbers (T, features); an image (C, H, W), read row by row; or
            (features,), read one by one.
        num_outputs: the number of outputs, for each token or for the sequence.
        vocabulary: the number of different tokens; None for numbers.
        hidden: width of the state.
        layers: the number of layers.
        embedding: width of a token's vector.
        dropout: the share dropped between layers, below 1.

    Raises:
        UserError: an argument is out of range.
    """
    check_counts(hidden=hidden, layers=layers, embedding=embedding)
    check_share("dropout", dropout)
    if dropout and layers == 1:
        raise UserError("drops out between layers, and there is one; set layers or no dropout")
    rnn = partial(nn.GRU, hidden_size=hidden, num_layers=layers, batch_first=True, dropout=dropout)
    if vocabulary is not None:
        return TokenGRU(nn.Embedding(vocabulary, embedding), rnn(embedding), num_outputs)
    features = 1 if len(input_shape) == 1 else prod(input_shape) // input_shape[-2]
    return SequenceGRU(rnn(features), num_outputs)


class TokenGRU(nn.Module):
    """Tokens (B, T) → outputs for each of them (B, V, T)."""

    def __init__(self, embedding: nn.Embedding, gru: nn.GRU, num_outputs: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.gru = gru
        self.head = nn.Linear(gru.hidden_size, num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, T) to (B, V, T)."""
        states, _ = self.gru(self.embedding(tokens))
        outputs: Tensor = self.head(states)
        return outputs.transpose(1, 2)


class SequenceGRU(nn.Module):
    """A sequence of numbers → outputs from the last state (B, num_outputs)."""

    def __init__(self, gru: nn.GRU, num_outputs: int) -> None:
        super().__init__()
        self.gru = gru
        self.head = nn.Linear(gru.hidden_size, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, …) to (B, num_outputs)."""
        if x.ndim == 2:
            x = x[..., None]
        elif x.ndim > 3:  # rows of an image are the steps, their pixels and channels the features
            x = x.movedim(-2, 1).flatten(2)
        states, _ = self.gru(x)
        outputs: Tensor = self.head(states[:, -1])
        return outputs


def transformer(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    vocabulary: int | None = None,
    width: int = 128,
    heads: int = 4,
    layers: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """A causal language model: pre-norm blocks as in GPT-2 (Radford et al. 2019).

    Args:
        input_shape: tokens (T,); T is the longest context.
        num_outputs: the number of different tokens to predict.
        vocabulary: the number of different tokens among the inputs.
        width: of a token's vector, a multiple of `heads`.
        heads: of the attention.
        layers: the number of blocks.
        dropout: the share dropped after embedding, attention and feed-forward, below 1.

    Raises:
        UserError: an argument is out of range, or the inputs are not tokens.
    """
    check_counts(width=width, heads=heads, layers=layers)
    check_share("dropout", dropout)
    if width % heads:
        raise UserError(
            f"needs a width that is a multiple of heads, not {width} with {heads} heads"
        )
    if vocabulary is None or len(input_shape) != 1:
        raise UserError(
            f"takes tokens (T,), but an input holds numbers of shape {input_shape}; "
            "use the source text, or mlp, cnn or gru"
        )
    return Transformer(
        context=input_shape[0],
        vocabulary=vocabulary,
        num_outputs=num_outputs,
        width=width,
        heads=heads,
        layers=layers,
        dropout=dropout,
    )


class Transformer(nn.Module):
    """Tokens (B, T) → outputs for the token after each of them (B, V, T)."""

    def __init__(
        self,
        *,
        context: int,
        vocabulary: int,
        num_outputs: int,
        width: int,
        heads: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_outputs, bias=False)
        self._initialise(layers)

    def _initialise(self, layers: int) -> None:
        """Initialise as GPT-2: standard deviation 0.02, less in layers that add to the residual."""
        nn.init.normal_(self.positions, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                into_residual = name.endswith(("project", "feed.2"))
                std = 0.02 / (2 * layers) ** 0.5 if into_residual else 0.02
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, T) to (B, V, T), T up to the context."""
        x = self.dropout(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        outputs: Tensor = self.head(self.norm(self.blocks(x)))
        return outputs.transpose(1, 2)


class Block(nn.Module):
    """Causal self-attention, then a feed-forward layer, each with a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to the same shape; a token sees none after it."""
        x = x + self._drop(self.project(self._attention(self.norm_attention(x))))
        return x + self._drop(self.feed(self.norm_feed(x)))

    def _attention(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        split = self.attend(x).view(batch, steps, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, steps, width)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
