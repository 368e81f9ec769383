"""What a model's own loss and outputs are, by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine.own_loss import loss_in, may_return_loss, method_of, outputs_in

LOSS = torch.tensor(0.5)
LOGITS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "returned",
    [
        SimpleNamespace(loss=LOSS, logits=LOGITS),
        {"loss": LOSS, "logits": LOGITS},
        (LOSS, LOGITS),
        [LOSS, LOGITS, None],
    ],
)
def test_a_loss_and_logits_in_what_a_model_returns(returned):
    assert loss_in(returned) is LOSS
    assert outputs_in(returned, torch.tensor([0, 1])) is LOGITS


def test_outputs_without_a_loss():
    for returned in (LOGITS, SimpleNamespace(loss=None, logits=LOGITS), {"logits": LOGITS}):
        assert loss_in(returned) is None
        assert outputs_in(returned, torch.tensor([0, 1])) is LOGITS
    assert loss_in((LOGITS, LOSS)) is None  # two outputs
    assert loss_in(()) is None
    assert outputs_in((LOGITS, LOGITS), None) == (LOGITS, LOGITS)


def test_one_number_a_sample():
    numbers = torch.ones(4, 1)
    assert outputs_in({"loss": LOSS, "logits": numbers}, torch.ones(4)).shape == (4,)
    assert outputs_in({"loss": LOSS, "logits": numbers}, torch.ones(4, 1)).shape == (4, 1)


def test_classes_of_tokens_and_of_next_tokens():
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, -100, 1], [2, 2, -100, 0, 0]])
    own = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.equal(outputs_in((own, logits), labels), logits.movedim(-1, 1))
    following = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert outputs_in((following, logits), labels) is logits


def test_which_models_have_a_loss_of_their_own():
    class Labels(nn.Module):
        def forward(self, x, labels=None):
            return x, labels

    class Anything(nn.Module):
        def forward(self, **inputs):
            return inputs

    both = Labels()
    both.training_step = both.training_loss = lambda batch: batch
    assert method_of(both) == "training_loss"
    assert method_of(Labels()) is None
    keys = ("labels",)
    assert may_return_loss(Labels(), keys)
    assert may_return_loss(Anything(), keys)
    assert not may_return_loss(nn.Linear(2, 2), keys)
    assert not may_return_loss(both, keys)  # it has a method
