"""The loss of a part of the data: weighted by samples, in evaluation mode, leaving no trace."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine import evaluation
from lrtool.engine.device import Runtime
from lrtool.engine.evaluation import Evaluation, evaluate, evaluating, of_all_ranks, show
from lrtool.errors import UserError

CPU = Runtime(torch.device("cpu"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4, 2)
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, x):
        return self.frozen(self.out(self.drop(self.norm(x))))


class Outputs:
    """A metric: the mean of the outputs, weighted by samples."""

    def __init__(self):
        self.seen = [torch.full((99, 2), 1e9)]  # of an evaluation before

    def update(self, outputs, targets):
        assert len(outputs) == len(targets)
        self.seen.append(outputs)

    def compute(self):
        return torch.cat(self.seen).mean().item() if self.seen else math.nan

    def reset(self):
        self.seen.clear()


def data(*sizes):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(sizes), 4, generator=generator)
    return list(zip(x.split(sizes), x[:, :2].split(sizes), strict=True))


def result(generator):
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as end:
            return end.value, seen


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("read_after", [1, 2, 256])
def test_the_loss_is_the_sum_over_samples_over_their_number(monkeypatch, read_after):
    monkeypatch.setattr(evaluation, "READ_AFTER_BATCHES", read_after)
    model, batches = Net(), data(5, 5, 1)
    found, seen = result(evaluate(model, F.mse_loss, batches, CPU, {"mean": Outputs()}))
    # by hand: dropout passes everything on, batch norm divides by √(1 + eps) of its first state
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    with torch.no_grad():
        expected = model.out(x / math.sqrt(1 + 1e-5))
    assert found.loss == pytest.approx(((expected - y) ** 2).mean().item(), rel=1e-5)
    assert found.metrics == pytest.approx({"mean": expected.mean().item()}, rel=1e-5)
    assert found.samples == 11
    assert seen == [5, 10, 11]
    # the mean over batches would be another number
    each = [F.mse_loss(model.eval()(x), y).item() for x, y in batches]
    assert abs(sum(each) / 3 - found.loss) > 1e-3


def test_nothing_is_left_behind():
    model = Net()
    before, state = modes(model), {k: v.clone() for k, v in model.state_dict().items()}
    assert before.count(False) == 1
    random = torch.get_rng_state()
    first, _ = result(evaluate(model, F.mse_loss, data(6, 3), CPU, {}))
    second, _ = result(evaluate(model, F.mse_loss, data(6, 3), CPU, {}))
    assert first == second
    assert modes(model) == before
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_modes_are_put_back_when_it_is_closed_early():
    model = Net()
    before = modes(model)
    generator = evaluate(model, F.mse_loss, data(3, 3), CPU, {})
    next(generator)
    assert not any(modes(model))
    generator.close()
    assert modes(model) == before


def test_modes_are_put_back_after_an_exception():
    model = Net()
    before = modes(model)

    def broken(_outputs, _targets):
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        result(evaluate(model, broken, data(3), CPU, {}))
    assert modes(model) == before
    generator = evaluate(model, F.mse_loss, data(3, 3), CPU, {})
    next(generator)
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())
    assert modes(model) == before
    with evaluating(model):
        model.extra = nn.Dropout()  # a module more does no harm
    assert modes(model)[: len(before)] == before


def test_no_samples_have_no_loss():
    found, seen = result(evaluate(Net(), F.mse_loss, [], CPU, {"mean": Outputs()}))
    assert math.isnan(found.loss)
    assert math.isnan(found.metrics["mean"])
    assert found.samples == 0
    assert not seen


def test_nan_is_not_hidden():
    batches = data(2, 2)
    batches[0][1][0, 0] = math.nan
    found, _ = result(evaluate(Net(), F.mse_loss, batches, CPU, {}))
    assert math.isnan(found.loss)


class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.calls = []

    def forward(self, x):
        self.calls.append("forward")
        return self.scale * x

    def training_loss(self, batch):
        self.calls.append("training_loss")
        return ((self(batch[0]) - batch[1]) ** 2).mean()


class OwnValidation(OwnLoss):
    def validation_loss(self, batch):
        assert not torch.is_grad_enabled()
        self.calls.append("validation_loss")
        return self.scale.detach() * len(batch[0])


def test_a_models_own_loss():
    batches = [(torch.ones(3, 1), torch.ones(3, 1)), (torch.ones(1, 1), torch.zeros(1, 1))]
    model = OwnLoss()
    found, _ = result(evaluate(model, None, batches, CPU, {}))
    # 2·1 - 1 = 1 for three samples, 2·1 - 0 = 2 for one
    assert found == Evaluation((3 * 1 + 1 * 4) / 4, 4, 4.0, {})
    assert model.calls == ["training_loss", "forward"] * 2


def test_a_models_own_validation_loss_wins_and_metrics_see_its_outputs():
    batches = [(torch.ones(3, 1), torch.ones(3, 1)), (torch.ones(1, 1), torch.zeros(1, 1))]
    model = OwnValidation()
    found, _ = result(evaluate(model, None, batches, CPU, {"mean": Outputs()}))
    assert found == Evaluation((3 * 6 + 1 * 2) / 4, 4, 4.0, {"mean": 2.0})
    assert model.calls == ["forward", "validation_loss"] * 2


def test_it_computes_in_the_precision_of_the_runtime():
    seen = []
    model = Net()
    model.out.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    runtime = Runtime(torch.device("cpu"), torch.bfloat16)
    result(evaluate(model, F.mse_loss, data(3), runtime, {}))
    assert seen == [torch.bfloat16]


class InOrder:
    """A metric that cannot be merged: the first outputs of batches, in order."""

    merges = False

    def __init__(self):
        self.seen = []

    def update(self, outputs, targets):
        assert len(outputs) == len(targets)
        self.seen.append(outputs[0, 0].item())

    def reset(self):
        self.seen.clear()


def test_a_metric_that_cannot_be_merged_sees_the_batches_of_all_ranks(in_ranks):
    batches = data(3, 4, 1, 2, 2)

    def run(ranks):
        metric, runtime = InOrder(), Runtime(torch.device("cpu"), ranks=ranks)
        for turn in range(3):
            own = batches[ranks.world_size * turn + ranks.rank :][:1]
            show([metric], own[0] if own else None, runtime)
        return metric.seen

    assert in_ranks(2, run) == [[outputs[0, 0].item() for outputs, _ in batches]] * 2


def test_only_a_batch_is_sent_of_a_large_tensor(in_ranks):
    large = torch.zeros(1000, 1000)

    def run(ranks):
        runtime = Runtime(torch.device("cpu"), ranks=ranks)
        [one, other] = of_all_ranks({"part": [large[ranks.rank : ranks.rank + 2]]}, runtime)
        return one["part"][0].untyped_storage().nbytes(), other["part"][0].shape

    assert in_ranks(2, run) == [(2 * 1000 * 4, (2, 1000))] * 2


def test_what_cannot_be_sent_is_an_error_in_words(in_ranks):
    def run(ranks):
        runtime = Runtime(torch.device("cpu"), ranks=ranks)
        with pytest.raises(UserError) as error:
            of_all_ranks((torch.ones(1), lambda: 0), runtime)
        return str(error.value)

    [one, other] = in_ranks(2, run)
    assert one == other
    assert one.startswith("outputs or targets cannot be sent to the other ranks: ")
    assert one.endswith("so return tensors, or make it a function, whose mean is taken")
