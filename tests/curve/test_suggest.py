import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_constants import ROUND
from synthetic_sweeps import INITIAL, rates, recorded, sweep
from test_full_trial import full_of
from test_trials import ending, falling, trials_of

from lrtool.curve import combine, constants, trials, verdict
from lrtool.curve.anchors import locate, rules
from lrtool.curve.constants import Constants
from lrtool.curve.smooth import fit
from lrtool.curve.suggest import METHODS, suggest
from lrtool.errors import UserError
from lrtool.report.records import FirstUpdate, Sweep

GOLDEN = Path(__file__).parent.parent / "golden" / "curve.json"
PLACES = {"descent": -3.6, "divergence": -0.6}  # an AdamW-like curve: prior and anchors agree


def three(first=0, **arguments):
    return [sweep(first + k, **(PLACES | arguments)) for k in range(3)]


def log_lr(sweeps, **arguments):
    return np.log10(suggest(sweeps, **arguments).suggestion.lr)


@pytest.fixture
def round_numbers(monkeypatch):
    monkeypatch.setattr(constants, "fitted", lambda: ROUND)


# First updates that put the best rate where the curve of `three` does.
FIRST = FirstUpdate(critical_lr=0.1, ratio_lr=0.1, steps=5.0)


@pytest.mark.usefixtures("round_numbers")
def test_a_clear_curve_with_trials_is_confident():
    known = {"optimizer": "adamw", "schedule": "cosine", "level": 0.5, "steps": 300}
    swept = suggest(three(), first=FIRST, **known)
    finding = suggest(three(), first=FIRST, trials=trials_of((1.0, 1.0), error=0.02), **known)
    suggestion = finding.suggestion
    assert suggestion.verdict == "confident"
    assert suggestion.method == "auto"
    assert suggestion.advice == ()
    assert suggestion.low < suggestion.lr < suggestion.high
    assert suggestion.high / suggestion.low <= 10**0.5
    assert suggestion.high / suggestion.low < swept.suggestion.high / swept.suggestion.low
    assert (suggestion.for_schedule, suggestion.for_steps) == ("cosine", 300)
    assert suggestion.reason.startswith("The curve has a clear descent and the interval spans only")
    assert set(finding.suggestions) == {*METHODS, "sweep"}
    assert finding.suggestions["sweep"] == swept.suggestions["auto"] == swept.suggestions["sweep"]
    assert finding.suggestions["sweep"].lr == swept.suggestion.lr != suggestion.lr
    assert finding.suggestions["auto"].lr == suggestion.lr
    assert len(finding.curve.lr) == len(finding.curve.low)


def by_hand(fitted, first, optimizer):
    """The mean of anchors with equal spreads and correlations, and its spread."""
    anchors = locate(fitted, fitted.loss)
    found = {
        "minimum": anchors.minimum + 0.1 * np.log10(fitted.per_decade / 12.5),
        "rise": anchors.rise - 0.3 * np.log10(fitted.per_decade / 12.5),
        "divergence": anchors.divergence,
    }
    if first is not None:
        found |= {"critical": np.log10(first.critical_lr), "ratio": np.log10(first.ratio_lr)}
    means = [place + ROUND.offsets[name][optimizer] for name, place in found.items()]
    count = len(means)
    return np.mean(means), np.sqrt(0.16 * (1 + 0.25 * (count - 1)) / count)


@pytest.mark.usefixtures("round_numbers")
@pytest.mark.parametrize("first", [None, FIRST])
def test_auto_by_hand_from_anchors_and_constants(first):
    fitted = fit(three())
    assert fitted.per_decade == pytest.approx(199 / 8, rel=0.05)
    mean, spread = by_hand(fitted, first, "adamw")
    finding = suggest(three(), first=first, optimizer="adamw", level=0.5, steps=300)
    said = finding.suggestion
    # 0.6 standard deviations each way
    assert np.log10(said.lr) == pytest.approx(mean)
    assert np.log10([said.low, said.high]) == pytest.approx(
        [mean - 0.6 * spread, mean + 0.6 * spread]
    )
    assert np.log10(finding.centre) == pytest.approx(mean)
    assert np.log10(finding.trial_rates) == pytest.approx([mean - 0.4, mean + 0.4])


@pytest.mark.usefixtures("round_numbers")
@pytest.mark.parametrize(
    ("losses", "position"),
    [((1.0, 1.0), 0), ((1.0, 1.06), -0.5 * np.tanh(1)), ((1.03, 1.0), 0.5 * np.tanh(0.5))],
)
def test_trials_correct_it_by_hand(losses, position):
    mean, _ = by_hand(fit(three()), FIRST, "adamw")
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}
    rate = mean - 0.1 + 0.75 * position
    # an interval of five times the noise, a share of the descent, of .05 to .25 on either side
    for error, half in ((0.001, 0.05), (0.02, 0.1), (0.03, 0.15), (0.1, 0.25)):
        said = suggest(three(), trials=trials_of(losses, error=error), **known).suggestion
        assert np.log10(said.lr) == pytest.approx(rate)
        assert np.log10([said.low, said.high]) == pytest.approx([rate - half, rate + half])
        assert (said.verdict == "confident") == (error <= 0.04)
        if said.verdict == "uncertain":
            assert said.reason == "The descent in the trials is only known to within 10.0%."
            assert said.advice == (verdict.RACE,)


@pytest.mark.usefixtures("round_numbers")
def test_where_trials_count_half_so_do_their_interval_and_their_line():
    mean, spread = by_hand(fit(three()), FIRST, "adamw")
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": round(300 * 10**0.5)}
    said = suggest(three(), trials=trials_of((1.0, 1.0), error=0.02), **known).suggestion
    assert np.log10(said.lr) == pytest.approx(mean - 0.4 / 2 - 0.1 / 2, abs=1e-3)
    half = (0.1 + 0.6 * spread) / 2
    assert np.log10(said.high / said.lr) == pytest.approx(half, abs=1e-3)


def test_trials_that_tell_nothing_are_a_doubt():
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}
    swept = suggest(three(), **known).suggestion
    assert swept.verdict == "confident"
    stopped = trials_of((1.0, None), outcomes=("lost", "unfinished"), interrupted=True)
    for tried in (None, stopped):  # both before two had ended
        said = suggest(three(), trials=tried, cut_short=tried is None, **known).suggestion
        assert (said.lr, said.verdict) == (swept.lr, "uncertain")
        assert said.reason == "The trials did not come to an end."
    third = trials_of((1.0, 1.0), error=0.01, interrupted=True)
    said = suggest(three(), trials=third, **known).suggestion
    assert said.verdict == "uncertain"
    assert said.reason == "The trials did not come to an end."
    # a full trial that was due, and had not been measured yet
    said = suggest(three(), trials=trials_of((1.0, 1.0), error=0.01), cut_short=True, **known)
    assert said.suggestion.reason == "The trials did not come to an end."
    # a validation loss that is NaN before any training, though the training losses fell
    nan = trials_of((np.nan, np.nan), curves=[falling(1.0)] * 2, untrained_loss=np.nan)
    said = suggest(three(), trials=nan, **known).suggestion
    assert (said.lr, said.verdict) == (swept.lr, "uncertain")
    assert said.reason == "The losses of the trials could not be compared."
    # a descent that is smaller than its error, beside training losses that fell
    noise = trials_of((1.99, 2.0), curves=[falling(1.0)] * 2, error=0.05)
    said = suggest(three(), trials=noise, **known).suggestion
    assert said.verdict == "uncertain"
    assert "only known to within 100.0%" in said.reason


def test_a_rate_is_in_doubt_where_no_noise_of_a_validation_loss_is_known():
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}

    calm = tuple((2.0 if at < 9 else 1.0) + 0.01 * (-1) ** at for at in range(90))

    def said(**told):
        tried = trials_of((1.0, 1.0), curves=[calm] * 2, **told)
        return suggest(three(), trials=tried, **known).suggestion

    assert said(error=0.01).verdict == "confident"
    few, none = said(), said(measure="training")
    assert (few.verdict, none.verdict) == ("uncertain", "uncertain")
    assert few.reason == "The noise of so few validation batches is not known."
    assert few.advice == ("Use a larger validation set (data.validation).",)
    assert none.reason == "No validation loss was measured."
    assert none.advice == ("Use a validation set (data.validation).",)


@pytest.mark.usefixtures("round_numbers")
def test_what_the_trials_tell_of_overfitting_lowers_the_rate():
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}
    tried = trials_of((1.0, 1.9), curves=ending(1.0, 0.1), error=0.02)
    once = suggest(three(), trials=tried, passes=1.0, **known).suggestion
    often = suggest(three(), trials=tried, passes=10.0, **known).suggestion
    assert np.log10(often.lr / once.lr) == pytest.approx(-0.5, abs=1e-4)


@pytest.mark.usefixtures("round_numbers")
def test_where_they_overfit_a_whole_training_lowers_it_further():
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "passes": 10.0}
    two = trials_of((1.0, 1.9), curves=ending(1.0, 0.1), error=0.02)
    assert suggest(three(), trials=two, steps=300, **known).full_trial_rate is None  # one more
    rates, curves = (0.001, 0.01, 0.0003), ending(1.0, 0.1, 1.5)
    tried = trials_of((1.0, 1.9, 1.5), lr=rates, curves=curves, error=0.02)
    before = suggest(three(), trials=tried, steps=300, **known)
    rate = before.suggestion.lr
    assert before.full_trial_rate == pytest.approx(rate)
    assert suggest(three(), steps=300, **known).full_trial_rate is None
    assert suggest(three(), trials=tried, steps=301, **known).full_trial_rate is None
    seen_once = suggest(three(), trials=tried, steps=300, **(known | {"passes": 1.0}))
    assert seen_once.full_trial_rate is None
    assert (
        suggest(three(), trials=tried, steps=300, method="valley", **known).full_trial_rate is None
    )
    full = full_of(1.5, 1.0, 1.2, 1.5, lr=rate)
    after = suggest(three(), trials=tried, full_trial=full, steps=300, **known)
    assert after.suggestion.lr == pytest.approx(rate / 2)
    assert after.suggestion.low < rate / 2 < after.suggestion.high < rate
    assert after.full_trial_rate is None
    assert after.suggestion.verdict == "confident"
    failed = full_of(*[np.nan] * 4, lr=rate)  # nobody knows how far too high the rate is
    after = suggest(three(), trials=tried, full_trial=failed, steps=300, **known).suggestion
    assert (after.lr, after.verdict) == (pytest.approx(rate / 10), "uncertain")
    assert after.reason == "The whole training was never below its untrained loss."


@pytest.mark.parametrize(
    ("optimizer", "family", "verdict"),
    [
        ("adamw", None, "confident"),
        ("nadam", None, "confident"),
        ("rmsprop", "adaptive", "uncertain"),
        ("mine", "proportional", "uncertain"),
        ("mine", None, "uncertain"),
    ],
)
def test_an_optimizer_that_was_not_measured_is_a_doubt(optimizer, family, verdict):
    tried = trials_of((1.0, 1.0), error=0.02)
    known = {"optimizer": optimizer, "family": family, "level": 0.5, "steps": 300}
    said = suggest(three(), trials=tried, **known).suggestion
    assert said.verdict == verdict
    assert ("no training with this optimizer was measured" in said.reason.lower()) == (
        verdict == "uncertain"
    )


def test_long_trainings_have_no_trials_and_heed_none():
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine"}
    assert suggest(three(), steps=2999, **known).trial_rates is not None
    long = suggest(three(), steps=3000, **known)
    assert long.trial_rates is None
    heard = suggest(three(), steps=3000, trials=trials_of((1.0, 1.5)), **known)
    assert heard.suggestion == long.suggestion


def test_trials_that_do_not_bear_a_rate_out_are_a_doubt():
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine", "steps": 300}
    swept = suggest(three(), **known).suggestion
    flat = [falling(2.0)] * 2
    said = suggest(three(), trials=trials_of((2.0, 2.0), curves=flat), **known).suggestion
    assert (said.lr, said.verdict) == (swept.lr, "uncertain")
    assert said.reason == "The loss did not fall clearly in any trial."
    assert said.advice == ("Compare rates in a race (find.verify).",)
    said = suggest(three(), trials=trials_of((2.2, None), curves=flat), **known).suggestion
    assert said.lr < swept.lr
    assert said.verdict == "uncertain"
    assert said.reason.startswith("All trials ended above the untrained loss")
    assert said.advice == (
        (
            "Add a warm-up (train.schedule.warmup), train for more steps, or compare rates in a"
            " race (find.verify)."
        ),
    )
    rising = trials_of((2.2, None), curves=flat)
    said = suggest(three(), trials=rising, followed={verdict.WARMUP}, **known).suggestion
    assert said.advice == ("Train for more steps or compare rates in a race (find.verify).",)


def test_nobody_is_told_to_do_what_they_do():
    def advice(*followed):
        return verdict.nothing_fell(followed).advice

    assert advice() == (
        "Check the data and the loss function; a larger batch (data.batch_size) or a validation set"
        " (data.validation) shows a smaller descent."
    )
    assert advice(verdict.VALIDATION) == (
        "Check the data and the loss function; a larger batch (data.batch_size) shows a smaller"
        " descent."
    )
    assert advice(verdict.VALIDATION, verdict.FULL_BATCH) == "Check the data and the loss function."


def test_where_neither_sweep_nor_trials_fell_there_is_no_rate():
    # it stays level, then diverges a decade and more after the start: that alone may do
    level = three(curve=lambda u, **_: INITIAL + np.where(u > -1, 100 * (u + 1), 0), noise=0.001)
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine", "steps": 300}
    before = suggest(level, **known)
    assert before.suggestion.verdict == "uncertain"
    assert "never fell clearly" in before.suggestion.reason
    for ends in ((2.1, 2.2), (2.0, 2.0)):
        found = suggest(level, trials=trials_of(ends, curves=[falling(2.0)] * 2), **known)
        assert (found.suggestion.verdict, found.suggestion.lr) == ("none", None)
        assert found.suggestion.reason == ("The loss fell neither in the sweep nor in the trials.")
        assert found.suggestion.advice[0].startswith("Check the data and the loss function")
    assert suggest(level, trials=trials_of((1.0, 1.1)), **known).suggestion.lr is not None


@pytest.mark.parametrize(
    ("steps", "doubted"), [(99, True), (100, False), (None, False), (10_000, False), (10_001, True)]
)
def test_a_length_far_from_all_that_was_measured_is_a_doubt(steps, doubted):
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine"}
    said = suggest(three(), steps=steps, **known).suggestion
    assert (said.verdict == "uncertain") == doubted
    if doubted:
        assert said.reason == (
            f"The estimate was fitted on trainings of 100 to 10,000 steps, not of {steps:,}."
        )
        assert said.advice == ("Compare rates in a race (find.verify).",)


def test_a_sweep_that_starts_far_too_high_gives_no_rate():
    known = {"first": FirstUpdate(1e-6, 1e-6, 5.0), "optimizer": "adamw", "steps": 300}
    high = three(lr=rates(1e-3, 10, 80))
    found = suggest(high, **known)
    assert (found.suggestion.verdict, found.trial_rates) == ("none", None)
    assert found.suggestion.reason == "The best rate seems to lie below the range of the sweep."
    assert found.suggestion.advice == ("Start the sweep lower (find.start).",)


def test_the_first_updates_opening_raises_what_it_says():
    known = {"family": "adaptive", "schedule": "cosine", "steps": 300}
    one, three_times = (
        suggest(three(), first=replace(FIRST, opening=opening), **known).suggestion.lr
        for opening in (1.0, 3.0)
    )
    assert 1.2 < three_times / one < 3
    sgd = {**known, "family": "proportional"}
    one, ten = (
        suggest(three(), first=replace(FIRST, opening=opening), **sgd).suggestion.lr
        for opening in (1.0, 10.0)
    )
    assert one == ten


def test_trials_are_for_auto_alone():
    known = {"first": FIRST, "optimizer": "adamw"}
    assert suggest(three(), **known).trial_rates is not None
    assert suggest(three(), method="valley", **known).trial_rates is None


@pytest.mark.usefixtures("round_numbers")
def test_trials_stand_where_a_training_of_300_steps_would_be_best():
    """Theirs is no longer one's."""
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine"}
    usual, longer = suggest(three(), steps=300, **known), suggest(three(), steps=600, **known)
    assert longer.trial_rates == pytest.approx(usual.trial_rates)
    assert np.log10(longer.centre / usual.centre) == pytest.approx(-0.4 * np.log10(2))
    assert np.log10(suggest(three(), steps=30, **known).trial_rates) == pytest.approx(
        np.log10(usual.trial_rates) + 0.4
    )


@pytest.mark.parametrize("seed", range(5))
def test_constant_noise_moves_the_answer_less_than_a_tenth_of_a_decade(seed):
    clean = log_lr(three(noise=1e-4), optimizer="adamw")
    assert abs(log_lr(three(10 * seed, noise=0.1), optimizer="adamw") - clean) < 0.1
    # and so for the sweep that `find` makes by default
    lr = rates(steps=100)
    clean = log_lr([sweep(0, noise=1e-4, lr=lr, **PLACES)], optimizer="adamw", first=FIRST)
    noisy = log_lr([sweep(seed, noise=0.1, lr=lr, **PLACES)], optimizer="adamw", first=FIRST)
    assert abs(noisy - clean) < 0.1
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
    far = FirstUpdate(FIRST.critical_lr * 10**move, FIRST.ratio_lr * 10**move, 5.0)
    for losses in (None, (1.0, 1.05)):
        trial = losses and trials_of(losses)
        here = suggest(three(), first=FIRST, trials=trial, family=family)
        there = suggest(moved, first=far, trials=trial, family=family)
        if trial is None:
            assert there.trial_rates == pytest.approx(
                np.array(here.trial_rates) * 10**move, rel=1e-6
            )
        for name in ("lr", "low", "high"):
            expected = getattr(here.suggestion, name) * 10**move
            assert getattr(there.suggestion, name) == pytest.approx(expected, rel=1e-6)
    # a known optimizer: so far from its usual rate the anchors alone decide, without confidence
    known = suggest(moved, first=far, optimizer="adamw").suggestion
    assert known.verdict == "uncertain"
    side = "above" if move > 0 else "below"
    assert f"decades {side} the optimizer's usual one" in known.reason
    assert "Compare rates in a race (find.verify)." in known.advice


@pytest.mark.usefixtures("round_numbers")
def test_the_first_update_alone_where_the_curve_says_little():
    """No minimum and no divergence before the sweep's end: the first update has more to say."""
    known = {"optimizer": "adamw", "schedule": "cosine", "steps": 300}
    near, far = (FirstUpdate(rate, rate, 5.0) for rate in (0.1, 0.2))
    cut = [sweep(k, lr=rates(end=1e-3), **PLACES) for k in range(3)]
    anchors = locate(fit(cut), fit(cut).loss)
    assert (anchors.rise, anchors.divergence) == (None, None)
    gap = log_lr(three(), first=far, **known) - log_lr(three(), first=near, **known)
    assert gap == pytest.approx(np.log10(2) * 2 / 5)  # two of five places
    centres = [suggest(cut, first=first, **known).centre for first in (near, far)]
    assert np.log10(centres) == pytest.approx(np.log10(1e-3), abs=0.1)  # cut back to the range


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
    assert set(finding.suggestions) == {*METHODS, "sweep"}


@pytest.mark.parametrize(
    ("loss", "skipped", "reason", "advice"),
    [
        (
            [float("nan")] * 2,
            None,
            "The loss was NaN at step 0",
            "Check the data and the loss function.",
        ),
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
    few = Sweep(0, whole.lr[:6], whole.loss[:6], whole.skipped, "interrupted")
    expect_none([few], "The sweep was interrupted after 5 usable steps", "Let the sweep run")
    more = Sweep(0, whole.lr[:60], whole.loss[:60], whole.skipped, "interrupted")
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


def test_a_repeat_that_breaks_at_once_counts_for_nothing_whatever_its_place():
    [good] = three()[:1]
    flat = sweep(1, curve=lambda u: np.full_like(u, INITIAL))
    nan = replace(good, lr=good.lr[:1], loss=(np.nan,), skipped=(), stop_reason="nan")
    one = suggest([good], optimizer="adamw").suggestion
    for repeats in ([good, nan], [nan, good]):
        assert suggest(repeats, optimizer="adamw").suggestion == one
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}
    tried = trials_of((1.0, 1.0), error=0.01)
    for repeats in ([flat, nan], [nan, flat]):
        said = suggest(repeats, trials=tried, **known).suggestion
        assert said.reason == "The loss fell only in the trials, not in the sweep."


def test_flat_then_nan():
    loss = [*sweep(0, curve=lambda u: np.full_like(u, INITIAL)).loss[:51], float("nan")]
    expect_none([recorded(rates()[:52], loss)], "NaN or infinite", "Check the data")


@pytest.mark.parametrize("slope", [0.02, 0.3, 3.0])
def test_monotonically_rising(slope):
    rising = three(curve=lambda u, **_: INITIAL + slope * (u + 7), noise=0.001)
    expect_none(rising, "The loss never fell: it rises right from the first rate, 1e-7", "lower")


def test_diverged_at_once():
    high = rates(10, 1e4, 100)
    expect_none([sweep(0, lr=high, **PLACES)], "The loss diverged at once", "Start the sweep lower")


def test_divergence_without_a_descent_is_uncertain():
    plateau = three(curve=lambda u, **_: INITIAL + np.exp(np.clip((u + 0.5) / 0.12, -50, 12)))
    suggestion = suggest(plateau, optimizer="sgd", level=0.5).suggestion
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
        Sweep(one.seed, one.lr[:90], one.loss[:90], one.skipped, "interrupted") for one in three()
    ]
    suggestion = suggest(cut, optimizer="adamw").suggestion
    assert "still falls at the last rate" in suggestion.reason
    assert suggestion.advice[0] == "Let the sweep run to its end."


def test_a_sweep_that_was_interrupted_after_its_minimum_is_a_doubt():
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 3000}  # without trials
    assert suggest(three(), **known).suggestion.verdict == "confident"
    whole, *_ = three()
    end = int(np.searchsorted(whole.lr, 10**-1.2))
    cut = Sweep(0, whole.lr[:end], whole.loss[:end], whole.skipped, "interrupted")
    said = suggest([cut], **known).suggestion
    assert (said.verdict, said.reason) == ("uncertain", "A sweep was interrupted.")
    assert said.advice == ("Let the sweep run to its end.",)


@pytest.mark.usefixtures("round_numbers")
@pytest.mark.parametrize(
    ("start", "shown"), [(-3.2, True), (-2.8, True), (-2.4, False), (-2.2, False), (-2.0, False)]
)
def test_trials_that_train_below_a_sweep_that_starts_too_high_have_a_rate(start, shown):
    """The first update puts it at 10^−2.2 or so, the sweep of lower starts at less."""
    high = sweep(0, lr=rates(start=10**start), descent=-3.6, divergence=-1.2)
    first = FirstUpdate(0.03, 0.03, 5.0)
    known = {"first": first, "optimizer": "adamw", "level": 0.5, "steps": 300}
    before = suggest([high], **known)
    assert (before.suggestion.lr is not None) == shown
    lowest = before.trial_rates[0]
    fell = trials_of((1.0, 1.2), lr=before.trial_rates, error=0.01)
    said = suggest([high], trials=fell, **known).suggestion
    assert said.verdict == "uncertain"
    assert lowest * 0.999 < said.lr < before.trial_rates[1]
    flat = trials_of((2.0, 2.0), lr=before.trial_rates, curves=[falling(2.0)] * 2, error=0.01)
    said = suggest([high], trials=flat, **known).suggestion
    assert said.verdict == ("uncertain" if start == -3.2 else "none")  # that one shows a descent


@pytest.mark.usefixtures("round_numbers")
def test_trials_that_train_have_a_rate_however_far_below_the_sweep_the_estimate_lies():
    high = sweep(0, lr=rates(start=10**-3.2), descent=-3.6, divergence=-1.2)
    known = {"first": FIRST, "optimizer": "adamw", "level": 0.5, "steps": 300}
    rates_of = suggest([high], **known).trial_rates
    tried = trials_of((1.0, 1.9), lr=rates_of, curves=ending(1.0, 0.1), error=0.02)
    said = suggest([high], trials=tried, passes=1e4, **known).suggestion  # two decades lower
    assert (said.lr, said.verdict) == (pytest.approx(10**-3.2), "uncertain")
    assert "the best rate seems to lie below the range of the sweep" in said.reason
    rose = trials_of((2.5, 2.6), lr=rates_of, curves=[falling(2.5)] * 2, error=0.02)
    said = suggest([high], trials=rose, passes=1e4, **known).suggestion
    assert "all trials ended above the untrained loss" in said.reason


def test_a_rate_beyond_the_range_is_cut_back_to_it():
    first = FirstUpdate(1000.0, 1000.0, 5.0)
    suggestion = suggest(three(lr=rates(end=1e-4)), first=first, level=0.5).suggestion
    assert suggestion.verdict == "uncertain"
    assert suggestion.lr == pytest.approx(rates(end=1e-4)[-2])
    assert "The loss still falls" in suggestion.reason
    assert "the best rate seems to lie above the range of the sweep" in suggestion.reason
    # the whole interval lies beyond; it is drawn out to hold the rate
    assert suggestion.low == suggestion.lr < suggestion.high


def test_a_trial_beyond_a_sweep_that_diverged_is_part_of_the_range(monkeypatch):
    monkeypatch.setattr(combine, "MISLED", 99.0)
    first = FirstUpdate(1e12, 1e12, 5.0)
    known = {"first": first, "schedule": "cosine", "steps": 300}
    last = three()[0].lr[len(three()[0].loss) - 1]
    assert three()[0].stop_reason == "diverged"
    for beyond in (last * 1.1, last * 1.2):
        trial = trials_of((1.1, 1.0), lr=(last / 2, beyond))
        said = suggest(three(), trials=trial, **known)
        assert said.suggestion.lr == pytest.approx(beyond)
        assert said.suggestions["sweep"].lr is None or said.suggestions["sweep"].lr <= last
    alone = suggest(three(), **known).suggestion
    assert alone.lr <= last * 1.000001
    # a sweep that ended where it was to end: not beyond it
    short = three(lr=rates(end=1e-4))
    said = suggest(short, trials=trials_of((1.1, 1.0), lr=(1e-4, 1e-3)), **known).suggestion
    assert said.lr <= 1e-4


def _in_single_precision(sweeps, offset):
    """The sweeps with a constant added to their losses, each rounded as a tensor would be."""
    return [
        replace(one, loss=tuple(float(np.float32(loss + offset)) for loss in one.loss))
        for one in sweeps
    ]


def test_a_constant_that_drowns_the_loss_is_named():
    known = {"first": FIRST, "optimizer": "adamw", "schedule": "cosine", "steps": 300}
    for offset in (0.0, 100.0, 1000.0):
        said = suggest(_in_single_precision(three(), offset), **known).suggestion
        assert said.verdict == "confident"
    said = suggest(_in_single_precision(three(), 1e6), **known).suggestion
    assert said.verdict in {"uncertain", "none"}
    assert "The loss is about 1e6 and changes by little more than float32 resolves" in said.reason
    assert "Subtract the constant part of the loss, or rescale it." in said.advice
    # a loss that does not change at all is flat, and nothing else
    constant = [sweep(0, curve=lambda u: np.full_like(u, INITIAL), noise=0.0)]
    assert "float32" not in suggest(constant, **known).suggestion.reason


def test_a_start_within_the_descent():
    suggestion = suggest(three(lr=rates(start=2e-4, steps=120)), optimizer="adamw").suggestion
    assert suggestion.verdict == "uncertain"
    assert "falls from the first rate on" in suggestion.reason
    assert "Start the sweep lower (find.start)." in suggestion.advice


def test_spikes_and_skipped_steps_move_the_answer_little():
    clean = three()
    spiked = []
    for one in clean:
        loss = list(one.loss)
        loss[30] += 100
        loss[100] += 50
        loss[75] = float("inf")
        spiked.append(Sweep(one.seed, one.lr, tuple(loss), (75,), one.stop_reason))
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
    # the same curve at more steps a decade: the density is corrected for, by 0.3 / 2 decades per
    # tenfold at most
    assert log_lr(one, optimizer="adamw") == pytest.approx(reference, abs=0.15)


def test_linear_rates():
    linear = [sweep(k, lr=np.linspace(1e-7, 1, 400), **PLACES) for k in range(3)]
    exponential = log_lr(three(), optimizer="adamw")
    # it has 300 steps in its last decade: the correction for so dense a sweep is large
    assert log_lr(linear, optimizer="adamw") == pytest.approx(exponential, abs=0.4)


@pytest.mark.parametrize("method", METHODS)
def test_order_and_repetition_do_not_matter(method):
    sweeps = three()
    assert suggest(sweeps, method=method) == suggest(sweeps[::-1], method=method)


@pytest.mark.usefixtures("round_numbers")
def test_a_constant_schedule_and_long_training_lower_the_rate():
    known = {"optimizer": "adamw"}
    falling = log_lr(three(), level=0.5, **known)
    assert log_lr(three(), level=1.0, **known) == pytest.approx(falling - 0.3)
    assert log_lr(three(), level=0.5, steps=300, **known) == falling
    long = log_lr(three(), level=0.5, steps=3000, **known)
    assert long == pytest.approx(falling - 0.4)
    other = suggest(three(), schedule="zigzag", level=0.5, **known).suggestion
    assert (np.log10(other.lr), other.for_schedule) == (falling, "zigzag")


@pytest.mark.parametrize(
    ("name", "same"),
    [("adam", "adamw"), ("nadam", "adamw"), ("AdamW", "adamw"), ("sgd+momentum", "sgd_momentum")],
)
def test_optimizers_that_share_constants(name, same):
    assert suggest(three(), optimizer=name) == suggest(three(), optimizer=same)


@pytest.mark.usefixtures("round_numbers")
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
    assert finding.suggestion.verdict == "uncertain"
    words = f"the interval says how well the rule {method} repeats, not how well its rate trains"
    assert words in finding.suggestion.reason
    assert "Use find.method auto." in finding.suggestion.advice
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


def test_golden(monkeypatch):
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    known = Constants.from_plain(stored["constants"])
    monkeypatch.setattr(constants, "fitted", lambda: known)
    sweeps = [
        Sweep(
            seed=one["seed"],
            lr=tuple(one["lr"]),
            loss=tuple(one["loss"]),
            skipped=tuple(index for index, skipped in enumerate(one["skipped"]) if skipped),
            stop_reason=one["stop_reason"],
        )
        for one in stored["sweeps"]
    ]
    finding = suggest(sweeps, first=FirstUpdate(**stored["first"]), **stored["arguments"])
    expected = stored["suggestion"]
    assert finding.suggestion.verdict == expected["verdict"]
    for key in ("lr", "low", "high"):
        assert getattr(finding.suggestion, key) == pytest.approx(expected[key], rel=1e-6)
    assert finding.trial_rates == pytest.approx(stored["trials"], rel=1e-6)
    for name, lr in stored["suggestions"].items():
        assert finding.suggestions[name].lr == pytest.approx(lr, rel=1e-6)


def test_a_flat_sweep_with_trials_that_fell_is_uncertain():
    """A loss may take longer to fall than a sweep gives it."""
    flat = [sweep(0, curve=lambda u: np.full_like(u, INITIAL), lr=rates(steps=100))]
    known = {"first": FIRST, "optimizer": "adamw", "steps": 300}
    asked = suggest(flat, **known)
    assert asked.suggestion.verdict == "none"
    assert asked.centre is None
    lower, higher = asked.trial_rates
    assert rates()[0] < lower < higher < rates()[-1]
    found = suggest(flat, trials=trials_of((1.0, 1.1)), **known).suggestion
    assert found.verdict == "uncertain"
    assert found.reason.startswith("The loss fell only in the trials, not in the sweep")
    assert found.advice[0] == "Compare rates in a race (find.verify)."
    assert found.low <= found.lr <= found.high
    named = suggest(flat, trials=trials_of((1.0, 1.1)), **known).suggestions
    assert (named["sweep"].lr, named["auto"].lr) == (None, found.lr)
    assert named["sweep"].reason.startswith("the loss is flat")
    better = suggest(flat, trials=trials_of((1.1, 1.0)), **known).suggestion
    assert better.lr > found.lr
    # trials that did not fall leave it at that
    nothing = trials_of((2.0, 2.0), curves=[falling(2.0, seed=seed) for seed in (1, 2)])
    expect_none(flat, "The loss is flat", "Raise find.end", trials=nothing, **known)
    # nor does a validation loss that fell by ever so little
    nothing = trials_of((1.999, 1.99), curves=[falling(2.0, noise=0.001)] * 2, error=1e-5)
    assert trials.fell(nothing)
    expect_none(flat, "The loss is flat", "Raise find.end", trials=nothing, **known)
    # and without a first update there is no place to try
    assert suggest(flat, optimizer="adamw", steps=300).trial_rates is None


def test_what_may_have_been_a_descent_is_answered_with_a_doubt():
    """A validation loss that fell by two of its errors, after a flat sweep."""
    flat = [sweep(0, curve=lambda u: np.full_like(u, INITIAL), lr=rates(steps=100))]
    known = {"first": FIRST, "optimizer": "adamw", "steps": 300}
    for drop, found in ((0.2, True), (0.14, False)):
        curves = [falling(1.8, start=1.8)] * 2
        tried = trials_of((2 - drop, 2.05), curves=curves, error=0.1)
        assert not trials.fell(tried)
        said = suggest(flat, trials=tried, **known).suggestion
        assert (said.verdict == "uncertain", said.lr is not None) == (found, found)
        if found:
            assert said.reason.startswith(
                "The loss fell neither in the sweep nor, by more than its noise, in the trials"
            )
            assert verdict.RACE in said.advice


def test_after_a_flat_sweep_a_validation_loss_must_fall_by_half_the_noise_of_a_batch():
    noise = 0.1 * np.random.default_rng(0).normal(size=100)
    flat = [recorded(rates(steps=100), INITIAL + noise, stop=False)]
    known = {"first": FIRST, "optimizer": "adamw", "steps": 300}
    assert suggest(flat, **known).suggestion.verdict == "none"
    batch = np.diff(np.quantile(noise[1:], (0.16, 0.84)))[0] / 2
    assert batch == pytest.approx(0.1, rel=0.2)
    hidden = falling(1.8, start=1.8, noise=0.1)  # training losses that show nothing
    for share, found in ((1.05, True), (0.95, False)):
        ends = (2 - share * batch / 2, 2.1)
        tried = trials_of(ends, curves=[hidden] * 2, error=0.01)
        assert not trials.fell_in_training(tried)
        said = suggest(flat, trials=tried, **known).suggestion
        assert (said.verdict == "uncertain", said.lr is not None) == (found, found)
    # beside a trial that diverged too
    tried = trials_of((1.5, None), curves=[hidden] * 2, error=0.01)
    assert suggest(flat, trials=tried, **known).suggestion.lr is not None


def test_what_diverged_at_once_is_not_tried():
    high = rates(10, 1e4, 100)
    finding = suggest([sweep(0, lr=high, **PLACES)], first=FIRST, optimizer="adamw", steps=300)
    assert (finding.trial_rates, finding.suggestion.verdict) == (None, "none")
    rising = three(curve=lambda u, **_: INITIAL + 0.3 * (u + 7), noise=0.001)
    finding = suggest(rising, first=FIRST, optimizer="adamw", steps=300)
    assert (finding.trial_rates, finding.suggestion.verdict) == (None, "none")


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    losses=st.tuples(st.floats(0, 3) | st.none(), st.floats(0, 3) | st.none()),
    steps=st.sampled_from([None, 30, 300, 1000, 3000, 10**6]),
    ratio=st.none() | st.floats(1e-9, 1e5),
    optimizer=st.sampled_from(["sgd", "lion", "rmsprop", None]),
)
def test_any_trials_give_a_sound_record(*, seed, losses, steps, ratio, optimizer):
    one = [sweep(seed, lr=rates(steps=100), noise=0.1)]
    first = FirstUpdate(None, ratio, 1.0)
    known = {"first": first, "optimizer": optimizer, "steps": steps}
    asked = suggest(one, **known)
    assert (asked.trial_rates is None) == (trials.weight(steps) == 0)
    said = suggest(one, trials=trials_of(losses), **known).suggestion
    assert said.verdict != "none"
    # the rate stays in what was swept; where it was moved there, its interval says from where
    assert one[0].lr[0] <= said.lr * 1.000001
    assert said.lr <= one[0].lr[-1] * 1.000001
    assert said.low <= said.lr * 1.000001
    assert said.lr <= said.high * 1.000001


def test_the_same_sweep_twice_is_one_sweep():
    one = [sweep(seed=1)]
    assert suggest(one * 3, optimizer="adam") == suggest(one, optimizer="adam")
