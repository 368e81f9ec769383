"""The race under the sweeps: training losses over steps, and measured losses over rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lrtool.show import words
from lrtool.show.plots import panels
from lrtool.show.plots.canvas import GOOD, GREY, INK, LEFT, VECTOR_POINTS, WIDTH
from lrtool.show.plots.limits import numbers
from lrtool.show.plots.span import span
from lrtool.show.smoothing import running_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lrtool.report.records import Candidate, Race, Suggestion
    from lrtool.show.plots.span import Span

    Array = NDArray[np.float64]

HEIGHT = 3.0  # inches: of both panels with titles and legend
PANEL, BOTTOM = 1.75, 0.83  # inches: how high a panel is, and what is below it
STEPS = 0.42  # of the width: the panel over steps
GAP = 0.1  # likewise, between the two
LABEL = 0.58  # inches between two rates that are both spelled on the axis
COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#d4b514")  # viridis: from low to high rates


def draw(figure: Figure, race: Race, suggestion: Suggestion | None) -> None:
    """Add the two panels and their legend to the lowest 3 inches of a figure."""
    candidates = sorted(race.candidates, key=lambda candidate: candidate.lr)
    colours = dict(
        zip([candidate.lr for candidate in candidates], _colours(len(candidates)), strict=True)
    )
    whole = figure.get_figheight()
    steps, rates = (
        figure.add_axes((LEFT + left * WIDTH, BOTTOM / whole, width * WIDTH, PANEL / whole))
        for left, width in ((0, STEPS), (STEPS + GAP, 1 - STEPS - GAP))
    )
    steps.set_label("race steps")
    rates.set_label("race rates")
    _draw_steps(steps, race, candidates, colours)
    _draw_rates(rates, race, candidates, colours, suggestion)
    handles = [Line2D([], [], color=colours[r.lr], lw=2.5, marker="o", ms=5) for r in candidates]
    labels = [f"{words.rate(candidate.lr)} {candidate.outcome}" for candidate in candidates]
    style: dict[str, Any] = {"frameon": False, "ncols": len(candidates), "handlelength": 1.6}
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.05 / whole), **style)


def _colours(count: int) -> list[str]:
    """Return colours from dark to light, as far apart as their number allows."""
    places = np.linspace(0, len(COLOURS) - 1, count) if count > 1 else np.zeros(1)
    return [COLOURS[round(place)] for place in places]


def _draw_steps(
    axes: Axes, race: Race, candidates: Sequence[Candidate], colours: dict[float, str]
) -> None:
    """Draw each candidate's raw losses, faint, and their running mean."""
    losses = {candidate.lr: numbers(candidate.loss) for candidate in candidates}
    smooth = {lr: running_mean(loss, race.steps) for lr, loss in losses.items()}
    sound = [smooth[candidate.lr] for candidate in candidates if candidate.outcome != "diverged"]
    core = np.concatenate([*(sound or smooth.values()), []])
    limits = span(core, np.concatenate([*losses.values(), []]))
    bitmap = sum(loss.size for loss in losses.values()) > VECTOR_POINTS
    for candidate in candidates:
        loss = losses[candidate.lr]
        style: dict[str, Any] = {"color": colours[candidate.lr], "rasterized": bitmap}
        x = np.arange(1, loss.size + 1)
        axes.plot(x, loss, lw=0.6, alpha=0.35, **style)
        axes.plot(x, smooth[candidate.lr], lw=1.8, gid=f"race {candidate.lr}", **style)
    axes.axvline(race.steps / 2, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=0, gid="half-way")
    unit = panels.set_y(axes, limits, ticks=5)
    axes.set_xlim(0, race.steps + 1)
    panels.count(axes)
    panels.open_frame(axes)
    axes.set_xlabel("step of the race")
    panels.write_title(axes, f"race: training loss{unit}")


def _draw_rates(
    axes: Axes,
    race: Race,
    candidates: Sequence[Candidate],
    colours: dict[float, str],
    suggestion: Suggestion | None,
) -> None:
    """Draw the measured losses over the rate: half-way hollow, at the end with the error."""
    lr = np.array([candidate.lr for candidate in candidates])
    half = numbers([candidate.half_loss for candidate in candidates])
    final = numbers([candidate.final_loss for candidate in candidates])
    axes.set_xscale("log")
    axes.set_xlim(lr.min() / 1.5, lr.max() * 1.5)
    sound = np.array([candidate.outcome != "diverged" for candidate in candidates], dtype=bool)
    limits = span(np.concatenate((half[sound], final[sound])))
    unit = panels.set_y(axes, limits, ticks=5)
    for index, candidate in enumerate(candidates):
        color = colours[candidate.lr]
        _draw_candidate(axes, candidate, half[index], final[index], color=color, limits=limits)
    if suggestion and suggestion.lr:
        if region := words.good(suggestion):
            axes.axvspan(*region, color=GOOD, alpha=0.35, lw=0, zorder=0, gid="good")
        axes.axvline(suggestion.lr, color=INK, lw=1.5, zorder=1, gid="suggestion")
    _spell_rates(axes, candidates)
    panels.open_frame(axes)
    if not np.isfinite([*half, *final]).any():
        panels.say(axes, "nothing to compare")
    axes.set_xlabel("learning rate (log scale) · bar: standard error")
    panels.write_title(axes, f"race: {race.measure} loss{unit}", "hollow: half-way")


def _draw_candidate(
    axes: Axes, candidate: Candidate, half: float, final: float, *, color: str, limits: Span
) -> None:
    """Draw a candidate: a line from half-way to the end; at the edge if it diverged."""
    style: dict[str, Any] = {"color": color, "marker": "o", "ls": "none", "zorder": 4}
    if candidate.outcome == "diverged":
        panels.mark_edges(axes, np.array([candidate.lr]), np.array([np.nan]), limits, color)
    axes.plot([candidate.lr] * 2, [half, final], color=color, lw=1, alpha=0.5, zorder=2)
    axes.plot([candidate.lr], [half], ms=6, mfc="white", gid=f"half {candidate.lr}", **style)
    if np.isfinite(final):
        bar = candidate.standard_error or 0.0
        axes.errorbar(candidate.lr, final, yerr=bar, color=color, lw=1.5, capsize=3, zorder=3)
        edge = {"mec": INK, "mew": 1.4} if candidate.outcome == "won" else {"mew": 0}
        size = 9 if candidate.outcome == "won" else 7
        axes.plot([candidate.lr], [final], ms=size, gid=f"final {candidate.lr}", **style, **edge)


def _spell_rates(axes: Axes, candidates: Sequence[Candidate]) -> None:
    """Write the candidates' rates under the axis where there is room, the winner's first."""
    left, right = np.log10(axes.get_xlim())
    per_decade = axes.bbox.width / axes.figure.dpi / (right - left)
    spelled: list[float] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.outcome != "won"):
        if all(abs(np.log10(candidate.lr / lr)) * per_decade >= LABEL for lr in spelled):
            spelled.append(candidate.lr)
    axes.xaxis.set_major_locator(FixedLocator([*map(float, spelled)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.rate(value)))
    axes.xaxis.set_minor_locator(NullLocator())
