"""Muon for a model's hidden matrices and AdamW for all else, as it is used (Jordan et al. 2024).

One rate serves both: Muon's update is scaled to the size of AdamW's (Liu et al. 2025,
arXiv:2502.16982), unless `adjust_lr_fn` says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MUON = "muon"  # the key of a parameter group: whether Muon takes it


class Muon(Optimizer):
    """Muon and AdamW over one set of parameter groups.

    Args:
        params: parameters, of which Muon takes those of two dimensions; or groups, from `split`.
        lr: of both.
        weight_decay: of both.
        momentum: of Muon.
        nesterov: of Muon.
        ns_coefficients: of Muon.
        eps: of Muon.
        ns_steps: of Muon.
        adjust_lr_fn: of Muon.
        betas: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        *,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        groups = list(params)
        if groups and not isinstance(groups[0], dict):
            groups = _divided({"params": groups}, {id(p) for p in groups if p.ndim == 2})
        matrices = [group for group in groups if group[_MUON]]
        others = [group for group in groups if not group[_MUON]]
        self._parts: list[tuple[bool, Optimizer]] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices,
                lr,
                weight_decay,
                momentum,
                nesterov,
                ns_coefficients,
                eps,
                ns_steps,
                adjust_lr_fn,
            )
            self._parts.append((True, muon))
        if others:
            adamw = torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay)
            self._parts.append((False, adamw))
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([g for _, part in self._parts for g in part.param_groups], defaults)
        self._share()

    def _share(self) -> None:
        """Let both work on this optimizer's groups and state."""
        for is_muon, part in self._parts:
            part.param_groups = [g for g in self.param_groups if g[_MUON] == is_muon]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a state back."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters."""
        assert closure is None, "the gradients are there already"
        for _, part in self._parts:
            part.step()


def split(groups: Iterable[Mapping[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameter groups, each divided into Muon's part and AdamW's.

    Muon takes the matrices between the embeddings and the output layer, which is the last one that
    the model lists.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters()
    }
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    hidden = {id(p) for p in (matrices[:-1] or matrices)}
    return [part for group in groups for part in _divided(group, hidden)]


def _divided(group: Mapping[str, Any], hidden: set[int]) -> list[dict[str, Any]]:
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in group["params"]:
        parts[id(parameter) in hidden].append(parameter)
    return [{**group, "params": own, _MUON: is_muon} for is_muon, own in parts.items() if own]
