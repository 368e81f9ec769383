"""A model, a data set and a loss of one's own, for custom_model.yaml."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Samples = tuple[Tensor, Tensor]


def spirals(samples: int, turns: float) -> tuple[Samples, Samples]:
    """Return (train, validation): points (x, y) on three spirals, and which spiral it is."""
    generator = torch.Generator().manual_seed(0)
    arm = torch.randint(3, (samples,), generator=generator)
    radius = torch.rand(samples, generator=generator)
    angle = 2 * torch.pi * (turns * radius + arm / 3)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    points += 0.02 * torch.randn(points.shape, generator=generator)
    last = samples - samples // 5
    return (points[:last], arm[:last]), (points[last:], arm[last:])


class RingNet(nn.Module):
    """Looks at points through rings of learned radius, then a small network decides."""

    def __init__(self, width: int, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.rings = nn.Parameter(torch.linspace(0.1, 1.0, width))
        self.net = nn.Sequential(
            nn.Linear(input_shape[0] + width, width), nn.ReLU(), nn.Linear(width, num_outputs)
        )

    def forward(self, points: Tensor) -> Tensor:
        """Return one score for each spiral, (B, num_outputs), from points (B, 2)."""
        distance = points.norm(dim=1, keepdim=True) - self.rings
        return self.net(torch.cat([points, torch.exp(-50 * distance**2)], dim=1))


def focal_loss(outputs: Tensor, targets: Tensor, gamma: float = 1.0) -> Tensor:
    """Cross-entropy that looks away from what is already clear (Lin et al. 2017, eq. 4)."""
    log_p = F.log_softmax(outputs, dim=1).gather(1, targets[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma * log_p).mean()
