"""Metrics of a standardised target, in its own units."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from lrtool.components.metric_inputs import Units
from lrtool.components.metrics import build_metrics

OWN = """
def bias(outputs, targets):
    return (outputs - targets).mean()

def flat(outputs, targets):
    return (outputs.squeeze(1) - targets).mean()

def spread(outputs, targets):
    return outputs.std(1).mean()
"""


def values(names, outputs, targets, units, *, directories=(), loss="mse"):
    built = build_metrics(
        names,
        loss=loss,
        outputs=outputs[:10],
        targets=targets[:10],
        device=torch.device("cpu"),
        directories=directories,
        units=units,
    )
    for metric in built.values():
        for start in range(0, len(targets), 10):
            metric.update(outputs[start : start + 10], targets[start : start + 10])
    return {name: metric.compute() for name, metric in built.items()}


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(35, 1, generator=generator)
    return targets + 0.3 * torch.randn(35, 1, generator=generator), targets


def test_they_are_those_of_the_values_before_the_target_was_standardised(pairs):
    names = ["mae", "mse", "rmse", "r2"]
    outputs, targets = pairs
    found = values(names, outputs, targets, Units(mean=250_000.0, deviation=75_300.0))
    predicted, true = (250_000.0 + 75_300.0 * each.double().numpy() for each in pairs)
    assert found == pytest.approx(
        {
            "mae": sk.mean_absolute_error(true, predicted),
            "mse": sk.mean_squared_error(true, predicted),
            "rmse": np.sqrt(sk.mean_squared_error(true, predicted)),
            "r2": sk.r2_score(true, predicted),
        },
        rel=1e-9,
    )
    plain = values(names, outputs, targets, None)
    assert found["mae"] == pytest.approx(75_300 * plain["mae"], rel=1e-9)
    assert found["r2"] == pytest.approx(plain["r2"], rel=1e-9)


def test_a_users_own_metric_sees_the_units_where_outputs_are_like_targets(pairs, tmp_path):
    (tmp_path / "own_units.py").write_text(OWN)
    outputs, targets = pairs
    found = values(["own_units:bias"], outputs, targets, Units(5.0, 100.0), directories=(tmp_path,))
    expected = 100 * float((outputs - targets).mean())
    assert found["bias"] == pytest.approx(expected, rel=1e-4)
    column = (outputs, targets[:, 0], Units(5.0, 100.0))  # a loss may want its targets flat
    found = values(["own_units:flat"], *column, directories=(tmp_path,))
    assert found["flat"] == pytest.approx(expected, rel=1e-4)
    wide = torch.cat([outputs, 2 * outputs], 1)  # such as a mean and a deviation
    found = values(["own_units:spread"], wide, targets, Units(5.0, 100.0), directories=(tmp_path,))
    assert found["spread"] == pytest.approx(float(wide.std(1).mean()), rel=1e-4)


def test_classes_have_no_units():
    targets = torch.tensor([0, 1, 2, 1] * 3)
    outputs = torch.eye(3)[targets]
    units = Units(5.0, 100.0)
    assert values(["accuracy"], outputs, targets, units, loss="cross_entropy") == {"accuracy": 1.0}
