import re
import warnings

import numpy as np
import pytest

from lrtool.data.sources.table import csv
from lrtool.errors import LrtoolWarning, UserError


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="t.csv"):
        (tmp_path / name).write_text(content)
        return name

    return to_file


def column(values, name="v", delimiter=","):
    """A table of a column, a number and a target."""
    lines = [
        f'"{value}"{delimiter}{2 * i}{delimiter}{"ab"[i % 2]}' for i, value in enumerate(values)
    ]
    return "\n".join([delimiter.join([name, "x", "y"]), *lines, ""])


def kinds(parts):
    return {facts.name: (facts.use, facts.kind) for facts in parts.columns}


PRICES = [f"${1000 + i:,}.00" for i in range(30)]
SHARES = [f"{i}%" for i in range(30)]
COMMAS = [f"{i},5" for i in range(30)]
EITHER = [f"{i},125" for i in range(1, 31)]
MIXED = [*(f"{i},5" for i in range(15)), *(f"{i}.25" for i in range(15))]
WEIGHTS = [f"{i} kg" for i in range(30)]
DATES = [f"2024-01-{i + 1:02}" for i in range(30)]
UNKNOWN = [*(str(i) for i in range(24)), *["unknown"] * 6]
AS_WORDS = "data.args.categorical: ['v'] takes each as a word, data.args.drop: ['v'] leaves it out"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            PRICES,
            (
                "line 2: column 'v' holds '$1,000.00', a number with marks: data.args.numeric:"
                " ['v'] and data.args.thousands: \",\" reads it as 1000; " + AS_WORDS
            ),
        ),
        (
            SHARES,
            (
                "line 2: column 'v' holds '0%', a number with marks: data.args.numeric: ['v'] reads"
                " it as 0; " + AS_WORDS
            ),
        ),
        (
            COMMAS,
            (
                "line 2: column 'v' holds '0,5', a number with marks: data.args.decimal: ',' reads"
                " it as 0.5; " + AS_WORDS
            ),
        ),
        (
            EITHER,
            (
                "line 2: column 'v' holds '1,125', a number with marks: data.args.thousands: \",\""
                " reads it as 1125, data.args.decimal: ',' reads it as 1.125; " + AS_WORDS
            ),
        ),
        (
            MIXED,
            (
                "line 2: column 'v' holds '0,5', a number with marks: no one format reads all of"
                " the column, so correct it; " + AS_WORDS
            ),
        ),
        (
            WEIGHTS,
            (
                "line 2: column 'v' holds '0 kg', a number with marks: data.args.numeric: ['v']"
                " reads it as 0; " + AS_WORDS
            ),
        ),
        (
            DATES,
            (
                "line 2: column 'v' holds '2024-01-01', a date or time: make numbers of these, such"
                " as days since the first one; " + AS_WORDS
            ),
        ),
        (
            UNKNOWN,
            (
                "line 26: column 'v' holds 'unknown' among numbers; correct it, empty it, say what"
                " is missing with data.args.na_values, or name the column in data.args.categorical"
            ),
        ),
        (
            [f"<{i}" if i % 2 else str(i) for i in range(30)],
            (
                "line 3: column 'v' holds '<1', a number with marks: data.args.numeric: ['v'] reads"
                " it as 1; " + AS_WORDS
            ),
        ),
        (
            [f"word{i}" for i in range(1001)] * 3,
            (
                "column 'v' holds 1,001 different words in 3,003 rows, too many to learn from:"
                " leave it out with data.args.drop, or name it in data.args.categorical"
            ),
        ),
    ],
)
def test_words_that_look_like_numbers_are_refused(values, message, *, write, split, tmp_path):
    path = write(column(values))
    place = re.escape(f"{tmp_path / path}: {message}")
    with pytest.raises(UserError, match=f"^{place}$"):
        csv(split(), path=path, target="y")
    parts = csv(split(), path=path, target="y", drop=["v"])
    assert kinds(parts) == {
        "v": ("left out", None),
        "x": ("input", "number"),
        "y": ("target", "words"),
    }


def test_all_columns_that_are_wrong_are_named_at_once(write, split):
    rows = "".join(f"{i}%,{i} kg,{'ab'[i % 2]}\n" for i in range(30))
    with pytest.raises(UserError, match=r"column 'p' holds '0%'.*\n.*column 'w' holds '0 kg'"):
        csv(split(), path=write("p,w,y\n" + rows), target="y")


@pytest.mark.parametrize(
    ("values", "args", "expected"),
    [
        (PRICES, {"numeric": ["v"], "thousands": ","}, range(1000, 1030)),
        (SHARES, {"numeric": ["v"]}, range(30)),
        (WEIGHTS, {"numeric": ["v"]}, range(30)),
        (COMMAS, {"decimal": ","}, [i + 0.5 for i in range(30)]),
        (EITHER, {"decimal": ","}, [i + 0.125 for i in range(1, 31)]),
        (EITHER, {"thousands": ","}, [1000 * i + 125 for i in range(1, 31)]),
        (
            UNKNOWN,
            {"na_values": ["unknown"]},
            [*range(24), *[11.5] * 6],  # the median of the others
        ),
        ([*map(str, range(2, 60, 2)), "-999"], {"na_values": [-999]}, [*range(2, 60, 2), 30]),
        ([*map(str, range(2, 60, 2)), "-999.0"], {"na_values": [-999]}, [*range(2, 60, 2), 30]),
    ],
)
def test_the_keys_say_what_is_meant(values, args, expected, write, split):
    parts = csv(split(), path=write(column(values)), target="y", **args)
    expected = np.array(expected, float)
    scaled = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(parts.train.inputs[:, 0], scaled, rtol=1e-5, atol=1e-6)
    assert kinds(parts)["v"] == ("input", "number")


def test_a_target_with_marks_is_a_number_on_request(write, split):
    rows = "".join(f'{2 * i},"${1000 + i * i:,}"\n' for i in range(30))
    path = write("x,price\n" + rows)
    with pytest.raises(UserError, match=r"'\$1,000'.*numeric: \['price'\].*task: classification"):
        csv(split(), path=path, target="price")
    with pytest.raises(UserError, match=r"takes each as a class$"):  # a target cannot be left out
        csv(split(), path=path, target="price")
    parts = csv(split(), path=path, target="price", numeric=["price"], thousands=",")
    prices = np.array([1000 + i * i for i in range(30)])
    scaled = (prices - prices.mean()) / prices.std()
    np.testing.assert_allclose(parts.train.targets[:, 0], scaled, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["$5", "€6"] * 5,
            "line 3: column 'v' holds '€6' and, in line 2, '$5': numbers with different marks",
        ),
        (["45%", "0.45"] * 5, "line 3: column 'v' holds '0.45' and, in line 2, '45%'"),
        (["$5", "free"] * 5, "line 3: column 'v' holds 'free', which data.args.numeric cannot"),
    ],
)
def test_numeric_columns_with_different_marks_are_refused(values, message, write, split):
    with pytest.raises(UserError, match=re.escape(message)):
        csv(split(), path=write(column(values)), target="y", numeric=["v"])


@pytest.mark.parametrize(
    ("values", "words", "message"),
    [
        (["2wd", "4wd"] * 10, 2, "line 2: column 'v' holds '2wd' and the like, taken for 2 words"),
        (["36 months", "60 months"] * 10, 2, "or else data.args.numeric: ['v'] reads it as 36"),
        (["2024-01", "2024-02"] * 10, 2, "holds '2024-01' and the like, taken for 2 words"),
        (["1", "2", "3", "G"] * 5, 4, "line 5: column 'v' holds 'G' beside numbers, which are"),
        (
            [f"w{i}" for i in range(101)] * 5,
            101,
            "column 'v' holds 101 different words in 505 rows, each of which becomes an input",
        ),
    ],
)
def test_what_may_be_words_is_taken_for_words_and_said(values, words, message, *, write, split):
    path = write(column(values))
    with pytest.warns(LrtoolWarning, match=re.escape(message)):
        parts = csv(split(), path=path, target="y")
    assert parts.train.inputs.shape[1] == words + 1
    csv(split(), path=path, target="y", categorical=["v"])  # says so, and no warning is left


@pytest.mark.parametrize(
    "values",
    [
        ["18-25", "26-35", "65+"] * 7,
        ["<=50K", ">50K"] * 10,
        ["normal", ">7", ">8"] * 7,
        ["1st", "2nd", "3rd"] * 7,
        ["A1", "B2"] * 10,
        ["True", "False"] * 10,
        ["1.2.3", "1.2.4"] * 10,
        ["10.0.0.1", "10.0.0.2"] * 10,
    ],
)
def test_words_with_digits_are_words(values, write, split):
    parts = csv(split(), path=write(column(values)), target="y")
    assert kinds(parts)["v"] == ("input", "words")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [f"{7 * i % 1000:05}" for i in range(30)],
            "line 2: column 'v' holds '00000', read as a number without its leading zero;",
        ),
        ([str(2**53 + 3 * i) for i in range(30)], "holds 9007199254740995: beyond 2^53"),
    ],
)
def test_codes_read_as_numbers_are_said(values, message, write, split):
    path = write(column(values))
    with pytest.warns(LrtoolWarning, match=re.escape(message)):
        parts = csv(split(), path=path, target="y")
    assert kinds(parts)["v"] == ("input", "number")
    csv(split(), path=path, target="y", numeric=["v"])  # says so


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Unnamed: 0", range(20)),
        ("", range(1, 21)),
        ("", [5, 3, 8]),  # three rows of a larger table
        ("Unnamed: 0.1", range(20)),
        ("id", range(20)),
        ("Id", range(100, 120)),
        ("PassengerId", [3 * i % 20 for i in range(20)]),
        ("user_id", range(7, 147, 7)),
        ("row", range(20)),
        ("index", range(20)),
    ],
)
def test_row_numbers_are_left_out(name, values, write, split):
    path = write(column(values, name))
    shown = name or "Unnamed: 0"
    message = f"column '{shown}' is left out: row numbers or identifiers: all different whole"
    with pytest.warns(LrtoolWarning, match=re.escape(message)):
        parts = csv(split(), path=path, target="y")
    assert parts.train.inputs.shape[1] == 1
    assert kinds(parts)[shown] == ("left out", None)
    for args in ({"numeric": [shown]}, {"columns": [shown, "x"]}):
        assert csv(split(), path=path, target="y", **args).train.inputs.shape[1] == 2
    assert csv(split(), path=path, target="y", drop=[name]).train.inputs.shape[1] == 1


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("t", range(20), "column 't' counts the rows; leave it out with data.args.drop: ['t'], or"),
        ("rank", [7 * i % 20 for i in range(20)], "column 'rank' counts the rows"),
        ("user_id", [*range(10), *range(10)], "column 'user_id' looks like identifiers, read as"),
        (
            "type_id",
            [1, 2] * 10,
            "numeric: ['type_id'], or with data.args.categorical: ['type_id'] if",
        ),
    ],
)
def test_what_may_be_row_numbers_is_kept_and_said(name, values, message, *, write, split):
    path = write(column(values, name))
    with pytest.warns(LrtoolWarning, match=re.escape(message)):
        assert csv(split(), path=path, target="y").train.inputs.shape[1] == 2
    csv(split(), path=path, target="y", numeric=[name])


@pytest.mark.parametrize("name", ["t", "id", "Unnamed: 0"])
def test_the_only_input_is_kept(name, write, split):
    table = f"{name},y\n" + "".join(f"{i},{i * 0.5}\n" for i in range(30))
    assert csv(split(), path=write(table), target="y").train.inputs.shape == (30, 1)


@pytest.mark.parametrize("name", ["paid", "x", "grid", "area", "android"])
def test_other_different_whole_numbers_are_inputs(name, write, split):
    values = [i * i for i in range(20)]
    assert (
        csv(split(), path=write(column(values, f"{name}_2")), target="y").train.inputs.shape[1] == 2
    )


def test_validation_tables_need_no_row_numbers(write, split):
    other = write("x,y\n1,a\n2,b\n", "other.csv")
    with pytest.warns(LrtoolWarning, match="is left out"):
        parts = csv(split(other), path=write(column(range(20), "id")), target="y")
    assert parts.validation.inputs.shape == (2, 1)


def test_columns_without_names(write, split):
    trailing = "a;b;y;;\n" + "".join(f"{3 * i};{i * i};{i % 2};;\n" for i in range(20))
    path = write(trailing)
    message = "line 1: 'Unnamed: 3', 'Unnamed: 4' left out: no name and no value; data.args.drop"
    with pytest.warns(LrtoolWarning, match=re.escape(message)):
        parts = csv(split(), path=path, target="y", delimiter=";")
    dropped = csv(split(), path=path, target="y", delimiter=";", drop=[""])
    np.testing.assert_array_equal(dropped.train.inputs, parts.train.inputs)
    assert parts.train.inputs.shape == (20, 2)


def test_rows_without_values_are_left_out(write, split):
    path = write("x,w,y\n1,a,0\n,,\n2,b,1\n,,\n")
    with pytest.warns(LrtoolWarning, match=r"line 3: no field holds a value, as in 2 of 4 rows"):
        parts = csv(split(), path=path, target="y")
    assert parts.train.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"columns": [""]}, "data.args.columns: no such column in"),
        ({"columns": []}, "data.args.columns: names no column; null means every column but"),
        ({"columns": ["v", "v"]}, "data.args.columns: 'v' is there twice"),
        ({"drop": ["v", "v"]}, "data.args.drop: 'v' is there twice"),
        ({"categorical": ["v", "v"]}, "data.args.categorical: 'v' is there twice"),
        ({"numeric": ["v", "v"]}, "data.args.numeric: 'v' is there twice"),
        ({"numeric": ["w"]}, "data.args.numeric: no such column in"),
        (
            {"numeric": ["v"], "categorical": ["v"]},
            "data.args.numeric: 'v' is in data.args.categorical too",
        ),
        ({"drop": ["y"]}, "data.args.drop: 'y' is data.args.target, which is no input"),
        ({"columns": ["y"]}, "data.args.columns: 'y' is data.args.target, which is no input"),
        ({"drop": [""]}, "data.args.drop: no such column in"),
        ({"thousands": "."}, "data.args.thousands: '.' is the decimal mark too; set data.args.dec"),
        ({"header": ["a", "b"]}, "data.args.header: these are 2 names, but"),
    ],
)
def test_arguments_that_make_no_sense(args, message, write, split):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        csv(split(), path=write(column(range(0, 40, 2))), target="y", **args)


def test_a_table_without_a_header(write, split):
    rows = "".join(f"{2 * i},{i * i},{'ab'[i % 2]}\n" for i in range(20))
    path = write(rows)
    by_number = csv(split(), path=path, target=2, header=False, drop=[1])
    assert by_number.train.inputs.shape == (20, 1)
    assert list(kinds(by_number)) == ["0", "1", "2"]
    named = csv(split(), path=path, target="c", header=["a", "b", "c"])
    assert named.train.inputs.shape == (20, 2)
    with pytest.raises(UserError, match=r"two columns are named '0'; .* data.args.header: false"):
        csv(split(), path=path, target="c")


def test_a_header_that_is_data_is_said(write, split):
    path = write("5.1,3.5,0\n4.9,3.0,1\n6.2,2.9,0\n")
    with pytest.raises(UserError, match=r"there are '5.1', '3.5', '0'; .* data.args.header: false"):
        csv(split(), path=path, target="kind")
    with pytest.warns(LrtoolWarning, match="line 1: the header holds numbers alone; if it is the"):
        csv(split(), path=path, target="0")


def test_a_header_of_consecutive_numbers_is_a_header(write, split):
    table = "2019,2020,2021\n" + "".join(f"{2 * i},{i * i},{i % 2}\n" for i in range(20))
    parts = csv(split(), path=write(table), target=2021)
    assert list(kinds(parts)) == ["2019", "2020", "2021"]


def test_a_class_may_be_called_none(write, split):
    table = "x,y\n1.5,None\n2.5,Apnea\n3.5,None\n"
    path = write(table)
    with pytest.raises(UserError, match=r"line 2: .*if 'None' is a class.*data.args.na_values: \["):
        csv(split(), path=path, target="y")
    parts = csv(split(), path=path, target="y", na_values=[])
    assert parts.learned[1].classes == ("Apnea", "None")
    with pytest.raises(UserError, match=r"as in 1 of 3 rows; remove these rows or fill it in$"):
        csv(split(), path=write("x,y\n1.5,None\n2.5,\n3.5,b\n"), target="y", na_values=[])
    with pytest.raises(UserError, match=r"if 'NA' is a class, .* data.args.na_values: \[\]$"):
        csv(split(), path=write("x,y\n1.5,NA\n2.5,a\n3.5,b\n"), target="y")
    with pytest.raises(UserError, match=r"as in 1 of 3 rows; remove these rows or fill it in$"):
        csv(split(), path=write("x,y\n1.5,NA\n2.5,12.5\n3.5,3.25\n"), target="y")


def test_bounds_of_ranges_are_classes(write, split):
    rows = "".join(f"{i * i},{['<=50K', '>50K'][i % 2]}\n" for i in range(20))
    parts = csv(split(), path=write("x,income\n" + rows), target="income")
    assert parts.learned[1].classes == ("<=50K", ">50K")


def test_classes_that_differ_in_case_are_said(write, split):
    with pytest.warns(LrtoolWarning, match=r"'Yes' and 'yes' of 'y', which differ in case alone"):
        parts = csv(split(), path=write("x,y\n1,yes\n5,Yes\n9,no\n"), target="y")
    assert parts.learned[1].classes == ("Yes", "no", "yes")
    csv(split(), path=write("x,y\n1,a\n5,A\n9,b\n"), target="y")  # letters are two classes


def test_classes_beyond_2_to_the_53_stay_apart(write, split):
    labels = [2**53 + 2, 2**53, 2**53 + 1]
    rows = "".join(f"{i * i},{label}\n" for i, label in enumerate(labels * 10))
    for numeric in ([], ["y"]):
        parts = csv(split(), path=write("x,y\n" + rows), target="y", numeric=numeric)
        assert parts.num_outputs == 3
        assert parts.train.targets[:3].tolist() == [2, 0, 1]
        assert parts.learned[1].classes == tuple(str(label) for label in sorted(labels))


def test_equal_numbers_are_one_class(write, split):
    parts = csv(split(), path=write("x,y\n1,01\n2,1.0\n4,2\n8,1e0\n"), target="y")
    assert parts.train.targets.tolist() == [0, 0, 1, 0]
    assert parts.learned[1].classes == ("01", "2")


def test_classes_with_another_minus_sign(write, split):
    parts = csv(split(), path=write("x,y\n1,\u22125\n2,5\n4,-5\n"), target="y")
    assert parts.train.targets.tolist() == [0, 1, 0]
    assert parts.learned[1].classes == ("-5", "5")


def test_classes_with_decimal_commas(write, split):
    table = "x;y\n" + "".join(f"{i * i};{i % 2},5\n" for i in range(20))
    parts = csv(
        split(), path=write(table), target="y", task="classification", delimiter=";", decimal=","
    )
    assert parts.learned[1].classes == ("0.5", "1.5")
    assert parts.train.targets[:3].tolist() == [0, 1, 0]


def test_more_inputs_than_the_memory_holds_are_refused(write, split, monkeypatch):
    monkeypatch.setattr("lrtool.data.columns._MOST_INPUTS", 30 * 29)
    path = write(column([f"name{i}" for i in range(30)]))
    with pytest.raises(UserError, match="30 different words in 30 rows are too many for the mem"):
        csv(split(), path=path, target="y", categorical=["v"])


def test_how_each_column_was_read(write, split):
    table = "id,age,city,gone,y\n" + "".join(
        f"{i},{20 + i * i if i else '?'},{['Rome', 'Oslo', ''][i % 3]},,{i % 2}\n"
        for i in range(20)
    )
    with pytest.warns(LrtoolWarning, match="'id' is left out"):
        parts = csv(split(), path=write(table), target="y", drop=["gone"])
    found = {facts.name: facts for facts in parts.columns}
    assert list(found) == ["id", "age", "city", "gone", "y"]
    age, city, y = found["age"], found["city"], found["y"]
    assert (age.use, age.kind, age.low, age.high, age.missing) == ("input", "number", 21, 381, 1)
    assert (city.kind, city.words, city.missing) == ("words", 3, 6)
    assert (y.use, y.kind, y.words, y.missing) == ("target", "words", 2, 0)
    assert found["gone"].reason == "data.args.drop"
    assert found["id"].reason.startswith("row numbers")


def test_delimiters_at_the_end_of_lines(write, split):
    message = "line 2: 5 fields, but the header has 3; the line ends in 2 delimiters too many"
    with pytest.raises(UserError, match=message):
        csv(split(), path=write("a;b;y\n1;2;0;;\n"), target="y", delimiter=";")


def test_delimiters_at_the_end_of_the_header_alone(write, split):
    path = write("a,b,y,,\n1,2,0\n3,9,1\n")
    parts = csv(split(), path=path, target="y", drop=[""])
    assert kinds(parts)["Unnamed: 4"] == ("left out", None)
    assert parts.train.inputs.shape == (2, 2)
    with pytest.raises(UserError, match="line 3: 2 fields, but the header has 5"):
        csv(split(), path=write("a,b,y,,\n1,2,0\n3,9\n"), target="y")


def test_many_columns_of_words_are_said(write, split):
    names = [f"w{i}" for i in range(12)]
    rows = [[f"{(i + j) % 90}x{j}" for j in range(12)] for i in range(200)]
    lines = [",".join([*row, "ab"[i % 2]]) for i, row in enumerate(rows)]
    path = write("\n".join([",".join([*names, "y"]), *lines, ""]))
    with pytest.warns(LrtoolWarning, match=r"12 columns of words become 1,080 inputs, 90 of them"):
        parts = csv(split(), path=path, target="y")
    assert parts.train.inputs.shape == (200, 1080)


def test_validation_tables_have_the_same_marks(write, split):
    other = write(column(["$5", "6"]), "other.csv")
    with pytest.raises(UserError, match=r"other.csv: line 3: column 'v' holds '6' and, in line 2"):
        csv(
            split(other), path=write(column([f"${i}" for i in range(9)])), target="y", numeric=["v"]
        )


def test_so_has_a_target(write, split):
    rows = "".join(f"{i},{i + 30}\n" for i in range(9)) + "9,1.5k\n10,3M\n"
    with pytest.raises(UserError, match=r"line 11: column 'y' holds '1.5k' and, in line 2, '30'"):
        csv(split(), path=write("x,y\n" + rows), target="y", numeric=["y"])


def test_delimiters_are_suggested(write, split):
    for content, hint in [
        ("a;b;y\n1;2;0\n", r'set data.args.delimiter: ";"'),
        ("a\tb\ty\n1\t2\t0\n", r'set data.args.delimiter: "\\t"'),
        ("a;b;y\n1,5;2,5;0\n", r'line 2: 3 fields, but the header has 1; .*delimiter: ";"'),
        (
            '"a";"b";"y"\n1;2;0\n',
            r"""expected after '"'; if ';' stands .* data.args.delimiter: ";"$""",
        ),
        ("Houses\na,b,y\n1,2,0\n", "has 1; if the first line is a title or a comment, remove it$"),
    ]:
        with pytest.raises(UserError, match=hint):
            csv(split(), path=write(content), target="y")


def test_plain_tables_are_read_without_a_word(write, split):
    table = "age,city,pay,kind\n" + "".join(
        f"{20 + i * i},{['Rome', 'Oslo'][i % 2]},{i * 1.5},{'ab'[i % 2]}\n" for i in range(20)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        csv(split(), path=write(table), target="kind")
