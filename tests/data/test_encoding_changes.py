"""What the weights of a run would take for something else."""

from dataclasses import replace

import pytest

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
from lrtool.data.encoding_changes import changes


def read_as(inputs, targets, shape=(1,), outputs=2, vocabulary=None):
    split = StoredSplit(0, 0, {"train": 9, "validation": 0}, None, None)
    return Encoding("csv", inputs, targets, shape, outputs, vocabulary, split)


def column(name="a", mean=5.0, deviation=2.0):
    return NumberColumn(name, mean, mean, deviation)


def words(*known):
    return WordsColumn("city", known)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (Classes("k", ("no", "yes")), Classes("kind", ("no", "yes")), []),
        (
            Classes("k", ("no", "yes")),
            Classes("k", ("yes", "no")),
            ["class 0 is 'no' there, and 'yes' here (2 differ)"],
        ),
        (
            Classes("k", ("a", "b")),
            Classes("k", ("a", "c")),
            ["class 1 is 'b' there, and 'c' here"],
        ),
        (Values("y", 5.0, 2.0), Values("z", 5.19, 2.19), []),
        (
            Values("y", 5.0, 2.0),
            Values("y", 5.21, 2.0),
            ["the target: mean 5 and deviation 2 there, mean 5.21 and deviation 2 here"],
        ),
        (
            Values("y", 5.0, 2.0),
            Values("y", 5.0, 1.7),
            ["the target: mean 5 and deviation 2 there, mean 5 and deviation 1.7 here"],
        ),
        (Classes("k", ("a", "b")), ClassIndices(2), []),
    ],
)
def test_what_outputs_mean_now(before, now, said):
    inputs = TableInputs((column(),))
    assert changes(read_as(inputs, before), read_as(inputs, now)) == said
    more = read_as(inputs, now, outputs=3)  # the weights do not fit
    assert changes(read_as(inputs, before), more) == []


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            TableInputs((column("a"), column("b"))),
            TableInputs((column("b"), column("a"))),
            ["input 0 is 'a' there, and 'b' here (2 differ)"],
        ),
        (
            TableInputs((words("Oslo", "Rome"),)),
            TableInputs((words("Bonn", "Rome"),)),
            ["input 0 is 'city = Oslo' there, and 'city = Bonn' here"],
        ),
        (
            TableInputs((column("a"), column("b"))),
            TableInputs((column("a", 7.0), column("b", 5.0, 2.1))),
            ["column 'a': mean 5 and deviation 2 there, mean 7 and deviation 2 here"],
        ),
        (
            GreyInputs(0.5, 0.3),
            GreyInputs(0.1, 0.3),
            ["the images: mean 0.5 and deviation 0.3 there, mean 0.1 and deviation 0.3 here"],
        ),
        (GreyInputs(0.5, 0.3), GreyInputs(0.51, 0.3), []),
        (CharacterInputs("ab"), CharacterInputs("ac"), ["token 1 is 'b' there, and 'c' here"]),
        (TableInputs((column("a"), column("b"))), ArrayInputs("float32"), []),
    ],
)
def test_what_inputs_mean_now(before, now, said):
    targets = Classes("k", ("no", "yes"))
    one, other = (read_as(each, targets, (2,), vocabulary=3) for each in (before, now))
    assert changes(one, other) == said
    assert changes(one, replace(other, input_shape=(5,), inputs=ArrayInputs("float32"))) == []
    assert changes(one, one) == []
