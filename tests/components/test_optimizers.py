"""Optimizers: every class of torch.optim, parameter groups, fused forms, and families."""

import inspect
import random

import pytest
import torch
from torch import nn

from lrtool.components.optimizers import (
    OPTIMIZERS,
    UNUSABLE,
    build_optimizer,
    default_rate,
    family,
    kind,
    opening,
)
from lrtool.config.schema import OptimizerConfig, ParameterGroupConfig
from lrtool.errors import ConfigError, LrtoolWarning

DENSE = sorted(OPTIMIZERS.keys() - {"sparseadam"})  # it takes sparse gradients alone


class Weights(nn.Module):
    """One matrix alone, which even Muon takes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x):
        return x @ self.weight


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def build(name="sgd", model=None, *, lr=None, directories=(), groups=(), decays=True, **args):
    groups = [ParameterGroupConfig(**group) for group in groups]
    spec = OptimizerConfig(name=name, args=args, groups=groups, decay_norm_and_bias=decays)
    return build_optimizer(spec, model or network(), lr=lr, directories=directories)


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        build(*args, **kwargs)
    return [(problem.path, problem.message) for problem in caught.value.problems]


def train(model, optimizer, steps=20, size=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, size, generator=generator)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def names_of(group, model):
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for parameter in group["params"]]


def test_every_class_of_torch_is_there():
    classes = {
        name.lower()
        for name in dir(torch.optim)
        if inspect.isclass(getattr(torch.optim, name)) and name != "Optimizer"
    }
    assert set(OPTIMIZERS) | set(UNUSABLE) == classes
    assert not set(OPTIMIZERS) & set(UNUSABLE)
    assert {"sgd", "adam", "adamw", "adagrad", "rmsprop"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", DENSE)
def test_every_class_steps(name):
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build(name, model)
    assert type(optimizer).__name__.lower() == name
    after = train(model, optimizer, steps=2)
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_default_rate_is_the_one_that_the_class_uses(name):
    used = OPTIMIZERS[name]([nn.Parameter(torch.ones(2, 2))]).param_groups[0]["lr"]
    assert default_rate(OPTIMIZERS[name]) == float(used)
    assert build(name, Weights()).param_groups[0]["lr"] == float(used)


def test_default_rates():
    def tensor(params, lr=torch.tensor(0.25)): ...  # noqa: B008  (as some of torch's)

    def none(params, lr): ...

    def without(params): ...

    assert default_rate(tensor) == 0.25
    assert default_rate(none) is None
    assert default_rate(without) is None


def test_the_rate_given_wins_over_the_arguments_and_these_over_the_default():
    assert build("adam").param_groups[0]["lr"] == 1e-3
    spec = OptimizerConfig(name="adam", args={"lr": 0.5})
    model = network()
    own = build_optimizer(spec, model, lr=None, directories=())
    assert own.param_groups[0]["lr"] == own.defaults["lr"] == 0.5
    given = build_optimizer(spec, model, lr=2.0, directories=())
    assert given.param_groups[0]["lr"] == given.defaults["lr"] == 2.0


def test_arguments_reach_the_class():
    optimizer = build("sgd", momentum=0.9, nesterov=True, weight_decay=0.1)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 0.1)


def test_one_group_without_groups():
    model = network()
    optimizer = build("sgd", model)
    assert [names_of(g, model) for g in optimizer.param_groups] == [
        ["0.weight", "0.bias", "2.weight", "2.bias"]
    ]


def test_the_first_group_that_matches_wins_and_the_rest_comes_first():
    model = network()
    groups = [
        {"match": r"^2\.", "lr_ratio": 0.1},
        {"match": "bias", "weight_decay": 0.0, "lr_ratio": 3.0},
    ]
    optimizer = build("adamw", model, lr=0.2, weight_decay=0.05, groups=groups)
    found = [(names_of(g, model), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [
        (["0.weight"], 0.2, 0.05),
        (["2.weight", "2.bias"], pytest.approx(0.02), 0.05),
        (["0.bias"], pytest.approx(0.6), 0.0),
    ]


def deep():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def build_decayed(model, decay=0.5, *, groups=(), decays=True, loss=None, name="adamw"):
    groups = [ParameterGroupConfig(**group) for group in groups]
    spec = OptimizerConfig(
        name=name, groups=groups, layer_decay=decay, decay_norm_and_bias=decays, args={}
    )
    return build_optimizer(spec, model, loss, lr=0.2, directories=())


def test_rates_fall_with_the_depth_from_the_head_down():
    model = deep()
    found = [(names_of(g, model), g["lr"]) for g in build_decayed(model).param_groups]
    assert found == [
        (["4.weight", "4.bias"], 0.2),
        (["2.weight", "2.bias"], 0.1),
        (["0.weight", "0.bias"], 0.05),
    ]
    whole = build_decayed(deep(), 1.0).param_groups
    assert [(len(group["params"]), group["lr"]) for group in whole] == [(6, 0.2)]


def test_a_groups_own_ratio_wins_over_the_depth_and_its_weight_decay_is_kept():
    model = deep()
    groups = [{"match": "bias", "weight_decay": 0.0}, {"match": "^0", "lr_ratio": 1.0}]
    optimizer = build_decayed(model, groups=groups)
    found = [(names_of(g, model), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [
        (["4.weight"], 0.2, 0.01),
        (["2.weight"], 0.1, 0.01),
        (["4.bias"], 0.2, 0.0),
        (["2.bias"], 0.1, 0.0),
        (["0.bias"], 0.05, 0.0),
        (["0.weight"], 0.2, 0.01),
    ]


def test_depth_and_no_decay_of_biases():
    model = network()
    optimizer = build_decayed(model, decays=False)
    found = [(names_of(g, model), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [
        (["2.weight"], 0.2, 0.01),
        (["2.bias"], 0.2, 0.0),
        (["0.weight"], 0.1, 0.01),
        (["0.bias"], 0.1, 0.0),
    ]


def test_the_loss_is_at_the_head_and_muon_divides_each_depth():
    model, loss = network(), Weights()
    groups = build_decayed(model, loss=loss, name="muon").param_groups
    found = [(group["lr"], len(group["params"]), group["muon"]) for group in groups]
    # the loss's matrix beside the head, whose matrix is the last one of the model
    assert sorted(found) == [(0.1, 1, False), (0.1, 1, True), (0.2, 3, False)]


def test_a_depth_that_changes_no_rate_is_said():
    frozen = deep()
    for parameter in frozen[:4].parameters():
        parameter.requires_grad_(requires_grad=False)
    taken = [{"match": r"^[02]", "lr_ratio": 0.1}]
    for model, groups in ((Weights(), ()), (frozen, ()), (deep(), taken)):
        with pytest.warns(LrtoolWarning, match=r"^optimizer.layer_decay is ignored: all that is"):
            build_decayed(model, groups=groups)


def test_frozen_layers_count_for_the_depth():
    model = deep()
    model[2].requires_grad_(requires_grad=False)
    assert [group["lr"] for group in build_decayed(model).param_groups] == [0.2, 0.05]


def test_groups_may_take_everything():
    model = network()
    optimizer = build("sgd", model, lr=1.0, groups=[{"match": ".", "lr_ratio": 2.0}])
    assert [(len(g["params"]), g["lr"]) for g in optimizer.param_groups] == [(4, 2.0)]


def test_groups_move_by_their_own_rates():
    # one step of SGD with gradient 1: weights fall by their rate
    model = nn.ModuleDict({"a": Weights(), "b": Weights()})
    optimizer = build("sgd", model, lr=0.5, groups=[{"match": "b", "lr_ratio": 0.1}])
    for parameter in model.parameters():
        parameter.grad = torch.ones(3, 3)
    optimizer.step()
    assert torch.allclose(model["a"].weight, torch.full((3, 3), 0.5))
    assert torch.allclose(model["b"].weight, torch.full((3, 3), 0.95))


def test_groups_that_match_nothing():
    groups = [{"match": "0"}, {"match": "head"}, {"match": r"0\.bias"}]
    assert problems(groups=groups) == [
        (
            ("optimizer", "groups", 1, "match"),
            (
                "'head' matches no trainable parameter; the model has 0.weight, 0.bias, 2.weight, "
                "2.bias"
            ),
        ),
        (
            ("optimizer", "groups", 2, "match"),
            (
                r"'0\.bias' matches no trainable parameter outside earlier groups; the "
                "model has 0.weight, 0.bias, 2.weight, 2.bias"
            ),
        ),
    ]


def test_many_names_are_cut_short():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    [(_, words)] = problems("sgd", model, groups=[{"match": "x"}])
    assert words.endswith("the model has 0.weight, 0.bias, 1.weight, 1.bias, …")


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(requires_grad=False)
    optimizer = build("sgd", model)
    assert names_of(optimizer.param_groups[0], model) == ["2.weight", "2.bias"]
    [(_, words)] = problems("sgd", model, groups=[{"match": "^0"}])
    assert words == "'^0' matches no trainable parameter; the model has 2.weight, 2.bias"


def test_nothing_to_train():
    model = network().requires_grad_(requires_grad=False)
    words = "it has no trainable parameter, so there is nothing to optimize"
    assert problems("sgd", model) == [(("model",), words)]
    assert problems("sgd", nn.ReLU()) == [(("model",), words)]


def test_a_decay_that_the_class_does_not_have():
    groups = [{"match": "0"}, {"match": "2", "weight_decay": 0.1}]
    assert problems("rprop", groups=groups) == [
        (("optimizer", "groups", 1, "weight_decay"), "rprop has no weight decay")
    ]


def with_norms():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2), nn.LayerNorm(2)
    )


def described(optimizer, model):
    return [(names_of(g, model), g["lr"], g["weight_decay"]) for g in optimizer.param_groups]


def test_norms_and_biases_need_not_decay():
    model = with_norms()
    optimizer = build("adamw", model, lr=0.5, decays=False, weight_decay=0.1)
    norms_and_biases = ["0.bias", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias"]
    assert described(optimizer, model) == [
        (["0.weight", "3.weight"], 0.5, 0.1),
        (norms_and_biases, 0.5, 0.0),
    ]
    assert described(build("adamw", model, lr=0.5, weight_decay=0.1), model) == [
        ([name for name, _ in model.named_parameters()], 0.5, 0.1)
    ]


def test_norms_and_biases_that_do_not_decay_stay_where_they_are():
    # no gradient, so nothing but decay moves: × (1 − 0.5 · 0.1) a step
    model = with_norms()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build("adamw", model, lr=0.5, decays=False, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        share = 0.95 if name in {"0.weight", "3.weight"} else 1.0
        assert torch.allclose(parameter, share * before[name])


def test_groups_keep_their_own_decay_and_their_ratios():
    model = with_norms()
    groups = [{"match": "^0", "lr_ratio": 0.1}, {"match": "bias", "weight_decay": 0.3}]
    optimizer = build("sgd", model, lr=1.0, decays=False, groups=groups, weight_decay=0.2)
    assert described(optimizer, model) == [
        (["3.weight"], 1.0, 0.2),
        (["1.weight", "4.weight"], 1.0, 0.0),
        (["0.weight"], 0.1, 0.2),
        (["0.bias"], 0.1, 0.0),
        (["1.bias", "3.bias", "4.bias"], 1.0, 0.3),
    ]


def test_a_group_is_split_only_where_it_holds_both():
    model = with_norms()
    groups = [{"match": "bias"}, {"match": "^[03]"}]
    optimizer = build("adamw", model, lr=1.0, decays=False, groups=groups)
    assert described(optimizer, model) == [
        (["1.weight", "4.weight"], 1.0, 0.0),
        (["0.bias", "1.bias", "3.bias", "4.bias"], 1.0, 0.0),
        (["0.weight", "3.weight"], 1.0, 0.01),
    ]


@pytest.mark.parametrize(
    ("name", "args"), [("sgd", {}), ("adamw", {"weight_decay": 0}), ("rprop", {})]
)
def test_a_switch_of_decay_where_nothing_decays(name, args):
    words = f"^optimizer.decay_norm_and_bias is ignored: {name} has no weight decay here$"
    with pytest.warns(LrtoolWarning, match=words):
        build(name, decays=False, **args)
    build(name, decays=True, **args)


def test_shared_parameters_are_optimized_once():
    model = network()
    model.append(model[2])
    assert len(build("sgd", model).param_groups[0]["params"]) == 4


FUSED = [
    ("adam", {}),
    ("adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("adamw", {"weight_decay": 0.1}),
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.01}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "maximize": False}),
    ("adagrad", {"weight_decay": 0.01, "lr_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "args"), FUSED)
def test_fused_forms_are_used_and_agree_with_the_plain_ones(name, args):
    results = []
    for choice in ({}, {"foreach": False}):
        model = network()
        groups = [{"match": "bias", "lr_ratio": 0.5, "weight_decay": 0.0}]
        optimizer = build(name, model, lr=0.01, groups=groups, **args, **choice)
        assert all(bool(g["fused"]) is not bool(choice) for g in optimizer.param_groups)
        results.append(train(model, optimizer))
    for fused, plain in zip(*results, strict=True):
        assert torch.allclose(fused, plain, rtol=1e-5, atol=1e-7)
    start = network().parameters()
    assert not any(torch.allclose(*pair) for pair in zip(start, results[0], strict=True))


@pytest.mark.parametrize(
    "choice", [{"foreach": True}, {"foreach": False}, {"fused": False}, {"differentiable": True}]
)
def test_the_users_choice_of_form_wins(choice):
    optimizer = build("adam", **choice)
    assert not optimizer.defaults["fused"]
    assert {key: optimizer.defaults[key] for key in choice} == choice


def test_a_trial_of_the_fused_form_leaves_no_trace():
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build("adam", model)
    assert optimizer.defaults["fused"]
    assert not optimizer.state
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, old)


def test_torch_says_what_is_out_of_range():
    assert problems("adam", betas=[0.9, 2.0]) == [
        (("optimizer",), "adam cannot be built: Invalid beta parameter at index 1: 2.0")
    ]


USERS = """
    import random
    import torch

    class Lion(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-4, beta=0.9, weight_decay=0.0):
            super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    noise = 1e-12 * torch.rand(())
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["beta"])
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(group["lr"] * mean.sign() + noise)

    class Needy(Lion):
        def __init__(self, params, teacher, lr=1e-4):
            super().__init__(params, lr)
            self.teacher = teacher

    class Taught(Needy):
        def step(self, closure=None):
            self.teacher.teach(self)

    class Cubic(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = p.grad ** 3
            super().step()

    class HalfFused(torch.optim.SGD):
        def __init__(self, params, lr=0.1, fused=False):
            assert not fused, "not here"
            super().__init__(params, lr)

    def without_default(params, lr):
        return torch.optim.SGD(params, lr)

    def factory(params, lr=0.3, momentum=0.5):
        return torch.optim.SGD(params, lr, momentum)

    def no_optimizer(params, lr=0.3):
        return 3

    def script(params, lr=0.3):
        raise SystemExit(3)
"""


@pytest.fixture
def users(tmp_path, module):
    name = module(USERS)
    return lambda attribute, **more: (f"{name}:{attribute}", {"directories": [tmp_path], **more})


def test_a_users_class(users):
    name, options = users("Lion", lr=0.5)
    model = Weights()
    optimizer = build(
        name, model, beta=0.5, groups=[{"match": "w", "weight_decay": 0.2}], **options
    )
    model.weight.grad = torch.full((3, 3), 7.0)
    optimizer.step()  # 1 · (1 - 0.5 · 0.2) - 0.5 · 1
    assert torch.allclose(model.weight, torch.full((3, 3), 0.4))


def test_a_users_factory(users):
    name, options = users("factory")
    optimizer = build(name, **options)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.3, 0.5)


def test_torchs_classes_by_import_path_are_fused_too():
    assert build("torch.optim:AdamW").defaults["fused"]


def test_a_fused_form_that_fails_in_its_own_way(users):
    name, options = users("HalfFused")
    assert build(name, **options).defaults["lr"] == 0.1


def test_a_users_class_without_a_rate(users):
    name, options = users("without_default")
    assert problems(name, **options) == [
        (("optimizer", "args"), f"{name} has no default rate; give args.lr")
    ]
    name, options = users("without_default", lr=0.7)
    assert build(name, **options).defaults["lr"] == 0.7


def test_what_a_user_made_must_be_an_optimizer(users):
    name, options = users("no_optimizer")
    assert problems(name, **options) == [
        (("optimizer", "name"), f"{name} made a int, not a torch.optim.Optimizer")
    ]


def test_a_users_class_that_fails(users):
    name, options = users("Needy")
    [(path, words)] = problems(name, **options)
    assert path == ("optimizer",)
    assert words.startswith(f"{name} cannot be built: ")
    assert "teacher" in words


def test_a_users_factory_that_ends_the_program(users):
    name, options = users("script")
    [(path, words)] = problems(name, **options)
    assert path == ("optimizer",)
    assert words.startswith(f"{name} cannot be built: it ended the program: sys.exit(3) (")


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("sgd", {}, "sgd"),
        ("sgd", {"momentum": 0.9}, "sgd_momentum"),
        ("sgd", {"momentum": 0.9, "nesterov": True}, "sgd_momentum"),
        ("rmsprop", {"momentum": 0.9}, "rmsprop"),
        ("adamw", {}, "adamw"),
    ],
)
def test_kinds(name, args, expected):
    assert kind(build(name, **args)) == expected


def test_the_kind_of_a_users_class(users):
    name, options = users("Lion")
    assert kind(build(name, **options)) == "lion"


PROPORTIONAL = {"sgd", "asgd"}


@pytest.mark.parametrize("name", DENSE)
def test_families(name):
    expected = "proportional" if name in PROPORTIONAL else "adaptive"
    assert family(build(name, Weights())) == expected


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("sgd", {"momentum": 0.9, "weight_decay": 1.0}, "proportional"),
        ("sgd", {"momentum": 0.9, "nesterov": True}, "proportional"),
        ("adam", {"amsgrad": True, "weight_decay": 10.0}, "adaptive"),
        ("adam", {"capturable": True}, "adaptive"),
        ("adam", {"foreach": True}, "adaptive"),
        ("adam", {"eps": 1e6}, "proportional"),
        ("rmsprop", {"centered": True, "momentum": 0.9}, "adaptive"),
    ],
)
def test_families_follow_the_arguments(name, args, expected):
    assert family(build(name, **args)) == expected


def test_families_of_users_classes(users):
    for attribute, expected in (
        ("Lion", "adaptive"),
        ("Cubic", None),
        ("HalfFused", "proportional"),
    ):
        name, options = users(attribute)
        assert family(build(name, **options)) == expected


def test_a_class_that_needs_more_is_measured_without_it(users):
    name, options = users("Needy")
    assert family(build(name, teacher=1, **options)) == "adaptive"
    name, options = users("Taught")
    optimizer = build(name, teacher=1, **options)
    assert family(optimizer) is None  # its step asks the teacher
    assert kind(optimizer) == "taught"


def test_measuring_the_family_touches_nothing(users):
    name, options = users("Lion")
    model = network()
    optimizer = build(name, model, **options)
    train(model, optimizer, steps=2)
    weights = [p.detach().clone() for p in model.parameters()]
    grads = [p.grad.clone() for p in model.parameters()]
    means = [optimizer.state[p]["mean"].clone() for p in model.parameters()]
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    states = torch.get_rng_state(), random.getstate()
    assert family(optimizer) == "adaptive"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    for p, weight, grad, mean in zip(model.parameters(), weights, grads, means, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(p.grad, grad)
        assert torch.equal(optimizer.state[p]["mean"], mean)
    after = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    assert after == settings


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("rmsprop", {}, 10.0),  # 1 / √(1 − .99) over 1
        ("rmsprop", {"alpha": 0.96}, 5.0),
        ("adam", {}, 1.0),
        ("sgd", {"momentum": 0.9}, 1.0),  # a tenth, but no more is asked
    ],
)
def test_how_much_larger_the_first_update_is(name, args, expected):
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = OPTIMIZERS[name](model.parameters(), lr=0.1, **args)
    assert opening(optimizer) == pytest.approx(expected, rel=0.01)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert not optimizer.state


class Wanting(torch.optim.RMSprop):
    """Built from more than parameters and settings, which its step uses."""

    def __init__(self, params, lr, model, power):
        super().__init__(params, lr)
        self.model, self.power = model, power

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.grad**self.power
        return super().step(closure)


def test_a_class_that_cannot_be_built_again_is_measured_without_its_objects():
    model = nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    same, other = (Wanting(model.parameters(), 0.1, model, power) for power in (1, 3))
    assert opening(same) == pytest.approx(10, rel=0.01)
    assert (kind(same), kind(other)) == ("rmsprop", "wanting")
    assert all(map(torch.equal, before, model.parameters()))
    assert not same.state


class SameAdamW(torch.optim.AdamW):
    """Another name alone."""


class ModedSGD(torch.optim.SGD):
    """Updates as its parent does."""

    def step(self, closure=None):
        return super().step(closure)


class HalfSGD(torch.optim.SGD):
    """Updates otherwise than its parent."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] /= 2
        return super().step(closure)


class Scratch(torch.optim.Optimizer):
    """Adam written anew, and in half the digits."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                state = self.state[p]
                n = state["n"] = state.get("n", 0) + 1
                m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * p.grad
                v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * p.grad**2
                update = (m / (1 - b1**n)) / ((v / (1 - b2**n)).sqrt() + 1e-8)
                p.sub_(lr * update.bfloat16())


class LionInAdam(torch.optim.Adam):
    """Signs of the momentum, as large as Adam's updates as long as the gradient stays the same."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.sub_(group["lr"] * (0.9 * mean + 0.1 * p.grad).sign())
                mean.lerp_(p.grad, 0.01)


class Trusting(torch.optim.AdamW):
    """Updates as large as the weights, as LAMB's; those of AdamW where the weights are 0."""

    @torch.no_grad()
    def step(self):
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.clone() for p in parameters]
        super().step()
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old + (old.norm() or 1.0) * (p - old))


class Wrapper(torch.optim.Optimizer):
    """As accelerate's."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups


def of_fabric(optimizer):
    """Return a wrapper as Lightning Fabric's, whose class is made on the spot."""
    cls = type(f"Fabric{type(optimizer).__name__}", (Wrapper, type(optimizer)), {})
    wrapper = cls.__new__(cls)
    vars(wrapper).update(vars(optimizer), _optimizer=optimizer)
    return wrapper


class Slotted:
    """No optimizer of torch's, and without a `__dict__`."""

    __slots__ = ("optimizer",)

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self):
        self.optimizer.step()


class Several(torch.optim.Optimizer):
    """One optimizer for each parameter, as torchao's that computes on the CPU."""

    def __init__(self, *optimizers):
        self.of = dict(enumerate(optimizers))
        self.param_groups = [group for each in optimizers for group in each.param_groups]


def test_subclasses_and_wrappers_are_what_they_are():
    parameters = [nn.Parameter(torch.ones(2, 2))]
    assert kind(SameAdamW(parameters)) == "adamw"
    assert kind(ModedSGD(parameters, 0.1)) == "sgd"
    assert kind(ModedSGD(parameters, 0.1, momentum=0.9)) == "sgd_momentum"
    assert kind(HalfSGD(parameters, 0.1)) == "halfsgd"
    assert kind(LionInAdam(parameters)) == "lioninadam"
    assert kind(Trusting(parameters)) == "trusting"
    wrapped = Wrapper(Wrapper(torch.optim.AdamW(parameters)))
    assert kind(wrapped) == "adamw"
    assert family(wrapped) == "adaptive"
    assert opening(Wrapper(torch.optim.RMSprop(parameters))) == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("wrap", [Wrapper, of_fabric, Slotted, Several])
def test_wrappers_of_all_sorts(wrap):
    parameters = [nn.Parameter(torch.ones(2, 2))]
    assert kind(wrap(torch.optim.AdamW(parameters))) == "adamw"
    assert kind(wrap(torch.optim.SGD(parameters, 0.1, momentum=0.9))) == "sgd_momentum"
    assert kind(wrap(SameAdamW(parameters))) == "adamw"


def test_several_optimizers_inside_are_one_kind_or_none():
    def adam():
        return torch.optim.Adam([nn.Parameter(torch.ones(2, 2))])

    sgd = torch.optim.SGD([nn.Parameter(torch.ones(2, 2))], 0.1)
    assert kind(Several(adam(), adam())) == "adam"
    assert kind(Several(adam(), sgd)) == "several"


def test_a_class_of_ones_own_that_updates_as_one_of_torchs():
    parameters = [nn.Parameter(torch.ones(2, 2))]
    state = torch.get_rng_state()
    assert kind(Scratch(parameters)) == "adam"
    assert kind(Scratch(parameters, betas=(0.5, 0.9))) == "adam"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(parameters[0], torch.ones(2, 2))


def test_momentum_of_a_group():
    group = {"params": [nn.Parameter(torch.ones(2, 2))], "momentum": 0.9}
    assert kind(torch.optim.SGD([group], 0.1)) == "sgd_momentum"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AdamW8bit", "adamw"),
        ("PagedAdamW32bit", "adamw"),
        ("AdamW4bit", "adamw"),
        ("AdamWFp8", "adamw"),
        ("FusedAdam", "adam"),
        ("DeepSpeedCPUAdam", "adam"),
        ("HybridAdam", "adam"),
        ("NAdamWLegacy", "nadam"),
        ("PagedLion8bit", "lion"),
        ("SGDW", "sgd"),
        ("FusedSGD", "sgd"),
        ("AdamWScheduleFree", "adamwschedulefree"),
        ("FusedLAMB", "fusedlamb"),
    ],
)
def test_forms_that_cannot_be_measured_go_by_their_names(name, expected):
    def step(_):
        raise RuntimeError("it needs a GPU")

    cls = type(name, (torch.optim.Optimizer,), {"step": step})
    assert kind(cls([nn.Parameter(torch.ones(2, 2))], {"lr": 0.1})) == expected


def test_a_name_that_the_updates_belie():
    parameters = [nn.Parameter(torch.ones(2, 2))]
    cls = type("SGD", (LionInAdam,), {})
    assert kind(cls(parameters)) == f"{__name__}.sgd"
    assert kind(type("Lion", (LionInAdam,), {})(parameters)) == "lion"


def test_the_parameters_of_a_loss_are_trained_but_for_frozen_ones():
    model = Weights()
    loss = nn.ModuleDict(
        {
            "own": nn.Linear(2, 2),
            "fixed": nn.Linear(2, 2).requires_grad_(requires_grad=False),
            "pretrained": nn.Linear(2, 2).eval(),
            "shared": model,
        }
    )
    spec = OptimizerConfig(name="sgd", groups=[ParameterGroupConfig(match="^loss", lr_ratio=3)])
    optimizer = build_optimizer(spec, model, loss, lr=0.1, directories=[])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, pytest.approx(0.3)]
    own = optimizer.param_groups[1]["params"]
    assert all(a is b for a, b in zip(own, loss["own"].parameters(), strict=True))


def test_what_is_known_of_an_optimizer_does_not_depend_on_the_default_device():
    class Own(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    optimizers = [make(network().parameters()) for make in (torch.optim.RMSprop, Own)]
    before = [(kind(o), family(o), opening(o)) for o in optimizers]
    assert before[0][:2] == ("rmsprop", "adaptive")
    assert before[1][0] == "adam"
    with torch.device("meta"):
        assert [(kind(o), family(o), opening(o)) for o in optimizers] == before
