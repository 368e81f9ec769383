"""Reads the data of a configuration."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lrtool.batch import samples_in, target_key
from lrtool.data import facts
from lrtool.data.conversion import Conversion, convert
from lrtool.data.encoding import ClassIndices, Encoding, StoredSplit, Values, class_names
from lrtool.data.factory import call_factory, to_resident
from lrtool.data.part import OwnLoader, Resident
from lrtool.data.sources import SOURCES
from lrtool.data.split import Split
from lrtool.data.workers import words
from lrtool.errors import ConfigError, DataError, LrtoolError, LrtoolWarning, Problem, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from lrtool.config.schema import DataConfig
    from lrtool.data.encoding import Inputs, Targets
    from lrtool.data.part import Part
    from lrtool.report.records import ColumnFacts


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The data, and what is known of them.

    Attributes:
        train: the training set.
        validation: the validation set, or None.
        batch_size: samples in a training batch.
        unknown: why the number of outputs is unknown; None if it is known.
        shapes: of one sample, by name: "inputs" and "targets", or a mapping's own keys.
        encoding: how they were made, and what a model must know of them.
        columns: how each column of a table was read; empty for other data.
    """

    train: Part
    validation: Part | None
    batch_size: int
    unknown: str | None
    shapes: dict[str, tuple[int, ...]]
    encoding: Encoding
    columns: tuple[ColumnFacts, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Of one sample's inputs; None unless batches are (inputs, targets)."""
        return self.encoding.input_shape

    @property
    def num_outputs(self) -> int | None:
        """The number of classes, of regression targets, or of tokens to predict.

        None if unknown without reading all data.
        """
        return self.encoding.num_outputs

    @property
    def vocabulary(self) -> int | None:
        """The number of different tokens among the inputs; None unless they are tokens."""
        return self.encoding.vocabulary

    @property
    def samples(self) -> dict[str, int | None]:
        """The number of samples in "train" and "validation", None where unknown."""
        return self.encoding.split.samples

    @property
    def taken(self) -> dict[str, int]:
        """The number of samples that an epoch, and an evaluation, take of both, where known."""
        counts = dict(self.samples)
        for name, part in (("train", self.train), ("validation", self.validation)):
            if isinstance(part, OwnLoader):
                counts[name] = part.taken
        return {name: count for name, count in counts.items() if count is not None}

    @property
    def digest(self) -> str | None:
        """SHA-256 of all samples, in hexadecimal; None unless all are in memory."""
        return self.encoding.split.digest


def load(
    spec: DataConfig,
    *,
    seed: int,
    factory: Callable[..., Any] | None,
    directories: Sequence[Path],
    ignored: int | None = None,
    encoding: Encoding | None = None,
    binary: bool = False,
    values: bool = False,
    unscaled: bool = False,
) -> Loaded:
    """Read the data of a configuration.

    Args:
        spec: the configuration's data section.
        seed: of the split, and of the source `synthetic`.
        factory: what the import path `spec.source` leads to; None for a built-in source.
        directories: where relative paths are looked for, in this order.
        ignored: the label that the loss leaves out; None: it leaves none out.
        encoding: what a run has learned, to read the data with; None: it is learned from them.
        binary: the loss takes targets 0.0 and 1.0; datasets and loaders may give integers.
        values: the loss takes numbers to predict, so that a table's are no classes.
        unscaled: the loss takes counts, probabilities or signs, so that a source's targets are not
            standardised.

    Raises:
        DataError: a file cannot be read, its data cannot be used, or they do not fit `encoding`.
        ConfigError: a key of the section does not fit the data, or the factory returned something
            that cannot be used.

    Warns:
        LrtoolWarning: a setting is ignored.
    """
    split = Split(spec.validation, seed, tuple(directories), encoding, values, unscaled)
    train: Part
    validation: Part | None
    columns: tuple[ColumnFacts, ...] = ()
    is_split = True
    if factory is None:
        parts = SOURCES[spec.source](split, **spec.args)
        train = to_resident(parts.train.inputs, parts.train.targets, f"{spec.source}: train")
        validation = None
        if (held_out := parts.validation) is not None:
            name = f"{spec.source}: validation"
            validation = to_resident(held_out.inputs, held_out.targets, name)
        columns = parts.columns
        learned: tuple[Inputs | None, Targets | None] = parts.learned
        first = facts.first_batch(train, spec.source)
        known = facts.Facts(parts.num_outputs, parts.vocabulary)
        if ignored is not None and ignored == parts.num_outputs - 1:
            known = facts.facts_of(train, validation, first, ignored)
            if isinstance(learned[1], ClassIndices):  # names stay
                learned = learned[0], facts.as_they_are(first, known.num_outputs)[1]
    else:
        with _of_the_user(spec.source):
            train, validation, is_split = call_factory(factory, spec, split)
            if binary:
                train = _with_conversion(train, Conversion(binary=True))
                validation = validation and _with_conversion(validation, Conversion(binary=True))
            first = facts.first_batch(train, spec.source)
            known = facts.facts_of(train, validation, first, ignored)
            names = facts.class_names(train)
            if validation is not None:
                _refuse_other_names(names, facts.class_names(validation), spec.source)
            learned = facts.as_they_are(first, known.num_outputs, names)
    _warn_of_ignored(spec, train)
    train_digest, digest = _digests(train, validation)
    found = Encoding(
        source=spec.source,
        inputs=learned[0],
        targets=learned[1],
        input_shape=tuple(first[0].shape[1:]) if facts.is_pair(first) else None,
        num_outputs=known.num_outputs,
        vocabulary=known.vocabulary,
        split=StoredSplit(
            validation=spec.validation if is_split else None,
            seed=seed,
            samples={
                "train": train.size,
                "validation": validation.size if validation is not None else 0,
            },
            train_digest=train_digest,
            digest=digest,
        ),
    )
    if encoding is not None:
        origin = spec.args.get("path", spec.source)
        try:
            found = _as_trained(found, encoding, [train, validation], ignored)
        except DataError as error:
            raise DataError(f"{origin}: {error}") from None
    return Loaded(
        train=train,
        validation=validation,
        batch_size=_batch_size(spec, train, first, learning=encoding is None),
        unknown=known.unknown,
        shapes=facts.shapes(first),
        encoding=found,
        columns=columns,
    )


@contextmanager
def _of_the_user(source: str) -> Iterator[None]:
    """Name the source of data that raise an error when they are looked at, such as by a length."""
    try:
        yield
    except (LrtoolError, LrtoolWarning, MemoryError, AssertionError, NameError):
        raise
    except Exception as error:
        if "can't allocate memory" in said(error):
            raise
        problem = f"{source}: what it returned cannot be used: {words(error)}"
        raise ConfigError(Problem(("data", "source"), problem)) from error


def _as_trained(
    found: Encoding, known: Encoding, parts: Sequence[Part | None], ignored: int | None
) -> Encoding:
    """Return what a run has learned, with the split of other data.

    Raises:
        DataError: the run's model cannot read these data.
    """
    # Datasets and loaders may give any length, and so may tokens.
    same_shape = isinstance(parts[0], Resident) and known.vocabulary is None
    if same_shape and found.input_shape != known.input_shape:
        raise _misfit(f"have inputs of shape {found.input_shape}", f"{known.input_shape}")
    if found.targets is not None and type(found.targets) is not type(known.targets):
        raise _misfit(f"have {_kind(found.targets)} as targets", _kind(known.targets))
    names, others = class_names(known.targets), class_names(found.targets)
    if names and (other := _other_name(names, others)) is not None:
        place, a, b = other
        raise _misfit(f"have {b!r} as class {place}", f"{a!r} there")
    if names and len(others) > len(names):
        raise _misfit(f"have a class {others[len(names)]!r}", f"{', '.join(names)} alone")
    if isinstance(known.targets, Values) and found.num_outputs != known.num_outputs:
        raise _misfit(f"have {found.num_outputs} targets for a sample", f"{known.num_outputs}")
    for part in parts:
        if isinstance(part, Resident):
            counted = part.targets if ignored is None else part.targets[part.targets != ignored]
            _check_below(known.vocabulary, part.inputs, "the token")
            _check_below(known.classes, counted, "the class")
    # A binary loss has made one output of two classes; that comes later.
    binary = known.num_outputs == 1 and known.classes == 2
    return replace(known, num_outputs=2 if binary else known.num_outputs, split=found.split)


def _refuse_other_names(names: Sequence[str], others: Sequence[str], source: str) -> None:
    """Refuse a validation set whose classes have other numbers than those of the training set."""
    other = _other_name(names, others)
    if other is not None:
        place, a, b = other
        problem = (
            f"{source}: class {place} is {a!r} in the training set, and {b!r} in the validation "
            "set; number the classes of both alike"
        )
        raise ConfigError(Problem(("data", "source"), problem))


def _other_name(names: Sequence[str], others: Sequence[str]) -> tuple[int, str, str] | None:
    """Return the first class of another name, with both names; None where they agree."""
    known = enumerate(zip(names, others, strict=False))
    return next(((place, a, b) for place, (a, b) in known if a != b), None)


def _check_below(count: int | None, values: Tensor, what: str) -> None:
    if count is not None and values.numel() and (highest := int(values.max())) >= count:
        raise _misfit(f"hold {what} {highest}", f"0 to {count - 1}")


def _kind(targets: Targets | None) -> str:
    return "numbers" if isinstance(targets, Values) else "classes"


def _misfit(found: str, known: str) -> DataError:
    return DataError(f"the data {found}, but the run was trained on {known}")


def as_binary(loaded: Loaded) -> Loaded:
    """Turn integer targets into 0.0 and 1.0 for a binary loss: two classes (N, 1), labels (N, k).

    Two classes may be (N,) or (N, 1). Float targets stay as they are.

    Raises:
        DataError: there are not exactly two classes, or the samples are not in memory.
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
    if len(shape) == 1 and shape[0] > 1 and all(_zeros_and_ones(part) for part in parts):
        encoding = replace(loaded.encoding, num_outputs=shape[0])
        return replace(_with_resident(loaded, _floats), encoding=encoding)
    one_each = shape in {(), (1,)}
    if loaded.num_outputs != 2 or not one_each:
        actual = f"{loaded.num_outputs} classes" if one_each else f"targets of shape {shape}"
        raise DataError(
            f"a binary loss needs exactly 2 classes, but the data have {actual}; use cross_entropy"
        )

    def binary(part: Resident) -> Resident:
        return Resident(part.inputs, part.targets.reshape(-1, 1).to(torch.get_default_dtype()))

    shapes = {**loaded.shapes, "targets": (1,)}
    encoding = replace(loaded.encoding, num_outputs=1)
    return replace(_with_resident(loaded, binary), encoding=encoding, shapes=shapes)


def _floats(part: Resident) -> Resident:
    return Resident(part.inputs, part.targets.to(torch.get_default_dtype()))


def _zeros_and_ones(part: Part) -> bool:
    return isinstance(part, Resident) and bool(((part.targets == 0) | (part.targets == 1)).all())


def converted(loaded: Loaded, to: Conversion) -> Loaded:
    """Return the data with a conversion of their batches; what is in memory is converted at once.

    Data that are binary already stay so.
    """

    def change(part: Part) -> Part:
        if isinstance(part, Resident):
            return Resident(*convert((part.inputs, part.targets), to))
        return _with_conversion(part, replace(to, binary=to.binary or part.conversion.binary))

    validation = loaded.validation and change(loaded.validation)
    shapes, name = dict(loaded.shapes), target_key(loaded.shapes)
    if name is not None and shapes[name] in {(), (1,)} and to.targets != "as given":
        shapes[name] = (1,) if to.targets == "column" else ()
    return replace(loaded, train=change(loaded.train), validation=validation, shapes=shapes)


def _with_conversion(part: Part, to: Conversion) -> Part:
    return part if isinstance(part, Resident) else replace(part, conversion=to)


def to_device(
    loaded: Loaded, device: torch.device | None, memory_format: torch.memory_format | None
) -> Loaded:
    """Move samples in memory to the device; inputs (N, C, H, W) get the memory format.

    None leaves them where, or as, they are.
    """

    def move(part: Resident) -> Resident:
        inputs = part.inputs.to(device or part.inputs.device)
        if inputs.ndim == 4 and memory_format is not None:
            inputs = inputs.contiguous(memory_format=memory_format)
        return Resident(inputs, part.targets.to(device or part.targets.device))

    return _with_resident(loaded, move)


def _with_resident(loaded: Loaded, change: Callable[[Resident], Resident]) -> Loaded:
    """Return the data with the parts that are in memory changed."""
    train, validation = loaded.train, loaded.validation
    return replace(
        loaded,
        train=change(train) if isinstance(train, Resident) else train,
        validation=change(validation) if isinstance(validation, Resident) else validation,
    )


def _batch_size(spec: DataConfig, train: Part, first: Any, *, learning: bool) -> int:
    """Return the number of samples in a batch, which only a training may ask too much of."""
    size = spec.batch_size
    if isinstance(train, OwnLoader):
        own = train.loader.batch_size
        return own if own is not None else samples_in(first)
    if isinstance(size, str):  # full
        if train.size is None:
            problem = f"full needs the number of samples of {spec.source}; give a number"
            raise ConfigError(Problem(("data", "batch_size"), problem))
        return train.size
    if train.size is not None and size > train.size:
        if not learning:
            return train.size
        problem = (
            f"{size} is more than the {train.size} training samples of {spec.source};"
            " give a smaller number, or full"
        )
        raise ConfigError(Problem(("data", "batch_size"), problem))
    return size


def _warn_of_ignored(spec: DataConfig, train: Part) -> None:
    ignored = []
    if isinstance(train, OwnLoader):
        why = f"{spec.source} returns a DataLoader of its own"
        if "batch_size" in spec.model_fields_set:
            ignored.append(f"data.batch_size is ignored: {why}")
        if spec.workers:
            ignored.append(f"data.workers is ignored: {why}")
    elif spec.workers and isinstance(train, Resident):
        ignored.append(f"data.workers is ignored: the samples of {spec.source} are in memory")
    for message in ignored:
        warnings.warn(message, LrtoolWarning, stacklevel=3)


def _digests(train: Part, validation: Part | None) -> tuple[str | None, str | None]:
    """Return SHA-256 of the training samples and of all, None where they are not in memory."""
    digest = hashlib.sha256()
    digests: list[str] = []
    for part in (train, validation):
        if part is not None and not isinstance(part, Resident):
            return digests[0] if digests else None, None
        if part is None:
            digests.append(digests[0])
            continue
        for tensor in (part.inputs, part.targets):
            values = tensor.cpu()
            if values.is_floating_point():
                values = values.to(torch.get_default_dtype())
            digest.update(f"{values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.flatten().contiguous().view(torch.uint8).numpy().data)
        digests.append(digest.hexdigest())
    return digests[0], digests[1]
