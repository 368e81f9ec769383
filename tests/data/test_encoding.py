"""What a run has learned of its data: the file, and the same numbers from other data."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrtool.config.schema import DataConfig
from lrtool.data import encoding as encodings
from lrtool.data.encoding import (
    ArrayInputs,
    CharacterInputs,
    Classes,
    ClassIndices,
    Encoding,
    GreyInputs,
    NumberColumn,
    StoredSplit,
    TableInputs,
    Values,
    WordsColumn,
)
from lrtool.data.load import load
from lrtool.errors import DataError, LrtoolWarning, UserError

TABLE = "size,city,kind\n" + "".join(
    f"{size},{city},{kind}\n"
    for size, city, kind in zip(
        range(0, 60, 2), ["Rome", "Oslo", ""] * 10, ["b", "a"] * 15, strict=True
    )
)


def split_of(**changes):
    facts = {"validation": 0.2, "seed": 0, "samples": {"train": 4, "validation": 1}}
    return StoredSplit(**{**facts, "train_digest": "1" * 64, "digest": "0" * 64, **changes})


def encoding_of(inputs, targets, shape=(1,), outputs=1, vocabulary=None):
    return Encoding("csv", inputs, targets, shape, outputs, vocabulary, split_of())


def read_data(directory, source, encoding=None, validation=0.2, **args):
    spec = DataConfig(source=source, args=args, batch_size=2, validation=validation)
    return load(spec, seed=1, factory=None, directories=(directory,), encoding=encoding)


@pytest.fixture
def sources(tmp_path):
    """Arguments of every source that reads files, and of one that does not."""
    random = np.random.default_rng(0)
    (tmp_path / "a.csv").write_text(TABLE)
    (tmp_path / "a.txt").write_text("In the bejewelled garden, 3 bees.\n\t« ünï »" * 3)
    np.savez(tmp_path / "a.npz", x=random.normal(size=(20, 3)), y=random.normal(size=(20, 2)))
    np.savez(tmp_path / "t.npz", x=random.integers(0, 9, (20, 3)), y=random.integers(0, 4, 20))
    for part, shape in (("images-idx3", (12, 4, 5)), ("labels-idx1", (12,))):
        values = random.integers(0, 256 if len(shape) > 1 else 3, shape).astype(np.uint8)
        magic = bytes((0, 0, 8, len(shape)))
        header = magic + np.array(shape, ">u4").tobytes()
        (tmp_path / f"train-{part}-ubyte").write_bytes(header + values.tobytes())
    return [
        ("csv", {"path": "a.csv", "target": "kind"}),
        ("csv", {"path": "a.csv", "target": "size"}),
        ("text", {"path": "a.txt", "context": 4}),
        ("npz", {"path": "a.npz"}),
        ("npz", {"path": "t.npz"}),
        ("idx", {"path": "."}),
        ("diabetes", {}),
        ("iris", {}),
        ("synthetic", {"samples": 50, "task": "regression"}),
    ]


def test_every_sources_encoding_survives_its_file_and_reads_the_same_numbers(tmp_path, sources):
    for source, args in sources:
        first = read_data(tmp_path, source, **args)
        encodings.write(first.encoding, tmp_path)
        stored = encodings.read(tmp_path)
        assert stored == first.encoding
        again = read_data(tmp_path, source, stored, **args)
        assert again.encoding == first.encoding
        assert again.digest == first.digest


def test_the_file_by_hand(tmp_path):
    (tmp_path / "a.csv").write_text("size,city,kind\n1,Rome,yes\n,Oslo,no\n3,,yes\n5,Rome,no\n")
    loaded = read_data(tmp_path, "csv", validation=0, path="a.csv", target="kind")
    encodings.write(loaded.encoding, tmp_path)
    content = json.loads((tmp_path / "encoding.json").read_text())
    assert list(content) == ["schema_version", "sha256", "encoding"]
    size = {"kind": "number", "name": "size", "fill": 3, "mean": 3, "deviation": 2**0.5}
    size["marks"] = None  # none are looked for
    city = {"kind": "words", "name": "city", "words": ["", "Oslo", "Rome"]}
    classes = {"kind": "classes", "name": "kind", "classes": ["no", "yes"], "numbers": False}
    assert content["encoding"] == {
        "source": "csv",
        "inputs": {"kind": "table", "columns": [size, city], "fields": None},
        "targets": classes,
        "input_shape": [4],
        "num_outputs": 2,
        "vocabulary": None,
        "split": {
            "validation": 0,
            "seed": 1,
            "samples": {"train": 4, "validation": 0},
            "train_digest": loaded.digest,
            "digest": loaded.digest,
        },
    }


def test_another_table_is_read_with_the_scale_and_the_words_of_the_training(tmp_path):
    (tmp_path / "a.csv").write_text("size,city,kind\n1,Rome,7\n,Oslo,9.0\n3,,7.0\n5,Rome,9\n")
    known = read_data(tmp_path, "csv", validation=0, path="a.csv", target="kind").encoding
    # other order, a further column, classes spelled differently, one class alone, a new city
    (tmp_path / "b.csv").write_text("city,kind,note,size\nOslo,9.00,x,7\nBonn,9,y,\nRome,9,,3\n")
    with pytest.warns(
        LrtoolWarning,
        match="column 'city': 1 of 3 rows hold a word that the training set does not have, such as "
        "'Bonn'; its inputs are 0",
    ):
        other = read_data(tmp_path, "csv", known, validation=0, path="b.csv", target="kind")
    expected = [[4 / 2**0.5, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(other.train.inputs.numpy(), expected, rtol=1e-6)
    assert other.train.targets.tolist() == [1, 1, 1]
    assert other.num_outputs == 2
    assert other.batch_size == 2


def test_missing_words_that_the_training_does_not_have_are_said(tmp_path):
    (tmp_path / "a.csv").write_text("size,city,kind\n1,Rome,7\n4,Oslo,9\n3,Oslo,7\n5,Rome,9\n")
    known = read_data(tmp_path, "csv", validation=0, path="a.csv", target="kind").encoding
    rows = "city,kind,size\n,9,7\n,9,1\nRome,9,3\n"
    for row, words in [
        ("", "2 of 3 rows hold no value, as none does in the training set; its inputs are 0"),
        ("Bonn,7,1\n", "3 of 4 rows hold a word .*, such as 'Bonn' or no value, as none does in"),
    ]:
        (tmp_path / "b.csv").write_text(rows + row)
        with pytest.warns(LrtoolWarning, match=f"column 'city': {words}"):
            read_data(tmp_path, "csv", known, validation=0, path="b.csv", target="kind")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            "size,city,kind\n1,Rome,a\n2,Oslo,c\n",
            "line 3: the class 'c' of 'kind' is not one that the run knows, as in 1 of 2 rows",
        ),
        (
            "Size,town\n1,Rome\n",
            r"line 1: no column 'size', 'city', 'kind', which .*'Size'.*; there are 'Size', 'town'",
        ),
        (
            "size,city,kind\n1,Rome,a\nbig,Oslo,b\n",
            "line 3: column 'size' holds 'big', but in the training it was a column of numbers",
        ),
        ("size,city,kind\n1,Rome,a\ninf,Oslo,b\n", "line 3: column 'size' holds 'inf', which is"),
        ("size,city,kind\n1,Rome,a\n2,Oslo,\n", "line 3: the target 'kind' is missing, as in 1"),
    ],
)
def test_what_the_run_does_not_know_is_refused(tmp_path, table, words):
    (tmp_path / "a.csv").write_text(TABLE)
    known = read_data(tmp_path, "csv", path="a.csv", target="kind").encoding
    (tmp_path / "b.csv").write_text(table)
    with pytest.raises(DataError, match=f"^{tmp_path}/b.csv: {words}"):
        read_data(tmp_path, "csv", known, validation=0, path="b.csv", target="kind")


def test_a_target_that_is_no_number_is_refused_where_the_run_learned_numbers(tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    known = read_data(tmp_path, "csv", path="a.csv", target="size").encoding
    (tmp_path / "b.csv").write_text("size,city,kind\n1,Rome,a\nbig,Oslo,b\n")
    with pytest.raises(DataError, match=r"b.csv: line 3: the target 'size' is 'big', not a number"):
        read_data(tmp_path, "csv", known, validation=0, path="b.csv", target="size")


def test_arrays_that_do_not_fit_are_refused(tmp_path, sources):
    random = np.random.default_rng(1)
    floats = read_data(tmp_path, "npz", path="a.npz").encoding
    tokens = read_data(tmp_path, "npz", path="t.npz").encoding
    for known, x, y, words in (
        (floats, random.normal(size=(5, 4)), random.normal(size=(5, 2)), r"of shape \(4,\), but"),
        (floats, random.normal(size=(5, 3)), random.normal(size=(5, 1)), "1 targets for a sample"),
        (floats, random.normal(size=(5, 3)), np.arange(5), "classes as targets, but .* numbers"),
        (tokens, np.full((5, 3), 9), np.arange(5) % 4, "the token 9, but .* trained on 0 to 8"),
        (tokens, np.full((5, 3), 8), np.arange(5), "the class 4, but .* trained on 0 to 3"),
    ):
        np.savez(tmp_path / "b.npz", x=x, y=y)
        with pytest.raises(DataError, match=f"^b.npz: the data ha?o?(ve|ld) .*{words}"):
            read_data(tmp_path, "npz", known, validation=0, path="b.npz")
    np.savez(tmp_path / "b.npz", x=np.full((5, 3), 0), y=np.zeros(5, int))
    other = read_data(tmp_path, "npz", tokens, validation=0, path="b.npz")
    assert (other.num_outputs, other.vocabulary) == (4, 9)
    assert sources


def test_grey_values_and_characters_by_hand():
    images = np.array([[[0, 255], [51, 102]]], np.uint8)
    encoded = GreyInputs(0.2, 0.4).encode(images)
    assert (encoded.shape, encoded.dtype) == ((1, 1, 2, 2), np.float32)
    np.testing.assert_allclose(encoded.ravel(), [-0.5, 2, 0, 0.5], atol=1e-7)
    tokens = CharacterInputs("abd").encode(encodings.code_points("badcé\U0001f600"))
    assert tokens.tolist() == [1, 0, 2, 3, 3, 3]
    with pytest.warns(LrtoolWarning, match=r"2 of 3 characters .* not in the training set, .* 'c'"):
        assert CharacterInputs("b").encode(encodings.code_points("bca"), warn=True)[0] == 0


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COLUMNS = st.one_of(
    st.builds(NumberColumn, NAMES, FINITE, FINITE, FINITE.filter(lambda x: x > 0)),
    st.builds(WordsColumn, NAMES, st.lists(NAMES, min_size=1, unique=True).map(tuple)),
)
TABLES = st.lists(COLUMNS, min_size=1, max_size=5, unique_by=lambda c: c.name).map(
    lambda columns: TableInputs(tuple(columns))
)
TARGETS = st.one_of(
    st.builds(Classes, NAMES, st.lists(NAMES, min_size=1, unique=True).map(tuple)),
    st.builds(ClassIndices, st.integers(1, 2**40)),
    st.builds(Values, NAMES, FINITE, FINITE.filter(lambda x: x > 0)),
)


@given(TABLES, TARGETS)
def test_any_table_survives_its_file(tmp_path_factory, inputs, targets):
    directory = tmp_path_factory.getbasetemp()
    encoding = encoding_of(inputs, targets, (inputs.width,), 3)
    encodings.write(encoding, directory)
    assert encodings.read(directory) == encoding


@given(
    st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=20),
    st.lists(st.sampled_from(["", "a", "b", "z"]), min_size=1, max_size=20),
)
def test_words_have_one_input_each_and_unknown_ones_none(learned, words):
    column = WordsColumn("w", tuple(sorted(set(learned))))
    encoded = TableInputs((column,)).encode({"w": words})
    assert encoded.tolist() == [[float(word == known) for known in column.words] for word in words]


@pytest.fixture
def stored(tmp_path):
    inputs = TableInputs((NumberColumn("a", 0.0, 1.5, 2.0),))
    encodings.write(encoding_of(inputs, Values("y", 3.0, 4.0)), tmp_path)
    return tmp_path / "encoding.json"


def test_every_flipped_bit_of_the_file_is_an_error_with_its_name(stored):
    content = stored.read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        stored.write_bytes(bytes(damaged))
        try:
            same = json.loads(damaged) == json.loads(content)  # white space between the parts
        except ValueError:
            same = False
        if not same:
            with pytest.raises(UserError, match=f"^{stored}: "):
                encodings.read(stored.parent)


def test_a_file_that_is_cut_off_or_of_another_kind_is_refused(stored):
    content = stored.read_bytes()
    for text in (content[:-40], b"", b"[]", b"\xff\xfe", b"{}", b"[" * 100_000):
        stored.write_bytes(text)
        with pytest.raises(UserError, match=f"^{stored}: not an encoding of lrtool: "):
            encodings.read(stored.parent)
    stored.write_text(json.dumps({**json.loads(content), "schema_version": 2}))
    with pytest.raises(UserError, match="written by a newer lrtool"):
        encodings.read(stored.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_shape": [2]}, r"1 inputs do not have the shape \(2,\)"),
        ({"inputs": {"kind": "image"}}, "inputs: Input tag 'image' found"),
        ({"more": 1}, "more: Unexpected keyword argument"),
        ({"targets": {"kind": "values", "deviation": 0.0}}, "targets.values.deviation: Input sh"),
        ({"inputs": {"kind": "table", "columns": []}}, "inputs.table.columns: .* at least 1 item"),
        ({"targets": {"kind": "classes", "name": None, "classes": ["a", "a"]}}, "occurs twice"),
    ],
)
def test_what_contradicts_itself_is_refused_even_with_its_checksum(stored, change, words):
    data = {**json.loads(stored.read_text())["encoding"], **change}
    content = {"schema_version": 1, "sha256": encodings._checksum(data), "encoding": data}
    stored.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"^{stored}: not an encoding of lrtool: .*{words}"):
        encodings.read(stored.parent)


def test_a_run_without_the_file_has_no_encoding(tmp_path):
    assert encodings.read(tmp_path) is None
    (tmp_path / "encoding.json").mkdir()
    with pytest.raises(UserError, match=r"encoding.json: cannot be read: Is a directory"):
        encodings.read(tmp_path)


def test_numbers_too_large_for_a_mean_are_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1e308,a\n1e308,b\n1e308,a\n")
    with pytest.raises(DataError, match="column 'x' holds numbers that are too large"):
        read_data(tmp_path, "csv", validation=0, path="a.csv", target="y")


def test_an_encoding_of_another_source_is_refused(tmp_path, sources):
    known = replace(read_data(tmp_path, "npz", path="a.npz").encoding, source="csv")
    assert known.inputs == ArrayInputs("float32")
    with pytest.raises(DataError, match=r"encoding.json does not fit data.source csv"):
        read_data(tmp_path, "csv", known, path="a.csv", target="kind")
    assert sources
