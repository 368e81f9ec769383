"""metrics.jsonl: what is written is read again, whatever became of the file."""

import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrtool.errors import LrtoolWarning
from lrtool.report import metrics_log
from lrtool.report.records import EpochRow, RaceRow, StepRow, SweepRow, TrialRow

STEPS = [
    StepRow(1, 1, 0.1, 2.5, 32, None, skipped=False),
    StepRow(2, 1, 1e-300, 0.1 + 0.2, 7, 3.25, skipped=True, denominator=31.5),
    StepRow(3, 2, 0.1, math.nan, 32, math.inf, skipped=False),
    StepRow(4, 2, 0.1, -math.inf, 32, None, skipped=False, denominator=None),
    StepRow(5, 2, 0.1, math.nan, 32, None, skipped=False, denominator=0.0),
]
EPOCHS = [
    EpochRow(epoch=1, step=2, lr=0.1, train_loss=1.5, validation_loss=None),
    EpochRow(
        epoch=2,
        step=4,
        lr=0.1,
        train_loss=math.inf,
        validation_loss=math.nan,
        **{"genauigkeit ½ 精度": 0.75, "auroc": math.nan},
    ),
]
FIND = [
    SweepRow(0, 0, 1e-7, 2.5, skipped=False),
    SweepRow(1, 7, 0.1, math.inf, skipped=True),
    TrialRow(1, 90, 0.01, 0.25),
    TrialRow(0, 3, 0.1, math.nan),
    RaceRow(2, 100, 0.01, 0.1 + 0.2),
    RaceRow(3, 1, 0.1, -math.inf),
]
KINDS = (SweepRow, TrialRow, RaceRow, StepRow, EpochRow)


def write(path, rows, size=0):
    with metrics_log.reopen(path, size) as file:
        metrics_log.append(file, rows)
        return metrics_log.synced_size(file)


def read(path):
    """Return all rows, one kind after the other."""
    return [row for kind in KINDS for row in metrics_log.read(path, kind)]


def same(a, b):
    return repr(a) == repr(b)  # NaN is not itself


def test_every_kind_of_row_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [*STEPS[:2], EPOCHS[0], *STEPS[2:], *FIND, EPOCHS[1]]
    assert write(path, rows) == path.stat().st_size
    assert same(read(path), [*FIND, *STEPS, *EPOCHS])


numbers = st.floats(width=64)
rows_of_any_kind = st.one_of(
    st.builds(
        StepRow,
        step=st.integers(1, 2**53),
        epoch=st.integers(1, 2**53),
        lr=st.floats(1e-300, 1e300),
        loss=numbers,
        samples=st.integers(0, 2**53),
        grad_norm=st.none() | numbers,
        skipped=st.booleans(),
    ),
    st.builds(
        lambda metrics, **own: EpochRow(**own, **metrics),
        epoch=st.integers(1, 2**53),
        step=st.integers(1, 2**53),
        lr=st.floats(1e-300, 1e300),
        train_loss=numbers,
        validation_loss=st.none() | numbers,
        metrics=st.dictionaries(st.text(st.characters(codec="utf-8")).map("m_{}".format), numbers),
    ),
    *(
        st.builds(
            kind,
            st.integers(0, 2**53),
            step=st.integers(0, 2**53),
            lr=st.floats(1e-300, 1e300),
            loss=numbers,
            **({"skipped": st.booleans()} if kind is SweepRow else {}),
        )
        for kind in (SweepRow, TrialRow, RaceRow)
    ),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows_of_any_kind, max_size=5))
def test_any_row_survives(tmp_path, rows):
    path = tmp_path / "metrics.jsonl"
    write(path, rows)  # over those of the example before
    assert same(read(path), sorted(rows, key=lambda row: KINDS.index(type(row))))


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
        "denominator": 1.0,
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


def test_lines_byte_for_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [FIND[0], *FIND[3:5], *STEPS[:2], EPOCHS[0]])
    assert path.read_text() == (
        '{"kind": "sweep", "repeat": 0, "step": 0, "lr": 1e-07, "loss": 2.5, "skipped": false, '
        '"denominator": 1.0}\n'
        '{"kind": "trial", "trial": 0, "step": 3, "lr": 0.1, "loss": null, '
        '"not_finite": {"loss": "nan"}}\n'
        '{"kind": "race", "candidate": 2, "step": 100, "lr": 0.01, "loss": 0.30000000000000004}\n'
        '{"kind": "step", "step": 1, "epoch": 1, "lr": 0.1, "loss": 2.5, "samples": 32, '
        '"grad_norm": null, "skipped": false, "denominator": 1.0}\n'
        '{"kind": "step", "step": 2, "epoch": 1, "lr": 1e-300, "loss": 0.30000000000000004, '
        '"samples": 7, "grad_norm": 3.25, "skipped": true, "denominator": 31.5}\n'
        '{"kind": "epoch", "epoch": 1, "step": 2, "lr": 0.1, "train_loss": 1.5, '
        '"validation_loss": null}\n'
    )


def test_rows_reach_the_file_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with metrics_log.reopen(path, 0) as file:
        metrics_log.append(file, STEPS[:1])
        assert read(path) == STEPS[:1]
        metrics_log.append(file, STEPS[1:2])
        assert read(path) == STEPS[:2]


def test_what_a_checkpoint_does_not_know_of_is_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = write(path, STEPS[:1])
    write(path, STEPS[1:2], size)
    with metrics_log.reopen(path, size) as file:
        assert metrics_log.synced_size(file) == size  # also before anything is written
        metrics_log.append(file, [EPOCHS[0]])
        assert metrics_log.synced_size(file) == path.stat().st_size
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


@pytest.mark.parametrize(
    "damage",
    [
        *(b"\0\0\0", b'{"kind": "step"}', b'{"kind": "x"}', b"[]", b'{"step": 1}', b"\xff"),
        *(b'{"kind": {}}', b'{"kind": "step", "not_finite": 3}', b'{"a": ' + b"[" * 100_000),
    ],
)
def test_a_damaged_line_is_left_out_with_a_warning(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    write(path, STEPS[:2])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + b"\n" + second)
    words = f"{path}:2: this row is damaged and left out"
    with pytest.warns(LrtoolWarning, match=f"^{re.escape(words)}$"):
        assert list(metrics_log.read(path, StepRow)) == STEPS[:2]


@pytest.mark.parametrize(
    "change",
    [
        *({"step": "2"}, {"step": 2.0}, {"step": None}, {"step": True}, {"step": -1}),
        *({"step": 10**400}, {"lr": -0.1}, {"lr": "0.1"}, {"lr": [0.1]}, {"lr": 10**4000}),
        *({"skipped": 1}, {"loss": {}}, {"loss": 10**400}, {"grad_norm": "big"}, {"other": 1}),
    ],
)
def test_a_row_with_values_that_no_run_writes_is_left_out(tmp_path, change):
    path = tmp_path / "metrics.jsonl"
    write(path, STEPS[:1])
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, **change}) + "\n")
    with pytest.warns(LrtoolWarning, match="jsonl:1: this row is damaged and left out"):
        assert list(metrics_log.read(path, StepRow)) == []


def test_steps_are_not_parsed_where_epochs_are_wanted(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, [*STEPS, *EPOCHS])
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    assert same(list(metrics_log.read(path, EpochRow)), EPOCHS)
    assert len(parsed) == len(EPOCHS)
    assert same(list(metrics_log.read(path, StepRow)), STEPS)
    assert len(parsed) == len(EPOCHS) + len(STEPS)


def test_no_file_has_no_rows(tmp_path):
    assert not read(tmp_path / "none.jsonl")
