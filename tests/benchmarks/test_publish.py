"""The figures of the pages come from the benchmark's report, and all of them are there."""

import publish
import pytest

PAGE = """# A page

<!-- regret: table -->
what was there
<!-- end -->

Words between.

<!-- regret: long -->
<!-- end -->
"""


def test_blocks_are_written_anew_and_the_rest_stays():
    once = publish.filled(PAGE, {"table": "| a |", "long": "| b |"})
    assert once == (
        "# A page\n\n<!-- regret: table -->\n\n| a |\n\n<!-- end -->\n\nWords between.\n\n"
        "<!-- regret: long -->\n\n| b |\n\n<!-- end -->\n"
    )
    assert publish.filled(once, {"table": "| a |", "long": "| b |"}) == once


def test_a_block_that_nobody_writes_is_an_error():
    with pytest.raises(KeyError, match="long"):
        publish.filled(PAGE, {"table": "| a |"})


@pytest.mark.parametrize("path", publish.PAGES, ids=lambda path: path.name)
def test_every_block_of_the_pages_has_been_written(path):
    found = list(publish.BLOCK.finditer(path.read_text(encoding="utf-8")))
    assert {"table", "long", "significance", "intervals"} <= {block["name"] for block in found}
    for block in found:
        assert len(block[0].splitlines()) > 4, f"{block['name']} is empty: run.py publish"


def test_the_ablation_has_a_line_for_each_part_left_out():
    cell = {"mean": 0.0312, "median": 0.004}
    summary = dict.fromkeys(publish.CELLS, cell)
    text = publish._ablation(
        {
            "regret_left_out": summary,
            "regret_left_out_with_race": summary,
            "regret_left_out_without_caution": summary,
            "regret_left_out_without_trials": summary,
            "regret_left_out_without_trials_and": {"the curve": summary},
        }
    )
    lines = text.splitlines()
    assert len(lines) == 2 + 5
    assert lines[-1] == "| without trials and the curve |" + " .031 / .004 |" * 5
