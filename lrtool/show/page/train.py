"""The page of a training: how it ended, its plots, its epochs, and what its weights predict."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from lrtool.report.marker import CONFIG
from lrtool.report.records import finite_or_none
from lrtool.show import words
from lrtool.show.page import find
from lrtool.show.page.about import about, short
from lrtool.show.page.bins import size_of, some_of
from lrtool.show.page.predictions import predictions
from lrtool.show.page.render import METRIC_DIGITS, POINTS, first_that_fits, render, room
from lrtool.show.page.training_plots import MOST_METRICS, draw_plots, metrics_of

if TYPE_CHECKING:
    from pathlib import Path

    from lrtool.report.report import FindReport, TrainReport

    Rows = list[tuple[str, ...]]

EPOCHS = 60  # rows of the table that a page has room for before its plots lose points
FEWER_EPOCHS = 25
MORE_EPOCHS = (2000, 1500, 1000, 700, 500, 350, 250, 120)  # the most that fit, once the plots do
CELL = 10  # bytes of a cell at least: its tags and a digit


def draw(report: TrainReport, run: Path, search: FindReport | None = None) -> str:
    """Return the page as HTML; its commands name `run`, the directory.

    Args:
        report: of the training.
        run: its directory.
        search: the find inside the run; None without one.
    """
    tries = [(points, search) for points in POINTS] + [(POINTS[-1], None)] * (search is not None)
    least, page = 0, ""
    for points, shown in tries:
        least = EPOCHS if points > FEWER_EPOCHS else FEWER_EPOCHS
        page = _draw(report, run, search, shown, points, epochs=least)
        if room(page) >= 0:
            break
    more = (
        _draw(report, run, search, shown, points, epochs=most)
        for most in _larger(report, page, least)
    )
    return first_that_fits(chain(more, [page]))


def _larger(report: TrainReport, page: str, least: int) -> list[int]:
    """Return how many rows a larger table of epochs may have, of those that may have room."""
    count, cells = len(report.epochs), len(_epochs(report, 1)[0])
    apart = {size_of(count, most): most for most in MORE_EPOCHS}  # each table once
    drawn, rows = size_of(count, least), room(page) // (CELL * cells)
    return [most for each, most in apart.items() if each < drawn and count // each <= rows]


def _draw(
    report: TrainReport,
    run: Path,
    search: FindReport | None,
    shown: FindReport | None,
    points: int,
    *,
    epochs: int,
) -> str:
    """Return the page; of a search that is not shown it has the sentence alone."""
    title, lead = _headline(report)
    opening = [text for text in (lead, report.reason) if text]
    if report.status != "completed":  # why comes first
        opening.reverse()
    heads, rows, left_out = _epochs(report, epochs)
    return render(
        "train.html",
        title=title,
        opening=opening,
        state="" if report.status == "completed" else report.status,
        subject=words.subject(report),
        next_steps=_next_steps(report, run),
        results=_results(report),
        plots=draw_plots(report, points),
        more_metrics=metrics_of(report)[MOST_METRICS:],
        epoch_heads=heads,
        epochs=rows,
        left_out=left_out,
        predictions=predictions(report),
        found=None if search is None else find.sentences(search),
        about=about(report),
        whole=shown is not None,
        **(find.search(shown, points) if shown else {}),
    )


def _headline(report: TrainReport) -> tuple[str, str]:
    """Return the title, and the sentence below it: what was trained, and how far."""
    best = f"Best {words.best(report)}" if report.best else "No best epoch"
    match report.status:
        case "diverged":
            title = f"Diverged at step {words.last_step(report):,}"
        case "failed":
            title = "The training failed"
        case "interrupted":
            title = "The training was interrupted"
        case "no_suggestion":
            title = "No trustworthy learning rate"
        case _:
            title = best
    if report.learning_rate is None:
        return title, "Nothing was trained."
    model = report.model.name if report.model else words.setting(report, "model", "name")
    lead = f"{short(str(model or 'The model'))} was trained up to {words.progress(report)}"
    lead += f", at learning rate {words.learning_rate(report)}"
    if report.status != "completed" and report.best:
        lead += f"; {best[:1].lower()}{best[1:]}"
    return title, f"{lead}."


def _results(report: TrainReport) -> Rows:
    """Return what the best epoch reached, and the last one."""
    chosen = {"best": report.best.step if report.best else None}
    rows: Rows = []
    validated = words.validated(report)
    for epoch in report.epochs:
        names = [name for name, step in chosen.items() if step == epoch.step]
        if epoch is report.epochs[-1]:
            names.append("last")
        if not names:
            continue
        values = {"train_loss": words.value(finite_or_none(epoch.train_loss))}
        if validated:
            values["validation_loss"] = words.value(finite_or_none(epoch.validation_loss))
        values |= {name: _metric(value) for name, value in epoch.metrics.items()}
        text = ", ".join(
            f"{words.metric(name, validated=validated)} {value}"
            for name, value in [*values.items()][:12]
        )
        rows.append((f"{' and '.join(names)} epoch, {epoch.epoch:,}", short(text)))
    rows.append(("schedule", words.schedule(report)))
    return rows


def _metric(value: float | None) -> str:
    return words.value(finite_or_none(value), METRIC_DIGITS)


def _next_steps(report: TrainReport, run: Path) -> list[tuple[str, str]]:
    """Return what to do next, a sentence each, with a command or none."""
    config = run / CONFIG
    rate = report.learning_rate
    resume = ("Go on where it ended:", words.command("train", config, "--resume", run))
    again = ("Train again:", words.command("train", config))
    match report.status:
        case "no_suggestion":
            steps = [
                (advice, "") for advice in (report.suggestion.advice if report.suggestion else ())
            ]
            own = words.command("train", config, "--lr", "0.001")
            return [*steps, ("Train with a rate of your own:", own)]
        case "failed":
            check = ("Mend the cause, then try one batch:", words.command("check", config))
            return [check, resume if report.checkpoint else again]
        case "interrupted":
            return [resume if report.checkpoint else again]
        case "diverged":
            steps = [("Find a rate for this model and these data:", words.command("find", config))]
            if rate:
                lower = words.rate(rate.value / 10)
                command = words.command("train", config, "--lr", lower)
                steps.append(("Or train again with a tenth of the rate:", command))
            if words.setting(report, "train", "gradient_clip_norm") is None:
                clip = ("train", config, "--set", "train.gradient_clip_norm=1")
                steps.append(("Or clip the gradients:", words.command(*clip)))
            if report.best:
                steps.append(
                    ("The weights of the best epoch are kept:", words.command("evaluate", run))
                )
            return steps
    steps = []
    if rate and rate.origin == "optimizer":
        steps.append(("Find a rate first:", words.command("train", config, "--lr", "auto")))
    if report.best and report.epochs and report.best.step == report.epochs[-1].step:
        what = "The last epoch is the best one: a longer training may be better."
        steps.append((what, ""))
    evaluate = words.command("evaluate", run)
    steps += [("Evaluate the best weights, or on other data:", evaluate)] if report.best else []
    return [*steps, ("Predict:", words.command("predict", run, "DATA"))]


def _epochs(report: TrainReport, most: int) -> tuple[list[str], list[dict[str, Any]], str]:
    """Return heads and rows of the table of epochs, and which of them it leaves out."""
    epochs, validated = report.epochs, words.validated(report)
    best = [i for i, each in enumerate(epochs) if report.best and each.step == report.best.step]
    shown = some_of(len(epochs), most, best)
    metrics = metrics_of(report)[:8]
    heads = ["epoch", "step", "rate", "training loss", *["validation loss"] * validated]
    heads += [short(words.metric(name, validated=validated)) for name in metrics]
    rows = []
    for index in shown:
        epoch = epochs[index]
        cells = [f"{epoch.epoch:,}", f"{epoch.step:,}", words.rate(epoch.lr) if epoch.lr else "0"]
        losses = [epoch.train_loss, *[epoch.validation_loss] * validated]
        cells += [words.value(finite_or_none(loss)) for loss in losses]
        cells += [_metric(epoch.metrics.get(name)) for name in metrics]
        rows.append({"cells": cells, "best": index in best})
    left_out = ""
    if len(shown) < len(epochs):
        left_out = (
            f"{len(epochs) - len(shown):,} of {len(epochs):,} epochs are left out here: shown are "
            "the first, the last, the best and evenly spaced ones between. metrics.jsonl has all."
        )
    return heads, rows, left_out
