"""From sweeps to a suggestion: a rate, how sure it is, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lrtool.config.spelling import sentence
from lrtool.curve import constants as c
from lrtool.curve import trials, verdict
from lrtool.curve.anchors import RULES, locate, rules, suggestions
from lrtool.curve.combine import estimate, places
from lrtool.curve.smooth import fit
from lrtool.errors import UserError, did_you_mean
from lrtool.report.records import Finding, MethodSuggestion, Suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrtool.curve.combine import Estimate
    from lrtool.curve.smooth import Fit
    from lrtool.curve.verdict import Doubt
    from lrtool.report.records import FirstUpdate, Race, Sweep

METHODS = ("auto", *RULES)
SWEPT = "sweep"  # among what is named, not among what may be asked for: auto without its trials
FAMILIES = ("adaptive", "proportional")


@dataclass(frozen=True, slots=True)
class _Answer:
    """log10 of a rate and of its interval, with what speaks against it.

    `centre` is the estimate from which the rate was lowered.
    """

    log_lr: float
    low: float
    high: float
    doubts: list[Doubt]
    centre: float


def suggest(
    sweeps: Sequence[Sweep],
    *,
    first: FirstUpdate | None = None,
    tried: Race | None = None,
    method: str = "auto",
    optimizer: str | None = None,
    family: str | None = None,
    schedule: str = "constant",
    like: str | None = None,
    steps: int | None = None,
) -> Finding:
    """Name a learning rate, with an interval, a verdict and advice.

    `auto` estimates the best rate from the anchors of the curve, the first update and the optimizer
    (see `combine`), for this schedule and length, and corrects it by two short trainings beside it
    (see `trials`). Its interval is an 80% one: with that probability it reaches into the stretch of
    rates that train almost as well as the best (a normalised regret below 2%). The other methods
    are rules of the literature (see `anchors.rules`); their interval is that of the bootstrap: how
    well the rule repeats, not how well its rate trains.

    A suggestion is "confident" only if its interval is at most half a decade wide and nothing else
    speaks against it. A rate outside the range of what was swept, or tried where the sweeps
    diverged, is moved to its end, and is "uncertain".

    Args:
        sweeps: at least one, in any order.
        first: what the first update told.
        tried: the trainings at the rates that `Finding.trials` of the same call without them named.
        method: the method that chooses the rate; `Finding.suggestions` has all of them.
        optimizer: its name in lower case, as in torch.optim ("adamw", "sgd"); "sgd_momentum" for
            SGD with momentum.
        family: "adaptive" if the size of the update does not grow with the gradient (Adam, Lion),
            "proportional" if it does (SGD); used where the optimizer's name is not known.
        schedule: the schedule's name; "constant" needs a lower rate than one that decays.
        like: the schedule with measured best rates ("constant", "cosine" or "one_cycle") that
            treats the rate alike; None: it is one of them.
        steps: the number of training steps that the rate is meant for.

    Raises:
        UserError: an unknown method or family, or no sweep at all.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise UserError(f"unknown method '{method}'{hint}: known are {', '.join(METHODS)}")
    if family is not None and family not in FAMILIES:
        hint = did_you_mean(family, FAMILIES)
        raise UserError(f"unknown family '{family}'{hint}: known are {', '.join(FAMILIES)}")
    if not sweeps:
        raise UserError("there is no sweep to make a suggestion from")

    # sweeps that agree to the bit are one: another look at the same batches is no evidence
    sweeps = list({(sweep.lr, sweep.loss): sweep for sweep in sweeps}.values())
    fitted = fit(sweeps)
    if fitted is None:
        why = verdict.too_short(sweeps)
        named = dict.fromkeys(("auto", SWEPT, *RULES), MethodSuggestion(None, why.reason))
        return Finding(_worded(why, method, schedule, steps), named, None)

    anchors = locate(fitted, fitted.loss)
    obstacle = verdict.obstacle(fitted, anchors, sweeps)
    against = verdict.doubts(fitted, anchors, sweeps)
    found = places(None if obstacle else anchors, first)

    best_rate = partial(
        estimate,
        found,
        per_decade=fitted.per_decade,
        optimizer=optimizer,
        family=family,
        schedule=like or schedule,
        opening=1.0 if first is None else first.opening,
    )
    best = best_rate(steps=steps)
    swept: _Answer | Doubt
    if obstacle is not None:
        swept = obstacle
    else:
        assert best is not None, "a curve with a descent has anchors"
        swept = _auto(_range(fitted), best, None, steps, against)
    promising = isinstance(swept, _Answer) or verdict.is_flat(anchors, sweeps)
    auto = swept
    if tried is not None and not tried.interrupted and best is not None and promising:
        # a flat sweep says that little happens at its rates: then a little is not enough
        fell = trials.fell(tried) if obstacle is None else trials.fell_in_training(tried)
        rose = trials.rose(tried)
        if not fell and anchors.minimum is None:
            auto = obstacle or verdict.nothing_fell()
        else:
            if obstacle is not None:
                also = [verdict.rounded(fitted)] if verdict.coarse(sweeps) else []
                against = [verdict.seen_by_trials_alone(), *also]
            elif rose or not fell:
                against = [*against, verdict.trials_against(rose=rose)]
            auto = _auto(_range(fitted, tried), best, trials.lean_of(tried), steps, against)
    to_try = best_rate(steps=min(steps or c.STEPS, c.STEPS)) if promising and found else None
    named = {"auto": _of_method(auto), SWEPT: _of_method(swept), **suggestions(fitted)}
    answer = auto if method == "auto" else _rule(method, named[method], fitted, against)
    return Finding(
        _worded(answer, method, schedule, steps),
        named,
        fitted.curve,
        centre=10.0**answer.centre if isinstance(answer, _Answer) else None,
        trials=_to_try(fitted, to_try, steps) if method == "auto" else None,
    )


def _to_try(fitted: Fit, centre: Estimate | None, steps: int | None) -> tuple[float, float] | None:
    """Return the two rates beside an estimate that short trainings should try."""
    if centre is None or trials.weight(steps) == 0:
        return None
    mean = float(np.clip(centre.mean, *_range(fitted)))
    return 10.0 ** (mean - trials.REACH), 10.0 ** (mean + trials.REACH)


def _range(fitted: Fit, tried: Race | None = None) -> tuple[float, float]:
    """Return the ends of the rates that something is known of, log10.

    A sweep that diverged ends where it did, not where it was to end: a trial may show more.
    """
    low, high = float(fitted.log_lr[0]), float(fitted.log_lr[-1])
    if tried is not None and fitted.blew_up:
        high = max(high, *(float(np.log10(one.lr)) for one in tried.candidates))
    return low, high


def _auto(
    known_range: tuple[float, float],
    best: Estimate,
    leaning: float | None,
    steps: int | None,
    against: list[Doubt],
) -> _Answer | Doubt:
    """Take the estimate of the best rate, corrected by trials where they can tell something."""
    known, source = c.fitted(), "swept"
    if leaning is not None and trials.weight(steps) > 0:
        best, source = trials.moved(best, leaning, steps), "tried"
    if best.conflict:
        against = [*against, verdict.contradiction(best.conflict)]
    half = known.half_width[source] * best.spread
    rate = best.mean - known.caution[source] * best.spread**2  # too high costs more than too low
    if rate < known_range[0] - verdict.BELOW:
        return verdict.below()
    far = verdict.length(steps)
    if far is not None:
        against = [*against, far]
    return _checked(known_range, rate, (rate - half, rate + half), best.mean, against)


def _rule(
    method: str, said: MethodSuggestion, fitted: Fit, against: list[Doubt]
) -> _Answer | Doubt:
    """Take one rule's rate; the interval holds 80% of what it says about the replicates."""
    if said.lr is None:
        return verdict.silent(method, str(said.reason))
    rate = float(np.log10(said.lr))
    again = [rules(fitted, loss)[method] for loss in fitted.replicates]
    rates = [found for found in again if found is not None]
    low, high = np.quantile([*rates, rate], (0.1, 0.9))
    if len(rates) < 0.8 * len(again):
        against = [*against, verdict.unsteady(method, 1 - len(rates) / len(again))]
    interval = float(min(low, rate)), float(max(high, rate))
    return _checked(_range(fitted), rate, interval, sum(interval) / 2, against)


def _checked(
    known_range: tuple[float, float],
    log_lr: float,
    interval: tuple[float, float],
    centre: float,
    against: list[Doubt],
) -> _Answer:
    """Keep the rate inside the known range, and add what its place and interval say against it."""
    more = (verdict.outside(known_range, log_lr), verdict.wide(*interval))
    inside = float(np.clip(log_lr, *known_range))
    return _Answer(
        log_lr=inside,
        low=min(interval[0], inside),
        high=max(interval[1], inside),
        doubts=[*against, *(doubt for doubt in more if doubt is not None)],
        centre=float(np.clip(centre, *known_range)),
    )


def _of_method(answer: _Answer | Doubt) -> MethodSuggestion:
    if isinstance(answer, _Answer):
        return MethodSuggestion(10.0**answer.log_lr)
    return MethodSuggestion(None, answer.reason)


def _worded(answer: _Answer | Doubt, method: str, schedule: str, steps: int | None) -> Suggestion:
    """Say an answer, or why there is none, as a record."""
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
