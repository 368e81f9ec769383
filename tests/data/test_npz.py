import io
import re
import struct
import zipfile

import numpy as np
import pytest

from lrtool.data import input_files
from lrtool.data.sources.npz import npz
from lrtool.errors import DataError

X = np.arange(12, dtype=np.float64).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def save(tmp_path):
    def to_file(name="data.npz", **arrays):
        np.savez_compressed(tmp_path / name, **arrays)
        return name

    return to_file


def test_numbers_as_they_are(save, split):
    parts = npz(split(2, seed=1), path=save(x=X, y=Y))
    both = np.concatenate([parts.train.inputs, parts.validation.inputs])
    assert sorted(both.tolist()) == X.tolist()
    assert (both.dtype, parts.train.targets.dtype) == (np.float32, np.int64)
    assert np.bincount(parts.validation.targets).tolist() == [1, 1]
    assert (parts.num_outputs, parts.vocabulary) == (2, None)
    assert (parts.train.targets == parts.train.inputs[:, 0] // 2 % 2).all()


def test_names_of_arrays(save, split):
    parts = npz(split(), path=save(pixels=X, labels=Y), inputs="pixels", targets="labels")
    assert len(parts.train.inputs) == 6


@pytest.mark.parametrize(
    ("inputs", "targets", "shapes", "outputs", "vocabulary"),
    [
        (np.zeros(3), np.zeros(3), [(3, 1), (3, 1)], 1, None),
        (np.zeros((3, 4)), np.zeros((3, 2)), [(3, 4), (3, 2)], 2, None),
        (np.zeros((3, 8, 8), np.uint8), np.ones((3, 1), int), [(3, 8, 8), (3,)], 2, None),
        (np.full((3, 5), 6), np.full((3, 5), 7, np.int16), [(3, 5), (3, 5)], 8, 7),
        (np.zeros((3, 5), bool), np.array([0, 4, 2], np.uint8), [(3, 5), (3,)], 5, None),
    ],
)
def test_shapes_and_types(inputs, targets, shapes, outputs, vocabulary, *, save, split):
    parts = npz(split(), path=save(x=inputs, y=targets))
    train = parts.train
    assert [train.inputs.shape, train.targets.shape] == shapes
    assert train.inputs.dtype == (np.float32 if vocabulary is None else np.int64)
    assert train.targets.dtype == (np.float32 if targets.dtype.kind == "f" else np.int64)
    assert (parts.num_outputs, parts.vocabulary) == (outputs, vocabulary)


def test_bytes_are_not_scaled(save, split):
    parts = npz(split(), path=save(x=np.array([[255], [7]], np.uint8), y=[0, 1]))
    assert parts.train.inputs.tolist() == [[255], [7]]


def test_a_validation_archive(save, split):
    other = save("other.npz", x=X[:2] + 100, y=np.array([1, 2]))
    parts = npz(split(other), path=save(x=X, y=Y))
    assert len(parts.train.targets) == 6
    assert parts.validation.inputs[0].tolist() == [100, 101]
    assert parts.num_outputs == 3
    tokens = save("tokens.npz", x=np.array([[9, 0]]), y=[1])
    assert npz(split(tokens), path=save(x=X.astype(int)[:3], y=Y[:3])).vocabulary == 10


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"inputs": X, "y": Y},
            "{file}: no array 'x'; it holds inputs, y{OTHERS}",
        ),
        (
            {"x": X, "Y": Y},
            "{file}: no array 'y' (did you mean 'Y'?); it holds x, Y{OTHERS}",
        ),
        ({}, "{file}: no array 'x'; it holds none"),
        ({"x": X, "y": Y[:4]}, "{file}: 'x' has 6 rows and 'y' has 4"),
        ({"x": X, "y": 3}, "{file}: 'y' is a single value, not one for each sample"),
        ({"x": X[:0], "y": Y[:0]}, "{file}: 'x' and 'y' have no rows"),
        ({"x": X, "y": Y.astype(str)}, "{file}: 'y' is of type <U21; it must hold numbers"),
        ({"x": X * 1j, "y": Y}, "{file}: 'x' is of type complex128; it must hold numbers"),
        (
            {"x": X.astype(object), "y": Y},
            (
                "{file}: 'x' is pickled, which could run code; save plain"
                " arrays of numbers with numpy.savez"
            ),
        ),
        (
            {"x": np.where(X == 9, np.nan, X), "y": Y},
            (
                "{file}: 'x': row 4 (counted from 0) holds nan; 1 of 6 rows have a value that is"
                " not finite: correct or remove them"
            ),
        ),
        ({"x": X * 1e300, "y": Y}, "{file}: 'x': row 0 (counted from 0) holds inf"),
        ({"x": X, "y": np.where(Y, np.inf, 0)}, "{file}: 'y': row 1 (counted from 0) holds inf"),
        (
            {"x": X, "y": Y - 1},
            (
                "{file}: 'y': row 0 (counted from 0) holds -1; integers are class indices and count"
                " from 0"
            ),
        ),
        (
            {"x": X, "y": Y * 100_000},
            (
                "{file}: 'y': row 1 (counted from 0) holds class 100000, but there are only 6 rows;"
                " save targets to regress as floats"
            ),
        ),
        (
            {"x": X.astype(int).reshape(6, 1, 2), "y": Y},
            (
                "{file}: 'x' holds int64 with shape (6, 1, 2); integers are tokens and must be (N,"
                " T): save numbers as float32, images as uint8 or float32"
            ),
        ),
        (
            {"x": X.astype(int) - 5, "y": Y},
            "{file}: 'x': row 0 (counted from 0) holds -5; integers are tokens and count from 0",
        ),
    ],
)
def test_refused(arrays, message, save, split, tmp_path):
    path = save(**arrays)
    others = "; data.args.inputs and data.args.targets name others"
    message = message.replace("{file}", str(tmp_path / path)).replace("{OTHERS}", others)
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        npz(split(), path=path)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            X[:, :1],
            Y,
            "'x' is float32 with shape (6, 1), which does not fit float32 and (6, 2)",
        ),
        (X, Y * 0.5, "'y' is float32 with shape (6, 1), which does not fit int64 and (6,)"),
    ],
)
def test_refused_validation_archives(x, y, message, *, save, split, tmp_path):
    path, other = save(x=X, y=Y), save("other.npz", x=x, y=y)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / other}: {message}")):
        npz(split(other), path=path)


def test_broken_archives(save, split, tmp_path):
    whole = (tmp_path / save(x=X, y=Y)).read_bytes()
    broken = tmp_path / "broken.npz"

    def refused(content):
        broken.write_bytes(content)
        with pytest.raises(DataError) as caught:
            npz(split(), path="broken.npz")
        return str(caught.value).removeprefix(f"{broken}")

    assert refused(whole[:-30]).startswith(": cannot be read; is the file broken? ")
    assert refused(b"") == ": the file is empty"
    save_again = "is no .npz file; save plain arrays of numbers with numpy.savez"
    assert refused(b"\x80\x04N.") == refused(b"hello, world") == f": {save_again}"
    start = whole.index(b"y.npy") + 30  # inside the compressed data of y
    bad = whole[:start] + bytes(byte ^ 0xFF for byte in whole[start : start + 8])
    assert refused(bad + whole[start + 8 :]).startswith(
        ": 'y' cannot be read; is the file broken? "
    )
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("x.npy", b"PK")
    assert refused(broken.read_bytes()).startswith(": 'x' cannot be read; is the file broken? ")


def packed(tmp_path, members, method=zipfile.ZIP_STORED, name="made.npz"):
    """Write an archive from the bytes of its members."""
    with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return name


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def headed(header, content=b""):
    """Return a .npy file with a header of our own."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    "x", [np.asfortranarray(X), X.astype(">f8"), X.astype("<f2"), X.astype(np.longdouble)]
)
def test_all_that_numpy_writes_of_numbers(version, x, *, split, tmp_path):
    y = Y.astype(">i2")
    path = packed(tmp_path, [("x.npy", npy(x, version)), ("y.npy", npy(y, version))])
    train = npz(split(), path=path).train
    assert (train.inputs.tolist(), train.targets.tolist()) == (X.tolist(), Y.tolist())
    assert train.inputs.dtype.isnative


def test_any_bit_that_is_flipped_is_noticed_or_changes_nothing(split, tmp_path):
    """In an archive with an array as numpy.savez has it, and one as numpy.savez_compressed."""
    file = tmp_path / "flipped.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for name, array, method in (
            ("x.npy", X[:3], zipfile.ZIP_STORED),
            ("y.npy", Y[:3], zipfile.ZIP_DEFLATED),
        ):
            member = zipfile.ZipInfo(name)
            member.compress_type = method
            with archive.open(member, "w", force_zip64=True) as content:
                np.lib.format.write_array(content, array)
    whole, refused = file.read_bytes(), 0
    for place in range(8 * len(whole)):
        wrong = bytearray(whole)
        wrong[place // 8] ^= 1 << place % 8
        file.write_bytes(wrong)
        try:
            train = npz(split(), path="flipped.npz").train
        except DataError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017  (some flips are harmless)
            refused += 1
        else:
            assert (train.inputs.tolist(), train.targets.tolist()) == (
                X[:3].tolist(),
                Y[:3].tolist(),
            )
    assert refused > 4 * len(whole)


NESTED = "(" * 4000 + "1" + ")" * 4000
Y_MEMBER = ("y.npy", npy(Y))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (headed("{"), "'x' cannot be read; is the file broken? "),
        (headed("{'descr': '<f4', 'fortran_order': 3, 'shape': (1,)}"), "'x' cannot be read"),
        (headed("{'descr': [], 'fortran_order': False, 'shape': (1,)}"), "'x' "),
        (headed("{'descr': '<f4', 'fortran_order': False, 'shape': " + NESTED), "'x' cannot be"),
        (headed("-" * 9000 + "1"), "'x' cannot be read"),
        (headed("\0" * 100), "'x' cannot be read"),
        (headed("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10**30)}"), "'x' cannot"),
        (
            headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {10**30})}}"),
            "'x' cannot be read",
        ),
        (
            headed("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", bytes(16)),
            "'x' cannot be read; is the file broken? negative dimensions are not allowed",
        ),
        (
            headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**12}, 9)}}"),
            (
                f"'x' is broken: the shape ({10**12}, 9) of float32 in its header needs"
                f" {36 * 10**12} bytes, but there are 0"
            ),
        ),
        (
            npy(X)[:-8],
            (
                "'x' is broken: the shape (6, 2) of float64 in its header needs 96 bytes, but"
                " there are 88"
            ),
        ),
        (npy(X) + b"more", "'x' is broken: the shape (6, 2) of float64 in its header needs 96"),
        (npy(X).replace(b"NUMPY\x01", b"NUMPY\x03"), "'x' cannot be read; is the file broken? "),
        (npy(np.zeros(3, [("a", "f4")])), "'x' is of type [('a', '<f4')]; it must hold numbers"),
        (npy(np.zeros((6, 0))), "'x' has the shape (6, 0), so there is no value"),
    ],
)
def test_members_that_are_no_arrays(content, message, *, split, tmp_path):
    path = packed(tmp_path, [("x.npy", content), Y_MEMBER])
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / path}: {message}")):
        npz(split(), path=path)


def test_an_object_is_never_unpickled(split, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("it ran",))

    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([Evil()], object), allow_pickle=True)
    path = packed(tmp_path, [("x.npy", file.getvalue()), Y_MEMBER])
    with pytest.raises(DataError, match="'x' is pickled, which could run code; save plain arrays"):
        npz(split(), path=path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_numpy_never_writes(split, tmp_path):
    def refused(path):
        with pytest.raises(DataError) as caught:
            npz(split(), path=path)
        return str(caught.value).removeprefix(f"{tmp_path / path}: ")

    x = ("x.npy", npy(X))
    assert refused(packed(tmp_path, [x, x, Y_MEMBER])) == "holds 'x' 2 times"
    assert refused(packed(tmp_path, [x, ("x", npy(X)), Y_MEMBER])) == "holds 'x' 2 times"
    assert refused(packed(tmp_path, [x, Y_MEMBER], zipfile.ZIP_LZMA)) == (
        "'x' is packed by method 14, not by NumPy"
    )
    assert refused(packed(tmp_path, [])) == "no array 'x'; it holds none"
    many = [(f"../{number}.npy", b"") for number in range(30)]
    assert "../18, ../19, …; data.args.inputs" in refused(packed(tmp_path, many))
    whole = bytearray((tmp_path / packed(tmp_path, [x, Y_MEMBER])).read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # of the flags
    (tmp_path / "made.npz").write_bytes(whole)
    assert refused("made.npz").startswith("'x' is encrypted; save plain arrays")


def test_a_zip_bomb_is_not_unpacked(split, tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "SMALL", 10_000)
    zeros = ("x.npy", npy(np.zeros((6, 10_000))))
    path = packed(tmp_path, [zeros, Y_MEMBER], zipfile.ZIP_DEFLATED)
    message = r"'x': \d+ bytes unpack to 480,128, as only a zip bomb does; if they are data, save"
    with pytest.raises(DataError, match=message):
        npz(split(), path=path)
    assert npz(split(), path=packed(tmp_path, [zeros, Y_MEMBER])).train.inputs.shape == (6, 10_000)


def test_a_single_array(split, tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"x\.npy: holds one array without a name; numpy\.savez"):
        npz(split(), path="x.npy")
