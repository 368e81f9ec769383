"""The page of a find: the rate first, then what speaks for it, then what it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrtool.report.marker import CONFIG
from lrtool.report.records import finite_or_none
from lrtool.show import words
from lrtool.show.page.about import about
from lrtool.show.page.finder_plots import draw_curve, draw_race, draw_standings
from lrtool.show.page.render import POINTS, first_that_fits, render

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.records import Race
    from lrtool.report.report import FindReport

    Rows = list[tuple[str, ...]]

SERIES = 5  # of a plot, if each has as many points as it may
RULES = {
    "valley": "rule of the literature: middle of the longest descent",
    "slide": "rule of the literature: end of the steepest descent that lasts",
    "steep": "rule of the literature: the steepest slope",
    "minimum": "rule of the literature: a tenth of the rate with the lowest loss",
}


def draw(report: FindReport, run: Path) -> str:
    """Return the page as HTML; its commands name `run`, the directory."""
    return first_that_fits(_draw(report, run, points) for points in POINTS)


def _draw(report: FindReport, run: Path, points: int) -> str:
    title, lead = headline(report)
    opening = [text for text in (lead, report.reason) if text]
    if report.status != "completed":  # why comes first
        opening.reverse()
    if report.suggestion and report.suggestion.reason not in opening:
        opening.append(report.suggestion.reason)
    return render(
        "find.html",
        title=title,
        opening=opening,
        state=_state(report),
        subject=words.subject(report),
        next_steps=_next_steps(report, run),
        about=about(report),
        **search(report, points),
    )


def search(report: FindReport, points: int) -> dict[str, Any]:
    """Return what `search.html` shows of a search, on its own page or on that of a training.

    Args:
        report: of the search.
        points: of a plot's series.
    """
    race, trials = report.race, report.trials
    most = SERIES * points
    swept = any(sweep.lr for sweep in report.sweeps)
    return {
        "curve": draw_curve(report, most) if swept else "",
        "evidence": _evidence(report),
        "trials": _candidates(trials) if trials else [],
        "trials_caption": _caption(trials) if trials else "",
        "race": _candidates(race) if race else [],
        "race_caption": _caption(race) if race else "",
        "race_plots": [draw_race(race, most), draw_standings(race, report.suggestion)]
        if race and race.candidates
        else [],
    }


def _state(report: FindReport) -> str:
    """Return what colours the headline: a verdict, or how the run ended."""
    if report.status in {"interrupted", "failed"} or report.suggestion is None:
        return report.status
    return report.suggestion.verdict


def headline(report: FindReport) -> tuple[str, str]:
    """Return the title, and the sentence below it: the rate, its interval, the verdict."""
    suggestion = report.suggestion
    rate = words.rate(suggestion.lr) if suggestion and suggestion.lr else None
    match report.status:
        case "failed":
            title = "The search failed"
        case "interrupted":
            title = "The search was interrupted"
        case _:
            title = f"Learning rate {rate}" if rate else "No trustworthy learning rate"
    if suggestion is None or rate is None:
        early = report.status in {"failed", "interrupted"}
        return title, "No rate was found until then." if early else "No rate can be recommended."
    between = words.interval(suggestion)
    lead = (
        f"The rate found so far is {rate}"
        if report.status in {"failed", "interrupted"}
        else f"Train with {rate}"
    )
    lead += f" (interval {between})" if between else ""
    return title, f"{lead} for a {words.purpose(suggestion)}: {suggestion.verdict}."


def sentences(report: FindReport) -> str:
    """Return all of that in a paragraph, with the reason and the advice."""
    title, lead = headline(report)
    said = report.suggestion
    parts = [f"{title}.", lead, report.reason, *((said.reason, *said.advice) if said else ())]
    return " ".join(dict.fromkeys(part for part in parts if part))


def _next_steps(report: FindReport, run: Path) -> list[tuple[str, str]]:
    """Return what to do next, a sentence each, with a command or none."""
    suggestion = report.suggestion
    steps = [(advice, "") for advice in (suggestion.advice if suggestion else ())]
    config = run / CONFIG
    if report.status == "failed":
        steps.append(("Mend the cause, then try one batch:", words.command("check", config)))
    if report.status in {"failed", "interrupted"}:
        steps.append(("Search again:", words.command("find", config)))
    if suggestion and suggestion.lr:
        rate = words.rate(suggestion.lr)
        steps.append(("Train with this rate:", words.command("train", config, "--lr-from", run)))
        steps.append(("Or write it into your configuration:", f"learning_rate: {rate}"))
    elif report.status == "no_suggestion":
        steps.append(
            (
                "Or train with a rate that you choose, such as 0.001:",
                words.command("train", config, "--lr", "0.001"),
            )
        )
    return steps


def _evidence(report: FindReport) -> Rows:
    """Return each source of evidence with the rate that it names, and what that is."""
    rows: Rows = []
    first, said = report.first_update, report.suggestions
    if first:
        what = "the highest rate that does not raise the loss of its own batch"
        rows.append(("first update, critical rate", _rate(first.critical_lr), what))
        what = "the rate at which the update is as large as the weights"
        rows.append(("first update, ratio rate", _rate(first.ratio_lr), what))
    names = {
        "sweep": ("sweep", "the estimate from the curve and the first update"),
        "auto": ("sweep", "the estimate from the curve and the first update"),
        "race": ("race", "the estimate with the race"),
    }
    if "sweep" in said:
        if report.trials:
            names["auto"] = ("trials", "that estimate, corrected by the trials")
        else:
            del names["auto"]  # it is that of the sweep
    if report.full_trial:
        what = "that estimate, corrected by the trials"
        if not report.full_trial.interrupted:
            what += " and by a full one"
        names["auto"] = ("trials", f"{what}; {words.full_trial(report.full_trial)}")
    for key, (name, what) in names.items():
        if key in said:
            rows.append((name, _rate(said[key].lr), said[key].reason or what))
    for key, method in said.items():
        if key not in names:
            rows.append((key, _rate(method.lr), method.reason or RULES.get(key, "")))
    return rows


def _rate(lr: float | None) -> str:
    return "–" if lr is None else words.rate(lr)


def _candidates(race: Race) -> Rows:
    """Return rate, origin, losses, error and outcome of each candidate, by rate."""
    return [
        (
            words.rate(each.lr),
            each.origin,
            _loss(each.half_loss),
            "NaN or infinite" if each.outcome == "diverged" else _loss(each.final_loss),
            _rate(each.standard_error or None),
            each.outcome,
        )
        for each in sorted(race.candidates, key=lambda candidate: candidate.lr)
    ]


def _loss(value: float | None) -> str:
    finite = finite_or_none(value)
    return "–" if finite is None else words.value(finite)


def _caption(race: Race) -> str:
    part = "validation" if race.measure == "validation" else "training"
    return (
        f"{len(race.candidates)} rates over {race.steps:,} steps ({race.steps_spent:,.0f} in all), "
        f"compared by the loss of {race.examples:,} {part} samples"
    )
