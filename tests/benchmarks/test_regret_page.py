"""The figures of the pages come from the benchmark's report, and all of them are there."""

import pytest

from benchmarks.regret import page

PAGE = """# A page

<!-- regret: table -->
what was there
<!-- end -->

Words between.

<!-- regret: long -->
<!-- end -->
"""


def test_blocks_are_written_anew_and_the_rest_stays():
    written = {"table": "| a |", "long": "| 7 |"}
    once = page.filled(PAGE, written)
    assert once == (
        "# A page\n\n<!-- regret: table -->\n\n| a |\n\n<!-- end -->\n\nWords between.\n\n"
        "<!-- regret: long -->\n\n| 7 |\n\n<!-- end -->\n"
    )
    assert page.filled(once, written) == once


def test_a_block_that_nobody_writes_is_an_error():
    with pytest.raises(KeyError, match="long"):
        page.filled(PAGE, {"table": "| a |"})


def test_every_block_of_the_pages_has_been_written():
    found = [block for path in page.PAGES for block in page.BLOCK.finditer(path.read_text("utf-8"))]
    names = {block["name"] for block in found}
    assert {"short", "ablation", "table", "long", "intervals"} <= names
    of_sets = {f"{prefix}{name}" for prefix in page.SETS.values() for name in page.BLOCKS}
    assert names <= of_sets | {"short", "ablation"}
    for block in found:
        assert len(block[0].splitlines()) > 4, (
            f"{block['name']} is empty: benchmarks.regret publish"
        )


def test_the_short_table_has_lrtool_and_the_best_known_finders():
    own = {"mean": 0.0123, "failures": 0.104, "seed_gap": 0.2, "steps": 89.7}
    there = {
        "lrtool find": own,
        "ignite": own | {"mean": 0.35, "seed_gap": None},
        "fastai steep": own,
    }
    groups = {name: {"methods": there} for name in ("all", "constant", "warmup + cosine")}
    worse = {method: each | {"mean": 0.4, "failures": 0.2} for method, each in there.items()}
    other = {name: {"methods": worse} for name in groups}
    lines = page._short({"groups": groups}, {"groups": other}).splitlines()
    assert lines == [
        (
            "|  | steps | mean regret | regret > 0.5 | gap between seeds, decades"
            " | other kinds: mean regret | regret > 0.5 |"
        ),
        "| --- | --: | --: | --: | --: | --: | --: |",
        (
            "| **lrtool find** | 90 | 0.012 / 0.012 | 10% / 10% | 0.20 / 0.20"
            " | 0.40 / 0.40 | 20% / 20% |"
        ),
        "| ignite | 90 | 0.35 / 0.35 | 10% / 10% | – / – | 0.40 / 0.40 | 20% / 20% |",
    ]


def test_pairs_have_find_without_a_race_and_with_one():
    pair = {"better": 0.6, "better_95": [0.5, 0.7], "mean_difference": -0.05, "p_holm": 0.0123}
    far = pair | {"mean_difference": -0.3, "p_holm": 2e-7}
    comparisons = {
        "lrtool find": {"ignite": pair, "a control": far, "lrtool find --verify": pair},
        "lrtool find --verify": {"ignite": far, "a control": far, "lrtool find": pair},
    }
    lines = page._pairs({"comparisons": comparisons}).splitlines()
    small, large = "60% (50% – 70%) | −0.050 | 0.012", "60% (50% – 70%) | −0.300 | < 0.001"
    assert lines[2:] == [
        f"| a control | {large} | {large} |",
        f"| ignite | {small} | {large} |",
        f"| lrtool find | – | – | – | {small} |",
    ]


def test_other_kinds_have_a_line_each_and_the_best_epochs():
    own = {"mean": 0.02, "median": 0.005, "best_epoch_mean": 0.004}
    methods = dict.fromkeys(page.BESIDE, own)
    facts = {"cells": 7, "methods": methods, "whole_grid": 0.001}
    groups = dict.fromkeys(("all", "constant", "small"), facts)
    lines = page._kinds({"groups": groups}).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        *("| all (7)", "| constant (7)", "| small (7)"),
    ]
    assert lines[-1].endswith("| 0.020 / 0.005 | 0.004 | 0.004 | 0.001 |")


def test_the_ablation_has_a_line_for_each_part_left_out():
    cell = {"mean": 0.0312, "median": 0.004}
    summary = dict.fromkeys(page.CELLS, cell)
    provenance = {
        "regret_left_out": summary,
        "regret_left_out_with_race": summary,
        "regret_left_out_without_full_trials": summary,
        "regret_left_out_without_trials": summary,
        "regret_left_out_without_trials_and": {"the curve": summary},
    }
    lines = page._ablation(provenance).splitlines()
    assert len(lines) == 2 + 5
    assert lines[-1] == "| without trials and the curve |" + " 0.031 / 0.004 |" * 6


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.0123, "0.012"),
        (0.0994, "0.099"),
        (0.0996, "0.10"),
        (1, "1.00"),
        (-0.25, "−0.25"),
        (-0.0001, "0.000"),
    ],
)
def test_numbers_have_two_places_and_small_ones_three(value, spelled):
    assert page.number(value) == spelled
