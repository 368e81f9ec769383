"""The shares of all ranks, put together, are the batches of one process."""

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from lrtool.batch import Share, samples_in, targets_of
from lrtool.data import batches
from lrtool.data.part import OwnLoader, Resident, Streamed, loader_over
from lrtool.data.rows import layout_of
from lrtool.errors import DataError
from lrtool.ranks import Ranks

# From Python 3.12 on, a process with threads is warned when it forks, as for a loader's workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
CPU = torch.device("cpu")


class Squares(Dataset):
    """Samples that tell which ones they are; `seen` holds those that were loaded."""

    def __init__(self, count):
        self.count = count
        self.seen = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        self.seen.append(int(index))
        return torch.tensor([float(index)]), index**2


class Counted(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return ((torch.tensor([float(i)]), i**2) for i in range(self.count))


class Divided(Counted):
    """Shares its samples among workers."""

    def __iter__(self):
        info = get_worker_info()
        numbers = range(self.count)[info.id :: info.num_workers] if info else range(self.count)
        return ((torch.tensor([float(i)]), i**2) for i in numbers)


class Apart(Ranks):
    """A rank without others: it finds that all have the values that it has."""

    def gather(self, value):
        return [value] * self.world_size


def all_ranks(world_size):
    return [Apart(rank, world_size) for rank in range(world_size)]


def an_epoch(part, ranks, **chosen):
    torch.manual_seed(0)
    given = {"batch_size": 4, "seed": 0, "epoch": 0, "device": CPU, **chosen}
    return list(batches.epoch(part(), ranks=ranks, **given))


def joined(shares):
    """Return the numbers of a batch's samples that count, from every rank's share of it."""
    return [
        (int(number), int(square))
        for share in shares
        if share.counts
        for number, square in zip(*share.batch, strict=True)
    ]


def plain(batch):
    return [(int(number), int(square)) for number, square in zip(*batch, strict=True)]


def check(part, world_size, **chosen):
    expected = an_epoch(part, Ranks(), **chosen)
    of_each = [an_epoch(part, ranks, **chosen) for ranks in all_ranks(world_size)]
    assert [len(shares) for shares in of_each] == [len(expected)] * world_size
    for whole, *shares in zip(expected, *of_each, strict=True):
        assert joined(shares) == plain(whole)
        sizes = [len(targets_of(share)) for share in shares]
        assert {samples_in(share) for share in shares} == {samples_in(whole)}
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0, "each rank has something to compute"
        assert all(share.counts for share in shares) == (len(whole[1]) >= world_size)


def resident(count):
    return Resident(torch.arange(count)[:, None].float(), torch.arange(count) ** 2)


def loader(count, **chosen):
    return OwnLoader(DataLoader(Squares(count), **{"batch_size": 4, "shuffle": True, **chosen}))


sizes = st.integers(1, 23)
world_sizes = st.integers(2, 5)


@given(sizes, st.integers(1, 25), world_sizes, st.integers(0, 3), st.integers(0, 99))
def test_shares_of_samples_in_memory(count, batch_size, world_size, skip, seed):
    chosen = {"batch_size": batch_size, "skip": skip, "seed": seed}
    check(partial(resident, count), world_size, **chosen)


@given(sizes, st.integers(1, 25), world_sizes, st.integers(0, 3))
def test_shares_of_a_dataset(count, batch_size, world_size, skip):
    check(lambda: Streamed(Squares(count), 0), world_size, batch_size=batch_size, skip=skip)


@given(sizes, st.integers(1, 25), world_sizes, st.integers(0, 3))
def test_shares_of_an_iterable_dataset(count, batch_size, world_size, skip):
    check(lambda: Streamed(Counted(count), 0), world_size, batch_size=batch_size, skip=skip)


@given(sizes, st.integers(1, 9), world_sizes, st.integers(0, 3), st.booleans())
def test_shares_of_a_loader(count, batch_size, world_size, skip, drop_last):
    part = partial(loader, count, batch_size=batch_size, drop_last=drop_last)
    check(part, world_size, skip=skip)


@pytest.mark.parametrize(
    "part",
    [
        lambda: Streamed(Squares(11), 2),
        lambda: Streamed(Counted(11), 2, shared=True),
        lambda: Streamed(Divided(11), 2),
        partial(loader, 11, num_workers=2),
        partial(loader, 11, num_workers=2, persistent_workers=True, prefetch_factor=1),
    ],
)
@pytest.mark.parametrize("skip", [0, 1])
def test_shares_with_workers(part, skip):
    check(part, 2, skip=skip)


def own_batches():
    return loader(11, batch_size=1, shuffle=False).loader.dataset, [[9, 1], [2], [4, 5, 6]]


@pytest.mark.parametrize(
    "part",
    [
        lambda: DataLoader(own_batches()[0], batch_sampler=own_batches()[1]),
        lambda: DataLoader(own_batches()[0], batch_sampler=map(torch.tensor, own_batches()[1])),
        lambda: DataLoader(own_batches()[0], batch_sampler=map(iter, own_batches()[1])),
        lambda: DataLoader(Squares(11), 3, sampler=WeightedRandomSampler(torch.arange(11.0), 20)),
        lambda: DataLoader(
            Squares(11), batch_sampler=BatchSampler(range(5, 11), 4, drop_last=False)
        ),
        lambda: DataLoader(TensorDataset(torch.arange(11.0)[:, None], torch.arange(11) ** 2), 3),
        lambda: DataLoader(
            Squares(11), 3, shuffle=True, generator=torch.Generator().manual_seed(7)
        ),
    ],
)
def test_shares_of_a_loader_with_samplers_of_its_own(part):
    check(lambda: OwnLoader(part()), 3)


def test_a_rank_loads_its_share_alone():
    whole = an_epoch(partial(loader, 12), Ranks())
    seen = []
    for ranks in all_ranks(2):
        part = loader(12)
        an_epoch(lambda part=part: part, ranks)
        seen.append(part.loader.dataset.seen)
    assert [len(numbers) for numbers in seen] == [6, 6]
    assert [plain(batch)[0][0] for batch in whole] == seen[0][::2]
    assert sorted(seen[0] + seen[1]) == list(range(12))


class Noisy(Squares):
    """Draws from every global generator, as augmentations do."""

    def __getitem__(self, index):
        drawn = [torch.rand(()), np.random.random(), random.random()]  # noqa: NPY002, S311
        return torch.tensor([float(index), *drawn]), index


@pytest.mark.parametrize("workers", [0, 1])
def test_augmentations_differ_between_ranks_and_leave_their_order_alike(workers):
    def two_epochs(ranks):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        part = OwnLoader(DataLoader(Noisy(10), 4, shuffle=True, num_workers=workers))
        made = [
            share.batch
            for epoch in range(2)
            for share in batches.epoch(
                part, batch_size=4, seed=0, epoch=epoch, device=CPU, ranks=ranks
            )
        ]
        states = torch.rand(()), np.random.random(), random.random()  # noqa: NPY002, S311
        return torch.cat([inputs for inputs, _ in made]), [float(state) for state in states]

    (one, states), (other, other_states) = map(two_epochs, all_ranks(2))
    assert states == other_states
    for rows in (slice(5), slice(5, None)):  # of the first and the second epoch
        assert not set(one[rows, 0].tolist()) & set(other[rows, 0].tolist())
    noise = torch.cat([one, other])[:, 1:]
    for column in noise.T:
        assert len(set(column.tolist())) == len(noise)
    again, _ = two_epochs(Apart(1, 2))
    assert torch.equal(again, other)


def in_turns(part, world_size, **chosen):
    given = {"batch_size": 4, "device": CPU, **chosen}
    expected = [plain(batch) for batch in batches.ordered(part(), **given)]
    of_each = [
        [None if batch is None else plain(batch) for batch in made]
        for ranks in all_ranks(world_size)
        for made in [batches.ordered(part(), ranks=ranks, **given)]
    ]
    turns = [batch for turn in zip(*of_each, strict=True) for batch in turn]
    assert turns[: len(expected)] == expected
    assert turns[len(expected) :] == [None] * (-len(expected) % world_size)


@given(sizes, st.integers(1, 25), world_sizes)
def test_an_evaluation_in_turns(count, batch_size, world_size):
    for part in (
        lambda: resident(count),
        lambda: Streamed(Squares(count), 0),
        lambda: Streamed(Counted(count), 0),
        lambda: loader(count, shuffle=False, batch_size=batch_size),
        lambda: OwnLoader(DataLoader(Counted(count), batch_size)),
    ):
        in_turns(part, world_size, batch_size=batch_size)


@pytest.mark.parametrize(
    "part",
    [
        lambda: Streamed(Squares(11), 2),
        lambda: Streamed(Counted(11), 2, shared=True),
        lambda: Streamed(Divided(11), 2),
        partial(loader, 11, shuffle=False, num_workers=2),
    ],
)
def test_an_evaluation_in_turns_with_workers(part):
    in_turns(part, 2)


def test_a_rank_loads_the_batches_of_its_turns_alone():
    part = loader(11, shuffle=False)
    made = list(batches.ordered(part, batch_size=4, device=CPU, ranks=Apart(1, 2)))
    assert [batch and plain(batch)[0][0] for batch in made] == [4, None]
    assert part.loader.dataset.seen == [4, 5, 6, 7]


def test_batches_that_cannot_be_divided_count_on_the_first_rank():
    part = partial(OwnLoader, loader_over([(torch.ones(2, 1), torch.zeros(2, 1))] * 3))
    for ranks in all_ranks(2):
        shares = an_epoch(part, ranks)
        assert [(type(share), share.samples, share.counts) for share in shares] == [
            (Share, 2, ranks.first)
        ] * 3
        assert all(len(share.batch[0]) == 2 for share in shares)


def test_orders_that_differ_between_ranks():
    class Others(Apart):
        def gather(self, value):
            return [value, "another"]

    given = {"batch_size": 4, "seed": 0, "epoch": 0, "device": CPU}
    with pytest.raises(DataError) as caught:
        batches.epoch(loader(8), ranks=Others(0, 2), **given)
    assert str(caught.value) == (
        "the ranks take the samples in different orders, of which each then computes its share: "
        "seed the DataLoader's sampler alike on every rank"
    )
    list(batches.epoch(Streamed(Squares(8), 0), ranks=Others(0, 2), **given))  # of ours: no need


def rows(loader, samples=2):
    """An object's batches with the layout of its first one."""
    part = OwnLoader(loader_over(loader))
    return replace(part, layout=layout_of(next(iter(loader)), samples))


def test_rows_of_batches_that_every_rank_has_made():
    made = [(torch.arange(n)[:, None], torch.arange(n)) for n in (5, 1, 4)]
    check(lambda: rows(made, 5), 2)
    check(lambda: rows(made, 5), 3)


def test_a_batch_of_another_layout_is_left_whole():
    made = [(torch.ones(n, 1), torch.ones(n), torch.ones(third)) for n, third in ((4, 4), (4, 3))]
    one, other = (an_epoch(lambda: rows(made, 4), ranks) for ranks in all_ranks(2))
    assert [len(share.batch[0]) for share in one] == [2, 4]
    assert [share.counts for share in one] == [True, True]
    assert [share.counts for share in other] == [True, False]
