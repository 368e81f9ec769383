"""The run directory: never over another run, never two processes at once."""

import re

import pytest

from lrtool.errors import UserError
from lrtool.report import run_directory as rundir


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


def test_a_run_that_came_meanwhile_is_not_removed(tmp_path):
    run = tmp_path / "run"
    rundir.check(run, overwrite=False)
    run.mkdir()
    (run / "report.json").write_text("{}")  # another process's, between the look and the lock
    with (
        pytest.raises(UserError, match=r"holds a run already \(report\.json\); choose another"),
        rundir.opened(run, tmp_path, "train"),
    ):
        pass
    assert (run / "report.json").exists()
    with rundir.opened(run, tmp_path, "train", overwrite=True):  # the lock was given back
        assert not (run / "report.json").exists()


def test_overwriting_removes_what_lrtool_left_and_nothing_else(tmp_path):
    own = ["report.json", "metrics.jsonl", "find/report.json", "checkpoints/last/state.pt"]
    own += ["checkpoints/best/model.safetensors", "tensorboard/events.out.tfevents.1.here"]
    others = ["mine.txt", "checkpoints/mine/state.pt", "find/notes.txt", "tensorboard/mine"]
    for name in own + others:
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert rundir.holds_run(tmp_path / "run")
    with rundir.opened(tmp_path / "run", tmp_path, "train", keep=True) as run:
        assert all((run / name).exists() for name in own + others)
    with rundir.opened(tmp_path / "run", tmp_path, "train", overwrite=True) as run:
        assert not any((run / name).exists() for name in own)
        assert all((run / name).exists() for name in others)
    assert not rundir.holds_run(tmp_path / "run")


def test_overwriting_leaves_no_folder_empty(tmp_path):
    own = ["find/report.json", "checkpoints/last/state.pt", "tensorboard/events.out.tfevents.1"]
    for name in own:
        (tmp_path / "run" / name).parent.mkdir(parents=True)
        (tmp_path / "run" / name).write_text("")
    with rundir.opened(tmp_path / "run", tmp_path, "train", overwrite=True) as run:
        assert [path.name for path in run.iterdir()] == [rundir.LOCK]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is a file; give a directory"):
        rundir.check(tmp_path / "file", overwrite=True)
