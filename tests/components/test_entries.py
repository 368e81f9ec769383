"""An entry in a table is all that a new name needs: the examples of CONTRIBUTING.md."""

import re
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import lrtool
from lrtool.components import check as components
from lrtool.components import losses, metrics, models, schedules
from lrtool.components.catalogue import rows
from lrtool.config.schema import ComponentConfig, Config
from lrtool.data import sources
from lrtool.errors import ConfigError
from lrtool.experiment.experiment import open_experiment
from lrtool.experiment.preflight import metrics_of, run_preflight, schedule_of
from lrtool.experiment.reading import read_config

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def added():
    """Run an example in its module; the table is as before when the test is over."""
    with ExitStack() as tables:

        def add(module, table):
            tables.enter_context(mock.patch.dict(getattr(module, table)))
            [example] = [code for code in EXAMPLES if f"{table}[" in code]
            exec(example, dict(vars(module)))  # noqa: S102  (the documentation is what is tested)

        yield add


def row(kind, name):
    return next(row for row in rows(kind, sources.SOURCES) if row["name"] == name)


def problems(**sections):
    found = components.check(Config.model_validate(sections), sources.SOURCES, ())
    return [(".".join(map(str, problem.path)), problem.message) for problem in found]


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Open the task of a configuration in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def opened(text):
        Path("a.yaml").write_text(text)
        return open_experiment(*read_config(Path("a.yaml")))

    return opened


def test_a_new_schedule(added, opened):
    assert problems(train={"schedule": "halving"}) == [
        (
            "train.schedule.name",
            f"no schedule is called 'halving'; there are {', '.join(schedules.SCHEDULES)}",
        )
    ]
    added(schedules, "SCHEDULES")
    assert row("schedules", "halving") == {
        "name": "halving",
        "description": "The base rate, halved after each period.",
        "arguments": "period=0.25",
    }
    length = "must be a fraction of the training below 1, or a whole number of steps from 2"
    assert problems(train={"schedule": {"name": "halving", "args": {"period": 1.5}}}) == [
        ("train.schedule.args.period", f"{length}, not 1.5")
    ]
    task = opened(
        "data: {source: iris, batch_size: 30}\n"
        "train: {epochs: ~, max_steps: 600, "
        "schedule: {name: halving, warmup: 60, args: {period: 120}}}\n"
    )
    factors = [schedule_of(task).factor(step, 0) for step in range(600)]
    ramp = np.arange(1, 61) / 61
    assert factors == pytest.approx([*ramp, *0.5 ** (np.arange(540) // 120)])
    raced = schedules.compressed_schedule(
        task.config.train.schedule, training_steps=600, steps_per_epoch=4, steps=100
    )
    ramp = np.arange(1, 11) / 11
    assert [raced.factor(step, 0) for step in range(100)] == pytest.approx(
        [*ramp, *0.5 ** (np.arange(90) // 20)]
    )


def test_find_lr_knows_a_new_schedule(added):
    added(schedules, "SCHEDULES")
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    inputs, targets = torch.randn(2400, 4), torch.randint(3, (2400,))
    batches = list(zip(inputs.split(16), targets.split(16), strict=True))
    found = {
        name: lrtool.find_lr(
            model,
            torch.optim.SGD(model.parameters()),
            F.cross_entropy,
            batches,
            schedule=name,
            for_steps=3000,
        )
        for name in ("halving", "cosine")
    }
    assert found["halving"].lr == pytest.approx(found["cosine"].lr, rel=0.05)  # both fall


def test_a_new_metric(added, opened):
    added(metrics, "METRICS")
    assert row("metrics", "max_error") == {
        "name": "max_error",
        "description": "largest absolute error",
    }
    assert problems(metrics=["max_eror"]) == [
        ("metrics.0", "no metric is called 'max_eror' (did you mean 'max_error'?)")
    ]
    task = opened(
        "data: {source: diabetes, batch_size: 100}\nloss: mse\nmetrics: [max_error]\n"
        "train: {epochs: 2, early_stopping: {metric: max_error}}\n"
    )
    run_preflight(task)
    [(key, metric)] = metrics_of(task).items()
    assert (key, metrics.higher_is_better(key)) == ("max_error", False)
    for outputs, targets in (([[1.0], [-2.0]], [[1.5], [2.0]]), ([[3.0]], [[0.0]])):
        metric.update(torch.tensor(outputs), torch.tensor(targets))
    unit = task.data.encoding.targets.deviation  # the targets are standardised
    assert metric.compute() == pytest.approx(4.0 * unit)
    metric.reset()
    metric.update(torch.tensor([[1.0]]), torch.tensor([[1.5]]))
    assert metric.compute() == pytest.approx(0.5 * unit)
    with pytest.raises(
        ConfigError, match="max_error compares values, and cross_entropy is for classes"
    ):
        metrics_of(opened("data: {source: iris}\nmetrics: [max_error]\n"))


def test_a_new_loss(monkeypatch):
    def log_cosh(outputs, targets, scale: float = 1.0):
        """The mean of ln cosh of the errors."""
        return ((outputs - targets) / scale).cosh().log().mean()

    entry = losses.LossEntry(log_cosh, takes="values", outputs="values")
    monkeypatch.setitem(losses.LOSSES, "log_cosh", entry)
    assert row("losses", "log_cosh") == {
        "name": "log_cosh",
        "also": "",
        "targets": "values",
        "arguments": "scale=1.0",
    }
    assert problems(loss={"name": "log_cosh", "args": {"scale": "wide"}}) == [
        ("loss.args.scale", "must be a number, not the text 'wide'")
    ]
    spec = ComponentConfig(name="log_cosh", args={"scale": 2.0})
    loss = losses.build_loss(spec, ())
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [-1.0]])
    assert loss(outputs, targets).item() == pytest.approx(np.log(np.cosh(2.0)) / 2)
    words = losses.fit_problem("log_cosh", loss, outputs, torch.tensor([0, 1]))
    assert words.startswith("log_cosh takes targets that are floats, not class indices; ")
    words = losses.fit_problem(
        "bce", losses.LOSSES["binary_cross_entropy"].function, outputs, targets
    )
    assert words.endswith(", log_cosh")
    built = metrics.build_metrics(
        ["mae"],
        loss="log_cosh",
        outputs=outputs,
        targets=targets,
        device=outputs.device,
        directories=(),
    )
    built["mae"].update(outputs, targets)
    assert built["mae"].compute() == 2.0


def test_a_new_model_and_a_new_source(monkeypatch, opened):
    def line(*, num_outputs: int, input_shape: tuple[int, ...], bias: bool = True):
        """One line."""
        return torch.nn.Linear(*input_shape, num_outputs, bias=bias)

    def two_irises(split, *, noise: float = 0.0):
        """Iris."""
        assert noise == 0.5
        return sources.iris(split)

    monkeypatch.setitem(models.MODELS, "line", line)
    monkeypatch.setitem(sources.SOURCES, "two_irises", two_irises)
    assert row("models", "line") == {
        "name": "line",
        "description": "One line.",
        "arguments": "bias=True",
    }
    assert row("sources", "two_irises") == {
        "name": "two_irises",
        "description": "Iris.",
        "arguments": "noise=0.0",
    }
    assert problems(model={"name": "line", "args": {"bias": 3}}, data={"source": "two_iris"}) == [
        ("data.source", "no source is called 'two_iris' (did you mean 'two_irises'?)"),
        ("model.args.bias", "must be true or false, not 3"),
    ]
    task = opened(
        "data: {source: two_irises, args: {noise: 0.5}}\nmodel: {name: line, args: {bias: false}}\n"
    )
    assert run_preflight(task)[1].parameters == 12
