"""An update of several ranks is that of one."""

import gc
import weakref

import pytest
import torch
from rank_batches import batches, share
from torch import nn
from torch.nn import functional as F

from lrtool.engine.device import Runtime
from lrtool.engine.lockstep import Failed
from lrtool.engine.loop import Position, train_epoch
from lrtool.engine.readout import READ_AFTER_STEPS, Readout
from lrtool.engine.step import make_step
from lrtool.errors import ConfigError, LockstepError, RankFailedError, cause_of
from lrtool.ranks import ALONE, is_lost

CPU = torch.device("cpu")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def trained(ranks, groups, *, net=None, loss_fn=F.cross_entropy, static_graph=True, **settings):
    """Losses, denominators and weights after an update for each group of batches."""
    net = net or model()
    parameters = [*net.parameters()]
    parameters += loss_fn.parameters() if isinstance(loss_fn, nn.Module) else []
    optimizer = torch.optim.AdamW(parameters, lr=1.0)
    runtime = Runtime(CPU, static_graph=static_graph, ranks=ranks)
    step = make_step(net, loss_fn, optimizer, runtime, **settings)
    outs = [step([share(batch, ranks) for batch in group], 0.01) for group in groups]
    weights = torch.cat([p.detach().flatten() for p in parameters])
    return [None if out is None else (float(out.loss), out.denominator) for out in outs], weights


def assert_equal(of_ranks, alone):
    losses, weights = alone
    for found in of_ranks:
        assert found[0] == [each and (pytest.approx(each[0], rel=1e-5), each[1]) for each in losses]
        torch.testing.assert_close(found[1], weights, rtol=1e-4, atol=1e-6)
    assert all(found[0] == of_ranks[0][0] for found in of_ranks)  # to the last bit
    assert all(torch.equal(found[1], of_ranks[0][1]) for found in of_ranks)


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_ranks_make_the_updates_of_one(in_ranks, world_size):
    groups = [[batch] for batch in batches([8, 7, 5, 3, 1])]  # a share may be empty

    assert_equal(
        in_ranks(world_size, lambda ranks: trained(ranks, groups, clip_norm=0.5)),
        trained(ALONE, groups, clip_norm=0.5),
    )


def freed(ranks):
    """Whether a model goes with its step."""
    net = model()
    net.me = [net]  # found by the collector alone
    kept = weakref.ref(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
    step([share(batches([8])[0], ranks)], 0.01)
    del net, step, optimizer
    gc.collect()
    return kept() is None


def test_a_model_is_freed_with_its_step(in_ranks):
    assert in_ranks(2, freed) == [True, True]


def test_accumulated_batches_are_weighted_over_all_ranks(in_ranks):
    groups = [batches([8, 3, 1]), batches([6, 5, 4], seed=2), batches([2], seed=3)]

    assert_equal(in_ranks(2, lambda ranks: trained(ranks, groups)), trained(ALONE, groups))


def test_ignored_targets_on_one_rank_alone_do_not_count(in_ranks):
    groups = [[batch] for batch in batches([8, 8, 4])]
    groups[0][0][1][:4] = -100  # all that rank 0 has
    groups[1][0][1][1:7] = -100
    groups[2][0][1][:] = -100  # all: nothing to learn, and no update but for weight decay

    found = in_ranks(2, lambda ranks: trained(ranks, groups))
    alone = trained(ALONE, groups)
    assert [denominator for _, denominator in alone[0]] == [4, 2, 0]
    assert_equal(found, alone)


def test_losses_that_are_sums_are_added(in_ranks):
    groups = [[batch] for batch in batches([8, 3, 1])]
    loss = nn.CrossEntropyLoss(reduction="sum")

    found = in_ranks(2, lambda ranks: trained(ranks, groups, loss_fn=loss))
    alone = trained(ALONE, groups, loss_fn=loss)
    assert [denominator for _, denominator in alone[0]] == [None, None, None]
    assert_equal(found, alone)


class Centres(nn.Module):
    """A loss with weights of its own."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(-1, 1, 9).reshape(3, 3))

    def forward(self, outputs, targets):
        return (outputs - self.centres[targets]).square().mean()


def test_the_weights_of_a_loss_are_trained_alike(in_ranks):
    groups = [[batch] for batch in batches([8, 7, 3])]

    assert_equal(
        in_ranks(2, lambda ranks: trained(ranks, groups, loss_fn=Centres())),
        trained(ALONE, groups, loss_fn=Centres()),
    )


class Sometimes(nn.Module):
    """Computes its own loss, but not of batches of few samples."""

    def __init__(self, least):
        super().__init__()
        self.net = model()
        self.least = least

    def training_step(self, batch, _index):
        inputs, targets = batch
        return None if len(targets) < self.least else F.cross_entropy(self.net(inputs), targets)


def test_a_batch_that_one_rank_skips_is_that_of_the_others(in_ranks):
    groups = [[batch] for batch in batches([8, 5, 2])]  # shares 4 + 4, 2 + 3, 1 + 1

    def run(ranks):
        return trained(ranks, groups, net=Sometimes(3), loss_fn=None)

    found = in_ranks(2, run)
    parts = [[tuple(p[rows] for p in groups[1][0]) for rows in (slice(2), slice(2, 5))]]
    alone = trained(ALONE, [groups[0], *parts, groups[2]], net=Sometimes(3), loss_fn=None)
    assert [each and each[1] for each in alone[0]] == [8, 3, None]
    assert_equal(found, alone)


class Fails(nn.Module):
    """Fails on a value that only one of the shares has."""

    def __init__(self):
        super().__init__()
        self.net = model()

    def forward(self, inputs):
        if bool((inputs > 100).any()):
            raise ValueError("too large")
        return self.net(inputs)


def failures(ranks, groups):
    net = Fails()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
    seen = []
    for group in groups:
        own = [share(batch, ranks) for batch in group]
        try:
            seen.append(step(own, 0.01) is not None)
        except Exception as error:  # noqa: BLE001  (it is what is tested)
            seen.append(f"{type(error).__name__}: {error}")
    return seen


def test_a_failure_of_one_rank_ends_the_step_of_all(in_ranks):
    groups = [batches([8, 8]), batches([8, 8], seed=2), batches([8, 8], seed=3), batches([8])]
    groups[1][0][0][0] = 1000.0  # on rank 0, in the first of two batches
    groups[2][1][0][7] = 1000.0  # on rank 1, in the last

    found = in_ranks(2, lambda ranks: failures(ranks, groups))
    elsewhere = f"{RankFailedError.__name__}: another rank failed in this step"
    assert found[0] == [True, "ValueError: too large", elsewhere, True]
    assert found[1] == [True, elsewhere, "ValueError: too large", True]


def without_batches(ranks, net, failing, updates):
    """What a step raises whose batches a rank cannot make, after so many updates."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
    own = [share(batch, ranks) for batch in batches([8])]
    for _ in range(updates):
        step(own, 0.01)
    with pytest.raises((OSError, RankFailedError, LockstepError)) as error:
        step(Failed(OSError("no such file")) if ranks.rank == failing else own, 0.01)
    cause = cause_of(error.value)
    return "lost" if lost(cause) else f"{type(error.value).__name__}: {cause}"


def lost(cause):
    return is_lost(cause) and not isinstance(cause, RankFailedError)


@pytest.mark.parametrize("failing", [0, 1])
def test_batches_that_one_rank_cannot_make_end_the_step_of_all(in_ranks, failing):
    found = in_ranks(2, lambda ranks: without_batches(ranks, model(), failing, 3))
    assert found.pop(failing) == "OSError: no such file"
    assert found == ["RankFailedError: another rank failed in this step"]


def test_a_rank_that_is_late_in_a_backward_pass_is_lost():
    words = "Got the following error when running the callback: RuntimeError: "
    assert is_lost(RuntimeError(f"{words}Application timeout caused pair closure"))
    assert not is_lost(RuntimeError(f"{words}shapes do not match"))


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = model()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, inputs):
        return self.net(inputs * self.scale)


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    ("net", "updates"),
    [
        pytest.param(model, 2, id="new buckets"),
        pytest.param(Buffered, 3, id="buffers"),
        pytest.param(lambda: nn.Sequential(nn.BatchNorm1d(5), model()), 3, id="batch norm"),
    ],
)
def test_nobody_is_told_of_missing_batches_where_a_pass_waits_for_all(
    in_ranks, failing, net, updates
):
    found = in_ranks(2, lambda ranks: without_batches(ranks, net(), failing, updates))
    assert found.pop(failing) == "OutOfStepError: no such file"
    assert found == ["lost"]


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(_context, inputs):
        return inputs.clone()

    @staticmethod
    def backward(_context, _gradients):
        raise ValueError("in the backward pass")


def test_a_failure_that_the_others_cannot_know_of_leaves_the_lockstep(in_ranks):
    def run(ranks):
        net = model()
        if ranks.rank:
            net.register_forward_hook(lambda _module, _inputs, outputs: Backward.apply(outputs))
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
        try:
            step([share(batch, ranks) for batch in batches([8])], 0.01)
        except LockstepError as error:
            return type(error).__name__, f"{type(cause_of(error)).__name__}: {cause_of(error)}"

    first, second = in_ranks(2, run)
    assert first[0] in {"OutOfStepError", "LostRankError"}  # DDP has lost the other one, or we
    assert second == ("OutOfStepError", "ValueError: in the backward pass")


def test_rows_are_read_after_the_same_steps_on_all_ranks(in_ranks):
    def run(ranks):
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
        groups = ([share(batch, ranks) for batch in batches([4], seed=i)] for i in range(200))

        class Constant:
            def factor(self, *_):
                return 1.0

            def momentum(self, *_):
                return None

        rows = train_epoch(
            step, groups, Position(), lr=0.01, schedule=Constant(), optimizer=optimizer, ranks=ranks
        )
        return [[(row.step, row.samples, row.loss) for row in some] for some in rows]

    first, second = in_ranks(2, run)
    assert first == second
    steps = [step for some in first for step, samples, _ in some if samples == 4]
    assert steps == [*range(1, 201)]
    assert len(first[0]) == 1  # nothing is known of the time of a step yet
    assert max(map(len, first)) <= READ_AFTER_STEPS


def test_the_slowest_rank_decides_when_rows_are_read(in_ranks, monkeypatch):
    def run(ranks):
        clock = iter([0.0, *(0.01 * (1 + ranks.rank) * i for i in range(1, 7))])
        monkeypatch.setattr("lrtool.engine.readout.perf_counter", lambda: next(clock))
        readout, read = Readout(ranks), []
        for _ in range(6):
            readout._pending.append(None)
            if readout.due():
                read.append(len(readout._pending))
                readout._pending, readout._started = [], 0.0
        return read, readout._agreed

    # A step of rank 1 takes 0.02 s, of which 0.1 s has 5; then 0.12 s for 5 steps.
    assert in_ranks(2, run) == [([1, 5], 4)] * 2


class Branching(nn.Module):
    """A model with layers that take part never, or in some steps."""

    def __init__(self, when):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)
        self.never, self.some = nn.Linear(4, 4), nn.Linear(4, 4)
        self.when, self.calls = when, 0

    def forward(self, inputs):
        self.calls += 1
        hidden = self.first(inputs).tanh()
        if self.when(self.calls, len(inputs)):
            hidden = hidden + self.some(hidden)
        return self.last(hidden)


def branching(ranks, groups, when, *, static_graph):
    return trained(ranks, groups, net=Branching(when), static_graph=static_graph)


@pytest.mark.parametrize("static_graph", [True, False])
def test_what_never_takes_part_is_left_alone(in_ranks, static_graph):
    groups = [batches([8, 5]), batches([3, 1], seed=2), batches([4], seed=3)]
    never = lambda *_: False  # noqa: E731

    def run(ranks):
        return branching(ranks, groups, never, static_graph=static_graph)

    assert_equal(in_ranks(2, run), run(ALONE))  # without gradients, weight decay moves nothing


WHENS = {
    "first": lambda call, _: call % 2 == 1,
    "later": lambda call, _: call == 3,
    "one rank": lambda _, samples: samples == 2,  # 5 samples of 2 ranks: 2 and 3
}


@pytest.mark.parametrize("when", WHENS)
def test_what_takes_part_in_some_steps_is_looked_for(in_ranks, when):
    groups = [[batch] for batch in batches([8, 5, 8, 5])]

    found = in_ranks(2, lambda ranks: branching(ranks, groups, WHENS[when], static_graph=False))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    if when != "one rank":
        assert_equal(found, branching(ALONE, groups, WHENS[when], static_graph=True))


@pytest.mark.parametrize("when", WHENS)
def test_what_takes_part_in_some_steps_is_an_error_with_a_static_graph(in_ranks, when):
    groups = [[batch] for batch in batches([8, 8, 8, 5, 5][when != "one rank" :])]

    def run(ranks):
        with pytest.raises((LockstepError, ConfigError)) as error:
            branching(ranks, groups, WHENS[when], static_graph=True)
        return str(cause_of(error.value))

    found = in_ranks(2, run)
    words = "runtime.static_graph: some parameters"
    more = "take part in the loss of some steps only, as by layer drop, a mixture of experts or a "
    told = [each for each in found if each.startswith(words)]
    assert len(told) == (1 if when == "one rank" else 2), found
    assert all(more in each for each in told)


def test_a_step_of_a_part_of_the_parameters_is_not_the_last_one_in_silence(in_ranks):
    groups = [[batch] for batch in batches([8, 8])]

    def run(ranks):
        with pytest.raises(LockstepError) as error:
            branching(ranks, groups, WHENS["first"], static_graph=True)
        return str(cause_of(error.value))

    for said in in_ranks(2, run):
        assert "some parameters, such as some.weight, take part" in said


def test_parameters_that_are_unfrozen_are_trained_alike(in_ranks):
    groups = [[batch] for batch in batches([8, 5, 8, 5])]

    def run(ranks):
        net = Branching(lambda *_: True)
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        step = make_step(net, F.cross_entropy, optimizer, Runtime(CPU, ranks=ranks))
        losses = []
        for number, group in enumerate(groups):
            net.first.requires_grad_(requires_grad=number >= 2)
            losses.append(step([share(batch, ranks) for batch in group], 0.1))
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        return [(float(out.loss), out.denominator) for out in losses], weights

    assert_equal(in_ranks(2, run), run(ALONE))
