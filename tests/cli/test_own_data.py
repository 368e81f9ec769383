"""Data from the user's own Python, through the command line."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

MODULE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
images = torch.rand(100, 16, 16, 3)


class Conv(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 4, 3, padding=1)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, inputs):
        return self.head(self.conv(inputs).mean((2, 3)))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def training_loss(self, batch):
        return self.layer(batch[0]).square().mean()


def classes(first, step, last):
    y = torch.arange(100) % 3 * step + first
    y[8] = last
    return x, y


def one_class():
    return x, torch.ones(100, dtype=torch.long)


def one_class_in_a_loader():
    loader = DataLoader(TensorDataset(*one_class()), 20)
    return loader, loader


class Held(Dataset):
    def __init__(self, labels, offset=0, scale=1):
        self.labels, self.offset, self.scale = labels, offset, scale

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return x[index], int(self.labels[index] + self.offset) // self.scale


def held(kind):
    labels = torch.arange(100) % 2
    labels[50:] = -1
    signs = torch.arange(100) % 2 * 2 - 1
    if kind == "signs":
        return Held(signs)
    if kind == "made":
        return Held(signs, offset=1, scale=2)
    data = {"labelled": range(50), "all": range(100), "zeros": range(0, 50, 2)}[kind]
    return Subset(Held(labels), data), Subset(Held(labels), range(50))


def held_in_a_loader(kind):
    made = held(kind)
    parts = made if isinstance(made, tuple) else (made, made)
    return [DataLoader(part, 20) for part in parts]


def channels_last():
    return images, torch.arange(100) % 2
"""


@pytest.fixture
def check(here, write):
    """Run `lrtool check` on a configuration of the module."""

    def run(text):
        write("mine.py", MODULE)
        write("a.yaml", text)
        return here("check", "a.yaml", "--json")

    return run


@pytest.mark.parametrize("source", ["one_class", "one_class_in_a_loader"])
def test_one_class_is_nothing_to_learn(check, source):
    done = check(f"data: {{source: 'mine:{source}'}}\nmodel: linear\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"a.yaml:1:16: data.source: the targets of mine:{source}: every target is 1: there is "
        "nothing to learn from one class\n"
    )


def test_one_class_is_no_matter_for_a_model_with_its_own_loss(check):
    done = check("data: {source: 'mine:one_class'}\nmodel: 'mine:Own'\n")
    assert done.returncode == 0, done.stderr


def of_classes(first, step, last, loss="cross_entropy"):
    args = f"{{first: {first}, step: {step}, last: {last}}}"
    return f"data: {{source: 'mine:classes', args: {args}}}\nmodel: linear\nloss: {loss}\n"


def test_ignored_labels_are_no_classes(check):
    for ignored, loss in (
        (255, "{name: cross_entropy, args: {ignore_index: 255}}"),
        (255, "{name: 'torch.nn:CrossEntropyLoss', args: {ignore_index: 255}}"),
        (-1, "{name: cross_entropy, args: {ignore_index: -1}}"),
        (-1, "{name: 'torch.nn.functional:cross_entropy', args: {ignore_index: -1}}"),
        (-100, "'torch.nn.functional:cross_entropy'"),
        (-100, "cross_entropy"),
    ):
        done = check(of_classes(0, 1, ignored, loss))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outputs"] == [64, 3]


def test_labels_below_0(check):
    done = check(of_classes(0, 1, -1))
    assert done.returncode == 2
    assert "the targets of mine:classes: 1 of 80 labels are below 0, down to -1, but" in done.stderr


@pytest.mark.parametrize("source", ["held", "held_in_a_loader"])
def test_labels_are_those_that_a_dataset_yields(check, source):
    text = "data: {{source: 'mine:{}', args: {{kind: {}}}, batch_size: 20}}\nmodel: linear\n"
    for kind in ("made", "labelled"):
        done = check(text.format(source, kind))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outputs"] == [20, 2]
    for kind, words in (
        ("signs", "labels are below 0, down to -1, but classes count from 0"),
        ("all", "50 of 100 labels are below 0, down to -1, but classes count from 0"),
        ("zeros", "every target is 0: there is nothing to learn from one class"),
    ):
        done = check(text.format(source, kind))
        assert done.returncode == 2
        assert words in done.stderr


def test_numbers_that_are_no_classes(check):
    done = check(of_classes(0, 1, 250_000))
    assert done.returncode == 2
    assert done.stderr == (
        "a.yaml:2:8: model: linear needs num_outputs, which the data do not tell (a target is "
        "250000, too large for a class; numbers to predict must be floats); give "
        "model.args.num_outputs\n"
    )


def test_images_with_the_channels_last(check):
    data = "data: {source: 'mine:channels_last'}\nmodel: "
    done = check(data + "{name: cnn, args: {channels: [4]}}\n")
    assert done.returncode == 2
    assert done.stderr == (
        "a.yaml:2:8: model: cnn takes images (channels, height, width), but an input has shape "
        "(16, 16, 3), as with the channels last: give the inputs as (N, 3, 16, 16)\n"
    )
    done = check(data + "mine:Conv\n")
    assert done.returncode == 0
    assert "warning: an input of mine:channels_last has shape (16, 16, 3), as of an" in done.stderr
    assert check(data + "mlp\n").stderr == ""


ONE_NUMBER = """
import numpy as np
from torch.utils.data import Dataset


class Rows(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        row = np.random.default_rng(index).normal(size=8)
        return row, row.sum()


def column():
    rows = np.random.default_rng(0).normal(size=(100, 8))
    return rows, rows.sum(1)[:, None]
"""


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("source", ["Rows", "column"])
def test_a_regression_of_one_number_each(here, write, source):
    write("rows.py", ONE_NUMBER)
    write("a.yaml", f"data: {{source: 'rows:{source}'}}\nmodel: linear\nloss: mse\n")
    done = here("check", "a.yaml", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["targets"] == facts["outputs"] == [64, 1]
    done = here("train", "a.yaml", "--set", "train.epochs=2", "--lr", "0.1", "--output", "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning") == 0


STREAMS = """
import torch
from torch.utils.data import IterableDataset

x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))


class Stream(IterableDataset):
    def __init__(self, endless):
        self.endless = endless

    def __iter__(self):
        while True:
            for row in x:
                yield row, int(row.sum() > 0)
            if not self.endless:
                return


def made(train, validation=None):
    return Stream(train), None if validation is None else Stream(validation)
"""
NO_END = (
    r"The data have no length, and no end within 0\.1 seconds and [\d,]+ samples; if there is one, "
    r"give the dataset a __len__"
)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("lrtool.experiment.endless.SEARCH_S", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("args", "rest", "message"),
    [
        (
            "{train: true}",
            "train: {epochs: 2}",
            r"train.epochs: an epoch is all of the training data; give train.max_steps instead\. ",
        ),
        (
            "{train: true}",
            "metrics: [accuracy]\ntrain: {max_steps: 4}",
            (
                r"metrics: without a validation set they are computed on all of the training data; "
                r"return \(train, validation\), or remove the metrics\. "
            ),
        ),
        (
            "{train: false, validation: true}",
            "train: {epochs: 2}",
            (
                r"data.source: all of the validation set is evaluated after each epoch; let it "
                r"end\. "
            ),
        ),
    ],
)
def test_data_without_an_end_are_refused_where_all_are_read(here, write, args, rest, message):
    write("streams.py", STREAMS)
    text = f"data: {{source: 'streams:made', args: {args}, validation: 0}}\n"
    write("a.yaml", f"{text}model: {{name: linear, args: {{num_outputs: 2}}}}\n{rest}\n")
    for command in (["check", "a.yaml"], ["train", "a.yaml", "--lr", "0.1", "--output", "run"]):
        done = here(*command)
        assert done.returncode == 2, done.stderr
        assert re.search(f"^a.yaml:\\d+:\\d+: {message}{NO_END}$", done.stderr, re.MULTILINE)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("args", "rest"),
    [
        ("{train: true}", "train: {max_steps: 4}"),
        ("{train: true, validation: false}", "metrics: [accuracy]\ntrain: {max_steps: 4}"),
        ("{train: false}", "metrics: [accuracy]\ntrain: {epochs: 2}"),
        ("{train: false, validation: false}", "metrics: [accuracy]\ntrain: {epochs: 2}"),
    ],
)
def test_data_without_a_length_train_where_they_end_or_need_not(here, write, args, rest):
    write("streams.py", STREAMS)
    text = f"data: {{source: 'streams:made', args: {args}, validation: 0, batch_size: 25}}\n"
    write("a.yaml", f"{text}model: {{name: linear, args: {{num_outputs: 2}}}}\n{rest}\n")
    done = here("train", "a.yaml", "--lr", "0.1", "--output", "run")
    assert done.returncode == 0, done.stderr
    report = json.loads(Path("run/report.json").read_text())
    assert report["epochs"][-1]["step"] == (4 if "max_steps" in rest else 8)


ODD = """
import torch
from torch.utils.data import Dataset

x = torch.randn(100, 8)


class Rows(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return x[index], index % 2


class Silent(Exception):
    def __str__(self):
        raise ValueError("no text")


class Missing(Rows):
    def __getitem__(self, index):
        return x[index] * float("nan"), index % 2


class Lost(Rows):
    def __len__(self):
        raise Silent


class Vast(Rows):
    def __len__(self):
        return 10**15


class Shy(Rows):
    @property
    def targets(self):
        raise Silent

    def __repr__(self):
        raise Silent


def failing():
    raise Silent
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "Missing",
            (
                "the first training batch of odd:Missing holds NaN or infinity, and so is its loss:"
                " correct or remove such samples"
            ),
        ),
        (
            "Lost",
            "odd:Lost: what it returned cannot be used: Silent: its __str__ raised ValueError",
        ),
        (
            "Vast",
            "odd:Vast: train: the dataset Vast says that it has 1,000,000,000,000,000 samples",
        ),
        ("failing", "odd:failing: raised Silent: its __str__ raised ValueError"),
        ("Shy", None),
    ],
)
def test_odd_data_are_said(here, write, source, message):
    write("odd.py", ODD)
    data = f"{{source: 'odd:{source}', validation: 0}}"
    write("a.yaml", f"data: {data}\nmodel: {{name: linear, args: {{num_outputs: 2}}}}\n")
    done = here("check", "a.yaml")
    assert done.stderr == (f"a.yaml:1:16: data.source: {message}\n" if message else "")
    assert done.returncode == (2 if message else 0)


AROUND = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
y = torch.arange(50) % 3
y[::4] = 255


class Around:
    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for inputs, targets in self.loader:
            yield inputs * 2, targets


def loader(rows, **order):
    generator = torch.Generator().manual_seed(1)
    return Around(DataLoader(TensorDataset(x[rows], y[rows]), 8, generator=generator, **order))


def data():
    return loader(slice(36), shuffle=True), loader(slice(36, None))


def once():
    return iter(loader(slice(None)))


def pairs():
    return (x[:36], y[:36]), (x[36:], y[36:])


criterion = nn.CrossEntropyLoss(ignore_index=255)


def loss(outputs, targets):
    return criterion(outputs, targets)


class Net(nn.Linear):
    def __init__(self):
        super().__init__(8, 3)
        nn.init.eye_(self.weight)
        nn.init.zeros_(self.bias)


class Sized(nn.Linear):
    def __init__(self, num_outputs):
        super().__init__(8, num_outputs)
"""


@pytest.mark.usefixtures("no_plots")
def test_an_object_around_a_loader_trains_as_in_a_plain_loop(here, write):
    write("around.py", AROUND)
    write(
        "a.yaml",
        "data: {source: 'around:data'}\nmodel: 'around:Net'\nloss: 'around:loss'\n"
        "metrics: [accuracy]\noptimizer: sgd\nlearning_rate: 0.5\ntrain: {epochs: 2}\n",
    )
    done = here("train", "a.yaml", "--output", "run", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    found = [row["loss"] for row in rows if row["kind"] == "step"]
    own = SimpleNamespace()
    exec(AROUND, vars(own))  # noqa: S102
    model = own.Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    train, _ = own.data()
    plain = []
    for _ in range(2):
        for inputs, targets in train:
            loss = own.loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plain.append(loss.item())
    assert found == pytest.approx(plain, rel=1e-5)
    epoch = json.loads(done.stdout)["epochs"][-1]
    outputs, targets = model(own.x[36:] * 2), own.y[36:]
    counted = targets != 255
    assert epoch["validation_loss"] == pytest.approx(own.loss(outputs, targets).item(), rel=1e-5)
    right = outputs.argmax(1)[counted] == targets[counted]
    assert epoch["accuracy"] == pytest.approx(right.float().mean().item())


def test_batches_that_can_be_read_once_are_refused(here, write):
    write("around.py", AROUND)
    write("a.yaml", "data: {source: 'around:once'}\nmodel: 'around:Net'\n")
    done = here("check", "a.yaml")
    assert done.returncode == 2
    assert "around:once: returned an object of type generator; it must return" in done.stderr


def test_what_an_own_loss_ignores_is_no_class(here, write):
    write("around.py", AROUND)
    write(
        "a.yaml",
        "data: {source: 'around:pairs', batch_size: 12}\nmodel: 'around:Sized'\n"
        "loss: 'around:loss'\nmetrics: [f1, accuracy]\n",
    )
    done = here("check", "a.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == [12, 3]
