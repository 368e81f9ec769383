"""The benchmark's optimizers, by the names that its cells use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Lion(torch.optim.Optimizer):
    """The sign of two momenta (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            early, late = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum: Tensor = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(torch.lerp(p.grad, momentum, early)))
                momentum.lerp_(p.grad, 1 - late)
        return loss


# Name in a cell: name in a configuration, and arguments of the class.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {}),
    "sgd_momentum": ("sgd", {"momentum": 0.9}),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "adam": ("adam", {}),
    "adamw": ("adamw", {"weight_decay": 0.01}),
    "adamw_decay": ("adamw", {"weight_decay": 0.1}),
    "nadam": ("nadam", {}),
    "adagrad": ("adagrad", {}),
    "rmsprop": ("rmsprop", {}),
    "muon": ("muon", {}),  # torch's, for matrices alone
    "lion": ("optimizers:Lion", {}),
}


CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "muon": torch.optim.Muon,
    "optimizers:Lion": Lion,
}


FUSED = {"sgd", "adam", "adamw", "adagrad"}  # on a CPU too: the same numbers, sooner


def build(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return a cell's optimizer over a model's parameters."""
    known, args = OPTIMIZERS[name]
    fused = {"fused": True} if known in FUSED else {}
    return CLASSES[known](model.parameters(), lr=lr, **args, **fused)
