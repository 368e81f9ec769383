import gzip
import re
import struct

import numpy as np
import pytest

from lrtool.data import input_files
from lrtool.data.sources.idx import idx
from lrtool.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (20, 4, 3), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 5


def packed(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def write(tmp_path):
    def to_files(images=IMAGES, labels=LABELS, *, prefix="train", end=""):
        """Write two files, given as arrays or as bytes."""
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            data = content if isinstance(content, bytes) else packed(content)
            path = tmp_path / f"{prefix}-{kind}-ubyte{end}"
            path.write_bytes(
                gzip.compress(data) if end and not isinstance(content, bytes) else data
            )

    return to_files


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("path", [".", "train"])
def test_by_hand(end, path, write, split):
    write(end=end)
    parts = idx(split(), path=path)
    scaled = (IMAGES - IMAGES.mean()) / IMAGES.std()  # dividing both by 255 changes nothing
    np.testing.assert_allclose(parts.train.inputs, scaled[:, None], rtol=1e-4, atol=1e-6)
    assert parts.train.inputs.shape == (20, 1, 4, 3)
    assert (parts.train.inputs.dtype, parts.train.targets.dtype) == (np.float32, np.int64)
    assert parts.train.targets.tolist() == LABELS.tolist()
    assert (parts.num_outputs, parts.vocabulary) == (5, None)


def test_the_training_part_alone_sets_the_scale(write, split):
    write()
    parts = idx(split(0.25, seed=2), path=".")
    assert np.bincount(parts.validation.targets).tolist() == [1] * 5
    np.testing.assert_allclose(parts.train.inputs.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train.inputs.std(), 1, rtol=1e-5)
    assert abs(parts.validation.inputs.mean()) > 1e-3


def test_another_prefix_for_validation(write, split):
    write()
    write(IMAGES[:2] // 2, LABELS[:2] + 4, prefix="t10k", end=".gz")
    parts = idx(split("t10k"), path=".")
    scaled = (IMAGES[:2] // 2 - IMAGES.mean()) / IMAGES.std()
    np.testing.assert_allclose(parts.validation.inputs[:, 0], scaled, rtol=1e-4, atol=1e-6)
    assert parts.validation.targets.tolist() == [4, 5]
    assert parts.num_outputs == 6
    write(IMAGES[:, :, :2], prefix="t10k")
    with pytest.raises(DataError, match=r"t10k-.*: images of 4 × 2 pixels, but .* images of 4 × 3"):
        idx(split("t10k"), path=".")


def test_images_of_one_grey_become_0(write, split):
    write(np.full((2, 2, 2), 7, np.uint8), LABELS[:2])
    assert not idx(split(), path=".").train.inputs.any()


IMAGE_FILE, LABEL_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            packed(IMAGES)[:-5],
            LABELS,
            (
                f"{IMAGE_FILE}: truncated: ends at byte 251, but the sizes (20, 4, 3) of its header"
                " need 256 bytes"
            ),
        ),
        (
            packed(IMAGES) + b"abc",
            LABELS,
            (
                f"{IMAGE_FILE}: byte 256: more bytes after the values that the sizes (20, 4, 3) of"
                " its header announce"
            ),
        ),
        (
            packed(LABELS),
            LABELS,
            (
                f"{IMAGE_FILE}: byte 0: the magic number is 0x00000801, but 0x00000803 marks an IDX"
                " file of unsigned bytes in 3 dimensions"
            ),
        ),
        (
            IMAGES,
            b"\x1f",
            (
                f"{LABEL_FILE}: byte 0: the magic number is 0x1f, but 0x00000801 marks an IDX file"
                " of unsigned bytes in 1 dimension"
            ),
        ),
        (
            gzip.compress(packed(IMAGES)),
            LABELS,
            f"{IMAGE_FILE}: is packed with gzip; give it a name that ends in .gz",
        ),
        (packed(IMAGES)[:9], LABELS, f"{IMAGE_FILE}: ends at byte 9, inside the 16-byte header"),
        (
            packed(IMAGES[:0]),
            LABELS,
            f"{IMAGE_FILE}: byte 4: the header gives the sizes (0, 4, 3), so there is no value",
        ),
        (b"", LABELS, f"{IMAGE_FILE}: the file is empty"),
        (
            packed(IMAGES)[:4] + b"\xff" * 12,
            LABELS,
            (
                f"{IMAGE_FILE}: truncated: ends at byte 16, but the sizes (4294967295, 4294967295,"
                " 4294967295) of its header need"
            ),
        ),
    ],
)
def test_broken_files(images, labels, message, *, write, split, tmp_path):
    write(images, labels)
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/{message}')}"):
        idx(split(), path=".")


def test_counts_that_differ(write, split, tmp_path):
    write(IMAGES, LABELS[:19])
    message = f"{tmp_path}/{LABEL_FILE}: 19 labels, but {tmp_path}/{IMAGE_FILE} has 20 images"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        idx(split(), path=".")


def test_broken_gzip(write, split):
    whole = gzip.compress(packed(IMAGES))
    wrong = bytearray(whole)
    wrong[40] ^= 0xFF
    for content in (whole[:-20], bytes(wrong), b"no gzip"):
        write(content, LABELS, end=".gz")
        size = len(content)
        place = rf"idx3-ubyte\.gz: the gzip data break before byte \d+ of {size}: .+; fetch the"
        with pytest.raises(DataError, match=place):
            idx(split(), path=".")


def test_any_bit_that_is_flipped_in_gzip_is_noticed_or_changes_nothing(write, split, tmp_path):
    write(IMAGES[:2], LABELS[:2])
    expected = idx(split(), path=".").train.inputs
    for file in tmp_path.iterdir():
        file.unlink()
    write(IMAGES[:2], LABELS[:2], end=".gz")
    file = tmp_path / f"{IMAGE_FILE}.gz"
    whole = file.read_bytes()
    for place in range(8 * len(whole)):
        wrong = bytearray(whole)
        wrong[place // 8] ^= 1 << place % 8
        file.write_bytes(wrong)
        try:
            inputs = idx(split(), path=".").train.inputs
        except DataError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017  (flips of the date do nothing)
        else:
            np.testing.assert_array_equal(inputs, expected)


def test_a_gzip_bomb_is_not_unpacked(write, split, monkeypatch):
    monkeypatch.setattr(input_files, "SMALL", 100_000)
    write(np.zeros((20, 100, 100), np.uint8), end=".gz")
    with pytest.raises(DataError, match=r"unpacks to more than 100,000 bytes, as only a gzip bomb"):
        idx(split(), path=".")
    write(packed(IMAGES) + bytes(10**6), gzip.compress(packed(LABELS)), end=".gz")
    lie = gzip.compress(packed(IMAGES)[:4] + b"\xff" * 12 + bytes(10**6))
    write(lie, gzip.compress(packed(LABELS)), end=".gz")
    with pytest.raises(DataError, match=r"unpacks to more than 1\d\d,\d\d\d bytes"):
        idx(split(), path=".")


def test_missing_files(write, split, tmp_path):
    with pytest.raises(DataError, match=r"^x/train-images-idx3-ubyte or .*: no such file \(looked"):
        idx(split(), path="x")
    write()
    (tmp_path / LABEL_FILE).unlink()
    with pytest.raises(DataError, match=rf"{LABEL_FILE}\.gz: no such file"):
        idx(split(), path=".")
