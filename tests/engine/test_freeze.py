"""Which part of a model is trained; the rest is frozen, with its dropout and statistics."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from lrtool.engine.evaluation import evaluating, set_training
from lrtool.engine.freeze import by_prefix, parts, train_only
from lrtool.errors import ConfigError, LrtoolWarning


def net():
    block = [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)]
    return nn.Sequential(
        OrderedDict(
            body=nn.Sequential(*block),
            bare=nn.BatchNorm1d(4, affine=False),
            drop=nn.Dropout(0.5),
            head=nn.Linear(4, 2),
        )
    )


def training(model):
    return {name for name, module in model.named_modules() if module.training}


def test_the_rest_is_frozen_in_evaluation_mode():
    model = net()
    train_only(model, ["^head"])
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == {"head.weight", "head.bias"}
    assert training(model) == {"", "drop", "head"}  # dropout before the head is the head's
    assert parts(model) == (("head",), ("body",))
    set_training(model)
    with evaluating(model):
        assert training(model) == set()
    assert training(model) == {"", "drop", "head"}


def test_dropout_between_the_frozen_layers_of_one_sequence_stays_on():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Linear(4, 2))
    train_only(model, ["^3"])
    assert training(model) == {"", "1", "3"}  # no module around it that is frozen as a whole


def test_a_frozen_part_does_not_change_in_a_step():
    model = net()
    train_only(model, [r"body\.0\.weight"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(8, 4)).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == {"body.0.weight"}
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["body.0.weight"]


def test_a_norm_goes_by_its_own_parameters_or_without_any_by_the_name_of_its_statistics():
    model = net()
    train_only(model, [r"body\.1", "bare"])
    assert training(model) == {"", "body", "body.1", "body.2", "bare", "drop"}
    assert parts(model) == (("body.1",), ("body.0", "head"))


def test_a_model_that_comes_in_evaluation_mode_is_trained():
    model = net().eval()
    train_only(model, ["head"])
    set_training(model)
    assert training(model) == {"", "drop", "head"}


def test_a_recurrent_layer_without_dropout_stays_as_cudnn_needs_it():
    model = nn.ModuleDict(
        {"rnn": nn.GRU(2, 2), "deep": nn.LSTM(2, 2, 2, dropout=0.5), "head": nn.Linear(2, 1)}
    )
    train_only(model, ["head"])
    set_training(model)
    assert training(model) == {"", "rnn", "head"}


def test_one_name_of_a_tied_weight_is_enough():
    model = nn.ModuleDict({"embed": nn.Embedding(3, 2), "out": nn.Linear(2, 3)})
    model["out"].weight = model["embed"].weight
    train_only(model, [r"out\.weight"])
    assert model["embed"].weight.requires_grad
    assert not model["out"].bias.requires_grad


def test_an_expression_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError) as caught:
        train_only(net(), ["head", "tail", "drop"])
    names = "body.0.weight, body.0.bias, body.1.weight, body.1.bias, …"
    assert [(each.path, each.message) for each in caught.value.problems] == [
        (("model", "train_only", 1), f"'tail' matches no parameter; the model has {names}"),
        (("model", "train_only", 2), f"'drop' matches no parameter; the model has {names}"),
    ]


def test_expressions_that_match_all_are_warned_of():
    words = "^model.train_only matches all parameters of the model: nothing is frozen$"
    with pytest.warns(LrtoolWarning, match=words):
        train_only(net(), ["body", "head"])


def test_what_the_model_itself_has_frozen_is_trained_with_a_warning():
    model = net()
    model.body.requires_grad_(requires_grad=False).eval()
    words = r"^model.train_only trains body.0, which the model itself had frozen$"
    with pytest.warns(LrtoolWarning, match=words):
        train_only(model, [r"body\.0"])
    assert parts(model) == (("body.0",), ("body.1", "head"))


def backbone():
    """A model that has frozen its body as a whole, with a bare norm and dropout in it."""
    layers = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in "ab"]
    body = nn.Sequential(*layers, nn.BatchNorm1d(4, affine=False))
    model = nn.Sequential(OrderedDict(body=body, head=nn.Linear(4, 2)))
    body.requires_grad_(requires_grad=False).eval()
    return model


def test_what_stays_frozen_beside_a_thawed_part_stays_in_evaluation_mode():
    model = backbone()
    with pytest.warns(LrtoolWarning, match="trains body.1, which the model itself had frozen"):
        train_only(model, [r"body\.1", "head"])
    thawed = {"", "body", "body.1", "body.1.0", "body.1.1", "body.1.2", "head"}
    assert training(model) == thawed
    set_training(model)
    assert training(model) == thawed
    frozen = model.body[0][1].running_mean.clone()
    model(torch.randn(8, 4))
    assert torch.equal(model.body[0][1].running_mean, frozen)


def test_a_frozen_norm_stays_so_in_a_part_that_its_author_has_thawed():
    model = backbone()
    model.body[1].requires_grad_(requires_grad=True)
    set_training(model)
    assert {name for name, _ in model.named_modules()} - training(model) == {"body.0.1"}


def test_names_are_grouped_where_a_module_stands_for_nothing_else():
    every = ["a.x.w", "a.x.b", "a.y.w", "c.w", "c.b", "d"]
    assert by_prefix(every, every) == {
        "a": ["a.x.w", "a.x.b", "a.y.w"], "c": ["c.w", "c.b"], "d": ["d"],
    }  # fmt: skip
    some = ["a.x.b", "a.x.w", "c.w"]
    assert by_prefix(some, every) == {"a.x": ["a.x.b", "a.x.w"], "c.w": ["c.w"]}
    assert by_prefix([], every) == {}
