"""The figures of README.md and docs/suggestion.md, put there from report.json and constants.json.

Between `<!-- regret: NAME -->` and `<!-- end -->` stands what is written here and nowhere else.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fit
import page
from spelling import gap, number

from lrtool.report import files

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "suggestion.md")
PICTURE = ROOT / "docs" / "regret.png"
BLOCK = re.compile(r"(<!-- regret: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

FIND, RACE = "lrtool find", "lrtool find --verify"
LONG = "T ≥ 3,000"
BESIDE = (FIND, RACE, "constant tuned on other tasks", "fastai minimum", "fastai valley")
CELLS = {  # the groups of the ablation
    "constant, 300 steps": "T = 300, constant",
    "cosine, 300 steps": "T = 300, warmup + cosine",
    "one_cycle, 300 steps": "T = 300, one-cycle",
    "constant, 3000 steps": "T = 3,000, constant",
    "cosine, 3000 steps": "T = 3,000, warmup + cosine",
}


def publish(cache: Path) -> None:
    """Put the figures of the published cells into the pages, and the picture beside them."""
    folder = cache / "published"
    report = json.loads((folder / "report.json").read_text("utf-8"))
    known = json.loads(fit.CONSTANTS.read_text("utf-8"))
    written = {
        "table": page.markdown(report, "published"),
        "long": _long(report),
        "groups": _groups(report),
        "pairs": _pairs(report),
        "significance": _significance(report),
        "intervals": _intervals(report),
        "ablation": _ablation(known["provenance"]),
    }
    for path in PAGES:
        files.write_text(path, filled(path.read_text("utf-8"), written))
    shutil.copyfile(folder / "profile.png", PICTURE)


def filled(text: str, written: dict[str, str]) -> str:
    """Return a page with its blocks written anew.

    Raises:
        KeyError: the page has a block that nobody writes.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{written[found['name']]}\n\n{found[3]}", text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _bold(method: str) -> str:
    return f"**{method}**" if method in (FIND, RACE) else method


def _long(report: dict[str, Any]) -> str:
    table = report["groups"][LONG]["methods"]
    head = ["", "steps", "share of T", "mean r", "median", "p90", "r > .5", "seed gap"]
    rows = []
    for method in page.ordered(report, LONG):
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
    return _table(head, rows)


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
        if group not in page.PAIRED
    ]
    return _table(["group (cells)", *BESIDE], rows)


def _pairs(report: dict[str, Any]) -> str:
    found = report["comparisons"][FIND]
    rows = [
        [
            other,
            f"{own['better']:.0%} ({own['better_95'][0]:.0%} – {own['better_95'][1]:.0%})",
            number(own["mean_difference"], 3),
            number(own["p_holm"], 3),
        ]
        for other, own in sorted(found.items(), key=lambda item: item[1]["mean_difference"])
    ]
    head = ["`find` against", "P(find is better)", "difference of mean r over tasks", "p (Holm)"]
    return _table(head, rows)


def _significance(report: dict[str, Any]) -> str:
    found = report["comparisons"][FIND]
    others = {m: own["p_holm"] for m, own in found.items() if m != RACE}
    behind = [m for m in others if others[m] >= 0.05 or found[m]["mean_difference"] >= 0]
    worst = math.ceil(1000 * max(others.values())) / 1000
    said = (
        f"`find` is better than every peer and every control with p ≤ {number(worst)}"
        if not behind
        else f"`find` is better than the others with p < .05, but for {', '.join(behind)}"
    )
    race = found[RACE]
    with_race = (
        f"with a race it is better still (p = {number(race['p_holm'])})"
        if race["p_holm"] < 0.05 and race["mean_difference"] > 0
        else f"a race changes nothing that could be told from chance (p = {number(race['p_holm'])})"
    )
    return (
        f"Paired over {report['tasks']} tasks (Wilcoxon, Holm over all tests), {said}; {with_race}."
    )


def _intervals(report: dict[str, Any]) -> str:
    rows = []
    for group in ("all", "unseen optimizers", LONG):
        for method, found in report["intervals"][group].items():
            low, high = found["coverage_95"]
            verdicts = ", ".join(
                f"{verdict} {own['share']:.0%} (mean r {number(own['mean'])})"
                for verdict, own in found["verdicts"].items()
            )
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
    return _table([*head, "window, decades", "verdicts"], rows)


def _ablation(provenance: dict[str, Any]) -> str:
    without = provenance["regret_left_out_without_trials_and"]
    lines = {
        "`find`": provenance["regret_left_out"],
        "with a race": provenance["regret_left_out_with_race"],
        "without caution": provenance["regret_left_out_without_caution"],
        "without trials": provenance["regret_left_out_without_trials"],
        **{f"without trials and {name}": found for name, found in without.items()},
    }
    rows = [
        [name, *(f"{number(found[c]['mean'], 3)} / {number(found[c]['median'], 3)}" for c in CELLS)]
        for name, found in lines.items()
    ]
    return _table(["mean / median r", *CELLS.values()], rows)
