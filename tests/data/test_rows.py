"""Rows of a batch: what has one for each sample is divided, and nothing else."""

from collections import UserDict, namedtuple
from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from lrtool.data.rows import layout_of, rows_of
from lrtool.errors import DataError

Pair = namedtuple("Pair", "x y")  # noqa: PYI024  (as users write it)
FIRST = slice(0, 2)


def numbers(*shape):
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


def first(batch, samples=3):
    return rows_of(batch, layout_of(batch, samples), samples, FIRST)


def test_rows_of_every_kind():
    x, y, steps = numbers(3, 4), numbers(3), numbers(5, 3)
    batch = {"x": x, "names": ["a", "b", "c"], "time first": steps, "scale": 2.0, "all": numbers(7)}
    found = first({**batch, "y": [y, [y, None]], "flag": torch.tensor(1)})
    assert found["x"].equal(x[:2])
    assert found["names"] == ["a", "b"]
    assert found["time first"].equal(steps[:, :2])
    assert found["scale"] == 2.0
    assert found["all"].equal(numbers(7))
    assert found["y"][0].equal(y[:2])
    assert found["y"][1][0].equal(y[:2])
    assert found["y"][1][1] is None
    assert found["flag"] == 1
    assert first(UserDict(x=x)).keys() == {"x"}
    pair = first(Pair(x, y))
    assert type(pair) is Pair
    assert pair.y.equal(y[:2])


def test_a_list_of_samples_is_divided_and_one_of_tensors_is_looked_into():
    images = [numbers(1, size, size) for size in (4, 5, 6)]
    boxes = [{"boxes": numbers(count, 4)} for count in (1, 2, 7)]
    found = first((images, boxes))
    assert [image.shape[1] for image in found[0]] == [4, 5]
    assert [len(each["boxes"]) for each in found[1]] == [1, 2]
    views = first(([numbers(3, 1), numbers(3, 2), numbers(3, 3)], numbers(3)))
    assert [view.shape for view in views[0]] == [(2, 1), (2, 2), (2, 3)]


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_parts_put_together_are_the_batch(samples, start, stop):
    batch = (numbers(samples, 2), numbers(11, samples), [str(i) for i in range(samples)])
    layout = layout_of(batch, samples)
    cuts = [0, *sorted((start, stop)), None]
    x, steps, names = zip(
        *(rows_of(batch, layout, samples, slice(*cut)) for cut in pairwise(cuts)),
        strict=True,
    )
    assert torch.cat(x).equal(batch[0])
    assert torch.cat(steps, 1).equal(batch[1])
    assert list(chain(*names)) == batch[2]


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        ((numbers(7), 2.0), "nothing in a batch has a row for each sample"),
        ((pack_sequence([numbers(2)] * 3), numbers(3)), "a batch holds a PackedSequence"),
        ((object(), numbers(3)), "a batch holds a object"),
    ],
)
def test_batches_that_cannot_be_divided(batch, problem):
    with pytest.raises(DataError, match=f"^{problem}$"):
        layout_of(batch, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"x": numbers(4), "y": ["a", "b"], "z": [numbers(3)]},
        {"x": numbers(3), "y": ["a", "b", "c"]},
        {"x": numbers(3), "y": ["a", "b"], "z": [numbers(3)]},
        {"x": numbers(3), "y": "abc", "z": [numbers(3)]},
        {"x": numbers(3), "y": ["a", "b", "c"], "z": [numbers(3), 1]},
        {"x": numbers(3), "y": ["a", "b", "c"], "z": numbers(3)},
        (numbers(3),),
    ],
)
def test_a_batch_of_another_layout(other):
    layout = layout_of({"x": numbers(3), "y": ["a", "b", "c"], "z": [numbers(3)]}, 3)
    with pytest.raises(DataError, match="has"):
        rows_of(other, layout, 3, FIRST)
