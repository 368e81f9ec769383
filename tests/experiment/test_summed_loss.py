"""A loss that is a sum is noticed by the halves of a batch."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.errors import LrtoolWarning
from lrtool.experiment.summed_loss import warn_of_a_sum

torch.manual_seed(0)
OUTPUTS, TARGETS = torch.rand(7, 3), torch.rand(7, 3)
PAIR = (OUTPUTS, OUTPUTS + 1)


def summed(outputs, targets):
    return F.mse_loss(outputs, targets, reduction="sum")


def with_a_prior(outputs, targets):
    return F.binary_cross_entropy(outputs[0], targets, reduction="sum") + outputs[1].square().sum()


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (summed, OUTPUTS, TARGETS),
        (with_a_prior, PAIR, TARGETS),
        (lambda o, t: summed(o["a"], t["b"]), {"a": OUTPUTS}, {"b": TARGETS}),
    ],
)
def test_a_sum_is_said(loss, outputs, targets):
    with pytest.warns(LrtoolWarning, match="own:loss adds up the samples of a batch, and losses "):
        warn_of_a_sum("own:loss", loss, outputs, targets)


def summed_over_classes(outputs, targets, ignore_index=-100):
    return F.cross_entropy(outputs, targets, ignore_index=ignore_index, reduction="sum")


def test_so_is_one_that_leaves_a_label_out():
    with pytest.warns(LrtoolWarning, match="own:loss adds up the samples of a batch"):
        warn_of_a_sum("own:loss", summed_over_classes, OUTPUTS, torch.arange(7) % 3)


class SaysSo(nn.Module):
    reduction = "sum"

    def forward(self, outputs, targets):
        return summed(outputs, targets)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (lambda o, t: F.mse_loss(o, t) * 1.0, OUTPUTS, TARGETS),
        (lambda o, t: F.mse_loss(o, t).sqrt(), OUTPUTS, TARGETS),
        (lambda o, t: (o - t).norm(), OUTPUTS, TARGETS),
        (lambda o, t: 0 * summed(o, t), OUTPUTS, TARGETS),
        (lambda o, t: torch.inf * summed(o, t), OUTPUTS, TARGETS),
        (lambda o, t: summed(o[:, :7], t), torch.rand(3, 7, 3), TARGETS),
        (lambda o, t: summed(o, t) / 0, OUTPUTS, "text"),
        (summed, OUTPUTS[:1], TARGETS[:1]),
        (SaysSo(), OUTPUTS, TARGETS),
        (F.mse_loss, OUTPUTS, TARGETS),
    ],
)
def test_nothing_else_is(loss, outputs, targets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_a_sum("own:loss", loss, outputs, targets)
