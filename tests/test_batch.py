"""How many samples a batch has: as many as its targets, whatever its inputs look like."""

from collections import UserDict
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from lrtool.batch import samples_in, targets_of, with_targets

PACKED = pack_sequence([torch.ones(length, 2) for length in (5, 3, 1)])
BOXES = [{"boxes": torch.ones(4, 4)}, {"boxes": torch.ones(1, 4)}]


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        ((torch.ones(8, 3, 2), torch.ones(3, 1)), 3),  # time first
        ((PACKED, torch.ones(3)), 3),
        ((PACKED, torch.ones(9, 2)), 9),  # a target for each token
        ((torch.ones(7, 2), torch.ones(7, 2), torch.ones(5)), 5),
        ({"x": torch.ones(8, 3, 2), "y": torch.ones(3)}, 3),
        ({"x": torch.ones(8, 3), "label": torch.ones(3), "labels": torch.ones(2)}, 2),
        ((torch.ones(2, 3, 9, 9), BOXES), 2),
        ((torch.ones(7, 2), (torch.ones(4), torch.ones(4, 2))), 4),  # two targets for each sample
        ((torch.ones(7, 2), {"age": torch.ones(4), "sex": torch.ones(4)}), 4),
        ((torch.ones(7, 2), torch.tensor(1)), 1),
        ((torch.ones(0, 2), torch.ones(0)), 0),
        (SimpleNamespace(x=torch.ones(30, 2), y=torch.ones(4)), 4),  # four graphs of 30 nodes
    ],
)
def test_a_batch_has_as_many_samples_as_targets(batch, samples):
    assert samples_in(batch) == samples


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.ones(7, 2), 7),
        (torch.tensor(1.0), 1),
        (PACKED, 3),
        ([torch.ones(7, 2)], 7),
        ({"a": {"b": [torch.ones(5)]}}, 5),
        ({"id": "text", "x": torch.ones(4)}, 4),
        ({"name": ["a", "b", "c"], "x": torch.ones(7, 3)}, 7),
        ({"meta": {"scale": torch.tensor(2.0)}, "x": [torch.ones(7, 3)]}, 7),
        ({"name": "abc"}, 1),
        ("text", 1),
        ((torch.ones(7, 2), "text"), 7),
        (SimpleNamespace(x=torch.ones(30, 2), y=None, num_graphs=6), 6),
    ],
)
def test_without_targets_the_first_tensor_with_a_dimension_tells(batch, samples):
    assert samples_in(batch) == samples


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def test_a_batch_with_other_targets_is_of_its_own_type():
    x, y, z = torch.ones(2), torch.zeros(2), torch.full((2,), 7.0)
    assert with_targets(Point(x, y), z).y is z
    tokens = UserDict(input_ids=x, labels=y)  # as those of transformers
    changed = with_targets(tokens, z)
    assert (type(changed), changed["labels"], tokens["labels"]) == (UserDict, z, y)


def test_other_targets_leave_the_batch_as_it_was():
    x, y, z = torch.ones(2), torch.zeros(2), torch.full((2,), 7.0)
    graph = SimpleNamespace(x=x, y=y)
    assert with_targets((x, y), z) == (x, z)
    assert with_targets({"x": x, "label": y}, z) == {"x": x, "label": z}
    assert vars(with_targets(graph, z)) == {"x": x, "y": z}
    assert graph.y is y


def test_the_targets_of_a_batch():
    x, y = torch.ones(2), torch.zeros(2)
    assert targets_of((x, x, y)) is y
    assert targets_of({"y": y, "x": x}) is y
    assert targets_of(SimpleNamespace(label=y)) is y
    for none in (x, [x], {"x": x}, "text", PACKED):
        assert targets_of(none) is None
