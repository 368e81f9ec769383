"""Checkpoints: all that a training needs to go on as if it had never stopped, to the last bit.

A checkpoint is a folder: `model.safetensors` (weights and buffers), `average.safetensors` (their
moving average, where there is one), `state.pt` (everything else, for `torch.load` with
`weights_only=True`), and `manifest.json` with each file's size and CRC-32, written last.

It is written beside the one before and takes its place by renaming; that one stays as `previous`
until the next is there. A process that is killed at any moment leaves one that is whole.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lrtool.engine.trainer import Best, Position
from lrtool.errors import LrtoolWarning, UserError
from lrtool.files import sync_directory, whole_path, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lrtool.engine.average import MovingAverage

LAST, PREVIOUS, BEST = "last", "previous", "best"
WEIGHTS, AVERAGE, STATE, MANIFEST = (
    "model.safetensors",
    "average.safetensors",
    "state.pt",
    "manifest.json",
)
_CHUNK = 1 << 22


class Stateful(Protocol):
    """What has a state of plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Put a state back."""


@dataclass(slots=True)
class Training:
    """Everything that changes while a model is trained, but for the random states."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    schedule: Stateful
    average: MovingAverage | None
    position: Position
    best: Best


def save(training: Training, folder: Path, **facts: Any) -> Path:
    """Write the checkpoint `last` into `folder`; the one before becomes `previous`.

    Args:
        training: at rest between two updates.
        folder: of all checkpoints of the run.
        facts: what else to keep, plain values and tensors.

    Returns:
        The checkpoint's own folder.

    Raises:
        OSError: it cannot be written or the disk is full; the checkpoints that are there stay.
        UserError: a state of the user's own cannot be read back as plain data.
    """
    folder.mkdir(exist_ok=True)
    new, last, previous = folder / ".new", folder / LAST, folder / PREVIOUS
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        model = plain(training.model)
        step = {"step": str(training.position.step), "epoch": str(training.position.epoch)}
        write_weights(model.state_dict(), new / WEIGHTS, step)
        if training.average is not None:
            write_weights(training.average.state(), new / AVERAGE, step)
        with (new / STATE).open("wb") as file:
            torch.save({**_state(training, model), **facts}, file)
        _prove_readable(new / STATE)
        seal(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if last.exists():
        shutil.rmtree(previous, ignore_errors=True)
        last.replace(previous)
    new.replace(last)
    sync_directory(folder)
    return last


def _state(training: Training, model: nn.Module) -> dict[str, Any]:
    weights = model.state_dict()
    average = training.average
    return {
        "position": asdict(training.position),
        "best": asdict(training.best),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict() if training.scaler else None,
        "schedule": training.schedule.state_dict(),
        "average_updates": average.updates if average else 0,
        # safetensors hold tensors of the state dict; a model may have more to remember
        "extra": {k: v for k, v in weights.items() if not isinstance(v, Tensor)},
        "buffers": {k: v for k, v in model.named_buffers() if k not in weights},
    }


def load(training: Training, checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Put everything back as it was when `checkpoint` was written.

    Args:
        training: built from the same configuration.
        checkpoint: a folder that `newest` found.
        state: what it returned with it.

    Raises:
        UserError: the checkpoint is of another model or optimizer.
    """
    model = plain(training.model)
    weights = {**read_weights(checkpoint / WEIGHTS), **state["extra"]}
    load_weights(model, weights, checkpoint)
    buffers = dict(model.named_buffers())
    for name, value in state["buffers"].items():
        buffers[name].copy_(value)
    try:
        training.optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise UserError(f"{checkpoint}: does not fit this optimizer: {error}") from error
    if training.scaler is not None and state["scaler"] is not None:
        training.scaler.load_state_dict(state["scaler"])
    training.schedule.load_state_dict(state["schedule"])
    if training.average is not None:
        training.average.load(read_weights(checkpoint / AVERAGE), state["average_updates"])
    training.position = Position(**state["position"])
    training.best = Best(**state["best"])


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that is whole, and its state; None if there is none.

    Warns:
        LrtoolWarning: one was skipped since it is truncated or corrupted.
    """
    for checkpoint in (folder / LAST, folder / PREVIOUS):
        if not checkpoint.exists():
            continue
        problem = _problem(checkpoint)
        if problem is None:
            try:
                return checkpoint, _read_state(checkpoint)
            except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
                problem = f"{STATE} cannot be read: {error}"
        warnings.warn(f"{checkpoint} is skipped: {problem}", LrtoolWarning, stacklevel=2)
    return None


def _read_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return state


def _prove_readable(path: Path) -> None:
    """Refuse what could be written but not read again; the tensors' own bytes are not read."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            "no checkpoint can be written: the state of the model or the optimizer holds objects "
            f"that are neither tensors nor plain values ({reason})"
        ) from error


def seal(folder: Path) -> None:
    """Bring every file of a folder to the disk, then write the manifest that proves them whole."""
    files = sorted(folder.iterdir())
    sums = {}
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sums[path.name] = {"bytes": path.stat().st_size, "crc32": _crc(path)}
    write_text(folder / MANIFEST, json.dumps(sums, indent=2) + "\n")


def _problem(checkpoint: Path) -> str | None:
    """Say why a checkpoint is not whole; None if it is."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        for name, known in manifest.items():
            path = checkpoint / name
            size = path.stat().st_size
            if size != known["bytes"]:
                return f"{name} has {size:,} bytes, not {known['bytes']:,}"
            if _crc(path) != known["crc32"]:
                return f"{name} is corrupted (its CRC-32 is another)"
    except OSError as error:
        return f"{Path(error.filename).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    if not {WEIGHTS, STATE} <= manifest.keys():
        return f"{MANIFEST} is damaged"
    return None


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def write_weights(state: Mapping[str, Any], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole; those that share memory under the first one's name.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    kept: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in seen:
            shared[name] = seen[place]
        else:
            seen[place] = name
            kept[name] = tensor.detach().contiguous()
    # Two views of one memory that differ in shape are two tensors; safetensors want them apart.
    spans = [tensor.untyped_storage().data_ptr() for tensor in kept.values() if tensor.numel()]
    if len(set(spans)) < len(spans):
        kept = {name: tensor.clone() for name, tensor in kept.items()}
    notes = {**metadata, **({"shared": json.dumps(shared)} if shared else {})}
    try:
        with whole_path(path) as temporary:
            safetensors.torch.save_file(kept, temporary, notes)
    except SafetensorError as error:
        raise OSError(None, str(error), str(path)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return what `write_weights` wrote, on the CPU.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shared = json.loads((file.metadata() or {}).get("shared", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return {**weights, **{name: weights[first] for name, first in shared.items()}}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the notes that `write_weights` left in a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def load_weights(model: nn.Module, weights: Mapping[str, Any], source: Path) -> None:
    """Copy weights into a model, which keeps its device and memory format.

    Raises:
        UserError: they are of another model.
    """
    try:
        plain(model).load_state_dict(weights)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise UserError(f"{source}: does not fit this model: {words}") from error


def plain(model: nn.Module) -> nn.Module:
    """Return the model that `torch.compile` wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def first_bad_weight(model: nn.Module) -> str | None:
    """Return the name of the first parameter or buffer that holds NaN or infinity."""
    named = list(_floating(plain(model)))
    if not named:
        return None
    bad = torch.stack([~torch.isfinite(tensor).all() for _, tensor in named]).tolist()
    return next((name for (name, _), is_bad in zip(named, bad, strict=True) if is_bad), None)


def _floating(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            yield name, tensor.detach()
