"""Batches gathered at once against those of torch's own loader."""

from itertools import islice

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lrtool.data.batches import generators
from lrtool.data.whole_batches import whole_batches

X, Y = torch.rand(23, 3, 2), torch.randint(0, 4, (23,))
DATA = TensorDataset(X, Y)
WEIGHTS = torch.rand(23)


def seeded():
    return torch.Generator().manual_seed(5)


class Words:
    """A sampler of the user's own, which draws at once rather than when first asked."""

    def __iter__(self):
        return iter(torch.randperm(23).tolist())

    def __len__(self):
        return 23


MAKERS = {
    "in order": lambda: DataLoader(DATA, 4),
    "shuffled": lambda: DataLoader(DATA, 4, shuffle=True),
    "generator": lambda: DataLoader(DATA, 4, shuffle=True, generator=seeded()),
    "drop_last": lambda: DataLoader(DATA, 4, shuffle=True, drop_last=True),
    "weights": lambda: DataLoader(DATA, 4, sampler=WeightedRandomSampler(WEIGHTS, 30)),
    "weights, generator": lambda: DataLoader(
        DATA, 4, sampler=WeightedRandomSampler(WEIGHTS, 9, generator=seeded()), generator=seeded()
    ),
    "replacement": lambda: DataLoader(
        DATA, 4, sampler=RandomSampler(DATA, replacement=True, num_samples=50)
    ),
    "subset": lambda: DataLoader(DATA, 4, sampler=SubsetRandomSampler([1, 5, 22])),
    "from the end": lambda: DataLoader(DATA, 2, sampler=[-1, 3, -23]),
    "tensors": lambda: DataLoader(DATA, 2, sampler=list(torch.arange(5))),
    "own sampler": lambda: DataLoader(DATA, 5, sampler=Words()),
    "batch sampler": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 6, drop_last=True)
    ),
    "batches given": lambda: DataLoader(DATA, batch_sampler=[[3], [1, 2]]),
    "batch of 1": lambda: DataLoader(DATA, shuffle=True),
    "three tensors": lambda: DataLoader(TensorDataset(X, Y, X), 4, shuffle=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_whole_batches_are_the_same_and_draw_the_same(make):
    def run(read):
        torch.manual_seed(11)
        loader = make()
        made = [batch for _ in range(2) for batch in read(loader)]
        return made, [torch.get_rng_state(), *(g.get_state() for g in generators(loader))]

    plain, states = run(lambda loader: loader)
    whole, own_states = run(whole_batches)
    assert whole_batches(make()).dataset is not DATA
    assert len(plain) == len(whole) > 0
    for expected, found in zip(plain, whole, strict=True):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)
            assert (a.dtype, a.stride()) == (b.dtype, b.stride())
    assert len(states) == len(own_states)
    assert all(map(torch.equal, states, own_states))


def test_whole_batches_stopped_early_have_drawn_the_same():
    for count in (1, 3):
        states = []
        for read in (iter, lambda loader: iter(whole_batches(loader))):
            torch.manual_seed(2)
            list(islice(read(MAKERS["shuffled"]()), count))
            states.append(torch.get_rng_state())
        assert torch.equal(*states)


class Flipped(TensorDataset):
    def __getitem__(self, index):
        return tuple(-tensor for tensor in super().__getitem__(index))


class Loader(DataLoader):
    def __iter__(self):
        yield "own"


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Flipped(X, Y), 4),
        DataLoader(DATA, 4, collate_fn=lambda items: default_collate(items)),  # noqa: PLW0108  (another function)
        DataLoader(DATA, batch_size=None),
        DataLoader(DATA, 4, num_workers=1),
        DataLoader(TensorDataset(X.transpose(1, 2), Y), 4),
        DataLoader(TensorDataset(X.clone().requires_grad_(), Y), 4),
        DataLoader(TensorDataset(torch.nn.Parameter(X), Y), 4),
        DataLoader(list(zip(X, Y, strict=True)), 4),
        Loader(DATA, 4),
    ],
)
def test_whole_batches_leaves_every_doubtful_loader_alone(loader):
    assert whole_batches(loader) is loader


def test_whole_batches_raise_what_the_loader_raises():
    loader = DataLoader(DATA, 2, sampler=[0, 23])
    messages = []
    for read in (loader, whole_batches(loader)):
        with pytest.raises(IndexError) as caught:
            list(read)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
