import numpy as np
import pytest

from lrtool.data.sources.text import text
from lrtool.errors import ConfigError, DataError


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="a.txt"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return to_file


def test_by_hand(write, split):
    parts = text(split(), path=write("abcab cä"), context=3)
    # " " a b c ä are 0 1 2 3 4, and 5 stands for any other
    assert parts.train.inputs.tolist() == [[1, 2, 3], [1, 2, 0]]
    assert parts.train.targets.tolist() == [[2, 3, 1], [2, 0, 3]]
    assert parts.train.inputs.dtype == parts.train.targets.dtype == np.int64
    assert (parts.num_outputs, parts.vocabulary) == (6, 6)
    assert parts.validation is None


def test_the_end_of_the_text_is_for_validation(write, split):
    content = "".join(chr(ord("a") + i % 7) for i in range(101))
    parts = text(split(0.3), path=write(content), context=10)
    tokens = np.array([ord(c) - ord("a") for c in content])
    assert parts.train.inputs.ravel().tolist() == tokens[:70].tolist()
    assert parts.train.targets.ravel().tolist() == tokens[1:71].tolist()
    assert parts.validation.inputs.ravel().tolist() == tokens[70:100].tolist()
    assert parts.validation.targets.ravel().tolist() == tokens[71:].tolist()
    assert len(text(split(4), path="a.txt", context=10).validation.inputs) == 4


def test_the_vocabulary_is_that_of_the_training_part(write, split):
    parts = text(split(1), path=write("ababa" + "bzé!"), context=4)
    assert parts.vocabulary == 3
    assert parts.validation.inputs.tolist() == [[0, 1, 2, 2]]
    assert parts.validation.targets.tolist() == [[1, 2, 2, 2]]
    assert parts.train.targets.max() == 1


def test_a_validation_file(write, split):
    other = write("bbx\nb", "b.txt")
    parts = text(split(other), path=write("aabab\n"), context=2)
    assert parts.train.inputs.tolist() == [[1, 1], [2, 1]]
    assert parts.validation.inputs.tolist() == [[2, 2], [3, 0]]


def test_refused(write, split):
    with pytest.raises(ConfigError, match=r"^data\.args\.context: must be at least 1, not 0$"):
        text(split(), path=write("abc"), context=0)
    with pytest.raises(
        DataError, match=r"a\.txt: 3 characters are too few for one window of data\.args\.context 3"
    ):
        text(split(), path="a.txt", context=3)
    with pytest.raises(DataError, match=r"a\.txt: line 2: not UTF-8 text \(byte 0xff at 4\)"):
        text(split(), path=write(b"abc\n\xff\xfe"))
    with pytest.raises(DataError, match=r"a\.txt: the file is empty"):
        text(split(), path=write(""))
    with pytest.raises(
        ConfigError, match=r"leaves nothing to train on, for .*a\.txt \(windows of 5"
    ):
        text(split(2), path=write("abcdefghijk"), context=5)
