"""The training or the validation set of a run: in memory, a dataset, or a DataLoader."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from lrtool.data.conversion import AS_GIVEN, Conversion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.utils.data import Dataset

    from lrtool.data.rows import Layout


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """Samples in memory: inputs (N, …) and targets (N, …), on the device."""

    inputs: Tensor
    targets: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """Samples that are loaded from a dataset one by one.

    Attributes:
        dataset: map-style or iterable.
        workers: processes that load samples; 0: the run's own process.
        timeout: seconds to wait for a batch of theirs; 0: for ever.
        shared: each worker is given its share of an iterable dataset that does not share itself.
        conversion: of each batch.
    """

    dataset: Dataset[Any]
    workers: int
    timeout: float = 0.0
    shared: bool = False
    conversion: Conversion = AS_GIVEN

    @property
    def iterable(self) -> bool:
        """Whether the dataset is iterable, with an order of its own."""
        return isinstance(self.dataset, IterableDataset)

    @property
    def size(self) -> int | None:
        """The number of samples, or None if the dataset has no length."""
        return len(self.dataset) if isinstance(self.dataset, Sized) else None


@dataclass(frozen=True, slots=True, eq=False)
class OwnLoader:
    """The user's own DataLoader, with its batches, order and workers.

    Attributes:
        loader: the DataLoader.
        copies: how many workers yield all samples of an iterable dataset; 1 where they share them.
        conversion: of each batch.
        layout: where a batch that the loader makes whole has a row for each sample, so that ranks
            can divide it; None: each rank computes all of it.
    """

    loader: DataLoader[Any]
    copies: int = 1
    conversion: Conversion = AS_GIVEN
    layout: Layout = None

    @property
    def size(self) -> int | None:
        """The number of samples, or None if the dataset has no length."""
        dataset = self.loader.dataset
        return len(dataset) if isinstance(dataset, Sized) else None

    @property
    def taken(self) -> int | None:
        """The number of samples that an epoch takes, as far as it is known."""
        lists = self.loader.batch_sampler
        if not isinstance(self.loader.dataset, IterableDataset) and type(lists) is BatchSampler:
            with suppress(TypeError, NotImplementedError):
                return len(lists.sampler)  # type: ignore[arg-type]
        return self.size


class Batches(IterableDataset[Any]):
    """Batches that an object of the user's goes through, such as one around a DataLoader."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def loader_over(loader: Any) -> DataLoader[Any]:
    """Return a DataLoader of the batches that an object goes through, as they are."""
    # With a generator of its own it draws no number that the object would have drawn.
    return DataLoader(
        Batches(loader), batch_size=None, collate_fn=as_is, generator=torch.Generator()
    )


def as_is(batch: Any) -> Any:
    """Return a batch."""
    return batch


def length(part: Part, batch_size: int) -> int | None:
    """Return the batches in an epoch, or None if dataset or sampler have no length.

    For an iterable dataset that shares itself among workers it may be a few more.
    """
    if not isinstance(part, OwnLoader):
        return None if part.size is None else ceil(part.size / batch_size)
    loader = part.loader
    try:
        if isinstance(loader.dataset, Batches):
            return len(loader.dataset.loader)
        if isinstance(loader.dataset, IterableDataset):  # torch would then warn at each batch
            whole = len(loader.dataset) / (loader.batch_size or 1)  # type: ignore[arg-type]
            return part.copies * (floor(whole) if loader.drop_last else ceil(whole))
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


Part: TypeAlias = Resident | Streamed | OwnLoader
