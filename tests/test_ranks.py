"""Work that all ranks do, and devices that they cannot meet by."""

from functools import partial

import pytest
import torch

from lrtool.engine.device import choose_device
from lrtool.errors import ConfigError, RankFailedError, UserError
from lrtool.ranks import ALONE, Ranks


def refused(ranks, device):
    with pytest.raises(UserError) as error:
        ranks.on(torch.device(device), 20.0)
    return str(error.value)


def on_the_host(make, *size, **others):
    return make(*size, **{**others, "device": "cpu"})


def test_the_work_of_each_rank_fails_on_all_where_it_fails_on_one(in_ranks):
    def run(ranks):
        assert ranks.by_each(lambda: 2 * ranks.rank) == [0, 2]
        with pytest.raises((IndexError, RankFailedError)) as error:
            ranks.by_each(lambda: "a"[ranks.rank])
        assert ranks.by_each(lambda: None) == [None, None]  # they still meet
        return error.type.__name__

    assert in_ranks(2, run) == ["RankFailedError", "IndexError"]
    assert ALONE.by_each(lambda: 5) == [5]


def test_one_process_takes_any_device():
    assert ALONE.on(torch.device("meta"), 1.0) is ALONE


def test_a_device_without_process_groups_is_refused():
    assert refused(Ranks(0, 2), "mps") == (
        "2 ranks cannot share their work on mps; use cpu or cuda"
    )


def test_ranks_on_devices_of_two_kinds_are_refused(in_ranks):
    found = in_ranks(2, lambda ranks: refused(ranks, "cuda:0" if ranks.rank else "cpu"))
    words = "rank 0 would compute on cpu and rank 1 on cuda; runtime.device: cpu is for all of them"
    assert found == [f"{words}, or start ranks on machines with GPUs alone"] * 2


def test_gpus_without_nccl_are_refused(in_ranks, monkeypatch):
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: False)
    words = "this torch has no NCCL, by which GPUs meet; use runtime.device: cpu"
    assert in_ranks(2, lambda ranks: refused(ranks, "cuda:0")) == [words] * 2


def test_why_nccl_does_not_connect_is_told(in_ranks, monkeypatch):
    def fails(*_, **__):
        raise torch.distributed.DistBackendError(
            "NCCL error in: NCCLUtils.cpp:94\nLast error:\nDuplicate GPU detected : rank 1 and 0\n"
        )

    def run(ranks):
        monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
        monkeypatch.setattr("torch.distributed.new_group", lambda **_: None)
        monkeypatch.setattr("torch.distributed.all_reduce", fails)
        monkeypatch.setattr("torch.zeros", partial(on_the_host, torch.zeros))
        return refused(ranks, "cuda:0")

    found = in_ranks(2, run)
    assert found[0] == found[1]
    assert found[0].startswith(
        "NCCL cannot connect the GPUs of the ranks: Duplicate GPU detected : rank 1 and 0; NCCL_DE"
    )


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch, name):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(
        ConfigError, match=r"process 2 of this machine, from 0, has no GPU .* finds 2"
    ):
        choose_device(name, Ranks(2, 4, local_rank=2))


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    assert choose_device("auto", Ranks(3, 4, local_rank=1)) == torch.device("cuda:1")
    assert taken == [torch.device("cuda:1")]
