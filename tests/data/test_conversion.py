from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lrtool.config.schema import DataConfig
from lrtool.data import batches
from lrtool.data.conversion import Conversion, as_tensor, collate, convert
from lrtool.data.load import load
from lrtool.errors import ConfigError, DataError

X = np.random.default_rng(0).normal(size=(12, 3)).round(3)
TO = Conversion((torch.float32,))
FROZEN = np.broadcast_to(X[:1], (12, 3))


class Pair(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Samples(Dataset):
    def __init__(self, inputs, targets):
        self.inputs, self.targets_, self.taken = inputs, targets, 0

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.targets_[index]


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __iter__(self):
        return (self.samples[index] for index in range(len(self.samples)))


def read(made):
    """Return all inputs and all targets, as a training gets them."""
    data = DataConfig(source="mine:make", batch_size=12, validation=0)
    train = load(data, seed=0, factory=lambda: made, directories=[]).train
    (batch,) = batches.ordered(train, batch_size=12, device=torch.device("cpu"))
    return convert(batch, TO)


def sources(inputs, targets):
    samples = Samples(inputs, targets)
    yield inputs, targets
    yield samples
    yield Stream(samples)


@pytest.mark.parametrize("inputs", [X, X.astype(">f8"), X.astype(np.float16), X[::-1], FROZEN])
@pytest.mark.parametrize(
    ("targets", "dtype"),
    [
        (X[:, 0], torch.float32),
        (X[:, :1].astype(">f4"), torch.float32),
        (X[:, 0][:, None], torch.float32),
        (np.broadcast_to(X[:1, 0], 12), torch.float32),
        (np.arange(12).astype(np.int32), torch.int64),
        (np.arange(12).astype(np.int16), torch.int64),
        (np.arange(12).astype(np.uint8), torch.int64),
        (np.arange(12).astype(">i4"), torch.int64),
        (np.arange(12) > 3, torch.int64),
        (list(range(12)), torch.int64),
        (X[:, 0].tolist(), torch.float32),
        (X[:, :2].tolist(), torch.float32),
    ],
)
def test_every_source_gives_the_same_numbers(inputs, targets, dtype):
    for made in sources(inputs, targets):
        x, y = read(made)
        assert (x.dtype, y.dtype) == (torch.float32, dtype)
        assert torch.equal(x, torch.tensor(inputs.astype(np.float32)))
        assert torch.equal(y, torch.tensor(np.asarray(targets).tolist()).to(dtype))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_loader_of_the_users_own_gives_them_too():
    samples = Samples(X, np.arange(12, dtype=np.int32))
    made = DataLoader(samples, 12)
    data = DataConfig(source="mine:make", validation=0)
    train = load(data, seed=0, factory=lambda: made, directories=[]).train
    for x, y in (
        next(batches.ordered(train, batch_size=1, device=torch.device("cpu"))),
        next(batches.epoch(train, batch_size=1, seed=0, epoch=0, device=torch.device("cpu"))),
        batches.held_out(made, 12, torch.device("cpu"), train.conversion)[0],
    ):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_data_frames():
    frame = pd.DataFrame(X, columns=list("abc"))
    labels = pd.Series(np.arange(12) % 2, dtype="Int64")
    samples = [(frame.iloc[row], labels.iloc[row]) for row in range(12)]
    for x, y in (read((frame, labels)), read(Samples(*zip(*samples, strict=True)))):
        assert torch.equal(x, torch.tensor(X, dtype=torch.float32))
        assert y.tolist() == (np.arange(12) % 2).tolist()
    x, _ = read((pd.DataFrame({"a": X[:, 0], "b": X[:, 1] > 0}), labels))
    assert torch.equal(x[:, 1], torch.tensor(X[:, 1] > 0).float())
    assert as_tensor(pd.Series(["a", "b"])) is None
    with pytest.raises(ConfigError, match=r"targets: row 11 \(counted from 0\) holds nan"):
        read((frame, labels.where(labels.index < 11)))


def test_what_stays():
    images = torch.zeros(2, 3, dtype=torch.uint8)
    half = torch.zeros(2, 3, dtype=torch.bfloat16)
    mask = torch.ones(2, 3, dtype=torch.bool)
    double = torch.zeros(2, 3, dtype=torch.float64)
    to = Conversion((torch.float32, torch.bfloat16))
    assert convert((half, images), to)[0] is half
    assert convert((images, mask), to)[0].dtype == torch.float32
    for batch in ({"x": half, "mask": mask}, (half, mask, torch.zeros(2)), object(), "words", half):
        assert convert(batch, to) is batch
    assert convert((double, 1), Conversion((torch.float64,)))[0] is double
    word = {"x": double, "words": ["a", "b"], "n": 3}
    others = convert(word, to)
    assert (others.pop("x").dtype, others) == (torch.float32, {"words": ["a", "b"], "n": 3})
    pair = convert(Pair(double, mask), to)
    assert type(pair) is Pair
    assert (pair.inputs.dtype, pair.targets.dtype) == (torch.float32, torch.int64)
    nested = convert((({"x": double}, [double]), images), to)
    assert nested[0][0]["x"].dtype == nested[0][1][0].dtype == torch.float32


def test_shapes_of_one_number_each():
    x, y = torch.zeros(4, 2), torch.arange(4.0)
    column = Conversion(targets="column")
    assert torch.equal(convert((x, y), column)[1], y[:, None])
    assert torch.equal(convert((x, x, y), column)[2], y[:, None])
    assert torch.equal(convert((x, y[:, None]), Conversion(targets="flat"))[1], y)
    batch = convert({"x": y, "y": y}, Conversion(targets="column"))
    assert (batch["x"].shape, batch["y"].shape) == ((4,), (4, 1))


def test_binary_targets():
    to = Conversion(binary=True)
    x = torch.zeros(3, 2)
    assert convert((x, torch.tensor([0, 1, 1])), to)[1].tolist() == [0.0, 1.0, 1.0]
    assert convert((x, torch.tensor([0.5, 1, 1])), to)[1].tolist() == [0.5, 1.0, 1.0]
    with pytest.raises(DataError, match=r"takes targets 0 and 1, but one is 2; for classes there"):
        convert((x, torch.tensor([0, 1, 2])), to)


def test_samples_are_collated_as_torch_does():
    samples = [({"a": torch.ones(2), "b": "word"}, 1.5), ({"a": torch.zeros(2), "b": "x"}, 2.5)]
    inputs, targets = collate(samples)
    assert inputs["a"].tolist() == [[1, 1], [0, 0]]
    assert inputs["b"] == ["word", "x"]
    assert torch.equal(targets, torch.tensor([1.5, 2.5], dtype=torch.float64))
    assert collate([([torch.zeros(2)], 1)])[0][0].shape == (1, 2)


def test_odd_arrays():
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    assert torch.equal(as_tensor(masked).isnan(), torch.tensor([False, True, False]))
    assert as_tensor(np.ma.masked_array([1, 2])).tolist() == [1, 2]
    assert as_tensor(np.ones(3, np.longdouble)).dtype == torch.float64
    assert as_tensor(np.ones(3, np.uint64)).tolist() == [1, 1, 1]
    with pytest.raises(OverflowError, match=r"^9223372036854775808 is more than 64 bits hold"):
        as_tensor(np.array([2**63], np.uint64))
    for other in ([[1], [2, 3]], [[]], [], ["a"], "ab", None, {"a": 1}):
        assert as_tensor(other) is None
