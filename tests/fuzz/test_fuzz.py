"""A short form of fuzz.py, on the same inputs each time."""

import fuzz
import pytest


@pytest.mark.parametrize(
    ("kind", "count", "refused"), [("data", 60, 30), ("configurations", 60, 30), ("runs", 25, 3)]
)
def test_damaged_inputs_are_refused_in_words_or_harmless(kind, count, refused):
    results = list(fuzz.tried(kind, seed=0, first=0, end=count))
    assert [number for number, _ in results] == list(range(count))
    faults = {number: fault for number, result in results if (fault := fuzz.wrong(result))}
    assert faults == {}
    codes = [result["code"] for _, result in results]
    assert codes.count(0) >= 3
    assert codes.count(2) > refused


def test_what_is_wrong_shows():
    sound = {"code": 2, "said": "lrtool: error: x", "taken": False, "memory": 100}
    assert fuzz.wrong(sound) == ""
    assert fuzz.wrong({**sound, "code": 1}) == "exit code 1: lrtool: error: x"
    assert fuzz.wrong({**sound, "said": ""}) == "exit code 2 without a word"
    assert fuzz.wrong({**sound, "said": "\x1b[31m"}).startswith("it says ")
    assert fuzz.wrong({**sound, "taken": True}) == "it is damaged, but was taken"
    assert fuzz.wrong({**sound, "memory": 9000}) == "it took 9000 MB"
    assert fuzz.wrong({"died": "died with -9"}) == "died with -9"


def test_a_process_that_dies_is_named_and_the_next_goes_on(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "first, end = map(int, sys.argv[-2:])\n"
        "for number in range(first, end):\n"
        "    if number == 1:\n"
        "        os.abort()\n"
        "    print(json.dumps({'number': number}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", f"{worker}")
    results = dict(fuzz.tried("data", seed=0, first=0, end=3))
    assert results[0] == {"number": 0}
    assert results[1]["died"].startswith("died with -6")
    assert results[2] == {"number": 2}
