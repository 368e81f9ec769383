"""Each mistake in keys and values is said in words, at its place, all of them at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrtool.config import document
from lrtool.config.problems import sound_part, validate
from lrtool.config.schema import Config


def problems(text):
    read = document.parse(text, "f.yaml")
    found, wrong = validate(read.data)
    assert found is None
    return [str(read.locate(problem)) for problem in wrong]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: '3'", "f.yaml:1:7: seed: must be a whole number, not the text '3'"),
        ("seed: 1.0", "f.yaml:1:7: seed: must be a whole number, not 1.0"),
        ("seed: true", "f.yaml:1:7: seed: must be a whole number, not true"),
        ("seed: -1", "f.yaml:1:7: seed: must be at least 0, not -1"),
        ("seed: 4294967296", "f.yaml:1:7: seed: must be at most 4,294,967,295, not 4294967296"),
        ("find: {start: yes}", "f.yaml:1:15: find.start: must be a number, not the text 'yes'"),
        ("find: {start: 0}", "f.yaml:1:15: find.start: must be greater than 0, not 0"),
        ("train: {ema_decay: 1}", "f.yaml:1:20: train.ema_decay: must be less than 1, not 1"),
        ("find: {end: .inf}", "f.yaml:1:13: find.end: must be a finite number, not inf"),
        (
            f"find: {{steps: 1{'0' * 400}}}",
            (
                "f.yaml:1:15: find.steps: must be at most 100,000, not a whole number of more than "
                "40 digits"
            ),
        ),
        (
            f"learning_rate: 1{'0' * 400}",
            (
                "f.yaml:1:16: learning_rate: must be a positive number, or auto, "
                "not a whole number of more than 40 digits"
            ),
        ),
        (  # Python would not write it in decimals
            f"seed: 0x{'f' * 4000}",
            f"f.yaml:1:7: seed: must be a whole number, not the text '0x{'f' * 35}...'",
        ),
        (
            f"train: {{epochs: {10**13}}}",
            ("f.yaml:1:17: train.epochs: must be at most 1,000,000,000,000, not 10000000000000"),
        ),
        (
            "model: {args: {float: [1, {a: .nan}]}}",
            "f.yaml:1:31: model.args.float.1.a: must be a finite number, not nan",
        ),
        ("find: {steps: 1}", "f.yaml:1:15: find.steps: must be at least 2, not 1"),
        (
            "find: {start: 1, end: 1}",
            "f.yaml:1:7: find: start must be below end, but start is 1 and end is 1",
        ),
        (
            "find: {start: 20}",
            "f.yaml:1:7: find: start must be below end, but start is 20 and end is 10",
        ),
        (
            "find: {mode: exponentiel}",
            (
                "f.yaml:1:14: find.mode: must be one of exponential, linear, "
                "not the text 'exponentiel' (did you mean 'exponential'?)"
            ),
        ),
        ("find: [1]", "f.yaml:1:7: find: must be a mapping, not a list"),
        ("find: ~", "f.yaml:1:7: find: must be a mapping, not null"),
        (
            "find: {verify: maybe}",
            "f.yaml:1:16: find.verify: must be true, false or auto, not the text 'maybe'",
        ),
        ("metrics: accuracy", "f.yaml:1:10: metrics: must be a list, not the text 'accuracy'"),
        ("metrics: [1]", "f.yaml:1:11: metrics.0: must be text, not 1"),
        (
            "find: {start: 1e-300, end: 1e300}",
            "f.yaml:1:7: find: rates must lie between 1e-20 and 1e10",
        ),
        ("model: ''", "f.yaml:1:8: model.name: must not be empty"),
        ("model: 3", "f.yaml:1:8: model: must be a mapping, not 3"),
        (
            "optimizer: {name: sgd, groups: [{match: b, lr_rato: 1}]}",
            "f.yaml:1:44: optimizer.groups.0.lr_rato: unknown key (did you mean 'lr_ratio'?)",
        ),
        (
            "train: {schedule: {name: cosine, warm: 1}}",
            "f.yaml:1:34: train.schedule.warm: unknown key (did you mean 'warmup'?)",
        ),
        (
            "data: {zzz: 1}",
            (
                "f.yaml:1:8: data.zzz: unknown key; known here: source, args, batch_size, "
                "validation, workers, timeout"
            ),
        ),
        (
            "train: {epochs: 1, max_steps: 2}",
            "f.yaml:1:8: train: give epochs or max_steps, not both; null for the other",
        ),
        (
            "data: {batch_size: 0}",
            "f.yaml:1:20: data.batch_size: must be a whole number of at least 1, or full, not 0",
        ),
        (
            "data: {batch_size: true}",
            "f.yaml:1:20: data.batch_size: must be a whole number of at least 1, or full, not true",
        ),
        (
            "data: {validation: 1.5}",
            (
                "f.yaml:1:20: data.validation: must be a fraction below 1, a whole number of "
                "samples, or a path, not 1.5"
            ),
        ),
        (
            "learning_rate: fast",
            "f.yaml:1:16: learning_rate: must be a positive number, or auto, not the text 'fast'",
        ),
        (
            "runtime: {device: gpu}",
            (
                "f.yaml:1:19: runtime.device: must be auto, cpu, mps, cuda or cuda:N, "
                "not the text 'gpu'"
            ),
        ),
        (
            f"runtime: {{device: {'x' * 50}}}",
            (
                "f.yaml:1:19: runtime.device: must be auto, cpu, mps, cuda or cuda:N, "
                f"not the text '{'x' * 37}...'"
            ),
        ),
    ],
)
def test_one_mistake_one_line(text, line):
    assert problems(text) == [line]


def test_every_problem_at_once_also_contradictions_beside_other_mistakes():
    lines = problems("""
sede: 1
find: {start: 1, end: 1e-3, mode: x}
train: {epochs: 3, max_steps: 4, accumulate: 0}
""")
    assert len(lines) == 5
    text = "\n".join(lines)
    assert "sede: unknown key (did you mean 'seed'?)" in text
    assert "find.mode: must be one of" in text
    assert "start must be below end, but start is 1 and end is 0.001" in text
    assert "train.accumulate: must be at least 1, not 0" in text
    assert "give epochs or max_steps, not both; null for the other" in text


def test_rates_out_of_range_are_said_beside_other_mistakes():
    _, problems = validate({"find": {"start": 1e-30, "steps": 1}, "model": {"train_only": []}})
    said = {problem.path: problem.message for problem in problems}
    assert said[("find",)].startswith("rates must lie between ")
    assert said[("find", "steps")] == "must be at least 2, not 1"
    assert said[("model", "train_only")] == "must not be empty"


def test_components_survive_mistakes_elsewhere():
    data = {
        "model": {"name": "mlp", "args": {"x": 1}, "arg": {}},
        "seed": "x",
        "find": {"a": 1, "steps": 50},
        "train": {"schedule": "cosin", "epochs": "no"},
        "optimizer": {"groups": [{"match": 1}, {"match": "b"}], "name": "adm"},
        "loss": {"args": {}},
    }
    kept = sound_part(data)
    assert kept.model.args == {"x": 1}
    assert kept.seed == 0
    assert kept.find.steps == 50
    assert kept.train.schedule.name == "cosin"
    assert kept.optimizer.name == "adm"
    assert kept.loss.name == "cross_entropy"
    assert data["seed"] == "x"  # the original is untouched


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Config.model_fields, "name", "args", "steps", "epochs", "warmup"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(deadline=None)  # the first example builds pydantic's validators
@given(st.dictionaries(st.sampled_from([*Config.model_fields, "x"]), junk, max_size=6))
def test_whatever_stands_in_the_file_is_accepted_or_explained(data):
    found, wrong = validate(data)
    assert (found is None) == bool(wrong)
    assert all(problem.message for problem in wrong)
    assert isinstance(sound_part(data), Config)
