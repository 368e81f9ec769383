"""Everything that a configuration names is judged at once, each problem with its key path."""

import pytest

from lrtool import config
from lrtool.build import components
from lrtool.data.sources import SOURCES
from lrtool.errors import ConfigError
from lrtool.settings import read_config


def check(directories=(), **sections):
    found = components.check(config.Config.model_validate(sections), SOURCES, directories)
    return [(".".join(map(str, problem.path)), problem.message) for problem in found]


def test_the_defaults_are_sound():
    assert check() == []


@pytest.mark.parametrize(
    "sections",
    [
        {"loss": "sparse_categorical_crossentropy"},
        {"loss": "mean_squared_error"},
        {"loss": {"name": "cross_entropy", "args": {"weight": [1, 2.5], "label_smoothing": 0.1}}},
        {"loss": "torch.nn.functional:mse_loss"},
        {"loss": {"name": "torch.nn:HuberLoss", "args": {"delta": 2.0}}},
        {"loss": {"name": "torch.nn.functional:huber_loss", "args": {"delta": 2.0}}},
        {"model": {"name": "torch.nn:Linear", "args": {"in_features": 3, "out_features": 2}}},
        {"model": {"name": "linear", "args": {"num_outputs": 3, "input_shape": [3]}}},
        {"model": {"name": "mlp", "args": {"hidden": [3], "dropout": 0, "activation": "gelu"}}},
        {"optimizer": {"name": "adam", "args": {"betas": [0.9, 0.99], "lr": 1}}},
        {"optimizer": {"name": "torch.optim:SGD", "args": {"momentum": 0.9}}},
        {"optimizer": {"name": "sgd", "groups": [{"match": r"\.bias$"}]}},
        {"metrics": ["accuracy", "r2", "torch.nn.functional:l1_loss"]},
        {"train": {"schedule": "one_cycle"}},
        {"data": {"source": "csv", "args": {"path": "a.csv", "target": "y"}}},
    ],
)
def test_sound_ones(sections):
    assert check(**sections) == []


def test_all_problems_at_once():
    found = check(
        data={"source": "digitz"},
        model={"name": "mlp", "args": {"hiden": [3], "dropout": "high"}},
        loss={"name": "huber", "args": {"reduction": "sum", "delta": "x"}},
        metrics=["accuracy", "acuracy"],
        optimizer={"name": "adm", "groups": [{"match": "ok"}, {"match": "("}]},
        train={"schedule": "cosin", "epochs": 1},
    )
    assert found == [
        ("data.source", "no source is called 'digitz' (did you mean 'digits'?)"),
        (
            "model.args.hiden",
            (
                "unknown argument (did you mean 'hidden'?); signature "
                "(hidden=None, activation='relu', dropout=0.0, batch_norm=False)"
            ),
        ),
        ("model.args.dropout", "must be a number, not the text 'high'"),
        (
            "loss.args.reduction",
            "is not for a configuration: a loss here is a mean over samples",
        ),
        ("loss.args.delta", "must be a number, not the text 'x'"),
        ("metrics.1", "no metric is called 'acuracy' (did you mean 'accuracy'?)"),
        (
            "optimizer.groups.1.match",
            ("'(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ),
        ("optimizer.name", "no optimizer is called 'adm' (did you mean 'adam'?)"),
        ("train.schedule.name", "no schedule is called 'cosin' (did you mean 'cosine'?)"),
    ]


@pytest.mark.parametrize(
    ("sections", "path", "start"),
    [
        ({"data": {"source": "zzz"}}, "data.source", "no source is called 'zzz'; there are "),
        ({"model": "zzz"}, "model.name", "no model is called 'zzz'; there are linear, mlp, "),
        ({"loss": "zzz"}, "loss.name", "no loss is called 'zzz'; there are cross_entropy, "),
        ({"metrics": ["zzz"]}, "metrics.0", "no metric is called 'zzz'; there are accuracy, "),
        ({"optimizer": "zzz"}, "optimizer.name", "no optimizer is called 'zzz'; there are "),
        (
            {"train": {"schedule": "zzz", "epochs": 1}},
            "train.schedule.name",
            "no schedule is called 'zzz'; there are constant, ",
        ),
        (
            {"loss": "mean_squared_eror"},
            "loss.name",
            "no loss is called 'mean_squared_eror' (did you mean 'mean_squared_error'?)",
        ),
        (
            {"data": {"source": "csv", "args": {"target": "y"}}},
            "data.args",
            "the argument 'path' is required",
        ),
        (
            {"data": {"args": {"pth": "x"}}},
            "data.args.pth",
            "unknown argument; signature ()",
        ),
        (
            {"model": {"name": "mlp", "args": {"activation": "rulu"}}},
            "model.args.activation",
            (
                "must be one of relu, gelu, silu, tanh, sigmoid, elu, leaky_relu, "
                "not the text 'rulu' (did you mean 'relu'?)"
            ),
        ),
        (
            {"model": {"name": "mlp", "args": {"hidden": [8, "x"]}}},
            "model.args.hidden",
            'item 1 must be a whole number, in [8, "x"]',
        ),
        (
            {"loss": {"name": "cross_entropy", "args": {"weight": 2}}},
            "loss.args.weight",
            "must be a list of numbers, not 2",
        ),
        (
            {"optimizer": {"name": "adam", "args": {"momentum": 0.9}}},
            "optimizer.args.momentum",
            "unknown argument; signature (betas=(0.9, 0.999), eps=1e-08, ",
        ),
        (
            {"optimizer": {"name": "sgd", "args": {"momentun": 0.9}}},
            "optimizer.args.momentun",
            "unknown argument (did you mean 'momentum'?); signature (momentum=0, ",
        ),
        (
            {"optimizer": {"name": "adamw", "args": {"lr": "1e-3"}}},
            "optimizer.args.lr",
            "must be a number, not the text '1e-3'",
        ),
        (
            {"optimizer": {"name": "adam", "args": {"betas": [0.9, 1.5]}}},
            "optimizer.args",
            "Invalid beta parameter at index 1: 1.5",
        ),
        (
            {"optimizer": {"name": "sgd", "args": {"momentum": -1}}},
            "optimizer.args",
            "Invalid momentum value: -1",
        ),
        (
            {"optimizer": {"name": "adam", "args": {"betas": 0.9}}},
            "optimizer.args",
            "adam cannot take these: TypeError: 'float' object is not subscriptable",
        ),
        (
            {"optimizer": "lbfgs"},
            "optimizer.name",
            "lbfgs evaluates the loss several times within a step; lrtool's step does it once",
        ),
        (
            {"optimizer": "sparseadam"},
            "optimizer.name",
            "sparseadam takes sparse gradients only; use adam",
        ),
    ],
)
def test_one_problem(sections, path, start):
    [(found, words)] = check(**sections)
    assert found == path
    assert words.startswith(start)


USERS = """
    NUMBER = 3

    class Net:
        def __init__(self, size: int, num_outputs, vocabulary): ...

    class Loss:
        def __init__(self, margin: float): ...

    def loss(outputs, targets, margin: float = 1.0): ...

    def data(path, count: int = 3): ...

    class Sgd:
        def __init__(self, params, lr, strength: float): ...
"""


@pytest.fixture
def users(tmp_path, module):
    name = module(USERS)
    return lambda attribute, **args: {"name": f"{name}:{attribute}", "args": args}, [tmp_path]


def test_the_users_own_components(users):
    own, directories = users
    sections = {
        "data": {"source": own("data")["name"], "args": {"path": "x"}},
        "model": own("Net", size=3),
        "loss": own("Loss", margin=1),
        "metrics": [own("loss")["name"]],
        "optimizer": own("Sgd", strength=1),
    }
    assert check(directories, **sections) == []
    assert check(directories, loss=own("loss", margin=2.0)) == []


def test_wrong_arguments_of_the_users_own(users):
    own, directories = users
    found = check(
        directories,
        data={"source": own("data")["name"], "args": {"count": "x"}},
        model=own("Net", sise=3),
        loss=own("loss", outputs=1, margin="x"),
        optimizer=own("Sgd", stength=1),
    )
    assert found == [
        ("data.args.count", "must be a whole number, not the text 'x'"),
        ("data.args", "the argument 'path' is required"),
        ("model.args.sise", "unknown argument (did you mean 'size'?); signature (size)"),
        ("model.args", "the argument 'size' is required"),
        ("loss.args.outputs", "unknown argument; signature (margin=1.0)"),
        ("loss.args.margin", "must be a number, not the text 'x'"),
        (
            "optimizer.args.stength",
            "unknown argument (did you mean 'strength'?); signature (strength)",
        ),
        ("optimizer.args", "the argument 'strength' is required"),
    ]
    assert check(directories, loss=own("Loss")) == [
        ("loss.args", "the argument 'margin' is required")
    ]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("model", "model.name"),
        ("loss", "loss.name"),
        ("optimizer", "optimizer.name"),
    ],
)
def test_import_paths_that_lead_nowhere(users, key, path):
    own, directories = users
    assert check(directories, **{key: own("Nett")["name"]})[0][0] == path
    name = own("NUMBER")["name"]
    assert check(directories, **{key: name}) == [(path, f"'{name}' is a int; it cannot be called")]


def test_import_paths_of_data_and_metrics_that_lead_nowhere(users):
    own, directories = users
    name = own("dta")["name"]
    [(path, words)] = check(directories, data={"source": name})
    assert path == "data.source"
    assert words.endswith("has no attribute 'dta' (did you mean 'data'?)")
    [(path, words)] = check(directories, metrics=["accuracy", "nowhere_at_all:f"])
    assert path == "metrics.1"
    assert words.startswith("no module named 'nowhere_at_all'; looked in ")


def test_every_problem_has_its_place_in_the_file(tmp_path, module):
    name = module("def make(width: int): ...", "users_components")
    path = tmp_path / "a.yaml"
    path.write_text(
        f"model: {{name: '{name}:make', args: {{width: x}}}}\n"
        "loss: l2\n"
        "optimizer:\n"
        "  name: sgd\n"
        "  args: {momentum: -1}\n"
        "metrics: [accuracy, nope]\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    starts = [
        "1:54: model.args.width: must be a whole number, not the text 'x'",
        "2:7: loss.name: no loss is called 'l2'; there are cross_entropy, ",
        "5:9: optimizer.args: Invalid momentum value: -1",
        "6:21: metrics.1: no metric is called 'nope'; there are accuracy, ",
    ]
    assert len(caught.value.lines) == len(starts)
    for line, start in zip(caught.value.lines, starts, strict=True):
        assert line.startswith(f"{path}:{start}")
