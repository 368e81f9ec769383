"""From sweeps to a suggestion: a rate, how sure it is, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lrtool.curve import constants as c
from lrtool.curve import verdict
from lrtool.curve.anchors import RULES, candidates, locate, rules
from lrtool.curve.combine import estimate
from lrtool.curve.smooth import fit
from lrtool.errors import UserError, did_you_mean
from lrtool.records import Candidate, Finding, Suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrtool.curve.anchors import Anchors
    from lrtool.curve.combine import Estimate
    from lrtool.curve.smooth import Fit
    from lrtool.curve.verdict import Doubt
    from lrtool.records import Sweep

METHODS = ("auto", *RULES)
FAMILIES = ("adaptive", "proportional")


@dataclass(frozen=True, slots=True)
class _Answer:
    """log10 of a rate and of its interval, with what speaks against it.

    `centre` is the estimate from which the rate was lowered; None: it was not.
    """

    log_lr: float
    low: float
    high: float
    doubts: list[Doubt]
    centre: float | None = None


def suggest(
    sweeps: Sequence[Sweep],
    *,
    method: str = "auto",
    optimizer: str | None = None,
    family: str | None = None,
    schedule: str = "constant",
    steps: int | None = None,
) -> Finding:
    """Name a learning rate, with an interval, a verdict and advice.

    `auto` estimates the best rate from the anchors of the curve and from the optimizer (see
    `combine`), lowers it for a constant schedule, for long training and because too high costs
    more than too low (see `constants`), and gives an 80% interval: with that probability it
    reaches into the stretch of rates that train almost as well as the best (a normalised regret
    below 2%). The other methods are rules of the literature (see `anchors.rules`); their interval
    is that of the bootstrap: how well the rule repeats, not how well its rate trains.

    A suggestion is "confident" only if its interval is at most half a decade wide and nothing else
    speaks against it. A rate outside the swept range is moved to its end, and is "uncertain".

    Args:
        sweeps: at least one, in any order.
        method: the method that chooses the rate; `Finding.suggestions` has all of them.
        optimizer: its name in lower case, as in torch.optim ("adamw", "sgd"); "sgd_momentum" for
            SGD with momentum.
        family: "adaptive" if the size of the update does not grow with the gradient (Adam, Lion),
            "proportional" if it does (SGD); used where the optimizer's name is not known.
        schedule: the schedule's name; "constant" needs a lower rate than one that decays.
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
        named = dict.fromkeys(METHODS, Candidate(None, why.reason))
        return Finding(_worded(why, method, schedule, steps), named, None)

    anchors = locate(fitted, fitted.loss)
    against = verdict.doubts(fitted, anchors, sweeps)
    auto: _Answer | Doubt | None = verdict.obstacle(fitted, anchors, sweeps)
    if auto is None:
        best_rate = partial(
            estimate, per_decade=fitted.per_decade, optimizer=optimizer, family=family
        )
        auto = _auto(fitted, anchors, best_rate, _for_training(schedule, steps), against)
    named = {"auto": _candidate(auto), **candidates(fitted)}
    answer = auto if method == "auto" else _rule(method, named[method], fitted, against)
    return Finding(
        _worded(answer, method, schedule, steps), named, fitted.curve, _centre(answer, fitted)
    )


def _centre(answer: _Answer | Doubt, fitted: Fit) -> float | None:
    """Return the rate to race around, inside the swept range."""
    if not isinstance(answer, _Answer):
        return None
    log_lr = answer.log_lr if answer.centre is None else answer.centre
    inside = np.clip(log_lr, fitted.log_lr[0], fitted.log_lr[-1])
    return float(10.0**inside)


def _auto(
    fitted: Fit,
    anchors: Anchors,
    best_rate: Callable[[Anchors], Estimate],
    shift: tuple[float, float],
    against: list[Doubt],
) -> _Answer:
    """Take the estimate of the best rate; the interval holds its error and the bootstrap's."""
    best = best_rate(anchors)
    again = [locate(fitted, loss) for loss in fitted.replicates]
    # a replicate that shows other anchors than the curve answers another question
    alike = [found for found in again if found.present == anchors.present]
    means = [best_rate(found).mean for found in alike] or [best.mean]
    # the middle 80% of a normal distribution is 2 × 1.2816 standard deviations wide
    sampling = float(np.diff(np.quantile(means, (0.1, 0.9)))[0]) / 2.5631
    spread = float(np.linalg.norm([best.spread, sampling, shift[1]]))
    centre = best.mean + shift[0]
    if best.conflict:
        against = [*against, verdict.contradiction(best.conflict)]
    answer = _checked(
        fitted,
        centre - c.ASYMMETRY * spread**2 / 2,  # too high costs more than too low
        centre - c.HALF_WIDTH * spread,
        centre + c.HALF_WIDTH * spread,
        against,
    )
    return replace(answer, centre=centre)


def _rule(method: str, candidate: Candidate, fitted: Fit, against: list[Doubt]) -> _Answer | Doubt:
    """Take one rule's rate; the interval holds 80% of what it says about the replicates."""
    if candidate.lr is None:
        return verdict.silent(method, str(candidate.reason))
    rate = float(np.log10(candidate.lr))
    again = [rules(fitted, loss)[method] for loss in fitted.replicates]
    rates = [found for found in again if found is not None]
    low, high = np.quantile([*rates, rate], (0.1, 0.9))
    if len(rates) < 0.8 * len(again):
        against = [*against, verdict.unsteady(method, 1 - len(rates) / len(again))]
    return _checked(fitted, rate, float(min(low, rate)), float(max(high, rate)), against)


def _checked(fitted: Fit, log_lr: float, low: float, high: float, against: list[Doubt]) -> _Answer:
    """Keep the rate inside the swept range, and add what its place and interval say against it."""
    more = (verdict.outside(fitted, log_lr), verdict.wide(low, high))
    inside = float(np.clip(log_lr, fitted.log_lr[0], fitted.log_lr[-1]))
    return _Answer(
        log_lr=inside,
        low=min(low, inside),
        high=max(high, inside),
        doubts=[*against, *(doubt for doubt in more if doubt is not None)],
    )


def _for_training(schedule: str, steps: int | None) -> tuple[float, float]:
    """Return by how many decades the schedule and the length move the rate, and the spread."""
    shift = c.CONSTANT_SCHEDULE if schedule == "constant" else 0.0
    longer = max(0.0, float(np.log10(steps / c.STEPS))) if steps else 0.0
    return shift + c.LENGTH_EXPONENT * longer, c.LENGTH_EXPONENT_SPREAD * longer


def _candidate(answer: _Answer | Doubt) -> Candidate:
    if isinstance(answer, _Answer):
        return Candidate(10.0**answer.log_lr)
    return Candidate(None, answer.reason)


def _worded(answer: _Answer | Doubt, method: str, schedule: str, steps: int | None) -> Suggestion:
    """Say an answer, or why there is none, as a record."""
    if not isinstance(answer, _Answer):
        return Suggestion(
            lr=None,
            low=None,
            high=None,
            verdict="none",
            method=method,
            reason=_sentence([answer.reason]),
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
        reason=_sentence([doubt.reason for doubt in answer.doubts] or [calm]),
        advice=tuple(dict.fromkeys(doubt.advice for doubt in answer.doubts)),
        for_schedule=schedule,
        for_steps=steps,
    )


def _sentence(clauses: list[str]) -> str:
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."
