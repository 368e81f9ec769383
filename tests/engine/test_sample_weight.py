"""Weights of samples: the weighted mean of the losses, by hand and against torch's own."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.components.losses import LOSSES, build_loss
from lrtool.config.schema import LossConfig
from lrtool.engine.denominator import reduction_of
from lrtool.engine.device import Runtime
from lrtool.engine.evaluation import evaluate
from lrtool.engine.sample_weight import unweighted
from lrtool.engine.step import batch_loss, forward, make_step
from lrtool.errors import UserError

CPU = Runtime(torch.device("cpu"))


class One(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, outputs)

    def forward(self, x):
        return self.layer(x)


class Two(One):
    def forward(self, x, y=None):
        return self.layer(x if y is None else x + y)


class Given(nn.Module):
    """Outputs are the inputs."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.factor


def result(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


X = torch.randn(7, 2, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, -100, 2, 1])
W = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0, 1.5, 4.0])


def test_the_mean_of_squares_with_weights_by_hand():
    # errors 1, 2, 3 with weights 1, 0, 2: (1·1 + 0·4 + 2·9) / 3
    batch = (torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 0.0, 2.0]))
    assert batch_loss(Given(), F.mse_loss, batch).item() == pytest.approx(19 / 3)
    assert reduction_of(F.mse_loss, Given()).denominator(batch) == 3


@pytest.mark.parametrize(
    "loss_fn",
    [
        F.cross_entropy,
        build_loss(LossConfig(name="cross_entropy", args={"weight": [1.0, 2.0, 3.0]}), []),
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), ignore_index=1),
        functools.partial(F.cross_entropy, label_smoothing=0.2),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
)
def test_whole_weights_are_repeated_samples(loss_fn):
    counts = torch.tensor([1, 2, 0, 3, 1, 2, 1])
    model, y = One(), torch.where(Y < 0, reduction_of(loss_fn).ignored, Y)
    expected = loss_fn(model(X.repeat_interleave(counts, 0)), y.repeat_interleave(counts))
    for batch in ((X, y, counts.float()), {"x": X, "y": y, "sample_weight": counts[:, None] * 1.0}):
        assert batch_loss(model, loss_fn, batch).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_weights_change_no_loss(name):
    entry = LOSSES[name]
    outputs = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    targets = {
        "classes": torch.arange(6) % 4,
        "signs": torch.ones(6, 4),
        "label sets": torch.tensor([[0, 2, -1, -1]]).repeat(6, 1),
    }.get(entry.takes, torch.rand(6, 4, generator=torch.Generator().manual_seed(1)))
    if entry.outputs == "log-probabilities":
        outputs = outputs.log()
    loss_fn = build_loss(LossConfig(name=name), [])
    weighted = batch_loss(Given(), loss_fn, (outputs, targets, torch.full((6,), 0.5)))
    assert weighted.item() == pytest.approx(loss_fn(outputs, targets).item(), rel=1e-5)


def test_tokens_have_the_weight_of_their_sequence():
    outputs = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    labels = torch.tensor([[0, 1, -100, -100, -100], [3, 2, 1, 0, -100], [1, 1, 1, 1, 1]])
    weights = torch.tensor([2.0, 1.0, 0.5])
    each = F.cross_entropy(outputs, labels, reduction="none")
    expected = (each * weights[:, None]).sum() / (2 * 2 + 1 * 4 + 0.5 * 5)
    for loss_fn in (F.cross_entropy, build_loss(LossConfig(name="cross_entropy"), [])):
        found = batch_loss(Given(), loss_fn, (outputs, labels, weights))
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_batches_have_the_loss_and_the_update_of_all_at_once():
    losses, weights = [], []
    for sizes in ([7], [3, 4], [1] * 7):
        batches = list(zip(X.split(sizes), Y.split(sizes), W.split(sizes), strict=True))
        model = One()
        losses.append(result(evaluate(model, F.cross_entropy, batches, CPU, {})).loss)
        step = make_step(model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1.0), CPU)
        losses.append(step(batches, 0.5).loss.item())
        weights.append(model.layer.weight.detach())
    assert losses == [pytest.approx(losses[0], rel=1e-6)] * 6
    for each in weights[1:]:
        torch.testing.assert_close(each, weights[0])


def test_a_batch_of_weight_0_changes_nothing():
    model = One()
    step = make_step(model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1.0), CPU)
    out = step([(X, Y, torch.zeros(7))], 0.5)
    assert (out.loss.item(), out.denominator) == (0, 0)
    assert torch.equal(model.layer.weight, One().layer.weight)


def test_three_parts_are_two_inputs_where_the_model_takes_two():
    y = torch.ones(7)
    assert unweighted(Two(), (X, X, y)) == ((X, X, y), None)
    outputs, targets = forward(Two(), (X, X, y))
    assert torch.equal(outputs, Two()(X, X))
    assert targets is y


class Weighing(One):
    def forward(self, x, sample_weight):
        return self.layer(x) * sample_weight[:, None]


def test_a_model_may_take_the_weights_itself():
    batch = {"x": X, "y": Y, "sample_weight": W}
    assert unweighted(Weighing(), batch) == (batch, None)
    assert torch.equal(forward(Weighing(), batch)[0], Weighing()(X, W))


@pytest.mark.parametrize("third", [W[:3], W.long(), torch.ones(7, 2), ["a"] * 7])
def test_a_third_part_that_is_no_weight_is_explained(third):
    with pytest.raises(UserError) as caught:
        batch_loss(One(), F.cross_entropy, (X, Y, third))
    assert str(caught.value) == (
        "a batch has three parts, but the model's forward takes one input: a third part after "
        "(inputs, targets) is a weight for each sample, floats (N,); other inputs need a forward "
        "that takes them"
    )
    with pytest.raises(UserError, match=r"^sample_weight must be floats, one for each sample"):
        batch_loss(One(), F.cross_entropy, {"x": X, "y": Y, "sample_weight": third})


def test_a_loss_of_the_users_own_cannot_be_weighted():
    with pytest.raises(UserError, match=r"weights of samples, which need a loss of torch"):
        batch_loss(One(), lambda outputs, _: outputs.mean(), (X, Y, W))
