"""The result for people: `report.html` with its pictures, and the table of the README."""

from __future__ import annotations

import html
import json
import sys
from typing import TYPE_CHECKING, Any

import finders
import pictures
import summary
from spelling import gap, number, span

from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cells import Cell

PAIRED = ("constant", "warmup + cosine")  # the groups that the README's table sets side by side
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.own td { font-weight: 600; background: #eef4fb; }
small { color: #777; font-weight: normal; }
img { max-width: 100%; }
"""


INTRODUCTION = (
    "<p>r = 0: trains as well as the best rate of an exhaustive grid; r = 1: no better than not"
    " training. A missing suggestion counts 1. Small print: 95% intervals.</p>"
)


def write(chosen: Sequence[Cell], cache: Path, name: str) -> None:
    """Write report.json, report.html and pictures for a set of cells, and print the table."""
    report, found = summary.summarize(chosen, cache)
    folder = cache / name
    folder.mkdir(exist_ok=True)
    files.write_text(folder / "report.json", json.dumps({"set": name, **report}, allow_nan=False))
    drawn = pictures.draw(report, found, folder)
    files.write_text(folder / "report.html", _page(name, report, drawn))
    print(markdown(report, name))
    print(f"{folder / 'report.html'}", file=sys.stderr)


def ordered(report: dict[str, Any], group: str = "all") -> list[str]:
    """Return the methods, the lowest mean regret first."""
    table = report["groups"][group]["methods"]
    return sorted(table, key=lambda method: table[method]["mean"])


def markdown(report: dict[str, Any], name: str) -> str:
    """Return the README's table: constant rate / warmup + cosine."""
    groups = [group for group in PAIRED if group in report["groups"]]
    head = ["", "steps", "mean r", "95%", "median", "IQM", "p90", "r > .5", "seed gap, decades"]
    rows = []
    for method in ordered(report):
        both = [report["groups"][group]["methods"][method] for group in groups]
        row = [f"**{method}**" if method in finders.OWN else method]
        row.append(f"{report['groups']['all']['methods'][method]['steps']:.0f}")
        row.append(" / ".join(number(own["mean"]) for own in both))
        row.append(" / ".join(span(*own["mean_95"]) for own in both))
        row += [" / ".join(number(own[key]) for own in both) for key in ("median", "iqm", "p90")]
        row.append(" / ".join(f"{own['failures']:.0%}" for own in both))
        row.append(" / ".join(gap(own["seed_gap"]) for own in both))
        rows.append(row)
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    return f"{table}\n\n{' / '.join(groups)}. {_conditions(report, name)}"


def _conditions(report: dict[str, Any], name: str) -> str:
    where = report["environment"]
    versions = ", ".join(f"{package} {version}" for package, version in where["versions"].items())
    sizes = ", ".join(
        f"{group}: {report['groups'][group]['cells']}"
        for group in (*PAIRED, "one-cycle", "T ≥ 3,000")
        if group in report["groups"]
    )
    command = "make regret-quick" if name == "quick" else "make regret"
    return (
        f"`{command}`: {report['cells']} {name} cells ({sizes}) of {report['tasks']} tasks, "
        f"{report['finder_seeds']} finder seeds, trained at exactly the suggested rate; intervals "
        f"by a hierarchical bootstrap over tasks, then seeds. {where['processor']}, "
        f"{where['cores']} cores, one thread a process; {versions}."
    )


def _page(name: str, report: dict[str, Any], drawn: dict[str, str]) -> str:
    parts = [
        f"<h1>Regret of suggested learning rates: {html.escape(name)} cells</h1>",
        INTRODUCTION,
        f"<p>{html.escape(_conditions(report, name))}</p>",
        *(
            f"<h2>{html.escape(title)}</h2><img src='{file}' alt='{html.escape(title)}'>"
            for title, file in drawn.items()
        ),
    ]
    for group, found in report["groups"].items():
        title = f"{group}: {found['cells']} cells of {found['tasks']} tasks"
        parts += [f"<h2>{html.escape(title)}</h2>", _table(report, group)]
    parts += ["<h2>Against each other method</h2>", _against(report)]
    parts += ["<h2>Intervals and verdicts</h2>", _verdicts(report)]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>Regret: {html.escape(name)}</title><style>{STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], own: Sequence[bool]) -> str:
    cells = "".join(f"<th>{text}</th>" for text in head)
    body = "".join(
        f"<tr{' class=own' if mine else ''}>"
        + "".join(f"<td>{text}</td>" for text in row)
        + "</tr>"
        for row, mine in zip(rows, own, strict=True)
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _table(report: dict[str, Any], group: str) -> str:
    table = report["groups"][group]["methods"]
    methods = ordered(report, group)
    head = ["method", "mean r", "mean over tasks", "median", "IQM", "p90", "r &gt; .5"]
    head += ["seed gap", "no rate", "log10(rate / best)", "steps", "of T"]
    rows = []
    for method in methods:
        own = table[method]
        row = [html.escape(method)]
        row += [
            f"{number(own[key])} <small>{span(*own[f'{key}_95'])}</small>"
            for key in ("mean", "task_mean", "median", "iqm", "p90")
        ]
        row.append(f"{own['failures']:.0%}")
        row += [gap(own["seed_gap"]), f"{own['without_rate']:.0%}"]
        away = own["median_decades"]
        row.append("–" if away is None else f"{away:+.2f}".replace("-", "−"))
        row += [f"{own['steps']:.0f}", f"{own['share_of_training']:.0%}"]
        rows.append(row)
    return _rows(head, rows, [method in finders.OWN for method in methods])


def _against(report: dict[str, Any]) -> str:
    head = ["", "against", "P(lower regret)", "difference of means over tasks", "p (Holm)"]
    rows = [
        [
            html.escape(ours),
            html.escape(other),
            f"{found['better']:.2f} <small>{span(*found['better_95'])}</small>",
            number(found["mean_difference"]),
            f"{found['p_holm']:.2g}",
        ]
        for ours, others in report["comparisons"].items()
        for other, found in others.items()
    ]
    note = (
        "<p>P: the share of pairs, trained from the same seeds, in which its regret is the lower"
        " one, ties counting half, averaged over a task's cells, then over tasks. p: Wilcoxon's"
        " signed-rank test over tasks, two-sided, Holm's correction over all lines of this table."
        "</p>"
    )
    return note + _rows(head, rows, [False] * len(rows))


def _verdicts(report: dict[str, Any]) -> str:
    head = ["cells", "method", "n", "coverage", "median width", "window's width", "rate inside"]
    head += ["verdicts: share (mean r)"]
    rows = [
        [
            html.escape(group),
            html.escape(method),
            str(found["n"]),
            "–"
            if found["coverage"] is None
            else f"{found['coverage']:.0%} <small>"
            f"{' to '.join(f'{end:.0%}' for end in found['coverage_95'])}</small>",
            gap(found["width_median"]),
            gap(found["window_median"]),
            f"{found['inside_window']:.0%}",
            ", ".join(
                f"{verdict} {own['share']:.0%} ({number(own['mean'])})"
                for verdict, own in found["verdicts"].items()
            ),
        ]
        for group, methods in report["intervals"].items()
        for method, found in methods.items()
    ]
    note = (
        "<p>Coverage: how often the 80% interval reaches into the rates with a regret below 2%."
        " Widths in decades.</p>"
    )
    return note + _rows(head, rows, [False] * len(rows))
