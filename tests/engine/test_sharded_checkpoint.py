"""Parts of tensors that ranks write, and any number of ranks reads."""

import warnings
from collections import OrderedDict

import pytest
import torch
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp  # once here, rather than in each fork
from torch import nn

from lrtool.engine.device import Runtime
from lrtool.engine.shard import shard
from lrtool.engine.sharded_checkpoint import read_shards, split, write_shards
from lrtool.engine.sharded_tensors import divided_as, is_shard, mesh_of, whole

CPU = torch.device("cpu")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))


def state_of(net):
    """As of a training: sharded tensors among others, in all kinds of containers."""
    return {
        "model": net.state_dict(),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "moment": net[0].weight.detach() * 2}}
        },
        "list": [net[1].bias.detach(), None, (1, "two", net[1].bias.detach() + 1)],
        "position": OrderedDict(step=7),
    }


def sharded(ranks):
    net, ranks = model(), ranks.on(CPU, 20.0)
    shard(net, Runtime(CPU, shard=True, ranks=ranks))
    return net, ranks


def plain(state):
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return whole(state).tolist() if isinstance(state, torch.Tensor) else state


def write(ranks, folder):
    net, ranks = sharded(ranks)
    shards = {}
    state = split(state_of(net), "training", shards)
    files = write_shards(shards, folder, ranks)
    assert type(state["position"]) is OrderedDict
    return state, sorted(shards), [file.name for file in files]


def read(ranks, folder, state):
    net, ranks = sharded(ranks)
    found = read_shards(state, folder, mesh_of(net), ranks)
    parts = [is_shard(found["model"]["0.weight"]), is_shard(found["list"][2][2])]
    return parts, plain(found)


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_reads_what_two_have_written(world_size, in_ranks, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    expected = plain(state_of(model()))
    (state, names, own), (other_state, _, others) = in_ranks(2, lambda ranks: write(ranks, folder))
    assert plain(state) == plain(other_state)
    assert {"training.model.0.weight", "training.list.2.2"} <= set(names)
    assert [len(own), len(others)] == [1, 1]
    assert {*own, *others} == {path.name for path in folder.iterdir()}

    for parts, found in in_ranks(world_size, lambda ranks: read(ranks, folder, state)):
        assert parts == [True, True]
        assert found == expected

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = read_shards(state, folder)
    assert plain(alone) == expected
    assert not is_shard(alone["model"]["0.weight"])
    assert read_shards(state["model"]["0.weight"], folder).tolist() == expected["model"]["0.weight"]


def test_a_state_without_shards_stays_as_it_is(tmp_path):
    state = state_of(model())
    shards = {}
    assert plain(split(state, "training", shards)) == plain(state)
    assert shards == {}
    assert read_shards(state, tmp_path) is state


def test_a_missing_file_is_an_error(in_ranks, tmp_path):
    state = in_ranks(2, lambda ranks: write(ranks, tmp_path))[0][0]
    for path in tmp_path.glob("shard-*"):
        path.unlink()
    with pytest.raises(KeyError, match=r"training\.model\.0\.weight"):
        read_shards(state, tmp_path)


def divided(ranks):
    net, _ = sharded(ranks)
    value = torch.arange(15.0).reshape(5, 3)
    found = divided_as(net[0].weight, value)
    assert is_shard(found)
    assert divided_as(net[0].weight, found) is found
    assert divided_as(torch.ones(2), value) is value
    return whole(found).tolist()


def test_a_whole_tensor_is_divided_as_another_one(in_ranks):
    assert in_ranks(2, divided) == [torch.arange(15.0).reshape(5, 3).tolist()] * 2
