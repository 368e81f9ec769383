"""The result for people: `report.html`, and the figures of README.md and docs/.

In those pages stands between `<!-- regret: NAME -->` and `<!-- end -->` what is written here and
nowhere else.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.regret import tasks
from benchmarks.regret.finders import OWN, TUNED
from benchmarks.regret.ours import FIND, FIND_VERIFY
from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PICTURE = ROOT / "docs" / "regret.png"
BLOCK = re.compile(r"(<!-- regret: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

PAIRED = ("constant", "warmup + cosine")  # the groups that the README's table sets side by side
LONG = "T ≥ 3,000"
KINDS = {task.kind for task in tasks.TASKS.values()} - {"scratch"}
BESIDE = (FIND, FIND_VERIFY, TUNED, "fastai minimum", "fastai valley")
SETS = {"published": "", "published-new": "other "}  # and what their blocks' names begin with
NAMES = {"published-new": "published cells of other kinds"}  # else the set's name and "cells"
KNOWN = ("fastai minimum", "fastai valley", "torch-lr-finder", "ignite", "Lightning 2.6.6")
CELLS = {  # the groups of the ablation
    "other kinds": "other kinds",
    "constant, 300 steps": "T = 300, constant",
    "cosine, 300 steps": "T = 300, warmup + cosine",
    "one_cycle, 300 steps": "T = 300, one-cycle",
    "constant, 3000 steps": "T = 3,000, constant",
    "cosine, 3000 steps": "T = 3,000, warmup + cosine",
}
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


def write(report: dict[str, Any], drawn: dict[str, str], folder: Path) -> None:
    """Write report.json and report.html.

    Args:
        report: see `statistics.summarize`.
        drawn: titles of pictures and their files.
        folder: where these are.
    """
    files.write_text(folder / "report.json", json.dumps(report, allow_nan=False))
    files.write_text(folder / "report.html", _page(report, drawn))


def publish(cache: Path) -> None:
    """Put the figures of the published cells into the pages, and the picture beside them.

    Args:
        cache: where the folders of their reports are.
    """
    reports = {
        prefix: json.loads((cache / name / "report.json").read_text("utf-8"))
        for name, prefix in SETS.items()
    }
    constants = resources.files("lrtool.curve").joinpath("constants.json").read_text("utf-8")
    provenance = json.loads(constants)["provenance"]
    written = {"short": _short(*reports.values()), "ablation": _ablation(provenance)}
    for prefix, report in reports.items():
        written |= {f"{prefix}{name}": block(report) for name, block in BLOCKS.items()}
    for path in PAGES:
        text = path.read_text("utf-8")
        if BLOCK.search(text):
            files.write_text(path, filled(text, written))
    shutil.copyfile(cache / "published" / "profile.png", PICTURE)


def filled(text: str, written: dict[str, str]) -> str:
    """Return a page with its blocks written anew.

    Raises:
        KeyError: the page has a block that nobody writes.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{written[found['name']]}\n\n{found[3]}", text)


def ordered(report: dict[str, Any], group: str = "all") -> list[str]:
    """Return the methods, the lowest mean regret first."""
    table = report["groups"][group]["methods"]
    return sorted(table, key=lambda method: table[method]["mean"])


def markdown(report: dict[str, Any]) -> str:
    """Return the table of all methods: constant rate / warmup + cosine."""
    head = ["", "steps", "mean r", "95%", "median", "IQM", "p90", "r > 0.5", "seed gap, decades"]
    rows = []
    for method in ordered(report):
        both = _paired(report, method)
        row = [_bold(method), _steps(report, method)]
        row.append(" / ".join(number(own["mean"]) for own in both))
        row.append(" / ".join(span(*own["mean_95"]) for own in both))
        row += [" / ".join(number(own[key]) for own in both) for key in ("median", "iqm", "p90")]
        row.append(" / ".join(f"{own['failures']:.0%}" for own in both))
        row.append(" / ".join(gap(own["seed_gap"]) for own in both))
        rows.append(row)
    groups = " / ".join(group for group in PAIRED if group in report["groups"])
    return f"{_markdown_table(head, rows)}\n\n{groups}. {_conditions(report)}"


def _short(report: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the same of lrtool and the best-known finders alone, of both sets, in few columns."""
    head = ["", "steps", "mean regret", "regret > 0.5", "gap between seeds, decades"]
    head += ["other kinds: mean regret", "regret > 0.5"]
    rows = []
    for method in ordered(report):
        if method in (*OWN, *KNOWN):
            both = _paired(report, method)
            row = [_bold(method), _steps(report, method)]
            row.append(" / ".join(number(own["mean"]) for own in both))
            row.append(" / ".join(f"{own['failures']:.0%}" for own in both))
            row.append(" / ".join(gap(own["seed_gap"]) for own in both))
            there = _paired(other, method)
            row.append(" / ".join(number(own["mean"]) for own in there))
            row.append(" / ".join(f"{own['failures']:.0%}" for own in there))
            rows.append(row)
    return _markdown_table(head, rows)


def _paired(report: dict[str, Any], method: str) -> list[dict[str, Any]]:
    return [report["groups"][g]["methods"][method] for g in PAIRED if g in report["groups"]]


def _steps(report: dict[str, Any], method: str) -> str:
    return f"{report['groups']['all']['methods'][method]['steps']:.0f}"


def _conditions(report: dict[str, Any]) -> str:
    name, where = report["set"], report["environment"]
    versions = ", ".join(f"{package} {version}" for package, version in where["versions"].items())
    sizes = ", ".join(
        f"{group}: {report['groups'][group]['cells']}"
        for group in (*PAIRED, "one-cycle", LONG)
        if group in report["groups"]
    )
    command = "make regret-quick" if name == "quick" else "make regret"
    what = NAMES.get(name, f"{name} cells")
    return (
        f"`{command}`: {report['cells']} {what} ({sizes}) of {report['tasks']} tasks, "
        f"{report['finder_seeds']} finder seeds, trained at exactly the suggested rate; intervals "
        f"by a hierarchical bootstrap over tasks, then seeds. {where['processor']}, "
        f"{where['cores']} cores, one thread a process; {versions}."
    )


def _page(report: dict[str, Any], drawn: dict[str, str]) -> str:
    name = report["set"]
    parts = [
        f"<h1>Regret of suggested learning rates: {html.escape(name)} cells</h1>",
        INTRODUCTION,
        f"<p>{html.escape(_conditions(report))}</p>",
        *(
            f"<h2>{html.escape(title)}</h2><img src='{file}' alt='{html.escape(title)}'>"
            for title, file in drawn.items()
        ),
    ]
    for group, found in report["groups"].items():
        title = f"{group}: {found['cells']} cells of {found['tasks']} tasks"
        parts += [f"<h2>{html.escape(title)}</h2>", _methods(report, group)]
    parts += ["<h2>Against each other method</h2>", _against(report)]
    parts += ["<h2>Intervals and verdicts</h2>", _verdicts(report)]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>Regret: {html.escape(name)}</title><style>{STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]], own: Sequence[bool]) -> str:
    cells = "".join(f"<th>{text}</th>" for text in head)
    body = "".join(
        f"<tr{' class=own' if mine else ''}>"
        + "".join(f"<td>{text}</td>" for text in row)
        + "</tr>"
        for row, mine in zip(rows, own, strict=True)
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _methods(report: dict[str, Any], group: str) -> str:
    table = report["groups"][group]["methods"]
    methods = ordered(report, group)
    head = ["method", "mean r", "mean over tasks", "median", "IQM", "p90", "r &gt; 0.5"]
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
    return _html_table(head, rows, [method in OWN for method in methods])


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
    return note + _html_table(head, rows, [False] * len(rows))


def _verdicts(report: dict[str, Any]) -> str:
    head = ["cells", "method", "n", "coverage", "median width", "window's width", "rate inside"]
    head += ["verdicts"]
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
            _by_verdict(found["verdicts"]),
        ]
        for group, methods in report["intervals"].items()
        for method, found in methods.items()
    ]
    note = (
        "<p>Coverage: how often the 80% interval reaches into the rates with a regret below 2%."
        " Widths in decades.</p>"
    )
    return note + _html_table(head, rows, [False] * len(rows))


def _by_verdict(verdicts: dict[str, Any]) -> str:
    return "; ".join(
        f"{verdict} {own['share']:.0%} (mean r {number(own['mean'])}, r ≤ 0.05: {own['small']:.0%})"
        for verdict, own in verdicts.items()
    )


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _bold(method: str) -> str:
    return f"**{method}**" if method in OWN else method


def _long(report: dict[str, Any]) -> str:
    table = report["groups"][LONG]["methods"]
    head = ["", "steps", "share of T", "mean r", "median", "p90", "r > 0.5", "seed gap"]
    rows = []
    for method in ordered(report, LONG):
        own = table[method]
        rows.append(
            [
                _bold(method),
                f"{own['steps']:.0f}",
                f"{own['share_of_training']:.0%}",
                *(number(own[key], 3) for key in ("mean", "median", "p90")),
                f"{own['failures']:.0%}",
                gap(own["seed_gap"]),
            ]
        )
    return _markdown_table(head, rows)


def _groups(report: dict[str, Any]) -> str:
    rows = [
        [
            f"{group} ({found['cells']})",
            *(
                f"{number(found['methods'][m]['mean'], 3)} / "
                f"{number(found['methods'][m]['median'], 3)}"
                for m in BESIDE
            ),
        ]
        for group, found in report["groups"].items()
        if group not in PAIRED
    ]
    return _markdown_table(["group (cells)", *BESIDE], rows)


def _kinds(report: dict[str, Any]) -> str:
    """Return mean / median regrets by kind, and those of the best epochs."""
    kinds = ("all", *PAIRED, "unseen optimizers")
    names = [*kinds, *(group for group in report["groups"] if group in KINDS)]
    rows = []
    for group in (name for name in names if name in report["groups"]):
        found = report["groups"][group]
        row = [f"{group} ({found['cells']})"]
        for method in BESIDE:
            own = found["methods"][method]
            row.append(f"{number(own['mean'], 3)} / {number(own['median'], 3)}")
        row += [number(found["methods"][m]["best_epoch_mean"], 3) for m in (FIND, FIND_VERIFY)]
        rows.append([*row, number(found["whole_grid"], 3)])
    best = [f"best epoch: {FIND}", f"best epoch: {FIND_VERIFY}"]
    head = ["kind (cells)", *BESIDE, *best, "whole grid, by the validation set"]
    return _markdown_table(head, rows)


def _pairs(report: dict[str, Any]) -> str:
    """Return how `find`, without a race and with one, compares with each other method."""
    found, with_race = (report["comparisons"][method] for method in (FIND, FIND_VERIFY))
    others = sorted(set(found) - {*OWN}, key=lambda other: found[other]["mean_difference"])
    rows = [[other, *_pair(found[other]), *_pair(with_race[other])] for other in others]
    rows.append([FIND, "–", "–", "–", *_pair(with_race[FIND])])
    columns = ["difference of mean r over tasks", "p (Holm)"]
    head = ["against", f"P({FIND} is better)", *columns, "P(with --verify)", *columns]
    return _markdown_table(head, rows)


def _pair(found: dict[str, Any]) -> list[str]:
    """Return how often a method is better, by how much, and how surely."""
    low, high = found["better_95"]
    return [
        f"{found['better']:.0%} ({low:.0%} – {high:.0%})",
        number(found["mean_difference"], 3),
        _p(found["p_holm"]).removeprefix("= "),
    ]


def _p(value: float) -> str:
    """Spell a probability: "= 0.016" or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"= {number(value, 3 if value < 0.1 else 2)}"


def _significance(report: dict[str, Any]) -> str:
    found = report["comparisons"][FIND]
    others = {m: own["p_holm"] for m, own in found.items() if m not in OWN}
    behind = [m for m in others if others[m] >= 0.05 or found[m]["mean_difference"] >= 0]
    worst = max(others.values())
    said = (
        f"`find` is better than every peer and every control with p ≤ {number(worst, 3)}"
        if not behind
        else f"`find` is better than the others with p < 0.05, but for {', '.join(behind)}"
    )
    race = found[FIND_VERIFY]
    with_race = (
        f"with a race it is better still (p {_p(race['p_holm'])})"
        if race["p_holm"] < 0.05 and race["mean_difference"] > 0
        else f"a race changes nothing that could be told from chance (p {_p(race['p_holm'])})"
    )
    return (
        f"Paired over {report['tasks']} tasks (Wilcoxon, Holm over all tests), {said}; {with_race}."
    )


def _intervals(report: dict[str, Any]) -> str:
    rows = []
    groups = [g for g in ("all", "unseen optimizers", LONG) if g in report["intervals"]]
    for group in groups:
        for method, found in report["intervals"][group].items():
            low, high = found["coverage_95"]
            verdicts = _by_verdict(found["verdicts"])
            rows.append(
                [
                    f"{group}: `{method}`",
                    f"{found['coverage']:.0%} ({low:.0%} – {high:.0%})",
                    f"{found['inside_window']:.0%}",
                    gap(found["width_median"]),
                    gap(found["window_median"]),
                    verdicts,
                ]
            )
    head = ["cells", "interval reaches the window", "rate lies in it", "interval, decades"]
    return _markdown_table([*head, "window, decades", "verdicts"], rows)


def _ablation(provenance: dict[str, Any]) -> str:
    without = provenance["regret_left_out_without_trials_and"]
    lines = {
        "`find`": provenance["regret_left_out"],
        "with a race": provenance["regret_left_out_with_race"],
        "without full trials": provenance["regret_left_out_without_full_trials"],
        "without trials": provenance["regret_left_out_without_trials"],
        **{f"without trials and {name}": found for name, found in without.items()},
    }
    rows = [
        [name, *(f"{number(found[c]['mean'], 3)} / {number(found[c]['median'], 3)}" for c in CELLS)]
        for name, found in lines.items()
    ]
    return _markdown_table(["mean / median r", *CELLS.values()], rows)


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {  # of each set
    "table": markdown,
    "long": _long,
    "groups": _groups,
    "kinds": _kinds,
    "pairs": _pairs,
    "significance": _significance,
    "intervals": _intervals,
}


def number(value: float, places: int | None = None) -> str:
    """Spell a regret: three places below a tenth, else two."""
    if places is None:
        places = 3 if abs(value) < 0.0995 else 2
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")  # + 0.0: no −0


def span(low: float, high: float) -> str:
    """Spell an interval."""
    return f"{number(low)} to {number(high)}"


def gap(value: float | None) -> str:
    """Spell a number of decades, or that there is none."""
    return "–" if value is None else number(value, 2)
