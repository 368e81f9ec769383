"""What the first update tells, against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lrtool.engine.device import Runtime
from lrtool.engine.first_update import STRIDE, first_update
from lrtool.engine.step import make_step

CPU = Runtime(torch.device("cpu"))
FINEST = STRIDE / 2**4  # decades that are left after bisection


class Bowl(nn.Module):
    """½ λ x²: an update of SGD from x is −lr λ x, and raises the loss from lr = 2 / λ on."""

    def __init__(self, curvature, start=3.0, shift=0.0):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([float(start)], dtype=torch.float64))
        self.curvature, self.shift = curvature, shift

    def training_loss(self, _batch):
        return 0.5 * self.curvature * (self.x**2).sum() + self.shift


def looked(model, make=torch.optim.SGD, loss_fn=None, batches=None, **options):
    optimizer = make(model.parameters(), lr=1.0, **options)
    batches = batches or [torch.zeros(4, 1)]
    return first_update(make_step(model, loss_fn, optimizer, CPU), model, loss_fn, batches, CPU)


@pytest.mark.parametrize("curvature", [1e-3, 0.7, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("shift", [0.0, 1000.0, -20.0])
def test_the_critical_rate_of_a_parabola_is_two_over_its_curvature(curvature, shift):
    found = looked(Bowl(curvature, start=3 / math.sqrt(curvature), shift=shift))
    assert math.log10(found.critical_lr) == pytest.approx(
        math.log10(2 / curvature), abs=FINEST + 0.01 * bool(shift)
    )
    # the update is as long as the weight where lr λ x = x
    assert found.ratio_lr == pytest.approx(1 / curvature)
    # one step, then one look without an update, one for each stride, and four halvings
    assert 1 + 6 / 3 < found.steps < 1 + 10 / 3


@given(st.floats(-4, 4), st.floats(-3, 3))
def test_whatever_the_curvature_and_the_start(curvature, start):
    found = looked(Bowl(10**curvature, 10**start))
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(2) - curvature, abs=FINEST)


def test_adams_first_update_is_the_rate_itself():
    """Of each weight, whatever its gradient; so the ratio is that of norms, by hand."""
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 1), nn.Tanh(), nn.Linear(1, 2))
    with torch.no_grad():
        for layer, value in ((0, 0.5), (2, 0.1), (4, 2.0)):
            model[layer].weight.fill_(value)
            model[layer].bias.zero_()
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    batch = (x, torch.randn(16, 2, generator=torch.Generator().manual_seed(1)))
    found = looked(model, torch.optim.Adam, F.mse_loss, [batch], eps=1e-30)
    # each matrix: value · √n / √n = value; the median of .5, .1 and 2
    assert found.ratio_lr == pytest.approx(0.5, rel=1e-3)


def test_vectors_count_only_where_there_is_no_matrix():
    model = Bowl(1.0)
    assert looked(model).ratio_lr == pytest.approx(1.0)
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.fill_(3.0)
        linear.bias.fill_(1000.0)
    batch = (torch.ones(8, 2), torch.zeros(8, 1))
    found = looked(linear, torch.optim.Adam, F.mse_loss, [batch])
    assert found.ratio_lr == pytest.approx(3.0, rel=1e-3)


def test_without_a_direction_nothing_is_known():
    found = looked(Bowl(0.0))
    assert (found.critical_lr, found.ratio_lr, found.steps) == (None, None, 1.0)
    dead = Bowl(1.0, start=0.0)
    assert looked(dead).ratio_lr is None


def test_a_loss_that_falls_for_ever_has_no_critical_rate():
    class Slope(Bowl):
        def training_loss(self, _batch):
            return -self.x.sum()

    found = looked(Slope(1.0))
    assert found.critical_lr is None
    assert found.ratio_lr == pytest.approx(3.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_has_risen(wrong):
    class Cliff(Bowl):
        def training_loss(self, _batch):
            return self.x.sum() if self.x.item() > -7 else self.x.abs().sum() * wrong

    # the update is −lr: from 3 it falls off at lr = 10
    found = looked(Cliff(1.0))
    assert math.log10(found.critical_lr) == pytest.approx(1.0, abs=FINEST)


def test_every_forward_pass_draws_the_same_numbers():
    drawn = []

    class Noisy(Bowl):
        def training_loss(self, batch):
            drawn.append(torch.rand(3).tolist())
            return super().training_loss(batch) * (1 + drawn[-1][0])

    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = looked(Noisy(1.0))
    assert len(drawn) > 6
    assert all(numbers == drawn[0] for numbers in drawn)
    assert torch.equal(before, torch.get_rng_state())
    curvature = 1 + drawn[0][0]  # the same for all
    expected = math.log10(2 / curvature)
    assert math.log10(found.critical_lr) == pytest.approx(expected, abs=FINEST)


def test_micro_batches_count_by_their_samples():
    """Means of 3 and of 1 sample, 3 : 1; as one batch of all four."""

    def measured(sizes):
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        x = torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
        batches = [(part, part.sum(1, keepdim=True)) for part in x.split(sizes)]
        return looked(model, torch.optim.SGD, F.mse_loss, batches)

    one, two = measured([4]), measured([3, 1])
    assert two.critical_lr == pytest.approx(one.critical_lr)
    assert two.ratio_lr == pytest.approx(one.ratio_lr, rel=1e-5)
    assert two.steps == one.steps


def test_frozen_weights_have_no_part_in_it():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(requires_grad=False)
    with torch.no_grad():
        model[1].weight.fill_(0.25)
    before = model[0].weight.clone()
    batch = (torch.randn(8, 2), torch.zeros(8, 1))
    found = looked(model, torch.optim.Adam, F.mse_loss, [batch])
    assert found.ratio_lr == pytest.approx(0.25, rel=1e-3)
    assert torch.equal(model[0].weight, before)


def test_gradients_are_dropped():
    model = Bowl(1.0)
    looked(model)
    assert model.x.grad is None


def test_weights_that_break_the_model_are_beyond_the_critical_rate():
    class Fragile(Bowl):
        def training_loss(self, batch):
            if self.x.abs() > 4:
                raise ValueError("out of range")
            return super().training_loss(batch)

    # from 3 by −3 lr: it breaks from lr = 7/3 on, but the loss has risen from 2 on
    assert math.log10(looked(Fragile(1.0)).critical_lr) == pytest.approx(math.log10(2), abs=FINEST)
    # with a slope in place of a bowl only the failure ends it: 3 − lr < −4

    class Sliding(Fragile):
        def training_loss(self, batch):
            return self.x.sum() + 0 * super().training_loss(batch)

    found = looked(Sliding(1.0))
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(7), abs=FINEST)


def test_a_model_that_fails_without_an_update_fails():
    calls = []

    class Failing(Bowl):
        def training_loss(self, batch):
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("mine")
            return super().training_loss(batch)

    with pytest.raises(ValueError, match="mine"):
        looked(Failing(1.0))


def test_batches_that_the_model_changes_in_place_are_the_same_for_all():
    class Changing(Bowl):
        def training_loss(self, batch):
            batch.mul_(10)
            assert batch.max() == 10
            return super().training_loss(batch)

    batch = torch.ones(4, 1)
    assert looked(Changing(1.0), batches=[batch]).critical_lr is not None
    assert torch.equal(batch, torch.ones(4, 1))


def test_a_scaler_that_skips_the_first_updates_finds_its_scale_first():
    model = Bowl(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plain = make_step(model, None, optimizer, CPU)
    calls = []

    def step(batches, lr):
        calls.append(lr)
        if len(calls) < 4:
            return plain(batches, 0.0)._replace(skipped=torch.tensor(1.0))
        return plain(batches, lr)._replace(skipped=torch.tensor(0.0))

    found = first_update(step, model, None, [torch.zeros(4, 1)], CPU)
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(2), abs=FINEST)
    assert len(calls) == 4
    assert found.steps > 4 + 6 / 3


class Adapter(nn.Module):
    """½ (b a − t)² of matrices of one number each: with b = 0, a has no gradient."""

    def __init__(self, a=2.0, b=0.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[a]], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([[b]], dtype=torch.float64))

    def training_loss(self, _batch):
        return 0.5 * ((self.b @ self.a - 3.0) ** 2).sum()


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_weight_decay_alone_moves_does_not_count(decay, frozen):
    """Along b = 3 a lr the loss is ½ (3 a² lr − 3)²: as high as at first at 2 / a²."""
    model = Adapter()
    model.a.requires_grad_(requires_grad=not frozen)
    found = looked(model, weight_decay=decay)
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(2 / 4), abs=FINEST)
    assert found.ratio_lr is None  # for a it would be 1 / decay, and b is 0
    assert found.steps < 1 + 10 / 3


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_one_weight_of_an_adapter_apart_from_0_and_both_count(make):
    found = looked(Adapter(b=0.5), make, weight_decay=0.01)
    assert found.ratio_lr is not None


def test_the_block_behind_a_closed_gate_does_not_count():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.gate = nn.Linear(4, 4), nn.Parameter(torch.zeros(()))
            self.head = nn.Linear(4, 1)
            with torch.no_grad():
                self.inner.weight.fill_(0.5)
                self.head.weight.fill_(0.125)

        def forward(self, x):
            return self.head(x + self.gate * self.inner(x))

    torch.manual_seed(0)
    batch = (torch.randn(16, 4), torch.randn(16, 1))
    found = looked(Gated(), torch.optim.AdamW, F.mse_loss, [batch], weight_decay=0.0001)
    # the head's 0.125 alone: the inner weights would say 10,000
    assert found.ratio_lr == pytest.approx(0.125, rel=1e-3)


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_that_are_not_in_the_batch_do_not_count(sparse):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(1000, 4, sparse=sparse)
            with torch.no_grad():
                self.words.weight.fill_(0.25)

        def forward(self, x):
            return self.words(x).sum((1, 2))

    batch = (torch.tensor([[3], [5], [5], [7]]), torch.zeros(4))
    make = torch.optim.SparseAdam if sparse else torch.optim.AdamW
    options = {} if sparse else {"weight_decay": 1.0}
    found = looked(Words(), make, F.mse_loss, [batch], **options)
    # three rows of 0.25 that go down by 1, and by the decay; over all rows it would be 4.5 up
    assert found.ratio_lr == pytest.approx(0.25 if sparse else 0.25 / 1.25, rel=1e-3)
    # 4 w = 1 at first, and −1 when the weights have gone from 0.25 to −0.25
    expected = 0.5 if sparse else 0.5 / 1.25
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(expected), abs=FINEST)


class FromZero(nn.Module):
    """½ λ (x − 1)² from x = 0: no ratio, and the loss has risen again from 2 / λ on."""

    def __init__(self, curvature, shift=0.0):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
        self.curvature, self.shift = curvature, shift

    def training_loss(self, _batch):
        return 0.5 * self.curvature * ((self.x - 1) ** 2).sum() + self.shift


@pytest.mark.parametrize("curvature", [1e-4, 0.7, 50.0, 1e6])
@pytest.mark.parametrize(("shift", "most"), [(0.0, 10), (30.0, 40)])
def test_weights_of_0_have_a_critical_rate(curvature, shift, most):
    """Found within few looks where the loss can vanish, and within some in any case."""
    shift *= curvature
    found = looked(FromZero(curvature, shift))
    assert found.ratio_lr is None
    assert math.log10(found.critical_lr) == pytest.approx(math.log10(2 / curvature), abs=FINEST)
    assert found.steps < 1 + most / 3


def test_a_loss_of_0_at_first_has_a_critical_rate_too():
    found = looked(FromZero(2.0, shift=-1.0))
    assert math.log10(found.critical_lr) == pytest.approx(0.0, abs=FINEST)
    assert found.steps < 1 + 40 / 3


def test_an_optimizer_that_drops_its_gradients_has_the_same_first_update():
    class Dropping(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.zero_grad()

    assert looked(Bowl(0.7), Dropping) == looked(Bowl(0.7))
    assert looked(FromZero(0.7), Dropping) == looked(FromZero(0.7))
