import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from lrtool.data.input_files import find_file, read_bytes, read_text
from lrtool.data.split import Split
from lrtool.errors import ConfigError, DataError


def some(validation, seed=0):
    return Split(validation, seed, ())


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=60),
    st.one_of(st.integers(0, 59), st.floats(0, 0.99)),
    st.integers(0, 2**32 - 1),
)
def test_each_row_is_in_one_part(classes, validation, seed):
    classes = np.array(classes)
    split = some(validation, seed)
    try:
        size = split.size(len(classes), "these")
    except ConfigError:
        return
    train, held_out = split.indices(len(classes), "these", classes)
    assert (0 if held_out is None else len(held_out)) == size
    both = train if held_out is None else np.concatenate([train, held_out])
    assert sorted(both) == list(range(len(classes)))


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=200),
    st.integers(1, 199),
    st.integers(0, 2**32 - 1),
)
def test_the_rows_are_those_that_scikit_learn_draws(classes, size, seed):
    classes = np.array(classes)
    size = min(size, len(classes) - 1)
    rows = np.arange(len(classes))
    _, held_out = some(size, seed).indices(len(classes), "these")
    _, expected = train_test_split(rows, test_size=size, random_state=seed)
    assert held_out.tolist() == sorted(expected)

    _, held_out = some(size, seed).indices(len(classes), "these", classes)
    rows = rows[np.bincount(classes)[classes] > 1]
    with contextlib.suppress(ValueError):  # too few rows for each class to be in both parts
        _, expected = train_test_split(
            rows, test_size=size, stratify=classes[rows], random_state=seed
        )
    assert held_out.tolist() == sorted(expected)


@pytest.mark.parametrize(("validation", "size"), [(0.2, 24), (24, 24), (1, 1), (0, 0), (0.0, 0)])
def test_a_fraction_or_a_count(validation, size):
    assert some(validation).size(120, "these") == size


def test_each_class_has_its_share():
    classes = np.repeat([0, 1, 2], [60, 30, 10])
    train, held_out = some(0.2).indices(100, "these", classes)
    assert np.bincount(classes[train]).tolist() == [48, 24, 8]
    assert np.bincount(classes[held_out]).tolist() == [12, 6, 2]


def test_a_class_of_one_row_is_for_training():
    classes = np.array([0] * 10 + [1] * 10 + [2])
    for seed in range(10):
        train, held_out = some(6, seed).indices(21, "these", classes)
        assert 20 in train
        assert np.bincount(classes[held_out]).tolist() == [3, 3]


def test_parts_too_small_for_each_class_are_drawn_regardless():
    classes = np.arange(20) // 2
    train, held_out = some(3).indices(20, "these", classes)
    assert (len(train), len(held_out)) == (17, 3)


def test_the_seed_decides():
    first, again, other = (some(0.5, seed).indices(50, "these")[1] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("validation", "total", "message"),
    [
        (
            0.01,
            20,
            (
                "data.validation: 0.01 of the 20 samples of wine is none; give a larger fraction,"
                " or 0 for no validation"
            ),
        ),
        (
            20,
            20,
            "data.validation: 20 leaves nothing to train on, for wine has 20 samples",
        ),
        (
            0.99,
            20,
            "data.validation: 0.99 leaves nothing to train on, for wine has 20 samples",
        ),
        (
            "test.csv",
            20,
            (
                "data.validation: wine cannot read a validation set from a path ('test.csv'); give"
                " a fraction below 1, a number of samples, or 0"
            ),
        ),
    ],
)
def test_no_such_split(validation, total, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        some(validation).indices(total, "wine")


def test_the_first_directory_that_has_the_file_wins(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (two / "x.csv").touch()
    assert find_file("x.csv", [one, two]) == two / "x.csv"
    (one / "x.csv").touch()
    assert find_file("x.csv", [one, two]) == one / "x.csv"
    assert find_file(str(two / "x.csv"), [one]) == two / "x.csv"
    (one / "y.gz").touch()
    assert find_file("y", [one, two], ["", ".gz"]) == one / "y.gz"


def test_a_missing_file_names_the_places(tmp_path):
    here, there = tmp_path, Path("elsewhere")
    message = f"x.csv: no such file (looked in {here}, {there})"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        find_file("x.csv", [here, there, here])
    with pytest.raises(DataError, match=r"^/no/x or /no/x\.gz: no such file$"):
        find_file("/no/x", [here], ["", ".gz"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"^folder: is a directory, not a file$"):
        find_file("folder", [here])


def test_what_cannot_be_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"x: the file is empty$"):
        read_bytes(path)
    with pytest.raises(DataError, match=r"cannot be read: Is a directory$"):
        read_bytes(tmp_path)
    path.write_bytes(b"one\ntwo \xff")
    with pytest.raises(DataError, match=r"x: line 2: not UTF-8 text \(byte 0xff at 8\)"):
        read_text(path)
    path.write_bytes(b"\xef\xbb\xbfone")
    assert read_text(path) == "one"
