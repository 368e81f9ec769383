"""The reference's tables are those of the schemas, the Typer app and the catalogue."""

import re
from dataclasses import fields

import pytest
import reference

from lrtool.report.metrics_log import KINDS
from lrtool.report.records import EpochRow

PAGES = sorted(reference.FOLDER.glob("*.md"))


def test_every_block_stands_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = [block["name"] for block in reference.BLOCK.finditer(text)]
    assert sorted(named) == sorted(reference.generated())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_of_the_reference_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert text == reference.filled(text), "python tests/docs/reference.py writes it anew"


def test_keys_have_their_values_and_defaults():
    lines = reference.generated()["keys"].splitlines()
    assert "| `find.steps` | integer ≥ 2 and ≤ 100,000 | `100` | steps of the sweep |" in lines
    assert any(
        line.startswith("| `optimizer.groups[].match` | string | required |") for line in lines
    )
    assert any(
        line.startswith("| `train.epochs` | integer ≥ 1 or `null` | `10` |") for line in lines
    )


def test_flags_have_their_names_and_values():
    lines = reference.generated()["commands"].splitlines()
    assert "### `lrtool compare RUN...`" in lines
    for flag in ("--output, -o OUTPUT", "--verify / --no-verify", "--lr-from RUN", "--quiet, -q"):
        assert any(line.startswith(f"| `{flag}` |") for line in lines), flag


def test_metrics_jsonl_has_its_kinds_and_keys():
    page = (reference.FOLDER / "report.md").read_text(encoding="utf-8")
    section = page.partition("## metrics.jsonl")[2]
    _head, *rows = re.findall(r"^\| `(\w+)`[^|]*\| (.*) \|$", section, re.MULTILINE)
    named = {kind: re.findall(r"`(\w+)`", keys) for kind, keys in rows}
    assert named.keys() == KINDS.keys()
    for kind, row in KINDS.items():
        if row is not EpochRow:  # whose metrics are keys too
            assert set(named[kind]) == {field.name for field in fields(row)}, kind
