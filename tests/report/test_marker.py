"""What proves a directory a run, and which files are its own."""

import json

import pytest

from lrtool.report import marker
from lrtool.report import report as reports


def mark(directory, text):
    (directory / ".lrtool").write_text(text)


def test_a_run_is_marked_from_its_start_to_its_end(tmp_path):
    assert marker.command_of(tmp_path) is None
    marker.begin(tmp_path, "find")
    assert marker.command_of(tmp_path) == "find"
    assert marker.is_under_way(tmp_path)
    (tmp_path / "report.json").write_text("")
    (tmp_path / "config.yaml").write_text("123456789")
    (tmp_path / "mine.txt").write_text("")
    marker.end(tmp_path)
    assert json.loads((tmp_path / ".lrtool").read_text()) == {
        "version": 1,
        "command": "find",
        "files": {"report.json": 0, "config.yaml": 0xCBF43926},  # the check value of CRC-32
    }
    assert not marker.is_under_way(tmp_path)
    assert marker.own_files(tmp_path) == ["report.json", "config.yaml"]
    (tmp_path / "metrics.jsonl").write_text("")  # it came later
    assert marker.own_files(tmp_path) == ["report.json", "config.yaml"]
    (tmp_path / "config.yaml").write_text("123456780")
    (tmp_path / "report.json").write_text("{}")
    assert marker.own_files(tmp_path) == ["report.json"]  # who else would write one
    assert marker.changed(tmp_path) == ["config.yaml", "report.json"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "\0", "3", "[" * 100_000, '{"version": 2, "command": "train"}'),
        *('{"version": 1, "command": "rm"}', '{"version": 1, "command": "find", "files": 3}'),
        '{"version": 1, "command": "find", "files": {"a": "b"}}',
    ],
)
def test_another_file_of_that_name_proves_nothing(tmp_path, text):
    mark(tmp_path, text)
    (tmp_path / "plot.png").write_text("mine")
    assert marker.read(tmp_path) is None
    assert marker.own_files(tmp_path) == []
    mark(tmp_path, '{"version": 1, "command": "find", "files": {"plot.png": null}}')
    assert marker.own_files(tmp_path) == ["plot.png"]


def test_a_list_names_nothing_outside_the_directory(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (run / "notes.txt").write_text("mine")
    names = dict.fromkeys(["../mine.txt", str(tmp_path / "mine.txt"), "notes.txt", ""])
    mark(run, json.dumps({"version": 1, "command": "train", "files": names}))
    assert marker.own_files(run) == []


def test_links_and_what_lies_behind_them_are_not_its_own(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (other / "last").mkdir(parents=True)
    (other / "last/state.pt").write_text("mine")
    marker.begin(run, "train")
    (run / "checkpoints").symlink_to(other)
    (run / "report.json").symlink_to(other / "last/state.pt")
    assert marker.own_files(run) == []
    (run / ".lrtool").rename(other / "marker")
    (run / ".lrtool").symlink_to(other / "marker")
    assert marker.command_of(run) is None


def test_a_run_of_an_older_version_is_proven_by_its_content(tmp_path, make):
    for name in ("found", "killed", "other", "saved"):
        (tmp_path / name).mkdir()
    reports.write(make(), tmp_path / "found")
    (tmp_path / "found/plot.png").write_text("")
    assert marker.command_of(tmp_path / "found") == "find"
    assert not marker.is_under_way(tmp_path / "found")
    assert marker.own_files(tmp_path / "found") == ["report.json", "plot.png"]

    (tmp_path / "killed/metrics.jsonl").write_text('{"kind": "step", "step": 1}\n')
    assert marker.command_of(tmp_path / "killed") == "train"
    assert marker.is_under_way(tmp_path / "killed")

    manifest = tmp_path / "saved/checkpoints/last/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"model.safetensors": {}, "state.pt": {}}')
    assert marker.command_of(tmp_path / "saved") == "train"

    for name, text in {
        "report.json": '{"command": "find"}',
        "metrics.jsonl": '{"kind": "mine"}',
        "config.yaml": "a: 1",
        "plot.png": "",
    }.items():
        (tmp_path / "other" / name).write_text(text)
    assert marker.command_of(tmp_path / "other") is None
    assert marker.own_files(tmp_path / "other") == []


@pytest.mark.parametrize(
    ("names", "holds"),
    [
        (["model.safetensors", "state.pt"], True),
        (["shard-00001-model-00001-of-00001.safetensors", "state.pt"], True),
        (["model.safetensors"], False),
        (["state.pt"], False),
        ([], False),
    ],
)
def test_a_checkpoint_has_a_state_and_weights_whole_or_in_shards(tmp_path, names, holds):
    manifest = tmp_path / "checkpoints/last/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(dict.fromkeys(names)))
    assert marker.has_checkpoint(tmp_path) is holds
    for text in ("[]", "3", '"model.safetensors state.pt"', "{"):
        manifest.write_text(text)
        assert not marker.has_checkpoint(tmp_path)
