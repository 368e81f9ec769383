"""`lrtool.find_lr` in a script of several ranks that share a model in DistributedDataParallel."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
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


def found(ranks, loader, *, model=None, steps=40, for_steps=30, **settings):
    """What a rank finds: its losses, rate and interval."""
    model = model or shared(net(), ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader, steps=steps, for_steps=for_steps, **settings
    )
    report = result.report()
    trials = report["trials"]["candidates"] if report["trials"] else []
    return {
        "sweeps": [sweep.loss for sweep in result.sweeps],
        "trials": [each["loss"] for each in trials],
        "measured": [each["final_loss"] for each in trials],
        "lr": (result.lr, *result.interval),
        "verdict": result.verdict,
        "samples": report["data"]["samples_per_update"],
        "world_size": report["environment"]["world_size"],
    }


def assert_alike(of_ranks, alone):
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


class Backward(torch.autograd.Function):
    """Fails in the backward pass, where the other ranks wait for this one's gradients."""

    @staticmethod
    def forward(_context, inputs):
        return inputs.clone()

    @staticmethod
    def backward(_context, _gradients):
        raise KeyError("mine")


def trained(ranks, *, look, fail=None, **options):
    """A plain DDP training: all that it leaves, with or without a search after its first epochs."""
    torch.manual_seed(0)
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
            if fail and ranks.rank and len(calls) > 10:
                if fail == "forward":
                    raise KeyError("mine")
                outputs = Backward.apply(outputs)
            return F.cross_entropy(outputs, targets)

        try:
            lrtool.find_lr(model, optimizer, loss, loader, steps=20, for_steps=30)
            before.append("found")
        except Exception as error:  # noqa: BLE001  (looked at below)
            before.append(f"{type(error).__name__}: {error}")
    return before, plain_training(model, optimizer, loader), copy.deepcopy(model.state_dict())


@pytest.mark.parametrize(
    ("options", "fail"),
    [
        ({}, None),
        ({"find_unused_parameters": True}, None),
        ({"static_graph": True}, None),
        ({}, "forward"),
        ({}, "backward"),
    ],
)
def test_training_after_it_is_bit_identical_to_training_alone(in_ranks, options, fail):
    without = in_ranks(2, lambda ranks: trained(ranks, look=False, **options))
    after = in_ranks(2, lambda ranks: trained(ranks, look=True, fail=fail, **options))
    for one, other in zip(without, after, strict=True):
        assert one[0] == other[0][: len(one[0])]
        assert one[1] == other[1]
        assert all(torch.equal(other[2][name], value) for name, value in one[2].items())
    ends = [each[0][-1] for each in after]
    words = "rank 1 failed in find_lr: KeyError: 'mine'"
    assert ends == (
        [f"RankFailedError: {words}", "KeyError: 'mine'"] if fail else ["found", "found"]
    )


class Branch(nn.Module):
    """Uses some parameters in the search, and not in the training after it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = nn.Linear(8, 3), nn.Linear(8, 3)
        self.whole = True

    def forward(self, inputs):
        return self.always(inputs) + (self.sometimes(inputs) if self.whole else 0)


def test_parameters_that_took_part_in_the_search_alone_stay_unused(in_ranks):
    def run(ranks, *, look):
        model = shared(Branch(), ranks, find_unused_parameters=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
        if look:
            lrtool.find_lr(model, optimizer, F.cross_entropy, own_loader(ranks), for_steps=10)
        model.module.whole = False
        return plain_training(model, optimizer, own_loader(ranks)), [*model.module.parameters()]

    without = in_ranks(2, lambda ranks: run(ranks, look=False))
    after = in_ranks(2, lambda ranks: run(ranks, look=True))
    assert [each[0] for each in after] == [each[0] for each in without]
    for one, other in zip(without[0][1], after[0][1], strict=True):
        assert torch.equal(one, other)


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


def failures(ranks, **settings):
    """What a rank's search ends with."""
    settings = {"model": None, "loader": own_loader(ranks), **settings}
    try:
        return found(ranks, **settings)["lr"]
    except (Exception, SystemExit) as error:  # noqa: BLE001  (it is what is tested)
        return f"{type(error).__name__}: {error}"


def test_a_loader_that_fails_on_one_rank_ends_the_search_of_all(in_ranks):
    class Broken:
        def __init__(self, ranks):
            self.ranks = ranks

        def __iter__(self):
            batches = list(own_loader(self.ranks))
            yield from batches[:5]
            if self.ranks.rank:
                raise OSError("no such file")
            yield from batches[5:]

    assert in_ranks(2, lambda ranks: failures(ranks, loader=Broken(ranks))) == [
        "RankFailedError: rank 1 failed in find_lr: OSError: no such file",
        "OSError: no such file",
    ]


def test_an_argument_that_is_wrong_on_one_rank_ends_the_search_of_all(in_ranks):
    words = "loader is None; find_lr trains on batches"
    first, second = in_ranks(
        2, lambda ranks: failures(ranks, loader=None if ranks.rank else own_loader(ranks))
    )
    assert first.startswith(f"RankFailedError: rank 1 failed in find_lr: UserError: {words}")
    assert second.startswith(f"UserError: {words}")


def test_arguments_that_differ_between_ranks_are_refused(in_ranks):
    words = (
        "UserError: all ranks must call find_lr with the same arguments: find.steps is 20 on rank "
        "0, but 21 on rank 1"
    )
    assert in_ranks(2, lambda ranks: failures(ranks, steps=20 + ranks.rank)) == [words, words]


def test_a_rank_that_does_not_come_is_named(in_ranks, monkeypatch):
    monkeypatch.setattr("lrtool.search.object_ranks.MEETING_SECONDS", 0.5)
    words = (
        "UserError: rank 1 did not call find_lr within 0.5 s: all ranks that share a model in "
        "DistributedDataParallel must call it. Put torch.distributed.barrier() before it if some "
        "come late; give model.module to search on one rank alone"
    )

    def run(ranks):
        model = shared(net(), ranks)
        return "elsewhere" if ranks.rank else failures(ranks, model=model)

    assert in_ranks(2, run) == [words, "elsewhere"]


def test_a_failure_after_the_sweeps_costs_a_warning_on_all_ranks(in_ranks):
    class Validation:
        """Breaks the measurement of the trials on one rank."""

        def __iter__(self):
            yield from DataLoader(data(64, seed=1), 16)

    def run(ranks):
        model = shared(net(), ranks)
        calls = []

        def forward(inputs):
            calls.append(not model.module.training)
            if ranks.rank and sum(calls) > 4:  # the chunks are tried, and measured untrained
                raise OSError("broken")
            return nn.Sequential.forward(model.module, inputs)

        model.module.forward = forward
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = failures(ranks, model=model, validation=Validation())
        return result, [str(each.message) for each in caught if each.category is LrtoolWarning]

    first, second = in_ranks(2, run)
    assert first[0] == second[0]
    assert len(first[0]) == 3  # rate and interval
    words = (
        "a short training beside the estimate failed (RankFailedError: rank 1 failed in find_lr: "
        "OSError: broken); the rate is that of the search before it"
    )
    assert first[1] == [words]
    assert second[1] == []


def test_a_model_that_ranks_do_not_share_is_searched_by_each_rank_alone(in_ranks):
    def run(ranks):
        if ranks.first:
            return None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = found(ALONE, own_loader(ALONE), model=net())
        return result, [(str(each.message), each.filename) for each in caught]

    result, caught = in_ranks(2, run)[1]
    assert result == found(ALONE, own_loader(ALONE))
    words, filename = caught[0]
    assert words.startswith("rank 1 of 2 searches by itself, with its own batches")
    assert filename == __file__


def test_sharing_that_find_lr_cannot_put_back_is_refused(in_ranks):
    def run(ranks):
        part = nn.Sequential(shared(nn.Linear(8, 4), ranks), nn.Linear(4, 3))
        divided = net()
        for layer in (divided[0], divided[2]):
            fully_shard(layer)
        return [failures(ranks, model=part), failures(ranks, model=divided)]

    for each in in_ranks(2, run):
        assert each[0].startswith("UserError: the model has a part in DistributedDataParallel; ")
        assert each[1].startswith("UserError: the model is divided among the ranks (FSDP, ")


def test_ranks_that_draw_a_common_order_go_on_so_in_each_sweep(in_ranks):
    class Order:
        """Draws one order on all ranks, from a generator of its own, and takes a rank's share."""

        def __init__(self, ranks):
            self.ranks, self.generator = ranks, torch.Generator().manual_seed(3)
            self.orders = []

        def __iter__(self):
            order = torch.randperm(256, generator=self.generator).tolist()
            self.orders.append(order)
            return iter(order[self.ranks.rank :: 2])

    def run(ranks):
        sampler = Order(ranks)
        torch.manual_seed(ranks.rank)  # of the model's dropout
        found(ranks, DataLoader(data(), 16, sampler=sampler), repeats=2)
        return sampler.orders

    first, second = in_ranks(2, run)
    assert first == second
    assert len({tuple(order) for order in first}) > 3
