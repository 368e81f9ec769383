"""From the configuration's data section to samples that are ready for batches."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lrtool.data import facts
from lrtool.data.factory import call_factory, to_resident
from lrtool.data.part import OwnLoader, Resident, samples_in
from lrtool.data.sources import SOURCES
from lrtool.data.split import Split
from lrtool.errors import ConfigError, DataError, LrtoolWarning, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lrtool.config.schema import DataConfig
    from lrtool.data.part import Part


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The parts of the data and what is known of them.

    Attributes:
        train: what the model learns from.
        validation: what it is judged on, or None.
        batch_size: samples in a training batch.
        input_shape: of one sample's inputs; None where a batch is no (inputs, targets).
        num_outputs: the number of classes, of regression targets, or of tokens to predict; None
            where only reading all of the data could tell.
        vocabulary: how many different tokens the inputs hold; None for inputs that are no tokens.
        samples: the number of samples in "train" and "validation", None where unknown.
        shapes: of one sample, by name: "inputs" and "targets", or a mapping's own keys.
        digest: SHA-256 over the samples in memory, in hexadecimal; None if some are not.
    """

    train: Part
    validation: Part | None
    batch_size: int
    input_shape: tuple[int, ...] | None
    num_outputs: int | None
    vocabulary: int | None
    samples: dict[str, int | None]
    shapes: dict[str, tuple[int, ...]]
    digest: str | None


def load(
    spec: DataConfig,
    *,
    seed: int,
    factory: Callable[..., Any] | None,
    directories: Sequence[Path],
) -> Loaded:
    """Read the data that a configuration names.

    Args:
        spec: the configuration's data section.
        seed: of the split, and of what a synthetic source draws.
        factory: what `spec.source` names when it is an import path; None for a built-in source.
        directories: where relative paths are looked for, in this order.

    Raises:
        DataError: a file cannot be read or cannot be trained on.
        ConfigError: a key of the section does not fit, or what its factory returns.

    Warns:
        LrtoolWarning: a setting is ignored.
    """
    split = Split(spec.validation, seed, tuple(directories))
    train: Part
    validation: Part | None
    if factory is None:
        parts = SOURCES[spec.source](split, **spec.args)
        train = to_resident(parts.train.inputs, parts.train.targets, f"{spec.source}: train")
        validation = None
        if (held_out := parts.validation) is not None:
            name = f"{spec.source}: validation"
            validation = to_resident(held_out.inputs, held_out.targets, name)
        num_outputs: int | None = parts.num_outputs
        vocabulary = parts.vocabulary
        first = facts.first_batch(train, spec.source)
    else:
        train, validation = call_factory(factory, spec, split)
        first = facts.first_batch(train, spec.source)
        num_outputs, vocabulary = facts.outputs_and_vocabulary(train, validation, first)
    _warn_of_ignored(spec, train)
    pair = facts.is_pair(first)
    return Loaded(
        train=train,
        validation=validation,
        batch_size=_batch_size(spec, train, first),
        input_shape=tuple(first[0].shape[1:]) if pair else None,
        num_outputs=num_outputs,
        vocabulary=vocabulary,
        samples={
            "train": train.size,
            "validation": validation.size if validation is not None else 0,
        },
        shapes=facts.shapes(first),
        digest=_digest(train, validation),
    )


def as_binary(loaded: Loaded) -> Loaded:
    """Turn two classes into one output: targets 0.0 or 1.0, (N, 1), for binary losses.

    Targets that are floats already stay as they are.

    Raises:
        DataError: there are not exactly two classes, or the targets are not in memory.
    """
    first = facts.first_batch(loaded.train, "the training data")
    if not facts.is_pair(first) or first[1].is_floating_point():
        return loaded
    parts = [part for part in (loaded.train, loaded.validation) if part is not None]
    if not all(isinstance(part, Resident) for part in parts):
        raise DataError(
            "a binary loss needs targets that are floats of shape (N, 1), but the training data"
            f" have {first[1].dtype}; let the dataset return such floats"
        )
    shape = loaded.shapes["targets"]
    if loaded.num_outputs != 2 or shape != ():
        found = f"{loaded.num_outputs} classes" if shape == () else f"targets of shape {shape}"
        raise DataError(
            f"a binary loss needs exactly 2 classes, but the data have {found}; use cross_entropy"
        )

    train, validation = (_binary(part) for part in (loaded.train, loaded.validation))
    assert train is not None, "a part that is there stays there"
    return replace(
        loaded,
        train=train,
        validation=validation,
        num_outputs=1,
        shapes={**loaded.shapes, "targets": (1,)},
    )


def _binary(part: Part | None) -> Resident | None:
    if not isinstance(part, Resident):
        return None
    return Resident(part.inputs, part.targets[:, None].to(torch.get_default_dtype()))


def to_device(loaded: Loaded, device: torch.device, memory_format: torch.memory_format) -> Loaded:
    """Move what is in memory to the device, once.

    Args:
        loaded: the data.
        device: where to.
        memory_format: of inputs (N, C, H, W); others are contiguous.
    """

    def move(part: Part | None) -> Part | None:
        if not isinstance(part, Resident):
            return part
        inputs = part.inputs.to(device)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=memory_format)
        return Resident(inputs, part.targets.to(device))

    train = move(loaded.train)
    assert train is not None, "a part that is there stays there"
    return replace(loaded, train=train, validation=move(loaded.validation))


def _batch_size(spec: DataConfig, train: Part, first: Any) -> int:
    """Return the number of samples in a training batch."""
    if isinstance(train, OwnLoader):
        own = train.loader.batch_size
        return own if own is not None else samples_in(first)
    if train.size is None:
        if isinstance(spec.batch_size, str):
            problem = f"full needs to know how many samples {spec.source} has; give a number"
            raise ConfigError(Problem(("data", "batch_size"), problem))
        return spec.batch_size
    if isinstance(spec.batch_size, str):
        return train.size
    if spec.batch_size > train.size:
        problem = (
            f"{spec.batch_size} is more than the {train.size} training samples of {spec.source};"
            " give a smaller number, or full"
        )
        raise ConfigError(Problem(("data", "batch_size"), problem))
    return spec.batch_size


def _warn_of_ignored(spec: DataConfig, train: Part) -> None:
    ignored = []
    if isinstance(train, OwnLoader) and "batch_size" in spec.model_fields_set:
        ignored.append(f"data.batch_size is ignored: {spec.source} returns a DataLoader of its own")
    if spec.workers and isinstance(train, OwnLoader):
        ignored.append(f"data.workers is ignored: {spec.source} returns a DataLoader of its own")
    if spec.workers and isinstance(train, Resident):
        ignored.append(f"data.workers is ignored: the samples of {spec.source} are in memory")
    for message in ignored:
        warnings.warn(message, LrtoolWarning, stacklevel=3)


def _digest(train: Part, validation: Part | None) -> str | None:
    digest = hashlib.sha256()
    for part in (train, validation):
        if part is None:
            continue
        if not isinstance(part, Resident):
            return None
        for tensor in (part.inputs, part.targets):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
