"""metrics.jsonl of a training: what is written is read again, whatever became of the file."""

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrtool.errors import LrtoolWarning
from lrtool.report import metrics_log as history
from lrtool.report.records import EpochRow, StepRow

STEPS = [
    StepRow(1, 1, 0.1, 2.5, 32, None, skipped=False),
    StepRow(2, 1, 1e-300, 0.1 + 0.2, 7, 3.25, skipped=True),
    StepRow(3, 2, 0.1, math.nan, 32, math.inf, skipped=False),
    StepRow(4, 2, 0.1, -math.inf, 32, None, skipped=False),
]
EPOCHS = [
    EpochRow(1, 2, 0.1, 1.5, None, {}),
    EpochRow(2, 4, 0.1, math.inf, math.nan, {"genauigkeit ½ 精度": 0.75, "auroc": math.nan}),
]


def write(path, rows, size=0):
    with history.reopen(path, size) as file:
        history.append(file, rows)
        return history.synced_size(file)


def read(path):
    """Steps first, then epochs."""
    return [row for kind in (StepRow, EpochRow) for row in history.read(path, kind)]


def same(a, b):
    return repr(a) == repr(b)  # NaN is not itself


def test_every_kind_of_row_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [*STEPS[:2], EPOCHS[0], *STEPS[2:], EPOCHS[1]]
    assert write(path, rows) == path.stat().st_size
    assert same(read(path), [*STEPS, *EPOCHS])


numbers = st.floats(width=64)
rows_of_any_kind = st.one_of(
    st.builds(
        StepRow,
        step=st.integers(1),
        epoch=st.integers(1),
        lr=st.floats(1e-300, 1e300),
        loss=numbers,
        samples=st.integers(0),
        grad_norm=st.none() | numbers,
        skipped=st.booleans(),
    ),
    st.builds(
        EpochRow,
        epoch=st.integers(1),
        step=st.integers(1),
        lr=st.floats(1e-300, 1e300),
        train_loss=numbers,
        validation_loss=st.none() | numbers,
        metrics=st.dictionaries(st.text(st.characters(codec="utf-8")).map("m_{}".format), numbers),
    ),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows_of_any_kind, max_size=5))
def test_any_row_survives(tmp_path, rows):
    path = tmp_path / "metrics.jsonl"
    write(path, rows)  # over those of the example before
    assert same(read(path), sorted(rows, key=lambda row: isinstance(row, EpochRow)))


def test_a_line_is_json_that_knows_no_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [STEPS[2], EPOCHS[1]])

    def refuse(name):
        raise AssertionError(name)

    step, epoch = (
        json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines()
    )
    assert step == {
        "kind": "step",
        "step": 3,
        "epoch": 2,
        "lr": 0.1,
        "loss": None,
        "samples": 32,
        "grad_norm": None,
        "skipped": False,
        "not_finite": {"loss": "nan", "grad_norm": "inf"},
    }
    assert epoch == {
        "kind": "epoch",
        "epoch": 2,
        "step": 4,
        "lr": 0.1,
        "train_loss": None,
        "validation_loss": None,
        "genauigkeit ½ 精度": 0.75,
        "auroc": None,
        "not_finite": {"train_loss": "inf", "validation_loss": "nan", "auroc": "nan"},
    }


def test_rows_reach_the_file_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with history.reopen(path, 0) as file:
        history.append(file, STEPS[:1])
        assert read(path) == STEPS[:1]
        history.append(file, STEPS[1:2])
        assert read(path) == STEPS[:2]


def test_what_a_checkpoint_does_not_know_of_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = write(path, STEPS[:1])
    write(path, STEPS[1:2], size)
    with history.reopen(path, size) as file:
        assert history.synced_size(file) == size  # also before anything is written
        history.append(file, [EPOCHS[0]])
        assert history.synced_size(file) == path.stat().st_size
    assert read(path) == [STEPS[0], EPOCHS[0]]


def test_lost_rows_are_said_aloud_and_spoil_no_new_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = write(path, STEPS[:2])
    path.write_bytes(path.read_bytes()[:-9])
    words = f"{path} has lost rows: {size - 9} bytes are left of {size}; the plots will lack them"
    with pytest.warns(LrtoolWarning, match=f"^{re.escape(words)}$"):
        write(path, [EPOCHS[0]], size)
    assert read(path) == [STEPS[0], EPOCHS[0]]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    write(path, STEPS[:2])
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path) == STEPS[:1]


@pytest.mark.parametrize("damage", [b"\0\0\0", b'{"kind": "step"}', b"[]", b'{"step": 1}', b"\xff"])
def test_a_damaged_line_is_left_out_with_a_warning(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    write(path, STEPS[:2])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + second)
    words = f"{path}:2: this row is damaged and left out"
    with pytest.warns(LrtoolWarning, match=f"^{re.escape(words)}$"):
        assert read(path) == STEPS[:2]


def test_steps_are_not_parsed_where_epochs_are_wanted(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, [*STEPS, *EPOCHS])
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    assert same(list(history.read(path, EpochRow)), EPOCHS)
    assert len(parsed) == len(EPOCHS)
    assert same(list(history.read(path, StepRow)), STEPS)
    assert len(parsed) == len(EPOCHS) + len(STEPS)


def test_no_file_has_no_rows(tmp_path):
    assert not read(tmp_path / "none.jsonl")
