"""Where the samples of a part live while a run lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor
from torch.utils.data import IterableDataset

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """Samples that fit in memory: inputs (N, …) and targets (N, …), on the device."""

    inputs: Tensor
    targets: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """Samples that a dataset makes one by one, in the order that a run decides.

    Attributes:
        dataset: map-style or iterable.
        workers: processes that make samples; 0 for the run's own.
    """

    dataset: Dataset[Any]
    workers: int

    @property
    def iterable(self) -> bool:
        """Whether the dataset alone decides its order."""
        return isinstance(self.dataset, IterableDataset)

    @property
    def size(self) -> int | None:
        """The number of samples, or None where the dataset does not tell."""
        return len(self.dataset) if isinstance(self.dataset, Sized) else None


@dataclass(frozen=True, slots=True, eq=False)
class OwnLoader:
    """A DataLoader of the user's own: its batches, its order, its workers."""

    loader: DataLoader[Any]

    @property
    def size(self) -> int | None:
        """The number of samples of its dataset, or None where that does not tell."""
        dataset = self.loader.dataset
        return len(dataset) if isinstance(dataset, Sized) else None


def length(loader: DataLoader[Any]) -> int | None:
    """Return the batches in an epoch, or None where dataset or sampler do not tell.

    Over an iterable dataset that is a guess: torch knows nothing of what its workers leave out.
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


Part: TypeAlias = Resident | Streamed | OwnLoader


def samples_in(batch: Any) -> int:
    """Return the first dimension of the first tensor, or 1 without one."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    items = batch if isinstance(batch, tuple | list) else [batch]
    sizes = [len(item) for item in items if isinstance(item, Tensor) and item.ndim]
    return sizes[0] if sizes else 1
