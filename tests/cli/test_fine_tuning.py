"""`model.checkpoint` and `model.train_only` in every command, with the numbers of a plain loop."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from small import at_call, rows

import lrtool
from lrtool.engine import step
from lrtool.engine.weights import read_weights
from lrtool.experiment import pretrained
from lrtool.report import report as reports
from lrtool.training import session

pytestmark = pytest.mark.usefixtures("no_plots")
NET = """
import torch
from collections import OrderedDict
from torch import nn

def data(classes=2):
    generator = torch.Generator().manual_seed(classes)
    x = torch.randn(96, 4, generator=generator)
    y = (x @ torch.randn(4, classes, generator=generator)).argmax(1)
    return (x[:64], y[:64]), (x[64:], y[64:])

def model(num_outputs):
    return nn.Sequential(OrderedDict(
        body=nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)),
        head=nn.Linear(8, num_outputs),
    ))
"""
BEFORE = """
data: {source: "net:data", batch_size: 16}
model: "net:model"
learning_rate: 0.01
train: {epochs: 2}
runtime: {device: cpu}
"""
AFTER = """
seed: 1
data: {source: "net:data", args: {classes: 3}, batch_size: 16}
model: {name: "net:model", checkpoint: before, partial: true, train_only: [head]}
learning_rate: 0.01
train: {epochs: 3, ema_decay: 0.9, gradient_clip_norm: 1.0, checkpoint_every: 2}
find: {steps: 40}
runtime: {device: cpu}
"""
BODY = [
    "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.1.running_mean",
    "body.1.running_var", "body.1.num_batches_tracked",
]  # fmt: skip
SAID = (
    "lrtool: model.checkpoint: left at fresh values: head.weight, which is 3 × 8 here and 2 × 8 in "
    "the file\n"
    "lrtool: model.checkpoint: left at fresh values: head.bias, which is 3 here and 2 in the file\n"
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "before"


@pytest.fixture(autouse=True)
def _before(write, here, kept, tmp_path):
    write("net.py", NET)
    write("before.yaml", BEFORE)
    write("after.yaml", AFTER)
    if not kept.exists():
        assert here("train", "before.yaml", "--quiet", "--output", str(kept)).returncode == 0
    shutil.copytree(kept, tmp_path / "before")


def report(tmp_path, run):
    return reports.read(tmp_path / run / "report.json")


def weights_of(path):
    """A copy of the weights in a file, which may be overwritten."""
    return {name: value.clone() for name, value in read_weights(path).items()}


def digest_of(run):
    return run.model.checkpoint.hash


def test_the_frozen_part_keeps_its_weights_and_statistics_to_the_bit(here, tmp_path):
    done = here("train", "after.yaml", "--output", "after")
    assert done.returncode == 0, done.stderr
    assert SAID in done.stderr
    best = tmp_path / "before/checkpoints/best/model.safetensors"
    given = read_weights(best)
    for name in ("model.safetensors", "checkpoints/last/model.safetensors"):
        kept = read_weights(tmp_path / "after" / name)
        assert all(torch.equal(kept[name], given[name]) for name in BODY)
    model = report(tmp_path, "after").model
    assert (model.parameters, model.trainable) == (4 * 8 + 8 + 16 + 8 * 3 + 3, 8 * 3 + 3)
    assert (model.trained, model.frozen) == (("head",), ("body",))
    assert (model.checkpoint.path, model.checkpoint.loaded) == (str(best), 7)
    assert (model.checkpoint.fresh, model.checkpoint.unused) == (("head.weight", "head.bias"), ())
    letters = "".join(done.stdout.split())  # a terminal breaks the path into lines
    assert f"Weights{best},7tensors;fresh:head.weight,head.bias" in letters
    assert "Part 27 of 83 parameters: head; frozen: body" in " ".join(done.stdout.split())


def test_a_find_starts_from_them(here, tmp_path):
    done = here("find", "after.yaml", "--output", "found")
    assert done.returncode in {0, 3}, done.stderr
    assert SAID in done.stderr
    assert "Part 27 of 83 parameters: head; frozen: body" in " ".join(done.stdout.split())
    found = report(tmp_path, "found")
    assert found.model.frozen == ("body",)
    here("train", "after.yaml", "--output", "after", "--quiet")
    assert digest_of(found) == digest_of(report(tmp_path, "after"))


def test_check_says_what_is_loaded_frozen_and_trained(here):
    done = here("check", "after.yaml", "--json")
    facts = json.loads(done.stdout)
    assert (facts["trained"], facts["frozen"]) == (["head"], ["body"])
    assert facts["checkpoint"]["fresh"] == ["head.weight", "head.bias"]
    assert done.stderr == SAID
    lines = here("check", "after.yaml").stdout.splitlines()
    assert [line.split() for line in lines if line.startswith(("trained", "frozen"))] == [
        ["trained", "head"],
        ["frozen", "body"],
    ]


def test_without_partial_a_misfit_is_an_error_at_its_place(here, tmp_path):
    done = here("check", "after.yaml", "--set", "model.partial=false")
    assert done.returncode == 2
    best = tmp_path / "before/checkpoints/best/model.safetensors"
    assert done.stderr == (
        f"after.yaml:4:40: model.checkpoint: {best} does not fit net:model: 2 keys of another "
        "shape: head.weight is 2 × 8 and not 3 × 8, head.bias is 2 and not 3. model.partial: true "
        "loads the other 7 keys, and leaves what does not fit at fresh values\n"
    )


def test_a_path_that_leads_nowhere_is_an_error_at_its_place(here, tmp_path):
    done = here("check", "after.yaml", "--set", "model.checkpoint=nowhere.pt")
    assert done.returncode == 2
    assert done.stderr == (
        f"--set model.checkpoint: nowhere.pt: no such file (looked in {tmp_path})\n"
    )


def test_expressions_are_checked_before_anything_is_read(here):
    done = here("check", "after.yaml", "--set", "model.train_only=['(', head]")
    assert done.returncode == 2
    assert "model.train_only.0: '(' is not a regular expression: " in done.stderr
    done = here("check", "after.yaml", "--set", "model.train_only=[tail]")
    assert done.returncode == 2
    words = "model.train_only.0: 'tail' matches no parameter; the model has body.0.weight, "
    assert words in done.stderr


def test_partial_without_a_checkpoint_is_ignored_with_a_warning(here):
    done = here("check", "after.yaml", "--set", "model.checkpoint=null")
    assert done.returncode == 0
    words = "warning: model.partial is ignored: there is no model.checkpoint to load"
    assert words in done.stderr


def test_a_killed_run_goes_on_with_its_own_weights_though_the_checkpoint_has_moved(
    here, start, tmp_path
):
    assert here("train", "after.yaml", "--quiet", "--output", "whole").returncode == 0
    killed = ("train", "after.yaml", "--quiet", "--output", "killed")
    assert start(*killed, prepare=at_call(7, step, "batch_loss")).wait().returncode != 0
    (tmp_path / "before").rename(tmp_path / "moved")
    done = here("train", "after.yaml", "--quiet", "--resume", "killed")
    assert done.returncode == 0, done.stderr
    assert "before is not there any more; killed goes on with its own weights" in done.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    one, other = report(tmp_path, "killed"), report(tmp_path, "whole")
    assert one.model == other.model
    assert here("evaluate", "killed").returncode == 0


def test_a_run_goes_on_with_the_same_weights_elsewhere_and_not_with_others(here, start, tmp_path):
    killed = ("train", "after.yaml", "--quiet", "--output", "killed")
    assert start(*killed, prepare=at_call(7, step, "batch_loss")).wait().returncode != 0
    path = tmp_path / "before/checkpoints/best/model.safetensors"
    weights = weights_of(path)
    torch.save({"model": weights}, tmp_path / "same.pt")
    torch.save({**weights, "body.0.bias": torch.ones(8)}, path)
    done = here("train", "after.yaml", "--quiet", "--resume", "killed")
    assert done.returncode == 2
    assert done.stderr == (
        f"lrtool: error: --resume killed: the pretrained weights in {path} have changed since; put "
        "back those that the run began with, move them away, or begin a new run\n"
    )
    same = ("--resume", "killed", "--set", "model.checkpoint=same.pt")
    done = here("train", "after.yaml", "--quiet", *same)
    assert done.returncode == 0, done.stderr
    assert report(tmp_path, "killed").model.checkpoint.path == str(path)


def test_a_run_is_not_taken_for_the_weights_that_it_began_with(here, tmp_path):
    shutil.copy(tmp_path / "before/model.safetensors", tmp_path)
    flags = ("--quiet", "--set", "model.checkpoint=model.safetensors")
    assert here("train", "after.yaml", "--output", "run", *flags).returncode == 0
    assert (tmp_path / "run/model.safetensors").exists()
    longer = ("--quiet", "--resume", "run", "--set", "train.epochs=4")
    done = here("train", "run/config.yaml", *longer)
    assert done.returncode == 0, done.stderr
    assert report(tmp_path, "run").model.checkpoint.path == f"{tmp_path}/model.safetensors"


def test_the_run_that_it_begins_with_is_never_replaced(here, tmp_path):
    done = here("train", "after.yaml", "--quiet", "--output", "before", "--overwrite")
    assert done.returncode == 2
    assert (tmp_path / "before/model.safetensors").exists()


def test_a_search_inside_a_run_is_made_anew_for_other_weights(here, start, tmp_path):
    auto = ("train", "after.yaml", "--quiet", "--lr", "auto", "--output", "run")
    ended = start(*auto, prepare=at_call(1, session, "rewind_generators")).wait()
    assert ended.returncode != 0
    first = report(tmp_path, "run/find")
    path = tmp_path / "before/checkpoints/best/model.safetensors"
    torch.save({**weights_of(path), "body.0.bias": torch.ones(8)}, path)
    done = here("train", "after.yaml", "--quiet", "--lr", "auto", "--resume", "run")
    assert done.returncode == 0, done.stderr
    whole, search = report(tmp_path, "run"), report(tmp_path, "run/find")
    assert digest_of(first) != digest_of(search) == digest_of(whole)


def test_a_rate_of_other_weights_or_another_frozen_part_is_warned_of(here, tmp_path):
    assert here("train", "after.yaml", "--quiet", "--output", "one").returncode == 0
    path = tmp_path / "before/checkpoints/best/model.safetensors"
    weights = weights_of(path)
    torch.save(weights, tmp_path / "same.pt")
    torch.save({**weights, "body.0.bias": torch.ones(8)}, tmp_path / "other.pt")
    from_one = ("train", "after.yaml", "--lr-from", "one", "--quiet", "--output")
    learning_rate = ("--set", "learning_rate=null")
    same = ("--set", "model.checkpoint=same.pt", "--set", "model.train_only=['^head\\.']")
    done = here(*from_one, "two", *learning_rate, *same)
    assert done.returncode == 0
    assert "its rate was found" not in done.stderr
    found = "warning: --lr-from one: its rate was found for another setting: "
    other = ("--set", "model.checkpoint=other.pt", "--set", "model.train_only=null")
    done = here(*from_one, "three", *learning_rate, *other)
    assert (
        f"{found}the weights at the start were {path}, are {tmp_path}/other.pt; the frozen part "
        "was body, is nothing"
    ) in done.stderr
    torch.save({**weights, "body.0.bias": torch.ones(8)}, path)
    done = here(*from_one, "four", *learning_rate)
    assert f"{found}the pretrained weights in {path} have changed since\n" in done.stderr
    none = ("--set", "model.checkpoint=null", "--set", "model.partial=false")
    done = here(*from_one, "five", *learning_rate, *none)
    assert f"{found}the weights at the start were {path}, are random\n" in done.stderr


@pytest.mark.parametrize("flags", [(), ("--set", "runtime.shard=['^body']")])
def test_ranks_train_the_same_part_to_the_same_losses(flags, here, launch, tmp_path):
    assert here("train", "after.yaml", "--quiet", "--output", "one").returncode == 0
    children = launch(2, "train", "after.yaml", "--quiet", "--output", "two", *flags)
    done = [child.wait(120) for child in children]
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    given = read_weights(tmp_path / "before/checkpoints/best/model.safetensors")
    one, two = (read_weights(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    for name, tensor in two.items():
        assert torch.allclose(tensor, one[name], atol=1e-6), name
        assert torch.equal(tensor, given[name]) == (name in BODY), name
    assert report(tmp_path, "two").model == report(tmp_path, "one").model


def test_a_rank_with_other_weights_ends_the_launch(launch, tmp_path):
    def prepare(rank):
        real = pretrained.read_pretrained
        if rank == 1:
            pretrained.read_pretrained = lambda path: replace(real(path), digest="other")

    children = launch(2, "train", "after.yaml", "--quiet", prepare=prepare)
    done = [child.wait(120) for child in children]
    assert [each.returncode for each in done] == [2, 2]
    assert (
        f"model.checkpoint: rank 1 has read other weights from {tmp_path}/before than rank 0; give "
        "every machine the same file\n"
    ) in "".join(each.stderr for each in done)


def test_a_frozen_group_is_named(here):
    groups = "optimizer.groups=[{match: body, lr_ratio: 0.1}]"
    done = here("check", "after.yaml", "--set", groups)
    assert done.returncode == 2
    assert (
        "optimizer.groups.0.match: 'body' matches no trainable parameter; the model has "
        "head.weight, head.bias\n"
    ) in done.stderr


def test_predict_needs_no_checkpoint(here, tmp_path):
    assert here("train", "after.yaml", "--quiet", "--output", "after").returncode == 0
    shutil.rmtree(tmp_path / "before")
    samples = torch.zeros(2, 4).numpy()
    trained = lrtool.load(tmp_path / "after")
    assert trained(samples).shape == (2, 3)
    kept = read_weights(tmp_path / "after/checkpoints/best/model.safetensors")
    assert torch.equal(trained.model.head.bias, kept["head.bias"])


def test_a_runs_weights_know_the_meanings_of_their_training(here, write, tmp_path):
    def table(name, first, second, start):
        rows = "".join(f"{start + i % 30},{(first, second)[i % 30 > 14]}\n" for i in range(60))
        write(f"{name}.csv", f"age,kind\n{rows}")
        return "--set", f"data.args.path={name}.csv"

    write(
        "table.yaml",
        "data: {source: csv, args: {path: one.csv, target: kind}, batch_size: 12, validation: 0}\n"
        "model: linear\nlearning_rate: 0.01\ntrain: {epochs: 1}\nruntime: {device: cpu}\n",
    )
    table("one", "no", "yes", 20)
    assert here("train", "table.yaml", "--quiet", "--output", "one").returncode == 0
    start = ("train", "table.yaml", "--quiet", "--overwrite", "--output", "fine")
    start = (*start, "--set", "model.checkpoint=one")
    done = here(*start)
    assert (done.returncode, done.stderr) == (0, "")
    done = here(*start, *table("two", "ja", "nein", 40))
    assert done.returncode == 0
    assert done.stderr == (  # (20 + … + 49) / 30 = 34.5, √((30² − 1) / 12) = 8.655
        "lrtool: warning: model.checkpoint: numbers mean something else here than in the training "
        f"of {tmp_path}/one: column 'age': mean 34.5 and deviation 8.655 there, mean 54.5 and "
        "deviation 8.655 here; class 0 is 'no' there, and 'ja' here (2 differ)\n"
    )
    said = done.stderr
    for path in ("model.safetensors", "checkpoints/best", "checkpoints/best/model.safetensors"):
        file = ("--set", f"model.checkpoint=one/{path}")
        done = here(*start, *file, "--set", "data.args.path=two.csv")
        assert (done.returncode, done.stderr) == (0, said)
    done = here("evaluate", "fine", *table("three", "ja", "nein", 41))
    assert (done.returncode, done.stderr) == (0, "")
