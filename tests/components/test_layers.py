"""Layers of models: repeated blocks, stages, embeddings, norms, adapters, shared parameters."""

import pytest
import torch
from torch import nn

from lrtool.components.layers import depth_ratios, layers_of
from lrtool.components.models import MODELS


def layers(model):
    """Return the names of the parameters of each layer, from the input to the head."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [[names[parameter] for parameter in layer] for layer in layers_of(model)]
    assert sorted(name for layer in found for name in layer) == sorted(names.values())
    return found


def modules(model):
    """Return the names of the modules of each layer."""
    return [list(dict.fromkeys(n.rpartition(".")[0] for n in layer)) for layer in layers(model)]


def roots(model, depth):
    """Return the beginnings of the names in each layer, so many parts of them."""
    split = [[".".join(name.split(".")[:depth]) for name in layer] for layer in layers(model)]
    return [list(dict.fromkeys(layer)) for layer in split]


class Block(nn.Module):
    """A residual block with a norm and a list of its own."""

    def __init__(self, width=4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class Stage(nn.Module):
    """A list of blocks, and something smaller before it."""

    def __init__(self, blocks):
        super().__init__()
        self.reduction = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.types = nn.Embedding(2, 4)
        self.norm = nn.LayerNorm(4)
        self.project = nn.Linear(4, 4)


class Transformer(nn.Module):
    def __init__(self, blocks=3):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(4))
        self.embeddings = Embeddings()
        self.positions = nn.Parameter(torch.zeros(7, 4))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Block() for _ in range(blocks))})
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


def test_a_plain_network_has_a_layer_for_each_module_with_its_norm():
    model = nn.Sequential(
        nn.BatchNorm1d(3),
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.PReLU()),
        nn.Linear(4, 2),
    )
    assert modules(model) == [["0", "1.0", "1.1"], ["2.0"], ["2.2", "2.3"], ["3"]]


def test_blocks_are_layers_and_what_lies_around_them():
    embedded = ["first", "positions", "embeddings.tokens", "embeddings.types"]
    assert roots(Transformer(), 3) == [
        [f"{n}.weight" if n.startswith("e") else n for n in embedded]
        + ["embeddings.norm.weight", "embeddings.norm.bias"]
        + ["embeddings.project.weight", "embeddings.project.bias"],
        ["encoder.layer.0"],
        ["encoder.layer.1"],
        ["encoder.layer.2", "norm.weight", "norm.bias"],
        ["head.weight", "head.bias"],
    ]


@pytest.mark.parametrize("blocks", [1, 2, 12])
def test_any_number_of_blocks(blocks):
    found = roots(Transformer(blocks), 1)
    assert found[0] == ["first", "positions", "embeddings"]
    assert found[1:-1] == [["encoder"]] * (blocks - 1) + [["encoder", "norm"]]
    assert found[-1] == ["head"]


def test_stages_are_looked_into():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), Stage(2), Stage(1), nn.Linear(4, 2))
    assert roots(model, 3) == [
        ["0.weight", "0.bias"],
        ["1.reduction.weight", "1.reduction.bias"],
        ["1.blocks.0"],
        ["1.blocks.1"],
        ["2.reduction.weight", "2.reduction.bias"],
        ["2.blocks.0"],
        ["3.weight", "3.bias"],
    ]


def test_blocks_side_by_side():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block1, self.block2 = Block(), Block()
            self.head = nn.Linear(4, 2)

    assert roots(Net(), 1) == [["block1"], ["block2"], ["head"]]


def test_convolutions_with_their_norms_in_a_list_are_no_blocks():
    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.units = nn.Sequential(Unit(), Unit())

    units = nn.Sequential(Unit(), Unit(), nn.Linear(2, 2))
    assert modules(units) == [["0.convolution", "0.norm"], ["1.convolution", "1.norm"], ["2"]]
    residual = nn.Sequential(Residual(), Residual(), nn.Linear(2, 2))
    assert roots(residual, 1) == [["0"], ["1"], ["2"]]


def test_attention_of_torch_is_one_layer():
    model = nn.Sequential(nn.Embedding(5, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    assert roots(model, 1) == [["0"], ["1"], ["2"]]
    encoder = nn.TransformerEncoderLayer(4, 2, 8)
    deep = nn.Sequential(
        nn.Embedding(5, 4),
        nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False),
        nn.Linear(4, 2),
    )
    assert roots(deep, 3) == [["0.weight"], ["1.layers.0"], ["1.layers.1"], ["2.weight", "2.bias"]]


def test_tables_of_embeddings_side_by_side_are_one_layer():
    model = nn.ModuleDict(
        {
            "columns": nn.ModuleList(nn.Embedding(3, 2) for _ in range(4)),
            "hidden": nn.Linear(8, 4),
            "head": nn.Linear(4, 1),
        }
    )
    assert roots(model, 1) == [["columns"], ["hidden"], ["head"]]


def test_a_tied_head_has_the_depth_of_its_embedding():
    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(5, 4),
            "blocks": nn.ModuleList(Block() for _ in range(2)),
            "head": nn.Linear(4, 5, bias=False),
        }
    )
    model["head"].weight = model["tokens"].weight
    assert roots(model, 2) == [["tokens.weight"], ["blocks.0"], ["blocks.1"]]


def test_a_block_used_several_times_is_one_layer():
    block = Block()
    model = nn.Sequential(nn.Embedding(5, 4), nn.Sequential(block, block, block), nn.Linear(4, 2))
    assert roots(model, 1) == [["0"], ["1"], ["2"]]


def test_a_parametrized_module_is_one_layer():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    assert roots(nn.Sequential(normed, nn.ReLU(), nn.Linear(4, 2)), 1) == [["0"], ["2"]]


def test_an_adapter_is_in_the_layer_of_what_it_adapts():
    class Adapted(nn.Module):  # as PEFT's
        def __init__(self, width):
            super().__init__()
            self.base_layer = nn.Linear(width, width)
            self.lora_A = nn.ModuleDict({"default": nn.Linear(width, 2, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(2, width, bias=False)})

    one = nn.Sequential(nn.Linear(4, 4), Adapted(4), nn.Linear(4, 2))
    assert roots(one, 1) == [["0"], ["1"], ["2"]]
    adapted = Transformer()
    for block in adapted.encoder["layer"]:
        block.body[0], block.body[2] = Adapted(4), Adapted(4)
    assert roots(adapted, 1) == roots(Transformer(), 1)


def test_a_single_module_is_one_layer():
    assert layers(nn.Linear(2, 2)) == [["weight", "bias"]]
    assert layers(nn.LayerNorm(2)) == [["weight", "bias"]]
    assert layers(nn.ReLU()) == []


def test_ratios_fall_from_the_head_down():
    model = Transformer()
    ratios = depth_ratios(model, 0.5)
    named = {name: ratios[parameter] for name, parameter in model.named_parameters()}
    assert named["head.bias"] == 1
    assert named["norm.weight"] == named["encoder.layer.2.body.0.weight"] == 0.5
    assert named["encoder.layer.0.norm.bias"] == 0.125
    assert named["first"] == named["embeddings.tokens.weight"] == 0.0625
    assert set(depth_ratios(model, 1.0).values()) == {1.0}


@pytest.mark.parametrize(
    ("name", "facts", "count"),
    [
        ("linear", {"input_shape": (4,)}, 1),
        ("mlp", {"input_shape": (4,)}, 3),
        ("cnn", {"input_shape": (1, 8, 8)}, 3),
        ("resnet", {"input_shape": (1, 8, 8)}, 5),
        ("gru", {"input_shape": (4,), "vocabulary": 9}, 3),
        ("transformer", {"input_shape": (4,), "vocabulary": 9}, 4),
    ],
)
def test_built_in_models(name, facts, count):
    assert len(layers_of(MODELS[name](**{"num_outputs": 3, **facts}))) == count
