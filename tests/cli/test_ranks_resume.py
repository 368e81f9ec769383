"""What a run of several ranks writes, and how it goes on: rank 0 alone writes, for all of them."""

import json
import os
import shutil
import signal
import socket

import pytest
import torch
from small import CONFIG, NET, at_call, contents, rows

from lrtool import claims
from lrtool.cli import watch
from lrtool.engine import step

pytestmark = pytest.mark.usefixtures("no_plots")
TRAIN = ("train", "a.yaml", "--quiet", "--output")


@pytest.fixture(autouse=True)
def _files(write):
    write("net.py", NET)
    write("a.yaml", CONFIG)


@pytest.fixture
def ranks(launch):
    """Run `lrtool …` as so many ranks; return what became of each."""

    def run(world_size, *arguments, **options):
        return [each.wait() for each in launch(world_size, *arguments, **options)]

    return run


def codes(ended):
    return [each.returncode for each in ended]


def state_of(run):
    return torch.load(run / "checkpoints" / "last" / "state.pt", weights_only=True)


def test_rank_0_alone_writes_a_training(ranks, tmp_path):
    ended = ranks(2, *TRAIN, "run", "--lr", "auto", "--set", "data.args.n=120")
    assert codes(ended) == [0, 0]
    assert ended[0].stdout == "run\n"
    steps = [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "step"]
    assert steps == list(range(1, 16))
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]
    assert not list((tmp_path / "run").rglob("*.tmp"))
    states = state_of(tmp_path / "run")["ranks"]
    assert len(states) == 2
    assert not torch.equal(states[0]["model"]["torch"], states[1]["model"]["torch"])
    environment = json.loads((tmp_path / "run" / "report.json").read_text())["environment"]
    assert (environment["world_size"], environment["backend"]) == (2, "gloo")
    assert environment["ranks"] == [{"host": socket.gethostname(), "device": "cpu"}] * 2


def killed_at(number, *victims):
    """Let ranks kill themselves at so many batches."""

    def prepare(rank):
        claims.ANSWER_S, watch.SEEN_S = 1.0, 0.1  # nobody else is there to answer, or to see
        if rank in victims:
            at_call(number, step, "batch_loss")()

    return prepare


def stopped_at(number):
    """Let rank 0 get a SIGTERM at so many batches."""

    def prepare(rank):
        if rank == 0:
            at_call(number, step, "batch_loss", send=signal.SIGTERM)()

    return prepare


def test_killed_and_resumed_by_as_many_ranks_it_is_the_same_to_the_last_bit(ranks, tmp_path):
    assert codes(ranks(2, *TRAIN, "whole")) == [0, 0]
    for number, victims in ((9, (0, 1)), (6, (1,))):
        ended = ranks(2, *TRAIN, "run", "--resume", "auto", prepare=killed_at(number, *victims))
        killed = [each.returncode for rank, each in enumerate(ended) if rank in victims]
        assert killed == [-signal.SIGKILL] * len(victims)
        assert all(each.returncode for each in ended)
    ended = ranks(2, *TRAIN, "run", "--resume", "auto")
    assert codes(ended) == [0, 0], ended[0].stderr
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


DIGITS = """
data: {source: digits, batch_size: 50}
model: mlp
metrics: [accuracy]
learning_rate: 0.01
train: {epochs: 1}
runtime: {device: cpu}
"""


def test_evaluate_is_shared_and_gives_the_same(ranks, write, here, tmp_path):
    write("digits.yaml", DIGITS)
    assert codes(ranks(2, "train", "digits.yaml", "--quiet", "--output", "run")) == [0, 0]
    alone = json.loads(here("evaluate", "run").stdout)
    ended = ranks(2, "evaluate", "run")
    assert (codes(ended), ended[1].stdout) == ([0, 0], "")
    shared = json.loads(ended[0].stdout)
    trained = next(row for row in rows(tmp_path / "run") if row["kind"] == "epoch")
    assert list(shared) == list(alone)
    assert shared["samples"] == alone["samples"] == 359
    for name in ("validation_loss", "accuracy"):
        assert shared[name] == pytest.approx(alone[name], rel=1e-6)
        assert shared[name] == pytest.approx(trained[name], rel=1e-6)


def test_another_number_of_ranks_goes_on_from_the_same_step(ranks, write, tmp_path):
    write("digits.yaml", DIGITS)
    train = ("train", "digits.yaml", "--set", "train.checkpoint_every=5", "--output")
    assert codes(ranks(1, *train, "whole", "--quiet")) == [0]
    for number, before, now in ((6, None, 1), (10, 1, 2), (14, 2, 4), (99, 4, 1)):
        ended = ranks(now, *train, "run", "--resume", "auto", prepare=stopped_at(number))
        assert codes(ended) == ([0] if number == 99 else [143] * now)
        words = (
            f"warning: --resume run: was trained by {before} rank{'' if before == 1 else 's'} so "
            f"far, and now by {now}: the batches stay the same; what the model draws, as for "
            "dropout, and the last digits of the losses do not\n"
        )
        assert (words in ended[0].stderr) == (before is not None)
    one, several = (list(rows(tmp_path / run)) for run in ("whole", "run"))
    assert [row["step"] for row in several] == [row["step"] for row in one]
    for ours, theirs in zip(several, one, strict=True):
        name = "loss" if ours["kind"] == "step" else "train_loss"
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


BROKEN = """
import torch
from torch.utils.data import Dataset

class Broken(Dataset):
    classes = [0, 1]
    def __init__(self, n, bad):
        self.n, self.bad = n, bad
    def __len__(self):
        return self.n
    def __getitem__(self, index):
        return torch.full((4,), float("nan") if index == self.bad else index / self.n), index % 2

def data():
    return Broken(32, 20), Broken(8, None)

def model():
    return torch.nn.Linear(4, 2)
"""


def test_a_divergence_ends_all_ranks_with_the_cause_that_one_of_them_sees(ranks, write, tmp_path):
    write("broken.py", BROKEN)
    own = ("--set", "data.source=broken:data", "--set", "model=broken:model")
    ended = ranks(2, *TRAIN, "run", *own, "--set", "train.accumulate=1")
    assert codes(ended) == [4, 4]
    assert (ended[0].stdout, ended[1].stdout, ended[1].stderr) == ("run\n", "", "")
    assert ended[0].stderr.count("diverged: ") == 1
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["status"] == "diverged"
    assert "the data of this step hold NaN or infinity" in report["reason"]


OWN_LOADER = """
import torch
from torch.utils.data import DataLoader
from net import Noisy

def loaders():
    generator = torch.Generator().manual_seed(5)
    own = DataLoader(Noisy(60, 0), 8, shuffle=True, generator=generator)
    return own, DataLoader(Noisy(20, 1), 8)
"""


def test_a_loader_of_the_users_goes_on_to_the_last_bit(ranks, write, tmp_path):
    write("loaders.py", OWN_LOADER)
    own = ("--set", "data={source: 'loaders:loaders'}")
    assert codes(ranks(2, *TRAIN, "whole", *own)) == [0, 0]
    assert codes(ranks(2, *TRAIN, "run", *own, prepare=stopped_at(15))) == [143, 143]
    ended = ranks(2, *TRAIN, "run", *own, "--resume", "run")
    assert codes(ended) == [0, 0], ended[0].stderr
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_run_is_copied_replaced_and_read_by_rank_0(ranks, tmp_path):
    assert codes(ranks(2, *TRAIN, "run", "--epochs", "1")) == [0, 0]
    longer = ("--epochs", "2", "--resume", "run")
    assert codes(ranks(2, *TRAIN, "copy", *longer)) == [0, 0]
    assert [row["step"] for row in rows(tmp_path / "copy") if row["kind"] == "epoch"] == [3, 6]
    refused = ranks(2, *TRAIN, "copy", "--epochs", "1")
    assert codes(refused) == [2, 2]
    assert refused[0].stderr.startswith("lrtool: error: copy: holds a run already")
    assert refused[1].stderr == ""
    again = ("--overwrite", "--lr-from", "run", "--epochs", "1", "--json")
    ended = ranks(2, "train", "a.yaml", "--output", "copy", *again)
    assert (codes(ended), ended[1].stdout) == ([0, 0], "")
    report = json.loads(ended[0].stdout)
    assert report["learning_rate"]["origin"] == "run"
    assert report == json.loads((tmp_path / "copy" / "report.json").read_text())
    assert len(rows(tmp_path / "copy")) == 4


def test_ranks_on_disks_of_their_own_are_refused(ranks, here, tmp_path):
    assert here(*TRAIN, "run", "--epochs", "1").returncode == 0

    def on_another_disk(rank):
        if rank:
            (tmp_path / "other").mkdir()
            for name in ("a.yaml", "net.py"):
                shutil.copy(tmp_path / name, tmp_path / "other")
            os.chdir(tmp_path / "other")

    ended = ranks(2, *TRAIN, "run", "--resume", "run", prepare=on_another_disk)
    assert codes(ended) == [2, 2]
    assert ended[0].stderr == (
        "lrtool: error: --resume run: rank 1 found another checkpoint there than rank 0, or none: "
        "the directory must be on a disk that all machines share\n"
    )
    assert ended[1].stderr == ""
