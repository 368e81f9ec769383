"""The step, by hand and against a plain PyTorch loop."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine.device import Runtime
from lrtool.engine.step import batch_loss, forward, make_step, rate_ratios, set_mode
from lrtool.errors import UserError

CPU = Runtime(torch.device("cpu"))


def line(weight=2.0):
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(weight)
    return model


def batch(*pairs):
    x, y = zip(*pairs, strict=True)
    return torch.tensor(x)[:, None], torch.tensor(y)[:, None]


def step_with(loss_fn):
    model = line()
    return make_step(model, loss_fn, torch.optim.SGD(model.parameters(), lr=1.0), CPU)


def test_one_sgd_update_by_hand():
    # y = w·x with w = 2 on (1, 1) and (2, 5): errors 1 and -1, MSE = (1 + 1) / 2 = 1,
    # dMSE/dw = 2/2 · (1·1 + (-1)·2) = -1, new weight = 2 - 0.1 · (-1) = 2.1
    model = line()
    step = make_step(model, F.mse_loss, torch.optim.SGD(model.parameters(), lr=1.0), CPU)
    out = step([batch((1.0, 1.0), (2.0, 5.0))], 0.1)
    assert out.loss.item() == 1.0
    assert model.weight.item() == pytest.approx(2.1, rel=1e-6)
    assert out.grad_norm is None
    assert out.skipped is None


def test_losses_of_unequal_micro_batches_are_those_of_one_batch():
    whole = batch((1.0, 1.0), (2.0, 5.0), (3.0, 1.0), (-1.0, 0.5), (0.5, 2.0))
    parts = [(whole[0][:3], whole[1][:3]), (whole[0][3:], whole[1][3:])]
    results = []
    for micro_batches in ([whole], parts):
        model = line()
        step = make_step(model, F.mse_loss, torch.optim.SGD(model.parameters(), lr=1.0), CPU)
        results.append((step(micro_batches, 0.01).loss.item(), model.weight.item()))
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_clipping_by_hand():
    # The gradient is -1 as above; its norm 1 is cut to 0.5: new weight = 2 + 0.1 · 0.5.
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = make_step(model, F.mse_loss, optimizer, CPU, clip_norm=0.5)
    out = step([batch((1.0, 1.0), (2.0, 5.0))], 0.1)
    assert out.grad_norm.item() == pytest.approx(1.0)
    assert model.weight.item() == pytest.approx(2.05, rel=1e-5)


def test_groups_keep_their_ratios_and_tensor_rates_stay_tensors():
    model = nn.Sequential(line(), line())
    tensor = torch.tensor(0.001)
    optimizer = torch.optim.Adam(
        [
            {"params": model[0].parameters(), "lr": tensor},
            {"params": model[1].parameters(), "lr": 0.01},
        ],
        capturable=False,
        foreach=False,
    )
    step = make_step(model, F.mse_loss, optimizer, CPU)
    step([batch((1.0, 1.0))], 0.5)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(0.5)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(5.0)


def test_ratios_come_from_what_the_user_chose():
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))], "lr": r} for r in (0.0, 0.2, 0.1)]
    )
    assert rate_ratios(optimizer) == [0.0, 1.0, 0.5]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)  # a warm-up's first rate
    assert rate_ratios(optimizer) == [0.0, 1.0, 0.5]
    still = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.0)
    assert rate_ratios(still) == [1.0]


def test_given_ratios_win():
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    make_step(model, F.mse_loss, optimizer, CPU, ratios=[10.0])([batch((1.0, 1.0))], 0.001)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_an_overflow_in_fp16_is_marked_and_changes_nothing():
    model = line()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    runtime = Runtime(torch.device("cpu"), torch.float16)
    step = make_step(model, F.mse_loss, optimizer, runtime, scaler=scaler)
    good = step([batch((1.0, 1.0))], 0.1)
    assert not good.skipped.item()
    moved = model.weight.item()
    assert moved == pytest.approx(1.8, rel=1e-3)
    bad = step([batch((3e4, -3e4))], 0.1)  # outputs of 54,000 and a gradient beyond 65,504
    assert bad.skipped.item()
    assert model.weight.item() == moved


def test_bf16_computes_in_bf16():
    seen = []
    model = line()
    model.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    runtime = Runtime(torch.device("cpu"), torch.bfloat16)
    step = make_step(model, F.mse_loss, torch.optim.SGD(model.parameters(), lr=1.0), runtime)
    step([batch((1.0, 1.0))], 0.1)
    assert seen == [torch.bfloat16]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        return self.scale * a + b


def test_batches_of_every_kind():
    x, y = torch.tensor([[1.0]]), torch.tensor([[4.0]])
    model = line()
    assert forward(model, (x, y))[0].item() == 2.0
    assert forward(model, {"anything": x, "labels": y})[0].item() == 2.0
    assert forward(TwoInputs(), (x, y, y))[0].item() == 6.0
    assert forward(TwoInputs(), {"a": x, "b": y, "targets": y})[0].item() == 6.0
    assert forward(TwoInputs(), ({"a": x, "b": y}, y))[0].item() == 6.0


class OfNodes(nn.Linear):
    """Takes a graph batch as it is."""

    def forward(self, graph):
        return super().forward(graph.x)


def test_a_graph_batch_has_its_targets_beside_its_inputs():
    torch.manual_seed(0)
    model, x, y = OfNodes(2, 3), torch.randn(4, 2), torch.tensor([0, 2, 1, 1])
    graph = SimpleNamespace(x=x, y=y)
    by_hand = F.cross_entropy(x @ model.weight.T + model.bias, y)
    assert batch_loss(model, F.cross_entropy, graph).item() == pytest.approx(by_hand.item())
    graph.y = torch.full((4,), -100)
    step = make_step(model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), CPU)
    before = model.weight.clone()
    out = step([graph], 0.1)
    assert (out.loss, out.denominator) == (0, 0)
    assert torch.equal(model.weight, before)


class OwnLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))


class Training(OwnLoss):
    def training_loss(self, batch):
        return self.p * batch


class Lightning(OwnLoss):
    def training_step(self, batch, index):
        return {"loss": self.p * batch + index}


class HuggingFace(OwnLoss):
    def forward(self, x, labels):
        return type("Output", (), {"loss": (self.p * x - labels).reshape(1)})()


def test_models_with_a_loss_of_their_own():
    two = torch.tensor(2.0)
    assert batch_loss(Training(), None, two).item() == 6.0
    assert batch_loss(Lightning(), None, two).item() == 6.0
    assert batch_loss(HuggingFace(), None, {"x": two, "labels": two}).item() == 4.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: batch_loss(line(), None, (1, 2)),
            (
                "no loss function was given, and Linear has no loss of its own: neither "
                "training_loss(batch), nor training_step(batch, index), nor .loss of what it "
                "returns"
            ),
        ),
        (
            lambda: batch_loss(line(), F.mse_loss, {"a": 1, "b": 2}),
            (
                "a batch with the keys a, b has no targets: one of targets, target, labels, "
                "label, y is expected, or a model with training_loss(batch)"
            ),
        ),
        (
            lambda: batch_loss(line(), F.mse_loss, torch.ones(3)),
            (
                "a batch must be (inputs, targets) or a mapping, not Tensor; "
                "a model with training_loss(batch) may take anything"
            ),
        ),
        (
            lambda: batch_loss(line(), lambda o, _t: o, batch((1.0, 1.0), (1.0, 2.0))),
            "the loss of a batch must be a scalar tensor, not shape (2, 1)",
        ),
        (
            lambda: batch_loss(line(), lambda _o, _t: 1.0, batch((1.0, 1.0))),
            "the loss of a batch must be a scalar tensor, not float",
        ),
        (
            lambda: step_with(lambda o, _t: o.detach().mean())([batch((1.0, 1.0))], 0.1),
            "no trainable parameter takes part in the loss, so nothing can be learned",
        ),
    ],
)
def test_what_cannot_be_a_loss(call, words):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == words


class ScheduleFree(torch.optim.Optimizer):
    """SGD of Defazio et al. 2024 (arXiv:2405.15682): gradients at y, evaluation at the mean x."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    def _move(self, weight):
        for group in self.param_groups:
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.data.lerp_(self.state[p]["z"], weight(group["beta"]))

    def train(self):
        if not self.param_groups[0]["train_mode"]:
            self._move(lambda beta: 1 - beta)  # y = beta x + (1 - beta) z
            self.param_groups[0]["train_mode"] = True

    def eval(self):
        if self.param_groups[0]["train_mode"]:
            self._move(lambda beta: 1 - 1 / beta)
            self.param_groups[0]["train_mode"] = False

    @torch.no_grad()
    def step(self):
        if not self.param_groups[0]["train_mode"]:
            raise RuntimeError("Optimizer was not in train mode when step is called")
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.detach().clone())
                beta, share = group["beta"], 1 / group["k"]
                x = (p - (1 - beta) * z) / beta
                z -= group["lr"] * p.grad
                x.lerp_(z, share)
                p.copy_(beta * x + (1 - beta) * z)


def test_an_optimizer_with_modes_trains_and_evaluates_in_its_own():
    """Against the recursion written out: z_k, their mean x_k, gradients at y_k."""
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]])
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    optimizer = ScheduleFree(model.parameters(), lr=0.05)
    step = make_step(model, F.mse_loss, optimizer, CPU)
    z = mean = at = 0.5
    for k in range(1, 6):
        step([(x, y)], 0.05)
        gradient = ((at - 3) * 2 + (2 * at - 5) * 4) / 2
        z -= 0.05 * gradient
        mean += (z - mean) / k
        at = 0.9 * mean + 0.1 * z
        assert model.weight.item() == pytest.approx(at, rel=1e-5)
        set_mode(optimizer, training=False)
        assert model.weight.item() == pytest.approx(mean, rel=1e-5)
        set_mode(optimizer, training=True)
        inner = SimpleNamespace(parts={"it": optimizer}, param_groups=optimizer.param_groups)
        around = SimpleNamespace(inner=[inner], param_groups=optimizer.param_groups)
        inner.outer = around
        set_mode(around, training=False)  # a wrapper without modes has those of what is inside
        assert model.weight.item() == pytest.approx(mean, rel=1e-5)
        set_mode(around, training=True)
    set_mode(torch.optim.SGD(model.parameters(), lr=0.1), training=False)  # has no modes
