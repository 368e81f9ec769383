"""The moving average of the weights: by hand, and against torch's own."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lrtool.engine.ema import MovingAverage


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.last.weight
        self.register_buffer("table", torch.ones(2), persistent=False)

    def forward(self, x):
        return self.tied(self.last(self.norm(self.first(x))))


def shake(model):
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor))
        model(torch.randn(8, 3))  # moves batch norm's statistics, and counts


def test_with_its_warm_up_by_hand():
    model = nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.3)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = MovingAverage(model, 0.3)
    expected, seen = 0.0, []
    for n, weight in enumerate([1.0, -2.0, 4.0, 8.0, 3.0]):
        with torch.no_grad():
            model.weight.fill_(weight)
        average.update()
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3][n]  # (1 + n) / (10 + n), then 0.3
        expected = decay * expected + (1 - decay) * weight
        seen.append(average.state()["weight"].item())
        assert seen[-1] == pytest.approx(expected, rel=1e-6)
    assert seen[0] == pytest.approx(0.9)
    assert average.updates == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_skipped_step_leaves_it_as_it_is_and_is_counted(dtype):
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.9)
    nn.init.ones_(model.weight)
    skipped, made = torch.tensor([True, False])
    average.update(skipped)
    assert average.state()["weight"].item() == 0
    average.update(made)  # its decay is (1 + 1) / (10 + 1)
    assert average.state()["weight"].item() == pytest.approx(9 / 11, rel=2**-8)
    assert average.updates == 2


def test_after_its_warm_up_it_is_torchs():
    model = Net()
    average = MovingAverage(model, 0.9)
    average.load(average.state(), updates=1000)  # (1 + 1000) / (10 + 1000) > 0.9
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # its first update is a copy
    for _ in range(20):
        shake(model)
        average.update()
        theirs.update_parameters(model)
    state = average.state()
    found = dict([*theirs.module.named_parameters(), *theirs.module.named_buffers()])
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, found[name].detach(), rtol=1e-5, atol=1e-6)


def test_tied_weights_are_averaged_once_and_counts_not_at_all():
    state = MovingAverage(Net(), 0.9).state()
    assert set(state) == {
        "first.weight",
        "first.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "last.weight",
        "table",
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_has_the_average_inside_the_block_and_its_own_after_it(fails):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = MovingAverage(model, 0.9)
    shake(model)
    average.update()
    shake(model)
    own = copy.deepcopy(model.state_dict())
    expected = {name: tensor.clone() for name, tensor in average.state().items()}
    live = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    averaged = {name: tensor.data_ptr() for name, tensor in average.state().items()}
    objects = [id(p) for p in model.parameters()]
    try:
        with average.in_place():
            for name, tensor in expected.items():
                held = dict([*model.named_parameters(), *model.named_buffers()])[name]
                assert torch.equal(held, tensor)
                assert held.data_ptr() == averaged[name]  # nothing was copied
            assert model.tied.weight is model.last.weight
            assert torch.equal(model.norm.num_batches_tracked, own["norm.num_batches_tracked"])
            if fails:
                raise KeyboardInterrupt  # noqa: TRY301  (this is what is tested)
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())
    assert {name: t.data_ptr() for name, t in model.state_dict().items()} == live
    assert all(torch.equal(expected[name], t) for name, t in average.state().items())
    assert [id(p) for p in model.parameters()] == objects
    model(torch.randn(8, 3)).sum().backward()  # the optimizer still moves what the model uses
    before = model.first.weight.detach().clone()
    optimizer.step()
    average.update()
    assert not torch.equal(before, model.first.weight)
    torch.testing.assert_close(
        average.state()["first.weight"],
        torch.lerp(expected["first.weight"], model.first.weight.detach(), 9 / 11),  # 1 - 2 / 11
    )


def test_it_goes_on_from_what_was_kept():
    models = [Net(), Net()]
    averages = [MovingAverage(model, 0.999) for model in models]
    torch.manual_seed(1)
    for _ in range(3):
        shake(models[0])
        averages[0].update()
    models[1].load_state_dict(models[0].state_dict())
    averages[1].load(copy.deepcopy(averages[0].state()), averages[0].updates)
    for model, average in zip(models, averages, strict=True):
        torch.manual_seed(2)
        shake(model)
        average.update()
    first, second = (average.state() for average in averages)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert averages[0].updates == averages[1].updates == 4


class Centred(nn.Module):
    """Gives its buffer a new tensor at each step, as DINO does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(2))

    def forward(self, x):
        self.centre = 0.5 * self.centre + 0.5 * x.mean(0)
        return x - self.centre


def test_a_buffer_that_is_replaced_is_still_averaged():
    model = Centred()
    average = MovingAverage(model, 0.5)
    model(torch.full((3, 2), 8.0))  # the centre is 4, the first decay 0.1
    average.update()
    torch.testing.assert_close(average.state()["centre"], torch.full((2,), 0.9 * 4))
    with average.in_place():
        torch.testing.assert_close(model.centre, torch.full((2,), 0.9 * 4))
    assert model.centre.tolist() == [4.0, 4.0]


def test_a_buffer_that_is_not_finite_or_changes_its_shape_is_taken_as_it_is():
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
            self.register_buffer("cache", torch.zeros(1))

    model = Masked()
    average = MovingAverage(model, 0.5)
    assert average.state().keys() == {"weight", "bias", "cache"}
    model.cache = torch.ones(2)
    average.update()
    assert average.state().keys() == {"weight", "bias"}
    with average.in_place():
        assert model.mask.tolist() == [0.0, -math.inf]
        assert model.cache.tolist() == [1.0, 1.0]
    other = MovingAverage(Masked(), 0.5)
    other.load(average.state(), 1)
    assert other.state().keys() == {"weight", "bias"}
