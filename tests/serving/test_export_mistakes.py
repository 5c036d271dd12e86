"""Mistakes around an export: each is one line, and leaves nothing half-written."""

import json

import numpy as np
import pytest
import tensorflow as tf
from served_models import FAMILIES, VOCABULARY, write_model

from tf_bert import cli
from tf_bert.errors import InputError, UsageError
from tf_bert.serving.export import export
from tf_bert.serving.exported import load_export, versions
from tf_bert.serving.server.refusal import cause_of


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"precision": "float16"},
            UsageError,
            r"--precision: found 'float16', expected one of float32, bfloat16, int8",
        ),
        ({"pooling": "max"}, UsageError, r"--pooling: found 'max', expected one of mean, cls"),
        ({"version": "x"}, UsageError, r"--version: found 'x', expected a whole number of 1 or more"),
        ({"version": 0}, UsageError, r"--version: found 0, expected a whole number of 1 or more"),
        ({"version": "01"}, UsageError, r"--version: found '01', expected a whole number"),
        ({"version": 3}, UsageError, r"--version: .*/3 is there already; choose a number above 5, or leave the option"),
        (
            {"export_dir": "my model"},
            UsageError,
            r"export_dir: found the name 'my model', by which servers call",
        ),
        ({"onnx": True, "precision": "int8"}, UsageError, r"--onnx: is written in float32, found --precision int8"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_leave_nothing(served, tmp_path, options, error, message):
    for name in ("3", "5"):
        (tmp_path / name).mkdir()
    with pytest.raises(error, match=message) as caught:
        export(served.model("encoder"), tmp_path / options.pop("export_dir", ""), **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "5"] and not list((tmp_path / "3").iterdir())


def edit(path, **changes):
    content = json.loads(path.read_text())
    content["task"].update(changes.pop("task", {}))
    content.update(changes)
    path.write_text(json.dumps(content))


def other_labels(directory):
    edit(directory / "task.json", task={"labels": ["1", "0"]})


def no_labels(directory):
    edit(directory / "task.json", task={"labels": []})


def no_task(directory):
    (directory / "task.json").unlink()


def long_rows(directory):
    edit(directory / "task.json", max_seq_length=500)


def other_family(directory):
    edit(directory / "task.json", task={"family": "images"})


def other_kind(directory):
    edit(directory / "task.json", task={"kind": "ranking"})


def task_of_questions(directory):
    path = directory / "task.json"
    path.write_text(json.dumps({"max_seq_length": 32, "task": FAMILIES["question"].settings()}))


def wrong_span(directory):
    task = FAMILIES["question"].settings()
    task["span"]["doc_stride"] = -1
    (directory / "task.json").write_text(json.dumps({"max_seq_length": 32, "task": task}))


def list_of_tasks(directory):
    (directory / "task.json").write_text("[]")


def no_vocabulary(directory):
    (directory / "vocab.txt").unlink()


def long_vocabulary(directory):
    with open(directory / "vocab.txt", "a", encoding="utf-8") as file:
        file.write("one\nmore\n")


def cut_weights(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_task, r"model: has a classifier, but no task.json, which says what its texts and labels are; finetune it"),
        (other_labels, r"task.json: names the labels 1, 0, but the classifier has 2 outputs: 0, 1; the two belong to"),
        (no_labels, r"task.json: names the labels \(one number\), but the classifier has 2 outputs: 0, 1; the two"),
        (long_rows, r"task.json: is not a task that `tf-bert finetune` has written \(max_seq_length 500 of 48 positi"),
        (other_family, r"task.json: is not a task that `tf-bert finetune` has written \('images'\); restore it"),
        (other_kind, r"task.json: is not a task that `tf-bert finetune` has written \(kind 'ranking'\); restore it"),
        (task_of_questions, r"model: has no span, which task.json needs; restore the directory"),
        (wrong_span, r"task.json: is not a task that `tf-bert finetune` has written \(span: .*doc_stride"),
        (list_of_tasks, r"task.json: is not a task that `tf-bert finetune` has written"),
        (no_vocabulary, r"vocab.txt: cannot be read: No such file or directory; expected a vocabulary"),
        (long_vocabulary, r"vocab.txt: holds \d+ tokens, more than the model's vocab_size \d+; the two belong to dif"),
        (cut_weights, r"model.safetensors: is damaged"),
    ],
)
def test_a_model_directory_that_is_not_whole_is_one_line_and_leaves_nothing(tmp_path, damage, message):
    directory = write_model(tmp_path / "model", "single")
    damage(directory)
    with pytest.raises(InputError, match=message) as caught:
        export(directory, tmp_path / "export")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_places_that_cannot_be_are_one_line(served, tmp_path):
    with pytest.raises(
        InputError, match=r"absent: no such directory; expected a model directory, as `tf-bert finetune"
    ):
        export(tmp_path / "absent", tmp_path / "export")
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"file: is a file, expected the directory of the export's versions; choose an"
    ):
        export(served.model("encoder"), tmp_path / "file")
    with pytest.raises(
        InputError, match=r"file/export/1: cannot be written: Not a directory; free space or choose ano"
    ):
        export(served.model("encoder"), tmp_path / "file" / "export")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("kilobytes", [60, 400])
def test_a_disk_that_is_full_is_one_line_and_leaves_no_version(served, small_disk, kilobytes):
    """Full within the weights, and within the graph."""
    directory = small_disk(kilobytes)
    with pytest.raises(InputError, match=r"export/1: cannot be written: .*; free space or choose another") as caught:
        export(served.model("encoder"), directory / "export")
    assert "\n" not in str(caught.value)
    assert versions(directory / "export") == [] and not list((directory / "export").glob("*partial*"))


def test_an_export_that_is_not_there_or_damaged_is_one_line(served, tmp_path):
    with pytest.raises(InputError, match=r"absent: no such directory; expected a directory that `tf-bert export` has"):
        load_export(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no version of an export; expected a directory that `tf-bert export`"):
        load_export(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\x0a\xff")
    with pytest.raises(InputError, match=r"1: cannot be loaded: .*; export the model again") as caught:
        load_export(tmp_path)
    assert "\n" not in str(caught.value)


def test_questions_that_an_export_does_not_take_are_one_line(served):
    exported = served("pair").loaded
    with pytest.raises(
        UsageError, match=r"signature: found 'answer', expected one of embed, examples, serving_default"
    ):
        exported({"text": ["a"]}, "answer")
    with pytest.raises(UsageError, match=r"serving_default: found the inputs text, expected text, text_pair"):
        exported({"text": ["a"]})


ROWS = {
    "input_ids": np.full((2, 4), 7, "int32"),
    "segment_ids": np.zeros((2, 4), "int32"),
    "input_mask": np.ones((2, 4), "int32"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [[7, 7, -1, 7], [7] * 4]}, f"input_ids: found -1 to 7, expected 0 to {len(VOCABULARY) - 1}"),
        ({"input_ids": [[len(VOCABULARY)] * 4, [0] * 4]}, f"input_ids: found 0 to {len(VOCABULARY)}, expected 0 to "),
        ({"segment_ids": [[0, 1, 2, 0]] * 2}, "segment_ids: found 0 to 2, expected 0 to 1"),
        ({"segment_ids": [[0] * 4]}, "segment_ids: found shape [1 4], expected [2 4] as of input_ids"),
        ({"segment_ids": [[0]] * 2}, "segment_ids: found shape [2 1], expected [2 4] as of input_ids"),
        ({"input_mask": [[1] * 5] * 2}, "input_mask: found shape [2 5], expected [2 4] as of input_ids"),
        ({name: [[1] * 49] for name in ROWS}, "input_ids: found rows of 49 tokens, expected 1 to 48"),
        ({name: np.zeros((2, 0)) for name in ROWS}, "input_ids: found rows of 0 tokens, expected 1 to 48"),
    ],
)
def test_rows_that_the_encoder_cannot_read_are_one_line(served, change, message):
    """Not zeros for ids that no table has, nor one row of segments for all."""
    exported = served("pair").loaded
    assert exported(ROWS, "tokens")["scores"].shape == (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        exported({**ROWS, **change}, "tokens")
    assert f"assertion failed: [{message}" in caught.value.message
    assert cause_of(caught.value).startswith(message)  # as `tf-bert serve` tells it


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("absent", "x"), 1, "tf-bert export: absent: no such directory; expected a model directory"),
        (("absent", "x", "--version", "one"), 2, "tf-bert export: --version: found 'one', expected a whole number"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", *words]) == code
    printed, told = capsys.readouterr()
    assert printed == "" and told.startswith(message) and told.count("\n") == 1
    assert not list(tmp_path.iterdir())
