"""A search of several ranks is that of one process, and its rate is for any number of them."""

import pytest
from small import rows

from lrtool.report import report as reports

pytestmark = pytest.mark.usefixtures("no_plots")

DATA = """
import torch

def data(huge_at=None):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 4, generator=generator)
    y = (x[:, :2].sum(1) > 0).long()
    if huge_at is not None:
        x[huge_at] = 3e38
    return torch.utils.data.TensorDataset(x, y), torch.utils.data.TensorDataset(x[:50], y[:50])
"""

# 150 samples in batches of 33: the last one of an epoch has 18.
CONFIG = """
data: {source: "own:data", batch_size: 33}
model: {name: mlp, args: {hidden: [16], input_shape: [4], num_outputs: 2}}
optimizer: adam
find: {start: 1e-4, end: 10, steps: 60, parallel: data}
train: {epochs: 6, schedule: {name: cosine, warmup: 2}}
runtime: {device: cpu, threads: 1}
"""


@pytest.fixture(autouse=True)
def _files(write):
    write("own.py", DATA)
    write("a.yaml", CONFIG)


@pytest.fixture
def found(here, tmp_path):
    """What one process finds."""
    assert here("find", "a.yaml", "--quiet", "--output", "found").returncode == 0
    return reports.read(tmp_path / "found/report.json")


def steps(run):
    return [row for row in rows(run) if row["kind"] == "step"]


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_search_is_that_of_one_process(found, launch, tmp_path, world_size):
    children = launch(world_size, "find", "a.yaml", "--quiet", "--output", "shared")
    ended = [child.wait() for child in children]
    assert [each.returncode for each in ended] == [0] * world_size, ended
    shared = reports.read(tmp_path / "shared/report.json")
    assert shared.sweeps[0].lr == found.sweeps[0].lr
    assert shared.sweeps[0].stop_reason == found.sweeps[0].stop_reason
    assert shared.sweeps[0].loss == pytest.approx(found.sweeps[0].loss, rel=1e-5, abs=1e-6)
    assert shared.first_update.critical_lr == pytest.approx(
        found.first_update.critical_lr, rel=0.01
    )
    assert shared.suggestion.lr == pytest.approx(found.suggestion.lr, rel=1e-3)
    assert shared.suggestion.verdict == found.suggestion.verdict
    assert shared.suggestion.for_steps == found.suggestion.for_steps == 30
    assert shared.data.samples_per_update == 33
    for own, other in zip(shared.trials.candidates, found.trials.candidates, strict=True):
        assert own.lr == pytest.approx(other.lr, rel=1e-3)
        assert own.final_loss == pytest.approx(other.final_loss, rel=1e-2)


def test_a_rate_of_one_process_is_that_of_several(found, here, launch, tmp_path):
    """Without a warning, along the whole schedule, which is as long on any number of ranks."""
    train = ("train", "a.yaml", "--quiet", "--lr-from", "found", "--output")
    done = here(*train, "one")
    assert (done.returncode, done.stderr) == (0, "")
    ended = [child.wait() for child in launch(2, *train, "two")]
    assert [(each.returncode, each.stderr) for each in ended] == [(0, ""), (0, "")]
    one, two = steps(tmp_path / "one"), steps(tmp_path / "two")
    assert len(one) == 30
    assert [(row["step"], row["lr"]) for row in two] == [(row["step"], row["lr"]) for row in one]
    assert max(row["lr"] for row in two) == pytest.approx(found.suggestion.lr)
    assert two[-1]["lr"] < 0.05 * found.suggestion.lr  # the cosine comes to its end
    losses = [[row["loss"] for row in each] for each in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_what_only_one_rank_sees_ends_the_training_of_all(here, launch, tmp_path):
    """One sample overflows, in the share of one rank: the loss of all is not finite."""
    diverges = ("--set", "data.args.huge_at=70", "--lr", 0.01, "--quiet", "--output")
    assert here("train", "a.yaml", *diverges, "one").returncode == 4
    ended = [child.wait() for child in launch(2, "train", "a.yaml", *diverges, "two")]
    assert [each.returncode for each in ended] == [4, 4], ended
    one, two = (reports.read(tmp_path / run / "report.json") for run in ("one", "two"))
    assert two.status == "diverged"
    assert two.reason == one.reason
    assert [row["step"] for row in steps(tmp_path / "two")] == [
        row["step"] for row in steps(tmp_path / "one")
    ]
