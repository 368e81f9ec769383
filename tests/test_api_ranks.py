"""`lrtool.find_lr` in a script of several ranks that share a model in DistributedDataParallel."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lrtool
from lrtool.errors import LrtoolWarning
from lrtool.ranks import ALONE

BATCH = 32


@pytest.fixture(autouse=True)
def _dynamo():
    import torch._dynamo  # noqa: F401  (DDP imports it: once here, rather than in each fork)


def data(samples=256, seed=0):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(8, 3, generator=generator)
    x = torch.randn(samples, 8, generator=generator.manual_seed(seed + 1))
    return TensorDataset(x, (x @ weights).argmax(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def shared(model, ranks, **options):
    return DistributedDataParallel(model, **options) if ranks.several else model


def own_rows(ranks, samples=256):
    """The samples of a rank, so that the batches of all ranks together are those of one."""
    size = BATCH // ranks.world_size
    return [
        start + ranks.rank * size + i for start in range(0, samples, BATCH) for i in range(size)
    ]


def own_loader(ranks):
    return DataLoader(data(), BATCH // ranks.world_size, sampler=own_rows(ranks))


def found(ranks, loader, *, model=None, steps=40, **settings):
    """What a rank finds: its losses, rate and interval."""
    model = model or shared(net(), ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader, steps=steps, **settings)
    report = result.report()
    return {
        "sweeps": [sweep.loss for sweep in result.sweeps],
        "trials": [each["loss"] for each in report["trials"]["candidates"]],
        "measured": [each["final_loss"] for each in report["trials"]["candidates"]],
        "lr": (result.lr, *result.interval),
        "verdict": result.verdict,
        "samples": report["data"]["samples_per_update"],
        "world_size": report["environment"]["world_size"],
    }


def assert_alike(of_ranks, alone):
    assert not isinstance(of_ranks[0], str), of_ranks[0]  # a traceback
    assert all(each == of_ranks[0] for each in of_ranks)  # to the last bit
    assert of_ranks[0]["world_size"] == len(of_ranks)
    for name in ("sweeps", "trials"):
        for one, other in zip(of_ranks[0][name], alone[name], strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    assert of_ranks[0]["measured"] == pytest.approx(alone["measured"], rel=1e-4)
    assert of_ranks[0]["lr"] == pytest.approx(alone["lr"], rel=1e-4)
    assert of_ranks[0]["verdict"] == alone["verdict"]
    assert of_ranks[0]["samples"] == alone["samples"]


def test_ranks_find_together_what_one_process_finds(in_ranks):
    settings = {"repeats": 2, "accumulate": 2, "clip_norm": 1.0}

    of_ranks = in_ranks(2, lambda ranks: found(ranks, own_loader(ranks), **settings))
    alone = found(ALONE, own_loader(ALONE), **settings)
    assert alone["samples"] == 2 * BATCH
    assert_alike(of_ranks, alone)
    for one, other in zip(of_ranks[0]["sweeps"], alone["sweeps"], strict=True):
        assert one[:30] == pytest.approx(other[:30], rel=1e-5)  # then they diverge


@pytest.mark.parametrize("kind", ["same", "divided"])
def test_validation_loaders_may_be_the_same_or_divided(in_ranks, kind):
    def run(ranks):
        held_out = data(100, seed=1)
        sampler = None
        if ranks.several and kind == "divided":
            sampler = DistributedSampler(held_out)
        validation = DataLoader(held_out, 16, sampler=sampler)
        return found(ranks, own_loader(ranks), validation=validation)

    assert_alike(in_ranks(2, run), run(ALONE))


def test_validation_loaders_of_own_batches_count_each_sample_once(in_ranks):
    def run(ranks):
        held_out = list(DataLoader(data(100, seed=1), 20))
        return found(ranks, own_loader(ranks), validation=held_out[ranks.rank :: ranks.world_size])

    assert_alike(in_ranks(2, run), run(ALONE))


def test_a_pass_ends_with_the_loader_of_the_rank_that_has_the_fewest_batches(in_ranks):
    def run(ranks):
        batches = list(own_loader(ranks))
        batches += [batches[0]] * ranks.rank  # one more than rank 0 has
        return found(ranks, batches)

    assert_alike(in_ranks(2, run), run(ALONE))


def plain_training(model, optimizer, loader):
    losses = []
    for _ in range(2):
        for inputs, targets in loader:
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def trained(ranks, *, look, fail=False, **options):
    """A plain DDP training: all that it leaves, with or without a search after its first epochs."""
    net_ = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 3))
    model = shared(net_, ranks, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = DataLoader(data(), 16, sampler=DistributedSampler(data()))
    torch.manual_seed(1 + ranks.rank)
    before = plain_training(model, optimizer, loader)
    if look:
        calls = []

        def loss(outputs, targets):
            calls.append(1)
            if fail and ranks.rank and len(calls) == 30:
                raise KeyError("mine")
            return F.cross_entropy(outputs, targets)

        try:
            lrtool.find_lr(model, optimizer, loss, loader, steps=30)
            before.append("found")
        except Exception as error:  # noqa: BLE001  (looked at below)
            before.append(f"{type(error).__name__}: {error}")
    return before, plain_training(model, optimizer, loader), copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}])
def test_training_after_it_is_bit_identical_to_training_alone(in_ranks, options, fail):
    without = in_ranks(2, lambda ranks: trained(ranks, look=False, **options))
    after = in_ranks(2, lambda ranks: trained(ranks, look=True, fail=fail, **options))
    for one, other in zip(without, after, strict=True):
        assert one[0] == other[0][: len(one[0])]
        assert one[1] == other[1]
        assert all(torch.equal(other[2][name], value) for name, value in one[2].items())
    if not fail:
        assert after[0][0][-1] == after[1][0][-1] == "found"
    else:
        assert after[0][0][-1] == "RankFailedError: rank 1 failed in find_lr: KeyError: 'mine'"
        assert after[1][0][-1] == "KeyError: 'mine'"


def test_only_the_first_rank_warns(in_ranks):
    def run(ranks):
        model = shared(net(), ranks)
        model.module.training_loss = lambda batch: batch[0].sum()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found(ranks, own_loader(ranks), model=model)
        return [str(each.message) for each in caught if each.category is LrtoolWarning]

    first, second = in_ranks(2, run)
    assert first == [
        "the training_loss of Sequential is not used, for loss_fn is given; None takes it"
    ]
    assert second == []
