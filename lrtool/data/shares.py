"""What each process that loads an iterable dataset yields of it.

torch gives each worker a copy of the dataset. Unless the dataset asks `get_worker_info()` which
share is its own, every worker yields all of it. Of several ranks, each goes through all samples.
"""

from __future__ import annotations

import random
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data._utils import worker as torch_worker

from lrtool.batch import share_of
from lrtool.data.conversion import collate
from lrtool.data.worker_process import begin

if TYPE_CHECKING:
    from collections.abc import Iterator


def shares_itself(dataset: IterableDataset[Any], workers: int) -> bool:
    """Tell whether a dataset asks which worker it is in, up to its first sample.

    It is asked in a process of its own, since it may keep what it was told.

    Raises:
        Exception: whatever the dataset raises.
    """
    loader = DataLoader(
        _Asked(dataset, workers), batch_size=None, num_workers=1, worker_init_fn=begin
    )
    with torch.random.fork_rng(devices=[]):
        return bool(next(iter(loader)))


class Shared(IterableDataset[Any]):
    """A dataset that does not share itself: worker i of n yields its batches i, i + n, ….

    torch takes the workers in turn, so the batches are those that one process alone would make, in
    the same order. Each worker goes through all samples, and draws the same random numbers.
    """

    def __init__(self, dataset: IterableDataset[Any], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's samples."""
        info = get_worker_info()
        assert info is not None, "there are workers"
        seed = info.seed - info.id
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  (the user's code may draw from it)
        torch.manual_seed(seed)
        samples = iter(self.dataset)
        for number in count():
            batch = list(islice(samples, self.batch_size))
            if number % info.num_workers == info.id:
                yield from batch
            if len(batch) < self.batch_size:
                return


class OfRank(IterableDataset[Any]):
    """A rank's samples of each batch, with the number of all, and whether its own count."""

    def __init__(
        self, dataset: IterableDataset[Any], batch_size: int, rank: int, world_size: int
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[tuple[list[Any], int, bool]]:
        """Yield the samples of one batch after another."""
        samples = iter(self.dataset)
        while batch := list(islice(samples, self.batch_size)):
            rows, counts = share_of(len(batch), self.rank, self.world_size)
            yield batch[rows], len(batch), counts


def collated(share: tuple[list[Any], int, bool]) -> tuple[Any, int, bool]:
    """Return what `OfRank` yields with its samples as a batch."""
    samples, size, counts = share
    return collate(samples), size, counts


class _Asked(IterableDataset[Any]):
    """Yields whether a dataset has asked which worker it is in."""

    def __init__(self, dataset: IterableDataset[Any], workers: int) -> None:
        self.dataset = dataset
        self.workers = workers

    def __iter__(self) -> Iterator[bool]:
        replaced: Any = torch_worker
        info = _Info(get_worker_info(), self.workers)
        replaced._worker_info = info  # noqa: SLF001  (of this process, which ends with the answer)
        next(iter(self.dataset), None)
        yield info.asked


class _Info:
    """What `get_worker_info()` returns; it notes whether it was asked for the worker's number."""

    def __init__(self, info: Any, workers: int) -> None:
        self.seed, self.dataset = info.seed, info.dataset
        self.asked = False
        self._workers = workers

    @property
    def id(self) -> int:
        self.asked = True
        return 0

    @property
    def num_workers(self) -> int:
        self.asked = True
        return self._workers
