import re

import numpy as np
import pytest

from lrtool.data.sources.table import csv
from lrtool.errors import LrtoolWarning, UserError

PEOPLE = """age,city,pay,kind
20,Rome,1.5,a
30,Oslo,2.5,b
,Rome,3.5,a
50,,4.5,b
60,Oslo,?,a
70,Bonn,6.5,b
"""


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="people.csv"):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return to_file


def test_numbers_and_words_by_hand(write, split):
    parts = csv(split(), path=write(PEOPLE), target="kind")
    age = np.array([20, 30, 50, 50, 60, 70])  # 50 is the median of the five known
    pay = np.array([1.5, 2.5, 3.5, 4.5, 3.5, 6.5])
    numbers = [(column - column.mean()) / column.std() for column in (age, pay)]
    words = np.array(  # missing, Bonn, Oslo, Rome
        [[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    )
    expected = np.column_stack([*numbers, words])
    np.testing.assert_allclose(parts.train.inputs, expected, rtol=1e-6)
    assert parts.train.targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert (parts.train.inputs.dtype, parts.train.targets.dtype) == (np.float32, np.int64)
    assert parts.num_outputs == 2


def test_everything_is_fitted_on_the_training_part(write, split):
    train = "x,w,y\n1,a,1.0\n3,b,2.5\n,a,4.0\n"
    other = "y,w,x,more\n10.5,c,100,z\n4.0,b,,z\n"
    with pytest.warns(LrtoolWarning, match="column 'w': 1 of 5 rows hold a word .* such as 'c'"):
        parts = csv(split(write(other, "other.csv")), path=write(train), target="y")
    x = np.array([1, 3, 2])
    y = np.array([1, 2.5, 4])
    np.testing.assert_allclose(parts.train.inputs[:, 0], (x - 2) / x.std(), rtol=1e-6)
    np.testing.assert_allclose(parts.validation.inputs[:, 0], [98 / x.std(), 0], rtol=1e-6)
    assert parts.validation.inputs[:, 1:].tolist() == [[0, 0], [0, 1]]  # c was never seen
    expected = (np.array([[10.5], [4.0]]) - y.mean()) / y.std()
    np.testing.assert_allclose(parts.validation.targets, expected, rtol=1e-6)
    assert parts.validation.targets.shape == (2, 1)


def test_a_split_does_not_leak(write, split):
    values = np.random.default_rng(0).normal(5, 3, 50)
    table = "x,y\n" + "".join(f"{v},{i % 2}\n" for i, v in enumerate(values))
    parts = csv(split(0.2), path=write(table), target="y")
    mean, deviation = parts.train.inputs.mean(), parts.train.inputs.std()
    np.testing.assert_allclose([mean, deviation], [0, 1], atol=1e-6)
    assert len(parts.validation.targets) == 10
    assert np.bincount(parts.validation.targets).tolist() == [5, 5]
    assert abs(parts.validation.inputs.mean()) > 1e-3


@pytest.mark.parametrize(
    ("target", "task", "outputs", "dtype"),
    [
        ("word", "auto", 2, np.int64),
        ("flag", "auto", 2, np.int64),
        ("whole", "auto", 3, np.int64),
        ("whole", "regression", 1, np.float32),
        ("real", "auto", 1, np.float32),
        ("real", "classification", 4, np.int64),
        ("many", "auto", 1, np.float32),
    ],
)
def test_the_task_by_the_target(target, task, outputs, dtype, *, write, split):
    rows = [
        (2 * i, ["a", "b"][i % 2], ["True", "False"][i % 2], i % 3, 0.5 * (i % 4), i % 21)
        for i in range(42)
    ]
    table = "x,word,flag,whole,real,many\n" + "".join(
        ",".join(map(str, row)) + "\n" for row in rows
    )
    parts = csv(split(), path=write(table), target=target, task=task)
    assert parts.num_outputs == outputs
    assert parts.train.targets.dtype == dtype
    assert parts.train.targets.ndim == (1 if dtype == np.int64 else 2)


def test_classes_are_in_order_of_value(write, split):
    parts = csv(split(), path=write("x,y\n1,10\n2,9\n3,2\n4,9\n"), target="y")
    assert parts.train.targets.tolist() == [2, 1, 0, 1]


def test_columns_drop_and_categorical(write, split):
    table = write("id,zip,x,y\n1,10,0,a\n2,20,1,b\n3,10,2,a\n")
    assert csv(split(), path=table, target="y").train.inputs.shape == (3, 3)
    assert csv(split(), path=table, target="y", drop=["id"]).train.inputs.shape == (3, 2)
    parts = csv(split(), path=table, target="y", columns=["x", "zip"], categorical=["zip"])
    assert parts.train.inputs[:, 1:].tolist() == [[1, 0], [0, 1], [1, 0]]


def test_spellings_of_a_table(write, split):
    plain = csv(split(), path=write("x,y\n1,a\n2,b\n"), target="y")
    for content, delimiter in [
        (b"\xef\xbb\xbfx,y\r\n1,a\r\n2,b\r\n", ","),
        (b"x;y\n1;a\n\n2;b", ";"),
        (b"x\ty\n1\ta\n2\tb\n\n", "\t"),
        (b'x, y\n 1, "a"\n 2 ,b\n', ","),
        (b"x y\n1 a\n2 b\n", " "),
    ]:
        parts = csv(split(), path=write(content), target="y", delimiter=delimiter)
        assert parts.train.inputs.tolist() == plain.train.inputs.tolist()
        assert parts.train.targets.tolist() == [0, 1]


def test_a_column_without_values_is_0(write, split):
    path = write("x,empty,y\n1,,a\n2,NA,b\n")
    with pytest.warns(LrtoolWarning, match=r"column 'empty' holds no value; leave it out with"):
        csv(split(), path=path, target="y")
    parts = csv(split(), path=path, target="y", numeric=["empty"])
    assert parts.train.inputs.tolist() == [[-1, 0], [1, 0]]


MANY = "".join(f"{2 * i},name{i},{i % 2}\n" for i in range(30))
TYPO = "".join(f"{i},{i % 2}\n" for i in range(20))
REAL = "".join(f"{i},{i * 1.5}\n" for i in range(25))


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        ("", {}, "{file}: the file is empty"),
        ("x,y\n", {}, "{file}: holds no row below the header"),
        ("x,y\n1,a\n2\n3,b\n", {}, "{file}: line 3: 1 field, but the header has 2"),
        ("x,y\n1,2,a\n3,4,b\n", {}, "{file}: line 2: 3 fields, but the header has 2"),
        ('x,y\n"1\n1",a\n2,b,c\n', {}, "{file}: line 4: 3 fields, but the header has 2"),
        ('x,y\n1,"a\n', {}, "{file}: line 2: not a table: unexpected end of data"),
        ("x,x,y\n1,2,a\n", {}, "{file}: line 1: two columns are named 'x'"),
        (b"x,y\n1,\xe9\n", {}, "{file}: line 2: not UTF-8 text (byte 0xe9 at 6)"),
        (b"x,y\n1,\0\n", {}, "{file}: line 2: a zero byte; this is not a text file"),
        (b"\x89PNG\r\n\x1a\n\0\0", {}, "{file}: line 1: not UTF-8 text (byte 0x89 at 0)"),
        (
            "x,kind\n1,a\n",
            {"target": "knd"},
            (
                "data.args.target: no such column in {file}: 'knd' (did you mean 'kind'?); there"
                " are 'x', 'kind'"
            ),
        ),
        (
            "x;y\n1;a\n",
            {},
            (
                "{file}: line 1: the header is a single field, 'x;y'; if it should be more, set"
                ' data.args.delimiter: ";"'
            ),
        ),
        ("y\n1\n2\n", {}, "{file}: no input column is left besides the target 'y'"),
        ("x,y\n1,a\n", {"drop": ["x"]}, "{file}: no input column is left besides the target 'y'"),
        (
            "x,y\n1,a\n",
            {"drop": ["z"]},
            "data.args.drop: no such column in {file}: 'z'; there are 'x'",
        ),
        (
            "x,y\n1,a\n",
            {"columns": ["x", "y"]},
            "data.args.columns: 'y' is data.args.target, which is no input",
        ),
        (
            "x,w,y\n1,2,a\n",
            {"drop": ["w"], "categorical": ["w"]},
            "data.args.categorical: no such column in {file}: 'w'; there are 'x'",
        ),
        (
            ",x,y\n0,1,a\n0,2,b\n",
            {},
            (
                "{file}: line 1: column 1 has no name; leave it out with data.args.drop: [''], else"
                " name it"
            ),
        ),
        (
            "x,y\n1,a\n2,\n3,NA\n",
            {},
            (
                "{file}: line 3: the target 'y' is missing, as in 2 of 3 rows; remove these rows or"
                " fill it in"
            ),
        ),
        ("x,y\n1,a\n2,a\n", {}, "{file}: every target 'y' is 'a'; there is nothing to learn"),
        (
            "x,y\n1,2.5\n2,two\n",
            {"task": "regression"},
            (
                "{file}: line 3: the target 'y' is 'two', not a number, which regression needs;"
                " correct it, or set data.args.task: classification"
            ),
        ),
        (
            "x,y\n" + REAL + "1,oops\n",
            {},
            (
                "{file}: line 27: the target 'y' is 'oops', not a number, which regression needs;"
                " correct it, or set data.args.task: classification"
            ),
        ),
        (
            "x,y\n" + REAL + "1,inf\n",
            {},
            (
                "{file}: line 27: the target 'y' is 'inf', not a number, which regression needs;"
                " correct it, or set data.args.task: classification"
            ),
        ),
        (
            "x,y\n" + REAL,
            {"task": "classification"},
            (
                "{file}: the target 'y' has 25 different values in 25 rows, too many to be classes;"
                " set data.args.task: regression, or another data.args.target"
            ),
        ),
        (
            "x,y\n" + TYPO + "12a,0\n",
            {},
            (
                "{file}: line 22: column 'x' holds '12a' among numbers; correct it, empty it, say"
                " what is missing with data.args.na_values, or name the column in"
                " data.args.categorical"
            ),
        ),
        (
            "x,y\n1,a\n-inf,b\n",
            {},
            (
                "{file}: line 3: column 'x' holds '-inf', which is not finite; correct it, or empty"
                " it if it is missing"
            ),
        ),
        (
            "x,name,y\n" + MANY,
            {},
            (
                "{file}: column 'name' holds 30 different words in 30 rows, too many to learn from:"
                " leave it out with data.args.drop, or name it in data.args.categorical"
            ),
        ),
        ("x,y\n1,a\n", {"delimiter": ""}, "data.args.delimiter: must be one character, not ''"),
        (
            "x,y\n1,a\n",
            {"delimiter": "||"},
            "data.args.delimiter: must be one character, not '||'",
        ),
    ],
)
def test_refused(content, args, message, *, write, split, tmp_path):
    path = write(content)
    message = message.replace("{file}", str(tmp_path / path))
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        csv(split(), **{"path": path, "target": "y", **args})


def test_a_dropped_column_needs_no_name(write, split):
    parts = csv(split(), path=write(",x,y\n0,1,a\n1,2,b\n"), target="y", drop=[""])
    assert parts.train.inputs.shape == (2, 1)


def test_names_may_be_words_on_request(write, split):
    parts = csv(split(), path=write("x,name,y\n" + MANY), target="y", categorical=["name"])
    assert parts.train.inputs.shape == (30, 31)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("x,z\n1,a\n", "{other}: line 1: no column 'y', which {file} has"),
        ("x,y\n1,c\n", "{other}: line 2: the class 'c' of 'y' is not in {file}"),
        ("x,y\n1,a\n2\n", "{other}: line 3: 1 field, but the header has 2"),
        ("x,y\n1,\n", "{other}: line 2: the target 'y' is missing, as in 1 of 4 rows"),
    ],
)
def test_refused_validation_tables(other, message, write, split, tmp_path):
    path = write("x,y\n1,a\n2,b\n3,a\n")
    other = write(other, "other.csv")
    message = message.format(file=tmp_path / path, other=tmp_path / other)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        csv(split(other), path=path, target="y")
