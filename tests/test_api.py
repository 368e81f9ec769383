"""`lrtool.find_lr` on objects that the caller has: what it finds, and that it leaves no trace."""

import base64
import copy
import itertools
import json
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lrtool
from lrtool.engine import readout
from lrtool.errors import DataError, LrtoolWarning, UserError
from lrtool.show import words


def data(samples=256):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 8, generator=generator)
    return x, (x @ torch.randn(8, 3, generator=generator)).argmax(1)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3)
    )


def loader(**options):
    return DataLoader(TensorDataset(*data()), batch_size=32, shuffle=True, **options)


def train(model, optimizer, batches, epochs=3):
    """A plain loop: its losses and final weights."""
    losses = []
    for _ in range(epochs):
        for x, y in batches:
            loss = F.cross_entropy(model(x), y) * (1 + 0.01 * random.random())  # noqa: S311
            loss = loss + 0.01 * float(np.random.rand())  # noqa: NPY002
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, [p.detach().clone() for p in model.parameters()], [*model.buffers()]


def test_it_finds_a_rate_that_trains():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=150, repeats=2)
    assert 1e-3 < result.lr < 0.5
    low, high = result.interval
    assert low <= result.lr <= high
    assert result.verdict in {"confident", "uncertain"}
    assert len(result.sweeps) == 2
    assert result.sweeps[0].loss != result.sweeps[1].loss  # other batches
    assert result.sweeps[0].lr[0] == 1e-7
    assert len(result.curve.lr) == len(result.curve.loss)
    for group in optimizer.param_groups:
        group["lr"] = result.lr
    losses, _, _ = train(model, optimizer, loader(), epochs=10)
    assert losses[-1] < 0.35


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_training_after_it_is_bit_identical_to_training_alone(seeded, workers):
    results = []
    for look in (False, True):
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(5) if seeded else None
        batches = loader(generator=generator, num_workers=workers)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        losses, _, _ = train(model, optimizer, batches, epochs=1)
        if look:
            found = lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=40, repeats=2)
            assert found.report()["trials"] is not None
        results.append((losses, *train(model, optimizer, batches)))
    alone, after = results
    assert alone[:2] == after[:2]
    for one, other in zip([*alone[2], *alone[3]], [*after[2], *after[3]], strict=True):
        assert torch.equal(one, other)


def test_a_schedule_counts_by_its_mean_where_the_length_is_not_said():
    def found(**said):
        model = net()
        optimizer = torch.optim.AdamW(model.parameters())
        torch.manual_seed(1)
        batches = iter(list(loader()) * 60)  # of unknown number
        return lrtool.find_lr(model, optimizer, F.cross_entropy, batches, **said)

    constant, cosine = found(), found(schedule="cosine")
    assert cosine.lr > 1.5 * constant.lr
    assert cosine.lr == found(schedule="cosine", for_steps=300).lr


def test_state_is_restored_after_an_exception_too():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 20:
                raise KeyError("mine")
            return self.net(x)

    model = Fragile().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with pytest.raises(KeyError, match="mine"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert not model.training
    assert not optimizer.state
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(p.grad is None for p in model.parameters())


def test_gradients_that_were_there_are_there_again():
    model = net()
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    before = [p.grad for p in model.parameters()]
    values = [gradient.clone() for gradient in before]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=30)
    for parameter, gradient, value in zip(model.parameters(), before, values, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, value)


def one_shot():
    x, y = data(96)
    for i in range(3):
        yield x[32 * i : 32 * (i + 1)], y[32 * i : 32 * (i + 1)]


class Pairs(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        x, y = data(96)
        return {"x": x[index], "labels": y[index]}


@pytest.mark.parametrize(
    "batches",
    [one_shot, lambda: list(one_shot()), lambda: DataLoader(Pairs(), batch_size=32)],
    ids=["generator", "list", "mappings"],
)
def test_loaders_shorter_than_the_sweep(batches):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, batches(), steps=60, start=1e-5)
    assert len(result.sweeps[0].loss) > 40


def test_rates_of_groups_keep_their_ratio_and_come_back():
    model = net()
    seen = []
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": 0.2},
            {"params": model[4].parameters(), "lr": 0.02},
        ]
    )
    model.register_forward_hook(
        lambda *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), start=1e-4, end=1.0, steps=20)
    assert seen[0] == [0.2, 0.02]  # a look at the first batch
    first = next(rates for rates in seen[1:] if rates[0] != 1.0)  # the first update's direction
    assert first == pytest.approx([1e-4, 1e-5])  # the first step at the first rate
    assert all(slow == pytest.approx(fast / 10) for fast, slow in seen)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.02]


def test_whole_numbers_are_rates_too():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), end=1, steps=20)
    assert result.sweeps[0].lr[-1] == 1


def test_a_loss_that_is_nan_from_the_start_is_no_suggestion():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = lrtool.find_lr(model, optimizer, lambda o, _t: o.mean() * math.nan, loader(), steps=30)
    assert result.lr is None
    assert result.interval is None
    assert result.verdict == "none"
    assert result.reason
    assert result.advice
    assert result.sweeps[0].stop_reason == "nan"
    assert result.report()["status"] == "no_suggestion"


def test_report_and_plot(tmp_path):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), schedule="cosine", for_steps=500
    )
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["suggestion"]["lr"] == result.lr
    assert report["suggestion"]["for_steps"] == 500
    expected = {"name": "Sequential", "parameters": 451, "trainable": 451}
    assert report["model"].items() >= expected.items()
    assert (report["model"]["trained"], report["model"]["frozen"]) == (["0", "1", "4"], [])
    assert report["config"]["optimizer"]["name"] == "adam"
    assert report["seed"] is None
    figure = result.plot(tmp_path)
    assert figure.axes
    assert {path.name for path in tmp_path.iterdir()} == {"plot.png", "plot.svg"}


class Lightning(nn.Module):
    """The part of a LightningModule that counts here."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def training_step(self, batch, _index):
        return {"loss": F.cross_entropy(self.net(batch[0]), batch[1])}


class HuggingFace(nn.Module):
    """The part of a Hugging Face model that counts here."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, labels):
        output = type("ModelOutput", (), {})()
        output.loss = F.cross_entropy(self.net(x), labels)
        return output


class Slopes(nn.Module):
    """A LightningModule that differentiates by its inputs and asks its trainer where it is."""

    trainer = None

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def log_dict(self, values):
        raise AssertionError(f"there is no trainer to log {values} to")

    @property
    def global_step(self):
        return vars(self)["_trainer"].global_step

    def training_step(self, batch, _index):
        self.log_dict({"step": self.global_step})
        x = batch[0].requires_grad_()
        (force,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        return F.mse_loss(force, torch.ones_like(x))


def test_a_module_that_needs_its_trainer_and_gradients_is_evaluated_with_both():
    model = Slopes()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(LrtoolWarning, match="the model is evaluated with gradients switched on"):
        result = lrtool.find_lr(
            model, optimizer, None, loader(), validation=list(loader()), for_steps=100
        )
    assert result.lr is not None
    assert result.report()["trials"]["measure"] == "validation"


def test_models_with_their_own_loss_need_no_loss_function():
    pairs = loader()
    mappings = [{"x": x, "labels": y} for x, y in pairs]
    for model, batches in ((Lightning(), pairs), (HuggingFace(), mappings)):
        optimizer = torch.optim.Adam(model.parameters())
        result = lrtool.find_lr(model, optimizer, None, batches, steps=120, repeats=2)
        assert 1e-4 < result.lr < 1


def test_precision_accumulation_and_clipping():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        loader(),
        precision="fp16",
        accumulate=2,
        clip_norm=1.0,
        steps=60,
    )
    assert result.report()["timing"]["samples_per_s"] > 0
    assert result.report()["data"]["samples_per_update"] == 2 * loader().batch_size
    assert any(math.isfinite(loss) for loss in result.sweeps[0].loss)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 0}, "start must be above 0 and below end, not start=0, end=10"),
        ({"start": 1, "end": 1}, "start must be above 0 and below end, not start=1, end=1"),
        ({"end": math.nan}, "start must be above 0 and below end, not start=1e-7, end=nan"),
        ({"steps": 1}, "steps must be at least 2, not 1"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"for_steps": -5}, "for_steps must be at least 1, not -5"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, not 0.0"),
        ({"mode": "cubic"}, "mode must be one of exponential, linear, not 'cubic'"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, not 'fp8'"),
        (
            {"method": "vally"},
            (
                "method must be one of auto, valley, slide, steep, minimum, not 'vally' "
                "(did you mean 'valley'?)"
            ),
        ),
    ],
)
def test_arguments_out_of_range(options, words):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError) as caught:
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), **options)
    assert str(caught.value) == words
    assert isinstance(caught.value, ValueError)


def test_models_and_loaders_with_nothing_in_them():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(UserError) as caught:
        lrtool.find_lr(nn.ReLU(), optimizer, F.cross_entropy, loader())
    assert str(caught.value) == "the model has no parameters, so there is nothing to train"
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError) as caught:
        lrtool.find_lr(model, optimizer, F.cross_entropy, [])
    assert str(caught.value) == "the loader yields no batch; give it at least one"


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_are_switched_on_for_the_sweep(context):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    batches = list(loader())
    with context():
        result = lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=60, start=1e-5)
        assert not torch.is_grad_enabled()
    assert min(result.sweeps[0].loss) < result.sweeps[0].loss[0]


def test_lbfgs_is_refused_in_words():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(UserError, match="LBFGS evaluates the loss several times within a step"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader())


def test_a_schedule_that_does_not_exist():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(net().parameters()), lambda _: 1.0)
    for schedule in (rate, None):
        with pytest.raises(UserError, match=r"schedule must be one of constant, linear, .*, not "):
            lrtool.find_lr(None, None, None, None, schedule=schedule)
    with pytest.raises(UserError, match=r"schedule must be one of .* \(did you mean 'cosine'\?\)"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), schedule="cosin")


def test_optimizers_and_models_that_do_not_belong_together():
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(UserError, match="the optimizer has no parameter of this model"):
        lrtool.find_lr(net(), optimizer, F.cross_entropy, loader())
    model = net().to("meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="the model is on the meta device, without weights"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader())


def test_numpys_whole_numbers_are_whole_numbers():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), steps=np.int64(40), for_steps=np.int64(9)
    )
    assert json.loads(json.dumps(result.report()))["config"]["find"]["steps"] == 40


def test_what_is_asked_for_is_what_is_done():
    """Accumulation, clipping, restarting and training mode, each seen from outside."""
    model = net()
    model.eval()
    seen = []
    model.register_forward_hook(lambda module, _i, _o: seen.append(module.training))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
        )
    )
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        [(x, y) for x, y in loader()][:2],
        accumulate=3,
        clip_norm=0.01,
        steps=10,
        repeats=2,
        end=1e-3,
    )
    report = result.report()
    looks = round(3 * (report["first_update"]["steps"] - 1))
    trials = report["trials"]["candidates"] if report["trials"] else []
    updates = 1 + 2 * 10 + sum(len(trial["loss"]) for trial in trials)
    # a pass over two batches is one update of both: none has batches of two passes
    assert len(seen) == 1 + 2 * (updates + looks)  # one to look at the first batch
    assert all(seen)
    assert not model.training
    assert norms == pytest.approx([0.01] * updates, rel=1e-3)
    # 20 batches cycle through 2: the second repeat sees the same ones from the same weights
    assert result.sweeps[0].loss[0] == pytest.approx(result.sweeps[1].loss[0], abs=0.2)


def test_the_optimizer_decides_with_the_curve():
    rates = {}
    for cls in (torch.optim.Adam, torch.optim.SGD):
        model = net()
        optimizer = cls(model.parameters(), lr=0.1)
        rates[cls] = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=150).lr
    assert rates[torch.optim.SGD] > 3 * rates[torch.optim.Adam]


def test_persistent_workers_keep_their_order():
    orders = []
    for look in (False, True):
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        torch.manual_seed(4)
        batches = loader(num_workers=1, persistent_workers=True)
        first = [y.tolist() for _, y in batches]
        if look:
            lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=12)
        orders.append((first, [y.tolist() for _, y in batches]))
    assert orders[0] == orders[1]


# Trials


def plain_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def test_trials_are_trainings_from_the_present_weights():
    """Against a loop that anyone could write: cosine over 50 steps, batches in a list's order."""
    pairs = [(x, y) for x, y in loader()]
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, pairs, schedule="cosine", for_steps=50
    )
    report = result.report()
    tried = report["trials"]
    assert (tried["steps"], tried["measure"]) == (50, "training")
    # of the 12 updates that are compared, the 8 of one pass are looked at before training
    assert tried["steps_spent"] == pytest.approx(100 + 8 / 3)
    fresh = plain_net()
    with torch.no_grad():
        level = np.mean([float(F.cross_entropy(fresh(x), y)) for x, y in pairs])
    assert tried["untrained_loss"] == pytest.approx(level, rel=1e-5)
    assert tried["examples"] == 12 * 32  # a quarter of 50 steps
    assert [trial["origin"] for trial in tried["candidates"]] == ["lower", "higher"]
    for trial in tried["candidates"]:
        model = plain_net()
        optimizer = torch.optim.Adam(model.parameters())
        losses = []
        for step in range(50):
            for group in optimizer.param_groups:
                group["lr"] = trial["lr"] * 0.5 * (1 + math.cos(math.pi * step / 50))
            x, y = pairs[step % len(pairs)]
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert trial["loss"] == pytest.approx(losses, rel=1e-4)
        assert trial["final_loss"] == pytest.approx(np.mean(trial["loss"][-12:]))
    named = report["suggestions"]
    assert named["auto"]["lr"] == result.lr != named["sweep"]["lr"]


@pytest.mark.parametrize("seeded", [False, True])
def test_both_trials_see_the_same_batches_and_the_same_dropout(seeded):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    generator = torch.Generator().manual_seed(5) if seeded else None
    seen = []
    model.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].sum().item()))
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(generator=generator), for_steps=300
    )
    lower, higher = result.report()["trials"]["candidates"]
    assert len(lower["loss"]) == len(higher["loss"]) == 75
    assert seen[-75:] == seen[-150:-75]
    assert lower["loss"][0] == higher["loss"][0]
    assert lower["loss"][1] != higher["loss"][1]
    assert len(set(seen[-75:])) > 66  # shuffled anew in each epoch


def test_where_there_are_no_trials():
    def tried(batches, **options):
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        result = lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=60, **options)
        assert result.lr is not None
        assert result.report()["first_update"]["ratio_lr"] > 0
        return result.report()["trials"]

    assert tried(loader()) is not None
    assert tried(one_shot()) is not None  # its batches are remembered
    assert tried(list(loader()) * 60, for_steps=3000) is None
    assert tried(loader(), for_steps=3000) is not None  # it sees each sample too often
    assert tried(loader(), method="valley") is None


def test_one_shot_iterators_lose_no_batch_to_the_first_update():
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters())
    x, y = next(one_shot())
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, one_shot(), steps=20)
    assert result.sweeps[0].loss[0] == F.cross_entropy(plain_net()(x), y).item()


def failing(model, after, error):
    """Adam that fails in the short trainings, which have a constant rate, after so many updates."""
    optimizer = torch.optim.Adam(model.parameters())
    made = []

    def fail(*_):
        made.append(optimizer.param_groups[0]["lr"])
        if made.count(made[-1]) == after:
            raise error

    optimizer.register_step_pre_hook(fail)
    return optimizer


def test_a_failure_in_a_trial_keeps_the_rate_of_the_sweep_and_leaves_no_trace():
    model = net()
    optimizer = failing(model, 20, KeyError("in a trial"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    words = (
        r"^a short training beside the estimate failed \(KeyError: 'in a trial'\); the rate is "
        "that of the search before it$"
    )
    with pytest.warns(LrtoolWarning, match=words):
        result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=60)
    assert result.lr == result.report()["suggestions"]["sweep"]["lr"]
    assert result.report()["trials"]["interrupted"]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert not optimizer.state


def test_a_failure_in_the_sweep_is_the_caller_s():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 30:
            raise KeyError("in the sweep")

    optimizer.register_step_pre_hook(fail)
    with pytest.raises(KeyError, match="in the sweep"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=60)


def test_two_calls_give_the_same_however_far_sweeps_are_read_ahead(monkeypatch):
    """How many updates follow the one that diverged is a matter of time."""
    found = []
    for ahead in (1, 64):
        monkeypatch.setattr(readout, "READ_AFTER_SECONDS", math.inf)
        monkeypatch.setattr(readout, "READ_AFTER_STEPS", ahead)
        torch.manual_seed(3)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        result = lrtool.find_lr(
            model, optimizer, F.cross_entropy, loader(), repeats=2, end=1e3, for_steps=200
        )
        report = result.report()
        assert "diverged" in {sweep["stop_reason"] for sweep in report["sweeps"]}
        found.append({**report, "timing": None})
    assert found[0] == found[1]


def test_each_sweep_sees_other_batches_of_a_loader_that_does_not_shuffle():
    x, y = data(3200)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 3200, 16)]
    model = plain_net()
    seen = []
    model.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].sum().item()))
    optimizer = torch.optim.Adam(model.parameters())
    lrtool.find_lr(
        model, optimizer, F.cross_entropy, batches, steps=40, repeats=2, end=1e-2, method="valley"
    )
    sums = [inputs.sum().item() for inputs, _ in batches]
    assert seen[-80:] == pytest.approx(sums[:80])


def test_the_sweep_is_what_training_with_its_rates_would_see():
    """Its batches and its dropout are those that the caller's own loop would have drawn."""
    torch.manual_seed(4)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = torch.get_rng_state()
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), steps=12, start=1e-4, end=1e-2
    )
    assert torch.equal(state, torch.get_rng_state())
    losses = []
    stream = iter(loader())
    for lr in result.sweeps[0].lr[:8]:
        optimizer.param_groups[0]["lr"] = lr
        x, y = next(stream)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert list(result.sweeps[0].loss[:8]) == losses


def validation(samples=64):
    x, y = data()
    return [(x[i : i + 32], y[i : i + 32]) for i in range(256 - samples, 256, 32)]


def test_short_trainings_are_judged_by_the_validation_loss():
    held_out = validation()
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), validation=held_out, for_steps=60
    )
    tried = result.report()["trials"]
    assert (tried["measure"], tried["examples"]) == ("validation", 64)
    with torch.no_grad():
        level = np.mean([float(F.cross_entropy(model(x), y)) for x, y in held_out])
    assert tried["untrained_loss"] == pytest.approx(level, rel=1e-5)
    # before, and twice at the end: a forward pass over as many samples as an update costs a third
    assert tried["steps_spent"] == pytest.approx(120 + 3 * 64 / 32 / 3)


def test_a_race_confirms_or_corrects_the_rate():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        loader(),
        validation=DataLoader(TensorDataset(*data()), 64),
        verify=True,
        schedule="cosine",
        for_steps=200,
    )
    report = result.report()
    assert report["config"]["find"]["verify"]
    race = report["race"]
    assert (race["measure"], race["examples"], race["steps"]) == ("validation", 256, 200)
    assert [each["origin"] for each in race["candidates"][:3]] == ["lower", "suggestion", "higher"]
    assert len({each["loss"][0] for each in race["candidates"]}) == 1  # the same start
    assert report["suggestions"]["race"]["lr"] == result.lr
    assert "by racing" in result.reason
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not optimizer.state


def test_candidates_that_take_turns_with_one_model_are_trainings_of_their_own():
    """Against a loop that anyone could write, over batches in a list's order."""
    pairs = [(x, y) for x, y in loader()]
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model,
        optimizer,
        F.cross_entropy,
        pairs,
        validation=validation(),
        verify=True,
        for_steps=100,
    )
    finished = [c for c in result.report()["race"]["candidates"] if c["final_loss"] is not None]
    assert len(finished) >= 2
    for candidate in finished:
        model = plain_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=candidate["lr"])
        losses = []
        for step in range(100):
            x, y = pairs[step % len(pairs)]
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert candidate["loss"] == losses
        with torch.no_grad():
            level = np.mean([float(F.cross_entropy(model(x), y)) for x, y in validation()])
        assert candidate["final_loss"] == pytest.approx(level, rel=1e-5)


def test_apply_keeps_the_ratios_of_the_groups():
    model = net()
    optimizer = torch.optim.SGD(
        [
            {"params": model[0].parameters(), "lr": 0.2},
            {"params": model[4].parameters(), "lr": torch.tensor(0.02)},
        ]
    )
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), for_steps=300)
    result.apply(optimizer)
    result.apply(optimizer)  # once more changes nothing
    fast, slow = (float(group["lr"]) for group in optimizer.param_groups)
    assert fast == result.lr
    assert slow == pytest.approx(result.lr / 10)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=9)
    result.apply(optimizer)
    assert [float(g["initial_lr"]) for g in optimizer.param_groups] == pytest.approx([fast, slow])
    assert schedule.base_lrs == pytest.approx([fast, slow])


def test_a_rate_that_is_not_there_cannot_be_applied():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = lrtool.find_lr(model, optimizer, lambda o, _t: o.mean() * math.nan, loader(), steps=30)
    with pytest.raises(UserError, match=r"^there is no rate to apply: .*NaN"):
        result.apply(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_what_a_prompt_and_a_notebook_show(tmp_path, monkeypatch):
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), for_steps=300)
    rate, low, high = (words.rate(value) for value in (result.lr, *result.interval))
    line = f"learning rate {rate} ({low} to {high}), {result.verdict}"
    assert str(result) == line
    assert repr(result) == f"<FindResult: {line}>"
    page = result._repr_html_()
    assert f"<p><strong>{line[0].upper()}{line[1:]}</strong></p>" in page
    assert result.reason in page
    picture = base64.b64decode(page.partition("base64,")[2].partition('"')[0])
    assert picture.startswith(b"\x89PNG")
    figure = result.plot(tmp_path / "runs" / "new")
    assert figure._repr_png_() == picture  # at the end of a cell, without a backend of notebooks
    assert (tmp_path / "runs" / "new" / "plot.png").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    result.plot("~/at home")
    assert (tmp_path / "at home" / "plot.png").exists()


def search_with(progress):
    """Search, and return the report, the random states, and the weights afterwards."""
    torch.manual_seed(3)
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), verify=True, for_steps=200, progress=progress
    )
    report = {**result.report(), "timing": None}
    drawn = (torch.rand(3).tolist(), random.getstate())
    return report, drawn, [p.detach().clone() for p in model.parameters()]


def test_progress_changes_nothing_but_stderr(capsys):
    random.seed(1)
    silent = search_with(progress=False)
    assert capsys.readouterr() == ("", "")
    random.seed(1)
    shown = search_with(progress=True)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert re.search(
        r"^race: rate \S+, step \d+/\d+, loss \S+, \S+ steps/s$", seen.err, re.MULTILINE
    )
    assert shown[:2] == silent[:2]
    assert all(map(torch.equal, shown[2], silent[2]))


def test_an_interruption_while_progress_is_shown_leaves_the_objects(monkeypatch):
    calls = itertools.count()

    def update(*_):
        if next(calls) == 40:
            raise KeyboardInterrupt

    monkeypatch.setattr("lrtool.show.terminal.find.Progress.update", update)
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(KeyboardInterrupt):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), progress=True)
    assert all(map(torch.equal, model.parameters(), before))
    assert not optimizer.state


def test_what_a_prompt_shows_where_there_is_no_rate():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = lrtool.find_lr(model, optimizer, lambda o, _t: o.mean() * math.nan, loader(), steps=30)
    assert str(result) == f"no learning rate: {result.reason}"
    assert str(result.advice[0]) in result._repr_html_()


def test_a_race_for_a_training_of_unknown_length():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), verify=True)
    assert result.report()["race"]["steps"] == 100
    assert result.lr is not None
    assert result.report()["suggestion"]["for_steps"] is None
    assert "and the 300 steps that are assumed need a lower rate" in result.reason


class Halved(DataLoader):
    """Changes the batches that torch's own class makes."""

    def __iter__(self):
        return ((x / 2, y) for x, y in super().__iter__())


def test_a_validation_loader_of_another_class_is_taken_as_it_is():
    held_out = Halved(TensorDataset(*data()), 64)
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters())
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), validation=held_out, for_steps=60
    )
    with torch.no_grad():
        level = np.mean([float(F.cross_entropy(model(x), y)) for x, y in held_out])
    assert result.report()["trials"]["untrained_loss"] == pytest.approx(level, rel=1e-5)


def test_an_empty_validation_loader_is_an_error():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(DataError, match="yields no batch"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), validation=[])


def drawing():
    """Endless random batches from torch's global random state."""
    x, y = data()
    while True:
        rows = torch.randint(len(x), (32,))
        yield x[rows], y[rows]


class OfOwn:
    """A loader that is no DataLoader but has one, with a generator."""

    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        self.inner = loader(generator=generator)

    def __iter__(self):
        return iter(self.inner)


@pytest.mark.parametrize("batches", [drawing, OfOwn])
def test_batches_do_not_depend_on_how_far_a_sweep_is_read_ahead(monkeypatch, batches):
    found = []
    for ahead in (1, 64):
        monkeypatch.setattr(readout, "READ_AFTER_SECONDS", math.inf)
        monkeypatch.setattr(readout, "READ_AFTER_STEPS", ahead)
        torch.manual_seed(3)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        result = lrtool.find_lr(
            model, optimizer, F.cross_entropy, batches(), end=1e3, for_steps=200
        )
        found.append({**result.report(), "timing": None})
    assert found[0]["sweeps"][0]["stop_reason"] == "diverged"
    assert found[0] == found[1]


def test_a_bug_in_the_conclusion_costs_a_warning_and_not_the_rate(monkeypatch):
    def broken(*_):
        raise ArithmeticError("a bug")

    monkeypatch.setattr("lrtool.search.search.conclude", broken)
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    words = (
        r"^the race failed \(ArithmeticError: a bug\); the rate is that of the search before it$"
    )
    with pytest.warns(LrtoolWarning, match=words):
        result = lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), verify=True)
    assert result.lr is not None


def test_momentum_of_an_optimizer_without_defaults_is_left_alone():
    class Wrap:
        def __init__(self, inner):
            self.inner = inner
            self.param_groups = inner.param_groups
            self.state = inner.state

        def step(self):
            self.inner.step()

        def zero_grad(self, **options):
            self.inner.zero_grad(**options)

    model = net()
    optimizer = Wrap(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), schedule="one_cycle", for_steps=100
    )
    assert result.report()["trials"] is not None
    assert optimizer.param_groups[0]["momentum"] == 0.9


class Moded(torch.optim.Adam):
    """Steps in its training mode alone, as schedule-free optimizers do."""

    training = False

    def train(self):
        self.training = True

    def eval(self):
        self.training = False

    def step(self, closure=None):
        assert self.training
        return super().step(closure)


@pytest.mark.parametrize("training", [False, True])
def test_an_optimizer_with_modes_is_left_in_the_one_that_it_was_in(training):
    model = net()
    optimizer = Moded(model.parameters())
    optimizer.training = training
    held_out, seen = validation(), []
    model.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, optimizer.training))
    )
    result = lrtool.find_lr(
        model, optimizer, F.cross_entropy, loader(), validation=held_out, for_steps=100
    )
    assert result.lr is not None
    assert set(seen[1:]) == {(True, True), (False, False)}
    assert optimizer.training is training


class Forces(nn.Module):
    """The slope of an energy by the inputs; only in training with a graph of its own."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=self.training)[0]


def test_a_model_that_differentiates_by_its_inputs_is_validated_with_gradients():
    torch.manual_seed(0)
    model = Forces()
    x = torch.randn(64, 3)
    data = [(part, -part) for part in x.split(16)]
    before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(LrtoolWarning, match="the model is evaluated with gradients switched on"):
        found = lrtool.find_lr(
            model, optimizer, F.mse_loss, data, validation=data, steps=40, for_steps=100
        )
    assert found.report()["trials"]["measure"] == "validation"
    assert all(map(torch.equal, before, model.parameters()))
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_fails_with_gradients_too_is_told_its_own_error():
    model = nn.Linear(3, 3)
    good, bad = [(torch.ones(8, 3), torch.ones(8, 3))] * 4, [(torch.ones(8, 2), torch.ones(8, 3))]
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(LrtoolWarning, match="mat1 and mat2"):
        lrtool.find_lr(model, optimizer, F.mse_loss, good, validation=bad, steps=20, for_steps=100)


class Adapted(nn.Module):
    """A frozen layer and a product of low rank beside it, which starts at 0 (LoRA)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(requires_grad=False)
        self.a = nn.Parameter(torch.randn(4, inputs) / 4)
        self.b = nn.Parameter(torch.zeros(outputs, 4))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


def test_adapters_with_weight_decay_have_a_rate_that_trains():
    """At first weight decay alone moves `a`, which says nothing of the rate."""

    def adapted():
        torch.manual_seed(0)
        model = nn.Sequential(Adapted(8, 32), nn.ReLU(), Adapted(32, 3))
        return model, torch.optim.AdamW(model.parameters(), weight_decay=0.01)

    x, y = data()
    batches = list(zip(x.split(32), y.split(32), strict=True))
    model, optimizer = adapted()
    found = lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=60, for_steps=75)
    first = found.report()["first_update"]
    assert first["ratio_lr"] is None  # of a it would be 1 / 0.01, and b is 0
    assert 1e-3 < first["critical_lr"] < 10
    assert 1e-3 < found.lr < 0.3
    model, optimizer = adapted()
    untrained = F.cross_entropy(model(x), y).item()
    found.apply(optimizer)
    train(model, optimizer, batches, epochs=75 // len(batches))
    assert F.cross_entropy(model(x), y).item() < untrained / 2
