"""Where the first number that is not finite came from, in models that are broken on purpose."""

import math

import pytest
import torch
from torch import nn

from lrtool.batch import Share
from lrtool.engine.nonfinite import Suspects, bad_inputs, finite, watched


class Root(nn.Module):
    """The square root: of 0 its gradient is infinite, of less than 0 it is NaN."""

    def forward(self, x):
        return torch.sqrt(x)


def chain(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), *between, nn.Linear(2, 1))


def run(model, x=None):
    with watched(model) as suspects:
        model(torch.ones(3, 2) if x is None else x).sum().backward()
    return suspects


def hooks(model):
    modules = [m._forward_hooks for m in model.modules()]
    return [
        h for h in [*modules, *(p._post_accumulate_grad_hooks for p in model.parameters())] if h
    ]


def test_a_sound_model_has_no_suspects_and_keeps_no_hooks():
    model = chain(nn.ReLU())
    assert run(model) == Suspects(None, None)
    assert not hooks(model)


def test_the_first_bad_output_is_named_and_the_first_bad_gradient():
    model = chain(Root(), nn.Identity())
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    # backward goes from the end: the last layer's weight is the first whose gradient is bad
    assert run(model) == Suspects("1", "3.weight")
    assert not hooks(model)


def test_a_gradient_may_be_bad_where_all_outputs_are_good():
    model = chain(Root())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
    found = run(model)
    assert found.output is None
    assert found.gradient in {"0.weight", "0.bias"}


def test_a_bad_weight_shows_in_its_own_layers_output():
    model = chain(nn.ReLU())
    with torch.no_grad():
        model[2].weight[0, 0] = math.inf
    assert run(model).output == "2"


def test_a_model_without_parts_goes_by_its_class():
    assert run_root(Root()) == "Root"


def run_root(model):
    with watched(model) as suspects:
        model(torch.tensor([-1.0]))
    return suspects.output


def test_frozen_weights_have_no_gradient_to_look_at():
    model = chain(nn.ReLU())
    model[0].requires_grad_(requires_grad=False)
    assert run(model) == Suspects(None, None)


def test_sparse_gradients_are_looked_at():
    model = nn.Embedding(4, 2, sparse=True)
    with watched(model) as suspects:
        (model(torch.tensor([1, 1, 2])).sum() * math.inf).backward()
    assert suspects == Suspects(None, "weight")
    with watched(model) as suspects:
        model.zero_grad()
        model(torch.tensor([1, 1, 2])).sum().backward()
    assert suspects.gradient is None


def test_hooks_are_removed_after_an_exception():
    model = chain()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(model, torch.ones(1, 5))
    assert not hooks(model)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_containers_are_looked_into(bad):
    good, tensor = torch.ones(2), torch.tensor([1.0, bad])
    assert finite({"a": [good, (good, "text", None, 3)], "b": torch.tensor([1, 2])})
    for value in (tensor, [good, tensor], {"a": (good, [tensor])}, tensor.to_sparse()):
        assert not finite(value)
    assert bad_inputs([(good, good), (tensor, good)])
    assert not bad_inputs([(good, good), {"x": good}])
    assert bad_inputs([Share((good, tensor), 9)])
    assert not bad_inputs([Share((good, good), 9)])
