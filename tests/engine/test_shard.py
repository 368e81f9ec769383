"""A model divided among ranks, and which blocks of it are gathered one at a time."""

import re
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.fsdp  # once here, rather than in each fork
from rank_batches import batches, share
from torch import nn
from torch.nn import functional as F

from lrtool.batch import Share
from lrtool.engine.device import Runtime
from lrtool.engine.ema import MovingAverage
from lrtool.engine.evaluation import evaluate, losses
from lrtool.engine.first_update import first_update
from lrtool.engine.shard import find_blocks, shard
from lrtool.engine.sharded_tensors import is_sharded, own_part, whole, whole_state
from lrtool.engine.step import make_step
from lrtool.engine.weights import first_bad_weight, load_weights
from lrtool.errors import ConfigError, LrtoolWarning, UserError
from lrtool.ranks import ALONE

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self, width=7):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.inner(self.norm(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class OwnStep(Net):
    """Calls itself, and goes on with parameters of its own."""

    def training_step(self, batch, _):
        inputs, targets = batch
        return F.cross_entropy(self(inputs), targets) + 0.1 * self.head.weight.square().mean()


class OwnLoss(Net):
    def training_loss(self, batch):
        inputs, targets = batch
        return F.cross_entropy(self.head(self.first(inputs)), targets)


class Namespaces(Net):
    """Its own kind of object, in which torch does not look for tensors."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList()

    def forward(self, inputs, labels):
        outputs = super().forward(inputs)
        return SimpleNamespace(loss=F.cross_entropy(outputs, labels), logits=outputs)


class View(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(7, 7)

    def forward(self, x):
        return self.inner(torch.tanh(x)).view(-1, 7)


class Views(Net):
    """Its blocks return views, which it changes in place."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(View() for _ in range(3))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
            x += 0.1
        return self.head(x)


class Tied(Net):
    """Two of its blocks share a weight."""

    def __init__(self):
        super().__init__()
        self.blocks[2].inner.weight = self.blocks[0].inner.weight


class Frozen(Net):
    """Some of it is not trained, some not used, and a block is used twice."""

    def __init__(self):
        super().__init__()
        self.blocks[1].inner.requires_grad_(requires_grad=False)
        self.unused = nn.Linear(7, 2)

    def forward(self, x):
        x = self.blocks[0](super().forward(x) @ self.head.weight)
        return x[:, :3]


def made(kind):
    torch.manual_seed(0)
    return kind()


def sharded(kind, ranks, *patterns):
    """A model, divided among several ranks, and its runtime."""
    net, runtime = made(kind), Runtime(CPU, shard=patterns or True, ranks=ranks.on(CPU, 20.0))
    if ranks.several:
        shard(net, runtime)
        assert is_sharded(net)
    return net, runtime


def mapping(batch):
    return {"inputs": batch[0], "labels": batch[1]}


def trained(kind, ranks, *patterns):
    """Losses, gradient norms and weights after four updates, three of them with two batches."""
    net, runtime = sharded(kind, ranks, *patterns)
    own = hasattr(net, "training_step") or hasattr(net, "training_loss") or kind is Namespaces
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1.0)
    step = make_step(net, None if own else F.cross_entropy, optimizer, runtime, clip_norm=0.3)
    every = batches([9, 8, 7, 6, 5, 4, 1])
    groups = [every[:2], every[2:4], every[4:6], every[6:]]
    found = []
    for group in groups:
        plain = [mapping(batch) for batch in group] if kind is Namespaces else group
        if ranks.several:
            shares = [share(batch, ranks) for batch in group]
            plain = [
                Share(mapping(one.batch), one.samples, one.counts) if kind is Namespaces else one
                for one in shares
            ]
        out = step(plain, 0.01)
        found.append((float(out.loss), float(out.grad_norm)))
    return found, {name: value.clone() for name, value in whole_state(net, keep=True).items()}


KINDS = (Net, OwnStep, OwnLoss, Namespaces, Views, Tied, Frozen)


def by_blocks(ranks):
    return trained(Net, ranks, "blocks", "inner")


def all_kinds(ranks):
    """What each kind of model makes, all in one launch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LrtoolWarning)  # of a model without blocks
        return {kind.__name__: trained(kind, ranks) for kind in KINDS} | {"re": by_blocks(ranks)}


def test_updates_of_a_sharded_model_are_those_of_one_process(in_ranks):
    alone = all_kinds(ALONE)
    for of_rank in in_ranks(2, all_kinds):
        for name, (expected, weights) in alone.items():
            found, own_weights = of_rank[name]
            assert found == [pytest.approx(pair, rel=1e-5) for pair in expected], name
            assert own_weights.keys() == weights.keys(), name
            for key, value in weights.items():
                assert torch.allclose(own_weights[key], value, atol=1e-5), (name, key)


def looked_at(ranks):
    """What is evaluated of changing weights, without a backward pass in between."""
    net, runtime = sharded(Net, ranks)
    every = batches([4, 4, 3])
    found = [losses(net, F.cross_entropy, every, runtime)]
    average = MovingAverage(net, 0.5)
    with torch.no_grad():
        for parameter in net.parameters():
            own_part(parameter).mul_(1.1)
    average.update()
    found.append(losses(net, F.cross_entropy, every, runtime))
    with average.in_place():
        found.append(losses(net, F.cross_entropy, every, runtime))
    found.append(losses(net, F.cross_entropy, every, runtime))
    load_weights(net, made(Net).state_dict(), "a file")
    found.append(losses(net, F.cross_entropy, every, runtime))

    # Every rank has a batch of its own in each turn, or none.
    turns = every[ranks.rank :: ranks.world_size]
    turns += [None] * (-(-len(every) // ranks.world_size) - len(turns))
    evaluation = evaluate(net, F.cross_entropy, turns, runtime, {})
    while True:
        try:
            next(evaluation)
        except StopIteration as end:
            found.append([end.value.loss, end.value.samples])
            break
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_pass_sees_the_weights_of_now(ranks, in_ranks):
    expected = looked_at(ALONE)
    assert expected[0] != expected[1] != expected[2] != expected[3]
    assert expected[1] == expected[3]
    for result in in_ranks(ranks, looked_at):
        for one, other in zip(result, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-5)


def first(ranks):
    net, runtime = sharded(Net, ranks)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step = make_step(net, F.cross_entropy, optimizer, runtime)
    group = [share(batch, ranks) for batch in batches([8, 5])]
    found = first_update(step, net, F.cross_entropy, group, runtime)
    return found.critical_lr, found.ratio_lr


def test_the_first_update_is_measured_on_shards(in_ranks):
    expected = first(ALONE)
    assert None not in expected
    for result in in_ranks(2, first):
        assert result == pytest.approx(expected, rel=1e-4)


def with_a_bad_weight(ranks):
    net, _ = sharded(Net, ranks)
    good = first_bad_weight(net, {})
    if ranks.rank == 1:
        with torch.no_grad():
            own_part(net.blocks[1].inner.weight)[0, 0] = torch.nan
    bad = first_bad_weight(net, {})
    return good, bad, whole(net.head.weight.norm()).item()


def test_each_rank_looks_for_bad_weights_in_its_part(in_ranks):
    norm = made(Net).head.weight.norm().item()
    expected = [(None, None, norm), (None, "blocks.1.inner.weight", norm)]
    for result, good_bad_norm in zip(in_ranks(2, with_a_bad_weight), expected, strict=True):
        assert result[:2] == good_bad_norm[:2]
        assert result[2] == pytest.approx(good_bad_norm[2])


class Skips(Net):
    def training_step(self, *_):
        return None


def skips(ranks):
    net, runtime = sharded(Skips, ranks)
    step = make_step(net, None, torch.optim.SGD(net.parameters(), lr=1.0), runtime)
    try:
        step([share(batches([4])[0], ranks)], 0.1)
    except Exception as error:  # noqa: BLE001  (looked at below)
        return type(error.__cause__), str(error.__cause__)


def test_a_sharded_model_may_skip_no_batch(in_ranks):
    for kind, words in in_ranks(2, skips):
        assert kind is UserError
        assert "may do" in words
        assert "runtime.shard" in words


class Scalar(Net):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def refused(ranks):
    try:
        sharded(Scalar, ranks)
    except ConfigError as error:
        return str(error)


def test_what_torch_cannot_shard_is_said(in_ranks):
    for words in in_ranks(2, refused):
        assert words.startswith("runtime.shard: the model cannot be sharded: ")
        assert "Change scale to a 1D tensor" in words


def names(model, blocks):
    known = {id(module): name for name, module in model.named_modules()}
    return [known[id(block)] for block in blocks]


def test_repeated_modules_of_lists_are_blocks():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    nested = nn.Sequential(
        nn.Linear(3, 4),
        nn.Sequential(Block(4), Block(4), nn.ReLU()),
        nn.TransformerEncoder(layer, 2),
        nn.Linear(4, 3),
        nn.ReLU(),
    )
    expected = ["0", "1.0", "1.1", "2.layers.0", "2.layers.1", "3"]
    assert names(nested, find_blocks(nested)) == expected
    lists = nn.ModuleDict({"a": nn.ModuleList([Block(), Block()]), "b": nn.ModuleList([Block()])})
    assert names(lists, find_blocks(lists)) == ["a.0", "a.1"]


def test_a_block_that_shares_a_parameter_stays_with_the_rest():
    net = made(Tied)
    assert names(net, find_blocks(net)) == ["blocks.1"]
    words = "'inner' finds blocks.0.inner, which shares the parameter blocks.2.inner.weight"
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_blocks(net, ["inner"])


def test_a_model_without_blocks_is_warned_of():
    with pytest.warns(LrtoolWarning, match="Linear has no repeated blocks in a ModuleList"):
        assert find_blocks(nn.Linear(2, 2)) == []


def test_regular_expressions_find_the_outermost_modules():
    net = made(Net)
    assert names(net, find_blocks(net, ["blocks"])) == ["blocks.0", "blocks.1", "blocks.2"]
    found = names(net, find_blocks(net, ["^blocks", "1.inner$"]))
    assert found == ["blocks.1.inner", "blocks.0", "blocks.1", "blocks.2"]  # inner ones first


def test_regular_expressions_that_find_nothing_are_all_said():
    with pytest.raises(ConfigError) as raised:
        find_blocks(made(Net), ["layer", "blocks", "relu"])
    known = "the model has first, blocks.0, blocks.0.norm, blocks.0.inner, …"
    assert str(raised.value).splitlines() == [
        f"runtime.shard.0: 'layer' matches no module with parameters; {known}",
        f"runtime.shard.2: 'relu' matches no module with parameters; {known}",
    ]


def test_a_torch_without_what_sharding_needs_is_named(monkeypatch):
    from torch.distributed.fsdp import FSDPModule

    monkeypatch.delattr(FSDPModule, "set_force_sum_reduction_for_comms")
    with pytest.raises(ConfigError, match=r"runtime.shard: needs a newer torch than \d+\."):
        shard(nn.Linear(2, 2), Runtime(torch.device("cpu"), shard=True))
