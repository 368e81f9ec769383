"""The race's decisions, by numbers worked out by hand, and that no scale or place matters."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from round_constants import ROUND
from synthetic_sweeps import sweep

from lrtool.curve import constants, race
from lrtool.curve.race import candidates, choose, diverged, outward, survivors
from lrtool.curve.suggest import suggest
from lrtool.report.records import Candidate, Finding, MethodSuggestion, Race, Suggestion

NAN = math.nan


def test_steps_are_a_fiftieth_of_the_training_but_no_fewer_than_100():
    assert [race.length(n) for n in (None, 301, 5000, 5049, 90_000)] == [100, 100, 100, 100, 1800]


def test_a_short_training_is_raced_as_a_whole():
    assert [race.length(n) for n in (30, 100, 300)] == [30, 100, 300]


def test_what_a_race_may_cost():
    # 4 × 100 steps and 9 measurements: before, and of four half-way and at the end
    assert race.too_expensive(4000, 0) is None
    assert race.too_expensive(4900, 10) is None
    assert race.too_expensive(4899, 10) == (
        "a race of 4 × 100 steps and its evaluations would take more than 10% of the training's "
        "4,899 steps; --verify runs it anyway"
    )
    assert race.too_expensive(100_000, 10) is None
    assert "not known" in race.too_expensive(None, 0)


@pytest.mark.parametrize(
    ("centre", "outcome", "expected"),
    [
        (-2.0, "lost", -2.2),  # the mean of −2 and −2.4
        (-2.8, "lost", -2.6),
        (-1.0, "lost", -2.15),  # no further than half-way to the next candidate
        (-2.0, "dropped", -2.4),  # what dropped out does not count
        (-2.0, "diverged", -2.4),
        (-2.0, "unfinished", -2.2),
    ],
)
def test_the_mean_of_a_race_and_the_estimate(centre, outcome, expected):
    choice = choose([-3.0, -2.5, -2.0], np.array([[1.72], [1.02], [1.32]]), [64])
    assert choice.log_lr == pytest.approx(-2.4)
    record = replace(
        RACE,
        candidates=(
            candidate(10**-2.5, "lower"),
            candidate(10**-2.0, "suggestion", outcome=outcome),
        ),
    )
    assert race.average(choice, centre, record).log_lr == pytest.approx(expected)
    nothing = choose([-1.0], [[NAN]], [64])
    assert race.average(nothing, centre, record) is nothing


def test_candidates_stand_half_a_decade_apart():
    assert candidates(-2.0, None) == [(-2.5, "lower"), (-2.0, "suggestion"), (-1.5, "higher")]


@pytest.mark.parametrize(
    ("prior", "races"),
    [(-2.25, True), (-2.2, False), (-1.75, True), (-1.0, True), (-0.99, False), (-3.01, False)],
)
def test_the_usual_rate_races_if_it_is_neither_near_another_nor_far(prior, races):
    assert ((prior, "prior") in candidates(-2.0, prior)) == races


def test_the_usual_rate_is_known_by_the_optimizers_name():
    assert race.usual_rate("adam") == race.usual_rate("adamw") is not None
    assert race.usual_rate("sgd+momentum") == race.usual_rate("sgd_momentum")
    assert race.usual_rate("mine") is race.usual_rate(None) is None


def test_half_way_the_diverged_and_the_clearly_worse_are_out():
    # untrained 2, best 1: beyond 1.5 is clearly worse
    losses = [1.5, 1.0, 1.51, 2.01, NAN, math.inf]
    assert survivors(losses, 2.0).tolist() == [True, True, False, False, False, False]
    assert diverged(losses, 2.0).tolist() == [False, False, False, True, True, True]
    assert survivors([3.0, NAN, math.inf], 2.0).tolist() == [True, False, False]  # all may recover
    assert not survivors([NAN, math.inf], 2.0).any()
    assert survivors([-11.0, -10.4], -10.0).tolist() == [True, False]


def test_one_more_beyond_a_best_one_at_the_edge():
    assert outward([-2.5, -2.0, -1.5], [3, 2, 1]) == (-1.0, "outward")
    assert outward([-2.5, -2.0, -1.5], [1, 2, 3]) == (-3.0, "outward")
    assert outward([-2.5, -2.0, -1.5], [2, 1, 3]) is None
    assert outward([-2.5, -2.0, -1.5], [NAN, 1, NAN]) is None  # it has worse neighbours
    assert outward([-2.5, -2.0, -1.5, -1.0], [3, 2, 1, NAN]) is None
    assert outward([-2.5, -2.0, -1.5], [NAN] * 3) is None


def test_a_parabola_without_noise_gives_its_own_minimum():
    x = np.array([-3.0, -2.5, -2.0])
    y = 1 + 2 * (x + 2.4) ** 2
    choice = choose(x, np.column_stack([y, y]), [1, 1])
    assert choice.log_lr == pytest.approx(-2.4)
    assert (choice.best, choice.doubts) == (1, [])


def test_the_smallest_rate_within_a_standard_error_by_hand():
    # means 1.5, 1, 1.5 at −1, 0, 1: y = 1 + x²/2, lowest at 0, curvature ½
    losses = [[1.4, 1.6], [0.9, 1.1], [1.3, 1.7]]
    # best − second: −0.5 and −0.5: no spread; of best − third: −0.4, −0.6
    choice = choose([-1, 0, 1], losses, [1, 1])
    assert choice.errors == pytest.approx([0, 0, 0.1])
    assert choice.log_lr == pytest.approx(0, abs=1e-6)
    # exchange the first and the third: the second best is the lower rate of the two equal ones
    choice = choose([-1, 0, 1], losses[::-1], [1, 1])
    assert choice.errors == pytest.approx([0.1, 0, 0])
    assert choice.log_lr == -0.15  # √(0.1 / ½) would be further than a few examples may decide


def test_a_wide_error_goes_no_further_than_the_neighbours():
    losses = [[0.0, 2.2], [2.0, 0.0], [3.0, 0.0]]
    choice = choose([-1, 0, 1], losses, [1, 1])
    assert choice.best == 1
    # means 1.1, 1, 1.5 at −1, 0, 1: slopes −0.1 and 0.5, curvature 0.3, lowest at −½ + 1/6
    assert choice.log_lr == pytest.approx(-1 / 2 + 1 / 6 - 0.15)


def test_a_standard_error_weighs_chunks_by_their_size():
    # mean (3·1 + 1·5) / 4 = 2; residuals −1 and 3, weighted −¾ and ¾
    assert race.standard_error([1, 5], [3, 1]) == pytest.approx(math.sqrt(2 * 2 * 0.75**2))
    values = np.random.default_rng(0).normal(size=40)
    usual = values.std(ddof=1) / math.sqrt(40)
    assert race.standard_error(values, np.full(40, 7)) == pytest.approx(usual)
    assert race.standard_error([2.0], [64]) == 0
    sizes = np.array([3.0, 1.0])
    race.standard_error([1, 5], sizes)
    assert sizes.tolist() == [3, 1]


def test_means_are_weighted_by_the_chunks_sizes():
    choice = choose([-1, 0], [[0.0, 9.0], [1.0, 5.0]], [9, 1])  # 0.9 and 1.4
    assert choice.best == 0


def test_unequal_distances():
    x = np.array([-2.5, -2.2, -2.0, -1.5])
    y = 3 + 0.5 * (x + 2.15) ** 2
    choice = choose(x, y[:, None], [64])
    assert choice.log_lr == pytest.approx(-2.15)


def test_the_neighbours_are_those_that_finished():
    x = np.array([-3.0, -2.5, -2.0, -1.5, -1.0])
    y = 3 + 0.5 * (x + 2.15) ** 2
    y[1] = NAN
    assert choose(x, y[:, None], [64]).log_lr == pytest.approx(-2.15)


def test_the_order_of_the_candidates_does_not_matter():
    x, y = np.array([-1.5, -2.5, -2.0]), np.array([[1.3, 1.5], [1.6, 1.5], [1.2, 1.0]])
    one, two = choose(x, y, [2, 1]), choose(np.sort(x), y[np.argsort(x)], [2, 1])
    assert one.log_lr == two.log_lr
    assert (one.best, two.best) == (2, 1)


def test_without_a_neighbour_on_each_side_it_is_the_best_one_itself():
    # both neighbours were dropped: it is bracketed, but stands alone
    choice = choose([-1.0, -0.5, 0.0], [[NAN], [1.0], [NAN]], [64])
    assert choice.log_lr == -0.5
    assert [d.reason for d in choice.doubts] == ["only 0.32 was left at the end of the race"]
    choice = choose([-1.0, -0.5, 0.0], [[NAN], [1.0], [1.5]], [64])
    assert (choice.log_lr, choice.doubts) == (-0.5, [])


@pytest.mark.parametrize(
    ("losses", "rate", "end", "way"),
    [((1, 2), "0.1", "lowest", "below"), ((2, 1), "1", "highest", "above")],
)
def test_a_best_one_at_the_edge_is_doubted(losses, rate, end, way):
    choice = choose([-1.0, 0.0], np.array(losses)[:, None], [64])
    [doubt] = choice.doubts
    assert doubt.reason == f"the best rate of the race, {rate}, is also its {end}"
    assert doubt.advice == f"Train with rates {way} {rate} as well, and compare."


def test_equal_losses_go_to_the_lowest_rate():
    assert choose([-1.0, -2.0, 0.0], [[1.0], [1.0], [1.0]], [64]).log_lr == -2.0


def test_nothing_left():
    choice = choose([-1.0, 0.0], [[NAN], [NAN]], [64])
    assert (choice.log_lr, choice.best) == (None, None)
    assert choice.doubts[0].reason == "every candidate of the race diverged"
    choice = choose([-1.0, 0.0], [[NAN], [NAN]], [64], interrupted=True)
    assert choice.doubts[0].reason.startswith("the race was interrupted before")


def test_an_interruption_is_a_doubt():
    x, y = [-1.0, -0.5, 0.0], [[1.5], [1.0], [1.5]]
    choice = choose(x, y, [64], interrupted=True)
    assert choice.log_lr == pytest.approx(-0.5)
    assert [d.reason for d in choice.doubts] == ["the race was interrupted"]


places = st.lists(st.integers(-12, 12), min_size=1, max_size=6, unique=True)


@st.composite
def races(draw):
    log_lr = np.array(draw(places)) / 4
    chunks = draw(st.integers(1, 5))
    value = st.integers(0, 1000).map(lambda k: k / 100)
    row = st.lists(value, min_size=chunks, max_size=chunks)
    losses = [draw(row | st.just([NAN] * chunks)) for _ in log_lr]
    sizes = draw(st.lists(st.integers(1, 64), min_size=chunks, max_size=chunks))
    return log_lr, np.array(losses), np.array(sizes)


@given(
    races(),
    st.sampled_from([0.125, 4.0, 1024.0]),
    st.sampled_from([0.0, -64.0, 4096.0]),
    st.sampled_from([0.0, -3.0, 2.0]),
)
def test_neither_scale_nor_place_matters(given_race, scale, offset, shift):
    """Exact in floating point where it can be: powers of two, and few digits."""
    log_lr, losses, sizes = given_race
    one = choose(log_lr, losses, sizes)
    two = choose(log_lr + shift, scale * losses + offset, sizes)
    if one.log_lr is None:
        assert two.log_lr is None
        return
    means = np.sort(losses @ sizes / sizes.sum())
    if np.min(np.diff(means[np.isfinite(means)]), initial=1) < 1e-6:
        return  # a tie may go either way by rounding
    assert one.best == two.best
    assert len(one.doubts) == len(two.doubts)
    assert two.log_lr == pytest.approx(one.log_lr + shift, abs=1e-3)
    assert two.errors == pytest.approx(scale * one.errors, abs=1e-9 * scale + 1e-9, nan_ok=True)


@given(races())
def test_the_rate_lies_between_the_candidates(given_race):
    log_lr, losses, sizes = given_race
    choice = choose(log_lr, losses, sizes)
    if choice.log_lr is None:
        assert np.isnan(losses).all()
        return
    assert choice.log_lr <= log_lr[choice.best] + 1e-9 or choice.log_lr <= log_lr.max()
    assert log_lr.min() <= choice.log_lr <= log_lr.max()
    assert choice.errors[choice.best] == 0


@given(st.lists(st.floats(-10, 10) | st.just(NAN), min_size=1, max_size=6), st.floats(-10, 10))
def test_the_best_survives_if_it_has_not_diverged(losses, untrained):
    kept = survivors(losses, untrained)
    sound = [loss for loss in losses if loss <= untrained]
    if sound:
        assert kept[losses.index(min(sound))]
        assert not (kept & diverged(losses, untrained)).any()
    else:
        assert kept.tolist() == np.isfinite(losses).tolist()


def test_a_race_stands_around_what_is_suggested():
    sweeps = [sweep(k) for k in range(3)]
    found = suggest(sweeps, optimizer="adamw", schedule="cosine", level=0.5, steps=300)
    assert found.centre == found.suggestion.lr
    ruled = suggest(sweeps, method="valley")
    assert ruled.centre == ruled.suggestion.lr
    assert suggest([sweep(0, lr=[1e-3, 1e-2, 1e-1])]).centre is None


def test_a_small_error_moves_the_rate_by_that_error():
    losses = [[1.49, 1.51], [1.0, 1.0], [1.5, 1.52]]
    choice = choose([-1, 0, 1], losses, [1, 1])
    # means 1.5, 1, 1.51: slopes −0.5 and 0.51, curvature 0.505, lowest at −½ + 0.5 / 1.01
    error = math.sqrt(0.01 / 0.505)
    assert choice.log_lr == pytest.approx(-0.5 + 0.5 / 1.01 - error)
    assert error < race.LOWEST


SAID = Suggestion(
    lr=0.002,
    low=0.001,
    high=0.004,
    verdict="uncertain",
    method="auto",
    reason="The interval spans 0.6 decades.",
    advice=("Compare rates in short training runs.",),
    for_schedule="cosine",
    for_steps=3000,
)
SWEPT = Finding(
    SAID, {"auto": MethodSuggestion(0.002), "valley": MethodSuggestion(0.001)}, None, 0.0025
)


def candidate(lr, origin, final=1.0, outcome="lost", error=0.026):
    """One whose descent from 2.3 to 1 is known to within 2%."""
    return Candidate(lr, origin, (2.0,), 1.5, final, 0.01, outcome, error)


RACE = Race(
    seed=1,
    steps=100,
    steps_spent=310.0,
    measure="validation",
    examples=1024,
    untrained_loss=2.3,
    candidates=(
        candidate(0.001, "lower"),
        candidate(0.003, "suggestion", outcome="won"),
        candidate(0.01, "higher"),
    ),
    interrupted=False,
)


def test_a_race_that_brackets_the_minimum_makes_a_suggestion_confident():
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    found = race.conclude(SWEPT, choice, RACE)
    said = found.suggestion
    assert (said.verdict, said.method, said.advice) == ("confident", "auto", ())
    assert said.low < said.lr < said.high
    assert said.reason == (
        "Confirmed by racing 3 rates from 0.001 to 0.01: after 100 steps the validation loss is "
        "lowest at 0.003, and 3,000 steps need a lower rate."
    )
    assert found.suggestions == {**SWEPT.suggestions, "race": MethodSuggestion(said.lr)}
    assert (said.for_schedule, said.for_steps) == ("cosine", 3000)


@pytest.mark.parametrize(
    ("error", "half", "verdict"),
    [
        (0.0065, 0.05, "confident"),
        (0.039, 0.12, "confident"),
        (0.065, 0.2, "uncertain"),
        (0.65, 0.25, "uncertain"),
    ],
)
def test_noise_of_a_race_widens_the_interval_and_keeps_it_uncertain(
    monkeypatch, error, half, verdict
):
    """By four times the noise, .5, 3, 5 and 50% of the descent."""
    monkeypatch.setattr(constants, "fitted", lambda: ROUND)
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    noisy = [candidate(lr, "lower", error=error) for lr in (0.001, 0.003, 0.01)]
    said = race.conclude(SWEPT, choice, replace(RACE, candidates=tuple(noisy))).suggestion
    assert said.verdict == verdict
    assert math.log10(said.high / said.lr) == pytest.approx(half)
    assert math.log10(said.lr / said.low) == pytest.approx(half)
    if verdict == "uncertain":
        assert f"the descent in the race is only known to within {error / 1.3:.1%}" in said.reason
        assert said.advice == ("Train at rates beside it, and compare.",)


@pytest.mark.parametrize(
    ("measure", "examples", "advice"),
    [
        ("validation", 1024, "Train at rates beside it, and compare."),
        ("validation", 100, "Use a larger validation set (data.validation)."),
        ("training", 1600, "Use a validation set (data.validation)."),
    ],
)
def test_what_helps_against_noise_depends_on_what_was_compared(measure, examples, advice):
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    noisy = tuple(replace(each, descent_error=1.2) for each in RACE.candidates)
    tried = replace(RACE, candidates=noisy, measure=measure, examples=examples)
    said = race.conclude(SWEPT, choice, tried).suggestion
    assert (said.verdict, said.advice) == ("uncertain", (advice,))


def test_a_doubt_that_no_race_takes_away_stays():
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    doubt = race.Doubt("the moon is full", "Wait.")
    said = race.conclude(SWEPT, choice, RACE, [doubt]).suggestion
    assert (said.verdict, said.advice) == ("uncertain", ("Wait.",))
    assert said.reason.endswith("; the moon is full.")


def test_a_race_may_find_what_neither_sweep_nor_trials_did():
    none = replace(SAID, lr=None, low=None, high=None, verdict="none", reason="Nothing fell.")
    before = replace(SWEPT, suggestion=none)
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    fallen = np.linspace(2.3, 1.0, 100) + 0.01 * np.random.default_rng(0).normal(size=100)
    for losses, found in ((fallen, True), (fallen[::-1], False)):
        error = 0.026 if found else 1.0
        rows = [
            replace(each, loss=tuple(losses.tolist()), descent_error=error)
            for each in RACE.candidates
        ]
        ended = race.conclude(before, choice, replace(RACE, candidates=tuple(rows)))
        assert (ended.suggestion.lr is not None) == found
        if found:
            assert ended.suggestion.verdict == "uncertain"
            assert "fell in the race only, neither in the sweep nor" in ended.suggestion.reason
        else:
            assert ended.suggestion == none
            assert "did not fall clearly in the race" in ended.suggestions["race"].reason


def test_another_winner_corrects_it_and_an_edge_leaves_it_uncertain():
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[2.0], [1.5], [1.0]], [64])
    said = race.conclude(SWEPT, choice, RACE).suggestion
    assert said.lr == pytest.approx(0.01)
    assert said.verdict == "uncertain"
    assert said.reason == (
        "Corrected by racing 3 rates from 0.001 to 0.01: after 100 steps the validation loss is "
        "lowest at 0.01, and 3,000 steps need a lower rate; the best rate of the race, "
        "0.01, is also its highest."
    )
    assert said.advice == ("Train with rates above 0.01 as well, and compare.",)


def test_an_interrupted_race_says_after_how_many_steps():
    half = replace(
        RACE,
        interrupted=True,
        candidates=tuple(replace(each, outcome="unfinished") for each in RACE.candidates),
    )
    losses = [[1.5], [1.0], [1.5]]
    choice = choose(np.log10([0.001, 0.003, 0.01]), losses, [64], interrupted=True)
    said = race.conclude(SWEPT, choice, half).suggestion
    assert "after 50 steps the validation loss is lowest at 0.003" in said.reason
    assert "the race was interrupted" in said.reason
    assert (said.verdict, said.advice) == ("uncertain", ("Let the race run to its end.",))


def test_when_all_diverged_there_is_no_rate():
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64])
    for end, words in (
        (None, "every candidate of the race diverged"),
        (NAN, "every candidate of the race diverged"),
        (2.4, "every candidate of the race ended above the loss before training"),
    ):
        lost = tuple(replace(e, final_loss=end, outcome="diverged") for e in RACE.candidates)
        found = race.conclude(SWEPT, choice, replace(RACE, candidates=lost))
        said = found.suggestion
        assert (said.lr, said.low, said.high, said.verdict) == (None, None, None, "none")
        assert said.reason == f"{words[0].upper()}{words[1:]}."
        assert "train.schedule.warmup" in said.advice[0]
        assert found.suggestions["race"].reason == words
        assert found.suggestions["auto"] == MethodSuggestion(0.002)


def test_a_loss_before_training_that_is_no_number_bears_no_rate_out():
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64])
    lost = tuple(replace(e, final_loss=NAN, outcome="diverged") for e in RACE.candidates)
    found = race.conclude(SWEPT, choice, replace(RACE, candidates=lost, untrained_loss=NAN))
    assert (found.suggestion.lr, found.suggestion.verdict) == (None, "none")
    falling = tuple(np.linspace(2.3, 0.1, 100).tolist())
    fell = tuple(replace(each, loss=falling) for each in lost)
    found = race.conclude(SWEPT, choice, replace(RACE, candidates=fell, untrained_loss=NAN))
    said = found.suggestion
    assert (said.lr, said.verdict) == (SAID.lr, "uncertain")
    assert said.reason == f"The losses of the race could not be compared. {SAID.reason}"
    assert said.advice[0] == "Check that the validation loss is a number before any training."


def test_a_training_of_an_unknown_length_counts_as_one_of_300_steps():
    assert race.lengthening(None, 100) == race.lengthening(300, 100) == -0.32 * np.log10(3)
    choice = choose(np.log10([0.001, 0.003, 0.01]), [[1.5], [1.0], [1.5]], [64])
    unknown = replace(SWEPT, suggestion=replace(SAID, for_steps=None))
    said = race.conclude(unknown, choice, RACE).suggestion
    words = "is lowest at 0.003, and the 300 steps that are assumed need a lower rate."
    assert said.reason.endswith(words)


def test_an_unfinished_race_does_not_claim_that_nothing_fell_in_it():
    none = replace(SWEPT, suggestion=replace(SAID, lr=None, verdict="none"))
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64], interrupted=True)
    begun = tuple(replace(e, final_loss=None, outcome="unfinished") for e in RACE.candidates)
    cut = replace(RACE, candidates=begun, interrupted=True)
    for stopped, words in (
        (cut, "the race was interrupted before there was anything to compare"),
        (replace(cut, interrupted=False), "the loss did not fall clearly in the race either"),
    ):
        assert race.conclude(none, choice, stopped).suggestions["race"].reason == words


def test_a_rate_stays_in_doubt_where_training_losses_fell_and_validation_losses_did_not():
    """Ten samples that never agree with the training set: no candidate ends below 2.3."""
    falling = tuple(np.linspace(2.3, 0.1, 100).tolist())
    above = tuple(
        replace(each, loss=falling, final_loss=2.4, outcome="diverged") for each in RACE.candidates
    )
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64])
    found = race.conclude(SWEPT, choice, replace(RACE, candidates=above))
    said = found.suggestion
    assert (said.lr, said.low, said.high) == (SAID.lr, SAID.low, SAID.high)
    assert said.verdict == "uncertain"
    assert said.reason == (
        f"No candidate of the race ended below the loss before training. {SAID.reason}"
    )
    assert said.advice == ("Use a larger validation set (data.validation).", *SAID.advice)
    assert found.suggestions["race"].lr is None
    none = replace(SWEPT, suggestion=replace(SAID, lr=None, verdict="none"))
    said = race.conclude(none, choice, replace(RACE, candidates=above)).suggestion
    assert (said.lr, said.verdict) == (None, "none")
    assert said.reason == "Every candidate of the race ended above the loss before training."


def test_a_rate_stays_in_doubt_where_no_loss_of_the_race_rose_by_more_than_its_noise():
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64])
    for end, lr in ((2.36, SAID.lr), (2.37, None)):  # 2.3 and 2.5 times 0.026
        above = tuple(replace(e, final_loss=end, outcome="diverged") for e in RACE.candidates)
        found = race.conclude(SWEPT, choice, replace(RACE, candidates=above))
        assert (found.suggestion.lr, found.suggestion.verdict) == (
            lr,
            "none" if lr is None else "uncertain",
        )


def test_a_race_with_nothing_to_compare_changes_nothing_but_says_so():
    choice = choose([-3.0, -2.0], [[NAN], [NAN]], [64], interrupted=True)
    found = race.conclude(SWEPT, choice, replace(RACE, interrupted=True))
    assert found.suggestion == SAID
    assert found.suggestions["race"].lr is None
