"""Submissions: the TSVs and the zip of the GLUE site."""

import os
import zipfile

import numpy as np
import pytest
from glue_files import COLUMNS, rows_of, splits_of, write_glue

from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.examples import read_examples
from tf_bert.finetuning.submission import NAMES, write_predictions, write_zip
from tf_bert.finetuning.tasks import TASKS


def lines_of(path):
    content = path.read_bytes()
    assert content.endswith(b"\n") and b"\r" not in content
    return content.decode().split("\n")[:-1]


@pytest.mark.parametrize(
    ("task", "split", "predictions", "name", "words"),
    [
        ("MNLI", "test_matched", [0, 1, 2], "MNLI-m.tsv", ["contradiction", "entailment", "neutral"]),
        ("MNLI", "test_mismatched", [2], "MNLI-mm.tsv", ["neutral"]),
        ("AX", "test", [1, 0], "AX.tsv", ["entailment", "contradiction"]),
        ("QNLI", "test", [1, 0], "QNLI.tsv", ["not_entailment", "entailment"]),
        ("RTE", "test", [0], "RTE.tsv", ["entailment"]),
        ("CoLA", "test", [1, 0], "CoLA.tsv", ["1", "0"]),
        ("SST-2", "test", [0], "SST-2.tsv", ["0"]),
        ("MRPC", "test", [1], "MRPC.tsv", ["1"]),
        ("QQP", "test", [1], "QQP.tsv", ["1"]),
        ("WNLI", "test", [0], "WNLI.tsv", ["0"]),
        ("STS-B", "test", [-0.2, 0.0, 2.34567, 5.0001, 4], "STS-B.tsv", ["0.000", "0.000", "2.346", "5.000", "4.000"]),
    ],
)
def test_a_file_holds_indices_and_label_words(tmp_path, task, split, predictions, name, words):
    indices = [str(number) for number in range(len(words))]
    path = write_predictions(tmp_path / "new", TASKS[task], split, indices, np.array(predictions))
    assert path == tmp_path / "new" / name
    assert lines_of(path) == ["index\tprediction", *(f"{n}\t{word}" for n, word in enumerate(words))]
    assert os.listdir(tmp_path / "new") == [name]


def write_all(directory, glue, without=()):
    for task in COLUMNS:
        for split in splits_of(task):
            name = TASKS[task].split(split).submission
            if name and name not in without:
                examples = list(read_examples(TASKS[task], glue, split))
                right = [
                    float(row.label) if task == "STS-B" else TASKS[task].labels.index(row.label)
                    for row in rows_of(task, split)
                ]
                write_predictions(directory, TASKS[task], split, [example.index for example in examples], right)


def test_the_zip_holds_every_file_and_the_same_bytes_every_time(tmp_path):
    glue = write_glue(tmp_path / "glue")
    contents = []
    for name, time in (("one", 10**9), ("two", 2 * 10**9)):
        write_all(tmp_path / name, glue)
        for path in (tmp_path / name).iterdir():
            os.utime(path, (time, time))
            path.chmod(0o600)
        submission = write_zip(tmp_path / name, tmp_path / f"{name}.zip")
        assert submission.written == NAMES and submission.missing == ()
        assert str(submission) == f"{tmp_path / name}.zip: predictions for {', '.join(NAMES)}"
        contents.append((tmp_path / f"{name}.zip").read_bytes())
    assert contents[0] == contents[1]
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [
            "CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv", "RTE.tsv",
            "QQP.tsv", "WNLI.tsv", "AX.tsv",
        ]  # fmt: skip
        words = [line.split("\t")[1] for line in packed.read("MNLI-mm.tsv").decode().splitlines()]
        assert words == ["prediction", *(row.label for row in rows_of("MNLI", "test_mismatched"))]


def test_what_is_not_there_is_named(tmp_path):
    write_all(tmp_path / "predictions", write_glue(tmp_path / "glue"), without=("AX", "QQP"))
    submission = write_zip(tmp_path / "predictions", tmp_path / "submission.zip")
    assert submission.missing == ("QQP", "AX") and len(submission.written) == 9
    assert str(submission).endswith("RTE, WNLI; the GLUE site also wants QQP, AX")
    with zipfile.ZipFile(tmp_path / "submission.zip") as packed:
        assert packed.namelist() == [f"{name}.tsv" for name in submission.written]


def test_other_files_do_not_get_into_the_zip(tmp_path):
    write_predictions(tmp_path, TASKS["RTE"], "test", ["0"], [1])
    (tmp_path / "notes.tsv").write_text("x")
    write_zip(tmp_path, tmp_path / "submission.zip")
    write_zip(tmp_path, tmp_path / "submission.zip")
    with zipfile.ZipFile(tmp_path / "submission.zip") as packed:
        assert packed.namelist() == ["RTE.tsv"]


def test_a_directory_without_predictions_is_one_line(tmp_path):
    with pytest.raises(InputError) as caught:
        write_zip(tmp_path, tmp_path / "submission.zip")
    assert str(caught.value) == f"{tmp_path}: has no predictions, expected files such as CoLA.tsv; predict first"
    assert os.listdir(tmp_path) == []


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(
        InputError, match=r"STS-B\.tsv: a prediction is not finite, expected numbers; the model has div"
    ):
        write_predictions(tmp_path, TASKS["STS-B"], "test", ["0", "1"], np.array([1.0, np.nan]))
    assert os.listdir(tmp_path) == []


def test_a_split_that_is_no_part_of_a_submission_is_one_line(tmp_path):
    with pytest.raises(
        UsageError, match=r"^split: RTE's dev is no part of a GLUE submission; name a test split of GLUE$"
    ):
        write_predictions(tmp_path, TASKS["RTE"], "dev", ["0"], [1])


def test_rows_and_predictions_have_to_match_and_nothing_is_left_where_they_do_not(tmp_path):
    with pytest.raises(ValueError, match="argument 2 is longer"):
        write_predictions(tmp_path, TASKS["RTE"], "test", ["0"], [1, 0])
    assert os.listdir(tmp_path) == []
