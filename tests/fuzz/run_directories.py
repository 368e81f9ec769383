"""Damaged run directories: every file of a training, and the commands that read them."""

import functools
import io
import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from case import ANYTHING, REFUSED, Case
from mutations import damage

CONFIG = b"""data: {source: iris, batch_size: 30}
model: linear
optimizer: adam
learning_rate: auto
find: {start: 1e-3, end: 10, steps: 30, repeats: 1}
train: {epochs: 2, ema_decay: 0.9}
metrics: [accuracy]
runtime: {device: cpu}
"""
COMMANDS = (
    "evaluate run",
    "evaluate run --checkpoint last",
    "compare run run --json --output plots --overwrite",
    "train c.yaml --quiet --resume run",
    "train c.yaml --quiet --resume auto --output run --epochs 3",
    "train c.yaml --quiet --lr-from run --epochs 1 --output other --overwrite",
    "train c.yaml --quiet --lr 0.1 --epochs 1 --output run --overwrite",
)
SKIPPED = (".lock", "plot.png", "plot.svg", "report.html")
WEIGHTS = "run/checkpoints/best/model.safetensors"


def case(random):
    """Return a damaged run and a command."""
    return random.choice((damaged_bytes, odd_value, odd_state, lying_header, weights, missing))(
        random
    )


def damaged_bytes(random):
    name = random.choice(sorted(sound()))
    content, done = damage(random, sound()[name])
    return made(random, {name: content}, f"{name}: {done}")


def weights(random):
    """A flipped bit in the numbers of a file of weights is always seen."""
    content = bytearray(sound()[WEIGHTS])
    header = 8 + int.from_bytes(content[:8], "little")
    content[random.randrange(header, len(content))] ^= 1 << random.randrange(8)
    files = {**sound(), WEIGHTS: bytes(content)}
    return Case(["evaluate", "run"], files, REFUSED, done=f"{WEIGHTS}: a bit of its numbers")


def missing(random):
    name = random.choice(sorted(sound()))
    return made(random, {name: None}, f"{name}: missing")


def odd_value(random):
    """A value of a JSON file, at any depth, of another type or size."""
    name = random.choice([name for name in sorted(sound()) if ".json" in name])
    lines = sound()[name].splitlines() if name.endswith("l") else [sound()[name]]
    at = random.randrange(len(lines))
    value, done = changed(random, json.loads(lines[at]))
    lines[at] = json.dumps(value).encode()
    return made(random, {name: b"\n".join(lines) + b"\n"}, f"{name}: {done}")


def odd_state(random):
    """A part of a checkpoint's state of another type, or missing, under a fitting manifest."""
    import torch

    folder = "run/checkpoints/last"
    state = torch.load(io.BytesIO(sound()[f"{folder}/state.pt"]), weights_only=True)
    state, done = changed(random, state)
    file = io.BytesIO()
    torch.save(state, file)
    content = {name.name: sound()[f"{folder}/{name.name}"] for name in map(Path, list_of(folder))}
    content["state.pt"] = file.getvalue()
    if random.random() < 0.1:
        content["state.pt"], done = pickled(random), "a plain pickle"
    content["manifest.json"] = json.dumps(
        {
            name: {"bytes": len(data), "crc32": zlib.crc32(data)}
            for name, data in content.items()
            if name != "manifest.json"
        }
    ).encode()
    return made(
        random, {f"{folder}/{n}": c for n, c in content.items()}, f"{folder}/state.pt: {done}"
    )


def lying_header(random):
    name = random.choice([name for name in sorted(sound()) if name.endswith(".safetensors")])
    content = sound()[name]
    length = int.from_bytes(content[:8], "little")
    header, done = changed(random, json.loads(content[8 : 8 + length]))
    new = json.dumps(header).encode()
    length = random.choice((len(new), len(new), 2**63, 2**40, 0, len(new) + 5))
    lying = length.to_bytes(8, "little") + new + content[8 + length :]
    return made(random, {name: lying}, f"{name}: header: {done}, of {length} bytes")


def changed(random, value):
    """Return a copy of plain data with one place changed, and where that is."""
    if isinstance(value, dict | list | tuple) and value and random.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = random.choice(keys)
        copy = dict(value) if isinstance(value, dict) else list(value)
        if isinstance(value, dict) and random.random() < 0.15:
            del copy[key]
            return copy, f"{key} missing"
        copy[key], place = changed(random, value[key])
        return (tuple(copy) if isinstance(value, tuple) else copy), f"{key}.{place}"
    odd = random.choice(
        (
            *(None, True, -1, 0, 3, 10**30, 10**400, 1e308, -0.5, 5e-324, float("inf")),
            *(float("nan"), "", "x", "auto", "\0", "ü" * 5000, "../../x", [], {}, [[]], {"a": 1}),
            *([1] * 3, deep()),
        )
    )
    return odd, f"= {str(odd)[:20]}"


def deep():
    value = []
    for _ in range(300):
        value = [value]
    return value


def pickled(random):
    import pickle

    values = ({"position": 3}, [1], "x", {"a": {1, 2}}, 10**100, b"")
    return pickle.dumps(random.choice(values), protocol=random.choice((0, 2, 4)))


def made(random, files, done):
    command = random.choice(COMMANDS)
    whole = {**sound(), **files}
    return Case(
        command.split(),
        {"c.yaml": CONFIG, **{name: data for name, data in whole.items() if data is not None}},
        ANYTHING,
        done=f"{command}: {done}",
    )


def list_of(folder):
    return [name for name in sorted(sound()) if name.startswith(f"{folder}/")]


@functools.cache
def sound():
    """Train once, and return the files of the run by their names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "c.yaml").write_bytes(CONFIG)
        command = [sys.executable, "-m", "lrtool", "train", "c.yaml", "--quiet", "-o", "run"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        paths = [path for path in (folder / "run").rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path for path in paths}
        found = {n: p.read_bytes() for n, p in files.items() if p.name not in SKIPPED}
    for name in ("run/report.json", "run/find/report.json"):  # the same bytes each time
        report = json.loads(found[name])
        timing = dict.fromkeys(report["timing"], 1.0)
        timing["steps"] = report["timing"]["steps"]
        found[name] = json.dumps({**report, "timing": timing}).encode()
    marker = json.loads(found["run/.lrtool"])
    marker["files"]["report.json"] = zlib.crc32(found["run/report.json"])
    return {**found, "run/.lrtool": json.dumps(marker).encode()}
