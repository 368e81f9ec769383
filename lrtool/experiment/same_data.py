"""Whether all ranks have read the same data, of which each then computes its share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrtool.batch import targets_of
from lrtool.components import import_path
from lrtool.data import facts
from lrtool.data.batches import generators
from lrtool.data.conversion import collate
from lrtool.data.part import OwnLoader, Resident, Streamed, length
from lrtool.data.rank_shares import takes_index_lists
from lrtool.engine.randomness import seed_everything
from lrtool.errors import ConfigError, LrtoolError, Problem, RankFailedError

if TYPE_CHECKING:
    from lrtool.data.load import Loaded
    from lrtool.data.part import Part
    from lrtool.ranks import Ranks

LISTS = 3  # of indices, that are compared
DEPTH = 4  # of objects in a batch


@dataclass(frozen=True, slots=True)
class _Samples:
    """The first samples of a part, as digests.

    Attributes:
        order: of the first lists of indices, where a loader takes such.
        targets: of the samples.
        all: of inputs and targets.
    """

    order: str
    targets: str
    all: str


def refuse_different_data(data: Loaded, source: str, seed: int, ranks: Ranks) -> None:
    """Refuse data of which the ranks have not all read the same.

    What a dataset draws without a seed, such as for augmentation, may differ.

    Args:
        data: as they were read.
        source: their name.
        seed: of what is drawn while samples are read.
        ranks: that share them.

    Raises:
        ConfigError: the ranks have other samples, take them in another order, or cannot read them.
    """
    if not ranks.several:
        return
    train = data.encoding.split.train_digest
    for part, digest, name in (
        (data.train, train, "training"),
        (data.validation, data.digest, "validation"),
    ):
        try:
            problem = _difference(part, digest, seed, ranks)
        except (LrtoolError, RankFailedError, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            failed = f"{source} failed: {import_path.words(error)}"
            raise ConfigError(Problem(("data", "source"), failed)) from error
        if problem is not None:
            raise ConfigError(Problem(("data", "source"), _words(problem, name, source)))


def _words(problem: str, name: str, source: str) -> str:
    words = f"the ranks have different {name} data: {problem}. "
    if not import_path.is_import_path(source):
        return words + "Give every machine the same files"
    return words + (
        f"{source} must return the same on every rank, without a DistributedSampler, "
        "split_dataset_by_node or a look at RANK: lrtool divides each batch among the ranks"
    )


def _difference(part: Part | None, digest: str | None, seed: int, ranks: Ranks) -> str | None:
    """Return in words how a part differs between ranks; None if it does not."""
    for fact in (_kind(part), _size(part)):
        found = ranks.gather(fact)
        for rank, other in enumerate(found):
            if other != found[0]:
                return f"rank 0 has {found[0]}, rank {rank} {other}"
    if part is None:
        return None
    if isinstance(part, Resident):
        own = digest or digest_of((part.inputs, part.targets))
        return None if len(set(ranks.gather(own))) == 1 else "their samples differ"
    return _difference_of_samples(part, seed, ranks)


def _difference_of_samples(part: Streamed | OwnLoader, seed: int, ranks: Ranks) -> str | None:
    first = _first_samples(part, seed)
    every = ranks.gather(first)
    if len({samples.order for samples in every}) > 1:
        return "they take the samples in different orders"
    if len({samples.all for samples in every}) == 1:
        return None
    unseeded = ranks.any(flag=_first_samples(part, seed) != first)
    ordered = takes_index_lists(part.loader) if isinstance(part, OwnLoader) else not part.iterable
    if unseeded and (ordered or len({samples.targets for samples in every}) == 1):
        return None
    if unseeded and isinstance(part, OwnLoader):
        return None  # its batches are not divided: all ranks compute those of one
    return "their first samples differ"


def _kind(part: Part | None) -> str:
    if part is None:
        return "none"
    if isinstance(part, Resident):
        return "tensors"
    of = part.loader if isinstance(part, OwnLoader) else part.dataset
    return f"a {type(of).__name__}"


def _size(part: Part | None) -> str:
    if part is None or isinstance(part, Resident):
        return "none" if part is None else f"{part.size} samples"
    count = length(part, 1) if isinstance(part, OwnLoader) else None
    return f"{part.size} samples" if count is None else f"{part.size} samples in {count} batches"


def _first_samples(part: Streamed | OwnLoader, seed: int) -> _Samples:
    """Read some samples with the same random numbers each time."""
    seed_everything(seed)
    order = ""
    if isinstance(part, OwnLoader) and takes_index_lists(part.loader):
        states = [(each, each.get_state()) for each in generators(part.loader)]
        lists: Any = part.loader.batch_sampler
        order = digest_of([list(each) for each in islice(lists, LISTS)])
        for generator, state in states:
            generator.set_state(state)
    if isinstance(part, Streamed) and not part.iterable:
        dataset: Any = part.dataset
        count = len(dataset)
        samples = [dataset[index] for index in dict.fromkeys((0, count // 2, count - 1))]
        batches = [collate([sample]) for sample in samples]
    else:
        batches = [facts.first_batch(part, "the data")]
    return _Samples(order, digest_of(list(map(targets_of, batches))), digest_of(batches))


def digest_of(value: Any) -> str:
    """Return SHA-256 of tensors, numbers and texts in a batch."""
    digest = hashlib.sha256()
    _add(digest, value, DEPTH)
    return digest.hexdigest()


def _add(digest: Any, value: Any, depth: int) -> None:
    """Add a value to a digest; of objects whose content is not known, the type alone."""
    digest.update(f"{type(value).__name__}\n".encode())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        if value.layout == torch.strided and not value.is_quantized:
            plain = value.detach().cpu().reshape(-1).contiguous()
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}\n".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _add(digest, key, depth)
            _add(digest, item, depth)
    elif isinstance(value, list | tuple | np.ndarray):
        digest.update(f"{len(value)}\n".encode())
        for item in value:
            _add(digest, item, depth)
    elif isinstance(value, str | bytes | int | float | complex | np.generic | None):
        digest.update(f"{value!r}\n".encode())
    elif depth and hasattr(value, "__dict__"):
        _add(digest, vars(value), depth - 1)
