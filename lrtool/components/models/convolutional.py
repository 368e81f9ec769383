"""Models of 2-D convolutions, for images (channels, height, width)."""

from __future__ import annotations

from torch import Tensor, nn

from lrtool.components.models.dense import check_counts, check_share, check_widths
from lrtool.errors import UserError


def cnn(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    channels: list[int] | None = None,
    hidden: list[int] | None = None,
    batch_norm: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """3 × 3 convolutions, each halving the image, then fully connected layers.

    Args:
        input_shape: (channels, height, width); each side at least 2 ** len(channels).
        num_outputs: the number of outputs.
        channels: of each convolution; [16, 32] by default.
        hidden: widths of fully connected layers before the last one; none by default.
        batch_norm: after each convolution.
        dropout: the share of units dropped before each fully connected layer, below 1.

    Raises:
        UserError: an argument is out of range, or the inputs are not images of this size.
    """
    widths = [16, 32] if channels is None else channels
    check_widths("channels", widths)
    check_widths("hidden", hidden or [])
    check_share("dropout", dropout)
    size, height, width = check_image(input_shape, 2 ** len(widths))
    layers: list[nn.Module] = []
    for count in widths:
        layers.append(nn.Conv2d(size, count, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(count))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        size, height, width = count, height // 2, width // 2
    layers.append(nn.Flatten())
    size *= height * width
    for count in hidden or []:
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(size, count), nn.ReLU()]
        size = count
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(size, num_outputs))


def resnet(
    *, input_shape: tuple[int, ...], num_outputs: int, width: int = 16, depth: int = 8
) -> nn.Module:
    """A small residual network as for CIFAR-10 (He et al. 2015, arXiv:1512.03385, section 4.2).

    Args:
        input_shape: (channels, height, width); each side at least 4.
        num_outputs: the number of outputs.
        width: channels of the first of three stages; each stage doubles them and halves the
            resolution.
        depth: layers with weights, 6 n + 2: 8, 14, 20, ….

    Raises:
        UserError: an argument is out of range, or the inputs are not images of this size.
    """
    check_counts(width=width)
    if depth < 8 or depth % 6 != 2:
        raise UserError(f"needs a depth of 6 n + 2, such as 8, 14 or 20, not {depth}")
    size, _, _ = check_image(input_shape, 4)
    layers: list[nn.Module] = [
        nn.Conv2d(size, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    size = width
    for stage, count in enumerate([width, 2 * width, 4 * width]):
        for block in range((depth - 2) // 6):
            layers.append(Residual(size, count, stride=2 if stage and not block else 1))
            size = count
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(size, num_outputs)
    )


class Residual(nn.Module):
    """Two convolutions and a shortcut, which is a projection where the shape changes."""

    def __init__(self, size: int, count: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(size, count, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(count),
            nn.ReLU(),
            nn.Conv2d(count, count, 3, padding=1, bias=False),
            nn.BatchNorm2d(count),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or size != count:
            self.shortcut = nn.Sequential(
                nn.Conv2d(size, count, 1, stride, bias=False), nn.BatchNorm2d(count)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, size, H, W) to (B, count, H / stride, W / stride)."""
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def channels_last(shape: tuple[int, ...]) -> bool:
    """Tell whether an input (., ., .) looks like an image (height, width, channels)."""
    if len(shape) != 3 or shape[0] <= 4 or shape[1] <= 4:
        return False
    return shape[2] == 3 or (shape[2] in {1, 4} and shape[0] == shape[1])


def check_image(shape: tuple[int, ...], least: int) -> tuple[int, int, int]:
    """Return channels, height and width.

    Raises:
        UserError: the inputs are not images, or smaller than `least` on a side.
    """
    if len(shape) != 3:
        raise UserError(
            f"takes images (channels, height, width), but an input has shape {shape}; "
            "use mlp or gru"
        )
    if channels_last(shape):
        raise UserError(
            f"takes images (channels, height, width), but an input has shape {shape}, as with the "
            f"channels last: give the inputs as (N, {shape[2]}, {shape[0]}, {shape[1]})"
        )
    if min(shape[1:]) < least:
        raise UserError(
            f"needs images of at least {least} × {least} pixels, not {shape[1]} × {shape[2]}; "
            "use fewer stages, or mlp"
        )
    return shape[0], shape[1], shape[2]
