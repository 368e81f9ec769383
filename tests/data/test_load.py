import hashlib
import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lrtool import config
from lrtool.data.load import as_binary, load, to_device
from lrtool.data.part import OwnLoader, Resident, Streamed
from lrtool.errors import DataError

X = np.arange(40, dtype=np.float64).reshape(20, 2)
Y = np.arange(20) % 2
SMALL = {"batch_size": 4, "validation": 0}


class Pairs(Dataset):
    """Samples made one by one."""

    def __init__(self, count=10, targets=None):
        self.count = count
        if targets is not None:
            self.targets = targets

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((3,), float(index)), index % 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(3), 1)] * 6)


def loaded(made, *, seed=0, **spec):
    """Load what a factory returns."""
    data = config.Data(source="mine:make", **{**SMALL, **spec})
    factory = made if callable(made) and not isinstance(made, Dataset) else lambda: made
    return load(data, seed=seed, factory=factory, directories=[])


def built_in(source, directories=(), seed=0, **spec):
    data = config.Data(source=source, **spec)
    return load(data, seed=seed, factory=None, directories=directories)


def test_digits():
    data = built_in("digits")
    assert (data.input_shape, data.num_outputs, data.vocabulary) == ((1, 8, 8), 10, None)
    assert data.batch_size == 64
    assert data.samples == {"train": 1438, "validation": 359}
    assert data.shapes == {"inputs": (1, 8, 8), "targets": ()}
    assert isinstance(data.train, Resident)
    assert (data.train.inputs.dtype, data.train.targets.dtype) == (torch.float32, torch.int64)


def test_the_whole_training_set_in_a_batch():
    assert built_in("iris", batch_size="full").batch_size == 120
    data = built_in("iris", batch_size=150, validation=0)
    assert data.batch_size == 150
    assert data.validation is None
    assert data.samples == {"train": 150, "validation": 0}


def test_fewer_rows_than_a_batch():
    message = (
        "data.batch_size: 121 is more than the 120 training samples of iris; give a smaller"
        " number, or full"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        built_in("iris", batch_size=121)


def test_arguments_and_directories_reach_the_source(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefgh" * 50)
    data = built_in("text", [tmp_path], args={"path": "a.txt", "context": 8}, batch_size=8)
    assert data.input_shape == (8,)
    assert (data.num_outputs, data.vocabulary) == (9, 9)
    assert data.samples == {"train": 39, "validation": 10}


def test_the_digest_is_that_of_the_samples():
    data = loaded((X, Y))
    digest = hashlib.sha256()
    digest.update(b"torch.float32 (20, 2)\n" + X.astype(np.float32).tobytes())
    digest.update(b"torch.int64 (20,)\n" + Y.tobytes())
    assert data.digest == digest.hexdigest()
    assert built_in("iris").digest == built_in("iris").digest != built_in("iris", seed=1).digest
    assert loaded((X, Y + 1)).digest != data.digest
    assert loaded(Pairs()).digest is None


@pytest.mark.parametrize(
    ("pair", "inputs", "targets"),
    [
        ((X, Y), ((20, 2), torch.float32), ((20,), torch.int64)),
        ((X.astype(">f8"), Y.astype(np.int16)), ((20, 2), torch.float32), ((20,), torch.int64)),
        ((X.astype(np.uint8), Y * 0.5), ((20, 2), torch.float32), ((20, 1), torch.float32)),
        ((X.astype(np.int32), X), ((20, 2), torch.int64), ((20, 2), torch.float32)),
        ((X[::-1], Y > 0), ((20, 2), torch.float32), ((20,), torch.int64)),
        (
            (torch.ones(20, 4, dtype=torch.bool), torch.ones(20, dtype=torch.float64)),
            ((20, 4), torch.float32),
            ((20, 1), torch.float32),
        ),
    ],
)
def test_types_of_pairs(pair, inputs, targets):
    train = loaded(pair).train
    assert (tuple(train.inputs.shape), train.inputs.dtype) == inputs
    assert (tuple(train.targets.shape), train.targets.dtype) == targets


def test_values_of_pairs_stay():
    frozen = X.astype(np.uint8)
    frozen.flags.writeable = False
    train = loaded((frozen, Y)).train
    assert train.inputs.tolist() == X.tolist()
    weights = torch.rand(20, 2, requires_grad=True)
    assert not loaded((weights, torch.zeros(20))).train.inputs.requires_grad


@pytest.mark.parametrize(
    ("pair", "outputs", "vocabulary"),
    [
        ((X, Y * 3), 4, None),
        ((X, X), 2, None),
        ((X, X[:, 0]), 1, None),
        ((X, X.reshape(20, 1, 2)), None, None),
        ((X.astype(int), Y), 2, 40),
    ],
)
def test_facts_of_pairs(pair, outputs, vocabulary):
    data = loaded(pair)
    assert (data.num_outputs, data.vocabulary) == (outputs, vocabulary)
    assert data.input_shape == (2,)


def test_facts_look_at_the_validation_part_too():
    data = loaded(((X.astype(int), Y), (X.astype(int) + 5, Y + 2)))
    assert (data.num_outputs, data.vocabulary) == (4, 45)


@pytest.mark.parametrize(
    ("made", "train", "validation"),
    [
        ((X, Y), Resident, None),
        ([torch.tensor(X), torch.tensor(Y)], Resident, None),
        (((X, Y), (X, Y)), Resident, Resident),
        (((X, Y), None), Resident, None),
        (TensorDataset(torch.tensor(X), torch.tensor(Y)), Resident, None),
        (Subset(TensorDataset(torch.tensor(X), torch.tensor(Y)), range(9)), Resident, None),
        (Pairs(), Streamed, None),
        ((Pairs(), (X, Y)), Streamed, Resident),
        ([Pairs(), Pairs()], Streamed, Streamed),
        (Stream(), Streamed, None),
        (DataLoader(Pairs(), 3), OwnLoader, None),
        ((DataLoader(Pairs(), 3), DataLoader(Pairs(), 3)), OwnLoader, OwnLoader),
        ((DataLoader(Pairs(), 3), None), OwnLoader, None),
    ],
)
def test_what_a_factory_may_return(made, train, validation):
    data = load(
        config.Data(source="mine:make", batch_size=4, validation=0)
        if validation is None
        else config.Data.model_construct(
            {"source", "batch_size"}, source="mine:make", args={}, batch_size=4, validation=0.2, workers=0
        ),
        seed=0,
        factory=lambda: made,
        directories=[],
    )
    assert type(data.train) is train
    assert type(data.validation) is (validation or type(None))
