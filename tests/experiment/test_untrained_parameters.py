"""Parameters that a loss uses and nobody trains are said."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.errors import LrtoolWarning
from lrtool.experiment.untrained_parameters import (
    warn_of_unregistered_parameters,
    warn_of_untrained_parameters,
)

MODEL = nn.Linear(4, 3)
X, Y = torch.randn(6, 4), torch.arange(6) % 3


class Proxies(nn.Module):
    def __init__(self):
        super().__init__()
        self.proxies = nn.Parameter(torch.ones(3, 5))

    def forward(self, outputs, targets):
        return F.cross_entropy(outputs @ self.proxies, targets)


class Callable:
    def __init__(self):
        self.proxies = Proxies()

    def __call__(self, outputs, targets):
        return self.proxies(outputs, targets)


PROXIES = Proxies()


def around(outputs, targets):
    return PROXIES(outputs, targets)


@pytest.mark.parametrize(
    "loss",
    [
        around,
        functools.partial(lambda proxies, outputs, targets: proxies(outputs, targets), PROXIES),
        Callable(),
    ],
)
def test_a_loss_that_only_refers_to_them(loss):
    words = "own:loss depends on 15 trainable parameters that are neither the model's nor its own"
    with pytest.warns(LrtoolWarning, match=words):
        warn_of_untrained_parameters("own:loss", loss, MODEL(X), Y, list(MODEL.parameters()))


def forces(outputs, _):
    """Leaves that are no parameters, such as inputs to differentiate by, are nobody's to train."""
    return (outputs.sum(1) * torch.ones(6, requires_grad=True)).square().mean()


def number(*_):
    return 3.0


def broken(outputs, _):
    return outputs.absent


@pytest.mark.parametrize("loss", [PROXIES, F.cross_entropy, forces, number, broken])
def test_nothing_is_said_otherwise(loss):
    known = [*MODEL.parameters(), *(loss.parameters() if loss is PROXIES else ())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_untrained_parameters("own:loss", loss, MODEL(X), Y, known)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = [nn.Linear(4, 4), nn.Linear(4, 4)], nn.Linear(4, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return {"logits": self.last(x)}


def test_a_model_that_keeps_modules_in_a_plain_list():
    model = Listed()
    words = "own:Net uses 40 trainable parameters that it does not register"
    with pytest.warns(LrtoolWarning, match=words):
        warn_of_unregistered_parameters("own:Net", model(X), list(model.parameters()))
    model.layers = nn.ModuleList(model.layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unregistered_parameters("own:Net", model(X), list(model.parameters()))
        # of the loss nothing else is said
        warn_of_untrained_parameters("own:loss", F.cross_entropy, model(X)["logits"], Y, [])
