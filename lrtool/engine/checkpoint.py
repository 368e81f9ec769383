"""Checkpoints: all that a training needs to resume as if it had never stopped, to the last bit.

A checkpoint is a folder: `model.safetensors` (weights and buffers), `average.safetensors` (their
moving average, if there is one), `state.pt` (everything else, for `torch.load` with
`weights_only=True`), and `manifest.json` with each file's size and CRC-32, written last. That of a
sharded model has no weights but those in its shards, a file a rank (`sharded_checkpoint`). The
folder `best` has weights alone: `model.safetensors`, `loss.safetensors` if the loss has any, and in
`state.pt` what safetensors cannot hold, the extra states of modules.

It is written as `.new` and renamed to `last`; the one before stays as `previous`. So a process
killed at any moment leaves a whole one. As always in PyTorch, what a module keeps outside its state
dict and its buffers is not saved.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from lrtool.engine.device import is_out_of_memory
from lrtool.engine.loop import BestTracker, Position
from lrtool.engine.sharded_checkpoint import SHARD, read_shards, split, write_shards
from lrtool.engine.sharded_tensors import divided_as, first_names, is_sharded, mesh_of
from lrtool.engine.weights import load_weights, plain, read_weights, save_tensors
from lrtool.errors import LrtoolWarning, UserError
from lrtool.ranks import ALONE, Ranks
from lrtool.report.files import crc_of, in_a_line, reading, sync_directory, whole_path, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lrtool.engine.ema import MovingAverage

NEW, LAST, PREVIOUS, BEST = ".new", "last", "previous", "best"
WEIGHTS, LOSS, AVERAGE, STATE, MANIFEST = (
    "model.safetensors",
    "loss.safetensors",  # of `best` alone; `last` has it in its state
    "average.safetensors",
    "state.pt",
    "manifest.json",
)

Plain = TypeVar("Plain")
FileSum = dict[str, int]  # its bytes and crc32


class Stateful(Protocol):
    """Something with a state of plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Put a state back."""


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while a model is trained, except the random states."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    schedule: Stateful
    average: MovingAverage | None
    position: Position
    best: BestTracker


def save_checkpoint(
    training: TrainingState, folder: Path, ranks: Ranks = ALONE, /, **facts: Any
) -> Path:
    """Write the checkpoint `last` into `folder`; the one before becomes `previous`.

    Args:
        training: at rest between two updates.
        folder: of all checkpoints of the run.
        ranks: all of them call this; rank 0 writes, and each its part of a sharded model.
        facts: what else to keep, plain values and tensors.

    Returns:
        The checkpoint's own folder.

    Raises:
        OSError: it cannot be written or the disk is full; earlier checkpoints stay.
        UserError: the state holds objects that cannot be read back as plain data.
    """
    sharded = is_sharded(plain(training.model))
    if not (ranks.first or sharded):
        return folder / LAST
    ranks = ranks if sharded else ALONE
    new = folder / NEW
    if ranks.first:
        folder.mkdir(exist_ok=True)
        if _is_sealed(new):  # the process was killed between the renames
            _promote(folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
    ranks.barrier()
    try:
        _write(training, new, ranks, facts)
    except BaseException:
        if ranks.first:
            shutil.rmtree(new, ignore_errors=True)
        raise
    if ranks.first:
        _promote(folder)
    ranks.barrier()  # a rank that goes on may find it
    return folder / LAST


def _write(training: TrainingState, new: Path, ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Write all of a checkpoint, and seal it."""
    model, average = plain(training.model), training.average
    state, sums = {**_state(training, model), **facts}, dict[str, FileSum]()
    if is_sharded(model):
        first, shards = first_names(model), dict[str, Tensor]()
        weights = {n: v for n, v in model.state_dict().items() if first.get(n, n) == n}
        state |= {"model": weights, "average": average and average.state()}
        state = split(state, "training", shards)
        state["model"] |= {name: state["model"][other] for name, other in first.items()}
        for own in ranks.gather(sums_of(write_shards(shards, new, ranks))):
            sums |= own
    else:
        step = {"step": training.position.step, "epoch": training.position.epoch}
        save_tensors(model.state_dict(), new / WEIGHTS, step)
        if average is not None:
            save_tensors(average.state(), new / AVERAGE, step)
    if ranks.first:
        _save_state(state, new / STATE)
        seal(new, sums)


def _is_sealed(new: Path) -> bool:
    return (new / MANIFEST).exists() and _problem(new) is None


def _promote(folder: Path) -> None:
    """Rename the new checkpoint to `last`; one is found wherever this is interrupted."""
    last, previous = folder / LAST, folder / PREVIOUS
    if last.exists():
        shutil.rmtree(previous, ignore_errors=True)
        last.replace(previous)
    (folder / NEW).replace(last)
    sync_directory(folder)


def _state(training: TrainingState, model: nn.Module) -> dict[str, Any]:
    weights = model.state_dict()
    average = training.average
    return {
        "position": asdict(training.position),
        "best": asdict(training.best),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict() if training.scaler else None,
        "schedule": training.schedule.state_dict(),
        "average_updates": average.updates if average else 0,
        "extra": _extra_of(weights),
        "buffers": {k: v for k, v in model.named_buffers() if k not in weights},
    }


def _extra_of(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a model's state safetensors cannot hold: the extra states of its modules."""
    return {name: value for name, value in weights.items() if not isinstance(value, Tensor)}


def save_extra(weights: Mapping[str, Any], folder: Path) -> None:
    """Write the extra states of a model beside its weights, if there are any.

    Args:
        weights: the model's state dict.
        folder: where its tensors are written.

    Raises:
        OSError: they cannot be written.
        UserError: they hold objects that cannot be read back as plain data.
    """
    if extra := _extra_of(weights):
        with whole_path(folder / STATE) as temporary:
            _save_state({"extra": extra}, temporary)


def read_extra(folder: Path) -> dict[str, Any]:
    """Return what `save_extra` wrote beside weights; {} if it wrote nothing.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return {}
    with reading(path, "a file of extra states"):
        return dict(torch.load(path, map_location="cpu", weights_only=True)["extra"])


def load_checkpoint(
    training: TrainingState, checkpoint: Path, state: Mapping[str, Any], ranks: Ranks = ALONE
) -> None:
    """Put everything back as it was when `checkpoint` was written.

    Args:
        training: built from the same configuration.
        checkpoint: from `newest_checkpoint`.
        state: likewise.
        ranks: that share a sharded model; all of them call this.

    Raises:
        UserError: the checkpoint is of another model or optimizer, or is damaged.
    """
    with restoring(checkpoint):
        _load(training, checkpoint, state, ranks)


def weights_of(checkpoint: Path, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights and buffers of a checkpoint, given its state.

    Raises:
        UserError: a file cannot be read, or is damaged.
    """
    if "model" not in state:
        return read_weights(checkpoint / WEIGHTS)
    weights: dict[str, Any] = read_shards(state["model"], checkpoint)
    return weights


def average_of(checkpoint: Path, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the moving average in a checkpoint, given its state; None without one.

    Raises:
        UserError: a file cannot be read, or is damaged.
    """
    if "model" not in state:
        path = checkpoint / AVERAGE
        return read_weights(path) if path.exists() else None
    average: dict[str, Tensor] | None = read_shards(state["average"], checkpoint)
    return average


@contextmanager
def restoring(checkpoint: Path) -> Iterator[None]:
    """Name the checkpoint in any error of restoring it, but for too little memory.

    Raises:
        UserError: it is damaged, or of another training.
        OutOfMemoryError: it does not fit in memory.
    """
    with reading(checkpoint, "a checkpoint of this training"):
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            raise


def _load(
    training: TrainingState, checkpoint: Path, state: Mapping[str, Any], ranks: Ranks
) -> None:
    model = plain(training.model)
    state = read_shards(dict(state), checkpoint, mesh_of(model), ranks)
    load_weights(model, {**weights_of(checkpoint, state), **state["extra"]}, checkpoint)
    _restore_buffers(model, state["buffers"])
    try:
        load_optimizer(training.optimizer, state["optimizer"])
    except ValueError as error:
        raise UserError(f"{checkpoint}: does not fit this optimizer: {error}") from error
    if training.scaler is not None and state["scaler"] is not None:
        training.scaler.load_state_dict(state["scaler"])
    training.schedule.load_state_dict(state["schedule"])
    if training.average is not None:
        average = average_of(checkpoint, state)
        if average is None:
            raise UserError(f"{checkpoint}: has no moving average")
        training.average.load(average, state["average_updates"])
    training.position = of_plain(Position, state["position"])
    training.best = of_plain(BestTracker, state["best"])


def of_plain(kind: type[Plain], values: Mapping[str, Any]) -> Plain:
    """Return an object of a dataclass from the plain values of its fields.

    Raises:
        TypeError, ValueError: a field is missing, unknown or of another type.
    """
    for name, annotation in get_type_hints(kind).items():
        if name in values:
            TypeAdapter(annotation).validate_python(values[name], strict=True)
    return kind(**values)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put an optimizer's state back."""
    optimizer.load_state_dict(dict(state))
    if not {"state", "param_groups"} <= state.keys():  # a wrapper may have a form of its own
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        own = getattr(optimizer, "state", {}).get(parameter, {})
        for name, value in state["state"].get(number, {}).items():
            if name not in own:  # a wrapper may hold the state of another one
                continue
            # torch casts all but `step` to the weights' dtype: NAdam's state loses bits in bf16
            if isinstance(value, Tensor) and own[name].dtype != value.dtype:
                own[name] = value.to(own[name].device)
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                own[name] = divided_as(parameter, own[name])  # it may have been written whole


def _restore_buffers(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put back buffers that are in no state dict; their shapes may have changed since the start."""
    tensors = [*model.parameters(), *model.buffers()]
    for name, value in values.items():
        path, _, own_name = name.rpartition(".")
        module = model.get_submodule(path)
        buffer = getattr(module, own_name, None)
        if buffer is not None and buffer.shape == value.shape:
            buffer.copy_(value)  # in place: others may hold this tensor
        else:
            module.register_buffer(own_name, value.to(tensors[0].device), persistent=False)


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that is whole, and its state; None if there is none.

    Warns:
        LrtoolWarning: one was skipped since it is truncated or corrupted.
    """
    for checkpoint in (folder / NEW, folder / LAST, folder / PREVIOUS):
        unfinished = checkpoint.name == NEW and not (checkpoint / MANIFEST).exists()
        if unfinished or not checkpoint.exists():
            continue
        problem = _problem(checkpoint)
        if problem is None:
            try:
                state = _read_state(checkpoint / STATE)
            except pickle.UnpicklingError as error:
                problem = f"{STATE} holds {foreign(checkpoint / STATE, error)}"
            except Exception as error:  # noqa: BLE001  (foreign bytes: torch may raise anything)
                problem = f"{STATE} cannot be read: {in_a_line(error)}"
            else:
                return checkpoint, state
        warnings.warn(f"{checkpoint} is skipped: {problem}", LrtoolWarning, stacklevel=2)
    return None


def _read_state(path: Path) -> dict[str, Any]:
    """Read a state; raise some error if it is not what `_state` makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about a pickle that is none of ours
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise TypeError(f"it holds a {type(state).__name__}, not the parts of a checkpoint")
    mappings = ("position", "best", "optimizer", "schedule", "extra", "buffers")
    for name, kind in {**dict.fromkeys(mappings, dict), "average_updates": int}.items():
        if not isinstance(state.get(name), kind):
            raise TypeError(f"{name} is missing, or of another type")
    of_plain(Position, state["position"])
    of_plain(BestTracker, state["best"])
    return state


def _save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write everything but the weights; refuse what could not be read again.

    Raises:
        UserError: it holds objects that are neither tensors nor plain values.
    """
    sums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(compute_crc32=False)  # the manifest has one
    try:
        with path.open("wb") as file:
            torch.save(state, file)
        # The tensors' own bytes are not read.
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise UserError(
            "no checkpoint can be written: the state of the model or the optimizer holds "
            f"{foreign(path, error)}"
        ) from error
    except RuntimeError as error:
        full = error.__context__  # torch fails once more after a failed write
        if not isinstance(full, OSError):
            raise
        raise OSError(full.errno, full.strerror, str(path)) from error
    finally:
        torch.serialization.set_crc32_options(sums)


def unkeepable(state: Mapping[str, Any]) -> str | None:
    """Return what in a state could not be read back from a checkpoint; None if all can be.

    The tensors, which can, are neither copied nor written.
    """
    file = io.BytesIO()
    try:
        torch.save(_without_tensors(state), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        file.seek(0)
        return foreign(file, error)
    return None


def _without_tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        return None
    if type(value) in {dict, OrderedDict}:
        return {key: _without_tensors(item) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return [_without_tensors(item) for item in value]
    return value


def foreign(path: Path | IO[bytes], error: Exception) -> str:
    """Say what pickle or torch has refused."""
    names = in_a_line(error)
    if isinstance(error, pickle.UnpicklingError):
        with suppress(Exception):  # it reads no plain pickle, and none that is cut off
            found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            names = ", ".join(sorted(found)) or names
    return f"objects that are neither tensors nor plain values ({names})"


def seal(folder: Path, known: Mapping[str, FileSum] | None = None) -> None:
    """Sync every file of a folder, then write the manifest that proves them whole.

    Args:
        folder: of a checkpoint.
        known: of files that are synced already.
    """
    known = known or {}
    sums = sums_of(path for path in folder.iterdir() if path.name not in known)
    write_text(folder / MANIFEST, json.dumps({**sums, **known}, indent=2) + "\n")


def sums_of(files: Iterable[Path]) -> dict[str, FileSum]:
    """Sync files; return their sizes and sums, for the manifest."""
    files = sorted(files)
    with ThreadPoolExecutor() as pool:  # sync and compute the sums at once
        synced = [pool.submit(_sync, path) for path in files]
        crcs = list(pool.map(crc_of, files))
        for each in synced:
            each.result()
    return {
        path.name: {"bytes": path.stat().st_size, "crc32": crc}
        for path, crc in zip(files, crcs, strict=True)
    }


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _problem(checkpoint: Path) -> str | None:
    """Say why a checkpoint is not whole; None if it is."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        for name, known in manifest.items():
            path = checkpoint / name
            size = path.stat().st_size
            if size != known["bytes"]:
                return f"{name} has {size:,} bytes, not {known['bytes']:,}"
            if crc_of(path) != known["crc32"]:
                return f"{name} is corrupted (its CRC-32 differs)"
    except OSError as error:
        name = (
            Path(error.filename).name if error.filename else "a file"
        )  # a failing disk names none
        return f"{name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    holds_weights = WEIGHTS in manifest or any(name.startswith(SHARD) for name in manifest)
    if STATE not in manifest or not holds_weights:
        return f"{MANIFEST} is damaged"
    return None
