"""Everything that a configuration names is judged at once, each problem with its key path."""

from typing import Literal, get_args, get_origin

import pytest

from lrtool.components import check as components
from lrtool.components.import_path import Range, signature
from lrtool.components.schedules import SCHEDULES
from lrtool.config.schema import Config, EarlyStoppingConfig
from lrtool.data.sources import SOURCES
from lrtool.errors import ConfigError
from lrtool.experiment.reading import read_config


def check(directories=(), **sections):
    found = components.check(Config.model_validate(sections), SOURCES, directories)
    return [(".".join(map(str, problem.path)), problem.message) for problem in found]


def test_the_defaults_are_sound():
    assert check() == []


def test_a_name_on_several_lines_is_spelled_on_one():
    [(_, words)] = check(model="mlp\n")
    assert words == r"no model is called 'mlp\n' (did you mean 'mlp'?)"
    [(_, words)] = check(train={"early_stopping": {"metric": "a\nb"}})
    assert words.startswith(r"must be a loss or one of metrics, not 'a\nb'; ")


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
        {"train": {"schedule": {"name": "step", "args": {"step_size": 3}, "warmup": 7}}},
        {"train": {"schedule": {"name": "wsd", "args": {"decay": 300, "shape": "linear"}}}},
        {"train": {"schedule": {"name": "multi_step", "args": {"milestones": [1, 2]}}}},
        {"train": {"early_stopping": {}}},
        {"train": {"early_stopping": {"metric": "train_loss"}}, "data": {"validation": 0}},
        {"train": {"early_stopping": {"metric": "f1"}}, "metrics": ["accuracy", "f1"]},
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
        train={"schedule": "cosin", "epochs": 1, "early_stopping": {"metric": "val_loss"}},
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
            "cannot be set here: a loss is a mean over samples",
        ),
        ("loss.args.delta", "must be a number, not the text 'x'"),
        ("metrics.1", "no metric is called 'acuracy' (did you mean 'accuracy'?)"),
        (
            "optimizer.groups.1.match",
            ("'(' is not a regular expression: missing ), unterminated subpattern at position 0"),
        ),
        ("optimizer.name", "no optimizer is called 'adm' (did you mean 'adam'?)"),
        ("train.schedule.name", "no schedule is called 'cosin' (did you mean 'cosine'?)"),
        (
            "train.early_stopping.metric",
            ("must be a loss or one of metrics, not 'val_loss' (did you mean 'validation_loss'?)"),
        ),
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
    ],
)
def test_one_problem(sections, path, start):
    [(found, words)] = check(**sections)
    assert found == path
    assert words.startswith(start)


def schedule(name, warmup=None, **args):
    return check(train={"schedule": {"name": name, "warmup": warmup, "args": args}})


LENGTH = "must be a fraction of the training below 1, or a whole number of steps"


@pytest.mark.parametrize(
    ("name", "args", "argument", "words"),
    [
        ("linear", {"end_factor": 1.5}, "end_factor", "must be between 0 and 1, not 1.5"),
        ("cosine", {"end_factor": -0.1}, "end_factor", "must be between 0 and 1, not -0.1"),
        ("triangular", {"low": 2}, "low", "must be between 0 and 1, not 2"),
        ("plateau", {"min_factor": 2}, "min_factor", "must be between 0 and 1, not 2"),
        ("triangular", {"period": 0}, "period", f"{LENGTH} from 2, not 0"),
        ("triangular2", {"period": 1.0}, "period", f"{LENGTH} from 2, not 1.0"),
        ("exp_range", {"period": 2.5}, "period", f"{LENGTH} from 2, not 2.5"),
        ("wsd", {"decay": 0}, "decay", f"{LENGTH}, not 0"),
        ("inverse_sqrt", {"timescale": -5}, "timescale", f"{LENGTH}, not -5"),
        ("cosine_restarts", {"period_factor": 0}, "period_factor", "must be at least 1, not 0"),
        ("step", {"step_size": 0}, "step_size", "must be at least 1, not 0"),
        ("step", {"step_size": 2**63}, "step_size", "must be a whole number below 2^63 in size"),
        (
            "cosine_restarts",
            {"period": 1e308},
            "period",
            (
                "must be a fraction of the training below 1, or a whole number of steps from 2, not"
                " 1e+308"
            ),
        ),
        ("exponential", {"gamma": 0}, "gamma", "must be above 0 and at most 1, not 0"),
        ("exp_range", {"gamma": 1.01}, "gamma", "must be above 0 and at most 1, not 1.01"),
        ("polynomial", {"power": 0}, "power", "must be above 0, not 0"),
        ("one_cycle", {"div_factor": 0.5}, "div_factor", "must be at least 1, not 0.5"),
        ("one_cycle", {"final_div_factor": 0}, "final_div_factor", "must be at least 1, not 0"),
        (
            "one_cycle",
            {"max_momentum": 1},
            "max_momentum",
            "must be at least 0 and below 1, not 1",
        ),
        ("plateau", {"factor": 1.0}, "factor", "must be above 0 and below 1, not 1.0"),
        ("plateau", {"patience": -1}, "patience", "must be at least 0, not -1"),
        ("plateau", {"threshold": -1}, "threshold", "must be at least 0, not -1"),
        (
            "multi_step",
            {"milestones": [3, 3]},
            "milestones",
            "must be epochs from 1, each later than the one before, not [3, 3]",
        ),
        (
            "multi_step",
            {"milestones": []},
            "milestones",
            "must be epochs from 1, each later than the one before, not []",
        ),
        (
            "multi_step",
            {"milestones": [0, 3]},
            "milestones",
            "must be epochs from 1, each later than the one before, not [0, 3]",
        ),
        ("multi_step", {"milestones": 3}, "milestones", "must be a list, not 3"),
        (
            "cosine",
            {"end_facto": 0.1},
            "end_facto",
            "unknown argument (did you mean 'end_factor'?); signature (end_factor=0.0)",
        ),
        ("wsd", {"decay": "long"}, "decay", "must be a number, not the text 'long'"),
        (
            "one_cycle",
            {"anneal_strategy": "cosine"},
            "anneal_strategy",
            "must be one of cos, linear, not the text 'cosine' (did you mean 'cos'?)",
        ),
    ],
)
def test_one_wrong_argument_of_a_schedule(name, args, argument, words):
    required = {"multi_step": {"milestones": [1]}, "exponential": {"gamma": 0.5}}
    found = schedule(name, **{**required.get(name, {}), **args})
    assert found == [(f"train.schedule.args.{argument}", words)]


def test_arguments_that_a_schedule_requires():
    for name, argument in (
        ("step", "step_size"),
        ("multi_step", "milestones"),
        ("exponential", "gamma"),
    ):
        words = f"the argument '{argument}' is required"
        assert schedule(name) == [("train.schedule.args", words)]


def test_every_number_has_a_range():
    for entry in SCHEDULES.values():
        for parameter in [*signature(entry.build).parameters.values()][1:]:
            kind = parameter.annotation
            ranged = any(isinstance(part, Range) for part in get_args(kind))
            assert ranged != (kind is bool or get_origin(kind) is Literal), parameter


def test_ranges_and_types_are_checked_at_once():
    assert schedule("wsd", 2.5, decay=0, shape="cubic") == [
        ("train.schedule.warmup", f"{LENGTH}, not 2.5"),
        ("train.schedule.args.decay", f"{LENGTH}, not 0"),
        ("train.schedule.args.shape", "must be one of sqrt, linear, not the text 'cubic'"),
    ]


def test_a_warm_up_is_a_fraction_or_whole():
    expected = [("train.schedule.warmup", f"{LENGTH}, not 1.5")]
    assert schedule("cosine", 1.5) == expected
    assert schedule("cosine", 1.5, end_factor=7)[0] == expected[0]
    for sound in (None, 0, 0.0, 0.3, 1, 500.0):
        assert schedule("cosine", sound) == []


def stopping(metrics=(), directories=(), validation=0.2, **keys):
    return check(
        directories,
        data={"validation": validation},
        metrics=list(metrics),
        train={"early_stopping": keys},
    )


def test_a_lower_loss_is_better():
    for metric in ("validation_loss", "train_loss"):
        assert stopping(metric=metric, mode="max") == [
            ("train.early_stopping.mode", f"a lower {metric} is better; give min or auto")
        ]
        assert stopping(metric=metric, mode="min") == []


def test_early_stopping_watches_what_is_there():
    path = "train.early_stopping.metric"
    assert stopping(metric="accuracy") == [
        (
            path,
            (
                "must be a loss or one of metrics, not 'accuracy'; "
                "there are validation_loss, train_loss"
            ),
        )
    ]
    assert stopping(["accuracy", "f1"], metric="acuracy") == [
        (path, "must be a loss or one of metrics, not 'acuracy' (did you mean 'accuracy'?)")
    ]
    assert stopping(["accuracy"], metric="accuracy") == []
    assert stopping(["accuracy"], validation=0, metric="accuracy") == []


def test_early_stopping_on_validation_without_a_validation_part():
    words = "there is no validation_loss when data.validation is 0; give train_loss"
    assert stopping(validation=0) == [("train.early_stopping.metric", words)]
    assert stopping(validation=0, metric="train_loss") == []


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 2000 + ")" * 2000])
def test_a_pattern_beyond_what_python_compiles(pattern):
    [(path, words)] = check(optimizer={"groups": [{"match": pattern}]})
    assert path == "optimizer.groups.0.match"
    assert words.startswith(f"'{pattern}' is not a regular expression: ")


USERS = """
    NUMBER = 3

    class Net:
        def __init__(self, size: int, num_outputs, vocabulary): ...

    class Loss:
        def __init__(self, margin: float): ...

    def loss(outputs, targets, margin: float = 1.0): ...

    class Score:
        higher_is_better = True

    class Error:
        higher_is_better = False

    class Silent:
        higher_is_better = None

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


def test_a_factory_may_bring_a_validation_part_of_its_own(users):
    own, directories = users
    data = {"source": own("data")["name"], "args": {"path": "x"}, "validation": 0}
    assert check(directories, data=data, train={"early_stopping": {}}) == []


def test_which_way_a_users_metric_is_better(users):
    own, directories = users
    name = own("loss")["name"]
    assert stopping([name], directories, metric="loss") == [
        (
            "train.early_stopping.mode",
            "lrtool cannot know whether a lower or a higher loss is better; give min or max",
        )
    ]
    silent = own("Silent")["name"]
    assert [path for path, _ in stopping([silent], directories, metric="Silent")] == [
        "train.early_stopping.mode"
    ]
    names = [own("Score")["name"], own("Error")["name"]]
    assert stopping(names, directories, metric="Score") == []
    assert stopping(names, directories, metric="Error") == []
    missing = stopping([own("Errror")["name"]], directories, metric="Errror")
    assert [path for path, _ in missing] == ["metrics.0"]  # what is missing says nothing else
    assert stopping([name], directories, metric="loss", mode="max") == []
    assert stopping([name], directories, metric=name, mode="max") == [
        (
            "train.early_stopping.metric",
            f"must be a loss or one of metrics, not '{name}' (did you mean 'loss'?)",
        )
    ]


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("Score", "auto", "max"),
        ("Error", "auto", "min"),
        ("Error", "max", "max"),
        ("accuracy", "auto", "auto"),
        ("train_loss", "auto", "auto"),
    ],
)
def test_what_a_users_metric_says_is_written_down(users, tmp_path, metric, mode, expected):
    own, _ = users
    path = tmp_path / "a.yaml"
    path.write_text(
        f"metrics: ['{own('Score')['name']}', '{own('Error')['name']}', accuracy]\n"
        f"train: {{early_stopping: {{metric: {metric}, mode: {mode}, patience: 7}}}}\n"
    )
    found, _ = read_config(path)
    assert found.train.early_stopping == EarlyStoppingConfig(
        metric=metric, mode=expected, patience=7
    )


@pytest.mark.parametrize(
    "column", ["epoch", "step", "lr", "train_loss", "validation_loss", "metrics"]
)
def test_a_metric_takes_no_column_of_an_epoch(tmp_path, module, column):
    name = module(f"def {column}(outputs, targets): ...")
    words = f"'{column}' is already the name of a column of each epoch"
    assert check([tmp_path], metrics=[f"{name}:{column}"]) == [
        ("metrics.0", f"{words}; rename this one, or remove it")
    ]


def test_metrics_share_no_key(tmp_path, module):
    name = module("def f1(outputs, targets): ...\ndef lr(outputs, targets): ...")
    assert check([tmp_path], metrics=["f1", f"{name}:f1", f"{name}:lr", "accuracy", "f1"]) == [
        (
            "metrics.1",
            "'f1' is already the name of metrics.0; rename this one, or remove it",
        ),
        (
            "metrics.2",
            "'lr' is already the name of a column of each epoch; rename this one, or remove it",
        ),
        (
            "metrics.4",
            "'f1' is already the name of metrics.0; rename this one, or remove it",
        ),
    ]


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
        "train:\n"
        "  schedule: {name: wsd, args: {decay: 0}, warmup: 2.5}\n"
        "  early_stopping: {metric: nope2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    starts = [
        "1:54: model.args.width: must be a whole number, not the text 'x'",
        "2:7: loss.name: no loss is called 'l2'; there are cross_entropy, ",
        "5:9: optimizer.args: Invalid momentum value: -1",
        "6:21: metrics.1: no metric is called 'nope'; there are accuracy, ",
        "8:39: train.schedule.args.decay: must be a fraction",
        "8:51: train.schedule.warmup: must be a fraction",
        "9:28: train.early_stopping.metric: must be a loss or one of metrics, not 'nope2'",
    ]
    for line, start in zip(str(caught.value).splitlines(), starts, strict=True):
        assert line.startswith(f"{path}:{start}")


def test_a_metric_that_adds_up_batches_need_not_be_callable(tmp_path, module):
    name = module(
        """
        class Half:
            def update(self, outputs, targets): pass
            def reset(self): pass

        class Tracker(Half):
            def compute(self): return 0.5

        tracker, half = Tracker(), Half()
        """
    )
    assert check([tmp_path], metrics=[f"{name}:tracker"]) == []
    assert check([tmp_path], metrics=[f"{name}:half"]) == [
        ("metrics.0", f"'{name}:half' is a Half; it cannot be called")
    ]
    path = ("loss.name", f"'{name}:tracker' is a Tracker; it cannot be called")
    assert check([tmp_path], loss=f"{name}:tracker") == [path]
