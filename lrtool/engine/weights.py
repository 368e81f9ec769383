"""Weights as safetensors files, written whole, and loaded into a model.

A file of weights holds the CRC-32 of all its bytes, with zeros in the place of the sum itself. It
stays with the file wherever that is copied to, and a flipped bit is noticed when it is read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lrtool.engine.device import is_out_of_memory
from lrtool.engine.ema import floats
from lrtool.engine.sharded_tensors import divided_as, is_sharded, own_part
from lrtool.errors import UserError
from lrtool.report.files import CHUNK, in_a_line, reading, whole_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NOTES = "lrtool"
_NO_SUM = "0" * 8
_SUM = re.compile(rb'\\"crc32\\": \\"(.{8})\\"', re.DOTALL)  # in the header
_LONGEST_HEADER = 100_000_000  # of safetensors


def write_weights(state: Mapping[str, Any], path: Path, notes: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, whole; those that share memory once, under the first name.

    Equal tensors and notes give equal bytes.

    Args:
        state: by name; values that are not tensors are left out.
        path: of the file.
        notes: plain values, for `read_notes`.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    with whole_path(path) as temporary:
        save_tensors(state, temporary, {**notes, "crc32": _NO_SUM})
        _write_sum(temporary)


def save_tensors(state: Mapping[str, Any], path: Path, notes: Mapping[str, Any]) -> None:
    """Write as `write_weights` does, but into the file itself, without sync and without a sum."""
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
    # safetensors refuses different views of one memory: they are copied.
    memory = {name: tensor.untyped_storage().data_ptr() for name, tensor in kept.items()}
    views = Counter(memory.values())
    kept = {n: t.clone() if t.numel() and views[memory[n]] > 1 else t for n, t in kept.items()}
    # One key, since safetensors writes several in any order.
    metadata = {_NOTES: json.dumps({**notes, "shared": shared}, sort_keys=True)}
    try:
        safetensors.torch.save_file(kept, path, metadata)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # no attribute has it
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return what `write_weights` wrote, on the CPU.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    with reading(path, "a safetensors file"):
        _check_sum(path)
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            shared = _notes(file)["shared"]
        return {**weights, **{name: weights[first] for name, first in shared.items()}}


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes that `write_weights` left in a file, whose tensors are not read.

    Raises:
        UserError: the file cannot be read.
    """
    with reading(path, "a safetensors file"), safe_open(path, framework="pt") as file:
        return _notes(file)


def _notes(file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(_NOTES, '{"shared": {}}')
    notes: dict[str, Any] = json.loads(text)
    if not isinstance(notes, dict) or not isinstance(notes.get("shared"), dict):
        raise ValueError("its notes are not those of lrtool")  # noqa: TRY004  (data, not a bug)
    for key in ("epoch", "step"):
        if type(notes.get(key, 0)) is not int:
            raise ValueError(f"its {key} is no whole number")
    return notes


def check_sum(path: Path) -> None:
    """Read a whole file of weights, and compare the sum that it holds; older ones have none.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    with reading(path, "a safetensors file"):
        _check_sum(path)


def _check_sum(path: Path) -> None:
    found = _find_sum(path)
    if found and (crc := _crc(path, found)) != (stored := found[1].decode("ascii", "replace")):
        raise UserError(f"{path}: damaged: its CRC-32 is {crc}, not {stored} as it was written")


def _write_sum(path: Path) -> None:
    """Put the sum into a file that holds zeros in its place."""
    found = _find_sum(path)
    assert found is not None, "the notes hold a place for it"
    crc = _crc(path, found)
    with path.open("r+b") as file:
        file.seek(8 + found.start(1))
        file.write(crc.encode())


def _find_sum(path: Path) -> re.Match[bytes] | None:
    """Find the sum in the header, which follows its own length in 8 bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _LONGEST_HEADER))
    return _SUM.search(header)


def _crc(path: Path, found: re.Match[bytes]) -> str:
    """Return the CRC-32 of a file with zeros in the place of the sum itself."""
    with path.open("rb") as file:
        head = bytearray(file.read(8 + found.end()))
        head[8 + found.start(1) : 8 + found.end(1)] = _NO_SUM.encode()
        crc = zlib.crc32(head)
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def load_weights(model: nn.Module, weights: Mapping[str, Any], source: Path) -> None:
    """Copy weights into a model, which keeps its device and memory format.

    Raises:
        UserError: they belong to another model.
    """
    model = plain(model)
    try:
        if is_sharded(model):
            live = model.state_dict()
            weights = {n: divided_as(live.get(n), value) for n, value in weights.items()}
        model.load_state_dict(weights)
    except Exception as error:  # a user's own set_extra_state may raise anything
        if is_out_of_memory(error):
            raise
        raise UserError(f"{source}: does not fit this model: {in_a_line(error)}") from error


def load_average(model: nn.Module, average: Mapping[str, Tensor], source: Path) -> None:
    """Copy a moving average, as `MovingAverage.state` names it, over a model's weights.

    Raises:
        UserError: it belongs to another model.
    """
    live = floats(plain(model))
    weights = {name for name, tensor in live.items() if isinstance(tensor, nn.Parameter)}
    if names := ", ".join(sorted((average.keys() - live.keys()) | (weights - average.keys()))):
        raise UserError(f"{source}: does not fit this model: {names} is in one of them only")
    with reading(source, "an average of this model"):
        for name, tensor in average.items():
            live[name].detach().copy_(divided_as(live[name], tensor))


def plain(model: nn.Module) -> nn.Module:
    """Return the model that `torch.compile` wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def finite_buffers(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each buffer that holds neither NaN nor infinity, by name.

    Those of a lazy module, which has not seen a batch yet, are left out.
    """
    own = plain(model).named_buffers()
    buffers = {name: buffer for name, buffer in own if not nn.parameter.is_lazy(buffer)}
    bad = _not_finite(buffers)
    return {name: buffer.shape for name, buffer in buffers.items() if name not in bad}


def first_bad_weight(model: nn.Module, buffers: Mapping[str, torch.Size]) -> str | None:
    """Return the name of the first parameter or buffer that holds NaN or infinity; None if none.

    Ranks may differ: of sharded parameters, each looks at its own part.

    Args:
        model: whose parameters must all be finite.
        buffers: those that were finite when the training began, by `finite_buffers`. Others, such
            as attention masks, may be infinite on purpose; so may one that has changed its shape.
    """
    bare = plain(model)
    own = {n: b for n, b in bare.named_buffers() if buffers.get(n) == b.shape}
    return next(iter(_not_finite({**dict(bare.named_parameters()), **own})), None)


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those that hold NaN or infinity; waits for the device once.

    Of sharded tensors, this rank's part is looked at.
    """
    if not tensors:
        return []
    parts = [own_part(tensor.detach()) for tensor in tensors.values()]
    marks = torch.stack([torch.isfinite(part).all() for part in parts])
    return [name for name, is_finite in zip(tensors, marks.tolist(), strict=True) if not is_finite]
