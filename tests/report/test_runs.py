"""Runs by their names: which are found, what a name means, and what may be one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrtool.errors import UserError
from lrtool.report import marker, runs


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Make a run that has ended, below the current directory."""
    monkeypatch.chdir(tmp_path)

    def make_run(path, command="train"):
        directory = Path(path)
        directory.mkdir(parents=True)
        marker.begin(directory, command)
        marker.end(directory)
        return directory

    return make_run


def refusal(run, flag=""):
    with pytest.raises(UserError) as caught:
        runs.resolve(Path(run), flag)
    return str(caught.value)


def test_runs_are_found_at_any_depth_and_nothing_else_is(make_run, tmp_path):
    expected = [
        make_run("runs/digits/a", "find"),
        make_run("runs/digits/a/below"),
        make_run("runs/digits/b"),
        make_run("runs/digits/b/.new"),
        make_run("runs/top"),
    ]
    make_run("runs/compare/plots", "compare")
    make_run("runs/.hidden/run")
    make_run("runs/digits/b/find/inner")  # in a folder of the run's own
    (tmp_path / "runs/other").mkdir()
    (tmp_path / "runs/other/report.json").write_text("{}")  # no marker
    (tmp_path / "runs/link").symlink_to(make_run("elsewhere"))
    linked = tmp_path / "runs/linked"
    linked.mkdir()
    (linked / marker.MARKER).symlink_to(tmp_path / "runs/top" / marker.MARKER)
    assert sorted(runs.find_runs()) == sorted(expected)
    assert runs.find_runs(Path("nowhere")) == []


def test_a_damaged_marker_is_still_one(make_run):
    run = make_run("runs/a")
    (run / marker.MARKER).write_text("{")
    assert runs.find_runs() == [run]


def test_a_path_that_exists_comes_before_a_name(make_run, tmp_path):
    run = make_run("runs/digits/base")
    assert runs.resolve(Path("base")) == run
    assert runs.resolve(Path("digits/base")) == run
    assert runs.resolve(Path("runs/digits/base")) == run
    assert runs.resolve(tmp_path / run) == tmp_path / run
    (tmp_path / "base").mkdir()
    assert runs.resolve(Path("base")) == Path("base")
    assert runs.resolve(Path("digits/base")) == run
    (tmp_path / "nowhere").symlink_to("gone")  # whoever reads it says so
    assert runs.resolve(Path("nowhere")) == Path("nowhere")


def test_a_name_of_several_runs_lists_them(make_run):
    make_run("runs/digits/base")
    make_run("runs/tabular/base")
    assert refusal("base", "--lr-from ") == (
        "--lr-from base: 2 runs have that name; give one of digits/base, tabular/base"
    )
    whole = make_run("runs/base")
    assert runs.resolve(Path("base")) == whole  # its whole name
    assert runs.resolve(Path("tabular/base")) == Path("runs/tabular/base")


def test_a_long_list_is_cut(make_run):
    for number in range(12):
        make_run(f"runs/{number:02}/base")
    assert refusal("base").startswith("base: 12 runs have that name; give one of 00/base, 01/base")
    assert refusal("base").endswith("08/base, 09/base and 2 more")


def test_an_unknown_name_suggests_a_known_one(make_run):
    end = "; give a run directory, or a name that `lrtool runs` shows"
    assert refusal("base") == f"base: there is no such run{end}"
    make_run("runs/digits/baseline")
    assert refusal("basline") == (f"basline: there is no such run (did you mean 'baseline'?){end}")
    assert refusal("digit/baseline", "--resume ") == (
        f"--resume digit/baseline: there is no such run (did you mean 'digits/baseline'?){end}"
    )
    for path in ("/base", "../base", "runs/../runs/base", "line", "a" * 5000, "a\0b"):
        assert "there is no such run" in refusal(path)


def test_the_shortest_name_is_one_that_means_the_run(make_run):
    both = [make_run("runs/digits/a"), make_run("runs/digits/b"), make_run("runs/tabular/b")]
    elsewhere = Path("other/a")
    assert runs.short_names(both) == {
        both[0]: "a",
        both[1]: "digits/b",
        both[2]: "tabular/b",
    }
    assert runs.name_of(elsewhere) == "other/a"
    for run, name in runs.short_names(both).items():
        assert runs.resolve(Path(name)) == run


@pytest.mark.parametrize("name", ["base", "lr=0.01,wd=0", "Ü2", "find.v2", "my run", "auto2", "1"])
def test_what_may_be_a_name(name):
    assert runs.problem_of_name(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "": "a name is not empty",
        " ": "a name is not empty",
        "a ": "no spaces at its ends",
        "a\nb": "only characters that can be seen",
        "a\x00": "only characters that can be seen",
        "\udcff": "only characters that can be seen",
        "a/b": "a name is no path, and cannot have '/'",
        "../a": "a name is no path, and cannot have '/'",
        "a\\b": "cannot have '\\\\'",
        "c:": "cannot have ':'",
        ".": "a name cannot begin with '.'",
        "..": "a name cannot begin with '.'",
        ".new": "a name cannot begin with '.'",
        "-q": "a name cannot begin with '-'",
        "~": "a name cannot begin with '~'",
        "a.": "that name is reserved",
        "auto": "that name is reserved",
        "Find": "that name is reserved",
        "checkpoints": "that name is reserved",
        "report.json": "that name is reserved",
        "nul.txt": "that name is reserved",
        "COM1": "that name is reserved",
        "ü" * 101: "a name has at most 200 bytes",
    }.items(),
)
def test_what_may_not(name, words):
    assert words in runs.problem_of_name(name)


@given(st.text(max_size=30))
def test_a_name_is_one_folder_below_runs(name):
    if runs.problem_of_name(name) is None:
        path = runs.RUNS / name
        assert path.parent == runs.RUNS
        assert path.name == name
