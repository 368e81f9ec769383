"""Chunks of the validation set, and what is taken where a model fails on them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lrtool
from lrtool.engine.device import Runtime
from lrtool.search.held_out import usable

CPU = Runtime(torch.device("cpu"))


class Sized(nn.Linear):
    """Takes batches of so many samples, or at least so many."""

    def __init__(self, *, exactly=None, least=0):
        super().__init__(3, 1)
        self.exactly, self.least = exactly, least

    def forward(self, x):
        if self.exactly not in {None, len(x)} or len(x) < self.least:
            raise ValueError("size")
        return super().forward(x)


def batches(*sizes):
    return [(torch.ones(size, 3), torch.ones(size, 1)) for size in sizes]


@pytest.mark.parametrize(
    ("model", "chunks", "whole", "taken"),
    [
        ({}, (2, 2, 1), None, (2, 2, 1)),
        ({"exactly": 8}, (2, 2), (8, 8), (8, 8)),
        ({"exactly": 8}, (2, 2), (8, 8, 3), (8, 8)),
        ({"least": 2}, (1, 1), (8, 8), (8, 8)),
        ({"least": 2}, (2, 2, 1), (8, 1), (8,)),
        ({"exactly": 5}, (2, 2), (8, 8), (2, 2)),  # whose failure is told when it is measured
        ({}, (), None, ()),
    ],
)
def test_what_is_taken(model, chunks, whole, taken):
    def make():
        assert whole is not None, "whole batches are made only where they are needed"
        return batches(*whole)

    found = usable(Sized(**model), F.mse_loss, CPU, batches(*chunks), make)
    assert tuple(len(x) for x, _ in found) == taken


def test_a_model_for_one_size_of_batches_is_searched():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, x.sum(1, keepdim=True))
    train, validation = DataLoader(data, batch_size=16, shuffle=True), DataLoader(data, 16)
    model = Sized(exactly=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = lrtool.find_lr(
        model, optimizer, F.mse_loss, train, validation=validation, steps=30, for_steps=100
    )
    trials = found.report()["trials"]
    assert (trials["measure"], trials["examples"]) == ("validation", 64)
