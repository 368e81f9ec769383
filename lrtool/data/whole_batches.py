"""Faster batches from a DataLoader over samples in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from lrtool.data.part import as_is

if TYPE_CHECKING:
    from collections.abc import Sequence


def whole_batches(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a faster DataLoader with the same batches, or the loader itself.

    A DataLoader over a TensorDataset takes samples one by one and stacks them; here a batch is
    gathered at once. Samplers and generators are the loader's own. Whatever might give other
    batches is left alone.
    """
    dataset = loader.dataset
    if not (
        type(loader) is DataLoader
        and type(dataset) is TensorDataset
        and loader.collate_fn is default_collate
        and loader.num_workers == 0
        and loader.timeout == 0
        and not getattr(loader, "pin_memory_device", "")  # deprecated
        and loader.batch_sampler is not None
        and all(_is_plain(tensor) for tensor in dataset.tensors)
    ):
        return loader
    return DataLoader(
        _Rows(dataset),
        batch_sampler=loader.batch_sampler,
        collate_fn=as_is,
        generator=loader.generator,
        pin_memory=loader.pin_memory,
    )


class _Rows(Dataset[Any]):
    """A TensorDataset that returns batches as `default_collate` makes them."""

    def __init__(self, dataset: TensorDataset) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: Sequence[Any]) -> Any:
        if set(map(type, indices)) == {int}:
            rows = torch.tensor(indices, device="cpu")
            try:
                return [tensor.index_select(0, rows) for tensor in self.dataset.tensors]
            except IndexError:  # negative or out of range: torch handles it below
                pass
        return default_collate([self.dataset[index] for index in indices])


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.requires_grad
    )
