"""Models: shapes, causality and sizes by hand, and every refusal's words."""

import os

import pytest
import torch
from torch import nn

from lrtool.components import import_path, models
from lrtool.components.models import MODELS, build_model, convolutional
from lrtool.config.schema import ComponentConfig
from lrtool.errors import ConfigError

VECTORS = {"input_shape": (5,), "num_outputs": 3, "vocabulary": None}
ROWS = {"input_shape": (6, 5), "num_outputs": 3, "vocabulary": None}
IMAGES = {"input_shape": (2, 8, 4), "num_outputs": 3, "vocabulary": None}
VOLUMES = {"input_shape": (2, 3, 8, 4), "num_outputs": 3, "vocabulary": None}
TOKENS = {"input_shape": (6,), "num_outputs": 11, "vocabulary": 9}
NO_TOKENS = (
    "takes numbers, but the inputs are tokens, whole numbers; give numbers as floats, or use gru or"
    " transformer"
)


def make(name, facts=VECTORS, directories=(), **args):
    torch.manual_seed(0)
    return build_model(ComponentConfig(name=name, args=args), facts, directories)


def failure(name, facts=VECTORS, directories=(), **args):
    with pytest.raises(ConfigError) as caught:
        make(name, facts, directories, **args)
    assert [problem.path for problem in caught.value.problems] == [("model",)]
    return caught.value.problems[0].message


def batch(facts, size=4):
    shape = (size, *facts["input_shape"])
    generator = torch.Generator().manual_seed(1)
    if facts["vocabulary"] is None:
        return torch.randn(shape, generator=generator)
    return torch.randint(facts["vocabulary"], shape, generator=generator)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def kinds(model):
    return [type(module).__name__ for module in model.children()]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        *(("linear", facts) for facts in (VECTORS, ROWS, IMAGES, VOLUMES)),
        *(("mlp", facts) for facts in (VECTORS, ROWS, IMAGES, VOLUMES)),
        ("cnn", IMAGES),
        ("resnet", IMAGES),
        *(("gru", facts) for facts in (VECTORS, ROWS, IMAGES, VOLUMES)),
    ],
)
def test_a_sample_has_its_outputs(name, facts):
    outputs = make(name, facts)(batch(facts))
    assert outputs.shape == (4, 3)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_each_token_has_its_outputs_with_the_classes_together_in_memory(name):
    outputs = make(name, TOKENS)(batch(TOKENS))
    assert outputs.shape == (4, 11, 6)
    assert outputs.stride(1) == 1
    assert outputs.movedim(1, -1).is_contiguous()


def test_every_model_is_tested():
    assert set(MODELS) == {"linear", "mlp", "cnn", "resnet", "gru", "transformer"}


@pytest.mark.parametrize(("name", "layers"), [("gru", 2), ("transformer", 2)])
def test_no_token_sees_those_after_it(name, layers):
    model = make(name, TOKENS, layers=layers).eval()
    tokens = batch(TOKENS)
    before = model(tokens)
    for changed in range(6):
        other = tokens.clone()
        other[:, changed] = (other[:, changed] + 1) % 9
        after = model(other)
        assert torch.allclose(after[..., :changed], before[..., :changed], atol=1e-6)
        assert not torch.allclose(after[..., changed], before[..., changed], atol=1e-4)


def test_the_transformer_knows_places_and_takes_shorter_contexts():
    model = make("transformer", TOKENS).eval()
    same = torch.zeros(1, 6, dtype=torch.int64)
    outputs = model(same)
    assert not torch.allclose(outputs[..., 0], outputs[..., 1], atol=1e-4)
    assert torch.allclose(model(same[:, :3]), outputs[..., :3], atol=1e-6)


def test_the_transformer_begins_as_gpt_2():
    model = make("transformer", {**TOKENS, "vocabulary": 500}, width=64, layers=8)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.1)
    for block in model.blocks:
        assert block.attend.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.project.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
        assert block.feed[2].weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
        assert not block.attend.bias.any()


@pytest.mark.parametrize(
    ("name", "facts", "args", "expected"),
    [
        ("linear", VECTORS, {}, 5 * 3 + 3),
        ("linear", IMAGES, {"bias": False}, 2 * 8 * 4 * 3),
        ("mlp", VECTORS, {}, (5 * 128 + 128) + (128 * 128 + 128) + (128 * 3 + 3)),
        ("mlp", VECTORS, {"hidden": []}, 5 * 3 + 3),
        ("mlp", VECTORS, {"hidden": [7], "batch_norm": True}, 5 * 7 + 7 + 2 * 7 + 7 * 3 + 3),
        # convolutions without bias but with two numbers a channel of batch norm; 2 × 1 pixels left
        ("cnn", IMAGES, {}, 16 * 2 * 9 + 2 * 16 + 32 * 16 * 9 + 2 * 32 + 64 * 3 + 3),
        ("cnn", IMAGES, {"channels": [4], "batch_norm": False}, 4 * 2 * 9 + 4 + 4 * 4 * 2 * 3 + 3),
        ("cnn", IMAGES, {"channels": [], "hidden": [5]}, 64 * 5 + 5 + 5 * 3 + 3),
        # width 2, depth 8: stem, one block a stage, projections where the shape changes
        (
            "resnet",
            IMAGES,
            {"width": 2},
            (2 * 2 * 9 + 4)
            + 2 * (2 * 2 * 9 + 4)
            + (4 * 2 * 9 + 8 + 4 * 4 * 9 + 8 + 4 * 2 + 8)
            + (8 * 4 * 9 + 16 + 8 * 8 * 9 + 16 + 8 * 4 + 16)
            + (8 * 3 + 3),
        ),
        # 3 gates with two biases each
        ("gru", ROWS, {"hidden": 4}, 3 * (4 * 5 + 4 * 4 + 2 * 4) + 4 * 3 + 3),
        ("gru", VECTORS, {"hidden": 4}, 3 * (4 * 1 + 4 * 4 + 2 * 4) + 4 * 3 + 3),
        ("gru", IMAGES, {"hidden": 4}, 3 * (4 * 8 + 4 * 4 + 2 * 4) + 4 * 3 + 3),
        (
            "gru",
            TOKENS,
            {"hidden": 4, "embedding": 7, "layers": 2},
            9 * 7 + 3 * (4 * 7 + 4 * 4 + 8) + 3 * (4 * 4 + 4 * 4 + 8) + 4 * 11 + 11,
        ),
        # two norms, attention 4 w² + 4 w, feed-forward 8 w² + 5 w; final norm, head without bias
        (
            "transformer",
            TOKENS,
            {"width": 8, "heads": 2, "layers": 3},
            9 * 8 + 6 * 8 + 3 * (4 * 8 + 12 * 64 + 9 * 8) + 2 * 8 + 11 * 8,
        ),
    ],
)
def test_parameters_counted_by_hand(name, facts, args, expected):
    assert count(make(name, facts, **args)) == expected


def test_depth_counts_the_residual_networks_layers():
    for depth in (8, 14, 20):
        model = make("resnet", IMAGES, width=2, depth=depth)
        body = [m for m in model.modules() if isinstance(m, convolutional.Residual)]
        convolutions = sum(isinstance(m, nn.Conv2d) for b in body for m in b.body.modules())
        assert 1 + convolutions + 1 == depth  # the stem's convolution, and the last layer


def test_each_stage_halves_the_image_and_doubles_the_channels():
    model = make("resnet", IMAGES, width=2, depth=14)
    x, shapes = batch(IMAGES), []
    for module in model:
        x = module(x)
        if isinstance(module, convolutional.Residual):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(2, 8, 4), (2, 8, 4), (4, 4, 2), (4, 4, 2), (8, 2, 1), (8, 2, 1)]


def test_a_residual_block_by_hand():
    block = convolutional.Residual(2, 2, stride=1).eval()
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(block.body[3].weight)  # the body gives 0: the shortcut alone is left
    assert torch.equal(block(x), x.relu())


def test_the_least_images():
    model = make("cnn", {**IMAGES, "input_shape": (1, 8, 8)})
    assert model[-1].in_features == 32 * 2 * 2
    assert make("cnn", {**IMAGES, "input_shape": (1, 4, 5)})(torch.zeros(2, 1, 4, 5)).shape == (
        2,
        3,
    )
    smallest = {**IMAGES, "input_shape": (1, 4, 4)}
    assert make("resnet", smallest)(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", nn.ReLU),
        ("gelu", nn.GELU),
        ("silu", nn.SiLU),
        ("tanh", nn.Tanh),
        ("sigmoid", nn.Sigmoid),
        ("elu", nn.ELU),
        ("leaky_relu", nn.LeakyReLU),
    ],
)
def test_the_activation_is_honoured(activation, expected):
    model = make("mlp", activation=activation, hidden=[4, 4])
    assert [type(model[2]), type(model[4])] == [expected, expected]


def test_layers_of_the_mlp():
    assert kinds(make("mlp", hidden=[4], batch_norm=True, dropout=0.5)) == [
        "Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip
    assert kinds(make("mlp", hidden=[4])) == ["Flatten", "Linear", "ReLU", "Linear"]
    assert make("mlp", hidden=[4], dropout=0.25)[3].p == 0.25


def test_layers_of_the_cnn():
    assert kinds(make("cnn", IMAGES, channels=[4], hidden=[6], dropout=0.5)) == [
        "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten",
        "Dropout", "Linear", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip
    assert kinds(make("cnn", IMAGES, channels=[4], batch_norm=False)) == [
        "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "facts", "args"),
    [
        ("mlp", VECTORS, {"dropout": 0.5}),
        ("cnn", IMAGES, {"dropout": 0.5}),
        ("gru", ROWS, {"dropout": 0.5, "layers": 2}),
        ("transformer", TOKENS, {"dropout": 0.5}),
    ],
)
def test_dropout_is_for_training_alone(name, facts, args):
    model = make(name, facts, **args)
    x = batch(facts)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_gru_reads_an_image_row_by_row():
    model = make("gru", IMAGES)
    image = batch(IMAGES)
    rows = torch.stack([image[:, :, row].flatten(1) for row in range(8)], dim=1)
    expected = model.head(model.gru(rows)[0][:, -1])
    assert torch.allclose(model(image), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "facts", "args", "words"),
    [
        (
            "linear",
            TOKENS,
            {},
            NO_TOKENS,
        ),
        (
            "mlp",
            TOKENS,
            {},
            NO_TOKENS,
        ),
        (
            "mlp",
            VECTORS,
            {"hidden": [3, 0]},
            "needs widths from 1 to 100,000, but hidden is [3, 0]",
        ),
        (
            "mlp",
            VECTORS,
            {"hidden": [10**12]},
            "needs widths from 1 to 100,000, but hidden is [1000000000000]",
        ),
        (
            "mlp",
            VECTORS,
            {"hidden": [1] * 1001},
            "has at most 1,000 layers, but hidden names 1,001",
        ),
        ("gru", ROWS, {"layers": 10**9}, "needs layers from 1 to 1,000, not 1,000,000,000"),
        ("mlp", VECTORS, {"dropout": 1}, "needs dropout from 0 to below 1, not 1"),
        ("mlp", VECTORS, {"dropout": -0.1}, "needs dropout from 0 to below 1, not -0.1"),
        ("cnn", IMAGES, {"channels": [0]}, "needs widths from 1 to 100,000, but channels is [0]"),
        ("cnn", IMAGES, {"hidden": [-2]}, "needs widths from 1 to 100,000, but hidden is [-2]"),
        ("cnn", IMAGES, {"dropout": 1.5}, "needs dropout from 0 to below 1, not 1.5"),
        (
            "cnn",
            VECTORS,
            {},
            "takes images (channels, height, width), but an input has shape (5,); use mlp or gru",
        ),
        (
            "cnn",
            IMAGES,
            {"channels": [4, 4, 4]},
            "needs images of at least 8 × 8 pixels, not 8 × 4; use fewer stages, or mlp",
        ),
        ("resnet", IMAGES, {"width": 0}, "needs width from 1 to 100,000, not 0"),
        ("resnet", IMAGES, {"depth": 2}, "needs a depth of 6 n + 2, such as 8, 14 or 20, not 2"),
        ("resnet", IMAGES, {"depth": 9}, "needs a depth of 6 n + 2, such as 8, 14 or 20, not 9"),
        (
            "resnet",
            {**IMAGES, "input_shape": (1, 3, 9)},
            {},
            "needs images of at least 4 × 4 pixels, not 3 × 9; use fewer stages, or mlp",
        ),
        ("gru", ROWS, {"hidden": 0}, "needs hidden from 1 to 100,000, not 0"),
        ("gru", ROWS, {"layers": 0}, "needs layers from 1 to 1,000, not 0"),
        ("gru", TOKENS, {"embedding": 0}, "needs embedding from 1 to 100,000, not 0"),
        ("gru", ROWS, {"dropout": 1.0, "layers": 2}, "needs dropout from 0 to below 1, not 1.0"),
        (
            "gru",
            ROWS,
            {"dropout": 0.1},
            "drops out between layers, and there is one; set layers or no dropout",
        ),
        ("transformer", TOKENS, {"width": 0}, "needs width from 1 to 100,000, not 0"),
        ("transformer", TOKENS, {"heads": 0}, "needs heads from 1 to 100,000, not 0"),
        ("transformer", TOKENS, {"layers": 0}, "needs layers from 1 to 1,000, not 0"),
        ("transformer", TOKENS, {"dropout": 2}, "needs dropout from 0 to below 1, not 2"),
        (
            "transformer",
            TOKENS,
            {"width": 10, "heads": 4},
            "needs a width that is a multiple of heads, not 10 with 4 heads",
        ),
        (
            "transformer",
            IMAGES,
            {},
            (
                "takes tokens (T,), but an input holds numbers of shape (2, 8, 4); "
                "use the source text, or mlp, cnn or gru"
            ),
        ),
    ],
)
def test_refusals(name, facts, args, words):
    assert failure(name, facts, **args) == f"{name} {words}"


def test_a_fact_that_the_data_do_not_tell():
    nothing = {"input_shape": None, "num_outputs": None, "vocabulary": None}
    assert failure("mlp", nothing) == (
        "mlp needs input_shape and num_outputs, which the data do not tell; give "
        "model.args.input_shape, model.args.num_outputs"
    )
    assert count(make("mlp", nothing, input_shape=[5], num_outputs=3, hidden=[])) == 18


def test_facts_given_by_hand_win():
    model = make("linear", VECTORS, num_outputs=7)
    assert model(batch(VECTORS)).shape == (4, 7)


def test_a_seed_decides_the_weights():
    first, second = make("mlp").state_dict(), make("mlp").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(1)
    third = build_model(ComponentConfig(name="mlp"), VECTORS, ()).state_dict()
    assert not torch.equal(first["1.weight"], third["1.weight"])


def test_a_users_factory_gets_the_facts_that_it_names(tmp_path, module):
    name = module("""
        from torch import nn

        class Net(nn.Linear):
            def __init__(self, num_outputs, size, vocabulary=17):
                super().__init__(size, num_outputs)
                self.vocabulary = vocabulary

        def make(**anything):
            return nn.Linear(*anything.values())
    """)
    net = make(f"{name}:Net", VECTORS, [tmp_path], size=4)
    assert (net.in_features, net.out_features) == (4, 3)
    assert net.vocabulary == 17  # the data have none, so the class's own stays
    net = make(f"{name}:make", VECTORS, [tmp_path], a=2, b=6)
    assert (net.in_features, net.out_features) == (2, 6)


def test_a_partial_and_an_instance_are_factories(tmp_path, module):
    name = module("""
        from functools import partial
        from torch import nn

        class Factory:
            def __call__(self, num_outputs, size=2):
                return nn.Linear(size, num_outputs)

        factory = Factory()
        ready = partial(nn.Linear, 2, 6)
    """)
    assert make(f"{name}:factory", VECTORS, [tmp_path], size=5).in_features == 5
    assert make(f"{name}:ready", VECTORS, [tmp_path], bias=False).out_features == 6


def test_a_users_factory_that_needs_an_unknown_fact(tmp_path, module):
    name = module("def make(num_outputs): ...")
    facts = {**VECTORS, "num_outputs": None}
    assert failure(f"{name}:make", facts, [tmp_path]) == (
        f"{name}:make needs num_outputs, which the data do not tell; give model.args.num_outputs"
    )


def test_a_users_factory_that_fails(tmp_path, module):
    name = module("def make(num_outputs):\n    raise RuntimeError('no weights here')")
    assert failure(f"{name}:make", VECTORS, [tmp_path]) == (
        f"{name}:make cannot be built: RuntimeError: no weights here ({tmp_path / name}.py:2)"
    )


def test_a_users_factory_that_makes_something_else(tmp_path, module):
    name = module("def make(num_outputs):\n    return num_outputs")
    assert failure(f"{name}:make", VECTORS, [tmp_path]) == (
        f"{name}:make made a int, not a torch.nn.Module; name the model's class, or a function that"
        " returns the model itself"
    )


def test_the_facts_are_those_that_models_name():
    named = {name for f in MODELS.values() for name in models.import_path.required(f)}
    assert named <= set(models.FACTS)


def test_a_model_larger_than_memory_is_refused_before_it_is_made(monkeypatch):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10}
    monkeypatch.setattr(os, "sysconf", pages.get)
    make("mlp", VECTORS, hidden=[8])
    with pytest.raises(MemoryError, match=r"parameters need .* GB with their gradients, but the"):
        make("mlp", VECTORS, hidden=[4000])


@pytest.mark.parametrize("name", ["mlp", "resnet", "gru", "transformer"])
def test_its_size_is_found_without_a_random_number(name):
    facts = {"mlp": VECTORS, "resnet": IMAGES, "gru": ROWS, "transformer": TOKENS}[name]
    torch.manual_seed(0)
    made = make(name, facts)
    torch.manual_seed(0)
    alone = MODELS[name](**import_path.facts_for(MODELS[name], facts))
    for here, there in zip(made.parameters(), alone.parameters(), strict=True):
        assert torch.equal(here, there)
