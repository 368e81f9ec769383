"""The weights that `model.checkpoint` names: found, read once, and what was taken of them."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrtool.data import encoding as encodings
from lrtool.data.encoding_changes import changes
from lrtool.data.input_files import find_file
from lrtool.engine.checkpoint import LOSS, WEIGHTS
from lrtool.engine.freeze import by_prefix
from lrtool.engine.pretrained import KEY, Pretrained, WeightsFit, read_pretrained, renamed, size
from lrtool.errors import ConfigError, LrtoolWarning, Problem, UserError
from lrtool.report.records import CheckpointFacts
from lrtool.report.run_directory import ENCODING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.data.encoding import Encoding
    from lrtool.ranks import Ranks

_MOST = 3  # meanings that are named


def find_pretrained(path: str, directories: Sequence[Path]) -> Path:
    """Return the file or directory that exists at a path.

    Args:
        path: absolute, or relative to one of `directories`; `~` is the home directory.
        directories: searched in this order.

    Raises:
        ConfigError: there is none.
    """
    given = Path(os.path.expanduser(path))  # noqa: PTH111  (as in `find_file`)
    for place in directories:
        if (place / given).is_dir():
            return place / given
    try:
        return find_file(path, directories)
    except UserError as error:
        raise ConfigError(Problem(KEY, str(error))) from error


def open_pretrained(
    checkpoint: str | None, directories: Sequence[Path], ranks: Ranks
) -> Pretrained | None:
    """Read pretrained weights; None without any.

    Args:
        checkpoint: `model.checkpoint`.
        directories: where it is looked for.
        ranks: all of them call this.

    Raises:
        ConfigError: they are not there, cannot be read, or differ between ranks.
        OutOfMemoryError: they do not fit in memory.
    """
    if checkpoint is None:
        return None
    path = find_pretrained(checkpoint, directories)
    try:
        pretrained = read_pretrained(path)
    except UserError as error:
        raise ConfigError(Problem(KEY, str(error))) from error
    digests = ranks.gather(pretrained.digest)
    other = next((rank for rank, each in enumerate(digests) if each != digests[0]), None)
    if other is not None:
        words = (
            f"rank {other} has read other weights from {path} than rank 0; give every machine the "
            "same file"
        )
        raise ConfigError(Problem(KEY, words))
    return pretrained


def warn_of_other_meanings(pretrained: Pretrained | None, encoding: Encoding) -> None:
    """Warn where a run's weights have learned other meanings of their inputs and outputs.

    Args:
        pretrained: weights that a training starts from; None without any.
        encoding: what it has learned of its data.

    Warns:
        LrtoolWarning: classes, words or characters stand in other places, or scales differ.
    """
    run = None if pretrained is None else _run_of(pretrained.named)
    if run is None:
        return
    known = None
    with suppress(UserError):  # of another program, or damaged: nothing is known then
        known = encodings.read(run)
    if known is not None and (found := changes(known, encoding)):
        more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
        warnings.warn(
            f"model.checkpoint: numbers mean something else here than in the training of "
            f"{run}: {'; '.join(found[:_MOST])}{more}",
            LrtoolWarning,
            stacklevel=2,
        )


def _run_of(path: Path) -> Path | None:
    """Return the run that a path is, or lies in as its weights do; None if there is none."""
    places = (path, *path.parents[:3])  # RUN/checkpoints/best/model.safetensors
    return next((place for place in places if (place / ENCODING).is_file()), None)


def facts_of(pretrained: Pretrained, fit: WeightsFit, names: Sequence[str]) -> CheckpointFacts:
    """Return what a report says about pretrained weights.

    Args:
        pretrained: that were read.
        fit: what a model has taken of them.
        names: of all parameters and buffers of the model.
    """
    reshaped = fit.reshaped or {}
    fresh = {group: f"{group}, which the file lacks" for group in by_prefix(fit.missing, names)}
    fresh |= {
        name: f"{name}, which is {size(own)} here and {size(given)} in the file"
        for name, (given, own) in reshaped.items()
    }
    known = [renamed(name, fit.removed, fit.added) for name in pretrained.tensors]
    return CheckpointFacts(
        path=str(pretrained.path.resolve()),
        hash=pretrained.digest,
        loaded=len(fit.loaded),
        fresh=tuple(fresh),
        unused=tuple(by_prefix(fit.unexpected, known)),
        notes=tuple(_notes(pretrained, fit, list(fresh.values()), known)),
    )


def _notes(
    pretrained: Pretrained, fit: WeightsFit, fresh: Sequence[str], known: Sequence[str]
) -> list[str]:
    """Say what was understood, left out and changed, a sentence each."""
    notes = []
    if pretrained.taken_from:
        notes.append(f"the weights are those under {'.'.join(pretrained.taken_from)} in the file")
    if fit.removed:
        shared = all(name.startswith(fit.removed) for name in pretrained.tensors)
        whose = "all its" if shared else "some"
        notes.append(f"{whose} names begin with {fit.removed}, which is left out")
    if fit.added:
        notes.append(f"its names are those of the model's {fit.added.rstrip('.')}")
    notes += [f"left at fresh values: {words}" for words in fresh]
    if pretrained.path.name == WEIGHTS and (pretrained.path.parent / LOSS).is_file():
        notes.append(f"not used: the trained weights of its loss, {LOSS}")
    for group, names in by_prefix(fit.unexpected, known).items():
        count = f" ({len(names)} keys)" if len(names) > 1 else ""
        notes.append(f"not used: {group}{count}, which the model lacks")
    rounded = fit.rounded or {}
    types: dict[Any, list[str]] = {}
    for name, pair in rounded.items():
        types.setdefault(pair, []).append(name)
    for (given, own), names in types.items():
        more = f" and {len(names) - 1} others are" if len(names) > 1 else " is"
        was, now = (str(each).removeprefix("torch.") for each in (given, own))
        notes.append(f"{names[0]}{more} rounded from {was} to {now}, the model's type")
    return notes
