"""Data of every kind are divided among ranks: the losses of one process, and no rank has more."""

import json
import re

import pytest

pytestmark = [
    pytest.mark.usefixtures("no_plots"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

DATA = """
import os
import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import *

def tensors(n=22, width=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator)
    return x, (x.sum(1) > 0).long()

class Rows(Dataset):
    def __init__(self, n=22, width=4):
        self.x, self.y = tensors(n, width)
    def __len__(self):
        return len(self.x)
    def __getitem__(self, index):
        return self.x[index], self.y[index]

class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows
    def __iter__(self):
        return (self.rows[i] for i in range(len(self.rows)))

class Around:
    "An object around the batches of a loader."
    def __init__(self, batches, change=lambda batch: batch):
        self.batches, self.change = batches, change
    def __len__(self):
        return len(self.batches)
    def __iter__(self):
        return map(self.change, self.batches)

def batches_of(rows, size=6):
    return DataLoader(rows, size)

class Odd(Sampler):
    "Draws from the global generator for each batch."
    def __iter__(self):
        return (torch.randint(22, (5,)).tolist() for _ in range(4))
    def __len__(self):
        return 4

def with_name(batch):
    x, y = batch
    return {"x": x, "y": y, "names": [f"row {i}" for i in range(len(y))], "scale": 2.0}

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)
    def forward(self, x, names, scale):
        assert len(names) == len(x)
        return scale * self.net(x)

class TimeFirst(nn.Module):
    "Inputs (T, N)."
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(1, 3), nn.Linear(3, 2)
    def forward(self, x):
        return self.head(self.rnn(x[:, :, None])[0][-1])

def time_first(batch):
    return batch[0].T.contiguous(), batch[1]

class Packed(TimeFirst):
    def forward(self, x):
        return self.head(self.rnn(x)[1][-1])

class Centred(nn.Linear):
    "An output depends on the whole batch."
    def __init__(self):
        super().__init__(4, 2)
    def forward(self, x):
        outputs = super().forward(x)
        return outputs - outputs.mean(0)

class Fussy(nn.Linear):
    "Cannot train on one sample."
    def __init__(self):
        super().__init__(4, 2)
    def forward(self, x):
        if self.training and len(x) < 2:
            raise ValueError("one sample")
        return super().forward(x)

def packed(batch):
    return pack_sequence(list(batch[0][:, :, None])), batch[1]

class Augmented(Rows):
    def __getitem__(self, index):
        return self.x[index] + np.random.default_rng().normal(), self.y[index]

def linear(): return nn.Linear(4, 2)
def plain(): return Rows()
def memory(): return tensors()
def stream(): return Stream(Rows())
def loader(): return DataLoader(Rows(), 6, shuffle=True)
def odd(): return DataLoader(Rows(), batch_sampler=Odd())
def around(): return Around(loader())
def named(): return Around(loader(), with_name)
def timed(): return Around(DataLoader(Rows(), 6, shuffle=True), time_first)
def square(): return Around(DataLoader(Rows(width=6), 6, shuffle=True, drop_last=True), time_first)
def sampled(): return DataLoader(Rows(), 6, sampler=DistributedSampler(Rows()))
def every_other(): return Subset(Rows(), range(int(os.environ["RANK"]), 22, 2))
def longer(): return Rows(), Rows(8 + int(os.environ["RANK"]))
def own_memory(): return [part[int(os.environ["RANK"]):][:20] for part in tensors()]
def own_stream(): return Stream(every_other())
def own_kind(): return Rows() if os.environ["RANK"] == "0" else Stream(Rows())
def augmented(): return DataLoader(Augmented(), 6, shuffle=True)
def unseeded(): return DataLoader(Rows(), 6, sampler=np.random.default_rng().permutation(22))
def single(): return DataLoader(Rows(), 1)
def singles(): return DataLoader(Rows(), batch_sampler=[[0], [1], [2]])
def in_packs(): return Around(DataLoader(Rows(), 6, shuffle=True), packed)
"""

LOADERS = {"loader", "odd", "around", "named", "timed", "square", "in_packs", "sampled"}
LOADERS |= {"augmented", "unseeded", "single", "singles"}
CONFIG = """
data: {source: "data:SOURCE"SIZE, validation: 0}
model: {name: "data:MODEL"}
learning_rate: 0.1
train: {epochs: 1}
runtime: {device: cpu}
"""


def config(source, model="linear"):
    size = "" if source in LOADERS else ", batch_size: 6"
    return CONFIG.replace("SOURCE", source).replace("MODEL", model).replace("SIZE", size)


@pytest.fixture
def losses(launch, start, write, tmp_path):
    """Train with so many ranks; return the losses of all updates, and the lines on stderr."""
    write("data.py", DATA)

    def losses(world_size, source, model="linear", precision="fp32"):
        write("a.yaml", config(source, model))
        arguments = ("train", "a.yaml", "--quiet", "--overwrite", "--output", f"run{world_size}")
        arguments += ("--set", f"runtime.precision={precision}")
        begun = [start(*arguments)] if world_size == 1 else launch(world_size, *arguments)
        ended = [each.wait() for each in begun]
        assert [each.returncode for each in ended] == [0] * world_size, ended
        rows = (tmp_path / f"run{world_size}" / "metrics.jsonl").read_text().splitlines()
        steps = [row for row in map(json.loads, rows) if row["kind"] == "step"]
        return [row["loss"] for row in steps], ended[0].stderr

    return losses


@pytest.mark.parametrize("source", ["plain", "stream", "odd", "around"])
def test_two_ranks_have_the_losses_of_one(losses, source):
    expected, _ = losses(1, source)
    found, said = losses(2, source)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(found) == 4
    assert said == ""


def test_batches_with_other_parts_are_divided_where_that_is_right(losses):
    for source, model in (("named", "Named"), ("timed", "TimeFirst")):
        expected, _ = losses(1, source, model)
        found, said = losses(2, source, model)
        assert found == pytest.approx(expected, rel=1e-5)
        assert said == ""


def test_batches_that_cannot_be_divided_are_computed_by_every_rank(losses):
    for source, model, why in (
        ("in_packs", "Packed", "a batch holds a PackedSequence"),
        (
            "square",
            "TimeFirst",
            "ValueError: Expected input batch_size (6) to match target batch_size (2)",
        ),
        ("around", "Centred", "the loss of a batch is not that of its parts"),
    ):
        expected, _ = losses(1, source, model)
        found, said = losses(2, source, model)
        assert found == pytest.approx(expected, rel=1e-5)
        assert said == (
            "lrtool: warning: each of the 2 ranks computes all of every batch, no faster than one "
            f"process: the batches that data:{source} makes cannot be divided ({why}). Return a "
            "dataset, or a DataLoader that batches a map-style one: the ranks divide its samples\n"
        )


def test_lower_precision_is_no_reason_against_rows(losses):
    expected, _ = losses(1, "around", precision="bf16")
    found, said = losses(2, "around", precision="bf16")
    assert found == pytest.approx(expected, rel=2e-2)
    assert said == ""


def test_a_loss_between_samples_is_another_one_on_ranks(losses):
    expected, _ = losses(1, "memory", "Centred")
    found, said = losses(2, "memory", "Centred")
    assert found != pytest.approx(expected, rel=1e-3)
    assert said == (
        "lrtool: warning: the loss of a batch is not that of its parts, as where it compares "
        "samples with one another: each of the 2 ranks computes that of its own samples, so "
        "losses and weights are not those of one process\n"
    )


def test_augmentations_without_a_seed_may_differ(losses):
    found, said = losses(2, "augmented")
    assert len(found) == 4
    assert said == ""


def test_a_last_batch_that_leaves_one_sample_for_a_rank(launch, write):
    write("data.py", DATA)
    write("a.yaml", config("plain", "Fussy").replace("batch_size: 6", "batch_size: 5"))
    (ended, _) = (each.wait() for each in launch(2, "train", "a.yaml", "--quiet"))
    assert ended.returncode == 2
    assert re.sub(r" \(\S*data.py:\d+\)", "", ended.stderr) == (
        "a.yaml:2:42: data.batch_size: 22 training samples in batches of 5 leave 2 samples, 1 for "
        "a rank, in the last batch, which this model cannot train on (ValueError: one sample); "
        "batches of 6 do not\n"
    )


def different(problem, name="training", source="SOURCE"):
    return (
        f"a.yaml:2:16: data.source: the ranks have different {name} data: {problem}. {source} must "
        "return the same on every rank, without a DistributedSampler, split_dataset_by_node or a "
        "look at RANK: lrtool divides each batch among the ranks"
    )


ONE = (
    "a.yaml:2:16: data.source: a batch of 1 sample cannot be divided among 2 ranks; give the "
    "DataLoader a batch_size of 2 or more, or start fewer ranks"
)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("sampled", different("they take the samples in different orders")),
        ("unseeded", different("they take the samples in different orders")),
        ("every_other", different("their first samples differ")),
        ("own_stream", different("their first samples differ")),
        ("own_memory", different("their samples differ")),
        ("longer", different("rank 0 has 8 samples, rank 1 9 samples", "validation")),
        ("own_kind", different("rank 0 has a Rows, rank 1 a Stream")),
        ("single", ONE),
        ("singles", ONE),
    ],
)
def test_data_that_ranks_cannot_divide(launch, write, source, problem):
    write("data.py", DATA)
    write("a.yaml", config(source))
    ended = [each.wait() for each in launch(2, "train", "a.yaml", "--quiet")]
    assert [each.returncode for each in ended] == [2, 2]
    lines = "".join(each.stderr for each in ended).splitlines()
    errors = [line.removeprefix("lrtool: error: ") for line in lines if "warning" not in line]
    expected = problem.replace("SOURCE", f"data:{source}")
    assert {error.removeprefix("rank 1: ") for error in errors} == {expected}
