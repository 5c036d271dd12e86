"""Files and directories appear whole or not at all."""

import json
import os

import pytest

from tf_bert.errors import InputError
from tf_bert.files import atomic_directory, atomic_writer, read_json, sha256_of, write_json


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_writer(path) as file:
        file.write(b"new, but")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_nothing_has_the_final_name_while_it_is_written(tmp_path):
    with atomic_writer(tmp_path / "a.txt") as file:
        file.write(b"content")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_bytes() == b"content"


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "stale").write_text("x")
    with pytest.raises(ZeroDivisionError), atomic_directory(path) as partial:
        (partial / "weights").write_text("new, but")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["model"] and os.listdir(path) == ["stale"]
    with atomic_directory(path) as partial:
        (partial / "weights").write_text("new")
    assert os.listdir(tmp_path) == ["model"] and os.listdir(path) == ["weights"]


def test_leftovers_of_a_killed_process_are_written_over(tmp_path):
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "half").write_text("x")
    with atomic_directory(tmp_path / "model") as partial:
        (partial / "weights").write_text("new")
    assert os.listdir(tmp_path / "model") == ["weights"]


def test_json_comes_back_and_damage_is_one_line(tmp_path):
    write_json(tmp_path / "a.json", {"naïve": [1, None]})
    assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == {"naïve": [1, None]}
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"a.json: is not valid JSON .*; restore the file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b.json: cannot be read: No such file"):
        read_json(tmp_path / "b.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        InputError, match=r"file/a.json: cannot be written: Not a directory; free space or choose another"
    ):
        write_json(tmp_path / "file" / "a.json", {})


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
