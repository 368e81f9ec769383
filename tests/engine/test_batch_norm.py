"""Batch norm over several ranks: that of one rank over the whole batch."""

import pytest
import torch
from rank_batches import share
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lrtool.batch import Share, share_of
from lrtool.engine.batch_norm import SharedStatistics, TooFewValuesError, has_batch_norm
from lrtool.engine.device import Runtime
from lrtool.engine.first_update import first_update
from lrtool.engine.step import make_step
from lrtool.errors import LostRankError, OutOfStepError, RankFailedError, cause_of
from lrtool.ranks import ALONE


class Scaled(nn.BatchNorm1d):
    """A batch norm of the user's own."""

    def forward(self, inputs):
        return super().forward(2 * inputs + 3)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(4, momentum=None)

    def forward(self, inputs):
        return F.batch_norm(self.first(inputs), None, None, training=True)


def norms():
    return {
        "1d": (nn.BatchNorm1d(4), (4,)),
        "of sequences": (nn.BatchNorm1d(4, affine=False), (4, 3)),
        "2d": (nn.BatchNorm2d(4, momentum=0.3, eps=1e-3), (4, 3, 2)),
        "3d, nothing tracked": (nn.BatchNorm3d(4, track_running_stats=False), (4, 2, 1, 2)),
        "own": (Scaled(4), (4,)),
        "functional": (Functional(), (4,)),
    }


def run(ranks, name, samples):
    """Return a share's outputs, the gradient of its inputs, those of the weights, and buffers."""
    torch.manual_seed(0)
    norm, shape = norms()[name]
    inputs = torch.randn(samples, *shape) * 10 + 100
    ways = torch.randn(samples, *shape)
    rows, counts = slice(None), True
    if ranks.several:
        rows, counts = share_of(samples, ranks.rank, ranks.world_size)
    own = inputs[rows].clone().requires_grad_()
    weight = ways[rows] if counts else torch.zeros_like(own)
    if ranks.several:
        with SharedStatistics(ranks).of(Share(own, samples, counts=counts)):
            outputs = norm(own)
    else:
        outputs = norm(own)
    (outputs.sin() * weight).sum().backward()
    gradients = [p.grad for p in norm.parameters()]
    assert counts or not own.grad.any()
    rows = slice(None) if counts else slice(0)
    return outputs.detach()[rows], own.grad[rows], gradients, list(norm.buffers())


@pytest.mark.parametrize("name", norms())
@pytest.mark.parametrize(("world_size", "samples"), [(2, 7), (4, 3)])
def test_ranks_normalise_as_one(in_ranks, name, world_size, samples):
    found = in_ranks(world_size, lambda ranks: run(ranks, name, samples))
    outputs, inputs, gradients, buffers = run(ALONE, name, samples)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.cat([each[0] for each in found]), outputs, **close)
    torch.testing.assert_close(torch.cat([each[1] for each in found]), inputs, **close)
    for number, gradient in enumerate(gradients):
        torch.testing.assert_close(sum(each[2][number] for each in found), gradient, **close)
    for each in found:
        torch.testing.assert_close(each[3], buffers, rtol=1e-5, atol=1e-5)
        assert all(map(torch.equal, each[3], found[0][3]))


def test_the_type_of_half_precision_is_kept(in_ranks):
    def run(ranks):
        inputs = torch.randn(4, 3).bfloat16()
        norm = nn.BatchNorm1d(3)
        with SharedStatistics(ranks).of(Share(inputs, 8)), torch.autocast("cpu", torch.bfloat16):
            return norm(inputs).dtype, norm.running_mean.dtype

    assert in_ranks(2, run) == [(torch.bfloat16, torch.float32)] * 2


def test_frozen_statistics_are_used_without_an_exchange():
    norm = nn.BatchNorm1d(3).eval()
    inputs = torch.randn(4, 3)
    shared = SharedStatistics(ALONE)
    with shared.of(Share(inputs, 8)):
        assert torch.equal(norm(inputs), inputs / (1 + 1e-5) ** 0.5)
    assert shared.meetings == 0


def test_one_value_over_all_ranks_has_no_variance(in_ranks):
    def run(ranks):
        inputs = torch.randn(1, 3)
        own = Share(inputs, 1, counts=ranks.first)
        with SharedStatistics(ranks).of(own), pytest.raises(TooFewValuesError) as error:
            nn.BatchNorm1d(3)(inputs)
        return str(error.value)

    words = "Expected more than 1 value per channel when training, got input size "
    for said in in_ranks(2, run):
        assert said == f"{words}torch.Size([1, 3]) over all ranks"


def test_a_compiled_model_is_not_traced_anew_by_the_number_of_meetings():
    from torch._dynamo.testing import CompileCounter

    graphs, shared = CompileCounter(), SharedStatistics(ALONE)
    inputs = torch.randn(8, 3)
    linear, norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    @torch.compile(backend=graphs)
    def net():
        return norm(linear(inputs))

    for _ in range(4):
        with shared.of(Share(inputs, 8)):
            net()
    assert shared.meetings == 4
    assert graphs.frame_count == 1  # of the linear layer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6))
        self.last = nn.Linear(6, 3)

    def forward(self, inputs):
        hidden = checkpoint(self.first, inputs, use_reentrant=False)
        return self.last(self.second(hidden).relu())


def trained(ranks, sizes, net=None):
    net, runtime = net or Net(), Runtime(torch.device("cpu"), ranks=ranks)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = make_step(net, F.cross_entropy, optimizer, runtime)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for size in sizes:
        batch = (torch.randn(size, 1, 5, 5, generator=generator), torch.arange(size) % 3)
        losses.append(float(step([share(batch, ranks)], 0.1).loss))
    return losses, net.state_dict()


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_model_with_batch_norm_has_the_losses_of_one_rank(in_ranks, world_size):
    sizes = [8, 8, 7, 3, 2]
    losses, state = trained(ALONE, sizes)
    for found in in_ranks(world_size, lambda ranks: trained(ranks, sizes)):
        assert found[0] == pytest.approx(losses, rel=1e-5)
        torch.testing.assert_close(found[1], state, rtol=1e-4, atol=1e-5)


class Failing(Net):
    """A model that fails on rank 0, in its second step, before or after the others meet."""

    def __init__(self, ranks, *, late):
        super().__init__()
        self.fails, self.late, self.steps = ranks.first, late, 0

    def forward(self, inputs):
        self.steps += 1
        if self.fails and self.steps == 2 and not self.late:
            raise TypeError("a bad sample")
        outputs = super().forward(inputs)
        if self.fails and self.steps == 2:
            raise TypeError("a bad sample")
        return outputs


@pytest.mark.parametrize("late", [True, False])
def test_no_rank_waits_in_a_batch_norm_for_one_that_has_failed(in_ranks, late):
    def run(ranks):
        with pytest.raises(Exception) as error:  # noqa: PT011
            trained(ranks, [8, 8, 8], Failing(ranks, late=late))
        return type(error.value), str(cause_of(error.value))

    first, second = in_ranks(2, run)
    assert first == (TypeError if late else OutOfStepError, "a bad sample")
    assert second[0] is (RankFailedError if late else LostRankError)


def test_all_ranks_leave_a_step_in_which_one_value_has_no_variance(in_ranks):
    def run(ranks):
        with pytest.raises(TooFewValuesError):
            trained(ranks, [1], nn.Sequential(nn.Flatten(), nn.BatchNorm1d(25), nn.Linear(25, 3)))
        return ranks.sums([1])  # they are in lockstep

    assert in_ranks(2, run) == [[2], [2]]


def measured(ranks):
    net, runtime = Net(), Runtime(torch.device("cpu"), ranks=ranks)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = make_step(net, F.cross_entropy, optimizer, runtime)
    generator = torch.Generator().manual_seed(1)
    batch = (torch.randn(8, 1, 5, 5, generator=generator), torch.arange(8) % 3)
    return first_update(step, net, F.cross_entropy, [share(batch, ranks)], runtime).critical_lr


def test_the_first_update_is_measured_with_the_statistics_of_the_batch(in_ranks):
    expected = measured(ALONE)
    assert in_ranks(2, measured) == [pytest.approx(expected, rel=1e-4)] * 2


def test_only_models_with_batch_norm_pay_for_it():
    assert has_batch_norm(Net())
    assert not has_batch_norm(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1), nn.InstanceNorm1d(1)))
