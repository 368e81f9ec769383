"""The benchmark's pictures: who fails how often, what it costs, where each method falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter
from scipy import optimize

from benchmarks.regret import finders, ours
from benchmarks.regret.page import number, ordered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from benchmarks.regret.outcomes import Outcome

    Array = NDArray[np.float64]

OWN_LINES = {  # the command bold, the function dashed; with a race red
    ours.FIND: ("#0b62c4", "-"),
    ours.FIND_VERIFY: ("#d1341b", "-"),
    ours.FIND_LR: ("#0b62c4", "--"),
    ours.FIND_LR_VERIFY: ("#d1341b", "--"),
}
PEER_COLOURS = (  # no blue or red, which are lrtool's, and no grey
    "#e08214",
    "#1b9e77",
    "#7b3fa0",
    "#c2185b",
    "#7a9a01",
    "#00a3b4",
    "#8c510a",
    "#c9a400",
    "#e377c2",
)
CONTROL_GREYS = ("#111111", "#555555", "#888888", "#b0b0b0")
CONTROL_DASHES = ("-", "--", "-.", ":")
CONTROLS = (finders.TUNED, finders.DEFAULT, finders.EQUAL_COST, finders.RANDOM)
LEAST = 1e-3  # the lowest regret that a logarithmic axis shows
LINE = 1.22  # factor from one label to the next above it
REACH = 4  # decades on either side of the best rate


def draw(report: dict[str, Any], found: Sequence[Outcome], folder: Path) -> dict[str, str]:
    """Draw all pictures; return titles and files."""
    methods = ordered(report)
    looks = _looks(sorted(methods))
    drawn = {
        "Share of suggestions with a regret of at most r": ("profile.png", _profile),
        "Regret over cost": ("cost.png", _cost),
        "Where each method falls": ("distance.png", _distance),
    }
    for name, plot in drawn.values():
        figure = plot(methods, looks, report, found)
        figure.savefig(folder / name, dpi=150)
    return {title: name for title, (name, _) in drawn.items()}


def _looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each method's line: lrtool bold, peers coloured, controls grey and dashed."""
    own = [method for method in methods if method in finders.OWN]
    peers = [method for method in methods if method not in own and method not in CONTROLS]
    looks: dict[str, dict[str, Any]] = {}
    for method in own:
        colour, dash = OWN_LINES[method]
        looks[method] = {"color": colour, "linestyle": dash, "linewidth": 2.8, "zorder": 5}
    for place, method in enumerate(peers):
        looks[method] = {"color": PEER_COLOURS[place % len(PEER_COLOURS)], "linewidth": 1.3}
    for method, grey, dash in zip(CONTROLS, CONTROL_GREYS, CONTROL_DASHES, strict=True):
        looks[method] = {"color": grey, "linestyle": dash, "linewidth": 1.6}
    return looks


def _profile(
    methods: Sequence[str],
    looks: dict[str, dict[str, Any]],
    report: dict[str, Any],
    found: Sequence[Outcome],
) -> Figure:
    """For each regret the share of suggestions, cell by seed, that stay below it."""
    figure = Figure((10, 5.6), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        ends = np.sort([max(o.regret, LEAST) for o in found if o.method == method])
        share = np.arange(1, len(ends) + 1) / len(ends)
        mean = report["groups"]["all"]["methods"][method]["mean"]
        axes.step(
            [LEAST, *ends, 1.0],
            [0, *share, 1.0],
            where="post",
            label=f"{method} (mean {number(mean)})",
            **looks[method],
        )
    axes.set_xscale("log")
    axes.set(xlim=(LEAST, 1), ylim=(0, 1.01), xlabel="regret r", ylabel="share with at most r")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([1e-3, 0.01, 0.02, 0.1, 0.5, 1], ["≤ 0.001", "0.01", "0.02", "0.1", "0.5", "1"])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    _bare(axes)
    return figure


def _cost(
    methods: Sequence[str],
    looks: dict[str, dict[str, Any]],
    report: dict[str, Any],
    _: Sequence[Outcome],
) -> Figure:
    """Mean regret over mean steps, with 95% intervals."""
    figure = Figure((10, 6), layout="constrained")
    axes = figure.subplots()
    table = report["groups"]["all"]["methods"]
    shown = {method: max(table[method]["mean"], LEAST) for method in methods}
    floor = min(shown.values()) / 2
    most = max(table[method]["steps"] for method in methods)
    axes.set_yscale("log")
    axes.set(xlim=(-0.48 * most, 1.5 * most), ylim=(floor, 1.3))
    for method in methods:
        look, steps = looks[method], table[method]["steps"]
        low, high = (max(end, floor) for end in table[method]["mean_95"])
        axes.plot([steps, steps], [low, high], color=look["color"], linewidth=1, alpha=0.4)
        axes.plot(steps, shown[method], "o", color=look["color"], zorder=look.get("zorder", 3))
    columns: dict[int, list[str]] = {}  # of labels: what costs nothing to the left, by thirds
    for method in methods:
        steps = table[method]["steps"]
        third = -1 if steps == 0 else min(int(3 * steps / most), 2)
        columns.setdefault(third, []).append(method)
    for column, names in columns.items():
        side = -1 if column < 0 else 1
        for method, height in zip(names, _apart([shown[name] for name in names]), strict=True):
            axes.annotate(
                method,
                (table[method]["steps"], shown[method]),
                (table[names[0]]["steps"] + side * 0.045 * most, height),
                va="center",
                ha="left" if side > 0 else "right",
                fontsize=9,
                color=looks[method]["color"],
                weight="bold" if method in finders.OWN else "normal",
                arrowprops={"arrowstyle": "-", "color": looks[method]["color"], "alpha": 0.5},
            )
    axes.set_xlabel("steps spent, an evaluation as a third of one (mean over cells)")
    axes.set_ylabel("mean regret, 95% interval")
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1.1 * most])
    ticks = [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0) if tick >= floor]
    names = [number(tick, 3).rstrip("0").rstrip(".") for tick in ticks]
    axes.set_yticks(ticks, [f"≤ {name}" if name == "0.001" else name for name in names])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    _bare(axes)
    return figure


def _apart(heights: Sequence[float]) -> Array:
    """Return ascending heights for labels, each at least a line above the one before.

    They are the nearest such heights: what lies too close together moves apart both ways.
    """
    lines = np.log(LINE) * np.arange(len(heights))
    return np.exp(optimize.isotonic_regression(np.log(heights) - lines).x + lines)


def _distance(
    methods: Sequence[str],
    looks: dict[str, dict[str, Any]],
    report: dict[str, Any],
    found: Sequence[Outcome],
) -> Figure:
    """Show log10(rate / best) of each suggestion, with median and quartiles."""
    figure = Figure((10, 0.42 * len(methods) + 1.2), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    width = float(np.median([o.window[1] - o.window[0] for o in found]))
    axes.axvspan(-width / 2, width / 2, color="#2a9d3a", alpha=0.12, linewidth=0)
    axes.axvline(0, color="#2a9d3a", linewidth=0.8)
    for row, method in enumerate(reversed(methods)):
        mine = [o for o in found if o.method == method]
        away = np.array([o.decades for o in mine if o.lr is not None])
        colour = looks[method]["color"]
        axes.scatter(
            np.clip(away, -REACH, REACH),
            row + rng.uniform(-0.28, 0.28, len(away)),
            s=7,
            color=colour,
            alpha=0.5,
            linewidths=0,
        )
        if len(away):
            low, middle, high = np.clip(np.quantile(away, (0.25, 0.5, 0.75)), -REACH, REACH)
            axes.plot([low, high], [row, row], color="black", linewidth=2.2)
            axes.plot(middle, row, "o", color="white", markeredgecolor="black", markersize=6)
        beyond = int((np.abs(away) > REACH).sum())
        notes = [f"{beyond} beyond"] * bool(beyond)
        notes += [f"{len(mine) - len(away)} none"] * (len(away) < len(mine))
        axes.text(REACH + 0.1, row, ", ".join(notes), va="center", fontsize=8, color="#666666")
    table = report["groups"]["all"]["methods"]
    labels = [f"{method}  {number(table[method]['mean'])}" for method in methods]
    axes.set_yticks(range(len(methods)), reversed(labels), fontsize=9)
    for label, method in zip(axes.get_yticklabels(), reversed(methods), strict=True):
        label.set_fontweight("bold" if method in finders.OWN else "normal")
    axes.set(xlim=(-REACH - 0.1, REACH + 0.1), ylim=(-0.6, len(methods) - 0.4))
    axes.set_xlabel(
        "log10(suggested / best); green: the median stretch of rates with r < 2%;"
        " beside the names: mean regret"
    )
    axes.grid(axis="x", alpha=0.3)
    _bare(axes)
    return figure


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
