"""After the block everything is as it was, to the last bit and in the same objects."""

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lrtool.engine import preserve
from lrtool.engine.preserve import keep, preserved
from lrtool.errors import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 4, bias=False)
        self.tied = nn.Linear(8, 4, bias=False)
        self.tied.weight = self.last.weight
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen = self.seen + 1  # another tensor takes the buffer's place
        h = self.drop(torch.relu(self.norm(self.first(x))))
        return self.last(h) + self.tied(h)


def train(model, optimizer, steps):
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 4)
        loss = F.mse_loss(model(x), x) * random.random() + float(np.random.rand())  # noqa: NPY002, S311
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def snapshot(model, optimizer):
    return copy.deepcopy(
        (
            model.state_dict(),
            model.seen,
            optimizer.state_dict(),
            [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            [m.training for m in model.modules()],
            random.getstate(),
            torch.get_rng_state(),
            np.random.get_state()[1],  # noqa: NPY002
        )
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


OPTIMIZERS = [
    lambda p: torch.optim.Adam(p, lr=0.01),
    lambda p: torch.optim.SGD(p, lr=torch.tensor(0.1), momentum=0.9),
    lambda p: torch.optim.Adagrad(p, lr=0.1),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(make, warm, fails):
    model = Net()
    model.drop.eval()
    optimizer = make(list(model.parameters()))
    generator = torch.Generator().manual_seed(5)
    train(model, optimizer, warm)
    before = snapshot(model, optimizer)
    objects = [id(t) for t in [*model.parameters(), *model.buffers()]]
    group = optimizer.param_groups[0]
    own_state = generator.get_state()
    try:
        with preserved(model, optimizer, generators=[generator]):
            assert all(p.grad is None for p in model.parameters())
            model.train()
            optimizer.param_groups[0]["weight_decay"] = 0.5
            torch.randn(3, generator=generator)
            train(model, optimizer, 5)
            if fails:
                raise KeyboardInterrupt  # noqa: TRY301  (this is what is tested)
    except KeyboardInterrupt:
        assert fails
    assert same(before, snapshot(model, optimizer))
    assert objects == [id(t) for t in [*model.parameters(), *model.buffers()]]
    assert optimizer.param_groups[0] is group
    assert torch.equal(own_state, generator.get_state())


def test_training_after_it_is_training_alone():
    results = []
    for look in (False, True):
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        if look:
            with preserved(model, optimizer):
                train(model, optimizer, 7)
        losses = train(model, optimizer, 5)
        schedule.step()
        results.append((losses, train(model, optimizer, 5), schedule.get_last_lr()))
    assert results[0] == results[1]


def test_what_a_model_unfreezes_is_frozen_again():
    model = Net()
    first = next(model.parameters())
    first.requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(model.parameters())
    with preserved(model, optimizer):
        for p in model.parameters():
            p.requires_grad_(requires_grad=not p.requires_grad)
    assert [p.requires_grad for p in model.parameters()] == [
        p is not first for p in model.parameters()
    ]


def test_restart_begins_again_from_the_same_weights():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer, 2)
    runs = []
    with preserved(model, optimizer):
        restart = keep(model, optimizer)
        for _ in range(3):
            restart()
            torch.manual_seed(3)
            random.seed(3)
            np.random.seed(3)  # noqa: NPY002
            runs.append(train(model, optimizer, 4))
    assert runs[0] == runs[1] == runs[2]


def test_the_scaler_is_restored():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = scaler.state_dict()
    with preserved(model, optimizer, scaler=scaler):
        loss = scaler.scale(model(torch.randn(4, 4)).sum() * float("inf"))
        loss.backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 4.0
    assert scaler.state_dict() == before
    with preserved(model, optimizer, scaler=torch.amp.GradScaler("cpu", enabled=False)):
        assert optimizer.param_groups[0]["lr"] == 0.01


def test_lazy_modules_are_refused():
    model = nn.LazyLinear(3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with (
        pytest.raises(
            UserError, match="weight has no weights yet: run the model once on a batch first"
        ),
        preserved(model, optimizer),
    ):
        pass


class Stateful(nn.Module):
    """All that a forward pass may leave behind on a module."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.utils.weight_norm(nn.Linear(4, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.done = False
        self.average = torch.zeros(4)
        self.register_buffer("late", None)
        self.register_buffer("spread", torch.tensor(0.5).expand(4))

    def forward(self, x):
        if not self.done:  # initialised from the first batch, as in ActNorm
            self.scale.data.copy_(1 / x.std(0))
            self.done = True
            self.late = x.mean(0)
            self.register_buffer("later", x.std(0))
        self.average.mul_(0.9).add_(x.mean(0), alpha=0.1)
        self.newest = x
        return self.layer(x) * self.scale + self.spread


class Centres(nn.Module):
    """A loss with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return ((x - self.centre) ** 2).mean()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_attributes_late_buffers_and_the_losss_own_parameters():
    results = []
    for look in (False, True):
        model, loss_fn = Stateful(), Centres()
        optimizer = torch.optim.SGD([*model.parameters(), *loss_fn.parameters()], lr=0.1)

        def run(steps, model=model, loss_fn=loss_fn, optimizer=optimizer):
            losses = []
            for _ in range(steps):
                loss = loss_fn(model(torch.randn(8, 4) * 3))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        torch.manual_seed(2)
        if look:
            runs = []
            with preserved(model, optimizer, loss_fn=loss_fn):
                restart = keep(model, optimizer, loss_fn=loss_fn)
                for _ in range(2):
                    restart()
                    torch.manual_seed(2)
                    runs.append(run(3))
            assert runs[0] == runs[1]
            assert not model.done
            assert model.late is None
            assert not hasattr(model, "later")
            assert not hasattr(model, "newest")
            assert model.average.abs().sum() == 0
            assert loss_fn.calls == 0
            assert loss_fn.centre.abs().sum() == 0
        results.append(run(5))
    assert results[0] == results[1]


def test_an_interrupted_scaler_can_go_on():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with preserved(model, optimizer, scaler=scaler):
        scaler.scale(model(torch.randn(4, 4)).sum()).backward()
        scaler.unscale_(optimizer)
    scaler.scale(model(torch.randn(4, 4)).sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_tensors_whose_data_were_replaced():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    value, pointer = model.weight.detach().clone(), model.weight.data_ptr()
    with preserved(model, optimizer):
        model.weight.data = torch.ones(7)
    assert torch.equal(model.weight, value)
    assert model.weight.data_ptr() == pointer


def test_one_failure_does_not_keep_the_rest_from_being_restored(monkeypatch):
    def broken(_scaler):
        def restore():
            raise ArithmeticError("broken")

        return restore

    monkeypatch.setattr(preserve, "_keep_scaler", broken)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(torch.ones(1, 4)).sum().backward()
    gradient, value = model.weight.grad, model.weight.detach().clone()
    state = torch.get_rng_state()
    block = preserved(model, optimizer, scaler=torch.amp.GradScaler("cpu"))
    block.__enter__()
    train(model, optimizer, 1)
    optimizer.param_groups[0]["lr"] = 5.0
    with pytest.raises(ArithmeticError, match="broken"):
        block.gen.close()
    assert model.weight.grad is gradient
    assert torch.equal(model.weight, value)
    assert torch.equal(state, torch.get_rng_state())
    assert optimizer.param_groups[0]["lr"] == 0.01


class Lookahead(torch.optim.Optimizer):
    """Zhang et al. 2019: a fast optimizer inside, slow weights beside it, a counter in a list."""

    def __init__(self, fast, every=2):
        self.fast = fast
        self.every = every
        self.steps = [0]
        self.slow = [p.detach().clone() for group in fast.param_groups for p in group["params"]]
        self.defaults = fast.defaults
        self.state = {}

    @property
    def param_groups(self):
        return self.fast.param_groups

    def zero_grad(self, **options):
        self.fast.zero_grad(**options)

    def step(self):
        self.fast.step()
        self.steps[0] += 1
        if self.steps[0] % self.every == 0:
            weights = [p for group in self.fast.param_groups for p in group["params"]]
            for slow, weight in zip(self.slow, weights, strict=True):
                slow.lerp_(weight.detach(), 0.5)
                weight.data.copy_(slow)


class Preconditioned(torch.optim.SGD):
    """Keeps an object of its own for each parameter, as Shampoo does, and a NumPy array."""

    class Factor:
        def __init__(self, p):
            self.left = torch.zeros_like(p)

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.norms = np.zeros(3)

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            factor = self.state[p].setdefault("factor", self.Factor(p))
            factor.left += p.grad**2
            p.sub_(self.param_groups[0]["lr"] * p.grad / (1 + factor.left.sqrt()))
            self.norms += float(p.grad.norm())


WRAPPED = [
    lambda p: Lookahead(torch.optim.Adam(p, lr=0.01)),
    lambda p: Lookahead(Lookahead(torch.optim.SGD(p, lr=0.1, momentum=0.9))),
    lambda p: Preconditioned(p, lr=0.1),
]


@pytest.mark.parametrize("make", WRAPPED)
def test_what_is_inside_an_optimizer_is_put_back_too(make):
    results = []
    for look in (False, True):
        model = Net()
        optimizer = make(list(model.parameters()))
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        train(model, optimizer, 3)
        if look:
            with preserved(model, optimizer):
                for group in optimizer.param_groups:
                    group["lr"] = 1e4
                train(model, optimizer, 5)
        results.append(train(model, optimizer, 5))
    assert results[0] == results[1]


def test_the_second_moment_of_an_optimizer_inside_another_one_is_put_back():
    model = nn.Linear(4, 4)
    fast = torch.optim.Adam(model.parameters(), lr=0.01)
    optimizer = Lookahead(fast)
    train(model, optimizer, 3)
    moment = fast.state[model.weight]["exp_avg_sq"]
    value = moment.clone()
    with preserved(model, optimizer):
        optimizer.param_groups[0]["lr"] = 100.0
        train(model, optimizer, 5)
        assert not torch.equal(moment, value)
    assert fast.state[model.weight]["exp_avg_sq"] is moment
    assert torch.equal(moment, value)


def test_several_states_can_be_kept_at_once():
    """As for the candidates of a race that take turns with one model."""
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    start = keep(model, optimizer)

    def leg(seed, steps=3):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        return train(model, optimizer, steps)

    alone = [leg(1), leg(2)]
    start()
    assert leg(1) == alone[0]
    half_way = keep(model, optimizer)
    start()
    leg(9, 5)
    half_way()
    assert leg(2) == alone[1]
    half_way()
    assert leg(2) == alone[1]


def test_what_cannot_be_put_back_is_refused_before_anything_is_touched():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.warmup = (0.1 * i for i in range(10))
    gradient = model.weight.grad = torch.ones(4, 4)
    words = r"^optimizer\.warmup is a generator, which cannot be put back after a search; keep a "
    with pytest.raises(UserError, match=words), preserved(model, optimizer):
        pytest.fail("the block must not begin")
    assert model.weight.grad is gradient
    assert next(optimizer.warmup) == 0.0


def test_a_model_that_an_optimizer_knows_is_kept_with_all_its_buffers():
    model, teacher = nn.Linear(4, 4), nn.BatchNorm1d(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.teacher = teacher
    with preserved(model, optimizer):
        teacher(torch.randn(8, 4))
        assert teacher.num_batches_tracked == 1
    assert teacher.num_batches_tracked == 0


class Slotted:
    """Holds its state in slots."""

    __slots__ = ("count", "total")

    def __init__(self):
        self.count, self.total = 0, torch.zeros(())


class Random(torch.optim.SGD):
    """Adds noise from generators of its own, counts in slots, and works through a bound method."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        inner = torch.optim.Adam(self.param_groups[0]["params"], lr=0.01)
        self.numpy, self.old = np.random.default_rng(1), np.random.RandomState(2)
        self.python, self.torch = random.Random(3), torch.Generator().manual_seed(4)  # noqa: S311
        self.slots, self.bytes = Slotted(), bytearray(b"a")
        self.inner_step = inner.step

    @torch.no_grad()
    def step(self):
        noise = self.numpy.normal() + self.old.normal() + self.python.gauss(0, 1)
        noise += float(torch.randn((), generator=self.torch))
        self.slots.count += 1
        self.slots.total += noise
        self.bytes[0] += 1
        self.inner_step()
        for p in self.param_groups[0]["params"]:
            p.add_(0.01 * noise / self.slots.count)


def test_generators_slots_and_what_is_behind_a_method_are_put_back():
    results = []
    for look in (False, True):
        model = Net()
        optimizer = Random(list(model.parameters()), lr=0.1)
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        train(model, optimizer, 3)
        if look:
            with preserved(model, optimizer):
                train(model, optimizer, 5)
        results.append((train(model, optimizer, 5), optimizer.slots.count, bytes(optimizer.bytes)))
    assert results[0] == results[1]
    assert results[0][1:] == (8, b"i")


def test_an_optimizer_in_many_wrappers_is_put_back():
    model = nn.Linear(4, 4)
    fast = optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(6):
        optimizer = Lookahead(optimizer)
    train(model, optimizer, 3)
    before = copy.deepcopy(fast.state_dict())
    with preserved(model, optimizer):
        train(model, optimizer, 4)
    assert same(before, fast.state_dict())


def test_a_moving_average_in_a_hook_is_put_back_and_a_list_that_watches_is_not():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average, seen = torch.optim.swa_utils.AveragedModel(model), []

    def follow(*_):
        average.update_parameters(model)
        seen.append(1)

    optimizer.register_step_post_hook(follow)
    train(model, optimizer, 2)
    with preserved(model, optimizer):
        train(model, optimizer, 3)
    assert average.n_averaged == 2
    assert len(seen) == 5


def test_the_data_of_a_trainer_are_not_copied():
    """A hook may lead to whatever trains: its loaders and data sets are left alone."""

    class Trainer:
        def __init__(self):
            samples = torch.utils.data.TensorDataset(torch.zeros(4))
            self.loader = torch.utils.data.DataLoader(samples)
            self.steps = 0

        def follow(self, *_):
            self.steps += 1
            self.loader.dataset.tensors[0].add_(1)

    model, trainer = nn.Linear(4, 4), Trainer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(trainer.follow)
    with preserved(model, optimizer):
        train(model, optimizer, 2)
    assert trainer.steps == 0
    assert trainer.loader.dataset.tensors[0].tolist() == [2.0] * 4


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    decay: float = 0.1


class OneSlot:
    __slots__ = "count"  # noqa: PLC0205  (it may be a string)


def test_frozen_settings_and_a_single_slot_do_no_harm():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.settings, optimizer.counter = Settings(), OneSlot()
    optimizer.counter.count = 1
    with preserved(model, optimizer):
        optimizer.counter.count = 2
        object.__setattr__(optimizer.settings, "decay", 0.2)
    assert optimizer.counter.count == 1
    assert optimizer.settings == Settings(0.1)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_models_of_torchscript():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model = torch.jit.script(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with preserved(model, optimizer):
        model(torch.randn(8, 2)).sum().backward()
        optimizer.step()
        assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
        assert model.state_dict()["1.num_batches_tracked"] == 1
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
