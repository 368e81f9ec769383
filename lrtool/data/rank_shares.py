"""What one rank loads of the batches of a DataLoader.

Every rank draws the indices of every batch, with the random numbers that one process alone would
draw, and loads the samples that are its own. What the dataset draws, such as for augmentation,
comes from other random numbers on each rank, so that those for the order stay the same on all.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler

from lrtool.batch import Share, samples_in, share_of
from lrtool.errors import DataError, RankFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lrtool.ranks import Ranks

_END = object()


def takes_index_lists(loader: DataLoader[Any]) -> bool:
    """Tell whether a loader makes each batch from a list of indices, in torch's own way."""
    kind = type(loader)
    return (
        loader.batch_sampler is not None
        and not isinstance(loader.dataset, IterableDataset)
        and kind.__iter__ is DataLoader.__iter__
        and kind._get_iterator is DataLoader._get_iterator  # noqa: SLF001  (others replace it)
    )


class OwnIndices(Sampler[Any]):
    """A rank's share of each batch of a batch sampler, or whole batches by turns.

    Attributes:
        batches: the batch sampler.
        ranks: that share its batches.
        whole: rank r of R has the batches r, r + R, … instead of a share of each.
        first: digest of the first list of indices; "" before it is drawn.
        drawn: of each list of indices on its way through the loader: the samples of the whole
            batch, and whether the rank's own count; None for a turn that has no batch for it.
    """

    def __init__(self, batches: Any, ranks: Ranks, *, whole: bool) -> None:
        self.batches = batches
        self.ranks = ranks
        self.whole = whole
        self.first = ""
        self.drawn: deque[tuple[int, bool] | None] = deque()
        self._lists: Iterator[Any] = iter(())
        self._ahead: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        """Return the lists of indices of an epoch."""
        self.first = ""
        self.drawn.clear()
        self._ahead.clear()
        self._lists = iter(self.batches)
        return self._own()

    def __len__(self) -> int:
        """Return how many lists this rank has.

        Raises:
            TypeError: the batch sampler has no length.
        """
        first, turns = (self.ranks.rank, self.ranks.world_size) if self.whole else (0, 1)
        return len(range(first, len(self.batches), turns))

    def _own(self) -> Iterator[Any]:
        while True:
            if not self._ahead:
                self.draw()
            if not self._ahead:
                return
            yield self._ahead.popleft()

    def draw(self) -> None:
        """Draw the indices of the next batch, or turn, before the loader asks for them."""
        turn = list(islice(self._lists, self.ranks.world_size if self.whole else 1))
        own = self.ranks.rank if self.whole else 0
        if len(turn) <= own:
            self.drawn.extend([None] * bool(turn))
            return
        indices, rows, counts = turn[own], slice(None), True
        if not isinstance(indices, Sequence | Tensor | np.ndarray):
            indices = list(indices)
        if not self.whole:
            rows, counts = share_of(len(indices), self.ranks.rank, self.ranks.world_size)
        if not self.first:
            self.first = hashlib.sha256(str(list(indices)).encode()).hexdigest()
        self.drawn.append((len(indices), counts))
        self._ahead.append(indices[rows])


def refuse_other_orders(indices: OwnIndices, ranks: Ranks) -> None:
    """Refuse indices that the ranks draw in different orders.

    Call this on all ranks, when a loader has begun to take them.

    Raises:
        DataError: the first lists of the epoch differ.
    """
    if not indices.first:
        indices.draw()
    if len(set(ranks.gather(indices.first))) > 1:
        raise DataError(
            "the ranks take the samples in different orders, of which each then computes its share:"
            " seed the DataLoader's sampler alike on every rank"
        )


def with_indices(loader: DataLoader[Any], indices: OwnIndices) -> DataLoader[Any]:
    """Return a copy of a loader that takes these indices; all else is the loader's own."""
    own = copy.copy(loader)
    begin = loader.worker_init_fn
    if loader.num_workers:
        begin = partial(_begin, rank=indices.ranks.rank, then=begin)
    # torch refuses to set some of these in a loader that may be in use, which the copy is not.
    vars(own).update(batch_sampler=indices, worker_init_fn=begin, in_order=True, _iterator=None)
    return own


def loaded(
    stream: Iterator[Any], indices: OwnIndices, seed: Sequence[int] | None, first: int = 0
) -> Iterator[tuple[Any, int, bool]]:
    """Yield a rank's part of each batch, with the samples of the whole one, and whether it counts.

    Args:
        stream: batches of a loader from `with_indices`.
        indices: its own.
        seed: of what the dataset draws in this process; None where workers load.
        first: number of the first batch.
    """
    for number in count(first):
        if seed is None:
            batch = next(stream, _END)
        else:
            indices.draw()
            with _random_numbers(*seed, number, indices.ranks.rank):
                batch = next(stream, _END)
        if batch is _END:
            return
        drawn = indices.drawn.popleft()
        assert drawn is not None, "the loader was given its indices"
        yield batch, *drawn


def own_batches(stream: Iterator[Any], ranks: Ranks) -> Iterator[Share]:
    """Yield the batches of a rank's own loader, each as its share of one over all ranks.

    They end where those of some rank do, so that all ranks have equally many.

    Raises:
        RankFailedError: another rank could not make its batch.
    """
    while True:
        batch, failure = None, None
        try:
            batch = next(stream, _END)
        except Exception as error:  # noqa: BLE001  (raised once all ranks know)
            failure = error
        ended = batch is _END
        own = 0 if ended or failure is not None else samples_in(batch)
        some_ended, some_failed, samples = ranks.sums([ended, failure is not None, own])
        if failure is not None:
            raise failure
        if some_failed:
            raise RankFailedError("another rank failed to make its batch")
        if some_ended:
            return
        yield Share(batch, int(samples))


@contextmanager
def _random_numbers(*seed: int) -> Iterator[None]:
    """Draw from other random states of the process inside the block; then those of before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  (the global state is what users' code draws from)
    _seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _begin(worker: int, rank: int, then: Callable[[int], object] | None) -> None:
    """Give the workers of each rank random numbers of their own, then call what was set."""
    if rank:
        _seed((torch.initial_seed(), rank))
    if then is not None:
        then(worker)


def _seed(seed: Sequence[int]) -> None:
    first, second, third = np.random.SeedSequence(seed).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002
    torch.default_generator.manual_seed(third)
