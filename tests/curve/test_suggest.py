import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sweeps import INITIAL, rates, recorded, sweep

from lrtool.curve import constants
from lrtool.curve.anchors import locate, rules
from lrtool.curve.smooth import fit
from lrtool.curve.suggest import METHODS, suggest
from lrtool.errors import UserError
from lrtool.records import Sweep

GOLDEN = Path(__file__).parent.parent / "golden" / "curve.json"
PLACES = {"descent": -3.6, "divergence": -0.6}  # an AdamW-like curve: prior and anchors agree


def three(first=0, **arguments):
    return [sweep(first + k, **(PLACES | arguments)) for k in range(3)]


def log_lr(sweeps, **arguments):
    return np.log10(suggest(sweeps, **arguments).suggestion.lr)


def test_a_clear_curve_is_confident():
    finding = suggest(three(), optimizer="adamw", schedule="cosine", steps=300)
    suggestion = finding.suggestion
    assert suggestion.verdict == "confident"
    assert suggestion.method == "auto"
    assert suggestion.advice == ()
    assert suggestion.low < suggestion.lr < suggestion.high
    assert suggestion.high / suggestion.low <= 10**0.5
    assert (suggestion.for_schedule, suggestion.for_steps) == ("cosine", 300)
    assert suggestion.reason.startswith("The curve has a clear descent and the interval spans only")
    assert set(finding.suggestions) == set(METHODS)
    assert finding.suggestions["auto"].lr == suggestion.lr
    assert len(finding.curve.lr) == len(finding.curve.low)


def test_auto_by_hand_from_anchors_and_table(monkeypatch):
    monkeypatch.setitem(constants.OFFSETS["valley"], "adamw", 0.5)
    monkeypatch.setitem(constants.OFFSETS["divergence"], "adamw", -1.0)
    monkeypatch.setitem(constants.SPREADS["valley"], "optimizer", 0.4)
    monkeypatch.setitem(constants.SPREADS["divergence"], "optimizer", 0.4)
    monkeypatch.setattr(constants, "PRIOR_SPREAD", 1e9)  # no weight for the prior
    monkeypatch.setattr(constants, "ASYMMETRY", 0.0)
    fitted = fit(three())
    anchors = locate(fitted, fitted.loss)
    denser = np.log10(fitted.per_decade / 12.5)
    assert fitted.per_decade == pytest.approx(199 / 8, rel=0.05)
    expected = (anchors.valley + 0.3 * denser + 0.5 + anchors.divergence - 1.0) / 2
    assert log_lr(three(), optimizer="adamw", schedule="cosine") == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_constant_noise_moves_the_answer_less_than_a_tenth_of_a_decade(seed):
    clean = log_lr(three(noise=1e-4), optimizer="adamw")
    assert abs(log_lr(three(10 * seed, noise=0.1), optimizer="adamw") - clean) < 0.1
    for method in ("valley", "minimum"):
        gap = log_lr(three(10 * seed, noise=0.05), method=method)
        assert abs(gap - log_lr(three(noise=1e-4), method=method)) < 0.2


@pytest.mark.parametrize(("scale", "offset"), [(1e3, 0), (1, 1e3), (1, -12.3), (1e3, -1e4)])
@pytest.mark.parametrize("method", METHODS)
def test_loss_times_1000_or_plus_1000_or_negative_gives_the_same_answer(scale, offset, method):
    plain = suggest(three(), method=method).suggestion
    moved = suggest(three(scale=scale, offset=offset), method=method).suggestion
    assert moved.lr == pytest.approx(plain.lr, rel=1e-4)
    assert (moved.low, moved.high) == pytest.approx((plain.low, plain.high), rel=1e-3)
    assert moved.verdict == plain.verdict


@pytest.mark.parametrize("move", [3.0, -3.0])
@pytest.mark.parametrize("family", [None, "adaptive", "proportional"])
def test_the_answer_moves_with_the_rates(move, family):
    moved = three(
        lr=rates() * 10**move,
        descent=PLACES["descent"] + move,
        divergence=PLACES["divergence"] + move,
    )
    here = suggest(three(), family=family).suggestion
    there = suggest(moved, family=family).suggestion
    assert there.lr == pytest.approx(here.lr * 10**move, rel=1e-6)
    assert there.low == pytest.approx(here.low * 10**move, rel=1e-6)
    # a known optimizer: so far from its usual rate the anchors alone decide, without confidence
    known = suggest(moved, optimizer="adamw").suggestion
    assert abs(np.log10(known.lr / there.lr)) < 0.6
    assert known.verdict == "uncertain"
    side = "above" if move > 0 else "below"
    assert f"decades {side} the optimizer's usual one" in known.reason
    assert "Compare rates in short training runs." in known.advice


def test_the_prior_has_its_share_of_the_weight(monkeypatch):
    known = {"optimizer": "adamw", "schedule": "cosine"}
    below = three(descent=PLACES["descent"] - 0.3, divergence=PLACES["divergence"] - 0.3)
    monkeypatch.setattr(constants, "ASYMMETRY", 0.0)
    for anchor in ("valley", "divergence"):
        monkeypatch.setitem(constants.SPREADS[anchor], "optimizer", 0.4)
    monkeypatch.setattr(constants, "PRIOR_SPREAD", 1e9)
    alone = log_lr(below, **known)
    monkeypatch.setattr(constants, "PRIOR_SPREAD", 0.4)  # as much as each of two anchors
    third = (constants.PRIORS["adamw"] - alone) / 3
    assert third > 0.05
    assert log_lr(below, **known) - alone == pytest.approx(third)


def test_nan_at_step_51():
    lr = rates(1e-5, 1e-1, 100)
    one = sweep(0, lr=lr, descent=-4.2, divergence=3, stop=False)
    cut = recorded(lr, [*one.loss[:51], *[float("nan")] * 49])
    assert len(cut.lr) == 52
    suggestion = suggest([cut], optimizer="adamw").suggestion
    # below the rate at NaN, which is where the peers' suggestions end up
    assert suggestion.lr < cut.lr[-1] / 3
    assert suggestion.lr > cut.lr[0]


def expect_none(sweeps, reason, advice, **arguments):
    finding = suggest(sweeps, **arguments)
    suggestion = finding.suggestion
    assert suggestion.verdict == "none"
    assert (suggestion.lr, suggestion.low, suggestion.high) == (None, None, None)
    assert reason in suggestion.reason
    assert advice in suggestion.advice[0]
    assert finding.suggestions["auto"].lr is None
    assert reason.lower() in finding.suggestions["auto"].reason.lower()
    return finding


def test_fewer_than_ten_points():
    finding = expect_none(
        [sweep(0, lr=rates(steps=9), stop=False)],
        "The sweep has 8 usable steps, fewer than the 10 that a curve needs",
        "Take more steps in the sweep (find.steps).",
    )
    assert finding.curve is None
    assert set(finding.suggestions) == set(METHODS)


@pytest.mark.parametrize(
    ("loss", "skipped", "reason", "advice"),
    [
        ([2.3, float("nan")], None, "The loss was NaN at step 1", "Check the data"),
        ([2.3, 2.2, float("inf")], None, "The loss was infinite at step 2", "Check the data"),
        ([2, 2, 2, 9, 99, 1e4, 1e5], None, "The loss diverged at once", "Start the sweep lower"),
        ([2.0] * 40, [True] * 35 + [False] * 5, "skipped 35 of 40 steps", "bf16 or fp32"),
        ([2.0] * 5, None, "The sweep has 4 usable steps", "Take more steps"),
    ],
)
def test_too_short_to_say(loss, skipped, reason, advice):
    expect_none([recorded(rates(steps=len(loss)), loss, skipped=skipped)], reason, advice)


def test_interrupted_too_early():
    whole = sweep(0)
    few = Sweep(0, whole.lr[:6], whole.loss[:6], whole.skipped[:6], "interrupted")
    expect_none([few], "The sweep was interrupted after 5 usable steps", "Let the sweep run")
    more = Sweep(0, whole.lr[:60], whole.loss[:60], whole.skipped[:60], "interrupted")
    expect_none([more], "The sweep was interrupted before the loss fell", "Let the sweep run")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 3])
def test_flat(seed, count):
    flat = [sweep(10 * seed + k, curve=lambda u: np.full_like(u, INITIAL)) for k in range(count)]
    finding = expect_none(flat, "The loss is flat from 1e-7 to 9.1", "Raise find.end")
    assert finding.curve is not None
    valley = suggest(flat, method="valley").suggestion
    assert valley.verdict == "none"
    assert valley.reason == (
        "Valley has no rate: the loss never fell clearly below its initial value."
    )


def test_flat_then_nan():
    loss = [*sweep(0, curve=lambda u: np.full_like(u, INITIAL)).loss[:51], float("nan")]
    expect_none([recorded(rates()[:52], loss)], "NaN or infinite", "Check the data")


@pytest.mark.parametrize("slope", [0.02, 0.3, 3.0])
def test_monotonically_rising(slope):
    rising = three(curve=lambda u, **_: INITIAL + slope * (u + 7), noise=0.001)
    expect_none(rising, "The loss never fell: it rises from about the first rate, 1e-7", "lower")


def test_diverged_at_once():
    high = rates(10, 1e4, 100)
    expect_none([sweep(0, lr=high, **PLACES)], "The loss diverged at once", "Start the sweep lower")


def test_divergence_without_a_descent_is_uncertain():
    plateau = three(curve=lambda u, **_: INITIAL + np.exp(np.clip((u + 0.5) / 0.12, -50, 12)))
    suggestion = suggest(plateau, optimizer="sgd", schedule="cosine").suggestion
    assert suggestion.verdict == "uncertain"
    assert "only the rate at which it diverges is known" in suggestion.reason
    assert -2 < np.log10(suggestion.lr) < -0.5


def test_a_descent_to_the_end_of_the_range():
    suggestion = suggest(three(lr=rates(end=1e-3)), optimizer="adamw").suggestion
    assert suggestion.verdict == "uncertain"
    assert "still falls at the last rate" in suggestion.reason
    assert suggestion.advice[0] == "Raise find.end."
    assert suggestion.lr <= 1e-3
    cut = [
        Sweep(one.seed, one.lr[:90], one.loss[:90], one.skipped[:90], "interrupted")
        for one in three()
    ]
    suggestion = suggest(cut, optimizer="adamw").suggestion
    assert "still falls at the last rate" in suggestion.reason
    assert suggestion.advice[0] == "Let the sweep run to its end."


def test_a_rate_beyond_the_range_is_cut_back_to_it():
    known = {"family": "proportional", "schedule": "cosine"}
    suggestion = suggest(three(lr=rates(end=1e-4)), **known).suggestion
    assert suggestion.verdict == "uncertain"
    assert suggestion.lr == pytest.approx(rates(end=1e-4)[-2])
    assert "The loss still falls" in suggestion.reason
    assert "the best rate seems to lie above the range of the sweep" in suggestion.reason
    # the whole interval lies beyond; it is drawn out to hold the rate
    assert suggestion.low == suggestion.lr < suggestion.high


def test_a_start_within_the_descent():
    suggestion = suggest(three(lr=rates(start=2e-4, steps=120)), optimizer="adamw").suggestion
    assert suggestion.verdict == "uncertain"
    assert "falls from the first rate on" in suggestion.reason
    assert "Start the sweep lower (find.start)." in suggestion.advice


def test_spikes_and_skipped_steps_move_the_answer_little():
    clean = three()
    spiked = []
    for one in clean:
        loss, skipped = list(one.loss), list(one.skipped)
        loss[30] += 100
        loss[100] += 50
        loss[75], skipped[75] = float("inf"), True
        spiked.append(Sweep(one.seed, one.lr, tuple(loss), tuple(skipped), one.stop_reason))
    assert log_lr(spiked, optimizer="adamw") == pytest.approx(
        log_lr(clean, optimizer="adamw"), abs=0.05
    )


def test_sweeps_of_different_lengths():
    late, early = PLACES, PLACES | {"divergence": -2.0}
    mixed = [sweep(0, **late), sweep(1, **early), sweep(2, **late)]
    assert len(mixed[1].lr) < len(mixed[0].lr)
    lowest, between, highest = (
        log_lr(sweeps, optimizer="adamw")
        for sweeps in ([sweep(seed, **early) for seed in range(3)], mixed, three())
    )
    assert lowest + 0.1 < between < highest - 0.1


def test_one_sweep_three_sweeps_and_twice_the_density_agree():
    reference = log_lr(three(), optimizer="adamw")
    assert log_lr([sweep(7, **PLACES)], optimizer="adamw") == pytest.approx(reference, abs=0.1)
    one = [sweep(8, lr=rates(steps=600), **PLACES)]
    # the same curve at more steps a decade: the density is corrected for, by .3 / 2 decades per
    # tenfold at most
    assert log_lr(one, optimizer="adamw") == pytest.approx(reference, abs=0.15)


def test_linear_rates():
    linear = [sweep(k, lr=np.linspace(1e-7, 1, 400), **PLACES) for k in range(3)]
    exponential = log_lr(three(), optimizer="adamw")
    assert log_lr(linear, optimizer="adamw") == pytest.approx(exponential, abs=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_order_and_repetition_do_not_matter(method):
    sweeps = three()
    assert suggest(sweeps, method=method) == suggest(sweeps[::-1], method=method)


def test_a_constant_schedule_and_long_training_lower_the_rate():
    known = {"optimizer": "adamw"}
    falling = log_lr(three(), schedule="cosine", **known)
    assert log_lr(three(), schedule="constant", **known) == pytest.approx(falling - 0.3)
    assert log_lr(three(), schedule="cosine", steps=100, **known) == falling
    long = suggest(three(), schedule="cosine", steps=35_000, **known).suggestion
    assert np.log10(long.lr) < falling - 0.3
    short = suggest(three(), schedule="cosine", **known).suggestion
    assert long.high / long.low > short.high / short.low


@pytest.mark.parametrize(
    ("name", "same"),
    [("adam", "adamw"), ("nadam", "adamw"), ("AdamW", "adamw"), ("sgd+momentum", "sgd_momentum")],
)
def test_optimizers_that_share_constants(name, same):
    assert suggest(three(), optimizer=name) == suggest(three(), optimizer=same)


def test_unknown_optimizers_use_their_family():
    assert suggest(three(), optimizer="rmsprop") == suggest(three(), family="adaptive")
    mine = suggest(three(), optimizer="mine:Shampoo", family="proportional")
    assert mine == suggest(three(), family="proportional")
    assert suggest(three(), optimizer="mine:Shampoo") == suggest(three())
    # the less is known, the wider the interval
    widths = [
        np.log10(found.suggestion.high / found.suggestion.low)
        for found in (suggest(three(), optimizer="adamw"), mine, suggest(three()))
    ]
    assert widths == sorted(widths)
    assert suggest(three()).suggestion.verdict == "uncertain"


@pytest.mark.parametrize("method", ["valley", "slide", "steep", "minimum"])
def test_a_rule_gives_its_own_rate_with_the_bootstraps_interval(method):
    finding = suggest(three(), method=method)
    assert finding.suggestion.method == method
    assert finding.suggestion.lr == pytest.approx(finding.suggestions[method].lr)
    assert finding.suggestion.low <= finding.suggestion.lr <= finding.suggestion.high
    if method == "valley":
        fitted = fit(three())
        said = np.array([rules(fitted, loss)[method] for loss in fitted.replicates])
        low, high = np.log10([finding.suggestion.low, finding.suggestion.high])
        assert np.mean((low <= said) & (said <= high)) == pytest.approx(0.8, abs=0.02)
        wild = suggest(three(noise=0.3), method=method).suggestion
        assert wild.high / wild.low > finding.suggestion.high / finding.suggestion.low


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"unknown method 'vally' \(did you mean 'valley'\?\): "):
        suggest(three(), method="vally")
    with pytest.raises(UserError, match=r"unknown family 'adaptiv' \(did you mean 'adaptive'\?\)"):
        suggest(three(), family="adaptiv")
    with pytest.raises(UserError, match="there is no sweep to make a suggestion from"):
        suggest([])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    steps=st.integers(2, 120),
    noise=st.sampled_from([0.0, 0.01, 0.5, 5.0]),
    places=st.fixed_dictionaries({"descent": st.floats(-8, 2), "divergence": st.floats(-8, 2)}),
    method=st.sampled_from(METHODS),
    optimizer=st.sampled_from(["adamw", "sgd", "lion", "rmsprop", None]),
)
def test_any_curve_gives_a_sound_record(*, seed, steps, noise, places, method, optimizer):
    one = sweep(seed, lr=rates(steps=steps), noise=noise, **places)
    suggestion = suggest([one], method=method, optimizer=optimizer).suggestion
    assert suggestion.reason.endswith(".")
    if suggestion.verdict == "none":
        assert suggestion.lr is None
    else:
        assert one.lr[0] <= suggestion.lr * 1.000001
        assert suggestion.lr <= one.lr[-1]
        assert suggestion.low <= suggestion.lr <= suggestion.high
    assert (suggestion.verdict == "confident") == (suggestion.advice == ())
    if suggestion.verdict == "confident":
        assert suggestion.high / suggestion.low < 10**0.5001


def test_golden():
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    sweeps = [
        Sweep(
            seed=one["seed"],
            lr=tuple(one["lr"]),
            loss=tuple(one["loss"]),
            skipped=tuple(one["skipped"]),
            stop_reason=one["stop_reason"],
        )
        for one in stored["sweeps"]
    ]
    finding = suggest(sweeps, **stored["arguments"])
    expected = stored["suggestion"]
    assert finding.suggestion.verdict == expected["verdict"]
    for key in ("lr", "low", "high"):
        assert getattr(finding.suggestion, key) == pytest.approx(expected[key], rel=1e-6)
    for name, lr in stored["suggestions"].items():
        assert finding.suggestions[name].lr == pytest.approx(lr, rel=1e-6)


def test_the_same_sweep_twice_is_one_sweep():
    one = [sweep(seed=1)]
    assert suggest(one * 3, optimizer="adam") == suggest(one, optimizer="adam")
