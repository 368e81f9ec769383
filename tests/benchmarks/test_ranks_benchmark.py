"""What the benchmark of several ranks compares, and how it counts."""

import pytest

from benchmarks import ranks


@pytest.mark.parametrize(
    ("cores", "several"),
    [
        (1, []),
        (2, [(2, 1)]),
        (6, [(2, 3), (4, 1), (6, 1)]),
        (8, [(2, 4), (4, 2), (8, 1)]),
    ],
)
def test_ranks_share_the_cores(monkeypatch, cores, several):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    alone = [(None, cores), (1, cores)] + [(None, 1)] * (cores > 1)
    found = [(each.ranks, each.threads) for each in ranks.contenders("cpu")]
    assert found == [*alone, *several]


def test_gpus_are_added_one_by_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    found = [(each.ranks, each.threads) for each in ranks.contenders("cuda")]
    assert found == [(None, 1), (1, 1), (2, 1), (3, 1)]


def test_a_contender_is_started_as_a_user_does():
    plain, several = ranks.Contender(None, 2), ranks.Contender(4, 1)
    assert (plain.name, several.name) == ("plain run, 2 threads", "torchrun, 4 ranks, 1 thread")
    assert plain.command()[1:] == ["-m", "lrtool", "train", "ranks.yaml"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "4"]
    assert several.command()[1:] == [*launcher, *plain.command()[1:]]


def test_ratios_are_taken_within_a_round():
    rates = {"fast": [2.0, 6.0, 8.0], "slow": [1.0, 2.0, 1.0]}
    assert ranks.ratios(rates, "fast", "slow") == [2.0, 3.0, 8.0]
    assert ranks.spread([2.0, 3.0, 8.0]) == "3.00 (2.00 – 8.00)"
