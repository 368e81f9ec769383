"""Batches on the device, as plain iterators.

A batch is (inputs, targets), a mapping, or an object of the user's. Samples in memory are batched
by one permutation for each epoch, without Python work for each sample.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from itertools import islice
from math import ceil
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lrtool.batch import Share, samples_in, share_of
from lrtool.data.conversion import Conversion, collate, convert
from lrtool.data.loader_state import new_pass, put_back
from lrtool.data.part import OwnLoader, Resident, Streamed, length
from lrtool.data.rank_shares import (
    OwnIndices,
    loaded,
    refuse_other_orders,
    takes_index_lists,
    with_indices,
)
from lrtool.data.rows import rows_of
from lrtool.data.shares import OfRank, Shared, collated
from lrtool.data.whole_batches import whole_batches
from lrtool.data.worker_process import begin
from lrtool.errors import DataError, LrtoolWarning
from lrtool.ranks import ALONE

if TYPE_CHECKING:
    from lrtool.data.part import Part
    from lrtool.ranks import Ranks

DEPTH = 4  # objects between a loader and a generator that it draws from
CHUNK = 64  # samples in a chunk of validation samples; a race pairs the losses by chunk
LEAST_CHUNKS = 16  # of fewer samples each, where there are few
ENDLESS = 10  # times the length of data, after which nobody waits for their end any more


def epoch(
    part: Part,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    device: torch.device,
    skip: int = 0,
    ranks: Ranks = ALONE,
    state: Any = None,
    must_end: bool = False,
) -> Iterator[Any]:
    """Return the batches of one epoch; the last one may be smaller.

    The order depends on `seed` and `epoch` alone, so a resumed run can repeat an epoch. An iterable
    dataset and the user's own DataLoader have an order of their own.

    Args:
        part: the samples.
        batch_size: samples in a batch; ignored for the user's own DataLoader.
        seed: of the run.
        epoch: counted from 0.
        device: where batches are put.
        skip: batches to skip at the start. Those of workers, an iterable dataset or the user's own
            DataLoader are made and dropped before this function returns.
        ranks: that share each batch: with several, a `Share` of each is returned, as many on every
            rank.
        state: of the user's own loader, from `loader_state`, where it goes on: it then makes none
            of the batches that are skipped; None: it has none.
        must_end: the caller waits for the end of the epoch.

    Raises:
        DataError: on iteration, if the batches end early, or must end and do not.
    """
    generator = _generator(seed, epoch)
    _tell_epoch(part, epoch)
    if isinstance(part, Resident):
        return _shuffled(part, batch_size, generator, device, skip=skip, ranks=ranks)
    if isinstance(part, Streamed):
        lazy = part.workers == 0 and not part.iterable
        loader = _loader(
            part, batch_size, generator, device, shuffle=True, skip=skip if lazy else 0, ranks=ranks
        )
        first, skip = (skip, 0) if lazy else (0, skip)
    else:
        loader, first = whole_batches(part.loader), 0
    put_back(part, state)
    stream: Iterator[Any]
    if not ranks.several:
        stream = _begun(loader, state, skip)
    elif takes_index_lists(loader):
        indices = OwnIndices(loader.batch_sampler, ranks, whole=False)
        loader = with_indices(loader, indices)
        own = None if loader.num_workers else (seed, epoch)
        stream = loaded(iter(loader), indices, own, first)
        if isinstance(part, OwnLoader):
            refuse_other_orders(indices, ranks)
    elif isinstance(part, OwnLoader):
        stream = (_own_part(batch, part, ranks) for batch in _begun(loader, state, skip))
    else:
        stream = iter(loader)
    skipped = skip if state is not None else sum(1 for _ in islice(stream, skip))
    counted = _all(stream, loader, skipped)
    if isinstance(loader.dataset, IterableDataset):
        counted = _counted(stream, part, length(part, batch_size), skipped)
    if must_end:
        counted = _ending(counted, part, batch_size)
    if ranks.several:
        return (
            Share(batch_to(convert(batch, part.conversion), device), samples, counts)
            for batch, samples, counts in counted
        )
    return (batch_to(convert(batch, part.conversion), device) for batch in counted)


def _tell_epoch(part: Part, epoch: int) -> None:
    """Call `set_epoch` where the order is one of an epoch, as a loop of one's own would."""
    if isinstance(part, Resident):
        return
    told: list[Any] = [part.loader.dataset if isinstance(part, OwnLoader) else part.dataset]
    if isinstance(part, OwnLoader):
        lists = part.loader.batch_sampler
        told += [part.loader.sampler, lists, getattr(lists, "sampler", None)]
    for each in {id(each): each for each in told}.values():
        if hasattr(each, "set_epoch"):
            each.set_epoch(epoch)


def _begun(loader: DataLoader[Any], state: Any, skip: int) -> Iterator[Any]:
    """Begin a pass of a loader, from the state that was put back if there is one."""
    return iter(loader) if state is None or skip else new_pass(loader)


def _own_part(batch: Any, part: OwnLoader, ranks: Ranks) -> tuple[Any, int, bool]:
    """Return a rank's rows of a batch that each rank has made, its samples, and whether they count.

    Where it cannot be divided, each rank computes all of it, and that of the first one counts.
    """
    batch = convert(batch, part.conversion)
    samples = samples_in(batch)
    if part.layout is not None:
        rows, counts = share_of(samples, ranks.rank, ranks.world_size)
        with suppress(DataError):
            return rows_of(batch, part.layout, samples, rows), samples, counts
    return batch, samples, ranks.first


def some(groups: Iterator[list[Any]], number: int) -> Iterator[list[Any]]:
    """Yield the batches of each update in epoch `number`.

    Raises:
        DataError: there are none.
    """
    empty = True
    for group in groups:
        empty = False
        yield group
    if empty:
        raise empty_epoch(number)


def _all(stream: Iterator[Any], loader: DataLoader[Any], skipped: int = 0) -> Iterator[Any]:
    """Yield the batches of a loader, and compare their number with its length.

    A StopIteration in the dataset ends the batches early without an error, as does a sampler that
    yields less than its length. An iterable dataset is not looked at here.

    Raises:
        DataError: there are fewer batches than the length.

    Warns:
        LrtoolWarning: there are more.
    """
    done = skipped
    try:
        for batch in stream:
            done += 1
            yield batch
    except Exception as error:
        # Workers end with the iterator, which the frames of the failure hold: a later collection
        # would wait for them anywhere, or complain in another loader's worker.
        del stream
        traceback.clear_frames(error.__traceback__)
        raise
    planned = None
    if not isinstance(loader.dataset, IterableDataset):
        planned = length(OwnLoader(loader), 1)
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


def _counted(
    stream: Iterator[Any], part: Streamed | OwnLoader, planned: int | None, skipped: int
) -> Iterator[Any]:
    """Yield the batches of an iterable dataset, and compare their number with its length.

    Where it shares itself among workers, the last batch of each may be a short one.

    Warns:
        LrtoolWarning: they are more or fewer.
    """
    workers = part.workers if isinstance(part, Streamed) else part.loader.num_workers
    loose = max(workers - 1, 0)
    done = skipped
    for batch in stream:
        done += 1
        if planned is not None and done == planned + loose + 1:
            _warn_of_length(f"more than {planned}", planned)
        yield batch
    if planned is not None and done < planned - loose:
        _warn_of_length(f"{done}", planned)


def _ending(stream: Iterator[Any], part: Streamed | OwnLoader, batch_size: int) -> Iterator[Any]:
    """Yield the batches of data that have to end.

    Raises:
        DataError: they go far beyond their length.
    """
    planned = length(part, batch_size)
    workers = part.workers if isinstance(part, Streamed) else part.loader.num_workers
    most = None if planned is None else ENDLESS * max(planned, 1) * max(workers, 1)
    for number, batch in enumerate(stream):
        if number == most:
            raise DataError(
                f"the data do not end: their length says {planned:,} batches, and there are more "
                f"than {most:,}; let the dataset end, or correct its __len__"
            )
        yield batch


def _warn_of_length(found: str, planned: int) -> None:
    warnings.warn(
        f"an epoch of the data has {found} batches, but their length says {planned}: all of them "
        "are used, but a schedule goes by the length; correct the dataset's __len__",
        LrtoolWarning,
        stacklevel=3,
    )


def ends_within(part: Part, seconds: float, *, batch_size: int) -> int | None:
    """Return None if an epoch of the data ends in this time, else the samples seen until then."""
    deadline = perf_counter() + seconds
    seen = 0
    for batch in ordered(part, batch_size=batch_size, device=torch.device("cpu")):
        seen += samples_in(batch)
        if perf_counter() > deadline:
            return seen
    return None


def empty_epoch(number: int) -> DataError:
    """Return the error for an epoch, counted from 0, without a batch."""
    return DataError(f"the training data yield no batch in epoch {number + 1}")


def ordered(
    part: Part, *, batch_size: int, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[Any]:
    """Yield the batches of an evaluation, unshuffled, without drawing random numbers.

    With several ranks, each has whole batches by turns: rank r of R has the batches r, r + R, …,
    and None for a turn that has none for it, so that all yield equally often.

    Raises:
        DataError: the batches end early, or go far beyond their length.
    """
    if isinstance(part, Resident):
        turns = ceil(part.size / (batch_size * ranks.world_size))
        for number in range(ranks.rank, turns * ranks.world_size, ranks.world_size):
            rows = slice(number * batch_size, (number + 1) * batch_size)
            if rows.start >= part.size:
                yield None
                continue
            yield part.inputs[rows].to(device, copy=True), part.targets[rows].to(device, copy=True)
        return
    if isinstance(part, Streamed):
        loader = _loader(part, batch_size, torch.Generator(), device, shuffle=False)
    else:
        loader = whole_batches(part.loader)
    for batch in _ending(_by_turns(loader, ranks), part, batch_size):
        yield None if batch is None else batch_to(convert(batch[0], part.conversion), device)


def _by_turns(loader: DataLoader[Any], ranks: Ranks) -> Iterator[tuple[Any] | None]:
    """Yield this rank's batches of a loader, and None for a turn that has none for it."""
    if ranks.several and takes_index_lists(loader):
        indices = OwnIndices(loader.batch_sampler, ranks, whole=True)
        loader = with_indices(loader, indices)
        seed = None if loader.num_workers else ()
        for batch, *_ in _all(loaded(iter(loader), indices, seed), loader):
            yield (batch,)
        if None in indices.drawn:
            yield None
        return
    own = None
    number = -1
    for number, batch in enumerate(_all(iter(loader), loader)):
        if number % ranks.world_size == ranks.rank:
            own = (batch,)
        if number % ranks.world_size == ranks.world_size - 1:
            yield own
            own = None
    if (number + 1) % ranks.world_size:
        yield own


def micro_batches(stream: Iterable[Any], accumulate: int) -> Iterator[list[Any]]:
    """Yield the batches of each update: lists of `accumulate`, the last one maybe shorter."""
    batches = iter(stream)
    while group := list(islice(batches, accumulate)):
        yield group


def one_pass(loader: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Yield the batches of a DataLoader, a list or another iterable.

    Raises:
        DataError: there are none.
    """
    if isinstance(loader, DataLoader):
        loader = whole_batches(loader)
    empty = True
    for batch in loader:
        empty = False
        yield batch_to(batch, device)
    if empty:
        raise DataError("the loader yields no batch; give it at least one")


def held_out(
    loader: Iterable[Any],
    most: int,
    device: torch.device,
    conversion: Conversion | None = None,
    ranks: Ranks = ALONE,
) -> list[Any]:
    """Return batches of a validation loader with at least `most` samples, or all.

    From a DataLoader over a map-style dataset they are chunks of random samples, the same at each
    call, since the first samples may all be of one class. From other loaders they are the first
    batches. A loader that a DistributedSampler divides among `ranks` gives chunks of its whole
    dataset, the same on every rank.
    """
    if isinstance(loader, DataLoader) and _takes_samples_by_index(loader, ranks):
        size = len(loader.dataset)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(size, generator=generator, device="cpu")
        loader = DataLoader(
            loader.dataset,
            min(chunk_size(min(size, most)), loader.batch_size or 1),  # no more at once than that
            sampler=order.tolist(),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            timeout=loader.timeout,
            generator=torch.Generator(),
        )
    made = one_pass(loader, device)
    if conversion is not None:
        made = (convert(batch, conversion) for batch in made)
    return at_least(made, most)


def _takes_samples_by_index(loader: DataLoader[Any], ranks: Ranks) -> bool:
    """Tell whether a loader takes samples by index, with torch's own samplers."""
    sampler = loader.sampler
    divided = (
        ranks.several
        and isinstance(sampler, DistributedSampler)
        and sampler.num_replicas == ranks.world_size
    )
    return (
        type(loader) is DataLoader  # another class may change the batches
        and type(loader.batch_sampler) is BatchSampler
        and (divided or isinstance(sampler, RandomSampler | SequentialSampler))
        and isinstance(loader.dataset, Sized)
        and len(loader.dataset) > 0
    )


def chunk_size(samples: int) -> int:
    """Return the number of samples in a chunk."""
    return min(CHUNK, ceil(samples / LEAST_CHUNKS))


def at_least(stream: Iterable[Any], most: int) -> list[Any]:
    """Return the first batches that have `most` samples together, or all."""
    batches, samples = [], 0
    for batch in stream:
        batches.append(batch)
        samples += samples_in(batch)
        if samples >= most:
            break
    return batches


def batch_to(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on `device`.

    Tuples, named tuples, lists and mappings are searched for tensors; other objects are moved by
    their method `to`, if they have one. Copies to a CUDA device do not block.
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


def generators(*loaders: Any) -> list[torch.Generator]:
    """Return the torch generators that loaders, their samplers and their datasets draw from.

    They are looked for in the attributes of a loader, a few objects deep: a loader may be wrapped.
    """
    seen: dict[int, Any] = {}  # holds each object, so that no other one takes its id
    waiting = [(loader, 0) for loader in loaders]
    for value, depth in waiting:
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if depth < DEPTH and not isinstance(value, Tensor | nn.Module | type | ModuleType):
            attributes = getattr(value, "__dict__", {}).values()
            waiting += [(attribute, depth + 1) for attribute in attributes]
    return [value for value in seen.values() if isinstance(value, torch.Generator)]


def _shuffled(
    part: Resident,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    skip: int,
    ranks: Ranks,
) -> Iterator[Any]:
    inputs, targets = part.inputs, part.targets
    if batch_size >= part.size:  # a copy, since a model may change its inputs in place
        if not skip:
            own, counts = share_of(part.size, ranks.rank, ranks.world_size)
            whole = inputs[own].to(device, copy=True), targets[own].to(device, copy=True)
            yield Share(whole, part.size, counts) if ranks.several else whole
        return
    # Gathered as NHWC, a batch stays channels_last, in a quarter of the time.
    nhwc = _is_channels_last(inputs)
    if nhwc:
        inputs = inputs.permute(0, 2, 3, 1)
    order = torch.randperm(part.size, generator=generator, device="cpu").to(inputs.device)
    for start in range(skip * batch_size, part.size, batch_size):
        rows = order[start : start + batch_size]
        size, counts = len(rows), True
        if ranks.several:
            own, counts = share_of(size, ranks.rank, ranks.world_size)
            rows = rows[own]
        of_rows = inputs.index_select(0, rows)
        if nhwc:
            of_rows = of_rows.permute(0, 3, 1, 2)
        batch = of_rows.to(device), targets.index_select(0, rows).to(device)
        yield Share(batch, size, counts) if ranks.several else batch


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
    ranks: Ranks = ALONE,
) -> DataLoader[Any]:
    dataset, of_rank = part.dataset, ranks.several and part.iterable
    if part.shared and isinstance(dataset, IterableDataset):
        dataset = Shared(dataset, batch_size)
    if of_rank and isinstance(dataset, IterableDataset):
        dataset = OfRank(dataset, batch_size, ranks.rank, ranks.world_size)
    together: Any = collated if of_rank else collate
    loader: DataLoader[Any] = DataLoader(
        dataset,
        None if of_rank else batch_size,
        shuffle=shuffle and not part.iterable,
        num_workers=part.workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=begin,
        timeout=part.timeout if part.workers else 0,
        collate_fn=together,
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
        worker_init_fn=begin,
        timeout=loader.timeout,
        collate_fn=collate,
        generator=generator,
    )


class _Later(Sampler[list[int]]):
    """A batch sampler without its first batches; random numbers are drawn as with them."""

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
