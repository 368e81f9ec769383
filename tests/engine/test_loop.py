"""The training loop against plain PyTorch loops, by hand, and when it goes wrong."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lrtool.engine import readout
from lrtool.engine.device import Runtime
from lrtool.engine.ema import MovingAverage
from lrtool.engine.loop import SKIPS_IN_A_ROW, BestTracker, Position, failed, train_epoch
from lrtool.engine.step import StepOut, make_step, set_momentum
from lrtool.engine.sweep import sweep
from lrtool.report.records import EpochRow, StepRow

CPU = Runtime(torch.device("cpu"))


class Constant:
    def factor(self, _step, _epoch):
        return 1.0

    def momentum(self, _step):
        return None


class OneCycle(Constant):
    """What torch's OneCycleLR sets at each step, read off an optimizer that it drives."""

    def __init__(self, total, optimizer):
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total)
        self.seen = []
        for _ in range(total):
            group = optimizer.param_groups[0]
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            self.seen.append((group["lr"], momentum))
            optimizer.step()
            if len(self.seen) < total:
                schedule.step()

    def factor(self, step, _epoch):
        return self.seen[step][0]

    def momentum(self, step):
        return self.seen[step][1]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


def data(sizes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        x = torch.randn(size, 8, generator=generator)
        yield x, x[:, :3].argmax(1)


def groups(sizes, of):
    batches = list(data(sizes))
    return [batches[i : i + of] for i in range(0, len(batches), of)]


def sgd(parameters, lr=1.0):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(parameters, lr=1.0):
    return torch.optim.Adam(parameters, lr=lr)


def given_steps(outs):
    """A step that returns these, or raises them, whatever it is given."""
    left = iter(outs)

    def step(_batches, _lr):
        out = next(left)
        if isinstance(out, Exception):
            raise out
        if isinstance(out, StepOut):
            return out
        loss, norm, skipped = out if isinstance(out, tuple) else (out, None, None)
        return StepOut(
            torch.tensor(loss),
            None if norm is None else torch.tensor(norm),
            None if skipped is None else torch.tensor(skipped),
        )

    return step


def train(step, micro_batches, position=None, **options):
    """Return all rows as they were yielded, and the position after them."""
    position = position or Position()
    options = {
        "lr": 0.1,
        "schedule": Constant(),
        "optimizer": sgd([nn.Parameter(torch.zeros(1))]),
        **options,
    }
    return list(train_epoch(step, iter(micro_batches), position, **options)), position


def ones(number):
    return [[(torch.ones(4, 1), torch.ones(4, 1))] for _ in range(number)]


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("make", [sgd, adam])
def test_losses_and_weights_are_a_plain_loops_to_the_last_bit(make, accumulate, clip):
    micro_batches = groups([16] * 19 + [5], accumulate)  # the last update is smaller, and unequal
    total = len(micro_batches)
    cycle = OneCycle(total, make([nn.Parameter(torch.zeros(1))]))

    model = net()
    optimizer = make(model.parameters(), 0.05)
    torch.manual_seed(7)
    losses, norms = [], []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=total)
    for number, group in enumerate(micro_batches):
        # OneCycleLR's rates are those of max_lr = 1 times the base rate, but for rounding
        assert optimizer.param_groups[0]["lr"] == pytest.approx(cycle.factor(number, 0) * 0.05)
        optimizer.param_groups[0]["lr"] = 0.05 * cycle.factor(number, 0)
        optimizer.zero_grad()
        samples, whole = sum(len(x) for x, _ in group), 0.0
        for x, y in group:
            loss = F.cross_entropy(model(x), y) * (len(x) / samples)
            loss.backward()
            whole = whole + loss.detach()
        if clip is not None:
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        optimizer.step()
        losses.append(whole.item())
        if number + 1 < total:
            schedule.step()

    own = net()
    own_optimizer = make(own.parameters(), 1.0)
    step = make_step(own, F.cross_entropy, own_optimizer, CPU, clip_norm=clip)
    torch.manual_seed(7)
    chunks, _ = train(step, micro_batches, lr=0.05, schedule=cycle, optimizer=own_optimizer)
    rows = [row for chunk in chunks for row in chunk]
    assert [row.loss for row in rows] == losses
    assert [row.grad_norm for row in rows] == (norms or [None] * total)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), model.parameters(), strict=True))
    assert own_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_mse_and_one_sgd_update_by_hand():
    # y = w·x + b with w = 2, b = 1 on (1, 2), (2, 5), (3, 10): errors 1, 0, -3, MSE = 10 / 3,
    # dMSE/dw = 2/3 · (1·1 + 0·2 - 3·3) = -16/3, dMSE/db = 2/3 · (1 + 0 - 3) = -4/3;
    # new weight = old weight - lr × gradient: 2 + 0.1 · 16/3, and 1 + 0.1 · 4/3
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = (torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [5.0], [10.0]]))
    step = make_step(model, F.mse_loss, optimizer, CPU)
    [[row]], position = train(step, [[batch]], optimizer=optimizer)
    assert row.loss == pytest.approx(10 / 3, rel=1e-6)
    assert model.weight.item() == pytest.approx(2 + 0.1 * 16 / 3, rel=1e-6)
    assert model.bias.item() == pytest.approx(1 + 0.1 * 4 / 3, rel=1e-6)
    assert row == StepRow(1, 1, 0.1, row.loss, 3, None, skipped=False, denominator=3.0)
    assert (position.step, position.batches, position.samples, position.lr) == (1, 1, 3, 0.1)


def test_a_sweep_at_a_constant_rate_gives_the_trainers_losses():
    micro_batches = groups([16] * 60, 1)
    found = []
    for train_it in (True, False):
        model = net()
        optimizer = sgd(model.parameters())
        step = make_step(model, F.cross_entropy, optimizer, CPU)
        torch.manual_seed(3)
        if train_it:
            chunks, _ = train(step, micro_batches, lr=0.02, optimizer=optimizer)
            found.append([row.loss for chunk in chunks for row in chunk])
        else:
            found.append([row.loss for row in sweep(step, iter(micro_batches), [0.02] * 60)])
    assert found[0] == found[1]


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 50)), min_size=1, max_size=40))
def test_the_loss_of_an_epoch_is_weighted_by_denominators(seen):
    losses, sizes = zip(*seen, strict=True)
    micro_batches = [[(torch.ones(size, 1), torch.ones(size, 1))] for size in sizes]
    outs = [StepOut(torch.tensor(loss), None, None, size) for loss, size in seen]
    _, position = train(given_steps(outs), micro_batches)
    stored = [torch.tensor(loss).item() for loss in losses]  # in single precision
    exact = math.fsum(loss * size for loss, size in zip(stored, sizes, strict=True)) / sum(sizes)
    assert position.train_loss() == pytest.approx(exact, rel=1e-9, abs=1e-9)
    assert position.samples == sum(sizes)


def test_an_epoch_without_samples_has_no_loss_and_the_next_one_begins_at_nought():
    assert math.isnan(Position().train_loss())
    position = Position(step=7, epoch=2, batches=3, loss_sum=5.0, denominator=4, samples=9)
    assert position.train_loss() == 1.25
    position.next_epoch()
    assert position == Position(step=7, epoch=3)


@pytest.mark.parametrize("every", [1, 2, 7, 64])
def test_rows_do_not_depend_on_how_often_they_are_read(monkeypatch, every):
    micro_batches = groups([16] * 39 + [3], 2)

    def rows(number):
        monkeypatch.setattr(readout, "READ_AFTER_STEPS", number)
        model = net()
        optimizer = adam(model.parameters())
        step = make_step(model, F.cross_entropy, optimizer, CPU, clip_norm=1.0)
        chunks, position = train(step, micro_batches, optimizer=optimizer)
        return [row for chunk in chunks for row in chunk], position

    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 1e9)
    expected = rows(1000)
    assert len(expected[0]) == 20
    assert expected[0][-1].samples == 16 + 3
    assert rows(every) == expected


def test_it_rests_at_every_multiple_of_pause_every(monkeypatch):
    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 1e9)
    position, weights = Position(step=4), []
    model = net()
    optimizer = sgd(model.parameters())
    step = make_step(model, F.cross_entropy, optimizer, CPU)
    ends = []
    for rows in train_epoch(
        step,
        iter(groups([8] * 10, 1)),
        position,
        lr=0.1,
        schedule=Constant(),
        optimizer=optimizer,
        pause_every=3,
    ):
        assert position.step == rows[-1].step
        ends.append(position.step)
        weights.append(model[0].weight.detach().clone())
    assert ends == [6, 9, 12, 14]
    assert not any(torch.equal(a, b) for a, b in pairwise(weights))


def test_max_steps_is_of_the_whole_training_and_takes_no_batch_more():
    micro_batches = iter(ones(10))
    chunks, position = train(
        given_steps([1.0] * 10), micro_batches, Position(step=95), max_steps=98
    )
    assert [row.step for rows in chunks for row in rows] == [96, 97, 98]
    assert len(list(micro_batches)) == 7
    assert train(given_steps([]), micro_batches, position, max_steps=98) == ([], position)


def test_the_schedule_is_asked_for_each_step_of_its_epoch():
    class Asked(Constant):
        def factor(self, step, epoch):
            return 1 + step + 100 * epoch

    chunks, position = train(
        given_steps([1.0] * 3), ones(3), Position(step=5, epoch=2), lr=0.5, schedule=Asked()
    )
    assert [row.lr for rows in chunks for row in rows] == [103.0, 103.5, 104.0]
    assert [row.epoch for rows in chunks for row in rows] == [3, 3, 3]
    assert position.lr == 104.0


def test_the_moving_average_follows_each_update():
    model = net()
    average = MovingAverage(model, 0.5)
    step = make_step(model, F.cross_entropy, sgd(model.parameters()), CPU)
    train(step, groups([8] * 5, 1), average=average)
    assert average.updates == 5


def test_the_moving_average_does_not_follow_a_skipped_update():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.25)
    nn.init.ones_(model.weight)
    skipped = (1.0, math.inf, True)
    train(given_steps([skipped] * 3), ones(3), average=average)
    assert average.state()["weight"].item() == 0
    train(given_steps([skipped, (1.0, 1.0, False)]), ones(2), average=average)
    assert average.state()["weight"].item() == 0.75  # (1 + 4) / (10 + 4) is more than 0.25


@pytest.mark.parametrize("where", ["step", "data"])
def test_what_raises_comes_after_the_rows_before_it(monkeypatch, where):
    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 1e9)

    def broken():
        yield from ones(3)
        raise OSError("no such picture")

    def run():
        if where == "data":
            return given_steps([1.0] * 9), broken()
        return given_steps([1.0] * 3 + [OSError("no such picture")]), iter(ones(9))

    step, micro_batches = run()
    position = Position()
    training = train_epoch(
        step,
        micro_batches,
        position,
        lr=0.1,
        schedule=Constant(),
        optimizer=sgd([nn.Parameter(torch.zeros(1))]),
    )
    assert [row.step for row in next(training)] == [1, 2, 3]
    assert position.step == 3
    with pytest.raises(OSError, match="no such picture"):
        next(training)
    assert position.step == 3


@pytest.mark.parametrize(
    "bad",
    [
        math.nan,
        math.inf,
        -math.inf,
        (1.0, math.nan, None),
        (1.0, math.inf, None),
        (1.0, math.inf, False),
        (math.nan, 1.0, True),
    ],
)
def test_the_row_that_failed_is_the_last_one(monkeypatch, bad):
    monkeypatch.setattr(readout, "READ_AFTER_SECONDS", 1e9)
    good = 1.0 if not isinstance(bad, tuple) else (1.0, 1.0, None if bad[2] is None else False)
    chunks, position = train(given_steps([good] * 5 + [bad] + [good] * 90), ones(90))
    [rows] = chunks
    assert len(rows) == position.step == position.batches == 6
    assert [failed(row, position) for row in rows] == [False] * 5 + [True]


def test_a_skipped_overflow_is_no_failure_but_fifty_in_a_row_are():
    overflow, fine = (1.0, math.inf, True), (1.0, 1.0, False)
    outs = [overflow] * (SKIPS_IN_A_ROW - 1) + [fine] + [overflow] * 70
    chunks, position = train(given_steps(outs), ones(120))
    rows = [row for chunk in chunks for row in chunk]
    assert len(rows) == SKIPS_IN_A_ROW + 50
    assert position.skips == SKIPS_IN_A_ROW == 50
    assert failed(rows[-1], position)
    assert [row.skipped for row in rows].count(False) == 1


def test_skips_go_on_counting_from_one_epoch_to_the_next():
    overflow = (1.0, math.inf, True)
    _, position = train(given_steps([overflow] * 30), ones(30))
    position.next_epoch()
    chunks, _ = train(given_steps([overflow] * 30), ones(30), position)
    assert sum(map(len, chunks)) == 20


@pytest.mark.parametrize("make", [sgd, adam])
def test_the_momentum_is_set_as_torch_does(make):
    optimizer = make([nn.Parameter(torch.zeros(1))])
    expected = OneCycle(10, make([nn.Parameter(torch.zeros(1))]))
    chunks, _ = train(
        given_steps([1.0] * 4), ones(4), lr=1.0, schedule=expected, optimizer=optimizer
    )
    group = optimizer.param_groups[0]
    assert (group["betas"][0] if "betas" in group else group["momentum"]) == expected.seen[3][1]
    assert [row.lr for rows in chunks for row in rows] == [rate for rate, _ in expected.seen[:4]]


def test_only_optimizers_built_with_a_momentum_get_one():
    weights = [nn.Parameter(torch.zeros(1))]
    plain = torch.optim.SGD(weights, lr=1.0)
    set_momentum(plain, 0.9)
    assert plain.param_groups[0]["momentum"] == 0
    still = torch.optim.Adam(weights, betas=(0.0, 0.99))
    set_momentum(still, 0.9)
    assert still.param_groups[0]["betas"] == (0.0, 0.99)
    adagrad = torch.optim.Adagrad(weights)
    set_momentum(adagrad, 0.9)
    assert not {"momentum", "betas"} & adagrad.param_groups[0].keys()
    moved = torch.optim.RMSprop(weights, momentum=0.9)
    for momentum in (0.0, 0.8):  # 0 is no end
        set_momentum(moved, momentum)
        assert moved.param_groups[0]["momentum"] == momentum
    adamw = torch.optim.AdamW(weights, betas=(0.9, 0.99))
    set_momentum(adamw, 0.85)
    assert adamw.param_groups[0]["betas"] == (0.85, 0.99)


def epoch(number, value, **metrics):
    losses = {"train_loss": 5.0, "validation_loss": value}
    return EpochRow(epoch=number, step=10 * number, lr=0.1, **losses, **metrics)


def observed(best, values):
    return [best.observe(epoch(i, value)) for i, value in enumerate(values, 1)]


def test_the_best_epoch_is_the_lowest_and_the_first_of_equals():
    best = BestTracker("validation_loss", higher=False)
    assert observed(best, [3.0, 2.0, 2.0, 2.5, 1.0]) == [True, True, False, False, True]
    assert (best.value, best.epoch, best.step, best.waited) == (1.0, 5, 50, 0)


def test_small_gains_are_best_but_patience_does_not_count_them():
    best = BestTracker("validation_loss", higher=False, min_delta=0.25)
    # against the last one that counted, 1.0: gains of 0.1, 0.2, 0.25 (not more), 0.3
    assert observed(best, [1.0, 0.9, 0.8, 0.75]) == [True] * 4
    assert (best.reference, best.waited, best.value) == (1.0, 3, 0.75)
    assert observed(best, [0.7])
    assert (best.reference, best.waited, best.value) == (0.7, 0, 0.7)


def test_more_may_be_better_and_nan_never_is():
    best = BestTracker("accuracy", higher=True)
    seen = [best.observe(epoch(i, 1.0, accuracy=a)) for i, a in enumerate([0.5, 0.4, 0.6], 1)]
    assert seen == [True, False, True]
    assert not best.observe(epoch(4, 1.0, accuracy=math.nan))
    assert not best.observe(epoch(5, 1.0, accuracy=math.inf))
    assert (best.value, best.epoch, best.waited) == (0.6, 3, 2)
    first = BestTracker("validation_loss", higher=False)
    assert observed(first, [math.nan, None, 2.0]) == [False, False, True]
    assert (first.value, first.waited) == (2.0, 0)
    train_loss = BestTracker("train_loss", higher=False)
    assert train_loss.observe(epoch(1, None))
    assert train_loss.value == 5.0


@given(
    st.lists(st.one_of(st.floats(-10, 10), st.just(math.nan)), max_size=30),
    st.floats(0, 2),
    st.booleans(),
)
def test_the_best_value_is_the_extreme_and_waiting_is_bounded(values, min_delta, higher):
    best = BestTracker("validation_loss", higher=higher, min_delta=min_delta)
    observed(best, values)
    finite = [v for v in values if not math.isnan(v)]
    assert best.value == ((max if higher else min)(finite) if finite else None)
    assert 0 <= best.waited <= len(values)
    if finite:
        assert values[best.epoch - 1] == best.value
        assert abs(best.value - best.reference) <= min_delta
