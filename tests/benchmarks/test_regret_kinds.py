"""Tasks of other kinds: their samples, losses and schedules."""

import functools
import math
import zipfile

import numpy as np
import pytest
import torch

from benchmarks.regret import cells, data, finders, kinds, losses, ours, series, tasks, training
from benchmarks.regret.cells import Cell
from lrtool.components.schedules import build_schedule

ALL = [*kinds.DEVELOPMENT, *kinds.PUBLISHED]


def _samples(task):
    try:
        return task.data()
    except SystemExit as lacking:  # the files of Fashion-MNIST, or of series
        pytest.skip(str(lacking))


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_a_model_learns_from_a_batch_and_a_test_set_is_large(task):
    found = _samples(task)
    x, y = found.test
    assert len(x) == len(y) >= min(300, len(found.x))
    if found.x_test is not None:
        assert len(found.x_test) >= len(found.x_validation) >= 16
    torch.manual_seed(0)
    model = tasks.model(task.name)
    loss = tasks.loss(model(found.x[: task.batch]), found.y[: task.batch], task=task.name)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert math.isfinite(training.untrained(task.name, 100))


def _source(task):
    """Return what names a task's samples but for their number."""
    if not isinstance(task.data, functools.partial):
        return task.data.__name__
    name = task.data.func.__name__
    return task.data.args[0] if name == "archived" else name


def test_development_and_published_tasks_share_no_data():
    mine = [{_source(task) for task in chosen} for chosen in (kinds.DEVELOPMENT, kinds.PUBLISHED)]
    assert not mine[0] & mine[1]
    assert len(mine[0]) >= 15  # rare_clusters serves two


@pytest.mark.parametrize(("name", "samples"), [("wine_12", 12), ("iris_12", 12), ("digits_60", 60)])
def test_few_samples_are_of_all_classes(name, samples):
    found = tasks.samples(name)
    counts = torch.bincount(found.y)
    assert counts.sum() == samples
    assert counts.min() == counts.max()
    assert len(found.x_validation) == 30
    whole = torch.cat([found.x, found.x_validation, found.x_test]).flatten(1)
    assert len(torch.unique(whole, dim=0)) >= len(whole) - 1  # iris has a flower twice


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("rare_98_2", (0.98, 0.02)),
        ("rare_90_8_2", (0.9, 0.08, 0.02)),
        ("rare_shells", (0.9, 0.08, 0.02)),
    ],
)
def test_classes_are_as_rare_as_they_are_called(name, shares):
    y = tasks.samples(name).y_test
    assert np.bincount(y) / len(y) == pytest.approx(shares, abs=0.01)


@pytest.mark.parametrize("name", ["heavy_tails", "cauchy", "sparse_returns", "bandit"])
def test_noise_is_in_what_trains_and_validates_but_not_in_what_judges(name):
    found = tasks.samples(name)
    for noisy in (found.y, found.y_validation):
        assert noisy.std() > 2 * found.y_test.std()
    if name in {"sparse_returns", "bandit"}:  # their noise has a variance: the means agree
        assert (found.y.mean(0) - found.y_test.mean(0)).abs().max() < 0.3


def test_labels_are_drawn_anew_for_two_in_five():
    found = tasks.samples("wrong_labels")
    assert torch.bincount(found.y_test, minlength=3).min() > 0.3 * len(found.y_test)
    # a label drawn anew is right by chance in one of three: no rule does better than this
    model = tasks.model("wrong_labels")
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for rows in torch.randperm(len(found.x)).split(64):
        optimizer.zero_grad()
        tasks.loss(model(found.x[rows]), found.y[rows], task="wrong_labels").backward()
        optimizer.step()
    wrong = training.evaluate("wrong_labels", model, found).error
    assert 0.4 * 2 / 3 - 0.02 < wrong < 0.6


def test_log_cosh_is_what_it_says_and_never_overflows():
    errors = torch.tensor([[0.0], [-0.5], [3.0]], dtype=torch.float64)
    expected = torch.log(torch.cosh(errors)).mean()
    assert losses.log_cosh(errors, torch.zeros_like(errors)).item() == pytest.approx(
        expected.item()
    )
    far = losses.log_cosh(torch.tensor([[1e30]]), torch.zeros(1, 1))
    assert far.item() == pytest.approx(1e30)


def test_minus_reward_is_the_mean_over_the_actions_chances():
    outputs = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    rewards = torch.tensor([[4.0, 0.0], [0.0, 2.0]])
    assert losses.minus_reward(outputs, rewards).item() == pytest.approx(-1.0)


def _rates(name, steps):
    """Return the rate of each update, and the one after the last, over the base rate."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    schedule = training.schedule_of(optimizer, name, steps, 0.5)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        schedule.step()
    return found


def test_linear_warms_up_and_falls_in_a_line():
    found = _rates("linear", 100)
    assert found[:5] == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84])
    assert found[5:] == pytest.approx([1 - i / 95 for i in range(96)])


def test_wsd_stays_and_decays_by_a_root_in_the_last_fifth():
    found = _rates("wsd", 100)
    assert found[5:81] == pytest.approx([1.0] * 76)
    assert found[80:] == pytest.approx([1 - math.sqrt(i / 20) for i in range(21)])


@pytest.mark.parametrize("name", ["linear", "wsd"])
def test_lrtool_is_asked_for_the_schedule_that_judges(name):
    cell = Cell("schedule_digits", "adamw", name, 100)
    spec = ours.configuration(cell, 0, verify=False)["train"]["schedule"]
    assert spec == {"name": name, "warmup": 0.05}
    with ours.opened(cell, 0, verify=False) as experiment:
        schedule = build_schedule(experiment.config.train.schedule, steps=100, steps_per_epoch=None)
    mine = [schedule.factor(step, 0) for step in range(100)]
    theirs = _rates(name, 100)
    assert mine[5:] == pytest.approx(theirs[5:100])


def test_a_schedule_without_a_tuned_rate_has_that_of_a_cosine():
    rates = [
        finders.fixed(Cell("schedule_digits", "adamw", name, 300))[finders.TUNED]["lr"]
        for name in ("wsd", "cosine", "constant")
    ]
    assert rates[0] == rates[1]


def test_series_are_read_from_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "WHEEL", tmp_path / "aeon.whl")
    with pytest.raises(SystemExit, match=r"aeon\.whl: not there; make runs/regret/aeon"):
        series.load("Waves_eq")
    with zipfile.ZipFile(series.WHEEL, "w") as wheel:
        for part, rows in (("TRAIN", "1,2.5:3,4:b\n5,6:7,8:a\n"), ("TEST", "0,0:1,-1:b\n")):
            text = f"# by hand\n@problemName Waves\n@classLabel true a b\n@data\n{rows}"
            wheel.writestr(f"aeon/datasets/data/Waves/Waves_eq_{part}.ts", text)
    x, y = series.load("Waves_eq")
    assert x.tolist() == [[[1, 2.5], [3, 4]], [[5, 6], [7, 8]], [[0, 0], [1, -1]]]
    assert y.tolist() == [1, 0, 1]


def test_averaged_series_are_shorter(monkeypatch):
    whole = np.arange(28.0).reshape(4, 1, 7)
    monkeypatch.setattr(series, "load", lambda _: (whole, np.array([0, 1, 0, 1])))
    found = kinds.archived("any", 2, 1, every=3)
    assert found.x.shape == (2, 1, 2)
    assert found.x.mean().item() == pytest.approx(0, abs=1e-6)
    assert (len(found.x_validation), len(found.x_test)) == (1, 1)


def test_long_cells_are_long_and_all_kinds_have_cells():
    for name in ("development-new", "published-new"):
        chosen = cells.SETS[name]
        found = {tasks.TASKS[cell.task].kind for cell in chosen}
        assert found >= {"small", "sequence", "imbalance", "noise", "long", "embedding", "schedule"}
        long = {cell.steps for cell in chosen if tasks.TASKS[cell.task].kind == "long"}
        assert long == {6000, 10_000}
        falling = {c.schedule for c in chosen if tasks.TASKS[c.task].kind == "schedule"}
        assert falling == {"linear", "wsd"}


def test_the_test_set_is_that_of_validation_where_there_is_none():
    found = data.friedman2()
    x, y = found.test
    assert x is found.x_validation
    assert y is found.y_validation
