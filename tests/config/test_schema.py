"""The configuration's types, defaults and contradictions, each with its words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrtool.config import document
from lrtool.config import schema as config
from lrtool.config.schema import Config
from lrtool.errors import ConfigError


def load(text, sets=()):
    read = document.parse(text, "f.yaml")
    for text_ in sets:
        document.lay_over(read, document.parse_override(text_))
    found, lines = config.validate(read)
    assert found is not None, lines
    return found


def problems(text):
    read = document.parse(text, "f.yaml")
    found, lines = config.validate(read)
    assert found is None
    return lines


def test_the_file_of_the_design():
    read = load("""
seed: 0
data:
  source: digits
  args: {}
  batch_size: 64
  validation: 0.2
model: {name: mlp, args: {hidden: [128, 128]}}
loss: cross_entropy
metrics: [accuracy]
optimizer: {name: adamw, args: {weight_decay: 0.01}}
learning_rate: auto
find: {start: 1e-7, end: 10, steps: 200, repeats: 3, verify: false}
train:
  epochs: 10
  schedule: {name: one_cycle, warmup: 0.05}
  gradient_clip_norm: 1.0
  accumulate: 1
  early_stopping: {patience: 5}
  checkpoint_every: 200
runtime: {device: auto, precision: fp32, compile: false, memory_format: auto, deterministic: false}
""")
    assert read.model.args == {"hidden": [128, 128]}
    assert read.loss.name == "cross_entropy"
    assert read.learning_rate == "auto"
    assert (read.find.start, read.find.end) == (1e-7, 10.0)
    assert read.train.schedule.warmup == 0.05


def test_every_key_has_a_default():
    assert load("seed: 1").train.epochs == 10
    assert load("train: {max_steps: 5}").train.epochs is None
    assert load("data: {batch_size: full}").data.batch_size == "full"
    assert load("learning_rate: 3").learning_rate == 3.0
    assert load("learning_rate: ~").learning_rate is None
    assert load("find: {verify: auto}").find.verify == "auto"
    assert load("optimizer: {args: {eps: 1}}").optimizer.name == "adamw"
    assert load("loss: {args: {label_smoothing: 0.1}}").loss.name == "cross_entropy"


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
                "validation, workers"
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


def test_a_flag_whose_value_is_no_text():
    with pytest.raises(ConfigError) as caught:
        load("model: mlp", ["seed=\x07"])
    assert caught.value.lines == ("--set seed: not a text file (character 7)",)


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


def test_components_survive_mistakes_elsewhere():
    data = {
        "model": {"name": "mlp", "args": {"x": 1}, "arg": {}},
        "seed": "x",
        "find": {"a": 1, "steps": 50},
        "train": {"schedule": "cosin", "epochs": "no"},
        "optimizer": {"groups": [{"match": 1}, {"match": "b"}], "name": "adm"},
        "loss": {"args": {}},
    }
    kept = config.components(data)
    assert kept.model.args == {"x": 1}
    assert kept.seed == 0
    assert kept.find.steps == 50
    assert kept.train.schedule.name == "cosin"
    assert kept.optimizer.name == "adm"
    assert kept.loss.name == "cross_entropy"
    assert data["seed"] == "x"  # the original is untouched


def test_the_resolved_configuration_is_a_valid_configuration():
    first = load("model: gru\ndata: {batch_size: full, args: {a: '1e-3'}}\nlearning_rate: auto")
    text = document.dump(first.model_dump(mode="json"))
    assert load(text) == first
    assert load(text).digest() == first.digest()


def test_the_digest_follows_what_decides_the_numbers():
    assert load("seed: 1").digest() != load("seed: 2").digest()
    assert load("seed: 1").digest() == load("seed: 1\nsearch_path: [a]").digest()


def test_the_schema_knows_every_key():
    schema = Config.model_json_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["$defs"]["FindConfig"]["properties"]["steps"]["minimum"] == 2
    assert schema["additionalProperties"] is False


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
    read = document.Document("f.yaml", data, {}, {})
    found, lines = config.validate(read)
    assert (found is None) == bool(lines)
    assert all(line.startswith("f.yaml: ") for line in lines)
    assert isinstance(config.components(data), Config)
