import itertools
import multiprocessing
import warnings
from collections import UserDict, namedtuple
from itertools import islice

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
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
)

from lrtool.data import batches
from lrtool.data.part import OwnLoader, Resident, Streamed, length
from lrtool.errors import DataError, LrtoolWarning
from lrtool.search.object_subject import again

CPU = torch.device("cpu")
# From Python 3.12 on, a process with threads is warned when it forks, as for a loader's workers.
forks = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Squares(Dataset):
    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.tensor([float(index)]), index**2


class Counter(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def numbered(count):
    return Resident(torch.arange(count)[:, None].float(), torch.arange(count))


def an_epoch(part, batch_size=4, seed=0, epoch=0):
    return list(batches.epoch(part, batch_size=batch_size, seed=seed, epoch=epoch, device=CPU))


def order(part, **chosen):
    return [int(i) for inputs, _ in an_epoch(part, **chosen) for i in inputs[:, 0]]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_an_epoch_has_each_sample_once(count, batch_size, seed, epoch):
    made = an_epoch(numbered(count), batch_size, seed, epoch)
    sizes = [len(targets) for _, targets in made]
    assert sizes == [batch_size] * (count // batch_size) + [count % batch_size] * (
        count % batch_size > 0
    )
    assert sorted(torch.cat([targets for _, targets in made]).tolist()) == list(range(count))
    assert all((inputs[:, 0] == targets).all() for inputs, targets in made)


@pytest.mark.parametrize("part", [numbered(20), Streamed(Squares(20), 0)])
def test_seed_and_epoch_alone_decide_the_order(part):
    first = order(part, seed=3, epoch=5)
    torch.manual_seed(1)
    torch.rand(7)
    assert order(part, seed=3, epoch=5) == first
    assert order(part, seed=3, epoch=6) != first
    assert order(part, seed=4, epoch=5) != first
    assert order(part, seed=5, epoch=3) != first
    assert sorted(first) == list(range(20))


def test_orders_of_neighbouring_seeds_and_epochs_are_unlike():
    part = numbered(100)
    orders = np.array([order(part, seed=s, epoch=e) for s in range(5) for e in range(5)])
    correlations = np.corrcoef(orders)[np.triu_indices(25, 1)]
    assert np.abs(correlations).max() < 0.45  # 300 pairs of deviation 0.1


def test_the_whole_set_in_one_batch_is_a_copy_in_its_own_order():
    part = numbered(5)
    for size in (5, 6):
        ((inputs, targets),) = an_epoch(part, batch_size=size)
        assert torch.equal(inputs, part.inputs)
        assert torch.equal(targets, part.targets)
        inputs += 100  # what a model does to its inputs stays with that batch
        assert part.inputs.max() == 4
    (inputs, _), *_ = batches.ordered(part, batch_size=5, device=CPU)
    inputs += 100
    assert part.inputs.max() == 4


def test_no_random_number_is_drawn_from_the_global_state():
    state = torch.get_rng_state()
    for part in (numbered(10), Streamed(Squares(), 0)):
        an_epoch(part)
        list(batches.ordered(part, batch_size=3, device=CPU))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_keep_channels_last():
    inputs = torch.rand(10, 3, 4, 5)
    part = Resident(inputs.contiguous(memory_format=torch.channels_last), torch.arange(10))
    for batch, targets in an_epoch(part):
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch, inputs[targets])


@forks
def test_workers_do_not_change_the_order():
    alone, helped = (
        [(x.tolist(), y.tolist()) for x, y in an_epoch(Streamed(Squares(9), workers), seed=1)]
        for workers in (0, 2)
    )
    assert alone == helped
    assert sum(len(y) for _, y in alone) == 9


def test_an_iterable_dataset_keeps_its_order():
    assert [b.tolist() for b in an_epoch(Streamed(Counter(), 0), 2)] == [[0, 1], [2, 3], [4]]


def test_a_loader_of_the_users_own_is_iterated_as_it_is():
    loader = DataLoader(Squares(5), batch_size=2, collate_fn=lambda items: {"n": len(items)})
    assert an_epoch(OwnLoader(loader), 64) == [{"n": 2}, {"n": 2}, {"n": 1}]
    assert list(batches.ordered(OwnLoader(loader), batch_size=64, device=CPU)) == [
        {"n": 2},
        {"n": 2},
        {"n": 1},
    ]


def test_ordered():
    for part in (numbered(5), Streamed(Squares(5), 0)):
        made = list(batches.ordered(part, batch_size=2, device=CPU))
        assert [inputs[:, 0].tolist() for inputs, _ in made] == [[0, 1], [2, 3], [4]]


def test_no_update_has_batches_of_two_epochs():
    made = batches.micro_batches(an_epoch(numbered(5), 2, seed=7, epoch=0), 2)
    first, second, third = [y.tolist() for _, y in an_epoch(numbered(5), 2, seed=7, epoch=0)]
    assert [[y.tolist() for _, y in group] for group in made] == [[first, second], [third]]


def test_an_epoch_of_nothing():
    with pytest.raises(DataError, match=r"^the training data yield no batch in epoch 1$"):
        next(batches.some(iter([]), 0))


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "part",
    [
        numbered(7),
        Streamed(Squares(7), 0),
        Streamed(Counter(), 0),
        OwnLoader(DataLoader(Squares(7), batch_size=3)),
        pytest.param(Streamed(Squares(7), 2), marks=forks),
    ],
    ids=["resident", "streamed", "iterable", "own", "workers"],
)
def test_an_epoch_without_its_first_batches_is_the_rest_of_it(part, skip):
    def made(skip):
        found = batches.epoch(part, batch_size=3, seed=5, epoch=2, device=CPU, skip=skip)
        return [repr(batch) for batch in found]

    assert made(skip) == made(0)[skip:]


class Stopping(Squares):
    def __getitem__(self, index):
        if index == 4:
            raise StopIteration
        return super().__getitem__(index)


class Given(Sampler):
    """Yields so many indices, and says that there are six."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))

    def __len__(self):
        return 6


def own(dataset, **options):
    return OwnLoader(DataLoader(dataset, batch_size=2, **options))


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize(
    "part",
    [
        own(Stopping(6)),
        own(Squares(6), sampler=Given(4)),
        pytest.param(own(Stopping(6), num_workers=1), marks=forks),
    ],
    ids=["dataset", "sampler", "workers"],
)
def test_a_loader_that_ends_early_does_not_shorten_an_epoch(part, skip):
    words = (
        r"^the data ended after 2 of 3 batches: a dataset must not raise StopIteration, nor a "
        r"sampler yield less than its length$"
    )
    found = batches.epoch(part, batch_size=2, seed=0, epoch=0, device=CPU, skip=skip)
    with pytest.raises(DataError, match=words):
        list(found)
    with pytest.raises(DataError, match=words):
        list(batches.ordered(part, batch_size=2, device=CPU))


class Failing(Squares):
    def __getitem__(self, index):
        raise ValueError(index)


@forks
def test_the_workers_of_a_pass_that_fails_end_at_once():
    before = set(multiprocessing.active_children())
    stream = batches.ordered(Streamed(Failing(6), 1), batch_size=2, device=CPU)
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker") as caught:
        next(stream)
    assert set(multiprocessing.active_children()) <= before
    assert caught.value.__traceback__ is not None, "it is still held"


def test_a_dataset_that_stops_does_not_shorten_an_epoch():
    part = Streamed(Stopping(6), 0)
    for stream in (
        batches.ordered(part, batch_size=2, device=CPU),
        batches.epoch(part, batch_size=2, seed=0, epoch=0, device=CPU, skip=0),
        # of seed 0, the two batches that are left hold the sample that stops it
        batches.epoch(part, batch_size=2, seed=0, epoch=0, device=CPU, skip=1),
    ):
        with pytest.raises(DataError, match=r"^the data ended after \d of \d batches: a dataset"):
            list(stream)


def test_what_a_loader_yields_beyond_its_length_is_used_and_said():
    part = own(Squares(10), sampler=Given(9))
    words = (
        r"^a DataLoader yields more batches than its length, 3: all of them are used, but a "
        r"schedule goes by the length$"
    )
    with pytest.warns(LrtoolWarning, match=words):
        assert order(part) == list(range(9))


def test_no_end_is_early_where_nobody_tells_the_length():
    class Endless(Sampler):
        def __iter__(self):
            return iter(range(3))

    unknown = own(Squares(), sampler=Endless())
    for part in (own(Counter()), Streamed(Counter(), 0)):
        assert length(part, 2) is None
        assert [b.tolist() for b in an_epoch(part, 2)] == [[0, 1], [2, 3], [4]]
    assert length(unknown, 4) is None
    assert order(unknown) == [0, 1, 2]


class ByEpoch(Sampler):
    """As torch's DistributedSampler: it has another order in each epoch that it is told."""

    epoch = 0

    def __len__(self):
        return 6

    def __iter__(self):
        return iter([(self.epoch + i) % 6 for i in range(6)])

    def set_epoch(self, epoch):
        self.epoch = epoch


class CounterByEpoch(Counter):
    epoch = 0

    def __iter__(self):
        return iter(range(self.epoch, self.epoch + 5))

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_what_has_an_order_for_each_epoch_is_told_which_it_is():
    sampler = ByEpoch()
    part = OwnLoader(DataLoader(Squares(6), 2, sampler=sampler))
    lists = OwnLoader(
        DataLoader(Squares(6), batch_sampler=BatchSampler(ByEpoch(), 2, drop_last=False))
    )
    known = {"batch_size": 2, "seed": 0, "device": CPU}
    for epoch in (0, 2):
        for own in (part, lists):
            made = batches.epoch(own, epoch=epoch, **known)
            assert torch.cat([y for _, y in made]).sqrt().tolist()[0] == epoch
        for own in (Streamed(CounterByEpoch(), 0), OwnLoader(DataLoader(CounterByEpoch(), 2))):
            assert next(batches.epoch(own, epoch=epoch, **known)).tolist() == [epoch, epoch + 1]


def test_an_epoch_takes_what_the_sampler_of_a_loader_does():
    some = OwnLoader(DataLoader(Squares(), 2, sampler=SubsetRandomSampler(range(4))))
    assert (some.size, some.taken) == (10, 4)
    assert OwnLoader(DataLoader(Squares(), 2)).taken == 10
    assert OwnLoader(DataLoader(Squares(), batch_sampler=[[0, 1], [2]])).taken == 10


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_go_far_beyond_their_length_do_not_end(workers):
    class Endless(IterableDataset):
        def __len__(self):
            return 4

        def __iter__(self):
            yield from iter(int, 1)

    words = f"their length says 2 batches, and there are more than {20 * max(workers, 1)};"
    part = Streamed(Endless(), workers)
    known = {"batch_size": 2, "device": CPU}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stream in (
            batches.ordered(part, **known),
            batches.epoch(part, seed=0, epoch=0, must_end=True, **known),
        ):
            with pytest.raises(DataError, match=words):
                list(stream)
        first = list(islice(batches.epoch(part, seed=0, epoch=0, **known), 100))
    assert len(first) == 100  # nobody waits for the end of a training by steps


@pytest.mark.parametrize(
    ("said", "batches_", "found"), [(20, 10, "3"), (2, 1, "more than 1"), (4, 2, "more than 2")]
)
def test_a_length_that_is_not_what_is_yielded_is_said(said, batches_, found):
    class Sized(Counter):
        def __len__(self):
            return said

    words = (
        f"^an epoch of the data has {found} batches, but their length says {batches_}: all of them "
        "are used, but a schedule goes by the length; correct the dataset's __len__$"
    )
    for part in (own(Sized()), Streamed(Sized(), 0)):
        assert length(part, 2) == batches_
        with pytest.warns(LrtoolWarning, match=words) as caught:
            assert [b.tolist() for b in an_epoch(part, 2)] == [[0, 1], [2, 3], [4]]
        ours = [warning for warning in caught if warning.category is LrtoolWarning]
        assert len(ours) == 1


def test_samples_left_out_are_not_made_where_that_changes_nothing():
    class Counted(Squares):
        made = 0

        def __getitem__(self, index):
            self.made += 1
            return super().__getitem__(index)

    dataset = Counted(100)
    rest = batches.epoch(Streamed(dataset, 0), batch_size=10, seed=0, epoch=0, device=CPU, skip=8)
    assert len(list(rest)) == 2
    assert dataset.made == 20


def test_micro_batches():
    assert list(batches.micro_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches.micro_batches(iter("ab"), 1)) == [["a"], ["b"]]


Point = namedtuple("Point", "x y")  # noqa: PYI024  (torch collates into such)


class Asked:
    def to(self, device):
        return f"on {device}"


def test_batch_to_looks_into_everything():
    meta = torch.device("meta")
    one = torch.ones(1)
    batch = {"a": [one, (one, "word")], "b": Point(one, 3), "c": None, "d": Asked()}
    moved = batches.batch_to(batch, meta)
    assert moved["a"][0].device == moved["a"][1][0].device == moved["b"].x.device == meta
    assert (moved["a"][1][1], moved["b"].y, moved["c"], moved["d"]) == ("word", 3, None, "on meta")
    assert type(moved["b"]) is Point
    assert batches.batch_to(UserDict(x=one), meta)["x"].device == meta
    assert batches.batch_to(one, CPU) is one


def passes(loader, count):
    """What so many passes over a loader yield."""
    loader = again(loader)
    return [list(batches.one_pass(loader, CPU)) for _ in range(count)]


def test_a_loader_is_passed_over_again_and_again():
    assert passes([1, 2], 2) == [[1, 2], [1, 2]]
    first, second = passes(DataLoader(Squares(3), batch_size=2), 2)
    assert [y.tolist() for _, y in first] == [y.tolist() for _, y in second] == [[0, 1], [4]]


def test_an_iterator_is_remembered():
    assert passes((i for i in (1, 2, 3)), 3) == [[1, 2, 3]] * 3
    endless = again(itertools.count())
    assert list(islice(endless, 3)) == [0, 1, 2]
    assert list(islice(endless, 5)) == [0, 1, 2, 3, 4]  # goes on where nobody has read yet


@pytest.mark.parametrize("loader", [[], iter(()), DataLoader(Squares(1), 2, drop_last=True)])
def test_a_loader_over_nothing(loader):
    with pytest.raises(DataError, match=r"^the loader yields no batch; give it at least one$"):
        passes(loader, 1)


def test_held_out_batches_are_random_samples_of_a_sorted_validation_set():
    """A loader sorted by class: its first 64 samples would all be of class 0."""
    x, y = torch.arange(1000.0)[:, None], torch.arange(1000) // 100
    loader = DataLoader(TensorDataset(x, y), batch_size=100)
    found = batches.held_out(loader, 64, CPU)
    assert [len(inputs) for inputs, _ in found] == [4] * 16
    assert len(torch.cat([targets for _, targets in found]).unique()) == 10
    again = batches.held_out(loader, 64, CPU)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, again, strict=True))
    everything = torch.cat([inputs for inputs, _ in batches.held_out(loader, 5000, CPU)])
    assert torch.equal(everything.sort(0).values, x)


def test_held_out_batches_of_other_loaders_are_their_first_ones():
    made = [(torch.ones(3, 2), torch.ones(3)) for _ in range(5)]
    assert len(batches.held_out(made, 7, CPU)) == 3
    assert len(batches.held_out(made, 70, CPU)) == 5


def test_generators_are_found_once():
    mine, other = torch.Generator(), torch.Generator()
    data = Squares()
    loader = DataLoader(data, 4, shuffle=True, generator=mine)
    assert batches.generators(loader) == [mine]
    sampler = RandomSampler(data, generator=other)
    assert batches.generators(DataLoader(data, 4, sampler=sampler, generator=mine)) == [mine, other]
    nested = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, drop_last=False))
    assert batches.generators(nested) == [other]
    assert batches.generators(iter([])) == []


def test_the_generators_of_a_loader_are_found_wherever_they_are():
    class Wrapped:
        def __init__(self, loader):
            self.loader = loader

    class Drawing(Dataset):
        def __init__(self):
            self.own, self.numbers = torch.Generator(), np

    mine, dataset = torch.Generator(), Drawing()
    loader = DataLoader(dataset, generator=mine)
    found = batches.generators(Wrapped(loader), loader, [1, 2])
    assert {id(generator) for generator in found} == {id(mine), id(dataset.own)}


def test_held_out_batches_have_no_more_samples_than_the_loader_s():
    """One sample may be a whole scan: more at once might not fit in memory."""
    loader = DataLoader(Squares(1000), batch_size=2)
    assert {len(x) for x, _ in batches.held_out(loader, 100, CPU)} == {2}
