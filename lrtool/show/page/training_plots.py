"""The plots of a training: losses, metrics, rate and gradients, over epochs and steps."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from lrtool.show import words
from lrtool.show.page.axis import Axis
from lrtool.show.page.bins import binned, size_of
from lrtool.show.page.plot import Mark, Series, plot
from lrtool.show.plots.limits import numbers
from lrtool.show.plots.span import Span, of_losses, of_rates, span
from lrtool.show.smoothing import running_mean

if TYPE_CHECKING:
    from markupsafe import Markup
    from numpy.typing import NDArray

    from lrtool.report.report import TrainReport

MOST_METRICS = 4
FEW = 60  # points: lines have dots as well
SMALL = 0.6  # of the points of a large plot


def draw_plots(report: TrainReport, most: int) -> list[Markup]:
    """Return the plots of a training, each series of at most `most` points."""
    small = max(round(SMALL * most), 10)
    epochs = [_epochs(report, most)] if len(report.epochs) > 1 else []
    steps = [_steps(report, most)] if report.steps.step else []
    metrics = [_metric(report, name, small) for name in metrics_of(report)[:MOST_METRICS]]
    rates = [_rate(report, small)] if report.steps.step else []
    norms = [_gradients(report, small)] if report.steps.grad_norm else []
    return [*epochs, *steps, *metrics, *rates, *norms]


def metrics_of(report: TrainReport) -> list[str]:
    """Return the metrics: the one of the best epoch first, those without any value last."""
    names: dict[str, bool] = {}
    for epoch in report.epochs:
        for name, value in epoch.metrics.items():
            names[name] = names.get(name, False) or isfinite(value)
    best = report.best.metric if report.best else None
    return sorted(names, key=lambda name: (name != best, not names[name]))


def _epochs(report: TrainReport, most: int) -> Markup:
    limits = of_losses(report)
    x = [epoch.epoch for epoch in report.epochs]
    training = numbers([epoch.train_loss for epoch in report.epochs])
    series = [Series(name="training, mean of an epoch", **_line(x, training, most))]
    if words.validated(report):
        validation = numbers([epoch.validation_loss for epoch in report.epochs])
        series.append(Series(name="validation", colour=2, **_line(x, validation, most)))
    return plot(
        "Loss over epochs",
        _epoch_axis(report),
        _axis("loss", limits),
        _with_dots(series),
        note=_note(len(x), most, "epoch"),
        marks=_best(report),
        tall=True,
        zoom=True,
    )


def _steps(report: TrainReport, most: int) -> Markup:
    steps, limits = report.steps, of_losses(report)
    loss = numbers(steps.loss)
    low, high = (numbers(each) if each else None for each in (steps.lowest, steps.highest))
    raw = binned(steps.step, loss, most, low, high)
    look = {"band": "lowest and highest"} if "low" in raw else {"shape": "dots"}
    series = [Series(name="each step", colour=6, faint=True, **{**raw, **look})]
    if loss.size > FEW:
        mean = binned(steps.step, running_mean(loss, loss.size), most)
        series.append(Series(name="running mean", x=mean["x"], y=mean["y"]))
    marks = []
    if report.best:
        marks.append(Mark(f"best: epoch {report.best.epoch:,}", report.best.step, "dotted"))
    if report.status == "diverged":
        marks.append(Mark("diverged", words.last_step(report), "dashed"))
    return plot(
        "Training loss over steps",
        _step_axis(report),
        _axis("loss of the batch, before the update", limits),
        series,
        note=_note_of_steps(report, most),
        marks=marks,
        zoom=True,
    )


def _metric(report: TrainReport, name: str, most: int) -> Markup:
    epochs = [epoch for epoch in report.epochs if name in epoch.metrics]
    values = numbers([epoch.metrics[name] for epoch in epochs])
    title = words.metric(name, validated=words.validated(report))
    line = Series(name=title, colour=3, **_line([epoch.epoch for epoch in epochs], values, most))
    return plot(
        f"Metric over epochs: {title}",
        _epoch_axis(report),
        _axis(title, _of_metric(values)),
        _with_dots([line]),
        note=_note(len(epochs), most, "epoch"),
        marks=_best(report),
        zoom=True,
    )


def _of_metric(values: NDArray[np.float64]) -> Span:
    """Return an axis for a metric: logarithmic for errors that span decades, not for shares."""
    limits = span(values)
    if not limits.log or limits.top > 2:
        return limits
    finite = values[np.isfinite(values)]
    margin = 0.06 * float(finite.max() - finite.min())
    return Span(float(finite.min()) - margin, float(finite.max()) + margin, log=False)


def _rate(report: TrainReport, most: int) -> Markup:
    rates = np.array(report.steps.lr, dtype=float)
    line = binned(report.steps.step, rates, most)
    return plot(
        "Learning rate over steps",
        _step_axis(report),
        _axis("learning rate", of_rates(rates)),
        [Series(name="learning rate", shape="levels", x=line["x"], y=line["y"])],
        note=_note_of_steps(report, most, band=False),
        zoom=True,
    )


def _gradients(report: TrainReport, most: int) -> Markup:
    norms = numbers(report.steps.grad_norm)
    limit = words.setting(report, "train", "gradient_clip_norm")
    series = [
        Series(name="norm of all gradients", colour=4, **_line(report.steps.step, norms, most))
    ]
    if isinstance(limit, int | float):
        ends = [0, max(words.last_step(report), 1)]
        name = "train.gradient_clip_norm: clipped above"
        series.append(Series(name=name, x=ends, y=[limit, limit], colour=7))
    finite = norms[np.isfinite(norms)]
    core = finite[finite <= np.quantile(finite, 0.99)] if finite.size else finite
    return plot(
        "Norm of the gradients over steps",
        _step_axis(report),
        _axis("norm before clipping", span(np.append(core, limit or []), norms)),
        series,
        note=_note_of_steps(report, most, "highest norm"),
        zoom=True,
    )


def _line(x: Any, y: Any, most: int) -> dict[str, Any]:
    found = binned(x, y, most)
    return {**found, "band": "lowest and highest"} if "low" in found else found


def _with_dots(series: list[Series]) -> list[Series]:
    """Return lines, with a dot at each point where there are few."""
    dots = [
        Series(
            name=each.name,
            x=each.x,
            y=each.y,
            colour=each.colour,
            shape="dots",
            hidden=True,
            only_drawn=True,
        )
        for each in series
        if len(each.x) <= FEW
    ]
    return [*series, *dots]


def _best(report: TrainReport) -> list[Mark]:
    if report.best is None:
        return []
    return [Mark("best epoch", report.best.epoch, "dotted", label=f"epoch {report.best.epoch:,}")]


def _epoch_axis(report: TrainReport) -> Axis:
    epochs = [epoch.epoch for epoch in report.epochs]
    margin = 0.015 * (max(epochs) - min(epochs))
    return Axis("epoch", min(epochs) - margin, max(epochs) + margin, whole=True)


def _step_axis(report: TrainReport) -> Axis:
    last = max(words.last_step(report), 1)
    margin = 0.015 * last  # room for the first dot and the last one
    return Axis("step", -margin, last + margin, whole=True)


def _axis(name: str, limits: Span) -> Axis:
    return Axis(name, limits.bottom, limits.top, log=limits.log)


def _note(points: int, most: int, what: str) -> str:
    size = size_of(points, most)
    if size == 1:
        return ""
    return (
        f"Each point stands for {size:,} {what}s and is the first of them; the shade reaches from "
        "the lowest to the highest of them."
    )


def _note_of_steps(report: TrainReport, most: int, shown: str = "", *, band: bool = True) -> str:
    """Say how many steps a point stands for; of a long training report.json has not all."""
    steps, logged = report.steps.step, int(words.setting(report, "train", "log_every") or 1)
    size = size_of(len(steps), most)
    apart = size * (steps[1] - steps[0] if len(steps) > 2 else 1) // logged
    each = "step" if logged == 1 else "logged step"
    every = f"metrics.jsonl has every {each}."
    if logged > 1:
        every = f"One step in {logged:,} was logged (train.log_every); {every}"
    if apart <= 1:
        return every if logged > 1 else ""
    if not band:
        return f"Each level is that of one {each} in {apart:,}. {every}"
    if shown and size == 1:
        return f"Each point is the {shown} of {apart:,} {each}s. {every}"
    what = f"the {shown}s among them" if shown else "the lowest to the highest loss of all of them"
    return f"Each point stands for {apart:,} {each}s; the shade reaches over {what}. {every}"
