"""Import paths, and calls judged before they are made."""

import functools
import json
import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Literal, Optional

import pytest
import torch
from torch import nn

import lrtool
from lrtool.components import import_path
from lrtool.errors import UserError


def failure(path, *directories):
    with pytest.raises(UserError) as caught:
        import_path.resolve(path, directories)
    return str(caught.value)


def test_a_colon_makes_an_import_path():
    assert import_path.is_import_path("package.module:Name")
    assert not import_path.is_import_path("mlp")


def test_resolve_follows_dots_on_both_sides():
    assert import_path.resolve("torch.nn:Linear", []) is nn.Linear
    assert import_path.resolve("torch:nn.functional.relu", []) is nn.functional.relu


def test_directories_are_importable_and_the_first_wins(tmp_path, module):
    name = module("VALUE = 'first'", "twice_there")
    other = tmp_path / "other"
    other.mkdir()
    (other / "twice_there.py").write_text("VALUE = 'second'")
    assert import_path.resolve(f"{name}:VALUE", [tmp_path, other]) == "first"
    assert sys.path[:2] == [str(tmp_path), str(other)]


def test_the_working_directory_is_importable_when_it_is_among_the_directories(
    tmp_path, module, monkeypatch
):
    name = module("VALUE = 3", "package_here.inner")
    monkeypatch.chdir(tmp_path)
    assert import_path.resolve(f"{name}:VALUE", [Path.cwd()]) == 3


def test_a_module_may_import_its_neighbour_later(tmp_path, module):
    neighbour = module("VALUE = 5")
    name = module(f"def late():\n    from {neighbour} import VALUE\n    return VALUE")
    assert import_path.resolve(f"{name}:late", [tmp_path])() == 5


@pytest.mark.parametrize("path", ["a:", ":b", "a:b:c", "a/b:c", "a b:c", "a..b:c", "a:b.", "a:1"])
def test_malformed(path):
    assert failure(path) == f"'{path}' must look like package.module:attribute"


def test_no_such_module(tmp_path):
    assert failure("nowhere_at_all:f", tmp_path, tmp_path) == (
        f"no module named 'nowhere_at_all'; looked in {tmp_path} and the installed packages"
    )


def test_no_such_module_within_a_package(tmp_path, module):
    module("", "package_with.inner")
    assert failure("package_with.outer:f", tmp_path).startswith(
        "no module named 'package_with.outer'; looked in "
    )


def test_a_module_that_imports_a_missing_one(tmp_path, module):
    name = module("import os\nimport not_installed_anywhere")
    assert failure(f"{name}:f", tmp_path) == (
        f"module '{name}' imports 'not_installed_anywhere', which is not installed "
        f"({tmp_path / name}.py:2)"
    )


def test_no_such_attribute(tmp_path, module):
    name = module("class Network:\n    inner = 1")
    assert failure(f"{name}:Netwrok", tmp_path) == (
        f"module '{name}' has no attribute 'Netwrok' (did you mean 'Network'?)"
    )
    assert failure(f"{name}:Network.iner") == (
        "'Network' has no attribute 'iner' (did you mean 'inner'?)"
    )
    assert failure(f"{name}:zzzzzzz") == f"module '{name}' has no attribute 'zzzzzzz'"


def test_an_exception_while_importing(tmp_path, module):
    helper = module("def check(x):\n    return 1 / x")
    name = module(f"import {helper}\n\n\n{helper}.check(0)")
    assert failure(f"{name}:f", tmp_path) == (
        f"importing '{name}' failed: ZeroDivisionError: division by zero ({tmp_path / helper}.py:2)"
    )


def test_a_syntax_error_while_importing(tmp_path, module):
    name = module("x = 1\ny = = 2")
    assert failure(f"{name}:f", tmp_path) == (
        f"importing '{name}' failed: SyntaxError: invalid syntax ({tmp_path / name}.py:2)"
    )


def test_a_script_that_exits_while_importing(tmp_path, module):
    name = module("import sys\nsys.exit('usage: script FILE')")
    assert failure(f"{name}:f", tmp_path) == (
        f"importing '{name}' failed: it ended the program: sys.exit('usage: script FILE') "
        f"({tmp_path / name}.py:2)"
    )


def test_an_attribute_that_cannot_be_read(tmp_path, module):
    name = module(
        """
        def __getattr__(name):
            raise RuntimeError(f"no {name} today")

        class Lazy:
            @property
            def part(self):
                raise SystemExit

        lazy = Lazy()
        """
    )
    assert failure(f"{name}:net", tmp_path) == (
        f"'net' of module '{name}' cannot be read: RuntimeError: no net today "
        f"({tmp_path / name}.py:3)"
    )
    assert failure(f"{name}:lazy.part", tmp_path) == (
        f"'part' of 'lazy' cannot be read: it ended the program: sys.exit(None) "
        f"({tmp_path / name}.py:8)"
    )


def test_an_exception_that_cannot_be_spelled(tmp_path, module):
    name = module(
        "class Odd(Exception):\n    def __str__(self):\n        return self.text\nraise Odd"
    )
    assert failure(f"{name}:f", tmp_path) == (
        f"importing '{name}' failed: Odd: its __str__ raised AttributeError "
        f"({tmp_path / name}.py:4)"
    )


def test_a_path_on_several_lines():
    assert failure("a\nb:c") == r"'a\nb:c' must look like package.module:attribute"


def raised(function, *args):
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001  (any)
        return error
    raise AssertionError


def test_place_is_the_users_last_line_not_the_librarys():
    here = f" ({__file__}:"
    assert import_path.place(raised(nn.Linear(2, 1), torch.ones(3, 3))).startswith(here)
    assert import_path.place(raised(json.loads, "{")).startswith(here)
    assert import_path.place(raised(eval, "1 +")).startswith(here)  # no file of this SyntaxError


def test_place_of_an_error_that_nobody_raised():
    assert import_path.place(ValueError("x")) == ""


def test_place_does_not_mistake_a_folder_called_usr_for_pythons(tmp_path, module):
    folder = "usr.lib.importlib"
    name = module("def f():\n    raise ValueError", folder + ".mine")
    f = import_path.resolve(f"{name}:f", [tmp_path])
    assert import_path.place(raised(f)) == f" ({tmp_path}/usr/lib/importlib/mine.py:2)"


def plain(  # noqa: PLR0917  (stands for a user's)
    needed,
    count: int = 1,
    rate: float = 0.1,
    flag: bool = False,  # noqa: FBT001, FBT002
    name: str = "x",
    widths: list[int] | None = None,
    kind: Literal["relu", "tanh"] = "relu",
    mark: Literal["", ","] = "",
    table: dict[str, float] | None = None,
    maybe: Optional[int] = None,  # noqa: UP045  (the old spelling)
    other: torch.dtype | str = "x",
):
    return locals()


def problems(function=plain, /, *, given=("needed",), positional=0, **args):
    found = import_path.check_call(function, args, given=given, positional=positional)
    return [(*(problem.path or (None,)), problem.message) for problem in found]


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"count": 3},
        {"rate": 3},
        {"rate": 0.5},
        {"flag": True},
        {"widths": [1, 2]},
        {"widths": []},
        {"widths": None},
        {"kind": "tanh"},
        {"table": {"a": 1}},
        {"maybe": None},
        {"maybe": 4},
        {"other": 7},
    ],
)
def test_values_that_fit(args):
    assert problems(**args) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"count": "3"}, "must be a whole number, not the text '3'"),
        ({"count": 1.5}, "must be a whole number, not 1.5"),
        ({"count": True}, "must be a whole number, not true"),
        ({"count": None}, "must be a whole number, not null"),
        ({"rate": "high"}, "must be a number, not the text 'high'"),
        ({"flag": 1}, "must be true or false, not 1"),
        ({"name": 3}, "must be text, not 3"),
        ({"widths": 3}, "must be a list, not 3"),
        ({"widths": [1, "a"]}, 'item 1 must be a whole number, in [1, "a"]'),
        ({"kind": "rulu"}, "must be one of relu, tanh, not the text 'rulu' (did you mean 'relu'?)"),
        ({"kind": 3}, "must be one of relu, tanh, not 3"),
        ({"mark": ";"}, "must be one of '', ',', not the text ';'"),
        ({"table": [1]}, "must be a mapping, not [1]"),
        ({"maybe": "a"}, "must be a whole number, not the text 'a'"),
    ],
)
def test_values_that_do_not_fit(args, words):
    assert problems(**args) == [(next(iter(args)), words)]


def test_unknown_argument():
    def f(needed, hidden=None, dropout=0.0): ...

    assert problems(f, hiden=1) == [
        (
            "hiden",
            "unknown argument (did you mean 'hidden'?); signature (hidden=None, dropout=0.0)",
        )
    ]
    assert problems(f, zzz=1) == [("zzz", "unknown argument; signature (hidden=None, dropout=0.0)")]


def test_an_unknown_argument_is_wrong_as_a_key():
    found = import_path.check_call(plain, {"zzz": 1, "count": "a"}, given=("needed",))
    assert [(problem.path, problem.at_key) for problem in found] == [
        (("zzz",), True),
        (("count",), False),
    ]


def test_values_out_of_range():
    even = import_path.Range("must be even", lambda v: v % 2 == 0)

    def f(n: Annotated[int, even] = 0, any_: Annotated[object, even] = 1): ...

    assert problems(f, n=2) == []
    assert problems(f, n=3) == [("n", "must be even, not 3")]
    assert problems(f, n="3") == [("n", "must be a whole number, not the text '3'")]
    assert problems(f, any_=3) == []  # of a type that is the function's own affair


def test_missing_argument():
    assert problems(given=()) == [(None, "the argument 'needed' is required")]
    assert problems(given=(), needed=1) == []
    assert problems(given=(), positional=1) == []


def test_all_problems_at_once():
    assert [name for name, _ in problems(given=(), count="a", rate="b", zzz=1)] == [
        "count",
        "rate",
        "zzz",
        None,
    ]


def test_any_keyword_is_taken():
    def f(a: int = 1, **others): ...

    assert problems(f, anything=3) == []
    assert problems(f, a="x") == [("a", "must be a whole number, not the text 'x'")]


def test_a_callable_that_takes_anything_takes_anything_beside_positions():
    assert problems(nn.MSELoss(), positional=2, anything=1) == []


def test_partials_and_instances():
    class Factory:
        def __call__(self, size: int, depth: int = 1): ...

    assert problems(functools.partial(plain, 1, count=2), given=(), rate=3) == []
    assert problems(Factory(), given=(), depth="a") == [
        ("depth", "must be a whole number, not the text 'a'"),
        (None, "the argument 'size' is required"),
    ]


def test_tensor_or_number_is_a_number_in_a_file():
    assert problems(torch.optim.SGD, given=(), positional=1, lr=1) == []
    assert problems(torch.optim.SGD, given=(), positional=1, lr="0.1") == [
        ("lr", "must be a number, not the text '0.1'")
    ]
    assert problems(nn.functional.cross_entropy, positional=2, weight=[1.0, 2.0]) == []


@pytest.mark.parametrize("annotation", ["'Missing'", "'not python'", "'1 / 0'", "'list[int'"])
def test_annotations_that_cannot_be_evaluated_are_left_alone(tmp_path, module, annotation):
    name = module(f"class Net:\n    def __init__(self, size: {annotation}, depth=1): ...")
    cls = import_path.resolve(f"{name}:Net", [tmp_path])
    assert list(import_path.signature(cls).parameters) == ["size", "depth"]
    assert problems(cls, size="anything") == []


def test_postponed_annotations_are_evaluated(tmp_path, module):
    name = module("from __future__ import annotations\ndef f(n: int): ...")
    f = import_path.resolve(f"{name}:f", [tmp_path])
    assert problems(f, n="a") == [("n", "must be a whole number, not the text 'a'")]


def test_what_has_no_signature_is_left_alone():
    assert import_path.signature(dict.fromkeys) is not None
    assert import_path.signature(torch.relu) is None
    assert problems(torch.relu, anything=1) == []
    assert import_path.required(torch.relu) == set()
    assert import_path.facts_for(torch.relu, {"num_outputs": 3}) == {}


def test_facts_go_to_those_who_name_them():
    facts = {"input_shape": (3,), "num_outputs": 2, "vocabulary": None}

    def f(num_outputs, vocabulary=None, **others): ...

    assert import_path.facts_for(f, facts) == {"num_outputs": 2, "vocabulary": None}


def test_required():
    assert import_path.required(plain) == {"needed"}


def test_spelled_parameters():
    parameters = import_path.signature(plain).parameters
    assert import_path.spell_parameter(parameters["needed"]) == "needed"
    assert import_path.spell_parameter(parameters["kind"]) == "kind='relu'"


def test_only_lrtool_s_own_folder_and_the_libraries_are_foreign():
    package, stdlib = Path(lrtool.__file__).parent, sysconfig.get_path("stdlib")
    for foreign in (f"{package}/net.py", f"{stdlib}/json/net.py", "<string>"):
        assert import_path.place(error_in(foreign)) == ""
    for own in (f"{package}_mine/net.py", f"{stdlib}_mine/net.py"):
        assert import_path.place(error_in(own)) == f" ({own}:1)"


def error_in(filename):
    with pytest.raises(NameError) as caught:
        exec(compile("missing", filename, "exec"), {})  # noqa: S102  (the test's own)
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # without this file
    return caught.value
