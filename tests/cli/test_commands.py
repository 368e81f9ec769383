"""check, list, schema, help, and every way to hold them wrong."""

import json
import re
import subprocess
import sys
import time

import pytest

KINDS = {
    "losses": {"cross_entropy", "mse_loss", "huber_loss"},
    "optimizers": {"adam", "adamw", "sgd", "rmsprop"},
    "schedules": {"constant", "cosine", "one_cycle"},
    "models": {"linear", "mlp", "cnn", "resnet", "gru", "transformer"},
    "metrics": {"accuracy", "f1"},
    "sources": {"digits", "csv", "npz", "idx", "text", "synthetic"},
}


def test_check_tells_shapes_and_sizes(here, write):
    write("a.yaml", "data: {source: digits}\nmodel: {name: mlp, args: {hidden: [32]}}\n")
    done = here("check", "a.yaml", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["inputs"] == [64, 1, 8, 8]
    assert facts["targets"] == [64]
    assert facts["outputs"] == [64, 10]
    assert facts["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    assert facts["samples"] == {"train": 1438, "validation": 359}
    assert facts["training_steps"] == 10 * 23
    assert facts["loss"] == pytest.approx(2.3, abs=0.2)
    table = here("check", "a.yaml", "--batch-size", "full")
    assert "1,438 × 10" in table.stdout
    assert here("check", "a.yaml", "--quiet").stdout == ""


@pytest.mark.parametrize("kind", KINDS)
def test_list(here, kind):
    rows = json.loads(here("list", kind, "--json").stdout)
    assert KINDS[kind] <= {row["name"] for row in rows}
    table = here("list", kind)
    assert table.returncode == 0
    assert all(name in table.stdout for name in KINDS[kind])


def test_list_shows_default_rates_and_keras_names(here):
    rates = {
        row["name"]: row["learning_rate"]
        for row in json.loads(here("list", "optimizers", "--json").stdout)
    }
    assert (rates["adam"], rates["rmsprop"], rates["adadelta"]) == (0.001, 0.01, 1.0)
    table = here("list", "losses").stdout
    assert "sparse_categorical_crossentropy" in table


def test_schemas(here):
    config = json.loads(here("schema").stdout)
    assert "learning_rate" in config["properties"]
    report = json.loads(here("schema", "report").stdout)
    assert {"suggestion", "sweeps", "timing"} <= set(report["$defs"]["FindReport"]["properties"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["find"],
        ["find", "a.yaml", "b.yaml"],
        ["find", "a.yaml", "--step", "3"],  # no abbreviations
        ["find", "a.yaml", "--steps", "many"],
        ["list", "loss"],
        ["schema", "else"],
        ["train-it"],
    ],
)
def test_usage_errors_are_exit_2(here, arguments):
    done = here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stderr


def test_help_and_version(lrtool, here):
    done = lrtool("--help")
    assert done.returncode == 0
    for command in ("find", "check", "list", "init", "schema"):
        assert command in done.stdout
    done = here("find", "-h")
    assert all(flag in done.stdout for flag in ("--set", "--loss", "--optimizer", "--batch-size"))
    assert here("--version").stdout == "0.1.0\n"


def test_help_takes_at_most_twice_an_empty_typer_program(tmp_path):
    empty = tmp_path / "empty.py"
    empty.write_text(
        "import typer\napp = typer.Typer()\n"
        "@app.command()\ndef a() -> None: ...\n@app.command()\ndef b() -> None: ...\napp()\n"
    )

    def seconds(*command):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - started

    for own, other in ((["--help"], ["--help"]), (["find", "--help"], ["a", "--help"])):
        ours, theirs = [], []
        for number in range(5):  # a machine may be busy for a while
            ours.append(seconds("-m", "lrtool", *own))
            theirs.append(seconds(str(empty), *other))
            if number and min(ours) <= 2 * min(theirs):
                break
        assert min(ours) <= 2 * min(theirs)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['lrtool', 'find', '--help']\nfrom lrtool.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib', 'pandas', 'numpy'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "LOADED"


def test_every_problem_at_once_with_its_place(here, write):
    write(
        "a.yaml",
        """sede: 1
data: {source: digitz, batch_size: 0}
model: {name: mlp, args: {hiden: [3], dropout: high}}
loss: cross_entropi
metrics: [acuracy]
optimizer: {name: adm, groups: [{match: "("}]}
find: {start: 10, end: 1}
train: {schedule: cosin, epochs: no}
""",
    )
    done = here("find", "a.yaml", "--set", "seed=x", "--set", "runtime.precision=fp8")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    starts = [line.split(": ")[0] for line in lines]
    assert starts[2:] == sorted(starts[2:], key=lambda s: [int(n) for n in s.split(":")[1:]])
    text = done.stderr
    for expected in (
        "--set seed: must be a whole number, not the text 'x'",
        "--set runtime.precision: must be one of fp32, bf16, fp16, not the text 'fp8'",
        "a.yaml:1:1: sede: unknown key (did you mean 'seed'?)",
        "a.yaml:2:36: data.batch_size: must be a whole number of at least 1, or full, not 0",
        "a.yaml:3:27: model.args.hiden: unknown argument (did you mean 'hidden'?)",
        "a.yaml:3:48: model.args.dropout: must be a number, not the text 'high'",
        "a.yaml:4:7: loss.name: no loss is called 'cross_entropi' (did you mean 'cross_entropy'?)",
        "a.yaml:5:11: metrics.0: no metric is called 'acuracy' (did you mean 'accuracy'?)",
        "a.yaml:6:19: optimizer.name: no optimizer is called 'adm' (did you mean 'adam'?)",
        "a.yaml:6:41: optimizer.groups.0.match: '(' is not a regular expression",
        "a.yaml:7:7: find: start must be below end, but start is 10 and end is 1",
        "a.yaml:8:19: train.schedule.name: no schedule is called 'cosin' (did you mean 'cosine'?)",
        "a.yaml:8:34: train.epochs: must be a whole number, not the text 'no'",
    ):
        assert expected in text, text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\x00\x01\x02", "not a text file"),
        (b"seed: \xff", "not UTF-8 text"),
        (b"a:\n\tb: 1", "a tab; YAML is indented with spaces"),
        (b"[" * 3000, "nested more than 64 levels deep"),
        (b"a: !!python/object/apply:os.system [ls]", "tags are not allowed"),
        (b"a: &a [*a, *a]", "aliases expand to more than a configuration can hold"),
        (b"- seed: 1", "the file holds a list"),
        (b"seed: 1\nseed: 2", "duplicate key, first given on line 1"),
    ],
)
def test_broken_files_are_exit_2(here, tmp_path, content, words):
    (tmp_path / "a.yaml").write_bytes(content)
    done = here("find", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("a.yaml")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "loss: l1",
            (
                "a.yaml:1:7: loss: l1 takes targets that are floats, not class indices; outputs "
                "(64, 10) float32, targets (64,) int64; losses that fit: cross_entropy, "
                "multi_margin_loss"
            ),
        ),
        (
            "data: {source: diabetes}",
            (
                "loss: cross_entropy takes class indices, not floats; outputs (64, 1) float32, "
                "targets (64, 1) float32; losses that fit: mse_loss, l1_loss"
            ),
        ),
        ("data: {source: text}", "data.args: the argument 'path' is required"),
        (
            "model: transformer",
            (
                "a.yaml:1:8: model: transformer takes tokens (T,), but an input holds numbers of "
                "shape (1, 8, 8)"
            ),
        ),
        ("model: nowhere.nets:Net", "model.name: no module named 'nowhere'"),
        ("model: torch.nn:Linaer", "has no attribute 'Linaer' (did you mean 'Linear'?)"),
        (
            "data: {batch_size: 2000}",
            "a.yaml:1:20: data.batch_size: 2000 is more than the 1438 training samples of digits",
        ),
        ("optimizer: {name: sgd, args: {momentum: -1}}", "Invalid momentum value: -1"),
        ("optimizer: lbfgs", "lbfgs evaluates the loss several times within a step"),
        (
            "runtime: {device: 'cuda:99'}",
            "a.yaml:1:19: runtime.device: cuda:99 is not available",
        ),
        (
            "data: {source: digits}\nloss: binary_crossentropy",
            (
                "a.yaml:2:7: loss: a binary loss needs exactly 2 classes, but the data have 10 "
                "classes; use cross_entropy; losses that fit: cross_entropy, multi_margin_loss"
            ),
        ),
        ("find: {loss: probe}\ndata: {validation: 0}", "a probe needs a validation set"),
        (
            "model: {args: {batch_norm: true}}\ndata: {batch_size: 1437}",
            "1,438 training samples in batches of 1437 leave one sample alone in the last batch",
        ),
    ],
)
def test_what_does_not_fit_is_exit_2(here, write, text, expected):
    write("a.yaml", text)
    done = here("find", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_of_a_model_without_outputs(here, write):
    write(
        "own.py",
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_outputs):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, num_outputs)\n"
        "    def training_loss(self, batch):\n"
        "        scores = self.layer(batch[0].flatten(1))\n"
        "        return nn.functional.cross_entropy(scores, batch[1])\n",
    )
    write("a.yaml", "model: own:Net\nmetrics: [accuracy, f1]\n")
    for command in ("check", "find", "train"):
        done = here(command, "a.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "a.yaml:2:10: metrics: accuracy, f1 cannot be computed: own:Net has "
            "training_loss(batch) but no forward; give it a forward(inputs) that returns what "
            "metrics compare with the targets, or remove metrics\n"
        )
    assert here("check", "a.yaml", "--set", "metrics=[]", "--quiet").returncode == 0


def test_what_a_factory_returned_has_its_place(here, write):
    write("own.py", "def data():\n    return None\n")
    write("a.yaml", "data: {source: own:data}\n")
    done = here("check", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("a.yaml:1:16: data.source: own:data: returned None; it must ")


def test_a_rate_of_the_optimizers_that_is_none(here, write):
    write("a.yaml", "optimizer: {name: sgd, args: {lr: 0}}\n")
    done = here("train", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "a.yaml:1:35: optimizer.args.lr: must be a number above 0, not 0\n"
    write("own.py", "import torch\ndef make(params, lr):\n    return torch.optim.SGD(params, lr)\n")
    write("a.yaml", "optimizer: own:make\n")
    done = here("train", "a.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "a.yaml:1:12: optimizer: own:make has no default rate; give learning_rate, or --lr auto\n"
    )


def test_init_without_a_name_lists_the_examples(here):
    done = here("init")
    assert (done.returncode, done.stderr) == (0, "")
    head, first, *others = [re.split("  +", line.rstrip()) for line in done.stdout.splitlines()]
    assert head == ["name", "about"]
    assert first[0] == "digits"
    assert first[1].startswith("Handwritten digits, 8 × 8 pixels")
    assert [name for name, _ in others] == sorted(name for name, _ in others)
    assert ["tabular", others[-1][1]] == others[-1]
    assert others[-1][1].endswith("will the bicycle rental be busy?")
