"""What a run of several ranks writes, and how it goes on: rank 0 alone writes, for all of them."""

import json
import socket

import pytest
import torch
from small import CONFIG, NET

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


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def state_of(run):
    return torch.load(run / "checkpoints" / "last" / "state.pt", weights_only=True)


def test_rank_0_alone_writes_a_training(ranks, tmp_path):
    ended = ranks(2, *TRAIN, "run", "--lr", "auto")
    assert codes(ended) == [0, 0]
    assert ended[0].stdout == "run\n"
    steps = [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "step"]
    assert steps == list(range(1, 10))
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]
    assert not list((tmp_path / "run").rglob("*.tmp"))
    states = state_of(tmp_path / "run")["ranks"]
    assert len(states) == 2
    assert not torch.equal(states[0]["model"]["torch"], states[1]["model"]["torch"])


def test_a_run_in_a_directory_of_its_own_is_one_for_all_ranks(ranks, tmp_path):
    assert codes(ranks(2, "find", "a.yaml", "--no-verify")) == [0, 0]
    (run,) = (tmp_path / "runs" / "a").iterdir()
    report = json.loads((run / "report.json").read_text())
    swept = [row for row in rows(run) if row["kind"] == "sweep"]
    assert len(swept) == len(report["sweeps"][0]["loss"])


def test_the_report_names_the_ranks(ranks, tmp_path):
    assert codes(ranks(2, *TRAIN, "run", "--epochs", "1")) == [0, 0]
    environment = json.loads((tmp_path / "run" / "report.json").read_text())["environment"]
    assert (environment["world_size"], environment["backend"]) == (2, "gloo")
    assert environment["ranks"] == [{"host": socket.gethostname(), "device": "cpu"}] * 2
