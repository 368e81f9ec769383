"""The plots of a find: losses over the rate, and the race."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrtool.show import words
from lrtool.show.page.axis import Axis
from lrtool.show.page.plot import COLOURS, Mark, Region, Series, plot
from lrtool.show.plots.limits import choose, numbers
from lrtool.show.plots.span import span
from lrtool.show.smoothing import running_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from lrtool.report.records import Race, Suggestion, Sweep
    from lrtool.report.report import FindReport
    from lrtool.show.page.plot import Shape
    from lrtool.show.plots.limits import Limits

GUIDELINE = (1e-4, 1e-2)  # the rates that textbooks name
MOST_SWEEPS = 8  # more are one series
CURVE_COLOUR = 1


def draw_curve(report: FindReport, points: int) -> Markup:
    """Return the losses over the rate: raw ones, the smooth curve, regions, trials, the rate.

    Args:
        report: of a find.
        points: at most about so many are drawn of the sweeps, and of the curve.
    """
    limits = choose(report)
    probe = words.setting(report, "find", "loss") == "probe"
    measured = "validation loss (probe)" if probe else "training loss"
    stride = _stride(sum(len(sweep.lr) for sweep in report.sweeps), points)
    series = _sweeps(report.sweeps, stride)
    if report.curve:
        curve = report.curve
        there = np.isfinite(curve.loss)
        there[np.arange(there.size) % _stride(there.size, points) != 0] = False
        columns = (curve.lr, curve.loss, curve.low, curve.high)
        lr, loss, low, high = (np.asarray(each)[there].tolist() for each in columns)
        name, band = "expected loss after an update", "its 80% band"
        series.append(Series(name=name, x=lr, y=loss, low=low, high=high, band=band, smooth=True))
    marks = []
    suggestion = report.suggestion
    if suggestion and suggestion.lr:
        marks.append(Mark("suggestion", suggestion.lr, label=words.rate(suggestion.lr)))
    if report.trials and not report.trials.interrupted:
        name = f"trials of {report.trials.steps:,} steps"
        marks += [Mark(name, trial.lr, "diamond") for trial in report.trials.candidates]
    return plot(
        "Loss over the learning rate",
        Axis("learning rate", limits.left, limits.right, log=limits.log),
        Axis(f"{measured}, before the update", limits.bottom, limits.top),
        series,
        note=_left_out(stride),
        regions=_regions(suggestion, limits),
        marks=marks,
        tall=True,
    )


def _sweeps(sweeps: Sequence[Sweep], stride: int) -> list[Series]:
    """Return the raw losses of each sweep, and those of updates that were skipped."""
    together = len(sweeps) > MOST_SWEEPS
    found: dict[tuple[str, Shape, int], list[tuple[float, float]]] = {}
    for index, sweep in enumerate(sweeps):
        name = f"sweep {index + 1}" if len(sweeps) > 1 else "sweep"
        key = (f"{len(sweeps)} sweeps", 2) if together else (name, 2 + index % (COLOURS - 1))
        skipped, without = set(sweep.skipped), set(sweep.without_targets)
        for step in range(0, len(sweep.lr), stride):
            if step in without:
                continue
            kind: tuple[str, Shape, int] = (key[0], "dots", key[1])
            if step in skipped:
                kind = (f"{key[0]}: update skipped", "crosses", key[1])
            found.setdefault(kind, []).append((sweep.lr[step], sweep.loss[step]))
    return [
        Series(
            name=name,
            x=[lr for lr, _ in points],
            y=[loss for _, loss in points],
            shape=shape,
            colour=colour,
            faint=shape == "dots",
        )
        for (name, shape, colour), points in found.items()
    ]


def _regions(suggestion: Suggestion | None, limits: Limits) -> list[Region]:
    spelled = " to ".join(map(words.rate, GUIDELINE))
    guideline = Region(f"usual guideline, {spelled}", *GUIDELINE, "guideline")
    good = words.good(suggestion) if suggestion else None
    if suggestion is None or good is None or suggestion.low is None or suggestion.high is None:
        return [guideline]
    return [
        Region("too low", min(limits.left, good[0]), good[0], "low"),
        Region("good", *good, "good"),
        Region("too high", good[1], max(limits.right, good[1]), "high"),
        Region("interval", suggestion.low, suggestion.high, "interval"),
        guideline,
    ]


def draw_race(race: Race, points: int) -> Markup:
    """Return the training losses of a race's candidates, and the running mean of each.

    Args:
        race: with a candidate or more.
        points: at most about so many are drawn.
    """
    candidates = sorted(race.candidates, key=lambda candidate: candidate.lr)
    losses = [numbers(candidate.loss) for candidate in candidates]
    means = [running_mean(loss, race.steps) for loss in losses]
    sound = [m for m, c in zip(means, candidates, strict=True) if c.outcome != "diverged"]
    limits = span(np.concatenate([*(sound or means), []]), np.concatenate([*losses, []]))
    stride = _stride(2 * sum(loss.size for loss in losses), points)
    series = []
    for index, (candidate, loss, mean) in enumerate(zip(candidates, losses, means, strict=True)):
        name, colour = words.rate(candidate.lr), _colour(index)
        kept = slice(0, None, stride)
        steps = np.arange(1, loss.size + 1)[kept].tolist()
        raw, smooth = loss[kept].tolist(), mean[kept].tolist()
        raw_name = f"{name}: each step"
        series += [
            Series(name=raw_name, x=steps, y=raw, colour=colour, faint=True, hidden=True),
            Series(name=f"{name}: running mean", x=steps, y=smooth, colour=colour, smooth=True),
        ]
    return plot(
        "Training losses of the race",
        Axis("step of the race", 0, race.steps + 1, whole=True),
        Axis("training loss", limits.bottom, limits.top, log=limits.log),
        series,
        note=_left_out(stride),
        marks=[Mark("half-way", race.steps / 2, "dashed")],
    )


def draw_standings(race: Race, suggestion: Suggestion | None) -> Markup:
    """Return the losses that were compared, half-way and at the end, over the rate."""
    candidates = sorted(race.candidates, key=lambda candidate: candidate.lr)
    lr = [candidate.lr for candidate in candidates]
    half = [None if c.half_loss is None else c.half_loss for c in candidates]
    final = [_final(c.final_loss, diverged=c.outcome == "diverged") for c in candidates]
    errors = [c.standard_error or 0.0 for c in candidates]
    sound = [c.outcome != "diverged" for c in candidates]
    core = np.concatenate((numbers(half)[sound], numbers(final)[sound]))
    limits = span(core)
    ends = [
        tuple(
            None if loss is None else loss + sign * error
            for loss, error in zip(final, errors, strict=True)
        )
        for sign in (-1, 1)
    ]
    regions, marks = [], []
    if suggestion and suggestion.lr:
        if good := words.good(suggestion):
            regions = [Region("good", *good, "good")]
        marks = [Mark("suggestion", suggestion.lr, label=words.rate(suggestion.lr))]
    series = [
        Series(name="half-way", x=lr, y=half, shape="diamonds", colour=2),
        Series(
            name="at the end",
            x=lr,
            y=final,
            shape="dots",
            low=ends[0],
            high=ends[1],
            band="± standard error",
        ),
    ]
    return plot(
        f"What the race compared: {race.measure} loss over the rate",
        Axis("learning rate", min(lr) / 1.5, max(lr) * 1.5, log=True),
        Axis(f"{race.measure} loss", limits.bottom, limits.top, log=limits.log),
        series,
        regions=regions,
        marks=marks,
    )


def _final(loss: float | None, *, diverged: bool) -> float | None:
    return float("nan") if diverged else loss


def _colour(index: int) -> int:
    return 1 + index % COLOURS


def _stride(points: int, most: int) -> int:
    """Return how many points there are for each one that is drawn."""
    return max(-(-points // most), 1)


def _left_out(stride: int) -> str:
    return "" if stride == 1 else f"One step in {stride:,} is shown; report.json has all."
