"""YAML 1.2 with positions: what a file means, and how each way of breaking it is reported."""

import math
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lrtool.config import document
from lrtool.config.document import Override
from lrtool.errors import ConfigError, Problem, UserError


def where(read, *path, at_key=False):
    return str(read.locate(Problem(path, "is wrong", at_key=at_key)))


def problems(text):
    with pytest.raises(ConfigError) as caught:
        document.parse(text, "f.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("12", 12),
        ("+12", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("012", 12),
        ("1_000", "1_000"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(text, value):
    found = document.parse(f"key: {text}", "f.yaml").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read_as_nan():
    assert math.isnan(document.parse("key: .nan", "f.yaml").data["key"])


def test_positions_of_keys_and_values():
    read = document.parse("a: 1\nb:\n  c: [x, {d: 2}]\n", "f.yaml")
    assert where(read, "b", "c", 1, "d") == "f.yaml:3:14: b.c.1.d: is wrong"
    assert where(read, "b", "c", 1, "d", at_key=True) == "f.yaml:3:11: b.c.1.d: is wrong"
    assert where(read, "b", "missing", "deeper") == "f.yaml:3:3: b.missing.deeper: is wrong"
    assert where(document.Document("f.yaml", {}, {}, {}), "a") == "f.yaml: a: is wrong"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "f.yaml: the file is empty; `lrtool init digits` writes an example"),
        ("# only\n", "f.yaml: the file is empty; `lrtool init digits` writes an example"),
        ("- a", "f.yaml:1:1: the file holds a list; it must be a mapping, like 'seed: 0'"),
        ("x", "f.yaml:1:1: the file holds a single value; it must be a mapping, like 'seed: 0'"),
        ("[" * 3000, "f.yaml:1:65: nested more than 64 levels deep"),
        ("a: &a [*a]", "f.yaml:1:4: aliases expand to more than a configuration can hold"),
        ("a:\n\tb: 1", "f.yaml:2:1: not valid YAML: a tab; YAML is indented with spaces"),
        (
            "a: !!python/object/apply:os.system [ls]",
            (
                "f.yaml:1:4: tags are not allowed, found "
                "'tag:yaml.org,2002:python/object/apply:os.system'; remove it"
            ),
        ),
        ("a: 1\n\x00", "f.yaml:2: not a text file (character '\\x00')"),
        ("a: 1\na: 2", "f.yaml:2:1: a: duplicate key, first given on line 1"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be a single word"),
        (
            "a: 1\n---\nb: 2",
            (
                "f.yaml:2:1: not valid YAML: expected a single document in the stream, "
                "but found another document"
            ),
        ),
        (
            "a: b: c",
            (
                "f.yaml:1:5: not valid YAML: a second ':' on this line, "
                "or the line before is indented differently"
            ),
        ),
        (
            "a: 'x",
            (
                "f.yaml:1:6: not valid YAML: while scanning a quoted scalar, "
                "found unexpected end of stream"
            ),
        ),
        ("a: *x", "f.yaml:1:4: not valid YAML: found undefined alias 'x'"),
    ],
)
def test_broken_text(text, line):
    assert problems(text) == [line]


def test_an_alias_bomb_is_refused_before_it_grows():
    levels = [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ]
    text = "a: &a [1, 1]\n" + "\n".join(levels)
    assert problems(text) == ["f.yaml:1:11: aliases expand to more than a configuration can hold"]


def test_all_duplicates_are_reported_at_once():
    assert problems("a: 1\na: 2\nb: {c: 1, c: 2}") == [
        "f.yaml:2:1: a: duplicate key, first given on line 1",
        "f.yaml:3:11: b.c: duplicate key, first given on line 3",
    ]


def test_deep_block_nesting_does_not_reach_the_recursion_limit():
    text = "".join(f"{' ' * i}a:\n" for i in range(3000))
    assert problems(text) == ["f.yaml:65:65: nested more than 64 levels deep"]


def test_unreadable_files(tmp_path):
    def line(path):
        with pytest.raises(ConfigError) as caught:
            document.read(path)
        return str(caught.value)

    missing = tmp_path / "missing.yaml"
    assert line(missing) == (
        f"{missing}: no such file; `lrtool init digits` writes an example to start from"
    )
    assert line(tmp_path) == f"{tmp_path}: is a directory, not a configuration file"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\xfe")
    assert line(binary) == f"{binary}:2: not UTF-8 text (byte 0xff at 8)"
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 1_000_001)
    assert line(huge) == f"{huge}: larger than 1,000,000 bytes; not a configuration file"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3")
    assert document.read(path).data == {"seed": 3}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("model: mlp\ntrain: {epochs: 2}\nmetrics: [accuracy]\n")
    return path


def test_set_is_typed_like_the_file_and_named_in_errors(path):
    read = document.read(path, ["train.epochs=1e-3", "find.start=no", "metrics.0=f1"])
    assert read.data["train"] == {"epochs": 0.001}
    assert read.data["find"] == {"start": "no"}
    assert read.data["metrics"] == ["f1"]
    assert where(read, "train", "epochs") == "--set train.epochs: is wrong"
    assert where(read, "find") == "--set find.start: find: is wrong"


def test_an_unknown_section_of_set_is_named_with_it(path):
    read = document.read(path, ["trian.epochs=3"])
    problem = read.locate(Problem(("trian",), "unknown key", at_key=True))
    assert str(problem) == "--set trian.epochs: trian: unknown key"


@pytest.mark.parametrize("mark", [*",|:;-#*& "])
def test_a_mark_alone_needs_no_quotes_in_set(mark):
    assert document.parse_override(f"data.args.delimiter={mark}").value == mark
    assert document.parse_override("seed=~").value is None


def test_set_reaches_into_the_short_form_of_a_component(path):
    read = document.read(path, ["model.args.hidden=[3, 4]", "model.args.dropout=0.5"])
    assert read.data["model"] == {"name": "mlp", "args": {"hidden": [3, 4], "dropout": 0.5}}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("optimizer: {name: sgd, args: 3}", {"name": "adamw"}),
        ("optimizer: {name: sgd, args: abc}", {"name": "adamw"}),
        (
            "optimizer: {args: {weight_decay: 0.1}}",
            {"name": "adamw", "args": {"weight_decay": 0.1}},
        ),
    ],
)
def test_a_name_drops_the_arguments_of_another_one_alone(path, text, left):
    path.write_text(text)
    read = document.read(path, names=[Override("--optimizer", ("optimizer",), "adamw")])
    assert read.data["optimizer"] == left


def test_a_section_that_a_flag_adds_is_the_flags(path):
    path.write_text("seed: 1")
    read = document.read(path, flags=[Override("--end", ("find", "end"), 1e-9)])
    assert where(read, "find") == "--end: find: is wrong"


def test_set_replaces_marks_below_it(path):
    read = document.read(path, ["train={epochs: x}"])
    assert where(read, "train", "epochs") == "--set train: train.epochs: is wrong"


def test_flags_come_after_sets(path):
    read = document.read(path, ["seed=1"], [Override("--seed", ("seed",), 2)])
    assert read.data["seed"] == 2
    assert where(read, "seed") == "--seed: is wrong"


def test_every_broken_override_is_reported(path):
    with pytest.raises(ConfigError) as caught:
        document.read(path, ["a", "=1", "b..c=1", "d=[1", "e=!!x 1", "f={g: 1, g: 2}"])
    assert str(caught.value).splitlines() == [
        "--set a: must look like key.path=value, for instance seed=1",
        "--set =1: must look like key.path=value, for instance seed=1",
        "--set b..c=1: must look like key.path=value, for instance seed=1",
        (
            "--set d: not valid YAML: while parsing a flow sequence, expected ',' or ']', "
            "but got '<stream end>'"
        ),
        "--set e: tags are not allowed, found 'tag:yaml.org,2002:x'; remove it",
        "--set f: f.g: duplicate key, first given on line 1",
    ]


def test_a_flag_whose_value_is_no_text():
    with pytest.raises(ConfigError, match=r"^--set seed: not a text file \(character '\\x07'\)$"):
        document.parse_override("seed=\x07")


def test_overrides_that_find_no_place(path):
    with pytest.raises(ConfigError) as caught:
        document.read(path, ["train.epochs.x=1", "metrics.7=a", "metrics.a=b"])
    assert str(caught.value).splitlines() == [
        "--set train.epochs.x: train.epochs holds a value, not keys",
        "--set metrics.7: 7 is not an index of a list with 1 entries",
        "--set metrics.a: a is not an index of a list with 1 entries",
    ]


def test_problems_of_file_and_command_line_come_in_their_order(path):
    path.write_text("a: 1\na: 2\nb: {c: 1, c: 2}")
    with pytest.raises(ConfigError) as caught:
        document.read(path, ["d=[1", "e"])
    assert [(p.path, p.place.line, p.place.column) for p in caught.value.problems] == [
        (("d",), None, None),
        ((), None, None),
        (("a",), 2, 1),
        (("b", "c"), 3, 11),
    ]
    assert str(caught.value.problems[2]) == f"{path}:2:1: a: duplicate key, first given on line 1"


def test_what_is_raised_later_gets_its_place_too():
    read = document.parse("a: 1\nb:\n  c: [x]\n", "f.yaml")
    with pytest.raises(ConfigError) as caught, document.located(read):
        raise ConfigError(Problem(("b", "c", 0), "is wrong"), Problem(("a",), "is wrong too"))
    assert str(caught.value) == "f.yaml:1:4: a: is wrong too\nf.yaml:3:7: b.c.0: is wrong"
    with pytest.raises(ConfigError) as again, document.located(read):
        raise caught.value
    assert again.value.problems == caught.value.problems
    words = "data.args.path: begins like a key, and is none"
    with pytest.raises(UserError, match=f"^{words}$"), document.located(read):
        raise UserError(words)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
    | st.sampled_from(["1e-3", "no", "true", "0x1f", "0o7", "~", ".inf", ".5", "1e5", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdef1.", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), plain, min_size=1, max_size=5))
def test_what_is_dumped_is_read_back(data):
    assert document.parse(document.dump(data), "f.yaml").data == data


def test_dump_quotes_what_yaml_1_1_would_not():
    assert yaml.safe_load(document.dump({"a": "1e-3"})) == {"a": "1e-3"}
    assert document.dump({"a": "1e-3"}) == 'a: "1e-3"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'a: "\\U00110000"',
            "f.yaml: not valid YAML: chr() arg not in range(0x110000)",
        ),
        ("%YAML " + "1" * 5000 + ".2\n---\na: 1", "f.yaml: not valid YAML: Exceeds the limit"),
        ("a: 1\nb: " + '"\\ud800"', "f.yaml:2:4: b: holds half of a surrogate pair"),
        ('"\\udfff": 1', "f.yaml:1:1: \udfff: holds half of a surrogate pair"),
        (
            r'path: "C:\data\train.csv"',
            (
                "f.yaml:1:11: not valid YAML: in double quotes, a backslash begins an escape such"
                r" as \n; write a path in single quotes, or with /"
            ),
        ),
        (r'path: "C:\Users\ada"', "f.yaml:1:12: not valid YAML: in double quotes, a backslash"),
    ],
)
def test_text_that_yaml_itself_stumbles_over(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        document.parse(text, "f.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join("a" * 3000) + "=1", "is nested more than 64 levels deep"),
        ("a.\udcff=1", "is not UTF-8 text"),
    ],
)
def test_a_flag_with_an_absurd_key(text, message):
    with pytest.raises(ConfigError, match=rf": {message}$"):
        document.parse_override(text)


def test_digits_that_count_no_entries_are_a_key():
    assert document.parse_override(f"a.{'9' * 5000}=1").path == ("a", "9" * 5000)
    assert document.parse_override("a.12=1").path == ("a", 12)
