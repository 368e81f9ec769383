"""How batches reach the device, as plain iterators.

A batch is whatever the model's step takes: (inputs, targets), a mapping, or an object of the
user's. Samples in memory are batched by one permutation an epoch, without Python work for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import count, islice
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lrtool.data import workers
from lrtool.data.part import Resident, Streamed, length, samples_in
from lrtool.data.whole_batches import whole_batches
from lrtool.errors import DataError, LrtoolWarning

if TYPE_CHECKING:
    from lrtool.data.part import Part

CHUNK = 64  # samples of a chunk of validation data, between which losses are paired
LEAST_CHUNKS = 16  # where there are few samples


def epoch(
    part: Part,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    device: torch.device,
    skip: int = 0,
) -> Iterator[Any]:
    """Return the batches of one epoch; the last one may be short.

    The order depends on `seed` and `epoch` alone, so a resumed run can make epoch 7 again. Of an
    iterable dataset and of the user's own DataLoader, the order is their own.

    Args:
        part: the samples.
        batch_size: samples in a batch; the user's own DataLoader has a size of its own.
        seed: of the run.
        epoch: counted from 0.
        device: where batches are put.
        skip: batches to leave out at the start. They are not made where that changes nothing;
            where workers, an iterable dataset or a loader of the user's own make them, they are
            made once more before this function returns.

    Raises:
        DataError: while the batches are read, if they end too soon.
    """
    generator = _generator(seed, epoch)
    if isinstance(part, Resident):
        return _shuffled(part, batch_size, generator, device, skip)
    if isinstance(part, Streamed):
        lazy = part.workers == 0 and not part.iterable
        loader = _loader(
            part, batch_size, generator, device, shuffle=True, skip=skip if lazy else 0
        )
        skip = 0 if lazy else skip
    else:
        loader = whole_batches(part.loader)
    made: Iterator[Any] = iter(loader)
    skipped = sum(1 for _ in islice(made, skip))
    return (batch_to(batch, device) for batch in _all(made, loader, skipped))


def some(groups: Iterator[list[Any]], number: int) -> Iterator[list[Any]]:
    """Yield the batches of each update in epoch `number`, which must have some.

    Raises:
        DataError: there is none.
    """
    empty = True
    for group in groups:
        empty = False
        yield group
    if empty:
        raise empty_epoch(number)


def _all(made: Iterator[Any], loader: DataLoader[Any], skipped: int = 0) -> Iterator[Any]:
    """Yield what a loader has `made`, and hold it to its length: it may end early without a word.

    A StopIteration of its dataset's ends it, and a sampler of the user's own may yield less than it
    says. Over an iterable dataset, and a sampler without a length, nobody can tell an early end.

    Raises:
        DataError: there are fewer batches.

    Warns:
        LrtoolWarning: there are more, which are all used.
    """
    done = skipped
    for batch in made:
        done += 1
        yield batch
    planned = None if isinstance(loader.dataset, IterableDataset) else length(loader)
    if planned is not None and done < planned:
        raise DataError(
            f"the data ended after {done} of {planned} batches: a dataset must not raise "
            "StopIteration, nor a sampler yield less than its length"
        )
    if planned is not None and done > planned:
        warnings.warn(
            f"a DataLoader yields more batches than its length, {planned}: all of them are used, "
            "but a schedule goes by the length",
            LrtoolWarning,
            stacklevel=2,
        )


def empty_epoch(number: int) -> DataError:
    """Return the error to raise when epoch `number`, from 0, has no batch."""
    return DataError(f"the training data yield no batch in epoch {number + 1}")


def ordered(part: Part, *, batch_size: int, device: torch.device) -> Iterator[Any]:
    """Yield each sample once, unshuffled, to evaluate a model; draws no random number.

    Raises:
        DataError: the batches end too soon.
    """
    if isinstance(part, Resident):
        for start in range(0, part.size, batch_size):
            rows = slice(start, start + batch_size)
            yield part.inputs[rows].to(device, copy=True), part.targets[rows].to(device, copy=True)
        return
    if isinstance(part, Streamed):
        loader = _loader(part, batch_size, torch.Generator(), device, shuffle=False)
    else:
        loader = whole_batches(part.loader)
    for batch in _all(iter(loader), loader):
        yield batch_to(batch, device)


def micro_batches(stream: Iterable[Any], accumulate: int) -> Iterator[list[Any]]:
    """Yield lists of `accumulate` batches, one list an update; the last one may be short."""
    batches = iter(stream)
    while group := list(islice(batches, accumulate)):
        yield group


def one_pass(loader: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Yield the batches of a loader, whatever it is, once.

    Args:
        loader: a DataLoader, a list, …: anything that yields batches and can be iterated anew.
        device: where batches are put.

    Raises:
        DataError: it yields no batch.
    """
    if isinstance(loader, DataLoader):
        loader = whole_batches(loader)
    empty = True
    for batch in loader:
        empty = False
        yield batch_to(batch, device)
    if empty:
        raise DataError("the loader yields no batch; give it at least one")


def again(loader: Iterable[Any]) -> Iterable[Any]:
    """Return what can be iterated again and again: the loader, or an iterator remembered."""
    return Remembered(loader) if isinstance(loader, Iterator) else loader


class Remembered:
    """The batches of an iterator, which come only once, kept so that they can come again."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches that have come already, and then those that come now."""
        for index in count():
            if index == len(self._seen):
                try:
                    self._seen.append(next(self._iterator))
                except StopIteration:
                    return
            yield self._seen[index]


def held_out(loader: Iterable[Any], most: int, device: torch.device) -> list[Any]:
    """Return batches of a validation loader, of at least `most` samples or of all it has.

    Of a DataLoader over a map-style dataset they are chunks of random samples, the same ones at
    each call: the first ones may be of one class. Of any other loader they are its first batches.
    """
    if isinstance(loader, DataLoader) and _is_plain(loader):
        size = len(loader.dataset)  # type: ignore[arg-type]
        order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(
            loader.dataset,
            chunk_size(min(size, most)),
            sampler=order.tolist(),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator(),
        )
    return at_least(one_pass(loader, device), most)


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Tell whether a loader batches samples that can be asked for by number."""
    return (
        type(loader.batch_sampler) is BatchSampler
        and isinstance(loader.sampler, RandomSampler | SequentialSampler)
        and isinstance(loader.dataset, Sized)
        and len(loader.dataset) > 0
    )


def chunk_size(samples: int) -> int:
    """Return the samples of each chunk, between which the losses of candidates are paired."""
    return min(CHUNK, ceil(samples / LEAST_CHUNKS))


def at_least(made: Iterable[Any], most: int) -> list[Any]:
    """Return the first batches that have `most` samples together, or all."""
    found, seen = [], 0
    for batch in made:
        found.append(batch)
        seen += samples_in(batch)
        if seen >= most:
            break
    return found


def batch_to(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on `device`.

    Tuples, named tuples, lists and mappings are looked into; objects with a method `to` are asked;
    all else stays as it is. Copies to a CUDA device do not block.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=device.type == "cuda")
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(batch_to(item, device) for item in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(batch_to(item, device) for item in batch)
    if isinstance(batch, Mapping):
        return {key: batch_to(value, device) for key, value in batch.items()}
    return batch


def generators(loader: Any) -> list[torch.Generator]:
    """Return the random generators that a DataLoader and its samplers draw from."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _shuffled(
    part: Resident,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    skip: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    inputs, targets = part.inputs, part.targets
    if batch_size >= part.size:  # a copy, for a model may change its inputs in place
        if not skip:
            yield inputs.to(device, copy=True), targets.to(device, copy=True)
        return
    # Gathered as NHWC, a batch stays channels_last, and is ready 4 times as soon.
    nhwc = _is_channels_last(inputs)
    if nhwc:
        inputs = inputs.permute(0, 2, 3, 1)
    order = torch.randperm(part.size, generator=generator).to(inputs.device)
    for start in range(skip * batch_size, part.size, batch_size):
        rows = order[start : start + batch_size]
        batch = inputs.index_select(0, rows)
        if nhwc:
            batch = batch.permute(0, 3, 1, 2)
        yield batch.to(device), targets.index_select(0, rows).to(device)


def _is_channels_last(inputs: Tensor) -> bool:
    return (
        inputs.ndim == 4
        and not inputs.is_contiguous()
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )


def _loader(
    part: Streamed,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    shuffle: bool,
    skip: int = 0,
) -> DataLoader[Any]:
    loader: DataLoader[Any] = DataLoader(
        part.dataset,
        batch_size,
        shuffle=shuffle and not part.iterable,
        num_workers=part.workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=workers.begin,
        generator=generator,
    )
    if not skip:
        return loader
    assert isinstance(loader.batch_sampler, BatchSampler), "a map-style dataset has one"
    return DataLoader(
        part.dataset,
        batch_sampler=_Later(loader.batch_sampler, skip),
        num_workers=part.workers,
        pin_memory=loader.pin_memory,
        generator=generator,
    )


class _Later(Sampler[list[int]]):
    """A batch sampler without its first batches; its generators are drawn from alike."""

    def __init__(self, batches: BatchSampler, skip: int) -> None:
        self.batches = batches
        self.skip = skip

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), self.skip, None)

    def __len__(self) -> int:
        return max(len(self.batches) - self.skip, 0)


def _generator(seed: int, epoch: int) -> torch.Generator:
    """Return a generator for one epoch, independent of those of other seeds and epochs."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
