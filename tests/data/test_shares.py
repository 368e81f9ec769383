"""Iterable datasets with several workers: every sample once, whoever shares them."""

import random
import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lrtool.config.schema import DataConfig
from lrtool.data import batches
from lrtool.data.load import load
from lrtool.data.part import length
from lrtool.errors import LrtoolWarning

# From Python 3.12 on, a process with threads is warned when it forks.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
CPU = torch.device("cpu")


class Whole(IterableDataset):
    """Every worker yields all of it."""

    def __init__(self, count=22):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        return ((torch.tensor([float(i)]), i % 2) for i in self.numbers())

    def numbers(self):
        return range(self.count)


class Shuffled(Whole):
    def numbers(self):
        drawn = [random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002, S311
        return np.random.default_rng([int(1e9 * d) for d in drawn]).permutation(self.count).tolist()


class Sharing(Whole):
    def numbers(self):
        info = get_worker_info()
        if info is None:
            return range(self.count)
        return range(info.id, self.count, info.num_workers)


class Remembering(Sharing):
    """Keeps the share that it was told first."""

    mine = None

    def numbers(self):
        if self.mine is None:
            self.mine = super().numbers()
        return self.mine


def part_of(made, workers=0):
    data = DataConfig(source="mine:make", batch_size=4, validation=0, workers=workers)
    if isinstance(made, DataLoader):
        data = DataConfig(source="mine:make", validation=0)
    return load(data, seed=0, factory=lambda: made, directories=[]).train


def epoch(part):
    made = batches.epoch(part, batch_size=4, seed=0, epoch=0, device=CPU)
    return [inputs[:, 0].int().tolist() for inputs, _ in made]


@pytest.mark.parametrize("workers", [2, 3])
def test_a_dataset_that_does_not_share_itself_is_shared(workers):
    words = (
        rf"^each of the {workers} workers \(data.workers\) goes through all samples of Whole and "
        r"passes on its share: no faster than without workers, unless the dataset shares its "
        r"samples by torch.utils.data.get_worker_info\(\)$"
    )
    with pytest.warns(LrtoolWarning, match=words):
        part = part_of(Whole(), workers)
    assert epoch(part) == epoch(part_of(Whole()))
    assert len(epoch(part)) == length(part, 4) == 6


def test_workers_that_share_draw_the_same_numbers():
    with pytest.warns(LrtoolWarning):
        part = part_of(Shuffled(), 2)
    order = [number for batch in epoch(part) for number in batch]
    assert sorted(order) == list(range(22)) != order


@pytest.mark.parametrize("kind", [Sharing, Remembering])
def test_a_dataset_that_shares_itself_is_left_alone(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = part_of(kind(), 2)
        made = epoch(part)
    assert not part.shared
    assert sorted(number for batch in made for number in batch) == list(range(22))
    assert {len({number % 2 for number in batch}) for batch in made} == {1}


def test_one_worker_needs_no_share():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = part_of(Whole(), 1)
    assert epoch(part) == epoch(part_of(Whole()))


def test_a_loader_of_the_users_own_that_repeats_all():
    words = (
        r"^mine:make: train: each of the 2 workers of the DataLoader yields all samples of Whole, "
        r"so an epoch has each of them 2 times: share them in its __iter__ by "
        r"torch.utils.data.get_worker_info\(\), or set num_workers to 1$"
    )
    with pytest.warns(LrtoolWarning, match=words):
        part = part_of(DataLoader(Whole(20), 4, num_workers=2))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Length of IterableDataset")
        warnings.simplefilter("error", LrtoolWarning)
        made = epoch(part)
    assert len(made) == length(part, 1) == 10
    assert sorted(chain(*made)) == sorted([*range(20)] * 2)


def shard(worker):
    info = get_worker_info()
    info.dataset.numbers = lambda: range(worker, info.dataset.count, info.num_workers)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Sharing(20), 4, num_workers=2),
        DataLoader(Whole(20), 4, num_workers=2, worker_init_fn=shard),
        DataLoader(Whole(20), 4, num_workers=1),
        DataLoader(Whole(20), 4),
    ],
)
def test_a_loader_of_the_users_own_that_shares(loader):
    with warnings.catch_warnings():
        warnings.simplefilter("error", LrtoolWarning)
        part = part_of(loader)
        made = epoch(part)
    assert sorted(chain(*made)) == list(range(20))


def test_an_end_is_looked_for():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(1), 0

    assert batches.ends_within(part_of(Whole()), 20.0, batch_size=4) is None
    seen = batches.ends_within(part_of(Endless()), 0.05, batch_size=4)
    assert seen >= 4
    assert seen % 4 == 0
