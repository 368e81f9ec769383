"""Shapes, outputs and vocabulary of a factory's data, from its first batch."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from lrtool.batch import targets_of
from lrtool.data import loader_state
from lrtool.data.batches import generators
from lrtool.data.checks import MOST_CLASSES
from lrtool.data.conversion import collate, convert
from lrtool.data.encoding import ArrayInputs, ClassIndices, Values
from lrtool.data.part import OwnLoader, Resident, Streamed
from lrtool.data.worker_process import begin
from lrtool.data.workers import words
from lrtool.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.data.encoding import Inputs, Targets
    from lrtool.data.part import Part


def first_batch(part: Part, name: str) -> Any:
    """Return a batch of one sample or more, without changing random states.

    Raises:
        ConfigError: there is none, or the user's code fails; `name` is the source in the message.
    """
    if isinstance(part, Resident):
        return part.inputs[:1], part.targets[:1]
    if isinstance(part, OwnLoader):
        loader = part.loader
    else:
        loader = DataLoader(
            part.dataset,
            batch_size=1,
            # an iterable dataset may keep the share that it is told first: not in this process
            num_workers=min(part.workers, 1) if part.iterable else 0,
            worker_init_fn=begin,
            timeout=part.timeout if part.iterable and part.workers else 0,
            collate_fn=collate,
        )
    states = [(generator, generator.get_state()) for generator in generators(loader)]
    start = loader_state.start_of(part)
    try:
        with torch.random.fork_rng(devices=[]):
            return convert(next(iter(loader)), part.conversion)
    except StopIteration:
        problem = f"{name}: yields no training batch"
        raise ConfigError(Problem(("data", "source"), problem)) from None
    except (Exception, SystemExit) as error:
        problem = f"{name}: reading the first samples raised {words(error)}"
        raise ConfigError(Problem(("data", "source"), problem)) from error
    finally:
        for generator, state in states:
            generator.set_state(state)
        loader_state.put_back(part, start)


def is_pair(batch: Any) -> bool:
    """Tell whether a batch is two tensors, (inputs, targets)."""
    return (
        isinstance(batch, tuple | list)
        and len(batch) == 2
        and all(isinstance(item, Tensor) and item.ndim for item in batch)
    )


def shapes(batch: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one sample by name; empty unless a batch is a pair or a mapping."""
    items = dict(zip(("inputs", "targets"), batch, strict=True)) if is_pair(batch) else batch
    if not isinstance(items, Mapping):
        return {}
    tensors = {str(key): item for key, item in items.items() if isinstance(item, Tensor)}
    return {key: tuple(item.shape[1:]) for key, item in tensors.items()}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model must know of the data.

    Attributes:
        num_outputs: the number of classes, or of values to predict; None if unknown.
        vocabulary: the number of different tokens among the inputs; None unless they are tokens.
        unknown: why `num_outputs` is unknown; None if it is known.
    """

    num_outputs: int | None
    vocabulary: int | None = None
    unknown: str | None = None


def facts_of(train: Part, validation: Part | None, first: Any, ignored: int | None) -> Facts:
    """Return what the data tell without being read.

    Args:
        train: the training set.
        validation: the validation set, or None.
        first: a training batch.
        ignored: the label that the loss leaves out, and that is no class; None: it leaves none out.
    """
    if not is_pair(first):
        return Facts(None, unknown="its batches are not (inputs, targets)")
    inputs, targets = first
    parts = [part for part in (train, validation) if part is not None]
    vocabulary = None
    if isinstance(train, Resident) and not inputs.is_floating_point():
        in_memory = [part for part in parts if isinstance(part, Resident)]
        vocabulary = max(int(part.inputs.max()) for part in in_memory) + 1
    if not targets.is_floating_point():
        return _of_classes(parts, vocabulary, ignored)
    if targets.ndim > 2:
        return Facts(None, vocabulary, f"each target has {targets.ndim - 1} dimensions")
    return Facts(targets.shape[1] if targets.ndim == 2 else 1, vocabulary)


def _of_classes(parts: list[Part], vocabulary: int | None, ignored: int | None) -> Facts:
    named = _classes(parts[0])
    if named is not None:
        return Facts(len(named), vocabulary)
    known = [labels for part in parts if (labels := labels_of(part)) is not None]
    if labels_of(parts[0]) is None:
        why = "only reading all samples would tell the number of classes"
        return Facts(None, vocabulary, why)
    highest = max(_highest(labels, ignored) for labels in known)
    if highest >= max(MOST_CLASSES, len(known[0])):
        why = f"a target is {highest}, too large for a class; numbers to predict must be floats"
        return Facts(None, vocabulary, why)
    return Facts(highest + 1, vocabulary)


def as_they_are(
    first: Any, num_outputs: int | None, names: tuple[str, ...] = ()
) -> tuple[Inputs | None, Targets | None]:
    """Return how a factory's inputs and targets are encoded: not at all.

    Args:
        first: a training batch.
        num_outputs: of the model; None: unknown.
        names: from `class_names`.
    """
    if not is_pair(first):
        return None, None
    inputs = ArrayInputs(str(first[0].dtype).removeprefix("torch."))
    if first[1].is_floating_point():
        return inputs, Values()
    if not num_outputs or num_outputs < 0:
        return inputs, None
    return inputs, ClassIndices(num_outputs, names if len(names) == num_outputs else ())


def labels_of(part: Part) -> Tensor | None:
    """Return the integer targets of all samples where they are at hand, else None.

    They are in memory, or in a dataset's tensors, `targets` or `labels`. For a subset they are
    those of the whole dataset, since the model must know all classes.
    """
    if isinstance(part, Resident):
        return None if part.targets.is_floating_point() else part.targets
    held = (_labels_in(dataset) for dataset in _chain(part))
    return next((labels for labels in held if labels is not None), None)


def _labels_in(dataset: Any) -> Tensor | None:
    """Return the integers in a dataset's tensors, `targets` or `labels`; None without any."""
    with suppress(Exception):  # names of classes, or anything else
        if isinstance(dataset, TensorDataset):
            targets: Any = dataset.tensors[-1]
        else:
            targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
        labels = torch.as_tensor(targets)
        if labels.ndim and labels.numel() and not labels.is_floating_point():
            return labels
    return None


def labels_by_sample(part: Part) -> Tensor | None:
    """Return the integer targets of a part's samples, in their order; those of a subset alone.

    None where they are not at hand. A dataset may yield others than it holds: see `yields`.
    """
    if isinstance(part, Resident):
        return labels_of(part)
    with suppress(Exception):  # a dataset without any, or an odd subset
        return _by_sample(part.loader.dataset if isinstance(part, OwnLoader) else part.dataset)
    return None


def _by_sample(dataset: Any) -> Tensor:
    if isinstance(dataset, Subset):
        return _by_sample(dataset.dataset)[torch.as_tensor(dataset.indices)]
    labels = _labels_in(dataset)
    return _by_sample(dataset.dataset) if labels is None else labels


def yields(part: Part, labels: Tensor) -> bool:
    """Tell whether a few samples of a part, the one of the lowest label among them, have these.

    A dataset may turn the labels −1 and 1 that it holds into 0 and 1.
    """
    if isinstance(part, Resident):
        return True
    dataset: Any = part.loader.dataset if isinstance(part, OwnLoader) else part.dataset
    together = part.loader.collate_fn if isinstance(part, OwnLoader) else collate
    lowest = int(labels.reshape(len(labels), -1).amin(1).argmin())
    with suppress(Exception):  # whatever the user's code raises: the first batch will tell
        for row in {0, lowest, len(labels) - 1}:
            found = targets_of(convert(together([dataset[row]]), part.conversion))
            if found.tolist() != labels[row : row + 1].tolist():
                return False
        return True
    return False


def class_names(part: Part) -> tuple[str, ...]:
    """Return how a dataset names its classes, as torchvision's do; () where it does not."""
    named = _classes(part)
    if not isinstance(named, list | tuple) or not all(isinstance(n, str | int) for n in named):
        return ()
    return tuple(map(str, named))


def _classes(part: Part) -> Sized | None:
    """Return a dataset's classes."""
    if isinstance(part, Resident):
        return None
    named = (getattr(dataset, "classes", None) for dataset in _chain(part))
    return next((names for names in named if isinstance(names, Sized)), None)


def _chain(part: Streamed | OwnLoader) -> Iterator[Any]:
    """Yield a dataset, and those that it wraps."""
    dataset: Any = part.loader.dataset if isinstance(part, OwnLoader) else part.dataset
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def _highest(labels: Tensor, ignored: int | None) -> int:
    counted = labels if ignored is None else labels[labels != ignored]
    return int(counted.max()) if counted.numel() else 0
