"""`find.parallel`: what several ranks find in trials and race is what one process finds."""

import json
import signal
from dataclasses import replace

import pytest
from small import CONFIG, NET, rows

from lrtool.search import search

pytestmark = pytest.mark.usefixtures("no_plots")

PLAIN = """
data: {source: "plain:data", batch_size: 30}
model: {name: mlp, args: {hidden: [16]}}
optimizer: adam
find: {start: 1e-5, end: 10, steps: 60, verify: true}
train: {epochs: 20, schedule: cosine}
runtime: {device: cpu, threads: 1}
"""
DATA = """
import torch

def data():
    x = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, :3] + x[:, 3:] ** 2).argmax(1)
    return (x[:120], y[:120]), (x[120:], y[120:])
"""
NET_THAT_BREAKS = """
import os

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 3)

    def forward(self, x):
        if os.environ.get("RANK") != "0" and not self.weight.isfinite().all():
            raise ValueError("broken")
        return super().forward(x) ** 3
"""
# On rank 1 it fails in the trials, after the 60 updates of the sweep.
NET_THAT_FAILS = """
import os

class Net(torch.nn.Linear):
    calls = 0

    def __init__(self):
        super().__init__(4, 3)

    def forward(self, x):
        Net.calls += 1
        if os.environ.get("RANK") == "1" and Net.calls > 120:
            raise ValueError("no luck today")
        return super().forward(x)
"""
SLOW_NET = """
import time

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 3)

    def forward(self, x):
        time.sleep(0.004)
        return super().forward(x)
"""
ONE_EACH = "lrtool: trials and race: each rank trains candidates of its own (find.parallel)\n"
BATCHES = "lrtool: trials and race: all ranks share each batch (find.parallel)\n"


@pytest.fixture(autouse=True)
def _files(write):
    write("plain.yaml", PLAIN)
    write("plain.py", DATA)
    write("noisy.yaml", CONFIG.replace("{start: 1e-4,", "{verify: true, start: 1e-4,"))
    write("net.py", NET)


@pytest.fixture
def estimate(monkeypatch):
    """Sweeps that ranks share differ by rounding: the rates of the candidates must not."""
    suggest = search.suggest

    def given(centre, low, high):
        def suggested(*sweeps, **known):
            found = suggest(*sweeps, **known)
            rates = (low, high) if known["trials"] is None else None
            whole = None if found.full_trial_rate is None else centre
            return replace(found, centre=centre, trial_rates=rates, full_trial_rate=whole)

        monkeypatch.setattr(search, "suggest", suggested)

    return given


@pytest.fixture
def find(launch, tmp_path):
    """Find a rate on so many ranks; return the report, and what rank 0 printed on stderr."""

    def find(size, config, *flags, code=0, meanwhile=lambda _: None):
        run = tmp_path / f"on{size}"
        children = launch(size, "find", config, "--output", run, *flags)
        meanwhile(children)
        ended = [child.wait() for child in children]
        assert [done.returncode for done in ended] == [code] * size, ended[0].stderr
        return json.loads((run / "report.json").read_text()), ended[0].stderr

    return find


def compared(report):
    """All that must be the same."""
    keys = ("trials", "full_trial", "race", "reason")
    return report["suggestion"]["lr"], *(report[key] for key in keys)


def losses(report):
    candidates = [*report["trials"]["candidates"], *report["race"]["candidates"]]
    return [loss for each in candidates for loss in (*each["loss"], each["final_loss"] or 0.0)]


def rows_of(run):
    return sorted(
        (row for row in rows(run) if row["kind"] != "sweep"),
        key=lambda row: (row["kind"], row.get("trial"), row.get("candidate"), row["step"]),
    )


@pytest.fixture
def alone(here, tmp_path):
    """Find a rate in one process."""

    def alone(config, *flags):
        assert here("find", config, "--output", "on1", *flags).returncode == 0
        return json.loads((tmp_path / "on1/report.json").read_text())

    return alone


def test_on_two_and_four_ranks_as_in_one_process(find, alone, tmp_path, estimate):
    estimate(0.02, 0.01, 0.04)
    expected = alone("plain.yaml")
    for size in (2, 4):
        report, said = find(size, "plain.yaml")
        assert compared(report) == compared(expected)
        assert rows_of(tmp_path / f"on{size}") == rows_of(tmp_path / "on1")
        assert ONE_EACH in said
        made = len(rows(tmp_path / f"on{size}"))
        # of all ranks; some after a sweep's end
        assert made < report["timing"]["steps"] < made + 64
    report, said = find(2, "plain.yaml", "--set", "find.parallel=data", "--overwrite")
    # Shards of a batch add up in another order; training amplifies what that rounds.
    assert losses(report) == pytest.approx(losses(expected), rel=1e-3, abs=1e-5)
    assert report["suggestion"]["lr"] == pytest.approx(expected["suggestion"]["lr"], rel=1e-4)
    assert report["race"]["steps_spent"] == expected["race"]["steps_spent"]
    assert BATCHES in said


def test_what_draws_random_numbers_draws_those_of_one_process(find, alone, estimate):
    """Dropout, batch norm, a dataset that draws numbers; and accumulation."""
    estimate(0.02, 0.01, 0.04)
    report, _ = find(2, "noisy.yaml")
    assert compared(report) == compared(alone("noisy.yaml"))


def test_candidates_that_diverge(find, alone, estimate, write):
    write("plain.py", DATA + NET_THAT_BREAKS)
    estimate(1.0, 0.1, 3.0)
    flags = ("--optimizer", "sgd", "--set", "model=plain:Net")
    report, _ = find(2, "plain.yaml", *flags)
    assert compared(report) == compared(alone("plain.yaml", *flags))
    outcomes = [one["outcome"] for one in report["race"]["candidates"]]
    assert outcomes[:3] == ["won", "diverged", "diverged"]
    assert len(report["race"]["candidates"][2]["loss"]) < 20
    # Where they share each batch, one rank alone breaks, which says as much to the others.
    shared, _ = find(2, "plain.yaml", *flags, "--set", "find.parallel=data", "--overwrite")
    assert [one["outcome"] for one in shared["race"]["candidates"]] == outcomes
    assert shared["race"]["candidates"][2]["loss"][-1] is None


def test_a_signal_to_one_rank_interrupts_the_race_of_all(find, tmp_path, estimate, write):
    write("plain.py", DATA + SLOW_NET)
    estimate(0.1, 0.1, 0.3)
    log = tmp_path / "on2/metrics.jsonl"

    def signal_the_second(children):
        children[1].wait_for(lambda: log.exists() and '"race"' in log.read_text())
        children[1].send(signal.SIGTERM)

    flags = ("--set", "model=plain:Net", "--set", "train={max_steps: 500, epochs: null}")
    report, _ = find(2, "plain.yaml", *flags, code=143, meanwhile=signal_the_second)
    assert (report["status"], report["race"]["interrupted"]) == ("interrupted", True)
    assert report["reason"].startswith("stopped by SIGTERM during the race")
    assert report["suggestion"]["lr"] is not None
    steps = [len(one["loss"]) for one in report["race"]["candidates"]]
    assert all(steps[:2])  # side by side
    assert {one["outcome"] for one in report["race"]["candidates"]} == {"unfinished"}


def test_a_rank_whose_candidate_fails_ends_all(find, estimate, write):
    write("plain.py", DATA + NET_THAT_FAILS)
    estimate(0.1, 0.1, 0.3)
    report, _ = find(2, "plain.yaml", "--set", "model=plain:Net", code=2)
    assert report["status"] == "failed"
    assert "plain:Net or plain:data failed: ValueError: no luck today" in report["reason"]
    assert [len(one["loss"]) > 0 for one in report["trials"]["candidates"]] == [True, True]
    assert report["suggestion"]["lr"] is not None
