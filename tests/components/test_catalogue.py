"""What `lrtool list` shows."""

import json

import pytest
import torch

from lrtool.components.catalogue import rows
from lrtool.components.losses import ALIASES, LOSSES
from lrtool.components.metrics import METRICS
from lrtool.components.models import MODELS
from lrtool.components.optimizers import OPTIMIZERS
from lrtool.components.schedules import SCHEDULES
from lrtool.data.sources import SOURCES

NAMES = {
    "losses": LOSSES,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "models": MODELS,
    "metrics": METRICS,
    "sources": SOURCES,
}


def row(kind, name):
    return next(row for row in rows(kind, SOURCES) if row["name"] == name)


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_has_a_row_with_the_same_keys(kind):
    found = rows(kind, SOURCES)
    assert [row["name"] for row in found] == list(NAMES[kind])
    assert len({tuple(row) for row in found}) == 1
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("kind", sorted(set(NAMES) - {"losses", "optimizers"}))
def test_every_name_is_described(kind):
    for described in rows(kind, SOURCES):
        assert described["description"]
        assert "\n" not in described["description"]


def test_each_optimizer_has_the_rate_that_it_uses():
    for described in rows("optimizers", SOURCES):
        used = OPTIMIZERS[described["name"]]([torch.nn.Parameter(torch.ones(2, 2))])
        assert described["learning_rate"] == float(used.param_groups[0]["lr"])
    assert row("optimizers", "adam")["learning_rate"] == 0.001


def test_the_other_names_of_losses():
    also = {name for row in rows("losses", SOURCES) for name in row["also"].split(", ") if name}
    assert also == set(ALIASES)
    assert row("losses", "cross_entropy")["also"] == (
        "sparse_categorical_crossentropy, categorical_crossentropy"
    )
    assert row("losses", "cross_entropy")["targets"] == "classes"


def test_arguments_are_those_that_a_configuration_gives():
    assert row("models", "linear")["arguments"] == "bias=True"
    assert row("models", "mlp")["arguments"] == (
        "hidden=None, activation='relu', dropout=0.0, batch_norm=False"
    )
    assert row("losses", "cross_entropy")["arguments"] == (
        "weight=None, ignore_index=-100, label_smoothing=0.0"
    )
    assert row("schedules", "constant")["arguments"] == ""
    assert row("schedules", "multi_step")["arguments"] == "milestones, gamma=0.1"
    assert row("schedules", "triangular")["arguments"] == "period=0.25, low=0.25"
    assert row("losses", "kl_div")["arguments"] == "log_target=False"
    assert row("optimizers", "sgd")["arguments"].startswith("momentum=0, dampening=0, ")
    for kind in ("losses", "optimizers"):
        for described in rows(kind, SOURCES):
            given = [part.split("=")[0] for part in described["arguments"].split(", ")]
            assert not {"params", "lr", "input", "target", "reduction"} & set(given)
