"""The page of a find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrtool.show import words
from lrtool.show.page.axis import Axis
from lrtool.show.page.plot import Mark, Region, Series, plot
from lrtool.show.page.render import render
from lrtool.show.plots.limits import choose

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from lrtool.report.report import FindReport

GUIDELINE = (1e-4, 1e-2)  # the rates that textbooks name


def draw(report: FindReport, run: Path) -> str:
    """Return the page as HTML; its commands name `run`, the directory."""
    return render("find.html", report=report, run=run, words=words, curve=_curve(report))


def _curve(report: FindReport) -> Markup:
    """Return the losses over the rate: raw ones, the smooth curve, regions, and the rate."""
    limits = choose(report)
    probe = words.setting(report, "find", "loss") == "probe"
    name = "validation loss (probe)" if probe else "training loss"
    x = Axis("learning rate", limits.left, limits.right, log=limits.log)
    y = Axis(f"{name}, before the update", limits.bottom, limits.top)
    series = [
        Series(
            name=f"sweep {index + 1}" if len(report.sweeps) > 1 else "each step of the sweep",
            x=sweep.lr,
            y=sweep.loss,
            shape="dots",
            colour=2 + index % 6,
            faint=True,
        )
        for index, sweep in enumerate(report.sweeps)
    ]
    if report.curve:
        curve = report.curve
        there = np.isfinite(curve.loss)
        kept = [
            np.asarray(each)[there].tolist()
            for each in (curve.lr, curve.loss, curve.low, curve.high)
        ]
        lr, loss, low, high = kept
        series.append(
            Series(
                name="expected loss after an update",
                x=lr,
                y=loss,
                low=low,
                high=high,
                band="its 80% band",
            )
        )
    suggestion = report.suggestion
    regions = [Region("usual guideline", *GUIDELINE, "guideline")]
    marks = []
    if suggestion and suggestion.lr:
        if (good := words.good(suggestion)) and suggestion.low and suggestion.high:
            regions = [
                Region("too low", limits.left, good[0], "low"),
                Region("good", *good, "good"),
                Region("too high", good[1], limits.right, "high"),
                Region("interval", suggestion.low, suggestion.high, "interval"),
                *regions,
            ]
        marks.append(Mark("suggestion", suggestion.lr, label=words.rate(suggestion.lr)))
    if report.trials and not report.trials.interrupted:
        trials = report.trials
        marks += [
            Mark(f"trials of {trials.steps:,} steps", each.lr, "diamond")
            for each in trials.candidates
        ]
    return plot("The learning rate finder", x, y, series, regions=regions, marks=marks, tall=True)
