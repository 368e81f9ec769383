import json

import pytest

TABLE = "id,age,city,y\n" + "".join(
    f"{i},{20 + i * i},{['Rome', 'Oslo', ''][i % 3]},{i % 4}\n" for i in range(40)
)
CONFIG = "data: {source: csv, args: {path: t.csv, target: y}, batch_size: 8}\nmodel: linear\n"


@pytest.fixture
def check(here, write):
    """Check the table with a loss, and return the finished command."""

    def run(*arguments):
        write("t.csv", TABLE)
        write("a.yaml", CONFIG)
        return here("check", "a.yaml", *arguments)

    return run


def test_check_shows_a_line_a_column(check):
    done = check()
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "column 'id' is left out: row numbers" in done.stderr
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    start = next(i for i, line in enumerate(shown) if line.startswith("columns"))
    assert shown[start].startswith("columns id: left out, row numbers or identifiers")
    assert shown[-3:] == [
        "age: number, 20 to 1541",
        "city: words × 3, 13 missing",
        "y: target, 4 classes",
    ]


def test_check_has_the_columns_in_json(check):
    columns = json.loads(check("--json").stdout)["columns"]
    assert [column["name"] for column in columns] == ["id", "age", "city", "y"]
    number = {"low": 20.0, "high": 1541.0, "words": None, "missing": 0, "reason": None}
    assert columns[1] == {"name": "age", "use": "input", "kind": "number"} | number


def test_a_report_has_the_columns(here, write):
    write("t.csv", TABLE)
    write("a.yaml", CONFIG)
    done = here("train", "a.yaml", "--lr", "0.1", "--set", "train.max_steps=1", "--json")
    columns = json.loads(done.stdout)["data"]["columns"]
    assert [column["use"] for column in columns] == ["left out", "input", "input", "target"]


def test_few_whole_numbers_are_numbers_for_a_loss_of_numbers(check):
    facts = json.loads(check("--loss", "mse", "--json").stdout)
    assert facts["outputs"] == [8, 1]
    assert facts["columns"][-1]["kind"] == "number"
    facts = json.loads(check("--json").stdout)
    assert facts["outputs"] == [8, 4]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--loss", "kl_div"], "; if 'y' is no class, set data.args.task: regression"),
        (["--set", "data.args.target=age"], "; if 'age' is a class, set data.args.task: classific"),
    ],
)
def test_a_misfit_names_the_task(arguments, advice, check):
    done = check(*arguments)
    assert done.returncode == 2
    assert advice in done.stderr
