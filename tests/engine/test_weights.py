"""Files of weights: the sum that each holds of itself, and what damage does to them."""

import json
import re
import zlib

import pytest
import safetensors.torch
import torch
from torch import nn

from lrtool.engine.weights import (
    check_sum,
    load_average,
    load_weights,
    read_notes,
    read_weights,
    write_weights,
)
from lrtool.errors import UserError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    weight = torch.arange(6.0).reshape(2, 3)
    write_weights({"a": weight, "b": weight}, path, {"epoch": 1, "accuracy": 0.5})
    return path


def test_the_sum_is_that_of_the_file_with_zeros_in_its_place(path):
    content = path.read_bytes()
    at = content.index(b'crc32\\": \\"') + len(b'crc32\\": \\"')
    stored = content[at : at + 8]
    without = content[:at] + b"00000000" + content[at + 8 :]
    assert stored.decode() == f"{zlib.crc32(without):08x}"
    assert read_notes(path)["crc32"] == stored.decode()


def test_any_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    name = re.search(b"crc32", content).span()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        if at in range(*name):  # without its name there is no sum; the numbers are right
            assert torch.equal(read_weights(path)["a"], torch.arange(6.0).reshape(2, 3))
            continue
        with pytest.raises(UserError, match=re.escape(f"{path}: damaged")):
            read_weights(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for read in (read_weights, check_sum):
        with pytest.raises(UserError, match=r"damaged: its CRC-32 is .{8}, not .{8} as it"):
            read(path)


def test_a_file_that_is_cut_off_or_longer_is_refused(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=re.escape(f"{path}: damaged")):
            read_weights(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(UserError, match=re.escape(f"{path}: damaged")):
        read_weights(path)


def test_weights_without_a_sum_are_read(tmp_path):
    path = tmp_path / "older.safetensors"
    notes = {"lrtool": json.dumps({"epoch": 3, "shared": {"b": "a"}})}
    safetensors.torch.save_file({"a": torch.ones(2)}, path, notes)
    assert read_weights(path).keys() == {"a", "b"}
    check_sum(path)


def header(path, text):
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))


HUGE = 2**63
STRANGE = [
    b"{}",  # eight bytes that belong to nothing
    b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800000000000]}}',
    b'{"a": {"dtype": "F32", "shape": [%d, %d], "data_offsets": [0, 8]}}' % (HUGE, HUGE),
    b'{"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}',
    b'{"a": 3}',
    b"[]",
    b"[" * 50_000,
    b"\xff\xfe",
]
A_TENSOR = '"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
NOTES = [
    "not json",
    "[]",
    "{}",
    '{"shared": 3}',
    '{"shared": {"b": "nowhere"}}',
    '{"shared": {"b": []}}',
    '{"shared": {}, "epoch": "three"}',
    '{"shared": {}, "step": true}',
    '{"shared": ' + "[" * 100_000,
]


@pytest.mark.parametrize("text", STRANGE)
def test_a_header_that_lies_is_an_error_with_the_files_name(tmp_path, text):
    path = tmp_path / "strange.safetensors"
    header(path, text)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: damaged, or not a safetensors file: ")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", NOTES)
def test_notes_of_others_are_an_error_with_the_files_name(tmp_path, text):
    path = tmp_path / "strange.safetensors"
    header(path, f'{{"__metadata__": {{"lrtool": {json.dumps(text)}}}, {A_TENSOR}}}'.encode())
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: damaged, or not a safetensors file: ")


def test_metadata_of_others_are_no_notes(tmp_path):
    path = tmp_path / "theirs.safetensors"
    header(path, f'{{"__metadata__": {{"format": "pt"}}, {A_TENSOR}}}'.encode())
    assert read_weights(path).keys() == {"a"}
    assert read_notes(path) == {"shared": {}}


class Sealed(nn.Module):
    def set_extra_state(self, state):
        raise LookupError(f"no {state}")


def test_what_a_model_raises_while_it_is_loaded_names_the_source(path):
    with pytest.raises(UserError, match="here: does not fit this model: no seal"):
        load_weights(Sealed(), {"_extra_state": "seal"}, "here")
    with pytest.raises(UserError, match="here: damaged, or not an average of this model: The size"):
        load_average(nn.Linear(2, 1, bias=False), {"weight": torch.ones(3, 3)}, "here")
    assert path.exists()
