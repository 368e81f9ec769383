"""Damaged data files: tables, archives, IDX files, texts."""

import gzip
import io
import struct
import zipfile

import numpy as np
from case import ANYTHING, REFUSED, THE_SAME, Case
from mutations import damage

NUMBERS = np.random.default_rng(0)
X = NUMBERS.standard_normal((40, 3)).astype(np.float32)
Y = np.arange(40) % 4
IMAGES = NUMBERS.integers(0, 256, (40, 5, 4), dtype=np.uint8)
WORDS = ("red", "green", "blue, light", 'a "quoted" one')
TABLE = "\n".join(
    [
        "width,height,colour,kind",
        *(
            f'{a:.3f},{b:.3f},"{WORDS[n % 4].replace(chr(34), chr(34) * 2)}",{"abcd"[n % 4]}'
            for n, (a, b, _) in enumerate(X)
        ),
    ]
).encode()
TEXT = ("The quick brown fox jumps over the lazy dog – naïvely. " * 30).encode()


def case(random):
    """Return a damaged file and its configuration."""
    return random.choice((table, archive, archive_with_a_lie, images, text))(random)


def configured(source, arguments, model="mlp"):
    args = ", ".join(f"{name}: {value}" for name, value in arguments.items())
    config = f"data: {{source: {source}, args: {{{args}}}, batch_size: 8}}\nmodel: {model}\n"
    return config.encode()


def table(random):
    config = configured("csv", {"path": "table.csv", "target": "kind"})
    content, done = damage(random, TABLE)
    return Case(
        ["check", "c.yaml"],
        {"c.yaml": config, "table.csv": content},
        REFUSED if no_text(content) else ANYTHING,
        done=f"table: {done}",
    )


def archive(random):
    """Any damage to an archive shows: its members carry checksums."""
    file = io.BytesIO()
    save = random.choice((np.savez, np.savez_compressed))
    save(file, x=X, y=Y)
    content, done = damage(random, file.getvalue())
    config = configured("npz", {"path": "data.npz"})
    return Case(
        ["check", "c.yaml"],
        {"c.yaml": config, "data.npz": content},
        THE_SAME,
        {"c.yaml": config, "data.npz": file.getvalue()},
        done=f"{save.__name__}: {done}",
    )


def archive_with_a_lie(random):
    """Return an archive whose checksums are right, and whose headers are not."""
    members = {"x": npy(X), "y": npy(Y)}
    name = random.choice(list(members))
    kind = random.choice(("header", "shape", "content", "method", "twice", "swap", "nothing"))
    outcome, method, twice = ANYTHING, zipfile.ZIP_STORED, ()
    header = len(members[name]) - (X if name == "x" else Y).nbytes
    match kind:
        case "header":
            changed, _ = damage(random, members[name][:header])
            members[name] = changed + members[name][header:]
        case "shape":
            shape = random.choice(
                ("(41, 3)", "(0, 3)", "()", "(-40, -3)", "(40, 10**99)", "(True, 2)", "[1]")
                if random.random() < 0.5
                else (f"({10**30},)", f"(0, {10**30})", "(" * 300, "(40,) * 9**9", "-" * 900)
            )
            members[name] = headed("<f4", shape, members[name][header:])
            outcome = REFUSED
        case "content":
            changed, _ = damage(random, members[name][header:])
            members[name] = members[name][:header] + changed
            same_size = len(changed) == len(members[name]) - header == X.nbytes
            outcome = ANYTHING if same_size or name == "y" else outcome
        case "method":
            method = random.choice((zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
            outcome = REFUSED
        case "twice":
            twice, outcome = (name,), REFUSED
        case "swap":
            members = {"x": members["y"], "y": members["x"]}
        case "nothing":
            members[name], outcome = b"", REFUSED
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for member in (*members, *twice):
            made.writestr(zipfile.ZipInfo(f"{member}.npy"), members[member], method)
    config = configured("npz", {"path": "data.npz"})
    files = {"c.yaml": config, "data.npz": file.getvalue()}
    return Case(["check", "c.yaml"], files, outcome, done=f"a lie in an archive: {kind}")


def images(random):
    """Damage of IDX files shows where their size changes; packed ones carry checksums."""
    packed = random.random() < 0.5
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 40) + Y.astype(np.uint8).tobytes()
    whole = bytes((0, 0, 8, 3)) + struct.pack(">3I", *IMAGES.shape) + IMAGES.tobytes()
    sound = {"train-images-idx3-ubyte": whole, "train-labels-idx1-ubyte": labels}
    if packed:
        sound = {f"{name}.gz": gzip.compress(content) for name, content in sound.items()}
    sound["c.yaml"] = configured("idx", {"path": "."})
    name = random.choice([name for name in sound if name != "c.yaml"])
    content, done = damage(random, sound[name])
    outcome = REFUSED if len(content) != len(sound[name]) else ANYTHING
    return Case(
        ["check", "c.yaml"],
        {**sound, name: content},
        THE_SAME if packed else outcome,
        sound,
        done=f"{name}: {done}",
    )


def text(random):
    config = configured("text", {"path": "words.txt", "context": 16}, "transformer")
    content, done = damage(random, TEXT)
    return Case(
        ["check", "c.yaml"],
        {"c.yaml": config, "words.txt": content},
        REFUSED if no_text(content) else ANYTHING,
        done=f"text: {done}",
    )


def no_text(content):
    try:
        return "\0" in content.decode()
    except UnicodeDecodeError:
        return True


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def headed(kind, shape, content):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
