"""A regression on a table: metrics in the target's units, losses in its deviations."""

import json
import math

import numpy as np
import pytest

from lrtool.config.spelling import number
from lrtool.data import encoding as encodings
from lrtool.engine.weights import read_weights

PRICES = """
data: {source: csv, args: {path: prices.csv, target: price}, batch_size: 32}
model: linear
loss: mse
metrics: [mae, r2]
optimizer: adam
learning_rate: 0.1
train: {epochs: 12, early_stopping: {metric: mae, patience: 12}}
runtime: {device: cpu}
"""


@pytest.fixture
def prices(write):
    draw = np.random.default_rng(0)
    area = draw.uniform(50, 300, 200)
    price = 1000 * area + draw.normal(0, 20_000, 200)
    rows = "".join(f"{a},{p}\n" for a, p in zip(area, price, strict=True))
    write("prices.csv", f"area,price\n{rows}")
    write("a.yaml", PRICES)
    return area, price


@pytest.mark.usefixtures("no_plots")
def test_metrics_are_in_units_and_losses_in_deviations(here, prices, tmp_path):
    done = here("train", "a.yaml", "-o", "run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    scale = report["data"]["target"]
    assert scale["name"] == "price"
    mean, deviation = (number(scale[key], 4) for key in ("mean", "deviation"))
    shown = f"losses are of (price − {mean}) / {deviation}; metrics are in its units"
    assert shown in " ".join(done.stdout.split())

    # by hand, from the weights and the table
    facts = json.loads(here("evaluate", "run").stdout)
    area, price = prices
    known = encodings.read(tmp_path / "run")
    held_out = np.sort(np.random.RandomState(0).permutation(200)[:40])
    train = np.setdiff1d(np.arange(200), held_out)
    assert scale["mean"] == pytest.approx(price[train].mean(), rel=1e-12)
    assert scale["deviation"] == pytest.approx(price[train].std(), rel=1e-12)
    weights = read_weights(tmp_path / "run/checkpoints/best/model.safetensors")
    weight, bias = (float(weights[name]) for name in sorted(weights, reverse=True))
    (column,) = known.inputs.columns
    standardised = (area[held_out] - column.mean) / column.deviation * weight + bias
    error = scale["mean"] + scale["deviation"] * standardised - price[held_out]
    assert facts["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert facts["validation_loss"] == pytest.approx(
        (error**2).mean() / scale["deviation"] ** 2, rel=1e-5
    )
    assert facts["target"] == scale
    assert 10_000 < facts["mae"] < 40_000

    # the best epoch is that of the least mae
    maes = [row["mae"] for row in report["epochs"]]
    assert report["best"] == {
        "epoch": int(np.argmin(maes)) + 1,
        "step": 5 * (int(np.argmin(maes)) + 1),
        "metric": "mae",
        "value": min(maes),
    }


@pytest.mark.usefixtures("no_plots", "prices")
def test_a_find_says_it_too(here):
    done = here("find", "a.yaml", "-o", "run", "--start", 1e-4, "--steps", 30, "--no-verify")
    assert "losses are of (price − " in " ".join(done.stdout.split())


COUNTS = ("poisson_nll_loss", "torch.nn:PoissonNLLLoss", "torch.nn.functional:poisson_nll_loss")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_not_standardised(here, write, name):
    rows = [(place / 20, place // 9 % 7) for place in range(60)]
    write("t.csv", "a,n\n" + "".join(f"{a},{n}\n" for a, n in rows))
    write(
        "a.yaml",
        "data: {source: csv, args: {path: t.csv, target: n}, batch_size: 12}\nmodel: linear\n"
        f"loss: {name}\nmetrics: [mae]\noptimizer: adam\nlearning_rate: 0.05\n"
        "train: {epochs: 2}\n",
    )
    assert here("train", "a.yaml", "--output", "run").returncode == 0
    write("other.csv", "a,n\n0.5,3\n1.5,0\n")
    judged = here("evaluate", "run", "--set", "data.args.path=other.csv")
    found = json.loads(judged.stdout)
    predicted = json.loads(here("predict", "run", "other.csv", "--json").stdout)
    one, two = (row["prediction"] for row in predicted)  # expected counts
    loss = ((one - 3 * math.log(one)) + two) / 2
    assert found["validation_loss"] == pytest.approx(loss, rel=1e-4)
    assert found["mae"] == pytest.approx((abs(one - 3) + two) / 2, rel=1e-4)
    assert "target" not in found or found["target"] is None


@pytest.mark.usefixtures("no_plots")
def test_a_loss_of_ones_own_gets_counts_as_they_are_where_it_is_told_so(here, write, tmp_path):
    rows = [(place / 20, place // 9 % 7) for place in range(60)]
    write("t.csv", "a,n\n" + "".join(f"{a},{n}\n" for a, n in rows))
    write(
        "mine.py",
        "def counts(outputs, targets):\n"
        "    assert (targets >= 0).all()\n"
        "    return (outputs.exp() - targets * outputs).mean()\n",
    )

    def trained(loss, more=""):
        write(
            "a.yaml",
            f"data: {{source: csv, args: {{path: t.csv, target: n, task: regression{more}}}, "
            "batch_size: 12}\n"
            f"model: linear\nloss: '{loss}'\nmetrics: [mae]\noptimizer: adam\n"
            "learning_rate: 0.05\ntrain: {epochs: 2}\n",
        )
        return here("train", "a.yaml", "--output", "run", "--overwrite")

    def report():
        return json.loads((tmp_path / "run/report.json").read_text())

    refused = trained("mine:counts")
    assert refused.returncode == 2
    assert "AssertionError" in refused.stderr
    done = trained("mine:counts", ", scale_target: false")
    assert done.returncode == 0, done.stderr
    own = report()
    assert trained("poisson_nll_loss").returncode == 0
    built_in = report()
    losses = ("train_loss", "validation_loss")
    for ours, torchs in zip(own["epochs"], built_in["epochs"], strict=True):
        assert [ours[name] for name in losses] == pytest.approx([torchs[name] for name in losses])
    assert own["data"]["target"] is None


@pytest.mark.usefixtures("no_plots")
def test_a_scale_for_classes_is_said_to_be_ignored(here, write):
    write("t.csv", "a,kind\n" + "".join(f"{i},{'no' if i < 20 else 'yes'}\n" for i in range(40)))
    write(
        "b.yaml",
        "data: {source: csv, args: {path: t.csv, target: kind, scale_target: false}, "
        "batch_size: 8}\nmodel: linear\nloss: cross_entropy\nlearning_rate: 0.05\n"
        "train: {max_steps: 2}\n",
    )
    done = here("train", "b.yaml", "--output", "run")
    assert done.returncode == 0
    assert "data.args.scale_target is ignored: 'kind' holds classes" in done.stderr


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("loss", "shares", "of_one"),
    [
        ("bce_with_logits", True, lambda p, t: -t * math.log(p) - (1 - t) * math.log(1 - p)),
        ("soft_margin_loss", False, lambda p, t: -math.log(p[str(t)])),
        ("hinge_embedding_loss", False, lambda o, t: o if t == 1 else max(0, 1 - o)),
    ],
)
def test_shares_and_signs_are_not_standardised(here, write, loss, shares, of_one):
    def target(place):
        return place * 7 % 61 / 60 if shares else (-1) ** (place // 9)

    write("t.csv", "a,y\n" + "".join(f"{place / 20},{target(place)}\n" for place in range(60)))
    write(
        "a.yaml",
        "data: {source: csv, args: {path: t.csv, target: y}, batch_size: 12}\nmodel: linear\n"
        f"loss: {loss}\noptimizer: adam\nlearning_rate: 0.05\ntrain: {{epochs: 2}}\n",
    )
    done = here("train", "a.yaml", "--output", "run")
    assert done.returncode == 0, done.stderr
    true = (0.25, 1.0) if shares else (-1, 1)
    write("other.csv", f"a,y\n0.5,{true[0]}\n2.5,{true[1]}\n")
    judged = json.loads(here("evaluate", "run", "--set", "data.args.path=other.csv").stdout)
    rows = json.loads(here("predict", "run", "other.csv", "--json").stdout)
    found = [row.get("probabilities", row["prediction"]) for row in rows]
    expected = sum(map(of_one, found, true)) / 2
    assert judged["validation_loss"] == pytest.approx(expected, rel=1e-4)
    assert "target" not in judged


@pytest.mark.usefixtures("no_plots")
def test_a_binary_loss_of_torchs_is_one_by_its_import_path_too(here, write, tmp_path):
    rows = "".join(f"{i % 7 - 3},{'yes' if i % 7 > 2 else 'no'}\n" for i in range(70))
    write("t.csv", f"a,kind\n{rows}")
    found = []
    for name in ("bce_with_logits", "torch.nn:BCEWithLogitsLoss"):
        write(
            "a.yaml",
            "data: {source: csv, args: {path: t.csv, target: kind}, batch_size: 10}\n"
            f"model: linear\nloss: {name}\nmetrics: [accuracy, auroc]\nlearning_rate: 0.1\n"
            "train: {epochs: 2}\n",
        )
        done = here("train", "a.yaml", "--output", "run", "--overwrite")
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "run/report.json").read_text())
        found.append((report["epochs"], report["predictions"], here("predict", "run", "t.csv")))
        assert found[-1][2].returncode == 0
    assert found[0] == found[1]
    assert "prediction,probability_no,probability_yes" in found[0][2].stdout


@pytest.mark.usefixtures("no_plots")
def test_few_numbers_and_a_loss_of_ones_own(here, write):
    write(
        "mine.py",
        "from torch import nn\n"
        "def net():\n    return nn.Linear(1, 1)\n"
        "def squares(outputs, targets):\n    return (outputs - targets).square().mean()\n"
        "def labels(outputs, targets):\n"
        "    return nn.functional.cross_entropy(outputs, targets)\n",
    )
    config = (
        "data: {source: csv, args: {path: t.csv, target: y}, batch_size: 12}\n"
        "model: 'mine:net'\nloss: 'mine:squares'\nlearning_rate: 0.01\ntrain: {epochs: 1}\n"
    )

    def table(first):
        write("t.csv", "a,y\n" + "".join(f"{i / 20},{i * 7 % 5 + first}\n" for i in range(60)))
        write("other.csv", f"a,y\n0.5,{first}\n1.5,{first + 3}\n")
        write("a.yaml", config)

    table(first=1)
    done = here("train", "a.yaml", "--output", "run")
    assert done.returncode == 2
    assert done.stderr == (
        "a.yaml:1:27: data.args.task: mine:squares gets one output for each sample, but the "
        "numbers of 'y' are taken for classes, with indices 0 to 4 as targets; set regression to "
        "predict the numbers, or classification if that is meant\n"
    )
    classes = ("--set", "loss=mine:labels", "--set", "model=linear")
    for meant in (("--set", "data.args.task=regression"), classes):
        done = here("train", "a.yaml", "--output", "run", "--overwrite", *meant)
        assert done.returncode == 0, done.stderr

    for first, task in ((1, "classification"), (0, "auto")):
        table(first)
        meant = ("--set", f"data.args.task={task}")
        done = here("train", "a.yaml", "--output", "run", "--overwrite", *meant)
        assert done.returncode == 0, done.stderr
        judged = json.loads(here("evaluate", "run", "--set", "data.args.path=other.csv").stdout)
        one, two = (
            r["prediction"]
            for r in json.loads(here("predict", "run", "other.csv", "--json").stdout)
        )
        assert judged["validation_loss"] == pytest.approx((one**2 + (two - 3) ** 2) / 2, rel=1e-5)
