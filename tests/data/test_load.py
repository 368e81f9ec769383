import hashlib
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lrtool.config.schema import DataConfig
from lrtool.data.conversion import Conversion
from lrtool.data.load import as_binary, converted, load, to_device
from lrtool.data.part import OwnLoader, Resident, Streamed
from lrtool.errors import ConfigError, DataError, LrtoolWarning

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


def make(made, *, seed=0, **spec):
    """Load what a factory returns."""
    factory = made if callable(made) else lambda: made
    data = DataConfig(source="mine:make", **spec)
    return load(data, seed=seed, factory=factory, directories=[])


def loaded(made, **spec):
    return make(made, **{**SMALL, **spec})


@pytest.mark.parametrize("name", ["Unnamed: 0", "id"])
def test_row_numbers_in_a_data_frame_are_said(name):
    frame = pd.DataFrame({name: range(20), "a": X[:, 0] / 7, "b": np.arange(20)})
    words = f"mine:make: train: the column '{name}' of the data frame only numbers its rows"
    with pytest.warns(LrtoolWarning, match=words) as said:
        make(((frame, Y), (frame, Y)), batch_size=4)
    assert len(said) == 1
    frame[name] = 3 * Y  # codes of something
    loaded((frame, Y))


def built_in(source, directories=(), seed=0, **spec):
    data = DataConfig(source=source, **spec)
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
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
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
        ((X, Y), ((20, 2), torch.float32), ((20, 1), torch.int64)),
        ((X.astype(">f8"), Y.astype(np.int16)), ((20, 2), torch.float32), ((20, 1), torch.int64)),
        ((X.astype(np.uint8), Y * 0.5), ((20, 2), torch.float32), ((20, 1), torch.float32)),
        ((X.astype(np.int32), X), ((20, 2), torch.int64), ((20, 2), torch.float32)),
        ((X[::-1], Y > 0), ((20, 2), torch.float32), ((20, 1), torch.int64)),
        (
            (torch.ones(20, 4, dtype=torch.bool), torch.ones(20, dtype=torch.float64)),
            ((20, 4), torch.float32),
            ((20, 1), torch.float32),
        ),
    ],
)
def test_types_of_pairs(pair, inputs, targets):
    train = converted(loaded(pair), Conversion(targets="column")).train
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
    data = make(((X.astype(int), Y), (X.astype(int) + 5, Y + 2)), batch_size=4)
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
    spec = {} if train is OwnLoader else {"batch_size": 4}
    if validation is None:
        spec["validation"] = 0
    data = make(made, **spec)
    assert type(data.train) is train
    assert type(data.validation) is (validation or type(None))


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (None, "None"),
        (3, "an object of type int"),
        ((X, Y, X), "a tuple of 3 (ndarray, ndarray, ndarray)"),
        (((X, Y), 3), "a tuple of 2 (tuple, int)"),
        ((X, None), "a tuple of 2 (ndarray, NoneType)"),
        ((None, Pairs()), "a tuple of 2 (NoneType, Pairs)"),
        ({"train": (X, Y)}, "an object of type dict"),
        ([], "a list of 0 ()"),
        (torch.tensor(X), "an object of type Tensor"),
    ],
)
def test_what_a_factory_may_not_return(made, kind):
    message = (
        f"data.source: mine:make: returned {kind}; it must return (train, validation) or train"
        " alone, each a pair (inputs, targets) of tensors or arrays, a Dataset or a DataLoader"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        loaded(lambda: made)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((X, Y[:4]), "train: 20 inputs, but 4 targets"),
        ((X[:0], Y[:0]), "train: has no samples"),
        ((X, Y.astype(str)), "train: targets are of type <U21; they must be numbers"),
        ((X.astype(str).astype(object), Y), "train: inputs are of type object; they must be"),
        (
            (torch.zeros(20, dtype=torch.complex64), Y),
            "train: inputs are of type torch.complex64; they must be real numbers",
        ),
        ((torch.tensor(1), Y), "train: inputs are a single value, not one for each sample"),
        (
            (np.where(X == 13, np.nan, X), Y),
            (
                "train: inputs: row 6 (counted from 0) holds nan; 1 of 20 rows have a value that is"
                " not finite: correct or remove them"
            ),
        ),
        ((X * 1e300, Y), "train: inputs: row 0 (counted from 0) holds inf; 20 of 20 rows"),
        (
            ((X, Y), (X, np.where(Y, -np.inf, 0))),
            "validation: targets: row 1 (counted from 0) holds -inf; 10 of 20 rows",
        ),
        (Pairs(0), "train: the dataset Pairs is empty"),
    ],
)
def test_refused_data(pair, message):
    with pytest.raises(ConfigError, match=f"^data.source: mine:make: {re.escape(message)}"):
        make(pair)


def test_a_dataset_without_a_length():
    class Endless(Dataset):
        def __getitem__(self, index):
            return torch.zeros(3), 1

    with pytest.raises(ConfigError, match=r"train: the dataset Endless has no __len__$"):
        loaded(Endless())


def test_errors_of_a_factory_are_worded():
    def fail(size):
        raise KeyError(size)

    with pytest.raises(
        ConfigError, match=r"^data.source: mine:make: raised KeyError: 3$"
    ) as caught:
        loaded(fail, args={"size": 3})
    assert isinstance(caught.value.__cause__, KeyError)

    class Broken(Pairs):
        def __getitem__(self, index):
            raise OSError("disk gone")

    message = r"^data.source: mine:make: reading the first samples raised OSError: disk gone$"
    with pytest.raises(ConfigError, match=message):
        loaded(Broken())
    with pytest.raises(ConfigError, match=r"^data.source: mine:make: yields no training batch$"):
        make(DataLoader(Pairs(2), 3, drop_last=True), validation=0)


def test_a_pair_alone_is_split_by_class_and_seed():
    first, again, other = (loaded((X, Y), seed=s, validation=0.3) for s in (1, 1, 2))
    assert first.samples == {"train": 14, "validation": 6}
    assert first.validation.targets.bincount().tolist() == [3, 3]
    assert (first.train.inputs[:, 0] // 2 % 2 == first.train.targets).all()
    both = torch.cat([first.train.inputs, first.validation.inputs])
    assert sorted(both.tolist()) == X.tolist()
    assert first.digest == again.digest != other.digest


def test_a_dataset_alone_is_split():
    data = loaded(Pairs(10), validation=3, seed=1)
    seen = [int(x[0]) for part in (data.train, data.validation) for x, _ in part.dataset]
    assert data.samples == {"train": 7, "validation": 3}
    assert sorted(seen) == list(range(10)) != seen


def test_a_split_needs_no_path():
    with pytest.raises(
        ConfigError, match=r"data.validation: mine:make cannot read a validation set from"
    ):
        loaded((X, Y), validation="other")


@pytest.mark.parametrize(
    ("made", "spec", "message"),
    [
        (
            ((X, Y), (X, Y)),
            {"batch_size": 4, "validation": 0.5},
            "data.validation is ignored: mine:make returns a validation set of its own",
        ),
        (
            DataLoader(Pairs(), 3),
            {},
            (
                "data.validation is ignored: mine:make returns a DataLoader, which cannot be split;"
                " there is no validation set unless it returns (train, validation)"
            ),
        ),
        (
            Stream(),
            {},
            (
                "data.validation is ignored: mine:make returns an iterable dataset, which cannot be"
                " split; there is no validation set unless it returns (train, validation)"
            ),
        ),
        (
            DataLoader(Pairs(), 3),
            {"validation": 0, "batch_size": 3},
            "data.batch_size is ignored: mine:make returns a DataLoader of its own",
        ),
        (
            DataLoader(Pairs(), 3),
            {"validation": 0, "workers": 2},
            "data.workers is ignored: mine:make returns a DataLoader of its own",
        ),
        (
            (X, Y),
            {"validation": 0, "batch_size": 4, "workers": 2},
            "data.workers is ignored: the samples of mine:make are in memory",
        ),
    ],
)
def test_settings_that_are_ignored(made, spec, message):
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$") as caught:
        make(made, **spec)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("loader", "size"),
    [
        (DataLoader(Pairs(10), 3), 3),
        (DataLoader(Pairs(10), batch_sampler=[[1, 2], [3]]), 2),
        (DataLoader(Pairs(10), batch_size=None), 3),  # a sample is taken for a batch: (3,) inputs
        (DataLoader(Pairs(10), batch_sampler=[[1, 2]], collate_fn=lambda b: {"n": len(b)}), 1),
        (DataLoader(Pairs(10), batch_sampler=[[1, 2]], collate_fn=lambda _: object()), 1),
    ],
)
def test_the_batch_size_of_a_loader_of_the_users_own(loader, size):
    assert make(loader, validation=0).batch_size == size


def test_batch_sizes_of_datasets():
    assert loaded(Pairs(10), batch_size="full").batch_size == 10
    assert loaded(Stream(), batch_size=50).batch_size == 50
    with pytest.raises(ConfigError, match=r"10 training samples of mine:make"):
        loaded(Pairs(10), batch_size=11)
    with pytest.raises(
        ConfigError,
        match=r"^data.batch_size: full needs the number of samples of mine:make; give a number",
    ):
        loaded(Stream(), batch_size="full")


@pytest.mark.parametrize(
    ("dataset", "outputs"),
    [
        (Pairs(), None),
        (Pairs(targets=[0, 4, 2]), 5),
        (Pairs(targets=torch.tensor([0.5])), None),
        (Subset(Pairs(targets=[0, 6]), [0]), 7),
    ],
)
def test_facts_of_datasets(dataset, outputs):
    data = loaded(dataset, batch_size=1)
    assert data.input_shape == (3,)
    assert data.num_outputs == outputs
    assert data.shapes == {"inputs": (3,), "targets": ()}


def test_classes_of_a_dataset_by_name():
    pets = Pairs()
    pets.classes = ["cat", "dog", "eel"]
    assert loaded(Subset(pets, range(4))).num_outputs == 3


def test_facts_of_mappings_and_float_targets():
    class Mapped(Pairs):
        def __getitem__(self, index):
            return {"x": torch.zeros(2, 5), "labels": 1.0, "name": "word"}

    class Real(Pairs):
        def __getitem__(self, index):
            return torch.zeros(2), torch.zeros(4)

    data = loaded(Mapped())
    assert (data.input_shape, data.num_outputs) == (None, None)
    assert data.shapes == {"x": (2, 5), "labels": ()}
    assert loaded(Real()).num_outputs == 4


def test_a_look_at_the_data_draws_no_random_number():
    class Noisy(Pairs):
        def __getitem__(self, index):
            return torch.rand(3), index

    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Noisy(), 2, shuffle=True, generator=generator)
    states = torch.get_rng_state(), generator.get_state()
    make(loader, validation=0)
    loaded(Noisy())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])


def test_two_classes_as_one_output():
    data = as_binary(make(((X, Y), (X[:4], Y[:4])), batch_size=4))
    for part in (data.train, data.validation):
        assert part.targets.dtype == torch.float32
        assert part.targets[:4].tolist() == [[0], [1], [0], [1]]
    assert data.num_outputs == 1
    assert data.shapes == {"inputs": (2,), "targets": (1,)}
    assert as_binary(data).train is data.train
    column = as_binary(loaded((X, Y[:, None])))  # the same, as (N, 1)
    assert torch.equal(column.train.targets, torch.from_numpy(Y[:, None]).float())
    assert (column.num_outputs, column.shapes) == (1, data.shapes)


def test_what_is_not_binary():
    for targets in (Y + 1, (Y + 1)[:, None]):
        with pytest.raises(
            DataError, match=r"needs exactly 2 classes, but the data have 3 classes; use"
        ):
            as_binary(loaded((X, targets)))
    with pytest.raises(DataError, match=r"but the data have targets of shape \(2,\)"):
        as_binary(loaded((X, X.astype(int))))
    with pytest.raises(DataError, match=r"floats of shape \(N, 1\), but .* have torch.int64; let"):
        as_binary(loaded(Pairs()))


def test_to_device():
    images = np.zeros((8, 3, 4, 5), np.float32)
    data = to_device(loaded((images, np.arange(8))), torch.device("cpu"), torch.channels_last)
    assert data.train.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(data.train.inputs, torch.zeros(8, 3, 4, 5))
    back = to_device(data, torch.device("meta"), torch.contiguous_format)
    assert back.train.inputs.is_contiguous()
    assert back.train.targets.device.type == back.train.inputs.device.type == "meta"
    assert back.validation is None
    table = to_device(loaded((X, Y)), torch.device("cpu"), torch.channels_last)
    assert table.train.inputs.is_contiguous()
    own = loaded(Pairs())
    assert to_device(own, torch.device("meta"), torch.channels_last).train is own.train
