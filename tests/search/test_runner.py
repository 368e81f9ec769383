"""Candidates that take turns, each as if it were alone."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine.device import Runtime
from lrtool.engine.randomness import random_states
from lrtool.engine.step import StepOut, make_step
from lrtool.engine.stopwatch import Stopwatch
from lrtool.errors import UserError
from lrtool.report.records import StepRow
from lrtool.search.runner import Runner, advance, held_out_losses
from lrtool.search.subject import Trainee

CPU = Runtime(torch.device("cpu"))
BATCHES = 7  # of an epoch


class Falling:
    """Falls with each step and each epoch."""

    def factor(self, step, epoch):
        return 1 / (1 + step) + 0.1 * epoch

    def momentum(self, step):
        return 0.9 - 0.01 * step


def batch(epoch, index):
    generator = torch.Generator().manual_seed(100 * epoch + index)
    x = torch.randn(16, 8, generator=generator)
    return x, x[:, :3].argmax(1)


class Given:
    """A subject that trains what it was given, as often as it is asked."""

    runtime = CPU

    def __init__(self, trainee):
        self.trainee = trainee

    def fresh(self, _attempt):
        torch.manual_seed(0)
        torch.rand(100)  # as if building had drawn numbers
        return self.trainee

    def rest(self):
        return lambda: None

    def batches(self, _attempt, epoch, skip):
        return ([batch(epoch, index)] for index in range(skip, BATCHES))


def runner(number, lr, model=None, step=None, schedule=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    step = step or make_step(model, F.cross_entropy, optimizer, CPU)
    subject = Given(Trainee(model, F.cross_entropy, optimizer, step, ()))
    one = Runner(subject, 0, number, lr, schedule or Falling())
    one.begin()
    return one


def go(one, steps):
    return [row for rows in advance(one, steps, Stopwatch()) for row in rows]


def plain(lr, steps):
    """A loop that anyone could write; the dropout draws from torch's global state."""
    made = runner(0, lr)
    model, optimizer, losses = made.trainee.model, made.trainee.optimizer, []
    for index in range(steps):
        number, step = divmod(index, BATCHES)
        x, y = batch(number, step)
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 / (1 + index) + 0.1 * number)
            group["momentum"] = 0.9 - 0.01 * index
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("rungs", [(5, 20), (7, 20), (13, 14, 20), (20,), (1, 2, 3, 20)])
def test_candidates_that_take_turns_train_like_plain_loops_to_the_last_bit(rungs):
    runners = [runner(0, 0.03), runner(1, 0.3), runner(2, 0.1)]
    rows = {0: [], 1: [], 2: []}
    for rung in rungs:
        for each in runners:
            torch.rand(3)  # what happens between turns is nobody's business
            rows[each.number] += go(each, rung)
    for each in runners:
        losses = [row.loss for row in each.rows]
        assert losses == plain(each.lr, 20)
        assert rows[each.number] == each.rows
        assert [row.step for row in each.rows] == [*range(1, 21)]
        assert [row.samples for row in each.rows] == [16] * 20
        assert not each.broken


def test_measuring_a_candidate_leaves_it_as_it_is():
    states = random_states()
    examples = [batch(9, index) for index in range(3)]
    kept = copy.deepcopy(examples)
    one = runner(0, 0.1)
    go(one, 5)
    before = copy.deepcopy(one.trainee.model.state_dict())
    first, second = (held_out_losses(one, examples, states) for _ in range(2))
    assert first == second
    assert all(
        torch.equal(before[name], value) for name, value in one.trainee.model.state_dict().items()
    )
    assert one.trainee.model.training
    go(one, 20)
    assert [row.loss for row in one.rows] == plain(0.1, 20)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(examples, kept, strict=True))


def test_a_measure_is_the_mean_loss_of_each_batch_in_evaluation_mode():
    one = runner(0, 0.1)
    go(one, 5)
    examples = [batch(9, 0), batch(9, 1)]
    found = held_out_losses(one, examples, random_states())
    one.trainee.model.eval()
    expected = [F.cross_entropy(one.trainee.model(x), y).item() for x, y in examples]
    assert found == expected


class Noisy(nn.Linear):
    """Draws numbers while it is evaluated, and writes into its inputs."""

    def forward(self, x):
        x += 1
        return super().forward(x) + torch.randn(3)


def test_all_candidates_are_measured_with_the_same_random_numbers():
    examples, states = [batch(9, 0)], random_states()
    model = Noisy(8, 3)
    one, two = runner(0, 0.1, model), runner(1, 0.1, copy.deepcopy(model))
    assert held_out_losses(one, examples, states) == held_out_losses(two, examples, states)
    assert torch.equal(examples[0][0], batch(9, 0)[0])


def given_losses(losses):
    left = iter(losses)

    def step(_batches, _lr):
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return StepOut(torch.tensor(value), None, None)

    return step


def test_a_loss_that_is_not_finite_ends_a_candidate():
    one = runner(0, 0.1, step=given_losses([2.0, 1.9, math.nan, 5.0, 5.0]))
    rows = go(one, 5)
    assert [row.step for row in rows] == [1, 2, 3]
    assert one.broken
    assert go(one, 5) == []


def test_an_exception_after_divergence_ends_a_candidate_and_before_it_the_race():
    losses = [2.0 - i / 100 + 0.01 * (-1) ** i for i in range(10)] + [50.0] * 4
    one = runner(0, 0.1, step=given_losses([*losses, ValueError("outputs above 1")]))
    rows = go(one, 20)
    assert [row.loss for row in rows] == pytest.approx(losses)
    assert one.broken
    two = runner(0, 0.1, step=given_losses([*losses[:10], ValueError("mine")]))
    with pytest.raises(ValueError, match="mine"):
        go(two, 20)
    three = runner(0, 0.1, step=given_losses([*losses, UserError("the user's")]))
    with pytest.raises(UserError, match="the user's"):
        go(three, 20)


class Fragile(nn.Linear):
    def forward(self, x):
        if not self.training:
            raise ValueError("weights beyond all bounds")
        return super().forward(x)


def test_a_model_that_diverged_weights_break_in_evaluation_measures_nan():
    one = runner(0, 0.1, Fragile(8, 3))
    with pytest.raises(ValueError, match="beyond"):
        held_out_losses(one, [batch(9, 0)], random_states())
    losses = [2.0] * 10 + [50.0 + i for i in range(10)]
    one.rows = [
        StepRow(i + 1, 1, 0.1, loss, 16, None, skipped=False) for i, loss in enumerate(losses)
    ]
    [found] = held_out_losses(one, [batch(9, 0)], random_states())
    assert math.isnan(found)
