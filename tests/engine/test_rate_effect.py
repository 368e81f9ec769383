"""Whether the rate matters, by an optimizer that follows it and two that do not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine.device import Runtime
from lrtool.engine.rate_effect import ignores_rate
from lrtool.engine.step import make_step


class Relative(torch.optim.SGD):
    """Sets its own rate, as AdaFactor does."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = 0.001
        return super().step(closure)


class Copies(torch.optim.Optimizer):
    """Has groups of its own, so that a rate does not reach the optimizer inside."""

    def __init__(self, inner):
        super().__init__([dict(group) for group in inner.param_groups], inner.defaults)
        self.inner = inner

    def step(self, closure=None):
        return self.inner.step(closure)


class Shares(Copies):
    def __init__(self, inner):
        super().__init__(inner)
        self.param_groups = inner.param_groups


@pytest.mark.parametrize(
    ("make", "ignores"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), False),
        (lambda p: torch.optim.AdamW(p, 0.1), False),
        (lambda p: torch.optim.Rprop(p, 0.1), False),  # its first update is the rate
        (lambda p: Relative(p, 0.1), True),
        (lambda p: Copies(torch.optim.SGD(p, 0.1)), True),
        (lambda p: Shares(torch.optim.SGD(p, 0.1)), False),
        (lambda p: Still(p, 0.1), False),  # no update tells nothing
    ],
)
def test_an_update_at_two_rates(make, ignores):
    batch = (torch.ones(4, 3), torch.zeros(4, 1))

    def fresh():
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = make(model.parameters())
        return optimizer, make_step(model, F.mse_loss, optimizer, Runtime(torch.device("cpu")))

    assert ignores_rate(fresh, [batch]) == ignores


class Still(torch.optim.SGD):
    def step(self, closure=None):
        """Update nothing."""
