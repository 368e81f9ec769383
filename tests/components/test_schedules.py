"""Every schedule against torch's own class, or the formula of its paper, at every step."""

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from lrtool.components.schedules import (
    SCHEDULES,
    build_schedule,
    compressed_schedule,
    named_schedule,
)
from lrtool.config.schema import ScheduleConfig
from lrtool.errors import ConfigError, LrtoolWarning

REQUIRED = {
    "step": {"step_size": 3},
    "multi_step": {"milestones": [2, 5]},
    "exponential": {"gamma": 0.9},
}
PER_EPOCH = 4  # updates
LENGTHS = (1, 2, 7, 300)


def build(name, steps=300, *, warmup=None, steps_per_epoch=None, **args):
    spec = ScheduleConfig(name=name, warmup=warmup, args={**REQUIRED.get(name, {}), **args})
    return build_schedule(spec, steps=steps, steps_per_epoch=steps_per_epoch)


def factors(schedule, steps):
    return [schedule.factor(step, step // PER_EPOCH) for step in range(steps)]


def rates(make, steps, lr=1.0):
    """The rates that one of torch's schedules gives to so many updates."""
    if steps <= 0:
        return []
    optimizer = torch.optim.SGD([torch.zeros(())], lr=lr)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def after_ramp(body, steps, warmup):
    """What torch's LinearLR makes of a body that begins after it, as far as the training goes."""
    start = 1 / (warmup + 1)
    ramp = rates(lambda o: theirs.LinearLR(o, start, total_iters=warmup), warmup) if warmup else []
    return [share * body[0] for share in ramp] + list(body[: steps - warmup])


def assert_close(found, expected):
    assert len(found) == len(expected)
    assert found == pytest.approx(list(expected), rel=1e-9, abs=1e-12)


def cases(lengths=LENGTHS):
    """Lengths of training with warm-ups that they have room for: as given, and in updates."""
    for steps in lengths:
        for ramp, updates in ((None, 0), (0, 0), (1, 1), (3, 3), (50, 50), (299, 299)):
            if updates < steps:
                yield pytest.param((steps, ramp, updates), id=f"{steps}-{ramp}")
    yield pytest.param((300, 0.05, 15), id="300-0.05")
    yield pytest.param((7, 0.05, 1), id="7-0.05")  # a fraction is at least one update,
    yield pytest.param((7, 0.999, 6), id="7-0.999")  # leaves at least one,
    yield pytest.param((1, 0.5, 0), id="1-0.5")  # and has no room here


every_length = pytest.mark.parametrize("length", list(cases()))


@every_length
def test_constant(length):
    steps, ramp, warmup = length
    body = rates(lambda o: theirs.ConstantLR(o, 1.0), steps)
    assert_close(
        factors(build("constant", steps, warmup=ramp), steps), after_ramp(body, steps, warmup)
    )


def test_a_warm_up_by_hand():
    found = factors(build("constant", 6, warmup=3), 6)
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@every_length
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_linear(length, end):
    steps, ramp, warmup = length
    left = steps - warmup
    body = rates(lambda o: theirs.LinearLR(o, 1.0, end, total_iters=left), left)
    found = factors(build("linear", steps, warmup=ramp, end_factor=end), steps)
    assert_close(found, after_ramp(body, steps, warmup))


@every_length
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_cosine(length, end):
    steps, ramp, warmup = length
    left = steps - warmup
    body = rates(lambda o: theirs.CosineAnnealingLR(o, left, eta_min=end), left)
    found = factors(build("cosine", steps, warmup=ramp, end_factor=end), steps)
    assert_close(found, after_ramp(body, steps, warmup))


@every_length
@pytest.mark.parametrize("power", [0.5, 0.9, 2.0])
def test_polynomial(length, power):
    steps, ramp, warmup = length
    left = steps - warmup
    body = rates(lambda o: theirs.PolynomialLR(o, total_iters=left, power=power), left)
    found = factors(build("polynomial", steps, warmup=ramp, power=power), steps)
    assert_close(found, after_ramp(body, steps, warmup))


@every_length
@pytest.mark.parametrize(("period", "times"), [(2, 1), (5, 1), (5, 2), (3, 3)])
@pytest.mark.filterwarnings("ignore:.*within the first cycle")
def test_cosine_restarts(length, period, times):
    steps, ramp, warmup = length

    def make(optimizer):
        return theirs.CosineAnnealingWarmRestarts(optimizer, period, times, eta_min=0.05)

    schedule = build(
        "cosine_restarts", steps, warmup=ramp, period=period, period_factor=times, low=0.05
    )
    assert_close(factors(schedule, steps), after_ramp(rates(make, steps), steps, warmup))


@every_length
@pytest.mark.parametrize("period", [2, 7, 20])
@pytest.mark.parametrize(
    ("name", "args"), [("triangular", {}), ("triangular2", {}), ("exp_range", {"gamma": 0.98})]
)
@pytest.mark.filterwarnings("ignore:.*within the first cycle")
def test_triangles(length, period, name, args):
    steps, ramp, warmup = length

    def make(optimizer):
        return theirs.CyclicLR(
            optimizer, 0.2, 1.0, period / 2, mode=name, cycle_momentum=False, **args
        )

    schedule = build(name, steps, warmup=ramp, period=period, low=0.2, **args)
    assert_close(factors(schedule, steps), after_ramp(rates(make, steps), steps, warmup))


def test_triangles_by_hand():
    schedule = build("triangular2", 8, period=4, low=0.2)
    assert factors(schedule, 8) == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.4, 0.6, 0.4])


@every_length
@pytest.mark.parametrize(
    ("name", "args", "make"),
    [
        ("step", {"step_size": 1}, lambda o: theirs.StepLR(o, 1)),
        ("step", {"step_size": 9, "gamma": 0.5}, lambda o: theirs.StepLR(o, 9, 0.5)),
        ("multi_step", {"milestones": [1]}, lambda o: theirs.MultiStepLR(o, [1])),
        (
            "multi_step",
            {"milestones": [3, 30, 31], "gamma": 0.5},
            lambda o: theirs.MultiStepLR(o, [3, 30, 31], 0.5),
        ),
        ("exponential", {"gamma": 0.9}, lambda o: theirs.ExponentialLR(o, 0.9)),
    ],
)
def test_what_changes_with_the_epoch(length, name, args, make):
    steps, ramp, warmup = length
    # epochs count from the start of training: warm-up moves no milestone, only scales the rate
    by_epoch = rates(make, steps)
    shares = after_ramp([1.0] * steps, steps, warmup)
    expected = [share * by_epoch[step // PER_EPOCH] for step, share in enumerate(shares)]
    assert_close(factors(build(name, steps, warmup=ramp, **args), steps), expected)


@every_length
@pytest.mark.parametrize("shape", ["sqrt", "linear"])
@pytest.mark.parametrize("decay", [1, 0.2])
def test_wsd(length, shape, decay):
    steps, ramp, warmup = length
    left = steps - warmup
    falls = 1 if decay == 1 else max(1, round(decay * steps))
    if falls > left:
        decay = falls = left
    passed = np.arange(falls) / falls
    tail = 1 - (np.sqrt(passed) if shape == "sqrt" else passed)  # Hägele 2024, equation 1
    body = np.concatenate([np.ones(left - falls), tail])
    found = factors(build("wsd", steps, warmup=ramp, decay=decay, shape=shape), steps)
    assert_close(found, after_ramp(body, steps, warmup))


def test_a_decay_that_fills_what_warm_up_leaves():
    # 3.5 and 3.5 of 7 updates are rounded to 4 and 4: one of them gives way
    found = factors(build("wsd", 7, warmup=0.5, decay=0.5, shape="linear"), 7)
    assert_close(found, [0.2, 0.4, 0.6, 0.8, 1.0, 2 / 3, 1 / 3])


@every_length
@pytest.mark.parametrize("timescale", [None, 30, 0.2222])
def test_inverse_sqrt(length, timescale):
    steps, ramp, warmup = length
    rounded = {1: 1, 2: 1, 7: 2, 300: 67}  # at least 1
    scale = {None: warmup or 10_000, 30: 30, 0.2222: rounded[steps]}[timescale]
    body = np.sqrt(scale / (scale + np.arange(steps)))
    found = factors(build("inverse_sqrt", steps, warmup=ramp, timescale=timescale), steps)
    assert_close(found, after_ramp(body, steps, warmup))


def test_inverse_sqrt_is_that_of_the_transformer():
    # Vaswani 2017, equation 3, over its peak, its updates counted from 1: min(1 / √s, s / W^1.5)
    warmup = 40
    found = factors(build("inverse_sqrt", None, warmup=warmup), 300)
    numbers = np.arange(1, 301)
    formula = np.minimum(numbers**-0.5, numbers * warmup**-1.5) / warmup**-0.5
    assert_close(found[warmup:], formula[warmup - 1 : -1])  # the full rate comes one update later
    assert found[warmup - 1] < 1 == found[warmup]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize(
    ("steps", "warmup", "share"),
    [
        *((steps, None, 0.3) for steps in LENGTHS),
        *((steps, 0, 0.0) for steps in LENGTHS),
        (7, 3, 3 / 7),
        (300, 2, 2 / 300),
        (300, 0.05, 15 / 300),
        (300, 0.333, 100 / 300),
        (300, 299, 299 / 300),
    ],
)
def test_one_cycle(steps, warmup, share, optimizer, strategy):
    args = {"momentum": 0.9} if optimizer == "SGD" else {"betas": (0.9, 0.99)}
    torchs = getattr(torch.optim, optimizer)([torch.zeros(())], lr=1.0, **args)
    reference = theirs.OneCycleLR(
        torchs,
        1.0,
        total_steps=steps,
        pct_start=share,
        anneal_strategy=strategy,
        base_momentum=0.8,
        max_momentum=0.9,
        div_factor=20.0,
        final_div_factor=100.0,
    )
    schedule = build(
        "one_cycle",
        steps,
        warmup=warmup,
        anneal_strategy=strategy,
        base_momentum=0.8,
        max_momentum=0.9,
        div_factor=20,
        final_div_factor=100,
    )
    group = torchs.param_groups[0]
    for step in range(steps):
        momentum = group["momentum"] if optimizer == "SGD" else group["betas"][0]
        assert schedule.factor(step, 0) == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
        assert schedule.momentum(step) == pytest.approx(momentum, rel=1e-9)
        torchs.step()
        reference.step()


@pytest.mark.parametrize("steps", LENGTHS)
def test_one_cycle_has_torchs_defaults(steps):
    expected = rates(
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=steps, cycle_momentum=False), steps
    )
    assert_close(factors(build("one_cycle", steps), steps), expected)


def test_one_cycle_that_rises_for_one_update():  # where torch divides by 0
    schedule = build("one_cycle", 3, warmup=1)
    assert factors(schedule, 3) == pytest.approx([1.0, (1 + 1 / 25e4) / 2, 1 / 25e4])
    assert [schedule.momentum(step) for step in range(3)] == pytest.approx([0.85, 0.9, 0.95])


def test_only_one_cycle_moves_the_momentum():
    assert build("one_cycle").momentum(0) == 0.95
    assert build("one_cycle", cycle_momentum=False).momentum(0) is None
    for name in set(SCHEDULES) - {"one_cycle"}:
        assert build(name).momentum(0) is None


def test_plateau_by_hand():
    schedule = build(
        "plateau", 100, factor=0.1, patience=1, cooldown=1, threshold=0.1, min_factor=0.002
    )
    seen = []
    # falls; twice by less than a tenth, which is none; cooling; twice none; cooling; falls by an
    # eighth; twice none, but not below the least
    for loss in (2.0, 1.0, 0.95, 0.92, 1.0, 1.0, 1.0, 1.0, 0.875, 0.9, 0.9, 0.9, 0.9, 0.9):
        schedule.observe(loss)
        seen.append(schedule.factor(0, 0))
    assert seen == pytest.approx([*[1] * 3, *[0.1] * 3, *[0.01] * 4, *[0.002] * 4])


def test_plateau_is_torchs_and_ramped():
    optimizer = torch.optim.SGD([torch.zeros(())], lr=0.3)
    args = {"patience": 2, "threshold": 0.5, "threshold_mode": "abs", "factor": 0.5}
    reference = theirs.ReduceLROnPlateau(optimizer, **args)
    schedule = build("plateau", 400, warmup=4, **args)
    assert [schedule.factor(step, 0) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    generator = np.random.default_rng(0)
    for _ in range(60):
        loss = float(generator.normal())
        reference.step(loss)
        schedule.observe(loss)
        rate = optimizer.param_groups[0]["lr"]
        assert 0.3 * schedule.factor(50, 9) == pytest.approx(rate, abs=1e-7)
    assert rate < 0.01


def test_plateau_goes_on_from_its_state(tmp_path):
    losses = [float(loss) for loss in np.random.default_rng(1).normal(size=80)]
    args = {"patience": 2, "factor": 0.7, "cooldown": 1}
    whole, first, second = (build("plateau", 400, **args) for _ in range(3))
    path = tmp_path / "state.pt"
    for count, loss in enumerate(losses):
        whole.observe(loss)
        (first if count < 33 else second).observe(loss)
        if count == 32:
            torch.save(first.state_dict(), path)
            second.load_state_dict(torch.load(path, weights_only=True))
        assert (first if count < 33 else second).factor(5, 5) == whole.factor(5, 5)
    assert first.factor(5, 5) < 1
    assert second.state_dict() == whole.state_dict()


def test_the_others_have_no_state():
    for name in set(SCHEDULES) - {"plateau"}:
        schedule = build(name)
        before = schedule.factor(7, 1)
        schedule.observe(1.0)
        schedule.observe(math.nan)
        assert schedule.state_dict() == {}
        schedule.load_state_dict({})
        assert schedule.factor(7, 1) == before


LENGTH = st.floats(0.01, 0.99) | st.integers(2, 400)
SHARE = st.floats(0, 1)
GAMMA = st.floats(1e-3, 1)
ARGS = {
    "end_factor": SHARE,
    "low": SHARE,
    "min_factor": SHARE,
    "period": LENGTH,
    "timescale": LENGTH,
    "decay": st.floats(0.01, 0.2),
    "gamma": GAMMA,
    "power": st.floats(0.01, 10),
    "div_factor": st.floats(1, 1e6),
    "final_div_factor": st.floats(1, 1e6),
    "period_factor": st.integers(1, 5),
    "step_size": st.integers(1, 50),
    "milestones": st.sets(st.integers(1, 50), min_size=1).map(sorted),
    "shape": st.sampled_from(["sqrt", "linear"]),
    "anneal_strategy": st.sampled_from(["cos", "linear"]),
}
TAKES = {
    name: sorted(set(inspect.signature(entry.build).parameters) & set(ARGS))
    for name, entry in SCHEDULES.items()
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore::lrtool.errors.LrtoolWarning")
@given(data=st.data())
def test_factors_lie_between_0_and_1_and_are_the_same_whenever_asked(name, data):
    args = {arg: data.draw(ARGS[arg], label=arg) for arg in TAKES[name]}
    steps = data.draw(st.integers(1, 300), label="steps")
    warmup = data.draw(
        st.none() | st.floats(0, 0.7) | st.integers(0, min(steps - 1, int(0.7 * steps))),
        label="warmup",
    )
    schedule = build(name, steps, warmup=warmup, steps_per_epoch=PER_EPOCH, **args)
    asked = range(steps + 50)  # also beyond the end
    forwards = [schedule.factor(step, step // PER_EPOCH) for step in asked]
    assert all(0 <= factor <= 1 for factor in forwards)  # which NaN is not
    again = build(name, steps, warmup=warmup, steps_per_epoch=PER_EPOCH, **args)
    backwards = [again.factor(step, step // PER_EPOCH) for step in reversed(asked)]
    assert backwards[::-1] == forwards


NEEDS_LENGTH = ("linear", "cosine", "polynomial", "one_cycle", "wsd")
FRACTIONS = ("cosine_restarts", "triangular", "triangular2", "exp_range")


def problem(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        build(*args, **kwargs)
    [found] = caught.value.problems
    return ".".join(found.path), found.message


@pytest.mark.parametrize("name", [*NEEDS_LENGTH, *FRACTIONS])
def test_a_length_that_is_not_known(name):
    assert problem(name, None) == (
        "train.schedule",
        (
            f"{name} needs the length of the training, which is unknown for this data; "
            "give train.max_steps"
        ),
    )


def test_a_warm_up_of_a_length_that_is_not_known():
    assert problem("constant", None, warmup=0.1) == (
        "train.schedule.warmup",
        (
            "0.1 of a training whose length is unknown for this data; give a number of steps here, "
            "or train.max_steps"
        ),
    )


def test_what_needs_no_length():
    for name in set(SCHEDULES) - set(NEEDS_LENGTH):
        args = {"period": 100} if name in FRACTIONS else {}
        known, unknown = (build(name, steps, warmup=5, **args) for steps in (300, None))
        assert factors(known, 300) == factors(unknown, 300)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_as_long_as_the_training(name):
    assert problem(name, 300, warmup=300) == (
        "train.schedule.warmup",
        "a warm-up of 300 steps must be shorter than the training of 300",
    )


def test_a_warm_up_longer_than_the_training():
    _, words = problem("constant", 1200, warmup=10_000)
    assert words == "a warm-up of 10,000 steps must be shorter than the training of 1,200"


def test_a_decay_without_room():
    expected = "train.schedule.args.decay"
    words = "a decay of 60 steps is longer than the 30 after the warm-up"
    assert problem("wsd", warmup=0.9) == (expected, words)
    words = "a decay of 301 steps is longer than the 299 after the warm-up"
    assert problem("wsd", warmup=1, decay=301) == (expected, words)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("triangular", {"period": 301}, "period: the training ends within the first cycle of 301"),
        ("cosine_restarts", {"period": 0.9, "warmup": 0.5}, "period: the training ends within"),
        ("step", {"step_size": 10}, "step_size: the rate never falls: the training has 10 epochs"),
        ("multi_step", {"milestones": [5, 10]}, "milestones: 10 is not reached: the training has"),
        ("plateau", {"patience": 8}, "patience: the rate never falls: the training has 10 epochs"),
        ("exponential", {"gamma": 0.9}, "gamma: the rate never falls: the training has 1 epoch"),
    ],
)
def test_what_cannot_happen_in_so_short_a_training(name, args, words):
    with pytest.warns(LrtoolWarning, match=f"^train.schedule.args.{words}"):
        build(name, 300, steps_per_epoch=300 if name == "exponential" else 30, **args)


def test_momenta_of_one_cycle_that_are_the_wrong_way_round():
    assert problem("one_cycle", base_momentum=0.9, max_momentum=0.8) == (
        "train.schedule.args.base_momentum",
        "is above max_momentum, 0.8",
    )


def test_what_just_fits_does_not_warn():
    build("triangular", 300, period=300)
    build("step", 301, steps_per_epoch=30, step_size=10)
    build("multi_step", 300, steps_per_epoch=30, milestones=[9])
    schedule = build("plateau", 300, steps_per_epoch=30, patience=7)
    for _ in range(9):
        assert schedule.factor(0, 0) == 1
        schedule.observe(1.0)
    assert schedule.factor(0, 9) == pytest.approx(0.1)  # in the tenth epoch


# Compressed to the steps of a race or a trial


def compressed(name, *, steps_per_epoch=None, warmup=None, **args):
    """A schedule of a training of 600 steps, in 100."""
    spec = ScheduleConfig(name=name, warmup=warmup, args=args)
    return compressed_schedule(spec, training_steps=600, steps_per_epoch=steps_per_epoch, steps=100)


@pytest.mark.parametrize(
    ("name", "given", "same"),
    [
        ("constant", {}, {}),
        ("cosine", {"warmup": 60}, {"warmup": 10}),
        ("cosine", {"warmup": 0.1}, {"warmup": 10}),
        ("linear", {"warmup": 599}, {"warmup": 99}),
        ("linear", {"warmup": 2}, {"warmup": 1}),
        ("one_cycle", {"warmup": 1}, {"warmup": 1}),
        ("one_cycle", {}, {}),
        ("wsd", {"decay": 120}, {"decay": 20}),
        ("wsd", {"decay": 0.2}, {"decay": 0.2}),
        ("triangular", {"period": 60}, {"period": 10}),
        ("triangular2", {"period": 5}, {"period": 2}),
        ("cosine_restarts", {"period": 90, "period_factor": 2}, {"period": 15, "period_factor": 2}),
        ("exp_range", {"period": 60, "gamma": 0.99}, {"period": 10, "gamma": 0.99**6}),
        ("exp_range", {}, {"gamma": 0.99994**6}),
        ("inverse_sqrt", {"timescale": 60}, {"timescale": 10}),
        ("inverse_sqrt", {}, {"timescale": 1667}),
        ("inverse_sqrt", {"warmup": 60}, {"warmup": 10}),
        ("plateau", {"warmup": 60, "patience": 3}, {"warmup": 10, "patience": 3}),
    ],
)
@pytest.mark.parametrize("steps_per_epoch", [None, 4])
def test_lengths_keep_their_share(name, given, same, steps_per_epoch):
    expected = build(name, 100, **same)
    found = compressed(name, steps_per_epoch=steps_per_epoch, **given)
    for step in range(100):
        assert found.factor(step, 0) == expected.factor(step, 0)
        assert found.momentum(step) == expected.momentum(step)


def test_epochs_pass_faster_too():
    """600 steps are 150 epochs of 4; in 100 steps one and a half pass with each step."""
    found = compressed("step", steps_per_epoch=4, step_size=50)
    assert_close(
        [found.factor(step, 0) for step in range(100)], [1.0] * 34 + [0.1] * 33 + [0.01] * 33
    )
    found = compressed("multi_step", steps_per_epoch=4, milestones=[75])
    assert_close([found.factor(step, 0) for step in range(100)], [1.0] * 50 + [0.1] * 50)


def test_a_compressed_plateau_watches_as_it_did():
    found = compressed("plateau", steps_per_epoch=4, patience=0, factor=0.5)
    found.observe(1.0)
    found.observe(1.0)
    assert found.factor(7, 0) == 0.5


def test_what_the_training_would_refuse_is_refused_in_the_same_words():
    with pytest.raises(ConfigError) as caught:
        compressed("linear", warmup=600)
    assert [found.message for found in caught.value.problems] == [
        "a warm-up of 600 steps must be shorter than the training of 600"
    ]


def test_a_training_of_unknown_length_is_not_compressed():
    spec = ScheduleConfig(name="triangular", warmup=20, args={"period": 60})
    unknown = compressed_schedule(spec, training_steps=None, steps_per_epoch=None, steps=100)
    whole = build_schedule(spec, steps=None, steps_per_epoch=None)
    assert factors(unknown, 200) == factors(whole, 200)
    with pytest.raises(ConfigError, match="cosine needs the length of the training"):
        compressed_schedule(
            ScheduleConfig(name="cosine"), training_steps=None, steps_per_epoch=None, steps=100
        )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 90])
def test_a_name_is_enough(name, steps):
    found = factors(named_schedule(name, training_steps=steps, steps=steps), steps)
    assert all(0 <= factor <= 1 for factor in found)
    if name in {"constant", "step", "multi_step", "exponential", "plateau"}:
        assert found == [1.0] * steps
    else:
        spec = ScheduleConfig(name=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LrtoolWarning)
            assert found == factors(build_schedule(spec, steps=steps, steps_per_epoch=None), steps)


def test_a_name_for_a_long_training_is_compressed():
    # 1 / √(1 + 5 t) over t from 0 to 1, with T5's timescale of 10,000: (√6 − 1) · 2 / 5 in the mean
    found = factors(named_schedule("inverse_sqrt", training_steps=50_000, steps=75), 75)
    assert np.mean(found) == pytest.approx(0.580, abs=0.005)
