"""Copies of batches, also of such as `deepcopy` refuses."""

import threading
from typing import NamedTuple

import torch

from lrtool.batch import Share
from lrtool.engine.copies import copied, detached


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


class Graph:
    """A batch object with a lock, which can clone itself."""

    def __init__(self, x):
        self.x, self.lock = x, threading.Lock()

    def clone(self):
        return Graph(self.x.clone())


class Shared:
    def __init__(self):
        self.lock = threading.Lock()


def with_graph():
    weight = torch.tensor([2.0], requires_grad=True)
    return weight, weight * torch.ones(3)


def test_a_plain_batch_has_tensors_of_its_own_that_are_shared_as_before():
    x = torch.ones(3)
    one, other = copied((x, x))
    one.zero_()
    assert x.tolist() == [1, 1, 1]
    assert one is other  # as in an autoencoder's batch


def test_a_tensor_with_a_graph_keeps_it():
    weight, x = with_graph()
    batch = {"x": [x, (x, torch.zeros(2))], "pair": Pair(x, torch.ones(1)), "name": "a"}
    copy = copied(batch)
    assert copy["x"][0] is copy["x"][1][0] is copy["pair"].x
    assert copy["x"][0] is not x
    assert (copy["name"], type(copy["pair"])) == ("a", Pair)
    copy["x"][0].sum().backward()
    assert weight.grad.item() == 3
    with torch.no_grad():
        copy["x"][0].zero_()
    assert x.tolist() == [2, 2, 2]


def test_an_input_that_requires_a_gradient_is_a_leaf_again():
    _, x = with_graph()
    leaf = torch.ones(2, requires_grad=True)
    copy = copied((leaf, x))[0]
    assert copy.is_leaf
    assert copy.requires_grad
    assert copy is not leaf


def test_an_object_that_cannot_be_copied_is_cloned_or_shared():
    graph, shared = Graph(torch.ones(2)), Shared()
    clone, same = copied([graph, shared])
    clone.x.zero_()
    assert graph.x.tolist() == [1, 1]
    assert same is shared
    assert copied(shared) is shared


def test_detached_values():
    _, x = with_graph()
    found = detached({"a": [x, (x, 3)], "b": Pair(x, x), "c": "text"})
    assert not found["a"][0].requires_grad
    assert not found["a"][1][0].requires_grad
    assert not found["b"].y.requires_grad
    assert (found["a"][1][1], found["c"]) == (3, "text")


def test_a_share_is_copied_with_its_batch():
    values, lock = torch.ones(2), threading.Lock()
    for batch in ([values], [values, lock]):  # a lock cannot be copied
        copy = copied(Share(batch, 5, counts=False))
        assert (copy.samples, copy.counts) == (5, False)
        assert copy.batch[0] is not values
        assert copy.batch[0].equal(values)
