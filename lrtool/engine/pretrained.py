"""Pretrained weights: read from a file or a run, and loaded into a new model."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Size, Tensor, nn

from lrtool.engine.checkpoint import (
    BEST,
    WEIGHTS,
    average_of,
    foreign,
    newest_checkpoint,
    read_extra,
    weights_of,
)
from lrtool.engine.device import is_out_of_memory
from lrtool.engine.weights import read_weights
from lrtool.errors import ConfigError, Problem, UserError
from lrtool.report.files import in_a_line, reading
from lrtool.report.run_directory import CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEY = ("model", "checkpoint")
WRAPPERS = ("state_dict", "model_state_dict", "model")
INDEX = ".index.json"  # of weights in several files, as on the Hugging Face Hub
MOST_NAMED = 4
_ADAPTED = {"base_layer", "original_module"}  # in names of PEFT, of what an adapter stands beside


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a file holds.

    Attributes:
        named: the file or directory that was asked for.
        path: of the file in it, of the index of several files, or of a checkpoint.
        tensors: by name, on the CPU; `_extra_state` may be anything.
        digest: SHA-256 of names and values, in hexadecimal: the same in every format.
        taken_from: the keys of the mappings around them, outermost first.
        stamps: of its files, whose bytes are read when they are needed.
    """

    named: Path
    path: Path
    tensors: Mapping[str, Any]
    digest: str
    taken_from: tuple[str, ...] = ()
    stamps: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightsFit:
    """What a model has taken of pretrained weights.

    Attributes:
        loaded: names of the model's parameters and buffers that have their values now.
        missing: those that the file lacks; they keep their fresh values.
        reshaped: those of another shape, the file's and the model's; they keep theirs too.
        unexpected: names in the file that the model lacks.
        removed: what names in the file began with, and was left out.
        added: what the model's names begin with, and was put in front of these.
        rounded: names of tensors whose values the model's type cannot hold, with both types.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    reshaped: Mapping[str, tuple[Size, Size]] | None = None
    unexpected: tuple[str, ...] = ()
    removed: str = ""
    added: str = ""
    rounded: Mapping[str, tuple[torch.dtype, torch.dtype]] | None = None


def read_pretrained(path: Path) -> Pretrained:
    """Read a safetensors file, a state dict that torch.save wrote, or a directory with weights.

    An index of several such files is read with all of them. Of a run these are the best weights,
    else the last ones, with their moving average.

    Raises:
        UserError: there are none, or they cannot be read.
        OutOfMemoryError: they do not fit in memory.
    """
    named, taken_from = path, tuple[str, ...]()
    if path.is_dir():
        path, tensors = _of_directory(path)
    else:
        tensors, taken_from = _of_file(path)
    with reading(path, "a file of weights"):
        stamps = {file: _stamp(file) for file in _files(path)}
        return Pretrained(named, path, tensors, _digest(tensors), taken_from, stamps)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what tells a file, and what changes when it is written over."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _refuse_overwritten(pretrained: Pretrained) -> None:
    """Refuse a file that was written over in place: its tensors are other ones now, or are gone.

    One that was moved, or replaced by another file, is still there for this process.
    """
    for file, before in pretrained.stamps.items():
        with suppress(OSError):
            stamp = _stamp(file)
            if stamp[:2] == before[:2] and stamp != before:
                words = f"{file} was written over while the run was under way; begin anew"
                raise ConfigError(Problem(KEY, words))


def _of_directory(path: Path) -> tuple[Path, Mapping[str, Any]]:
    best = path / CHECKPOINTS / BEST
    if (best / WEIGHTS).is_file():
        return best / WEIGHTS, {**_of_file(best / WEIGHTS)[0], **read_extra(best)}
    for file in (path / WEIGHTS, path / (WEIGHTS + INDEX)):
        if file.is_file():
            return file, _of_file(file)[0]
    newest = newest_checkpoint(path / CHECKPOINTS)
    if newest is None:
        raise UserError(f"{path}: is a directory without {WEIGHTS}, and no run that has weights")
    folder, state = newest
    average = average_of(folder, state) or {}
    return folder, {**weights_of(folder, state), **state["extra"], **average}


def _files(path: Path) -> list[Path]:
    """Return an index and the files beside it that it names; any other file alone."""
    if not path.name.endswith(INDEX):
        return [path]
    with reading(path, "an index of weights"):
        files = [path.with_name(name) for name in sorted(set(_index(path).values()))]
        if not files or any(file.name.endswith(INDEX) for file in files):
            raise ValueError("it names no file of weights")
        return [path, *files]


def _index(path: Path) -> dict[str, str]:
    """Return in which file each tensor is."""
    found: dict[str, str] = json.loads(path.read_text("utf-8"))["weight_map"]
    return found


def _of_index(path: Path) -> dict[str, Any]:
    files, where, tensors = _files(path)[1:], _index(path), dict[str, Any]()
    for file in files:
        found = _of_file(file)[0].items()
        tensors |= {name: value for name, value in found if where.get(name, file.name) == file.name}
    lacking = sorted(where.keys() - tensors.keys())
    if lacking:
        raise UserError(
            f"{path}: its files lack {_keys(len(lacking))} that it names: {_some(lacking)}; "
            "download them again"
        )
    return tensors


def _of_file(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    if path.name.endswith(INDEX):
        return _of_index(path), ()
    with reading(path, "a file of weights"), path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        return read_weights(path), ()
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return _unwrapped(path, _unpickled(path, is_zip=head[:2] == b"PK"))
    if head == b"version h":
        raise UserError(f"{path}: is a pointer of Git LFS; git lfs pull fetches the file itself")
    raise UserError(f"{path}: is neither a safetensors file nor a state dict that torch.save wrote")


def _unpickled(path: Path, *, is_zip: bool) -> Any:
    mmap = is_zip and path.suffix != ".safetensors"  # torch would go by the name
    with reading(path, "a state dict that torch.save wrote"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the pickle
        try:
            with path.open("rb") as file:
                source = path if mmap else file
                return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: holds {foreign(path, error)}, which are not read, as they could run code;"
                " write the weights alone: torch.save(model.state_dict(), path)"
            ) from error


def _unwrapped(path: Path, content: Any) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the state dict inside what torch.save wrote, and the keys that lead to it."""
    taken_from: list[str] = []
    while isinstance(content, Mapping):
        found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(found) > 1:
            raise UserError(
                f"{path}: holds several state dicts, {' and '.join(found)}; write one of them alone"
            )
        if not found:
            break
        taken_from += found
        content = content[found[0]]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"{path}: holds no weights, but {_some(map(str, content)) or 'nothing'}; a state dict "
            f"is looked for, also under {', '.join(WRAPPERS[:-1])} or {WRAPPERS[-1]}"
        )
    return {str(name): value for name, value in content.items()}, tuple(taken_from)


def _digest(tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name} {value!r}\n".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_pretrained(
    model: nn.Module, pretrained: Pretrained, *, partial: bool, name: str = "the model"
) -> WeightsFit:
    """Copy pretrained weights into a model, which keeps its device and types.

    Args:
        model: not yet sharded or compiled.
        pretrained: its weights.
        partial: what does not fit is left out.
        name: of the model, for messages.

    Raises:
        ConfigError: the file was written over meanwhile; none of them fits, or they fit in several
            ways; one does not fit, and `partial` is False; a weight is not a number; or one tensor
            of the model has two names, with different values.
    """
    _refuse_overwritten(pretrained)
    live = model.state_dict(keep_vars=True)
    removed, added = _prefixes(pretrained, live, name)
    given = {renamed(n, removed, added): v for n, v in pretrained.tensors.items()}
    reshaped = {
        n: (given[n].shape, own.shape)
        for n, own in live.items()
        if isinstance(own, Tensor) and isinstance(given.get(n), Tensor) and not _fits(given[n], own)
    }
    _refuse_adapters(given, live, pretrained.path)
    if reshaped:
        resized = _resized(model, given, {n: live[n] for n in reshaped})
        reshaped = {n: shapes for n, shapes in reshaped.items() if n not in resized}
        live = model.state_dict(keep_vars=True)  # a module may have put others in their place
    fitting = {n: v for n, v in given.items() if n not in reshaped}
    try:
        result = model.load_state_dict(dict(fitting), strict=False)
    except Exception as error:  # a module's own hooks may raise anything
        if is_out_of_memory(error):
            raise
        words = f"{pretrained.path} cannot be loaded into {name}: {in_a_line(error)}"
        raise ConfigError(Problem(KEY, words)) from error
    # a model's own method may return nothing
    unexpected = set(getattr(result, "unexpected_keys", fitting.keys() - live.keys()))
    lacking = getattr(result, "missing_keys", [n for n in live if n not in fitting])
    loaded = [n for n in fitting if n not in unexpected]
    there = {id(live[n]) for n in loaded if n in live}  # a tied weight has several names
    missing = [n for n in lacking if n not in reshaped and id(live.get(n)) not in there]
    fit = WeightsFit(
        tuple(loaded),
        tuple(missing),
        reshaped,
        tuple(n for n in given if n in unexpected),
        removed,
        added,
        _rounded(fitting, live),
    )
    _refuse_a_misfit(fit, pretrained, live, partial=partial, name=name)
    _refuse_two_values(fitting, live, pretrained.path)
    for n in loaded:
        if isinstance(live.get(n), nn.Parameter) and bool(torch.isnan(live[n]).any()):
            words = f"{pretrained.path}: the weight {n} holds NaN; take an earlier checkpoint"
            raise ConfigError(Problem(KEY, words))
    return fit


def _resized(
    model: nn.Module, given: Mapping[str, Any], reshaped: Mapping[str, Tensor]
) -> set[str]:
    """Return which weights of other shapes a model takes, as where it interpolates positions.

    Args:
        model: whose weights are loaded for a try.
        given: all that there are.
        reshaped: the model's own tensors that have another shape there.
    """
    before = {name: own.detach().clone() for name, own in reshaped.items()}
    try:
        model.load_state_dict(dict(given), strict=False)
    except Exception as error:  # torch names the shapes; what did fit is copied once more
        if is_out_of_memory(error):
            raise
        return set()
    now = model.state_dict(keep_vars=True)
    # A model may also leave out by itself what does not fit. Of a buffer it knows what to do.
    return {
        name
        for name, own in reshaped.items()
        if not isinstance(own, nn.Parameter)
        or now.get(name) is not own
        or not torch.equal(own, before[name])
    }


def _refuse_adapters(given: Mapping[str, Any], live: Mapping[str, Any], path: Path) -> None:
    """Refuse the weights of a model with adapters for one without: each would lose its base."""
    found = [
        name for name in given if not _ADAPTED.isdisjoint(name.split(".")) and name not in live
    ]
    if found:
        words = (
            f"{path} has the weights of a model with adapters (PEFT), such as {found[0]}: take "
            "those that its training started from, or merge the adapters into the model and save "
            "that (merge_and_unload)"
        )
        raise ConfigError(Problem(KEY, words))


def _fits(value: Tensor, own: Tensor) -> bool:
    """Tell whether a value has the shape of the model's tensor; one that is lazy takes any."""
    if nn.parameter.is_lazy(own):
        return True
    return value.shape == own.shape or (own.ndim == 0 and value.shape == (1,))


def renamed(name: str, removed: str, added: str) -> str:
    """Return a file's name in the model; one that does not begin with what is removed stays."""
    return added + name.removeprefix(removed) if name.startswith(removed) else name


def _prefixes(pretrained: Pretrained, live: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return what to leave out at the start of names in a file, and what to put there instead.

    Such as the prefix of DataParallel, of torch.compile, or of the part that a body is in another
    model. First what all names share, on one side: whatever lets more names be the model's, and
    nothing where it changes nothing. If no more than half of the tensors fit then, what some names
    share, where more than half do: two layers may be alike by chance.

    Raises:
        ConfigError: by each of several prefixes other tensors fit, and as many.
    """
    given = pretrained.tensors
    choices = [("", ""), *((p, "") for p in _shared(given)), *(("", p) for p in _shared(live))]
    shared = max(choices, key=lambda choice: sum(renamed(n, *choice) in live for n in given))
    kept = sum(_takes(live.get(renamed(n, *shared)), value) for n, value in given.items())
    half = min(len(given), len(live)) / 2
    fitting = _fitting(given, live) if kept <= half else {}
    most = max(fitting.values(), default=0)
    if most <= half:
        return shared
    found = [choice for choice, count in fitting.items() if count == most]
    by_meaning: dict[frozenset[tuple[str, int]], tuple[str, str]] = {}
    for choice in sorted(found, key=lambda choice: "".join(choice).count(".")):  # the shortest
        by_meaning.setdefault(_meaning(choice, given, live), choice)
    best, *others = by_meaning.values()
    if others:
        ways = ", or ".join(_way(*choice) for choice in (best, *others)[:MOST_NAMED])
        words = (
            f"{pretrained.path} fits {name} in several ways: {ways}; write a file with the names "
            "of the model"
        )
        raise ConfigError(Problem(KEY, words))
    would_be = {renamed(n, *best) for n in given}
    return best if len(would_be) == len(given) else shared


def _meaning(
    choice: tuple[str, str], given: Mapping[str, Any], live: Mapping[str, Any]
) -> frozenset[tuple[str, int]]:
    """Return which tensors of a file go to which of the model, whatever these are called."""
    names = ((name, live.get(renamed(name, *choice))) for name in given)
    return frozenset((name, id(own)) for name, own in names if _takes(own, given[name]))


def _takes(own: Any, value: Any) -> bool:
    return isinstance(own, Tensor) and isinstance(value, Tensor) and _fits(value, own)


def _fitting(given: Mapping[str, Any], live: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """Count for each pair of prefixes how many tensors of a file fit the model by it."""
    alike: dict[tuple[str, Size], list[str]] = {}  # by the last part of the name, and the shape
    for name, own in live.items():
        if isinstance(own, Tensor) and not nn.parameter.is_lazy(own):
            alike.setdefault((name.rpartition(".")[2], own.shape), []).append(name)
    return Counter(
        _heads(name, other)
        for name, value in given.items()
        if isinstance(value, Tensor)
        for other in alike.get((name.rpartition(".")[2], value.shape), ())
    )


def _heads(one: str, other: str) -> tuple[str, str]:
    """Return what two names begin with before the parts that both end with: "a.", "b.c."."""
    parts, others = one.split("."), other.split(".")
    while parts and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return "".join(f"{part}." for part in parts), "".join(f"{part}." for part in others)


def _way(removed: str, added: str) -> str:
    """Say how the names of a file become those of the model; "" if they are."""
    if removed and added:
        return f"with {removed} in its names replaced by {added}"
    if removed:
        return f"with {removed} left out of its names"
    return f"with {added} added to its names" if added else ""


def _shared(names: Iterable[str]) -> Iterator[str]:
    """Yield the beginnings, such as "module." and "module.model.", that all names share."""
    names = list(names)
    first = names[0].split(".") if names else []
    for count in range(1, len(first)):
        prefix = ".".join(first[:count]) + "."
        if not all(name.startswith(prefix) for name in names):
            return
        yield prefix


def _rounded(
    given: Mapping[str, Any], live: Mapping[str, Any]
) -> dict[str, tuple[torch.dtype, torch.dtype]]:
    """Return the tensors that do not keep their values in the model's type."""
    found = {}
    for name, value in given.items():
        own = live.get(name)
        if not isinstance(value, Tensor) or not isinstance(own, Tensor) or own.dtype == value.dtype:
            continue
        exact, kept = value.double(), value.to(own.dtype).double()
        if not torch.allclose(kept, exact, rtol=0, atol=0, equal_nan=True):
            found[name] = (value.dtype, own.dtype)
    return found


def _refuse_a_misfit(
    fit: WeightsFit, pretrained: Pretrained, live: Mapping[str, Any], *, partial: bool, name: str
) -> None:
    path, reshaped = pretrained.path, fit.reshaped or {}
    if not fit.loaded:
        shapes = f"; {_shapes(reshaped)}" if reshaped else ""
        words = (
            f"none of the {_keys(len(pretrained.tensors))} of {path} fits {name}: the file has "
            f"{_some(pretrained.tensors)}, the model {_some(live)}{shapes}; these are the weights "
            "of another model"
        )
        raise ConfigError(Problem(KEY, words))
    if partial:
        return
    parts = []
    if fit.missing:
        parts.append(f"{_keys(len(fit.missing))} missing in the file: {_some(fit.missing)}")
    if fit.unexpected:
        parts.append(f"{_keys(len(fit.unexpected))} unknown to it: {_some(fit.unexpected)}")
    if reshaped:
        parts.append(f"{_keys(len(reshaped))} of another shape: {_shapes(reshaped)}")
    if parts:
        way = _way(fit.removed, fit.added)
        words = (
            f"{path}{way and f', {way},'} does not fit {name}: {'; '.join(parts)}. model.partial: "
            f"true loads the other {_keys(len(fit.loaded))}, and leaves what does not fit at fresh "
            "values"
        )
        raise ConfigError(Problem(KEY, words))


def _refuse_two_values(given: Mapping[str, Any], live: Mapping[str, Any], path: Path) -> None:
    """Refuse different values for one tensor, such as a tied weight: one would be lost."""
    first: dict[int, str] = {}
    for name, value in given.items():
        if name in live and isinstance(value, Tensor):
            other = first.setdefault(id(live[name]), name)
            if other != name and not torch.equal(given[other], value):
                words = (
                    f"{path}: {other} and {name} are one tensor in the model, and differ in the "
                    "file; leave one of them out, or untie them"
                )
                raise ConfigError(Problem(KEY, words))


def _keys(count: int) -> str:
    return f"{count:,} key{'s' * (count != 1)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MOST_NAMED]) + ", …" * (len(names) > MOST_NAMED)


def _shapes(reshaped: Mapping[str, tuple[Size, Size]]) -> str:
    return _some(f"{n} is {size(a)} and not {size(b)}" for n, (a, b) in reshaped.items())


def size(shape: Size) -> str:
    """Spell a shape: "64 × 10"."""
    return " × ".join(map(str, shape)) or "a scalar"
