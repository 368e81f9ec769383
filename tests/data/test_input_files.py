import os

import pytest

from lrtool.data import input_files
from lrtool.data.input_files import find_file, opened, read_text, reading
from lrtool.errors import DataError, OutOfMemoryError


def refused(work):
    with pytest.raises(DataError) as caught:
        work()
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        (
            "data\train.csv",
            "in double quotes, YAML reads \\t as a tab and \\n as a new line",
        ),
        ("data\new.csv", "in double quotes, YAML reads \\t as a tab and \\n as a new line"),
        ("data\\train.csv", "write the path with / in place of \\"),
        ("data/train.csv", "(looked in {folder})"),
    ],
)
def test_a_path_with_backslashes_is_explained(path, advice, tmp_path):
    said = refused(lambda: find_file(path, [tmp_path]))
    assert said.startswith(f"{path}: no such file (looked in {tmp_path})")
    assert advice.replace("{folder}", f"{tmp_path}") in said


def test_a_home_that_nobody_has_is_a_folder_of_that_name(tmp_path):
    said = refused(lambda: find_file("~nosuchuser/x.csv", [tmp_path]))
    assert said.startswith("~nosuchuser/x.csv: no such file")


def test_whatever_a_reader_raises_names_the_file():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    for error, said in (
        (RecursionError("too deep"), "too deep"),
        (TypeError(), "TypeError"),
        (OSError(22, "Invalid argument"), "[Errno 22] Invalid argument"),
        (SilentError(), "its __str__ raised RuntimeError"),
    ):
        with pytest.raises(DataError) as caught, reading("a.npz:"):
            raise error
        assert str(caught.value) == f"a.npz: cannot be read; is the file broken? {said}"
    with pytest.raises(OutOfMemoryError, match=r"^a\.npz: does not fit into memory$"):  # noqa: SIM117
        with reading("a.npz:"):
            raise MemoryError


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(0)
    said = refused(lambda: opened(path).__enter__())
    assert said == f"{path}: cannot be read: Permission denied"


def test_a_file_of_zero_bytes_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_PIECE", 100)
    path = tmp_path / "sparse.txt"
    path.write_text("a\nb\n")
    with path.open("r+b") as file:
        file.truncate(2**40)  # a terabyte, of which the disk holds nothing
    said = refused(lambda: read_text(path))
    assert said == f"{path}: line 3: a zero byte; this is not a text file"


def test_text_is_read_whole_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_PIECE", 3)
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffnaïve\n日本\n".encode())
    assert read_text(path) == "naïve\n日本\n"
