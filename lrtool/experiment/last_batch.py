"""The last batch of an epoch: it may have fewer samples than a model can take.

Batch norm cannot train on one sample. Said before the run, that costs nobody an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import BatchSampler, IterableDataset, default_collate

from lrtool.batch import Share, own, samples_in, share_of
from lrtool.components import import_path
from lrtool.data import batches
from lrtool.data.part import OwnLoader, Resident
from lrtool.engine.device import is_out_of_memory
from lrtool.errors import ConfigError, LockstepError, Problem, RankFailedError
from lrtool.experiment.experiment import (
    build,
    first_batches,
    step_of,
    steps_per_epoch,
    training_steps,
)

if TYPE_CHECKING:
    from lrtool.data.part import Part
    from lrtool.experiment.experiment import Experiment

MOST = 16  # samples that are read for this, where they cannot be taken from a whole batch


def refuse_a_failing_last_batch(experiment: Experiment) -> None:
    """Try a last batch that is smaller than the others, if a training comes to it.

    Call this after a step on a whole batch.

    Raises:
        ConfigError: the model cannot train on it.
    """
    part, size = experiment.data.train, experiment.data.batch_size
    samples, ranks = _samples(part), experiment.runtime.ranks
    if samples is None or samples % size == 0:
        return
    steps, epoch = training_steps(experiment), steps_per_epoch(experiment)
    if steps is not None and epoch is not None and steps < epoch:
        return
    rest = samples % size
    batch = _small_batch(experiment, rest)
    error = None if batch is None else _failure(experiment, batch)
    words = None if error is None else import_path.words(error)
    why = next((each for each in ranks.gather(words) if each), None)
    if why is None:
        return
    left = "one sample alone" if rest == 1 else f"{rest} samples"
    if ranks.several:
        left += f", {max(rest // ranks.world_size, 1)} for a rank,"
    problem = (
        f"{samples:,} training samples in batches of {size} leave {left} in the last batch, which "
        f"this model cannot train on ({why}); "
    )
    if isinstance(part, OwnLoader):
        problem += "give the DataLoader drop_last=True, or another batch_size"
        raise ConfigError(Problem(("data", "source"), problem)) from error
    problem += f"batches of {_better(samples, size, ranks.world_size)} do not"
    raise ConfigError(Problem(("data", "batch_size"), problem)) from error


def _samples(part: Part) -> int | None:
    """Return the samples of an epoch; None where they are not known, or not batched evenly."""
    if not isinstance(part, OwnLoader):
        return part.size
    loader = part.loader
    even = type(loader.batch_sampler) is BatchSampler and not isinstance(
        loader.dataset, IterableDataset
    )
    if not even or loader.drop_last or not isinstance(loader.sampler, Sized):
        return None
    try:
        return len(loader.sampler)
    except (TypeError, NotImplementedError):
        return None


def _better(samples: int, size: int, ranks: int) -> int:
    """Return the nearest batch size that leaves nothing, or more than one where one was left."""
    sizes = sorted(range(2, samples + 1), key=lambda each: (abs(each - size), -each))
    alone = samples % size // ranks <= 1
    fits = (n for n in sizes if samples % n == 0 or (alone and samples % n // ranks > 1))
    return next(fits, samples)


def _small_batch(experiment: Experiment, count: int) -> Any:
    """Return a batch of so many training samples, or a rank's share; None where none can be made.

    Of several ranks, all return one or none.
    """
    ranks = experiment.runtime.ranks
    if not ranks.several:
        return _of_samples(experiment, count, count)
    rows, counts = share_of(count, ranks.rank, ranks.world_size)
    share = _of_samples(experiment, rows.stop - rows.start, ceil(count / ranks.world_size))
    return None if ranks.any(flag=share is None) else Share(share, count, counts)


def _of_samples(experiment: Experiment, count: int, most: int) -> Any:
    """Return a batch of so many training samples, or None; `most` is what any rank asks for."""
    part, device = experiment.data.train, experiment.runtime.device
    if isinstance(part, Resident):
        return tuple(t[:count].to(device, copy=True) for t in (part.inputs, part.targets))
    collate = part.loader.collate_fn if isinstance(part, OwnLoader) else default_collate
    if collate is default_collate:  # it stacks samples along the first dimension
        first = own(first_batches(experiment)[0])
        rows = _rows(first, samples_in(first), count)
        if rows is not None:
            return rows
    if most > MOST:
        return None
    dataset: Any = part.loader.dataset if isinstance(part, OwnLoader) else part.dataset
    ranks, made = experiment.runtime.ranks, None
    with suppress(Exception, SystemExit):  # a dataset may have keys of its own
        made = [
            batches.batch_to(collate([dataset[index] for index in range(samples)]), device)
            for samples in (count, count + 1)
        ]
    if ranks.any(flag=made is None) or made is None:
        return None
    # Made by hand, it may fail for another reason than its size.
    more = Share(made[1], most + 1) if ranks.several else made[1]
    return None if ranks.any(flag=_failure(experiment, more) is not None) else made[0]


def _rows(value: Any, size: int, count: int) -> Any:
    """Return the first samples of a batch; None if something in it is not stacked by samples."""
    if isinstance(value, Tensor):
        return value[:count] if value.ndim and len(value) == size else None
    if isinstance(value, Mapping):
        rows = {key: _rows(item, size, count) for key, item in value.items()}
        return None if any(item is None for item in rows.values()) else rows
    if type(value) in {list, tuple}:
        items = [_rows(item, size, count) for item in value]
        return None if any(item is None for item in items) else type(value)(items)
    return None


def _failure(experiment: Experiment, batch: Any) -> Exception | SystemExit | None:
    """Return why a step of a throwaway model on this batch fails; None if it does not.

    Of several ranks, those on whose shares it fails return why.
    """
    built = build(experiment, experiment.config.seed)
    try:
        step = step_of(experiment, built, experiment.runtime.scaler(), experiment.runtime.ranks)
        step([batch], experiment.config.find.start)
    except LockstepError:
        raise
    except RankFailedError:
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's model may raise anything)
        return None if is_out_of_memory(error) else error
    return None
