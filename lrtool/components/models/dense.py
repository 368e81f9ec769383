"""Models of fully connected layers; inputs are flattened."""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import nn

from lrtool.errors import UserError

MOST_UNITS, MOST_LAYERS = 100_000, 1_000  # more are a mistake, which would take all memory
Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


def linear(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    vocabulary: int | None = None,
    bias: bool = True,
) -> nn.Module:
    """One fully connected layer: linear or logistic regression."""
    refuse_tokens(vocabulary)
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), num_outputs, bias=bias))


def mlp(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    vocabulary: int | None = None,
    hidden: list[int] | None = None,
    activation: Activation = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Module:
    """Fully connected layers with an activation after each hidden one.

    Args:
        input_shape: of one sample.
        num_outputs: the number of outputs.
        vocabulary: None; tokens are refused.
        hidden: the width of each hidden layer; [128, 128] by default.
        activation: after each hidden layer.
        dropout: the share of hidden units dropped in training, below 1.
        batch_norm: normalise each hidden layer over the batch, before its activation.

    Raises:
        UserError: an argument is out of range, or the inputs are tokens.
    """
    refuse_tokens(vocabulary)
    widths = [128, 128] if hidden is None else hidden
    check_widths("hidden", widths)
    check_share("dropout", dropout)
    layers: list[nn.Module] = [nn.Flatten()]
    size = prod(input_shape)
    for width in widths:
        layers.append(nn.Linear(size, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        size = width
    return nn.Sequential(*layers, nn.Linear(size, num_outputs))


def refuse_tokens(vocabulary: int | None) -> None:
    """Raise UserError for inputs that are tokens."""
    if vocabulary is not None:
        raise UserError(
            "takes numbers, but the inputs are tokens, whole numbers; give numbers as floats, or"
            " use gru or transformer"
        )


def check_widths(name: str, widths: list[int]) -> None:
    """Raise UserError unless there are few widths, and each is a number of units."""
    if any(not 1 <= width <= MOST_UNITS for width in widths):
        shown = widths if len(widths) <= 20 else f"a list of {len(widths):,}"
        raise UserError(f"needs widths from 1 to {MOST_UNITS:,}, but {name} is {shown}")
    if len(widths) > MOST_LAYERS:
        raise UserError(f"has at most {MOST_LAYERS:,} layers, but {name} names {len(widths):,}")


def check_share(name: str, share: float) -> None:
    """Raise UserError unless 0 ≤ share < 1."""
    if not 0 <= share < 1:
        raise UserError(f"needs {name} from 0 to below 1, not {share}")


def check_counts(*, layers: int = 1, **counts: int) -> None:
    """Raise UserError unless every count is at least 1, and none so large that it is a mistake."""
    most = dict.fromkeys(counts, MOST_UNITS) | {"layers": MOST_LAYERS}
    for name, count in {**counts, "layers": layers}.items():
        if not 1 <= count <= most[name]:
            raise UserError(f"needs {name} from 1 to {most[name]:,}, not {count:,}")
