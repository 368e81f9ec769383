"""`lrtool.find_lr` on objects that the caller has: what it finds, and that it leaves no trace."""

import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lrtool
from lrtool.errors import UserError


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
    first = next(rates for rates in seen if rates[0] != 1.0)  # the first update's direction
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
    assert report["model"] == {"name": "Sequential", "parameters": 451, "trainable": 451}
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
    with pytest.raises(UserError, match=r"schedule must be one of .* \(did you mean 'cosine'\?\)"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), schedule="cosin")


def test_optimizers_and_models_that_do_not_belong_together():
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(UserError, match="the optimizer has no parameter of this model"):
        lrtool.find_lr(net(), optimizer, F.cross_entropy, loader())
    model = net().to("meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="the model is on the device meta, without weights"):
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
    assert len(seen) == 3 * (updates + looks)
    assert all(seen)
    assert not model.training
    assert norms == pytest.approx([0.01] * updates, rel=1e-3)
    # 30 batches cycle through 2: the second repeat sees the same ones from the same weights
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
    assert tried["steps_spent"] == 104  # 12 batches looked at before training
    fresh = plain_net()
    with torch.no_grad():
        first = [pairs[step % len(pairs)] for step in range(12)]
        level = np.mean([float(F.cross_entropy(fresh(x), y)) for x, y in first])
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
    assert len(lower["loss"]) == len(higher["loss"]) == 90
    assert seen[-90:] == seen[-180:-90]
    assert lower["loss"][0] == higher["loss"][0]
    assert lower["loss"][1] != higher["loss"][1]
    assert len(set(seen[-90:])) > 80  # shuffled anew in each epoch


def test_where_there_are_no_trials():
    def tried(batches, **options):
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        result = lrtool.find_lr(model, optimizer, F.cross_entropy, batches, steps=60, **options)
        assert result.lr is not None
        assert result.report()["first_update"]["ratio_lr"] > 0
        return result.report()["trials"]

    assert tried(loader()) is not None
    assert tried(iter([*loader()] * 3)) is None
    assert tried(one_shot()) is None
    assert tried(loader(), for_steps=3000) is None
    assert tried(loader(), method="valley") is None


def test_one_shot_iterators_lose_no_batch_to_the_first_update():
    model = plain_net()
    optimizer = torch.optim.Adam(model.parameters())
    x, y = next(one_shot())
    result = lrtool.find_lr(model, optimizer, F.cross_entropy, one_shot(), steps=20)
    assert result.sweeps[0].loss[0] == F.cross_entropy(plain_net()(x), y).item()


def test_a_failure_in_a_trial_leaves_no_trace_either():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = []

    def fail(*_):
        made.append(optimizer.param_groups[0]["lr"])
        if made.count(made[-1]) == 20:  # a constant rate: a trial
            raise KeyError("in a trial")

    optimizer.register_step_pre_hook(fail)
    random_state = torch.get_rng_state()
    with pytest.raises(KeyError, match="in a trial"):
        lrtool.find_lr(model, optimizer, F.cross_entropy, loader(), steps=60)
    assert len(made) > 60
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert not optimizer.state
