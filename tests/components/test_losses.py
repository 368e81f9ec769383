"""Losses against torch's functions and by hand, and which of them fit which batch."""

import re

import pytest
import torch
from torch.nn import functional as F

from lrtool.components import losses
from lrtool.components.losses import (
    ALIASES,
    LOSSES,
    build_loss,
    check_args,
    fit_problem,
    known_as,
)
from lrtool.config.schema import ComponentConfig, LossConfig
from lrtool.errors import ConfigError

CLASSES = torch.tensor([0, 2, 1, 2])
VALUES = torch.tensor([[0.5, -1.0, 2.0]] * 4)
SHARES = torch.tensor([[0.2, 0.5, 0.3]] * 4)
SIGNS = torch.tensor([[1.0, -1.0, 1.0]] * 4)
SETS = torch.tensor([[0, 2, -1], [1, -1, -1], [0, 1, 2], [2, 1, -1]])
TARGETS = {
    "values": VALUES.abs(),
    "classes": CLASSES,
    "probabilities": SHARES,
    "signs": SIGNS,
    "label sets": SETS,
}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs_for(name):
    outputs = random(4, 3)
    if name == "binary_cross_entropy":
        return outputs.sigmoid()
    return outputs.log_softmax(1) if name in {"kl_div", "nll_loss"} else outputs


def make(name, directories=(), **args):
    return build_loss(ComponentConfig(name=name, args=args), directories)


def problem(name, outputs, targets, directories=(), **args):
    return fit_problem(name, make(name, directories, **args), outputs, targets)


def steps(size=4, classes=5, length=6, **kwargs):
    """Outputs (B, C, T) that lie in memory as (B, T, C), and targets (B, T)."""
    lying = random(size, length, classes).requires_grad_(**kwargs)
    targets = torch.randint(classes, (size, length), generator=torch.Generator().manual_seed(1))
    return lying, lying.transpose(1, 2), targets


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_torchs_mean(name):
    outputs, targets = outputs_for(name), TARGETS[LOSSES[name].takes]
    reduction = "batchmean" if name == "kl_div" else "mean"
    expected = getattr(F, name)(outputs, targets, reduction=reduction)
    assert torch.equal(make(name)(outputs, targets), expected)
    assert expected.ndim == 0
    assert problem(name, outputs, targets) is None


def test_mean_squared_error_is_the_sum_of_squared_errors_over_n():
    # errors 1, -2, 3 of three samples: (1 + 4 + 9) / 3
    outputs, targets = torch.tensor([[2.0], [0.0], [4.0]]), torch.tensor([[1.0], [2.0], [1.0]])
    assert make("mse")(outputs, targets).item() == pytest.approx(14 / 3)


def test_cross_entropy_by_hand():
    # softmax of (ln 1, ln 3) is (1/4, 3/4)
    outputs = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).log()
    expected = -(torch.tensor(0.25).log() + torch.tensor(0.75).log()) / 2
    value = make("cross_entropy")(outputs, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(expected.item())


def test_divergence_is_a_mean_over_samples():
    # each sample: Σ p ln(p / q) with p = (1/2, 1/2), q = (1/4, 3/4)
    q, p = torch.tensor([[0.25, 0.75]] * 3), torch.full((3, 2), 0.5)
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    assert make("kl_div")(q.log(), p).item() == pytest.approx(expected.item())
    assert make("kl_div", log_target=True)(q.log(), p.log()).item() == pytest.approx(
        expected.item()
    )


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("sparse_categorical_crossentropy", "cross_entropy"),
        ("categorical_crossentropy", "cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy_with_logits"),
        ("mean_squared_error", "mse_loss"),
        ("mse", "mse_loss"),
        ("mean_absolute_error", "l1_loss"),
        ("mae", "l1_loss"),
        ("l1", "l1_loss"),
        ("huber", "huber_loss"),
        ("smooth_l1", "smooth_l1_loss"),
        ("bce", "binary_cross_entropy"),
        ("bce_with_logits", "binary_cross_entropy_with_logits"),
        ("nll", "nll_loss"),
    ],
)
def test_other_names(alias, name):
    outputs, targets = outputs_for(name), TARGETS[LOSSES[name].takes]
    assert losses.canonical(alias) == name
    assert torch.equal(make(alias)(outputs, targets), make(name)(outputs, targets))


def test_every_other_name_is_tested_above():
    mark = next(m for m in test_other_names.pytestmark if m.name == "parametrize")
    assert {alias for alias, _ in mark.args[1]} == set(ALIASES)
    assert losses.canonical("mse_loss") == "mse_loss"


def test_what_wants_one_output_for_two_classes():
    wanting = {name for name in [*LOSSES, *ALIASES] if losses.wants_binary(name)}
    assert wanting == {
        "binary_cross_entropy",
        "bce",
        "binary_cross_entropy_with_logits",
        "bce_with_logits",
        "binary_crossentropy",
    }


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"label_smoothing": 0.1},
        {"ignore_index": 2},
        {"weight": [1.0, 2.0, 0.5, 3.0, 1.0]},
        {"weight": [1, 2, 1, 3, 1], "label_smoothing": 0.2, "ignore_index": 0},
    ],
)
def test_cross_entropy_of_steps_without_a_copy_is_the_plain_one(args):
    plain = {**args, "weight": torch.tensor(args["weight"]).float()} if "weight" in args else args
    grads, values = [], []
    for loss in (make("cross_entropy", **args), lambda o, t: F.cross_entropy(o, t, **plain)):
        lying, outputs, targets = steps(requires_grad=True)
        values.append(loss(outputs, targets))
        values[-1].backward()
        grads.append(lying.grad)
    assert torch.allclose(*values, rtol=1e-6)
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-8)


def test_cross_entropy_of_steps_copies_nothing(monkeypatch):
    lying, outputs, targets = steps()
    reached = []
    monkeypatch.setattr(F, "cross_entropy", lambda *args, **_: reached.append(args))
    make("cross_entropy")(outputs, targets)
    [(flat, indices, *_)] = reached
    assert (flat.shape, indices.shape) == ((24, 5), (24,))
    assert flat.is_contiguous()
    assert flat.data_ptr() == lying.data_ptr()


def test_cross_entropy_of_images_in_any_layout():
    for layout in (torch.contiguous_format, torch.channels_last):
        outputs = random(2, 3, 4, 5).contiguous(memory_format=layout)
        targets = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
        expected = F.cross_entropy(outputs, targets)
        assert torch.allclose(make("cross_entropy")(outputs, targets), expected, rtol=1e-6)


def test_cross_entropy_of_steps_against_shares():
    _, outputs, _ = steps()
    shares = random(4, 5, 6, seed=2).softmax(1)
    expected = F.cross_entropy(outputs, shares)
    assert torch.equal(make("cross_entropy")(outputs, shares), expected)


def test_weights_are_lists_of_numbers():
    outputs, targets = random(4, 3), CLASSES
    weight = torch.tensor([1.0, 2.0, 0.5])
    loss = make("nll_loss", weight=[1, 2, 0.5])
    assert torch.equal(loss(outputs, targets), F.nll_loss(outputs, targets, weight=weight))
    loss = make("torch.nn:NLLLoss", weight=[1, 2, 0.5])
    assert torch.equal(loss(outputs, targets), F.nll_loss(outputs, targets, weight=weight))
    loss = make("binary_crossentropy", pos_weight=[3.0, 1.0, 1.0])
    expected = F.binary_cross_entropy_with_logits(
        outputs, SHARES, pos_weight=torch.tensor([3.0, 1.0, 1.0])
    )
    assert torch.equal(loss(outputs, SHARES), expected)
    double = make("nll_loss", weight=[1, 2, 0.5])(outputs.double(), targets)
    assert double.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("mse", {}, []),
        ("huber", {"delta": 2}, []),
        ("cross_entropy", {"weight": [1, 2.5], "label_smoothing": 0.1, "ignore_index": 0}, []),
        (
            "mse",
            {"reduction": "sum"},
            [("reduction", "cannot be set here: a loss is a mean over samples")],
        ),
        (
            "mse",
            {"target": 3},
            [("target", "cannot be set here: a loss is a mean over samples")],
        ),
        ("cross_entropy", {"weight": 3}, [("weight", "must be a list of numbers, not 3")]),
        (
            "cross_entropy",
            {"weight": [1, "a"]},
            [("weight", "must be a list of numbers, not [1, 'a']")],
        ),
        (
            "cross_entropy",
            {"weight": [1, 10**400]},
            [("weight", f"must be a list of numbers, not [1, {10**400}]")],
        ),
        (
            "cross_entropy",
            {"weight": [1, True]},
            [("weight", "must be a list of numbers, not [1, true]")],
        ),
        (
            "huber",
            {"dleta": 1},
            [("dleta", "unknown argument (did you mean 'delta'?); signature (")],
        ),
        ("huber", {"delta": "a"}, [("delta", "must be a number, not the text 'a'")]),
        (
            "kl_div",
            {"reduction": "sum", "log_target": 1},
            [
                ("reduction", "cannot be set here: a loss is a mean over samples"),
                ("log_target", "must be true or false, not 1"),
            ],
        ),
    ],
)
def test_arguments(name, args, expected):
    found = check_args(name, args)
    assert [problem.path for problem in found] == [(argument,) for argument, _ in expected]
    for problem, (_, start) in zip(found, expected, strict=True):
        assert problem.message.startswith(start)


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "words"),
    [
        ("l1", VALUES, CLASSES, "takes targets that are floats, not class indices"),
        ("soft_margin_loss", VALUES, SETS, "takes targets that are floats, not class indices"),
        ("cross_entropy", VALUES, VALUES, "takes class indices, not floats"),
        ("cross_entropy", VALUES[:, :1], VALUES[:, :1], "takes class indices, not floats"),
        ("cross_entropy", VALUES[:, 0], VALUES[:, 0], "takes class indices, not floats"),
        ("nll_loss", VALUES, SHARES, "takes class indices, not floats"),
        ("mse", VALUES[:, :1], VALUES[:, 0], "takes targets of the outputs' shape"),
        ("mse", VALUES[:, 0], VALUES[:, :1], "takes targets of the outputs' shape"),
        ("cross_entropy", VALUES, SETS, "takes one class index for each prediction"),
        ("cross_entropy", VALUES[:, 0], CLASSES, "takes one class index for each prediction"),
        (
            "cross_entropy",
            torch.zeros(2, 6, 5),
            torch.zeros(2, 6, dtype=torch.int64),
            (
                "takes outputs with the classes in the second dimension: "
                "return outputs.transpose(1, -1)"
            ),
        ),
        (
            "cross_entropy",
            VALUES,
            torch.tensor([1, 2, 3, 1]),
            "takes class indices from 0 to 2, and these go from 1 to 3",
        ),
        (
            "cross_entropy",
            VALUES,
            torch.tensor([0, -1, 2, 1]),
            "takes class indices from 0 to 2, and these go from -1 to 2",
        ),
        (
            "poisson_nll_loss",
            VALUES,
            VALUES,
            "takes targets that are counts, and some of these are below 0",
        ),
        ("soft_margin_loss", VALUES, SHARES, "takes targets that are −1 or 1"),
        ("bce_with_logits", VALUES, SIGNS, "takes targets between 0 and 1"),
        (
            "bce",
            VALUES,
            SHARES,
            (
                "takes outputs between 0 and 1, and these are not; for logits there is "
                "binary_cross_entropy_with_logits"
            ),
        ),
        (
            "kl_div",
            VALUES,
            SHARES,
            "takes outputs that are log-probabilities, and some of these are above 0",
        ),
        (
            "multilabel_margin_loss",
            VALUES,
            CLASSES,
            "takes rows of class indices, as many as there are outputs",
        ),
        (
            "multilabel_margin_loss",
            VALUES,
            SIGNS,
            "takes rows of class indices, as many as there are outputs",
        ),
    ],
)
def test_what_does_not_fit(name, outputs, targets, words):
    found = problem(name, outputs, targets)
    both = ", ".join(
        f"{what} {tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
        for what, t in (("outputs", outputs), ("targets", targets))
    )
    assert found.startswith(f"{name} {words}; {both}; ")
    advice = found.split("; ")[-1]
    if advice == "no built-in loss fits these":
        fitting = []
    else:
        assert advice.startswith("losses that fit: ")
        fitting = advice.removeprefix("losses that fit: ").split(", ")
    assert fitting == [other for other in LOSSES if problem(other, outputs, targets) is None]


def test_the_whole_text():
    assert problem("l1", VALUES, CLASSES) == (
        "l1 takes targets that are floats, not class indices; outputs (4, 3) float32, "
        "targets (4,) int64; losses that fit: cross_entropy, multi_margin_loss"
    )
    assert problem("cross_entropy", VALUES, VALUES) == (
        "cross_entropy takes class indices, not floats; outputs (4, 3) float32, targets (4, 3) "
        "float32; losses that fit: mse_loss, l1_loss, smooth_l1_loss, huber_loss"
    )
    as_column = problem("cross_entropy", VALUES[:, :1], VALUES[:, 0])  # (N,) is taken for (N, 1)
    assert "targets (4,) float32; losses that fit: mse_loss, l1_loss, smooth_l1" in as_column
    assert problem("mse", VALUES, VALUES[:2]) == (
        "mse takes targets of the outputs' shape; outputs (4, 3) float32, targets (2, 3) float32; "
        "no built-in loss fits these"
    )


def test_cross_entropy_takes_shares_that_sum_to_one():
    assert problem("cross_entropy", VALUES, SHARES) is None
    assert problem("cross_entropy", VALUES, SHARES * 0.9).startswith(
        "cross_entropy takes class indices, not floats"
    )


def test_ignored_indices_are_not_held_against_the_range():
    out_of_range = torch.tensor([0, -100, 2, 255])
    assert "go from 0 to 255" in problem("cross_entropy", VALUES, out_of_range)
    assert "go from -100 to 2" in problem("cross_entropy", VALUES, out_of_range, ignore_index=255)
    kept = torch.tensor([0, 255, 2, 1])
    assert problem("cross_entropy", VALUES, kept, ignore_index=255) is None
    assert problem("cross_entropy", VALUES, kept - 1, ignore_index=-1) is not None
    assert problem("nll", -VALUES.abs(), torch.tensor([0, -1, 2, 1]), ignore_index=-1) is None
    weighted = {"ignore_index": -1, "weight": [1, 2, 3]}
    assert problem("cross_entropy", VALUES, torch.tensor([0, -1, 2, 1]), **weighted) is None
    assert problem("cross_entropy", VALUES, CLASSES, ignore_index=0) is None
    assert problem("cross_entropy", VALUES, torch.full((4,), -100)) is None


def test_logarithms_as_targets():
    logs = SHARES.log()
    assert problem("kl_div", logs, logs, log_target=True) is None
    assert problem("kl_div", logs, SHARES, log_target=True).startswith(
        "kl_div takes targets that are log-probabilities, and some of these are above 0; "
    )


def test_nll_wants_log_probabilities():
    assert problem("nll", VALUES.log_softmax(1), CLASSES) is None
    assert problem("nll", VALUES, CLASSES).startswith(
        "nll takes outputs that are log-probabilities; for logits there is cross_entropy; "
    )


def test_torchs_own_words_where_the_rules_see_nothing():
    found = problem("cross_entropy", VALUES, CLASSES, weight=[1.0, 2.0])
    assert re.match(r"cross_entropy failed: RuntimeError: weight tensor should be defined", found)
    assert found.endswith("losses that fit: multi_margin_loss")
    found = problem("cross_entropy", VALUES, CLASSES.int())
    assert re.match(r"cross_entropy failed: RuntimeError: expected .* Int", found)
    found = problem("multilabel_margin_loss", VALUES, SETS + 5)
    assert found.startswith("multilabel_margin_loss failed: RuntimeError: ")


def test_a_batch_that_is_no_two_tensors():
    assert problem("mse", {"logits": VALUES}, VALUES) == (
        "mse compares two tensors, but outputs and targets are dict and Tensor"
    )


def test_fitting_leaves_no_graph_and_no_warning():
    outputs = VALUES.clone().requires_grad_()
    assert problem("l1", outputs, CLASSES) is not None
    assert outputs.grad is None


USERS = """
    import torch
    from torch import nn

    def loss(outputs, targets, scale=1.0):
        return scale * (outputs - targets).abs().mean()

    def each(outputs, targets):
        return outputs - targets

    def number(outputs, targets):
        return 1.0

    def of_dict(outputs, targets):
        return outputs["logits"].mean()

    def broken(outputs, targets):
        return outputs @ targets

    class Fussy(nn.Module):
        def __init__(self, strength):
            super().__init__()
            if strength < 0:
                raise ValueError("strength is negative")

    class NotCallable: ...

    class Script:
        def __init__(self):
            raise SystemExit(1)
"""


@pytest.fixture
def users(tmp_path, module):
    name = module(USERS)
    return lambda attribute, *batch, **args: (
        problem(f"{name}:{attribute}", *batch, directories=[tmp_path], **args)
        if batch
        else make(f"{name}:{attribute}", [tmp_path], **args)
    )


def test_a_users_function(users):
    assert users("loss", scale=2.0)(VALUES, VALUES + 1).item() == pytest.approx(2.0)
    assert users("loss", VALUES, VALUES) is None
    assert users("of_dict", {"logits": VALUES}, VALUES) is None


def test_a_module_of_torchs():
    loss = make("torch.nn:HuberLoss", delta=0.5)
    expected = F.huber_loss(VALUES, SIGNS, delta=0.5)
    assert torch.equal(loss(VALUES, SIGNS), expected)
    plain = make("torch.nn:MSELoss")
    assert isinstance(plain, torch.nn.Module)  # so that a device can be chosen for it


def known(name, directories=(), **args):
    found = known_as(LossConfig(name=name, args=args), make(name, directories, **args))
    return found.name, found.args


def test_losses_of_torch_are_known_by_their_module_and_their_function():
    modules = {
        entry.module.__name__: name for name, entry in LOSSES.items() if entry.module is not None
    }
    assert len(modules) == len(LOSSES) == 15
    for module, name in modules.items():
        assert known(f"torch.nn:{module}")[0] == name
        assert known(f"torch.nn.functional:{name}")[0] == name
        outputs, targets = outputs_for(name), TARGETS[LOSSES[name].takes]
        own = getattr(torch.nn, module)(reduction="sum")(outputs, targets)
        assert torch.equal(own, getattr(F, name)(outputs, targets, reduction="sum"))


def test_what_losses_of_torch_say_of_their_data(tmp_path, module):
    assert known("torch.nn:PoissonNLLLoss") == ("poisson_nll_loss", {"log_input": True})
    given = known("torch.nn:PoissonNLLLoss", log_input=False)
    assert given == ("poisson_nll_loss", {"log_input": False})
    given = known("torch.nn.functional:cross_entropy", ignore_index=3)
    assert given == ("cross_entropy", {"ignore_index": 3})
    name = module(
        """
        from functools import partial
        from torch import nn
        from torch.nn import functional as F

        made = nn.PoissonNLLLoss(log_input=False)
        bound = partial(F.kl_div, log_target=True)

        class Same(nn.PoissonNLLLoss):
            def __init__(self):
                super().__init__(log_input=False)

        class Other(nn.MSELoss):
            def forward(self, outputs, targets):
                return 2 * super().forward(outputs, targets)
        """
    )
    values = ("poisson_nll_loss", {"log_input": False})
    assert known(f"{name}:made", [tmp_path]) == known(f"{name}:Same", [tmp_path]) == values
    assert known(f"{name}:bound", [tmp_path]) == ("kl_div", {"log_target": True})
    for own in ("Other", "F.softmax"):
        assert known(f"{name}:{own}", [tmp_path]) == (f"{name}:{own}", {})
    assert known("mse", [tmp_path]) == ("mse", {})
    assert known_as(LossConfig(name="mine:loss"), None).name == "mine:loss"


def test_a_users_loss_that_does_not_fit(users):
    shapes = "outputs (4, 3) float32, targets (4, 3) float32"
    assert users("each", VALUES, VALUES).endswith(
        f":each returned shape (4, 3), not a scalar; take the mean; {shapes}"
    )
    found = users("number", VALUES, VALUES)
    assert found.endswith(f":number returned a float, not a tensor; {shapes}")
    found = users("broken", VALUES, VALUES)
    assert ":broken failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied" in found
    assert found.endswith(f".py:18); {shapes}")
    found = users("of_dict", {"x": VALUES}, VALUES)
    assert re.fullmatch(r"users_\d+:of_dict failed: KeyError: 'logits' \(/.*\.py:15\)", found)


def test_a_users_loss_that_cannot_be_built(users, tmp_path):
    with pytest.raises(ConfigError, match=r"loss: .*:Fussy cannot be built: ValueError: ") as e:
        users("Fussy", strength=-1)
    assert re.search(rf"strength is negative \({tmp_path}/\w+\.py:\d+\)$", str(e.value))
    with pytest.raises(ConfigError, match=r":Script cannot be built: .* sys.exit\(1\)"):
        users("Script")
    with pytest.raises(ConfigError, match="is a NotCallable; it cannot be called") as e:
        users("NotCallable")
    assert e.value.problems[0].path == ("loss", "name")


def test_a_function_that_makes_a_loss_is_told_from_one(tmp_path):
    (tmp_path / "makers.py").write_text(
        "def without():\n    return print\n"
        "def with_arguments(smoothing=0.1, weight=None):\n    return print\n"
    )

    def built(name):
        return build_loss(ComponentConfig(name=f"makers:{name}"), [tmp_path])

    advice = "if it makes a loss, put that into a variable and name it: loss = make_loss()"
    with pytest.raises(ConfigError) as caught:
        built("without")
    assert str(caught.value) == (
        f"loss: makers:without cannot be called with outputs and targets; {advice}"
    )
    outputs, targets = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    name = "makers:with_arguments"
    found = fit_problem(name, built("with_arguments"), outputs, targets)
    assert f"returned a builtin_function_or_method, not a tensor; {advice}" in found
