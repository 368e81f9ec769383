"""`lrtool predict` and `lrtool.load`: other data, without targets, read as the training's."""
# ruff: noqa: PD011  (predictions have values of their own)

import csv
import io
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import lrtool
from lrtool.engine.weights import read_weights
from lrtool.errors import UserError

TABLE = """
data: {source: csv, args: {path: train.csv, target: kind}, batch_size: 16}
model: linear
optimizer: adam
learning_rate: 0.05
train: {epochs: 8}
runtime: {device: cpu}
"""


def with_source(source):
    return TABLE.replace("csv, args: {path: train.csv, target: kind}", source)


def table(count, *, target=True, seed=0):
    draw = np.random.default_rng(seed)
    lines = ["size,city" + ",kind" * target]
    for _ in range(count):
        city = draw.choice(["Rome", "Oslo", "Bonn", ""])
        kind = {"Rome": "no", "Oslo": "yes", "Bonn": "may be", "": "no"}[city]
        lines.append(f"{draw.normal(5, 2):.3f},{city}" + f",{kind}" * target)
    return "\n".join(lines) + "\n"


@pytest.fixture
def train(here, write, no_plots):  # noqa: ARG001  (a fixture that is used for its effect)
    def train(config, *arguments):
        write("a.yaml", config)
        done = here("train", "a.yaml", "-q", "-o", "run", *arguments)
        assert done.returncode == 0, done.stderr

    return train


@pytest.fixture
def run(train, write, tmp_path):
    write("train.csv", table(120))
    train(TABLE)
    (tmp_path / "train.csv").unlink()  # nothing needs it any more
    (tmp_path / "a.yaml").unlink()
    return tmp_path / "run"


def rows_of(done):
    assert (done.returncode, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def refused(done):
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_a_table_without_its_target_gets_classes_and_probabilities(here, run, write):
    write("new.csv", table(50, target=False, seed=1))
    rows = rows_of(here("predict", "run", "new.csv"))
    names = ["probability_may be", "probability_no", "probability_yes"]
    assert list(rows[0]) == ["prediction", *names]
    assert len(rows) == 50

    # by hand, from the weights and the encoding
    stored = json.loads((run / "encoding.json").read_text())["encoding"]["inputs"]["columns"]
    size, city = stored
    frame = pd.read_csv(run.parent / "new.csv", keep_default_na=False)
    inputs = np.column_stack(
        [
            (frame["size"].to_numpy() - size["mean"]) / size["deviation"],
            *[(frame["city"] == word).to_numpy(float) for word in city["words"]],
        ]
    )
    weights = read_weights(run / "checkpoints/best/model.safetensors")
    bias, weight = (weights[name].double().numpy() for name in sorted(weights))
    scores = inputs @ weight.T + bias
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-8)
    classes = np.array(["may be", "no", "yes"])
    assert [row["prediction"] for row in rows] == classes[expected.argmax(1)].tolist()


@pytest.mark.usefixtures("run")
def test_columns_may_stand_in_another_order_beside_others(here, write, tmp_path):
    frame = pd.read_csv(io.StringIO(table(20, seed=1)), keep_default_na=False)
    write("new.csv", frame.to_csv(index=False))
    write("other.csv", frame.assign(note="x")[["note", "city", "size"]].to_csv(index=False))
    first = here("predict", "run", "new.csv")
    assert here("predict", "run", "other.csv").stdout == first.stdout
    as_json = json.loads(here("predict", "run", tmp_path / "other.csv", "--json").stdout)
    assert [row["prediction"] for row in as_json] == [r["prediction"] for r in rows_of(first)]
    assert list(as_json[0]["probabilities"]) == ["may be", "no", "yes"]


@pytest.mark.parametrize("form", ["header: false, target: 0", "header: [y, a, b, c], target: y"])
def test_a_table_without_a_header_may_lack_its_target(here, train, write, form):
    numbers = np.random.default_rng(0).normal(size=(60, 3)).round(3).tolist()
    lines = [",".join(map(str, row)) for row in numbers]
    labels = ["high" if row[0] > row[1] else "low" for row in numbers]
    whole = "".join(f"{label},{line}\n" for label, line in zip(labels, lines, strict=True))
    write("train.csv", whole)
    columns = "[1, 2]" if "false" in form else "[a, b]"
    train(TABLE.replace("target: kind", f"{form}, columns: {columns}"), "--epochs", 40)
    write("new.csv", "\n".join(lines) + "\n")
    rows = rows_of(here("predict", "run", "new.csv"))
    assert rows == rows_of(here("predict", "run", "train.csv"))
    assert np.mean([r["prediction"] == label for r, label in zip(rows, labels, strict=True)]) > 0.9
    target = "'0'" if "false" in form else "'y'"
    for line, width in (("1,2", "2 columns"), ("1,2,3,4,5", "5 columns"), ("1", "1 column")):
        write("new.csv", f"{line}\n")
        assert refused(here("predict", "run", "new.csv")) == (
            f"lrtool: error: new.csv: line 1: {width}, but the run was trained on 4, or 3 without"
            f" the target {target}\n"
        )


@pytest.mark.usefixtures("run")
def test_what_cannot_be_read_is_named_with_its_line(here, write):
    write("new.csv", "size,city\n1,Rome\ntall,Oslo\n")
    words = refused(here("predict", "run", "new.csv"))
    assert "new.csv: line 3: column 'size' holds 'tall'" in words
    write("new.csv", "city\nRome\n")
    assert "new.csv: line 1: no column 'size', which the run was" in refused(
        here("predict", "run", "new.csv")
    )
    assert "nowhere.csv: no such file" in refused(here("predict", "run", "nowhere.csv"))
    assert "nowhere: there is no such run" in refused(here("predict", "nowhere", "new.csv"))
    write("new.csv", "size,city\n1,Berlin\n2,Rome\n")
    done = here("predict", "run", "new.csv")
    assert done.returncode == 0
    assert "column 'city': 1 of 2 rows hold a word" in done.stderr
    assert "'Berlin'" in done.stderr


def test_damaged_and_incomplete_runs_are_refused(here, run, write):
    write("new.csv", table(3))
    encoding = (run / "encoding.json").read_text()
    (run / "encoding.json").write_text(encoding.replace("Rome", "Rom"))
    assert "run/encoding.json: is damaged" in refused(here("predict", "run", "new.csv"))
    (run / "encoding.json").unlink()
    words = refused(here("predict", "run", "new.csv"))
    assert "run: has no encoding.json, which tells how to read data" in words
    (run / "config.yaml").write_text("model: [")
    assert "config.yaml:1" in refused(here("predict", "run", "new.csv"))


@pytest.mark.usefixtures("run")
def test_from_python_with_a_path_a_frame_columns_or_rows(tmp_path, write):
    text = table(12, target=False, seed=2)
    write("new.csv", text)
    frame = pd.read_csv(io.StringIO(text))
    assert frame["city"].isna().any()
    trained = lrtool.load(tmp_path / "run")
    expected = trained.predict("new.csv")
    for data in (
        tmp_path / "new.csv",
        frame,
        {name: frame[name] for name in frame},
        {"city": frame["city"].tolist(), "size": frame["size"].to_numpy()},
        frame.to_dict("records"),
        frame.convert_dtypes(),
    ):
        found = trained.predict(data)
        assert found.classes.tolist() == expected.classes.tolist()
        assert np.array_equal(found.probabilities, expected.probabilities)
    assert expected.names == ("may be", "no", "yes")
    assert expected.values is None
    outputs = trained(frame)
    assert torch.equal(outputs, trained.model(trained.inputs(frame)))
    assert not trained.model.training


@pytest.mark.usefixtures("run")
def test_a_parquet_file_is_read_as_the_table_it_holds(here, write, tmp_path):
    pytest.importorskip("pyarrow")
    text = table(15, target=False, seed=3)
    write("new.csv", text)
    pd.read_csv(io.StringIO(text)).to_parquet(tmp_path / "new.parquet")
    assert here("predict", "run", "new.parquet").stdout == here("predict", "run", "new.csv").stdout
    content = (tmp_path / "new.parquet").read_bytes()
    (tmp_path / "new.parquet").write_bytes(content[:-30])
    assert "new.parquet: cannot be read; the file is broken" in refused(
        here("predict", "run", "new.parquet")
    )


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"size": [1.0]}, "the data: no column 'city', which the run was trained on"),
        ({"size": [1.0], "city": []}, "columns of different lengths: {'size': 1, 'city': 0}"),
        ({"size": [], "city": []}, "the data: no rows"),
        ({"size": 1.0, "city": ["Rome"]}, "column 'size' is a single float; give a list"),
        ({"size": [1, "big"], "city": ["", ""]}, "row 1 .* column 'size' holds 'big', but in the"),
        ({"size": [np.inf], "city": [""]}, "row 0 .* holds 'inf', which is not finite"),
        (np.zeros((3, 2)), "a ndarray has no columns with names; give a path, a DataFrame"),
        (7, "a int has no columns with names"),
        (pd.DataFrame([[1.0, 2.0]], columns=["size", "size"]), "two columns are named 'size'"),
    ],
)
def test_data_in_memory_that_do_not_fit(tmp_path, data, words):
    with pytest.raises(UserError, match=words):
        lrtool.load(tmp_path / "run").predict(data)


@pytest.mark.usefixtures("run")
def test_loading_leaves_the_random_states_and_works_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    last = lrtool.load("../run", checkpoint="last")
    assert torch.equal(torch.rand(3), expected)
    weights = read_weights(tmp_path / "run/checkpoints/last/model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in last.model.state_dict().items())
    with pytest.raises(UserError, match="cuda:99 is not available"):
        lrtool.load("../run", device="cuda:99")
    with pytest.raises(UserError, match="the checkpoint must be best or last, not 'third'"):
        lrtool.load("../run", "third")


def test_whole_numbers_of_a_column_of_words_are_the_words_of_the_file(train, write, tmp_path):
    draw = np.random.default_rng(0)
    codes = draw.integers(1, 4, 60)
    rows = "".join(f"{code},{code * 2}\n" for code in codes)
    write("train.csv", f"code,kind\n{rows}")
    train(TABLE.replace("target: kind", "target: kind, categorical: [code]"))
    trained = lrtool.load(tmp_path / "run")
    for values in ([1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], np.arange(1, 4)):
        assert trained.predict({"code": values}).classes.tolist() == ["2", "4", "6"]


def test_numbers_of_any_kind_are_numbers(train, write):
    rows = "".join(f'"{i / 8:g}";{i % 2}\n'.replace(".", ",") for i in range(40))
    write("train.csv", "pay;kind\n" + rows)
    train(with_source("csv, args: {path: train.csv, target: kind, decimal: ',', thousands: '.',"
                      " delimiter: ';'}"))  # fmt: skip
    loaded = lrtool.load("run")
    expected = loaded.inputs([{"pay": 1.125}])
    for value in (Decimal("1.125"), np.float32(1.125)):
        assert torch.equal(loaded.inputs([{"pay": value}]), expected)
        assert torch.equal(loaded.inputs([{"pay": value}, {"pay": "2,5"}])[:1], expected)


def test_numbers_are_read_as_in_the_training(here, train, write, tmp_path):
    rows = "".join(
        f"{'1.250' if i % 2 else '-'};{i % 3},5;{'a' if i % 2 else 'b'}\n" for i in range(60)
    )
    write("train.csv", f"pay;x;kind\n{rows}")
    form = "target: kind, delimiter: ';', decimal: ',', thousands: '.', na_values: ['-']"
    train(TABLE.replace("target: kind", form))
    write("new.csv", "x;pay\n1,5;1.250\n0,5;-\n")
    found = lrtool.load(tmp_path / "run")
    expected = found("new.csv")
    assert torch.equal(found({"x": [1.5, 0.5], "pay": [1250, None]}), expected)
    assert torch.equal(found({"x": ["1,5", "0,5"], "pay": ["1.250", "-"]}), expected)
    assert len(rows_of(here("predict", "run", "new.csv"))) == 2


def test_a_regression_predicts_in_the_units_of_its_target(here, train, write, tmp_path):
    area = np.random.default_rng(0).uniform(50, 300, 100)
    write("train.csv", "area,price\n" + "".join(f"{a},{1000 * a + 5000}\n" for a in area))
    train(TABLE.replace("kind", "price") + "loss: mse\n", "--epochs", 60)
    write("new.csv", "area\n100\n200.5\n")
    rows = rows_of(here("predict", "run", "new.csv"))
    assert [float(row["prediction"]) for row in rows] == pytest.approx([105e3, 205.5e3], rel=0.02)
    found = lrtool.load(tmp_path / "run").predict({"area": [100, 200.5]})
    assert found.values.shape == (2,)
    assert found.values.tolist() == pytest.approx([float(row["prediction"]) for row in rows])
    assert found.classes is found.probabilities is None


def test_a_binary_loss_has_two_probabilities(here, train, write, tmp_path):
    rows = "".join(f"{i % 2},{'up' if i % 2 else 'down'}\n" for i in range(60))
    write("train.csv", f"x,kind\n{rows}")
    train(TABLE + "loss: binary_crossentropy\n", "--epochs", 30)
    found = lrtool.load(tmp_path / "run").predict({"x": [0, 1, 1]})
    assert found.classes.tolist() == ["down", "up", "up"]
    assert found.names == ("down", "up")
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert (
        json.loads(here("predict", "run", "train.csv", "--json").stdout)[0]["prediction"] == "down"
    )


def test_arrays_of_an_archive_or_in_memory(here, train, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3)).astype(np.float32)
    np.savez(tmp_path / "train.npz", x=x, y=(x[:, 0] > 0).astype(int))
    train(with_source("npz, args: {path: train.npz}"))
    np.savez(tmp_path / "new.npz", x=x[:9])
    rows = rows_of(here("predict", "run", "new.npz"))
    found = lrtool.load(tmp_path / "run").predict(torch.from_numpy(x[:9]))
    assert [int(row["prediction"]) for row in rows] == found.classes.tolist()
    assert [float(row["probability_1"]) for row in rows] == pytest.approx(found.probabilities[:, 1])
    np.savez(tmp_path / "new.npz", x=x[:9, :2])
    assert "inputs of shape (2,), but the run was trained on (3,)" in refused(
        here("predict", "run", "new.npz")
    )
    whole = np.array([[3, -1, 0], [-2, 5, 1]])  # numbers too, where the training had floats
    np.savez(tmp_path / "new.npz", x=whole)
    rows = rows_of(here("predict", "run", "new.npz"))
    found = lrtool.load(tmp_path / "run").predict(whole.astype(np.float32))
    assert [int(row["prediction"]) for row in rows] == found.classes.tolist()
    np.savez(tmp_path / "new.npz", z=x)
    assert "no array 'x'" in refused(here("predict", "run", "new.npz"))


def test_targets_of_several_values(here, train, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "train.npz", x=x, y=x[:, :2])
    train(with_source("npz, args: {path: train.npz}") + "loss: mse\n")
    rows = rows_of(here("predict", "run", "train.npz"))
    found = lrtool.load(tmp_path / "run").predict(x).values
    assert found.shape == (60, 2)
    assert [float(row["prediction_1"]) for row in rows] == pytest.approx(found[:, 1], rel=1e-6)


def test_images_of_bytes(here, train, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
    labels = (images.mean((1, 2)) > 127).astype(np.uint8)
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
        (tmp_path / f"train-{name}-ubyte").write_bytes(header + values.tobytes())
    train(with_source("idx, args: {path: .}"))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    rows = rows_of(here("predict", "run", "."))
    assert rows == rows_of(here("predict", "run", "train-images-idx3-ubyte"))
    found = lrtool.load(tmp_path / "run").predict(images)
    assert [int(row["prediction"]) for row in rows] == found.classes.tolist()
    with pytest.raises(UserError, match=r"images of bytes \(uint8\), not float"):
        lrtool.load(tmp_path / "run").predict(images / 255)


def test_a_text_gets_the_next_character_of_each_window(here, train, write, tmp_path):
    write("train.txt", "abcd" * 60)
    config = with_source("text, args: {path: train.txt, context: 8}")
    train(config.replace("linear", "{name: gru, args: {hidden: 16}}"), "--epochs", 30)
    write("new.txt", "xbcdabcdabcdabcdabc")  # three characters before two whole windows
    rows = rows_of(here("predict", "run", "new.txt"))
    assert [row["prediction"] for row in rows] == ["d", "d"]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows)
    write("new.txt", "cda!")  # shorter than a window
    done = here("predict", "run", "new.txt", "--json")
    assert "1 of 4 characters are not in the training set, such as '!'" in done.stderr
    assert len(json.loads(done.stdout)) == 1
    found = lrtool.load(tmp_path / "run").predict(tmp_path / "train.txt")
    assert found.classes.tolist() == ["a"] * 30


def test_a_factorys_model_takes_arrays(here, train, write, tmp_path):
    write(
        "made.py",
        "import torch\n"
        "def pair():\n"
        "    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))\n"
        "    return x, (x[:, 0] > 0).long()\n"
        "def batches():\n"
        "    x, y = pair()\n"
        "    rows = [{'x': a, 'labels': b} for a, b in zip(x, y)]\n"
        "    return torch.utils.data.DataLoader(rows, batch_size=10)\n"
        "def model():\n"
        "    return torch.nn.Linear(3, 2).double()\n"
        "def lazy():\n"
        "    return torch.nn.LazyLinear(2)\n"
        "class Energy(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.eye(3)[:, :2])\n"
        "    def forward(self, inputs):\n"
        "        inputs = inputs.detach().requires_grad_()\n"
        "        energy = (inputs @ self.weight).exp().sum()\n"
        "        (force,) = torch.autograd.grad(energy, inputs, create_graph=True)\n"
        "        return force[:, :2]\n",
    )
    train(with_source("'made:pair'").replace("linear", "'made:model'"))
    found = lrtool.load(tmp_path / "run").predict(np.zeros((4, 3)))
    assert found.classes.tolist() in ([0] * 4, [1] * 4)
    assert found.probabilities.shape == (4, 2)
    for model in ("lazy", "Energy"):
        config = with_source("'made:pair'").replace("linear", f"'made:{model}'")
        train(config, "--overwrite")
        trained = lrtool.load(tmp_path / "run")
        assert trained(np.ones((5, 3))).shape == (5, 2)
        assert not trained(np.ones((5, 3))).requires_grad
    train(
        with_source("'made:batches', validation: 0").replace("linear", "'made:model'"),
        "--overwrite",
    )
    with pytest.raises(UserError, match=r"the run's batches are not \(inputs, targets\), so other"):
        lrtool.load(tmp_path / "run").predict(np.zeros((4, 3)))
    assert "run's batches are not" in refused(here("predict", "run", "a.npz"))
