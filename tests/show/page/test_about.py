from lrtool.config.schema import Config
from lrtool.report import records
from lrtool.show.page.about import about


def test_only_what_differs_from_the_defaults_is_shown_and_the_rest_is_there(make):
    config = Config.model_validate(
        {"model": {"name": "mlp", "args": {"hidden": [8]}}, "train": {"epochs": 3}}
    ).model_dump(mode="json")
    config["search_path"], config["runtime"]["threads"] = ["/home/me"], 2  # as a run fills them in
    shown = about(make(config=config))
    assert shown["changed"] == [
        ("model.args.hidden", "[8]", "–"),
        ("train.epochs", "3", "10"),
    ]
    rest = dict(shown["rest"])
    assert rest["find.steps"] == "100"
    assert rest["learning_rate"] == "null"
    assert (rest["search_path"], rest["runtime.threads"]) == ("['/home/me']", "2")
    assert not {"train.epochs", "model.args.hidden"} & set(rest)


def test_each_column_says_how_it_was_read(make):
    columns = (
        records.ColumnFacts("age", "input", "number", low=20.0, high=70.5, missing=1),
        records.ColumnFacts("town", "input", "words", words=1200),
        records.ColumnFacts("land", "input", "words", words=1),
        records.ColumnFacts("kind", "target", "words", words=3),
        records.ColumnFacts("", "left out", reason="it counts the rows"),
    )
    data = records.DataFacts({"train": 1000}, {}, None, columns=columns)
    assert about(make(data=data))["columns"] == [
        ("age", "input", "number", "20 to 70.5", "1"),
        ("town", "input", "1,200 words", "", ""),
        ("land", "input", "1 word", "", ""),
        ("kind", "target", "3 classes", "", ""),
        ("''", "left out", "it counts the rows", "", ""),
    ]


def test_what_is_trained_and_frozen_is_said(make):
    model = records.ModelFacts(
        "resnet", 1000, 10, trained=("head",), frozen=("stem", "layer1"),
        checkpoint=records.CheckpointFacts("a.safetensors", "abc", 12, fresh=("head",)),
    )  # fmt: skip
    config = {
        "loss": {"name": "cross_entropy", "args": {"label_smoothing": 0.1}},
        "optimizer": {"name": "sgd", "args": {}},
        "metrics": ["accuracy", {"name": "f1"}],
    }
    assert about(make(model=model, config=config))["setup"] == [
        ("model", "resnet: 1,000 parameters, 10 of them trained"),
        ("pretrained weights", "a.safetensors, 12 tensors; fresh: head"),
        ("trained part", "10 of 1,000 parameters: head; frozen: stem, layer1"),
        ("loss", "cross_entropy (label_smoothing 0.1)"),
        ("optimizer", "sgd"),
        ("metrics", "accuracy, f1"),
    ]


def test_what_is_too_much_for_a_page_is_counted(make):
    columns = tuple(
        records.ColumnFacts(f"column {i} " + "long " * 100, "input", "number") for i in range(1000)
    )
    data = records.DataFacts({"train": 10}, {}, None, columns=columns)
    shown = about(make(data=data, config={f"key {i}": i for i in range(1000)}))
    assert 50 < len(shown["columns"]) == 1000 - shown["more_columns"]
    assert 200 < len(shown["changed"]) == 1000 - shown["more_keys"]
    assert max(len(cell) for row in shown["columns"] for cell in row) < 210
