import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lrtool.errors import UserError
from lrtool.report import records
from lrtool.report import report as reports
from lrtool.report.report import FindReport

rates = st.floats(min_value=1e-300, max_value=1e300)
finite = st.floats(allow_nan=False, allow_infinity=False)
losses = st.floats()
text = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def sweeps(draw):
    rows = draw(st.lists(st.tuples(rates, losses, st.booleans()), max_size=6))
    return records.Sweep(
        seed=draw(st.integers(0, 2**32)),
        lr=tuple(row[0] for row in rows),
        loss=tuple(row[1] for row in rows),
        skipped=tuple(index for index, row in enumerate(rows) if row[2]),
        stop_reason=draw(st.sampled_from(["completed", "diverged", "nan", "inf", "interrupted"])),
    )


@st.composite
def findings(draw):
    lr = draw(st.none() | rates)
    suggestion = records.Suggestion(
        lr=lr,
        low=draw(rates) if lr else None,
        high=draw(rates) if lr else None,
        verdict="none" if lr is None else draw(st.sampled_from(["confident", "uncertain"])),
        method=draw(text),
        reason=draw(text),
        advice=tuple(draw(st.lists(text, max_size=3))),
        for_schedule=draw(text),
        for_steps=draw(st.none() | st.integers(1, 10**9)),
    )
    points = draw(st.lists(st.tuples(rates, losses, losses, losses), max_size=5))
    curve = (
        draw(st.none() | st.just(records.Curve(*map(tuple, zip(*points, strict=True)))))
        if points
        else None
    )
    names = draw(
        st.dictionaries(text, st.builds(records.MethodSuggestion, st.none() | rates, text))
    )
    return records.Finding(suggestion, names, curve)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.none() | findings(), st.lists(sweeps(), max_size=3), st.dictionaries(text, json_values))
def test_a_written_report_reads_back_equal_and_is_strict_json(
    tmp_path_factory, finding, runs, config
):
    report = FindReport(
        status="completed",
        reason=None,
        suggestion=finding.suggestion if finding else None,
        suggestions=finding.suggestions if finding else {},
        sweeps=tuple(runs),
        curve=finding.curve if finding else None,
        config=config,
        config_hash="x",
        seed=0,
        data=None,
        model=None,
        environment=ENVIRONMENT,
        timing=TIMING,
    )
    path = reports.write(report, tmp_path_factory.getbasetemp())
    stored = path.read_text(encoding="utf-8")
    assert reports.to_json(reports.read(path)) == stored

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(stored, parse_constant=refuse)


ENVIRONMENT = records.Environment(
    lrtool="0", torch="2", python="3", platform="x", device="cpu", device_name="y", threads=1
)
TIMING = records.Timing(total_s=1.0, setup_s=None, steps=0, steps_per_s=None, samples_per_s=None)


def test_the_report_has_the_fields_of_the_design(make):
    report = json.loads(reports.to_json(make()))
    assert list(report) == [
        "schema_version",
        "command",
        "status",
        "reason",
        "suggestion",
        "suggestions",
        "sweeps",
        "curve",
        "config",
        "config_hash",
        "data",
        "model",
        "environment",
        "seed",
        "timing",
        "first_update",
        "trials",
        "full_trial",
        "race",
    ]
    assert report["race"] is None
    assert report["schema_version"] == 1
    assert report["command"] == "find"
    assert report["status"] == "completed"
    assert report["reason"] == "three sweeps agree within 0.2 decades"
    assert report["suggestion"] == {
        "lr": 0.0032,
        "low": 0.0018,
        "high": 0.0056,
        "verdict": "confident",
        "method": "auto",
        "reason": "three sweeps agree within 0.2 decades",
        "advice": [],
        "for_schedule": "constant",
        "for_steps": 230,
    }
    assert report["suggestions"] == {
        "valley": {"lr": 0.0021, "reason": None},
        "steep": {"lr": None, "reason": "the curve never falls"},
    }
    assert [set(sweep) for sweep in report["sweeps"]] == [
        {"seed", "lr", "loss", "skipped", "stop_reason", "without_targets"}
    ] * 3
    assert set(report["curve"]) == {"lr", "loss", "low", "high"}
    assert set(report["timing"]) == {
        "total_s",
        "setup_s",
        "steps",
        "steps_per_s",
        "samples_per_s",
    }


def test_a_race_is_kept_whole_and_what_is_no_number_is_null(odd_race, tmp_path):
    path = reports.write(odd_race, tmp_path)
    assert reports.to_json(reports.read(path)) == path.read_text()
    race = json.loads(path.read_text())["race"]
    losses = [loss for one in race["candidates"] for loss in one["loss"]]
    numbers = [loss for loss in losses if loss is not None]
    assert all(math.isfinite(loss) for loss in numbers)
    ended = [one for one in race["candidates"] if one["outcome"] == "diverged"]
    assert all(one["loss"][-1] is None for one in ended)
    assert losses.count(None) == len(ended)


def test_a_report_from_before_there_were_races_is_read(make, tmp_path):
    path = reports.write(make(), tmp_path)
    data = json.loads(path.read_text())
    del data["race"], data["trials"], data["first_update"], data["suggestion"]["reason"]
    path.write_text(json.dumps(data))
    old = reports.read(path)
    assert old.suggestion == replace(make().suggestion, reason="")
    assert old.model_copy(update={"suggestion": make().suggestion}) == make()


def test_a_report_from_before_there_were_ranks_is_of_one_process(make, tmp_path):
    path = reports.write(make(), tmp_path)
    data = json.loads(path.read_text())
    for name in ("world_size", "backend", "ranks"):
        del data["environment"][name]
    path.write_text(json.dumps(data))
    environment = reports.read(path).environment
    assert (environment.world_size, environment.backend, environment.ranks) == (1, None, ())


def test_raw_losses_are_kept_and_what_is_no_number_is_null(make):
    sweep = records.Sweep(
        seed=7,
        lr=(1e-3, 1e-2, 0.1, 1.0),
        loss=(2.5, 0.1 + 0.2, math.inf, math.nan),
        skipped=(1, 3),
        stop_reason="nan",
    )
    stored = json.loads(reports.to_json(make(sweeps=[sweep])))["sweeps"]
    assert stored == [
        {
            "seed": 7,
            "lr": [0.001, 0.01, 0.1, 1.0],
            "loss": [2.5, 0.30000000000000004, None, None],
            "skipped": [1, 3],
            "stop_reason": "nan",
            "without_targets": [],
        }
    ]


def test_null_is_read_as_nan_where_a_loss_must_be_and_as_none_where_it_may_be_missing(
    make, tmp_path
):
    candidate = records.Candidate(
        0.1, "suggestion", (2.5, -math.inf), math.inf, None, None, "diverged"
    )
    race = records.Race(
        seed=0,
        steps=2,
        steps_spent=2.0,
        measure="training",
        examples=1,
        untrained_loss=math.inf,
        candidates=(candidate,),
        interrupted=False,
    )
    assert (race.untrained_loss, candidate.half_loss) == (math.inf, math.inf)  # in memory: as it is
    read = reports.read(reports.write(make(race=race), tmp_path)).race
    assert math.isnan(read.untrained_loss)
    loss, unknown = read.candidates[0].loss
    assert loss == 2.5
    assert math.isnan(unknown)
    assert (read.candidates[0].half_loss, read.candidates[0].final_loss) == (None, None)


@pytest.mark.parametrize(
    "make_wrong",
    [
        lambda: records.Sweep(0, (0.1,), (), (), "completed"),
        lambda: records.Sweep(0, (0.1,), (2.0,), (1,), "completed"),
        lambda: records.Sweep(0, (0.1,), (2.0,), (), "completed", (1,)),
        lambda: records.Sweep(0, (0.0,), (2.0,), (), "completed"),
        lambda: records.Sweep(0, (math.inf,), (2.0,), (), "completed"),
        lambda: records.Curve((0.1,), (1.0,), (1.0,), ()),
        lambda: records.FirstUpdate(math.nan, None, 1.0),
        lambda: records.MethodSuggestion(-0.1),
    ],
)
def test_a_wrong_record_cannot_be_made(make_wrong):
    with pytest.raises(ValidationError):
        make_wrong()


def test_infinite_values_of_a_configuration_are_spelled_as_in_yaml(make):
    config = {"a": math.inf, "b": [-math.inf, {"c": math.nan}], "d": 1.5}
    assert make(config=config).config == {"a": ".inf", "b": ["-.inf", {"c": ".nan"}], "d": 1.5}


def test_a_run_that_failed_early_still_reports(make):
    report = make(
        suggestion=None, sweeps=[], status="failed", reason="no memory", data=None, model=None
    )
    assert (report.status, report.reason) == ("failed", "no memory")
    assert report.suggestion is None
    assert report.suggestions == {}
    assert report.curve is None


def test_numbers_stand_on_one_line_and_parts_are_indented(make):
    lines = reports.to_json(make()).splitlines()
    assert lines[0] == "{"
    assert lines[1] == '  "schema_version": 1,'
    assert '  "status": "completed",' in lines
    assert '      "skipped": [],' in lines
    assert sum(line.startswith('      "loss": [') for line in lines) == 3
    assert len(lines) <= 140


def test_every_odd_report_survives_a_round_trip(odd, tmp_path):
    path = reports.write(odd, tmp_path)
    assert reports.to_json(reports.read(path)) == path.read_text(encoding="utf-8")


def test_reports_are_immutable(make):
    with pytest.raises(ValidationError, match="frozen"):
        make().status = "failed"


def test_a_newer_report_says_so(make, refusal):
    assert refusal(make(), lambda data: data.update(schema_version=2, more=1)) == (
        "written by a newer lrtool (schema version 2; this one reads 1): update lrtool"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda data: data.pop("timing"), "timing: Field required"),
        (lambda data: data.update(seed="0"), "seed: Input should be a valid integer"),
        (
            lambda data: data["suggestion"].update(lr=None),
            'suggestion: Value error, a suggestion has a rate, or the verdict "none"',
        ),
        (
            lambda data: data["sweeps"][1]["lr"].pop(),
            "sweeps.1: Value error, a sweep has one loss for each rate, and skips only",
        ),
        (
            lambda data: data["curve"]["low"].pop(),
            "curve: Value error, a curve has one loss, one low and one high for each rate",
        ),
        (
            lambda data: data["timing"].update(total_s=math.inf),
            "timing.total_s: Input should be a finite number",
        ),
        (lambda data: data.update(seed="0", status="x"), "(and 1 more)"),
        (lambda data: data.update(command="x"), "command: must be find or train, not 'x'"),
        (lambda data: data.update(command="train"), "learning_rate: Field required (and 8 more)"),
        (lambda data: data.pop("command"), "command: Field required"),
    ],
)
def test_a_changed_report_is_refused_with_the_place(make, refusal, change, message):
    found = refusal(make(), change)
    assert found.startswith("not a report of lrtool: ")
    assert message in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a report of lrtool: Invalid JSON: EOF"),
        (b"{", "not a report of lrtool: Invalid JSON: EOF"),
        (b"\xff\xfe\x00", "not a report of lrtool: Invalid JSON"),
        (b"[" * 100_000, "not a report of lrtool: Invalid JSON: recursion limit exceeded"),
        (b"[]", "not a report of lrtool: Input should be an object"),
    ],
)
def test_a_foreign_file_is_refused_in_words(tmp_path, content, message):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        reports.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read: No such file"):
        reports.read(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        reports.read(tmp_path)


@pytest.mark.parametrize("name", ["FindReport", "TrainReport"])
def test_the_schema_names_every_field_of_both_kinds_and_requires_it(make, train, name):
    schema = reports.json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    kinds = [{"$ref": "#/$defs/FindReport"}, {"$ref": "#/$defs/TrainReport"}]
    assert schema["oneOf"] == kinds
    kind = schema["$defs"][name]
    assert kind["additionalProperties"] is False
    stored = json.loads(reports.to_json(make() if name == "FindReport" else train()))
    assert list(kind["properties"]) == list(stored)
    assert set(kind["required"]) == set(stored)
    parts = {"Suggestion": "suggestion", "Curve": "curve", "Timing": "timing", "BestEpoch": "best"}
    parts |= {"LearningRate": "learning_rate", "Steps": "steps"}
    for part, key in parts.items():
        if stored.get(key):
            assert list(schema["$defs"][part]["properties"]) == list(stored[key])
    json.dumps(schema, allow_nan=False)


def test_neither_report_nor_terminal_import_heavy_libraries():
    code = (
        "import sys, lrtool.report.report, lrtool.show.terminal.find;"
        "print([m for m in ('torch', 'matplotlib', 'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
