"""Targets that are ignored, and batches that do not begin with the samples: the command line."""

import json
import math

import pytest

MODULE = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

generator = torch.Generator().manual_seed(0)
x = torch.randn(80, 4, 6, generator=generator)
classes = torch.randint(3, (80, 4), generator=generator)
lengths = torch.arange(80) % 4 + 1
padded = classes.masked_fill(torch.arange(4) >= lengths[:, None], -100)
ignored = torch.full_like(classes, -100)
zeros = classes.masked_fill(torch.arange(80)[:, None] // 10 == 1, 0)
sparse = torch.where(torch.arange(80)[:, None] % 20 < 10, ignored, classes)


def pair(name, held_out="padded"):
    return (x, globals()[name]), (x[:40], globals()[held_out][:40])


def loaders(name, held_out="padded"):
    return [DataLoader(TensorDataset(*part), 10) for part in pair(name, held_out)]


def time_first():
    def collate(rows):
        inputs, targets = zip(*rows, strict=True)
        return torch.stack(inputs, 1), torch.stack(targets)

    y = x.sum((1, 2))[:, None]
    y[36:] += 30
    train, held_out = TensorDataset(x, y), TensorDataset(x[:40], y[:40])
    return [DataLoader(part, 36, collate_fn=collate) for part in (train, held_out)]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x).movedim(-1, 1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


def own(outputs, targets):
    return F.cross_entropy(outputs, targets)
"""
CONFIG = """
data: {{source: "mine:{source}", args: {args}{batch_size}}}
model: "mine:{model}"
loss: {loss}
metrics: [{metric}]
learning_rate: 1e-12
train: {{epochs: 1, accumulate: {accumulate}}}
"""


@pytest.fixture
def train(here, write, tmp_path, no_plots):  # noqa: ARG001
    """Train at a rate of nothing, and return the steps' and the epoch's rows, and what was said."""

    def run(source, args, batch_size=10, loss="cross_entropy", **keys):
        write("mine.py", MODULE)
        size = f", batch_size: {batch_size}" if source == "pair" else ""
        keys = {"model": "Tokens", "metric": "perplexity", "accumulate": 1, **keys}
        text = CONFIG.format(source=source, args=args, batch_size=size, loss=loss, **keys)
        write("a.yaml", text)
        done = here("train", "a.yaml", "--output", "run", "--overwrite")
        log = tmp_path / "run/metrics.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        epoch = rows[-1] if rows and rows[-1]["kind"] == "epoch" else None
        return done, [row for row in rows if row["kind"] == "step"], epoch

    return run


@pytest.mark.parametrize(
    "loss",
    [
        "cross_entropy",
        "{name: cross_entropy, args: {weight: [1, 5, 0.2]}}",
        "mine:own",
        "{name: 'torch.nn:CrossEntropyLoss', args: {reduction: sum}}",
    ],
)
def test_losses_do_not_depend_on_how_samples_are_batched(train, loss):
    found = []
    for batch_size, accumulate in ((1, 7), (10, 1), (10, 8), (80, 1)):
        done, steps, epoch = train(
            "pair", "{name: padded}", batch_size, loss, accumulate=accumulate
        )
        assert done.returncode == 0, done.stderr
        found.append((epoch["train_loss"], epoch["validation_loss"]))
    assert found == [pytest.approx(found[0], rel=1e-5)] * 4
    if loss == "cross_entropy":
        assert math.exp(epoch["validation_loss"]) == pytest.approx(epoch["perplexity"], rel=1e-5)
    assert steps[0]["loss"] == pytest.approx(epoch["train_loss"], rel=1e-6)


@pytest.mark.parametrize("source", ["pair", "loaders"])
def test_a_batch_without_targets_has_no_loss_and_no_weight(train, source):
    done, steps, epoch = train(source, "{name: sparse}")
    assert done.returncode == 0, done.stderr
    empty = [row for row in steps if row["denominator"] == 0]
    if source == "loaders":  # every other batch, in order
        assert empty == steps[::2]
    assert all(row["loss"] is None and row["not_finite"] == {"loss": "nan"} for row in empty)
    others = [(row["loss"], row["denominator"]) for row in steps if row["denominator"]]
    mean = sum(loss * n for loss, n in others) / sum(n for _, n in others)
    assert epoch["train_loss"] == pytest.approx(mean)
    assert sum(n for _, n in others) == 160


def test_a_search_leaves_batches_without_targets_out(here, write, tmp_path, no_plots):  # noqa: ARG001
    write("mine.py", MODULE)
    keys = {"model": "Tokens", "metric": "perplexity", "accumulate": 1, "loss": "cross_entropy"}
    write("a.yaml", CONFIG.format(source="loaders", args="{name: sparse}", batch_size="", **keys))
    done = here("find", "a.yaml", "--output", "run", "--set", "find.steps=60")
    assert done.returncode in {0, 3}, done.stderr
    [sweep] = json.loads((tmp_path / "run/report.json").read_text())["sweeps"]
    assert sweep["stop_reason"] in {"completed", "diverged"}
    assert sweep["without_targets"] == list(range(0, len(sweep["lr"]), 2))
    assert [i for i, loss in enumerate(sweep["loss"]) if loss is None] == sweep["without_targets"]


@pytest.mark.parametrize("source", ["pair", "loaders"])
@pytest.mark.parametrize("args", ["{name: ignored}", "{name: padded, held_out: ignored}"])
def test_a_part_without_any_target_is_refused(train, source, args):
    done, _, _ = train(source, args)
    assert done.returncode == 2
    assert " is -100, which the loss ignores: there is nothing to learn" in done.stderr
    assert ("of the validation data" in done.stderr) == ("held_out" in args)
    assert "Traceback" not in done.stderr


def test_a_batch_has_as_many_samples_as_targets(train):
    done, steps, epoch = train("time_first", "{}", loss="mse", model="Recurrent", metric="mse")
    assert done.returncode == 0, done.stderr
    assert [row["samples"] for row in steps] == [36, 36, 8]
    assert epoch["validation_loss"] == pytest.approx(epoch["mse"], rel=1e-5)


def test_nan_of_a_loss_that_ignores_all_targets_of_a_batch_is_explained(train, write, tmp_path):
    write(
        "void.py",
        "def loss(o, t):\n    from torch.nn.functional import cross_entropy as f\n"
        "    return f(o, t, ignore_index=0)\n",
    )
    done, _, _ = train("loaders", "{name: zeros, held_out: classes}", loss="void:loss")
    assert done.returncode == 4
    reason = json.loads((tmp_path / "run/report.json").read_text())["reason"]
    assert "step 2 of epoch 1" in reason
    assert (
        "the loss is nan, all outputs are finite, and every target is 0; if the loss ignores 0, "
        "this is the mean of nothing: let it return 0 where no target counts, or name a loss of "
        "torch with loss.args.ignore_index"
    ) in reason
    assert "--lr" not in reason
