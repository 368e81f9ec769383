"""What `evaluate` judges: the run's own validation set, or another data set with its encoding."""

import json

import numpy as np
import pytest

TABLE = """
data: {source: csv, args: {path: train.csv, target: kind}, batch_size: 16}
model: linear
optimizer: adam
metrics: [accuracy]
learning_rate: 0.05
train: {epochs: 15}
runtime: {device: cpu}
"""
FACTORY = """
import torch

def parts(n=40, alone=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    train = (x, y)
    return train if alone else (train, (x[:8] + 0.1, y[:8]))

def fewer(n=10):
    x = torch.randn(n, 3)
    return x, torch.zeros(n).long()
"""


def table(classes, count, seed=0):
    draw = np.random.default_rng(seed)
    lines = ["x,z,kind"]
    for _ in range(count):
        kind = draw.choice(list(classes))
        place = {"a": 0, "b": 10, "c": 20, "d": 30}[kind]
        lines.append(f"{place + draw.normal(0, 0.5):.3f},{draw.normal(0, 1):.3f},{kind}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def evaluate(here):
    def evaluate(*sets):
        return here("evaluate", "run", *(part for text in sets for part in ("--set", text)))

    return evaluate


@pytest.fixture
def train(here, write, no_plots):  # noqa: ARG001  (a fixture that is used for its effect)
    def train(config=TABLE, *arguments):
        write("a.yaml", config)
        done = here("train", "a.yaml", "-q", "-o", "run", *arguments)
        assert done.returncode == 0, done.stderr

    return train


@pytest.fixture
def run(train, write, tmp_path):
    write("train.csv", table("abc", 200))
    train()
    return tmp_path / "run"


def refused(done):
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.mark.usefixtures("run")
def test_another_table_is_judged_as_a_whole_with_the_classes_and_scale_of_the_run(evaluate, write):
    write("test.csv", table("bcccccccc", 90, seed=1))
    done = evaluate("data.args.path=test.csv")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert (facts["data"], facts["samples"]) == ("test.csv", 90)
    assert facts["accuracy"] == 1.0
    as_validation = evaluate("data.validation=test.csv")
    assert json.loads(as_validation.stdout) == facts


@pytest.mark.usefixtures("run")
def test_a_table_smaller_than_a_batch_and_written_otherwise_is_judged_too(evaluate, write):
    write("few.csv", table("ab", 3).replace(",", ";"))
    done = evaluate("data.args.path=few.csv", 'data.args.delimiter=";"')
    assert json.loads(done.stdout)["samples"] == 3


@pytest.mark.usefixtures("run")
def test_the_runs_own_data_at_another_place_are_still_its_own(evaluate, write, tmp_path):
    (tmp_path / "moved").mkdir()
    (tmp_path / "train.csv").rename(tmp_path / "moved/all.csv")
    done = evaluate("data.args.path=moved/all.csv")
    facts = json.loads(done.stdout)
    assert (facts["samples"], facts.get("data")) == (40, None)
    assert done.stderr == (
        "lrtool: warning: moved/all.csv holds the run's own data: evaluated on their validation set"
        "\n"
    )
    write("other.csv", table("abc", 200, seed=1))  # as many rows
    facts = json.loads(evaluate("data.args.path=other.csv").stdout)
    assert (facts["samples"], facts["data"]) == (200, "other.csv")


def test_the_training_set_of_a_run_without_another_is_named_as_such(evaluate, train, write):
    write("train.csv", table("abc", 50))
    train(TABLE, "--set", "data.validation=0")
    assert "nothing to evaluate on: the data have no validation set" in refused(evaluate())
    done = evaluate("data.validation=train.csv")
    assert json.loads(done.stdout)["samples"] == 50
    assert "train.csv holds the samples that the run was trained on" in done.stderr


def test_so_is_that_of_a_run_with_another_file_for_validation(evaluate, train, write):
    write("train.csv", table("abc", 50))
    write("other.csv", table("abc", 20, seed=1))
    train(TABLE, "--set", "data.validation=other.csv")
    assert json.loads(evaluate().stdout)["samples"] == 20
    done = evaluate("data.validation=train.csv")
    assert json.loads(done.stdout)["samples"] == 50
    assert "train.csv holds the samples that the run was trained on" in done.stderr


@pytest.mark.usefixtures("run")
def test_a_class_or_column_that_the_run_does_not_know_is_refused(evaluate, write):
    write("other.csv", table("bcd", 50))
    words = refused(evaluate("data.args.path=other.csv"))
    assert "the class 'd' of 'kind' is not one that the run knows" in words
    assert "it was trained on 'a', 'b', 'c'" in words
    write("other.csv", "x,y,kind\n1,2,a\n")
    words = refused(evaluate("data.validation=other.csv"))
    assert "other.csv: line 1: no column 'z', which the run was trained on" in words


@pytest.mark.usefixtures("run")
def test_what_contradicts_the_run_is_refused_at_once(evaluate):
    other = "leave it out, or give the path of another data set"
    words = refused(evaluate("data.validation=0.5", "data.args.drop=[z]", "data.args.target=x"))
    made, chosen = "and the model was made for that; leave it out", "was chosen for the training"
    assert sorted(words.splitlines()) == [
        f"--set data.args.drop: was not given in the training, {made}",
        f"--set data.args.target: was kind in the training, {made}",
        f"--set data.validation: which samples are for validation {chosen}; {other}",
    ]
    words = refused(evaluate('data.args.delimiter=";"'))
    assert "is for the files of another data set; name it with data.args.path" in words
    words = refused(evaluate("data.args.path=a.csv", "data.validation=b.csv"))
    assert "give data.args.path or data.validation, not both" in words


def test_data_that_have_changed_since_are_refused(evaluate, run, write):
    before = table("abc", 200)
    write("train.csv", before.replace("c\n", "b\n", 1))
    words = refused(evaluate())
    assert words == (
        "lrtool: error: run: the data have changed since the training: its validation samples are "
        "not those of the training, and may hold some that it was trained on; "
        "--set data.args.path=… names another data set\n"
    )
    write("train.csv", before + "1,1,a\n")
    assert "since the training (train: 161 samples, not 160)" in refused(evaluate())
    write("train.csv", before)
    assert evaluate().returncode == 0
    (run / "encoding.json").write_text("{}")
    assert "run/encoding.json: not an encoding of lrtool" in refused(evaluate())


def test_a_run_of_an_older_version_is_judged_on_its_own_data_alone(evaluate, run, write):
    facts = json.loads(evaluate().stdout)
    (run / "encoding.json").unlink()
    done = evaluate()
    assert (done.stderr, json.loads(done.stdout)) == ("", facts)
    assert "has no encoding.json, which tells how to read other data" in refused(
        evaluate("data.args.path=test.csv")
    )
    (run / "report.json").unlink()
    done = evaluate()
    assert json.loads(done.stdout) == facts
    assert "that the data are still those of the training is not checked" in done.stderr
    write("train.csv", table("abc", 201))
    assert evaluate().returncode == 0  # it cannot be told


def test_a_factorys_own_validation_set_is_judged_and_other_arguments_give_other_data(
    evaluate, train, write
):
    write("made.py", FACTORY)
    train(TABLE.replace("csv, args: {path: train.csv, target: kind}", "made:parts"))
    done = evaluate()
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["samples"] == 8
    assert json.loads(evaluate("data.args.seed=1").stdout)["data"] == "made:parts"
    done = evaluate("data.args.alone=true")
    assert json.loads(done.stdout)["samples"] == 40
    assert "made:parts returns no validation set: all its samples are evaluated on" in done.stderr
    done = evaluate("data.source=made:fewer")  # one class of the four
    assert json.loads(done.stdout)["samples"] == 10
    words = refused(evaluate("data.validation=0.5"))
    assert "data.validation: which samples are for validation was chosen for the training" in words
    assert "data.source: the run was trained on data of a factory" in refused(
        evaluate("data.source=iris")
    )


def test_a_factory_whose_data_have_changed(evaluate, train, write):
    import sys

    write("made.py", FACTORY)
    source = "{source: 'made:parts', args: {alone: true}, batch_size: 16}"
    train(
        TABLE.replace(
            "{source: csv, args: {path: train.csv, target: kind}, batch_size: 16}", source
        )
    )
    assert json.loads(evaluate().stdout)["samples"] == 8
    write("made.py", FACTORY.replace("seed(seed)", "seed(seed + 1)"))
    del sys.modules["made"]
    assert "the data have changed since the training: its validation" in refused(evaluate())


def test_a_binary_loss_keeps_its_one_output(evaluate, train, write):
    write("train.csv", table("ab", 100))
    train(TABLE + "loss: binary_crossentropy\n")
    assert json.loads(evaluate().stdout)["samples"] == 20
    write("test.csv", table("b", 30))  # one class, which must not become 0
    facts = json.loads(evaluate("data.args.path=test.csv").stdout)
    assert (facts["samples"], facts["accuracy"]) == (30, 1.0)


def test_a_resumed_run_keeps_its_encoding(here, run, write):
    before = (run / "encoding.json").read_bytes()
    done = here("train", "a.yaml", "-q", "--resume", "run", "--epochs", 16)
    assert done.returncode == 0, done.stderr
    assert (run / "encoding.json").read_bytes() == before
    write("train.csv", table("abc", 201))
    words = refused(here("train", "a.yaml", "-q", "--resume", "run", "--epochs", 17))
    assert "--resume run: the data have changed since; begin a new run" in words


FOLDERS = """
import torch

class Named(torch.utils.data.Dataset):
    "As torchvision's ImageFolder: classes are numbered by their names in this folder."
    def __init__(self, names, count=48):
        self.classes = sorted(names)
        self.samples = [sorted(names)[i % len(names)] for i in range(count)]
    def __len__(self):
        return len(self.samples)
    def __getitem__(self, place):
        name = self.samples[place]
        x = torch.zeros(4)
        x["abcd".index(name)] = 1.0
        return x, self.classes.index(name)

def folders(names="abc", others="abc"):
    return Named(names), Named(others, 12)

def folder(names):
    return Named(names, 12)
"""


def test_classes_that_a_dataset_names_keep_their_numbers(evaluate, here, train, write):
    write("named.py", FOLDERS)
    config = TABLE.replace("{source: csv, args: {path: train.csv, target: kind}", "{source: 'named")
    train(config.replace("'named", "'named:folders'"))
    np.savez("x.npz", x=np.eye(4, dtype=np.float32)[[2, 0]])
    said = json.loads(here("predict", "run", "x.npz", "--json").stdout)
    assert [row["prediction"] for row in said] == ["c", "a"]
    assert set(said[0]["probabilities"]) == {"a", "b", "c"}
    same = json.loads(evaluate("data.args={others: ab}").stdout)
    assert same["accuracy"] == 1.0
    for names, words in (
        ("bcd", "the data have 'b' as class 0, but the run was trained on 'a' there"),
        ("abcd", "the data have a class 'd', but the run was trained on a, b, c alone"),
    ):
        done = evaluate("data.source=named:folder", f"data.args={{names: {names}}}")
        assert done.returncode == 2
        assert words in done.stderr
    done = here("train", "a.yaml", "-o", "other", "--set", "data.args={others: bc}")
    assert done.returncode == 2
    assert done.stderr == (
        "a.yaml:2:16: data.source: named:folders: class 0 is 'a' in the training set, and 'b' in "
        "the validation set; number the classes of both alike\n"
    )
