"""From sweeps to a suggestion: a rate, how sure it is, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lrtool.config.spelling import sentence
from lrtool.curve import constants as c
from lrtool.curve import full_trial as whole
from lrtool.curve import verdict
from lrtool.curve.anchors import RULES, locate, rules, suggestions
from lrtool.curve.combine import estimate, knowledge, places
from lrtool.curve.smooth import fit
from lrtool.curve.trials import (
    CLEAR,
    PERHAPS,
    REACH,
    correct,
    ended,
    fell,
    is_validated,
    noise,
    outward,
    overfitting,
    position_of,
    rose,
    weight,
    worthwhile,
)
from lrtool.errors import UserError, did_you_mean
from lrtool.report.records import Finding, MethodSuggestion, Suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lrtool.curve.anchors import Anchors
    from lrtool.curve.combine import Estimate
    from lrtool.curve.smooth import Fit
    from lrtool.curve.verdict import Doubt
    from lrtool.report.records import Candidate, FirstUpdate, FullTrial, Race, Sweep

METHODS = ("auto", *RULES)
SWEEP = "sweep"  # auto before its trials: reported, but not to be asked for
FAMILIES = ("adaptive", "proportional")


@dataclass(frozen=True, slots=True)
class _Answer:
    """log10 of a rate and of its interval, with what speaks against it."""

    log_lr: float
    low: float
    high: float
    doubts: list[Doubt]


def suggest(
    sweeps: Sequence[Sweep],
    *,
    first: FirstUpdate | None = None,
    trials: Race | None = None,
    full_trial: FullTrial | None = None,
    method: str = "auto",
    optimizer: str | None = None,
    family: str | None = None,
    schedule: str = "constant",
    level: float = 1.0,
    steps: int | None = None,
    passes: float | None = None,
    cut_short: bool = False,
    followed: Collection[str] = (),
) -> Finding:
    """Suggest a learning rate, with an interval, a verdict and advice.

    `auto` estimates the best rate from the anchors of the curve, the first update and the optimizer
    (see `combine`), for this schedule and length, and corrects it by trials (see `trials`).
    With a probability of 80% its interval reaches the rates that train almost as well as the best
    (a normalised regret below 2%). The other methods are rules of the literature (see
    `anchors.rules`). Their interval is that of the bootstrap: how well the rule repeats, not how
    well its rate trains.

    A suggestion is "confident" only if its interval is at most half a decade wide and nothing else
    speaks against it; that of a rule never is. A rate outside the range of the sweeps (or of the
    trials that trained, or that went beyond sweeps that diverged) is moved to the end of that range
    and is "uncertain".

    Args:
        sweeps: at least one, in any order.
        first: what the first update told.
        trials: trainings at the `Finding.trial_rates` of the same call without trials.
        full_trial: at the `Finding.full_trial_rate` of the same call without it.
        method: the method that chooses the rate; `Finding.suggestions` has all of them.
        optimizer: its name in lower case, as in torch.optim ("adamw", "sgd"); "sgd_momentum" for
            SGD with momentum.
        family: "adaptive" if the size of the update does not grow with the gradient (Adam, Lion),
            "proportional" if it does (SGD); used where the optimizer's name is not known.
        schedule: the schedule's name, for the record.
        level: its mean, as a share of the base rate; a constant one needs a lower rate than one
            that falls.
        steps: the number of training steps that the rate is meant for.
        passes: how many times the training sees each sample; None: unknown.
        cut_short: the search ended before its trials did: a rate is in doubt.
        followed: advice that the training follows already: `verdict.WARMUP` and others.

    Raises:
        UserError: an unknown method or family, or no sweep at all.
    """
    for name, value, known in (("method", method, METHODS), ("family", family, FAMILIES)):
        if value is not None and value not in known:
            hint = did_you_mean(value, known)
            raise UserError(f"unknown {name} '{value}'{hint}: known are {', '.join(known)}")
    if not sweeps:
        raise UserError("there is no sweep to make a suggestion from")

    # equal sweeps count once: another look at the same batches is no evidence
    sweeps = list({(sweep.lr, sweep.loss): sweep for sweep in sweeps}.values())
    fitted = fit(sweeps)
    if fitted is None:
        why = verdict.too_short(sweeps)
        silent = dict.fromkeys(("auto", SWEEP, *RULES), MethodSuggestion(None, why.reason))
        return Finding(_suggestion(why, method, schedule, steps), silent, None)

    cut_short |= any(each is not None and each.interrupted for each in (trials, full_trial))
    trials = _two(trials)
    measured = knowledge(optimizer, family, c.fitted())[0] == "optimizer"
    swept = _look(sweeps, fitted, known=measured, cut_short=cut_short)
    best_rate = partial(
        estimate,
        places(None if swept.obstacle else swept.anchors, first),
        per_decade=fitted.per_decade,
        optimizer=optimizer,
        family=family,
        level=level,
        opening=1.0 if first is None else first.opening,
    )
    best = best_rate(steps=steps)
    before_trials: _Answer | Doubt
    if swept.obstacle is not None:
        before_trials = swept.obstacle
    else:
        assert best is not None, "a curve with a descent has anchors"
        before_trials = _auto(_range(fitted), best, steps, swept.doubts)
    if best is not None and isinstance(before_trials, verdict.Doubt) and not swept.holds(best):
        best = None  # trials would stand where nothing is known
    # without a curve, trials are all that there is, however long the training
    share = weight(steps) if swept.obstacle is None else 1.0
    worth = worthwhile(share, passes)
    auto = before_trials
    if best is not None and trials is not None:
        auto = _after_trials(
            swept,
            trials,
            best,
            steps,
            overfitting=overfitting(trials, passes),
            full_trial=full_trial,
            share=share,
            counts=worth,
            followed=followed,
        )
    by_method = {"auto": _by(auto), SWEEP: _by(before_trials), **suggestions(fitted)}
    answer = auto if method == "auto" else _rule(method, by_method[method], fitted, swept.doubts)
    trial_rates: tuple[float, ...] | None = None
    if method == "auto" and best is not None and (first or not swept.obstacle) and worth:
        short = best_rate(steps=min(steps or c.STEPS, c.STEPS))
        trial_rates = _beside(fitted, short) if trials is None else _further(fitted, trials)
    over = method == "auto" and trial_rates is None and full_trial is None
    centre = answer.log_lr if isinstance(answer, _Answer) else None
    if centre is None and method == "auto" and best is not None and trials is not None:
        centre = best.mean  # a race is longer, and may still tell
    return Finding(
        _suggestion(answer, method, schedule, steps),
        by_method,
        fitted.curve,
        centre=None if centre is None else 10.0**centre,
        trial_rates=trial_rates,
        full_trial_rate=_as_a_whole(auto, trials, steps, passes) if over else None,
    )


@dataclass(frozen=True, slots=True)
class _Swept:
    """What the sweeps show.

    Attributes:
        sweeps: each once.
        fitted: smoothed.
        anchors: of the curve.
        obstacle: why it gives no rate; None: it gives one.
        doubts: about any rate from it.
        others: those of these that are not about the curve.
    """

    sweeps: Sequence[Sweep]
    fitted: Fit
    anchors: Anchors
    obstacle: Doubt | None
    doubts: list[Doubt]
    others: list[Doubt]

    def holds(self, best: Estimate) -> bool:
        """Tell whether sweeps that ran to their end hold an estimate, or lie just beside it."""
        low, high = _range(self.fitted)
        interrupted = any(sweep.stop_reason == "interrupted" for sweep in self.sweeps)
        far = verdict.TOO_FAR
        return not interrupted and low - far < best.mean < high + far


def _two(trials: Race | None) -> Race | None:
    """Return trials of which two at least have ended."""
    return trials if trials is not None and len(ended(trials)) > 1 else None


def _look(sweeps: Sequence[Sweep], fitted: Fit, *, known: bool, cut_short: bool) -> _Swept:
    """Look at the curve.

    Args:
        sweeps: each once.
        fitted: smoothed.
        known: the best rates of the optimizer were measured.
        cut_short: trials were due, and did not come to an end.
    """
    anchors = locate(fitted, fitted.loss)
    others = [] if known else [verdict.UNKNOWN_OPTIMIZER]
    if cut_short:
        others.append(verdict.NO_TRIALS)
    return _Swept(
        sweeps,
        fitted,
        anchors,
        obstacle=verdict.obstacle(fitted, anchors, sweeps),
        doubts=[*verdict.curve_doubts(fitted, anchors, sweeps), *others],
        others=others,
    )


def _after_trials(
    swept: _Swept,
    trials: Race,
    best: Estimate,
    steps: int | None,
    *,
    overfitting: float,
    full_trial: FullTrial | None,
    share: float,
    counts: bool,
    followed: Collection[str],
) -> _Answer | Doubt:
    """Correct the estimate by trials, or say why there is none."""
    told = _told_by_trials(swept, trials, followed)
    if isinstance(told, verdict.Doubt):
        return told
    position = position_of(trials) if counts else None
    if position is not None:
        best = correct(best, position, overfitting, share)
        best = replace(best, mean=whole.correct(best.mean, full_trial))
        told = [*told, *whole.doubts(full_trial)]
    elif counts and not told:
        told = [verdict.NOT_COMPARED]
    return _auto(
        _range(swept.fitted, trials),
        best,
        steps,
        [*(swept.others if swept.obstacle else swept.doubts), *told],
        trials=None if position is None else trials,
        share=share,
    )


def _told_by_trials(swept: _Swept, trials: Race, followed: Collection[str]) -> list[Doubt] | Doubt:
    """Return what trials say against the rate between them, or why there is none."""
    # after a flat sweep a small fall of the validation loss is not enough, as of a model that
    # only learns to be unsure
    least = 0.0 if swept.obstacle is None else CLEAR * verdict.noise(swept.sweeps)
    descent = fell(trials, least)
    if swept.obstacle is None and (descent or swept.anchors.minimum is not None):
        return verdict.trial_doubts(fell=descent, rose=rose(trials), followed=followed)
    if descent:
        coarse = [verdict.coarse(swept.fitted)] if verdict.is_coarse(swept.sweeps) else []
        return [verdict.FELL_IN_TRIALS_ONLY, *coarse]
    if fell(trials, least, PERHAPS):
        return [verdict.PERHAPS_FLAT]
    return swept.obstacle or verdict.nothing_fell(followed)


def _beside(fitted: Fit, best: Estimate | None) -> tuple[float, float] | None:
    """Return the rates below and above an estimate that trials should train at."""
    if best is None:
        return None
    mean = float(np.clip(best.mean, *_range(fitted)))
    return 10.0 ** (mean - REACH), 10.0 ** (mean + REACH)


def _further(fitted: Fit, trials: Race) -> tuple[float] | None:
    """Return the rate of one more trial, if it lies where sweeps or trials may say something."""
    place = outward(trials)
    low, high = _range(fitted)
    if place is None or place < low or (place > high and not fitted.blew_up):
        return None
    return (10.0**place,)


def _as_a_whole(
    auto: _Answer | Doubt, trials: Race | None, steps: int | None, passes: float | None
) -> float | None:
    """Return the rate of a full trial, if there is anything to learn from it."""
    if not isinstance(auto, _Answer) or trials is None or not whole.is_due(trials, steps, passes):
        return None
    return float(10.0**auto.log_lr)


def _range(fitted: Fit, trials: Race | None = None) -> tuple[float, float]:
    """Return the lowest and the highest rate, log10, that something is known of.

    A sweep that diverged ended early: a trial may have gone beyond it. One that trained may lie
    below the sweep.
    """
    low, high = float(fitted.log_lr[0]), float(fitted.log_lr[-1])
    if trials is None:
        return low, high
    if fitted.blew_up:
        high = max(high, *(float(np.log10(one.lr)) for one in trials.candidates))
    if fell(trials):
        below = [one for one in trials.candidates if _trained(one, trials.untrained_loss)]
        low = min([low, *(float(np.log10(one.lr)) for one in below)])
    return low, high


def _trained(one: Candidate, untrained: float) -> bool:
    return one.final_loss is not None and one.final_loss < untrained


def _auto(
    known_range: tuple[float, float],
    best: Estimate,
    steps: int | None,
    doubts: list[Doubt],
    *,
    trials: Race | None = None,
    share: float = 0.0,
) -> _Answer | Doubt:
    """Take the estimate of the best rate.

    Args:
        known_range: of rates, log10.
        best: the estimate.
        steps: of the training.
        doubts: so far.
        trials: that have corrected it; None: none have.
        share: by which they have.
    """
    constants = c.fitted()
    if best.conflict:
        doubts = [*doubts, verdict.contradiction(best.conflict)]
    half = constants.half_width["swept"] * best.spread
    if trials is not None:
        known = noise(trials)
        half = share * constants.half("tried", known) + (1 - share) * half
        if not rose(trials):  # which is a doubt of its own
            if known > constants.certain:
                doubts = [*doubts, verdict.noisy(known, "trials", verdict.RACE)]
            elif not is_validated(trials):
                doubts = [*doubts, verdict.unvalidated(trials.measure)]
    if best.mean < known_range[0] - verdict.TOO_FAR and (trials is None or not fell(trials)):
        return verdict.BELOW_RANGE
    unusual = verdict.unusual_length(steps)
    if unusual is not None:
        doubts = [*doubts, unusual]
    return _answer(known_range, best.mean, (best.mean - half, best.mean + half), doubts)


def _rule(
    method: str, suggestion: MethodSuggestion, fitted: Fit, doubts: list[Doubt]
) -> _Answer | Doubt:
    """Take one rule's rate; the interval holds 80% of what it says about the replicates.

    It is never confident: on published cells these rules are often wrong, whatever the curve.
    """
    if suggestion.lr is None:
        return verdict.silent(method, str(suggestion.reason))
    rate = float(np.log10(suggestion.lr))
    again = [rules(fitted, loss)[method] for loss in fitted.replicates]
    rates = [each for each in again if each is not None]
    low, high = np.quantile([*rates, rate], (0.1, 0.9))
    if len(rates) < 0.8 * len(again):
        doubts = [*doubts, verdict.unsteady(method, 1 - len(rates) / len(again))]
    doubts = [*doubts, verdict.rule(method)]
    interval = float(min(low, rate)), float(max(high, rate))
    return _answer(_range(fitted), rate, interval, doubts)


def _answer(
    known_range: tuple[float, float],
    log_lr: float,
    interval: tuple[float, float],
    doubts: list[Doubt],
) -> _Answer:
    """Keep a rate inside the known range, and doubt one outside it or with a wide interval."""
    inside = float(np.clip(log_lr, *known_range))
    return _Answer(
        log_lr=inside,
        low=min(interval[0], inside),
        high=max(interval[1], inside),
        doubts=[*doubts, *verdict.place_and_width(known_range, log_lr, interval)],
    )


def _by(answer: _Answer | Doubt) -> MethodSuggestion:
    if isinstance(answer, _Answer):
        return MethodSuggestion(10.0**answer.log_lr)
    return MethodSuggestion(None, answer.reason)


def _suggestion(
    answer: _Answer | Doubt, method: str, schedule: str, steps: int | None
) -> Suggestion:
    """Return an answer, or the reason why there is none, as a record."""
    if not isinstance(answer, _Answer):
        return Suggestion(
            lr=None,
            low=None,
            high=None,
            verdict="none",
            method=method,
            reason=sentence([answer.reason]),
            advice=(answer.advice,),
            for_schedule=schedule,
            for_steps=steps,
        )
    width = answer.high - answer.low
    calm = f"the curve has a clear descent and the interval spans only {width:.2f} decades"
    return Suggestion(
        lr=10.0**answer.log_lr,
        low=10.0**answer.low,
        high=10.0**answer.high,
        verdict="uncertain" if answer.doubts else "confident",
        method=method,
        reason=sentence([doubt.reason for doubt in answer.doubts] or [calm]),
        advice=tuple(dict.fromkeys(doubt.advice for doubt in answer.doubts)),
        for_schedule=schedule,
        for_steps=steps,
    )
