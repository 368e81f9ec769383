"""The configuration's types, defaults and contradictions, each with its words."""

from lrtool.config import document
from lrtool.config.problems import validate
from lrtool.config.schema import Config


def load(text, sets=()):
    read = document.parse(text, "f.yaml")
    for text_ in sets:
        document.lay_over(read, document.parse_override(text_))
    found, wrong = validate(read.data)
    assert found is not None, wrong
    return found


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


def test_the_resolved_configuration_is_a_valid_configuration():
    first = load("model: gru\ndata: {batch_size: full, args: {a: '1e-3'}}\nlearning_rate: auto")
    text = document.dump(first.model_dump(mode="json"))
    assert load(text) == first
    assert load(text).digest() == first.digest()


def test_the_digest_follows_what_decides_the_numbers():
    assert load("seed: 1").digest() != load("seed: 2").digest()
    assert load("seed: 1").digest() == load("seed: 1\nsearch_path: [a]").digest()
    assert load("seed: 1").digest() == load("seed: 1\nfind: {parallel: data}").digest()


def test_the_schema_knows_every_key():
    schema = Config.model_json_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["$defs"]["FindConfig"]["properties"]["steps"]["minimum"] == 2
    assert schema["additionalProperties"] is False
