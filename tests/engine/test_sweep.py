"""The sweep: what is recorded when, when it stops, and that reading in bulk changes nothing."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine import readout
from lrtool.engine.device import Runtime
from lrtool.engine.step import StepOut, make_step
from lrtool.engine.sweep import make_probe, sweep, sweep_rates, to_sweep

CPU = Runtime(torch.device("cpu"))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def stream(seed=1):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(32, 8, generator=generator)
        yield [(x, x[:, :3].argmax(1))]


def rows_of(rates, model=None, clip=None, **options):
    model = model or net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    step = make_step(model, F.cross_entropy, optimizer, CPU, clip_norm=clip)
    return list(sweep(step, stream(), rates, **options))


def given_losses(losses):
    """A step that returns these losses, whatever it is given."""
    left = iter(losses)

    def step(_batches, _lr):
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return StepOut(torch.tensor(value), None, None)

    return step


def test_rates_by_hand():
    assert sweep_rates(1e-3, 10, 5) == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10], rel=1e-12)
    assert sweep_rates(1, 2, 5, "linear") == [1, 1.25, 1.5, 1.75, 2]
    assert sweep_rates(1e-7, 10, 200)[0] == 1e-7
    assert sweep_rates(1e-7, 10, 200)[-1] == 10


def test_a_constant_rate_gives_a_plain_loops_losses_to_the_last_bit():
    found = [row.loss for row in rows_of([0.05] * 50)]
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    plain = []
    for [(x, y)], _ in zip(stream(), range(50), strict=False):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plain.append(loss.item())
    assert found == plain


def test_the_first_loss_is_before_the_first_update_and_each_rate_is_its_own_steps():
    rates = sweep_rates(1e-4, 1e-1, 10)
    rows = rows_of(rates)
    (x, y) = next(stream())[0]
    assert rows[0].loss == F.cross_entropy(net()(x), y).item()
    assert [row.lr for row in rows] == rates
    assert [row.step for row in rows] == list(range(10))


@pytest.mark.parametrize("steps", [1, 2, 7, 64, 1000])
def test_the_curve_does_not_depend_on_how_often_losses_are_read(monkeypatch, steps):
    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 1e9)
    monkeypatch.setattr(readout, "READ_AFTER_STEPS", 64)
    rates = sweep_rates(1e-4, 1e4, 150)
    expected = rows_of(rates)
    assert len(expected) < 150  # it does diverge
    monkeypatch.setattr(readout, "READ_AFTER_STEPS", steps)
    assert rows_of(rates) == expected
    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 0.0)
    assert rows_of(rates) == expected


@pytest.mark.parametrize(("bad", "reason"), [(math.nan, "nan"), (math.inf, "inf")])
def test_nan_at_step_51_is_the_last_row(bad, reason):
    losses = [2.0] * 51 + [bad] + [2.0] * 100
    rows = list(sweep(given_losses(losses), stream(), sweep_rates(1e-5, 1, 152)))
    assert len(rows) == 52
    assert rows[:51] == [r for r in rows if r.loss == 2.0]
    assert not math.isfinite(rows[51].loss)
    assert to_sweep(rows, seed=3, planned=152).stop_reason == reason


def test_divergence_and_completion_and_interruption_are_told_apart():
    descent = [2 - i / 100 + 0.01 * (-1) ** i for i in range(100)]
    diverging = [*descent, *(5.0 + i for i in range(20))]
    rows = list(sweep(given_losses(diverging), stream(), sweep_rates(1e-5, 1, 120)))
    assert 100 < len(rows) < 110
    assert to_sweep(rows, seed=0, planned=120).stop_reason == "diverged"
    rows = list(sweep(given_losses(descent), stream(), sweep_rates(1e-5, 1, 100)))
    assert to_sweep(rows, seed=0, planned=100).stop_reason == "completed"
    assert to_sweep(rows[:-1], seed=0, planned=100).stop_reason == "interrupted"


def test_a_negative_loss_does_not_diverge():
    losses = [-10.0 - i / 10 + 0.02 * (-1) ** i for i in range(100)]
    rows = list(sweep(given_losses(losses), stream(), sweep_rates(1e-5, 1, 100)))
    assert len(rows) == 100


def test_an_exception_before_divergence_is_the_callers():
    losses = [2.0, 1.9, ValueError("mine")]
    rows = sweep(given_losses(losses), stream(), sweep_rates(1e-5, 1, 10))
    seen = []
    with pytest.raises(ValueError, match="mine"):
        seen.extend(row.loss for row in rows)
    assert seen == pytest.approx([2.0, 1.9])


def test_an_exception_after_nan_ends_the_sweep_as_nan():
    losses = [2.0, math.nan, ValueError("the model checks its outputs")]
    rows = list(sweep(given_losses(losses), stream(), sweep_rates(1e-5, 1, 10)))
    assert len(rows) == 2
    assert math.isnan(rows[1].loss)


def test_skipped_steps_are_marked_and_stop_nothing():
    left = iter(range(10))

    def step(_batches, _lr):
        i = next(left)
        return StepOut(torch.tensor(math.inf if i == 3 else 1.0), None, torch.tensor(i == 3))

    rows = list(sweep(step, stream(), sweep_rates(1e-5, 1, 10)))
    assert [row.skipped for row in rows] == [i == 3 for i in range(10)]


def test_clipping_does_not_hide_divergence():
    rows = rows_of(sweep_rates(1e-4, 1e6, 200), clip=1.0)
    assert to_sweep(rows, seed=0, planned=200).stop_reason == "diverged"


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.drop(self.norm(x)))


def test_a_probe_is_deterministic_and_leaves_no_trace():
    model = Noisy()
    model.drop.eval()  # a part that its owner has frozen
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 8, generator=generator) * 5 + 3
    y = torch.randint(3, (64,), generator=generator)
    probe = make_probe(model, F.cross_entropy, (x, y), CPU)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    first, second = probe(), probe()
    assert first == second
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert (model.training, model.norm.training, model.drop.training) == (True, True, False)
    # the statistics of the batch itself, computed by hand
    normal = (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + model.norm.eps)
    expected = F.cross_entropy(model.out(normal), y)
    assert first.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_probe_leaves_a_frozen_norm_to_its_running_statistics():
    model = Noisy()
    model.norm.eval()
    model.norm.running_mean.fill_(2)
    model.norm.running_var.fill_(9)
    x, y = torch.randn(64, 8) * 5 + 3, torch.randint(3, (64,))
    found = make_probe(model, F.cross_entropy, (x, y), CPU)()
    expected = F.cross_entropy(model.out((x - 2) / math.sqrt(9 + model.norm.eps)), y)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert not model.norm.training


def test_with_a_probe_the_rows_hold_its_loss_before_the_update():
    model = net()
    (x, y) = next(stream(seed=9))[0]
    probe = make_probe(model, F.cross_entropy, (x, y), CPU)
    expected = F.cross_entropy(model(x), y).item()
    rows = rows_of(sweep_rates(1e-3, 1e-1, 5), model=model, probe=probe)
    assert rows[0].loss == pytest.approx(expected, rel=1e-6)
    assert rows[-1].loss != rows[0].loss
