"""The run directory: never at the cost of other files, never two processes at once."""

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from lrtool.errors import LrtoolWarning, UserError
from lrtool.report import marker
from lrtool.report import run_directory as rundir
from lrtool.report.files import whole_path

TRAIN = ["checkpoints/best/model.safetensors", "checkpoints/last/manifest.json"]
TRAIN += ["checkpoints/last/state.pt", "config.yaml", "find/report.json", "metrics.jsonl"]
TRAIN += ["plot.png", "report.json", "tensorboard/events.out.tfevents.1.here"]


KEEPS = "ignore:.* keeps the run that was there"


class Killed(BaseException):
    """Stands for kill -9: nothing is cleaned up after it."""


def put(directory, names, text):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def files(directory):
    """Content of all files but the lock and the marker, by name."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    named = {path.relative_to(directory).as_posix(): path.read_text() for path in found}
    return {name: text for name, text in named.items() if name not in {".lock", ".lrtool"}}


def make(directory, names=TRAIN, text="old", command="train", **options):
    """Make a run, all of whose files hold a text."""
    with rundir.opened(directory, directory.parent, command, **options) as run:
        put(run, names, text)
        return rundir.finish(run)


def fail(directory, names, text):
    """Begin to replace a run, and fail."""
    with rundir.opened(directory, directory.parent, "train", overwrite=True) as run:
        put(run, names, text)
        raise Killed


def refusal(directory, command="train", *, overwrite=True, inputs=()):
    with pytest.raises(UserError) as caught:
        rundir.check(directory, command, overwrite=overwrite, inputs=inputs)
    return str(caught.value)


def test_a_new_one_is_named_after_time_and_command(tmp_path):
    with rundir.opened(None, tmp_path / "runs", "train") as first:
        assert re.fullmatch(r"\d{8}T\d{6}Z-train", first.name)
        assert first.parent == tmp_path / "runs"
    names = set()
    for _ in range(3):
        with rundir.opened(None, tmp_path / "runs", "train") as other:
            names.add(other.name)
    assert len(names) == 3


def test_one_that_is_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with (
        rundir.opened(tmp_path / "run", tmp_path, "train"),
        pytest.raises(UserError, match="run: another process is using it"),
        rundir.opened(tmp_path / "run", tmp_path, "train"),
    ):
        pass
    with rundir.opened(tmp_path / "run", tmp_path, "train") as again:
        assert again.is_dir()


def test_a_run_that_came_meanwhile_is_not_replaced(tmp_path):
    run = tmp_path / "run"
    rundir.check(run, "train", overwrite=False)
    make(run)  # by another process, between the look and the lock
    with (
        pytest.raises(UserError, match=r"holds a run already \(report\.json\); choose another"),
        rundir.opened(run, tmp_path, "train"),
    ):
        pass
    assert files(run) == dict.fromkeys(TRAIN, "old")
    make(run, ["report.json"], "new", overwrite=True)  # the lock was given back
    assert files(run) == {"report.json": "new"}


def test_only_a_run_and_an_empty_directory_are_written_into(tmp_path):
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").endswith("file: is a file; a run needs a directory")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert refusal(tmp_path / "nowhere").endswith("nowhere: is a link that leads nowhere")
    mine = tmp_path / "mine"
    put(mine, ["plot.png", "notes.txt"], "mine")
    words = "mine: holds notes.txt and others, but no run; choose a new or an empty directory"
    for overwrite in (True, False):
        assert refusal(mine, overwrite=overwrite).endswith(words)
        with (
            pytest.raises(UserError, match="and others, but no run; choose a new"),
            rundir.opened(mine, tmp_path, "find", overwrite=overwrite),
        ):
            pass
    assert files(mine) == {"plot.png": "mine", "notes.txt": "mine"}
    empty = tmp_path / "empty"
    put(empty, [".gitignore"], "*")
    make(empty, ["report.json"])
    assert files(empty) == {".gitignore": "*", "report.json": "old"}


def test_overwriting_removes_what_lrtool_wrote_and_nothing_else(tmp_path):
    run = make(tmp_path / "run")
    mine = ["mine.txt", "comparison.png", "checkpoints/mine/state.pt"]
    mine += ["checkpoints/last/mine.txt", "find/notes.txt", "tensorboard/mine"]
    put(run, mine, "mine")
    with rundir.opened(run, tmp_path, "train", overwrite=True) as new:
        put(new, ["report.json", "model.safetensors"], "new")
        assert rundir.place(new) == run
        assert files(run) == {
            **dict.fromkeys(TRAIN, "old"),
            **dict.fromkeys(mine, "mine"),
            **dict.fromkeys([".new/.lrtool"], (new / ".lrtool").read_text()),
            **dict.fromkeys([".new/report.json", ".new/model.safetensors"], "new"),
        }
        assert rundir.finish(new) == run
    assert files(run) == {
        **dict.fromkeys(mine, "mine"),
        **dict.fromkeys(["report.json", "model.safetensors"], "new"),
    }
    assert not (run / ".new").exists()
    assert not (run / "checkpoints/best").exists()  # no folder is left empty


def test_a_file_of_the_users_own_in_the_way_is_refused(tmp_path):
    run = make(tmp_path / "run")
    for name in ("plot.svg", "plot.png", "config.yaml"):  # one new, two that were replaced
        before = files(run)
        put(run, [name], "mine")
        assert refusal(run) == (
            f"{run / name}: is not as lrtool wrote it, and would be replaced; move it away, or "
            "choose another directory"
        )
        with (
            pytest.raises(UserError, match="is not as lrtool wrote it"),
            rundir.opened(run, tmp_path, "train", resume=True),
        ):
            pass
        assert files(run) == {**before, name: "mine"}
        (run / name).unlink()
        put(run, set(before) & {name}, "old")
    rundir.check(run, "train", overwrite=True)


def test_a_model_of_the_users_own_is_told_from_a_damaged_one(tmp_path):
    run = make(tmp_path / "run", ["report.json"])
    header = b'\x20\0\0\0\0\0\0\0{"__metadata__":{"lrtool":"{}"}} '
    (run / "model.safetensors").write_bytes(header)
    marker.end(run)
    (run / "model.safetensors").write_bytes(header + b"\1")
    rundir.check(run, "train", overwrite=True)
    (run / "model.safetensors").write_bytes(b"mine")
    assert "model.safetensors: is not as lrtool wrote it" in refusal(run)


@pytest.mark.filterwarnings(KEEPS)
def test_a_file_that_comes_while_a_run_is_under_way_is_not_replaced(tmp_path):
    run = make(tmp_path / "run", ["report.json"])
    with rundir.opened(run, tmp_path, "train", overwrite=True) as new:
        put(new, ["report.json", "plot.png"], "new")
        put(run, ["plot.png"], "mine")
        with pytest.raises(UserError) as caught:
            rundir.finish(new)
    assert str(caught.value) == (
        f"{run / 'plot.png'}: came there while the run was under way, and is not lrtool's; the run "
        f"is whole in {new}: move either away"
    )
    assert {"plot.png": "mine", "report.json": "old"}.items() <= files(run).items()
    (run / "plot.png").unlink()
    rundir.settle(run)
    assert files(run) == {"plot.png": "new", "report.json": "new"}


def test_what_is_read_is_never_replaced_however_it_is_spelled(tmp_path, monkeypatch):
    run, given = make(tmp_path / "run"), tmp_path / "a.yaml"
    given.write_text("")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(run)
    spelled = [Path("run"), tmp_path / "link", tmp_path / "x/../run", Path("./run/.")]
    (tmp_path / "x").mkdir()
    for output in spelled:
        for read in spelled:
            assert refusal(output, inputs=[read]) == (
                f"{output}: is {read}, which is read; choose another directory"
            )
        below = output / "below/it"
        assert refusal(below, "compare", overwrite=False, inputs=[run]) == (
            f"{below}: lies in {run}, which is read; choose another directory"
        )
        rundir.check(output, "train", overwrite=True, inputs=[given])
    put(run, ["data.csv"], "mine")
    for read in (run / "data.csv", tmp_path / "link/data.csv", run / "config.yaml"):
        assert refusal(run, inputs=[read]) == (
            f"{run}: holds {read}, which is read; --overwrite would replace it: choose "
            "another directory"
        )


def test_within_knows_files_by_what_they_are(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert rundir.is_within(tmp_path / "a/b", tmp_path / "a")
    assert rundir.is_within(tmp_path / "a", tmp_path / "a")
    assert rundir.is_within(tmp_path / "a/not/yet", tmp_path / "a/b/..")
    assert not rundir.is_within(tmp_path / "a", tmp_path / "a/b")
    assert not rundir.is_within(tmp_path / "a", tmp_path / "none")
    assert not rundir.is_within(tmp_path / "round", tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    ["checkpoints", "checkpoints/last", "find", "tensorboard", "report.json", ".lock", ".lrtool"],
)
def test_links_are_not_followed_out_of_the_directory(tmp_path, name):
    run, other = make(tmp_path / "run", ["report.json"]), tmp_path / "other"
    put(other, ["mine"], "mine")
    target = other if "." not in name else other / "mine"
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(target)
    words = f"{run / name}: is a link; lrtool writes through none inside of a run directory"
    assert refusal(run).startswith(words)
    for resume in (True, False):
        with (
            pytest.raises(UserError, match=re.escape(words)),
            rundir.opened(run, tmp_path, "train", resume=resume, overwrite=not resume),
        ):
            pass
    assert files(other) == {"mine": "mine"}


def test_a_directory_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    make(tmp_path / "run")
    make(tmp_path / "run", ["report.json"], "new", overwrite=True)
    assert files(tmp_path / "disk") == {"report.json": "new"}
    assert (tmp_path / "run").is_symlink()


def test_a_run_that_fails_leaves_the_one_that_it_was_to_replace(tmp_path):
    run = make(tmp_path / "run")
    with pytest.raises(Killed):
        fail(run, ["report.json", "config.yaml"], "new")
    assert files(run) == dict.fromkeys(TRAIN, "old")
    assert not (run / ".new").exists()


def test_what_an_abandoned_start_has_left_is_forgotten(tmp_path):
    best, found = "checkpoints/best/model.safetensors", "find/report.json"
    mine = "checkpoints/best/notes.txt"
    with rundir.opened(tmp_path / "run", tmp_path, "train") as run:
        put(run, [best, found, mine, "report.json"], "old")
        rundir.forget_weights(run)
        assert set(files(run)) == {found, mine, "report.json"}


@pytest.mark.filterwarnings(KEEPS)
def test_a_successor_with_a_checkpoint_waits_to_be_resumed(tmp_path):
    run = make(tmp_path / "run")
    assert rundir.unfinished(run) == run
    manifest = '{"model.safetensors": {}, "state.pt": {}}'
    with pytest.raises(Killed), pytest.warns(LrtoolWarning) as caught:
        fail(run, ["checkpoints/last/manifest.json"], manifest)
    new = run / ".new"
    assert str(caught[0].message) == (
        f"{run} keeps the run that was there; this one is in {new} until it ends: --resume {run} "
        "goes on with it"
    )
    assert rundir.unfinished(run) == new
    with rundir.opened(run, tmp_path, "train", resume=True) as again:
        assert again == new
        put(again, ["report.json"], "new")
        rundir.finish(again)
    assert files(run) == {"checkpoints/last/manifest.json": manifest, "report.json": "new"}
    # One that is begun anew is not resumed.
    with (
        rundir.opened(run, tmp_path, "train", overwrite=True) as new,
    ):
        put(new, ["checkpoints/last/manifest.json"], manifest)
    with (
        rundir.opened(run, tmp_path, "train", overwrite=True) as new,
    ):
        assert files(new) == {}


def test_others_files_where_a_successor_is_made_stay(tmp_path):
    run = make(tmp_path / "run")
    put(run, [".new/mine"], "mine")
    with (
        pytest.raises(UserError, match=r"\.new: holds files that lrtool did not write; move them"),
        rundir.opened(run, tmp_path, "train", overwrite=True),
    ):
        pass
    assert files(run) == {**dict.fromkeys(TRAIN, "old"), ".new/mine": "mine"}


@pytest.fixture
def kill_at(monkeypatch):
    """Let the process die at the n-th thing that it does to the disk; nothing works afterwards."""

    def kill_at(number):
        calls = count()

        def wrap(owner, name):
            real = getattr(owner, name)

            def counted(*arguments, **options):
                if next(calls) >= number:
                    raise Killed
                return real(*arguments, **options)

            monkeypatch.setattr(owner, name, counted)

        for name in ("replace", "unlink", "rmdir", "mkdir"):
            wrap(Path, name)
        return calls

    return kill_at


NEW = ["checkpoints/last/manifest.json", "report.json", "plot.png", "plot.svg", "find/plot.svg"]


@pytest.mark.filterwarnings(KEEPS)
@pytest.mark.parametrize("again", ["settle", "resume"])
def test_killed_at_any_moment_the_old_run_or_the_new_one_is_whole(
    tmp_path, monkeypatch, kill_at, again
):
    old, new = dict.fromkeys(TRAIN, "old"), dict.fromkeys(NEW, "new")
    seen = []
    for number in range(100):
        monkeypatch.setattr(os, "fsync", lambda _: None)  # the disk is not what is tried
        run = make(tmp_path / f"run{number}")
        put(run, ["mine.txt"], "mine")
        calls = kill_at(number)
        with suppress(Killed):
            make(run, NEW, "new", overwrite=True)
        monkeypatch.undo()
        if next(calls) <= number:
            break
        if again == "settle":
            rundir.settle(run)
        else:
            with rundir.opened(run, tmp_path, "train", resume=True):
                pass
        found = files(run)
        assert found.pop("mine.txt") == "mine"
        whole = {name: text for name, text in found.items() if not name.startswith(".")}
        assert whole in (old, new)
        seen.append(whole == new)
        if number % 5 == 0:
            make(run, NEW, "newer", overwrite=True)
            assert files(run) == {**dict.fromkeys(NEW, "newer"), "mine.txt": "mine"}
    assert seen == sorted(seen)  # first the old one, then the new one
    assert {True, False} == set(seen)


def test_temporary_files_of_a_killed_write_are_removed(tmp_path):
    run = make(tmp_path / "run")
    for name in (
        "report.json",
        "find/report.json",
        "checkpoints/best/model.safetensors",
        "checkpoints/last/state.pt",
        ".lrtool",
    ):
        with whole_path(run / name) as temporary:
            temporary.write_bytes((run / name).read_bytes())
            os.link(temporary, tmp_path / "left")
        (tmp_path / "left").rename(temporary)
    put(run, [".copy.abcd1234/checkpoints/last/state.pt"], "a copy of a run, half made")
    assert len(files(run)) == len(TRAIN) + 6
    mine = [".mine.json.abcd1234.tmp", ".report.json.tmp", ".report.json.abc.tmp", ".copy.of/mine"]
    mine.append(".copy.old_data/mine")
    put(run, mine, "mine")
    with rundir.opened(run, tmp_path, "train", resume=True):
        pass
    assert files(run) == {**dict.fromkeys(TRAIN, "old"), **dict.fromkeys(mine, "mine")}
    put(tmp_path / "other", [".report.json.abcd1234.tmp"], "who knows")
    make(tmp_path / "other", ["report.json"])  # it was no run
    assert ".report.json.abcd1234.tmp" in files(tmp_path / "other")
