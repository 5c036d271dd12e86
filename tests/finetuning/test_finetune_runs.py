"""`tf-bert finetune`, `evaluate`, `predict` and `fetch glue`: processes that are killed, ranks, and every mistake."""

import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from glue_files import content_of, rows_of, write_glue
from launchers import environment, needs_horovod
from pretraining_runs import assert_close_weights, finish, wait_for, wait_for_line, weights
from safetensors.numpy import load_file
from test_fetch_glue import Server
from tiny_model import write_tiny_model

from tf_bert.cli import main
from tf_bert.config import FetchGlueConfig, FinetuneConfig, describe_fields
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.run_log import read_metrics
from tf_bert.training.checkpoint import CheckpointManager

pytestmark = pytest.mark.slow

SETTINGS = {
    "task": "mrpc",
    "max_seq_length": 48,
    "global_batch_size": 8,
    "microbatch_size": 4,
    "learning_rate": "3e-3",
    "num_train_epochs": 20,
    "log_every": 5,
    "evaluate_every": 10,
    "checkpoint_every": 2,
}
STEPS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with GLUE's files in `glue`, and weights to start from in `init`, with dropout, and in `plain`."""
    directory = tmp_path_factory.mktemp("runs")
    write_glue(directory / "glue")
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    write_tiny_model(directory / "init", num_hidden_layers=1, **dropout)
    write_tiny_model(directory / "plain", num_hidden_layers=1)
    return directory


def command(place, model_dir, *words, **changes) -> list[str]:
    settings = {"data": place / "glue", "init": place / "init", **SETTINGS, "model_dir": model_dir, **changes}
    given = (item for key, value in settings.items() if value is not None for item in (f"--{key}", str(value)))
    return ["finetune", *given, *words]


def start(words, **options):
    """A real process; one pipe for all that it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", "tf_bert.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
        **options,
    )


def assert_same_model(found, expected):
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def finished(place):
    """The directory and the console output of an uninterrupted run, with dropout and microbatches."""
    with contextlib.redirect_stdout(Lines()) as printed:
        assert main(command(place, place / "finished")) == 0
    return place / "finished", printed.text


class Lines:
    """Takes the place of standard output, and keeps what is printed."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def run(capsys, *words):
    """A command in this process: its exit code, and the lines of its two outputs."""
    code = main([str(word) for word in words])
    printed, complaint = capsys.readouterr()
    return code, printed.splitlines(), complaint.splitlines()


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_does_and_leaves_what_is_needed_later(finished, place):
    directory, printed = finished
    lines = printed.splitlines()
    assert lines[:2] == [
        f"{place / 'init'}: {len(weights(directory)) - 2} tensors loaded",
        "  newly made: classifier.weight, classifier.bias",
    ]
    assert re.match(r"step 5/60 \| loss \d\.\d+ \| [\d,]+ examples/s \| rate \d\.\d+e-0\d \| gradient norm ", lines[2])
    assert re.fullmatch(r"dev at step 10: accuracy 0\.\d{4}, f1 [01]\.\d{4}( \(.+\))?", lines[4])
    assert lines[-3] == f"model directory  {directory / 'model'}"
    result = json.loads((directory / "result.json").read_text())
    accuracy, f1 = (result["metrics"]["dev"][name] for name in ("accuracy", "f1"))
    assert lines[-2:] == [f"MRPC dev: accuracy {accuracy:.4f}", f"MRPC dev: f1 {f1:.4f}"]
    assert accuracy > 0.8 and result["seed"] == 12345 and result["settings"]["learning_rate"] == 3e-3
    assert {path.name for path in directory.iterdir()} == {
        "best", "checkpoints", "errors.html", "evaluations.jsonl", "metrics.jsonl", "model", "result.json", "run.json",
        "tensorboard", "tokenizer",
    }  # fmt: skip
    evaluations = read_metrics(directory / "evaluations.jsonl")
    assert [entry["step"] for entry in evaluations] == [10, 20, 30, 40, 50, 60]
    assert evaluations[-1]["metrics"] == result["metrics"]


def test_run_again_it_is_done(finished, place, capsys):
    before = (finished[0] / "model" / "lineage.json").stat().st_mtime_ns
    code, printed, _ = run(capsys, *command(place, finished[0]))
    assert code == 0 and printed[0] == f"seed 12345: is done, see {finished[0]}"
    assert printed[1:] == finished[1].splitlines()[-2:]
    assert (finished[0] / "model" / "lineage.json").stat().st_mtime_ns == before


def test_killed_and_stopped_and_started_again_it_ends_bit_for_bit_the_same(finished, place, capsys):
    """Dropout is on: its random state is a part of the checkpoint."""
    directory = place / "interrupted"
    process = start(command(place, directory))
    wait_for(lambda: any(directory.glob("checkpoints/step-????????")), process)
    time.sleep(random.Random(3).uniform(0.0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = start(command(place, directory, checkpoint_every=1000))
    wait_for_line(process, "step ")
    process.send_signal(signal.SIGTERM)
    printed = process.communicate()[0].splitlines()
    assert process.returncode == 1
    checkpoint, _ = CheckpointManager(directory / "checkpoints", keep=2).latest()
    assert checkpoint.step < STEPS
    assert printed[-1] == (
        f"tf-bert finetune: stopped by SIGTERM after step {checkpoint.step}; its checkpoint is in "
        f"{directory / 'checkpoints'}, and the same command goes on from there"
    )
    assert not (directory / "result.json").exists()

    assert run(capsys, *command(place, directory))[0] == 0
    assert_same_model(directory, finished[0])
    for name in ("evaluations.jsonl", "model/task.json"):
        assert (directory / name).read_bytes() == (finished[0] / name).read_bytes()
    best = [load_file(path / "best" / "model.safetensors") for path in (directory, finished[0])]
    assert all((best[0][name] == best[1][name]).all() for name in best[1])


def test_several_seeds_each_in_a_directory_and_those_that_are_done_are_not_run_again(place, capsys):
    directory, few = place / "seeds", {"num_train_epochs": 10}
    process = start(command(place, directory, "--seeds", "2", **few))
    wait_for(lambda: any(directory.glob("seed-12346/checkpoints/step-????????")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = (directory / "seed-12345" / "result.json").read_bytes()
    code, printed, _ = run(capsys, *command(place, directory, "--seeds", "2", **few))
    assert code == 0 and printed[0] == f"seed 12345: is done, see {directory / 'seed-12345'}"
    assert not any("tensors loaded" in line for line in printed), "the second seed did not go on from its checkpoint"
    assert (directory / "seed-12345" / "result.json").read_bytes() == before
    results = [json.loads((directory / f"seed-{seed}" / "result.json").read_text()) for seed in (12345, 12346)]
    values = sorted(result["metrics"]["dev"]["accuracy"] for result in results)
    assert printed[-2] == (
        f"MRPC dev: accuracy {np.mean(values):.4f} ({values[0]:.4f} to {values[1]:.4f} over 2 seeds)"
    )
    # A seed is what it is alone.
    assert run(capsys, *command(place, place / "alone", seed=12346, **few))[0] == 0
    assert_same_model(directory / "seed-12346", place / "alone")
    first = weights(directory / "seed-12345")
    assert any((first[name] != value).any() for name, value in weights(place / "alone").items())


@needs_horovod
def test_two_ranks_train_the_same_model_as_one(place, capsys):
    settings = {"init": place / "plain", "num_train_epochs": 4, "learning_rate": "1e-3", "microbatch_size": None}
    finish(start(command(place, place / "together", "--ranks", "2", **settings)))
    assert run(capsys, *command(place, place / "one", **settings))[0] == 0
    assert_close_weights(place / "together", place / "one", 1e-6)
    results = [json.loads((place / name / "result.json").read_text())["metrics"] for name in ("together", "one")]
    assert results[0] == results[1]
    # What no rank can use is said once, and each of them ends.
    process = start(command(place, place / "nowhere", "--ranks", "2", **settings | {"max_seq_length": 65}))
    said = [line for line in process.communicate()[0].splitlines() if "tf-bert finetune: " in line]
    assert process.returncode == 2
    assert said == ["tf-bert finetune: max_seq_length 65 is more than the model reads, 64 tokens; lower it"]


# --- evaluate and predict ------------------------------------------------------------------------------------------


def test_evaluate_says_what_the_run_said(finished, place, capsys):
    metrics = json.loads((finished[0] / "result.json").read_text())["metrics"]["dev"]
    told = f"MRPC dev: accuracy {metrics['accuracy']:.4f}, f1 {metrics['f1']:.4f}"
    for model in (finished[0], finished[0] / "model"):
        assert run(capsys, "evaluate", model, "--data", place / "glue") == (0, [told], [])
    file = place / "glue" / "MRPC" / "train.tsv"
    code, printed, _ = run(capsys, "evaluate", model, "--data", place / "glue", "--split", "train", "dev")
    assert code == 0 and [line.partition(":")[0] for line in printed] == ["MRPC train", "MRPC dev"]
    assert run(capsys, "evaluate", model, "--data", file, "--split", "train")[1] == printed[:1]


def test_predictions_of_a_file_are_the_same_in_every_form(finished, place, capsys, tmp_path):
    file = place / "glue" / "MRPC" / "test.tsv"
    examples = open_finetuned_model(finished[0]).family.read(str(file), "test")
    expected = list(open_finetuned_model(finished[0]).predict(examples))
    code, printed, _ = run(capsys, "predict", finished[0], "--input", file)
    assert code == 0 and [json.loads(line) for line in printed] == expected
    code, printed, _ = run(capsys, "predict", finished[0], "--input", file, "--output", tmp_path / "out.tsv")
    assert (code, printed) == (0, [f"{tmp_path / 'out.tsv'}: 8 predictions"])
    lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert lines[0] == ["index", "label", "scores"]
    assert [{"index": i, "label": label, "scores": json.loads(scores)} for i, label, scores in lines[1:]] == expected
    words = ("predict", finished[0], "--input", file, "--output", tmp_path / "out", "--format", "jsonl")
    assert run(capsys, *words)[1] == [f"{tmp_path / 'out'}: 8 predictions"]
    assert [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()] == expected


def test_a_pipe_is_answered_line_by_line(finished, place):
    process = start(["predict", str(finished[0]), "--batch_size", "1"], stdin=subprocess.PIPE)
    rows = rows_of("MRPC", "test")
    examples = open_finetuned_model(finished[0]).family.read(str(place / "glue"), "test")
    expected = list(open_finetuned_model(finished[0]).predict(examples))
    for number, row in enumerate(rows):
        process.stdin.write("\t".join(row.texts) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())  # comes while the pipe is open
        assert (told["index"], told["label"]) == (str(number), expected[number]["label"])
        assert told["scores"]["1"] == pytest.approx(expected[number]["scores"]["1"], abs=1e-5)
    process.stdin.write("no second text\n")
    printed = process.communicate()[0]
    assert process.returncode == 1
    assert printed.startswith(
        "tf-bert predict: standard input: line 9: found 1 field(s), expected 2 (#1 String, #2 Str"
    )
    assert printed.count("\n") == 1


# What a file may have without being wrong: how its bytes are changed.
HARMLESS = {
    "Windows newlines": lambda content: content.replace(b"\n", b"\r\n"),
    "no byte order mark": lambda content: content.removeprefix(b"\xef\xbb\xbf"),
    "labels, which are not read": lambda content: b"".join(
        line + (b"\tQuality\n" if number == 0 else b"\tno label\n") for number, line in enumerate(content.splitlines())
    ),
    "no newline in the end": lambda content: content.rstrip(b"\n"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_no_harm_changes_no_prediction(finished, capsys, tmp_path, what):
    content = content_of("MRPC", "test")
    (tmp_path / "clean.tsv").write_bytes(content)
    changed = HARMLESS[what](content)
    assert changed != content
    (tmp_path / "changed.tsv").write_bytes(changed)
    expected = run(capsys, "predict", finished[0], "--input", tmp_path / "clean.tsv")
    assert run(capsys, "predict", finished[0], "--input", tmp_path / "changed.tsv") == expected
    assert expected[0] == 0 and len(expected[1]) == 8


def test_quotes_are_text_and_a_long_sentence_is_cut(finished, capsys, tmp_path):
    header = b"index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    texts = ['"the river', "river the", "the \u201criver", "cat " * 500, "cat " * 40, "cat " * 5]
    rows = [f"{number}\t1\t2\t{text}\tthe good city\n".encode() for number, text in enumerate(texts)]
    (tmp_path / "test.tsv").write_bytes(header + b"".join(rows))
    code, printed, complaint = run(capsys, "predict", finished[0], "--input", tmp_path / "test.tsv")
    assert (code, complaint) == (0, [])
    scores = [json.loads(line)["scores"]["1"] for line in printed]
    assert len({scores[0], scores[1], scores[2], scores[3], scores[5]}) == 5
    # [CLS] 42 words [SEP] 3 words [SEP] are 48 tokens: more than 42 cats are 42 cats.
    rows[4] = f"4\t1\t2\t{'cat ' * 42}\tthe good city\n".encode()
    (tmp_path / "test.tsv").write_bytes(header + b"".join(rows))
    again = [json.loads(line) for line in run(capsys, "predict", finished[0], "--input", tmp_path / "test.tsv")[1]]
    assert again[3]["scores"] == pytest.approx(again[4]["scores"], abs=1e-6)
    assert again[3]["scores"]["1"] != pytest.approx(scores[4], abs=1e-6)


# --- a task of one's own -------------------------------------------------------------------------------------------


def test_files_of_ones_own_with_a_single_training_row_and_a_test_file(place, capsys, tmp_path):
    (tmp_path / "train.csv").write_text('text,kind\n"a good, old ""river""",yes\n')
    (tmp_path / "dev.csv").write_text("text,kind\nthe bad city,no\nthe good city,yes\n")
    (tmp_path / "new.csv").write_text("name,text\nfirst,the cat\nsecond,the judge\n")
    words = ("--custom.labels", "no", "yes", "--custom.label_column", "kind", "--custom.index_column", "name")
    files = {"train_file": "train.csv", "dev_file": tmp_path / "dev.csv", "test_file": "new.csv"}
    directory = tmp_path / "run"
    settings = {"task": "custom", "data": tmp_path, "num_train_epochs": 1, **files}
    code, printed, _ = run(capsys, *command(place, directory, *words, **settings))
    assert code == 0
    assert printed[0] == "custom: there is a single training example; every update will see it alone"
    told = [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]
    assert [prediction["index"] for prediction in told] == ["first", "second"]
    assert run(capsys, "predict", directory, "--input", tmp_path / "new.csv")[1] == [json.dumps(line) for line in told]
    metrics = json.loads((directory / "result.json").read_text())["metrics"]["dev"]
    assert run(capsys, "evaluate", directory, "--data", tmp_path / "dev.csv")[1][0] == "custom dev: " + ", ".join(
        f"{name} {metrics[name]:.4f}" for name in ("accuracy", "f1", "matthews")
    )


# --- mistakes ------------------------------------------------------------------------------------------------------


def rte(place, tmp_path, split, change):
    """RTE's files with one of them changed."""
    for name in ("train", "dev"):
        content = content_of("RTE", name)
        (tmp_path / f"{name}.tsv").write_bytes(change(content) if name == split else content)
    return {"task": "RTE", "data": tmp_path}


def in_line(number, old, new):
    def change(content):
        lines = content.split(b"\n")
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new, 1)
        return b"\n".join(lines)

    return change


DAMAGED = {
    "missing column": (
        "train",
        in_line(1, b"sentence2", b"hypothesis"),
        "train.tsv: line 1: has no column 'sentence2', found 'index', 'sentence1', 'hypothesis', 'label'; name the",
    ),
    "unknown label": (
        "train",
        in_line(5, b"entailment", b"maybe"),
        "train.tsv: line 5: found the label 'not_maybe' in column 'label', expected one of 'entailment', 'not_entailme",
    ),
    "unknown label in dev": ("dev", in_line(2, b"entailment", b"1"), "dev.tsv: line 2: found the label '1' in column"),
    "empty file": (
        "train",
        lambda content: b"",
        "train.tsv: is empty, expected a line with the names of columns and then rows",
    ),
    "only a header": ("dev", lambda content: content.split(b"\n")[0], "dev.tsv: has no row, expected one at least"),
    "latin-1": (
        "train",
        in_line(3, b"\t", b"\tcaf\xe9 "),
        "train.tsv: line 3: found byte 0xe9 at column 6, expected UTF-8 text; convert the file, e.g. with iconv -f LAT",
    ),
    "a tab in a text": (
        "train",
        in_line(4, b" ", b"\t"),
        "train.tsv: line 4: found 5 field(s), expected 4 (index, sentence1, sentence2, label); a tab inside a text has",
    ),
    "UTF-16": (
        "dev",
        lambda content: content.decode().encode("utf-16"),
        "dev.tsv: line 1: found a zero byte at column",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_one_line_with_its_place(place, capsys, tmp_path, what):
    split, change, message = DAMAGED[what]
    words = command(place, tmp_path / "run", **rte(place, tmp_path, split, change))
    code, printed, complaint = run(capsys, *words)
    assert (code, printed) == (1, [])
    (line,) = complaint
    assert line.startswith(f"tf-bert finetune: {tmp_path}/{message}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"task": "MRCP"}, 2, "task: found 'MRCP'; did you mean 'MRPC'?"),
        ({"task": "AX"}, 2, "task: AX has no training file; finetune MNLI and predict with it"),
        (
            {"task": "custom"},
            2,
            "task custom: name its files with train_file and dev_file, such as --train_file train.csv",
        ),
        (
            {"data": "absent"},
            1,
            "absent: no such file or directory; expected train.tsv of MRPC, or a directory with it",
        ),
        ({"max_seq_length": 65}, 2, "max_seq_length 65 is more than the model reads, 64 tokens; lower it"),
        (
            {"microbatch_size": 3},
            2,
            "global_batch_size 8 is not a multiple of microbatch_size 3 x 1 ranks = 3; the near",
        ),
        (
            {"num_warmup_steps": 61},
            2,
            "num_warmup_steps 61 exceeds the 60 steps of the run; shorten it or train longer",
        ),
        (
            {"init": "absent"},
            1,
            "absent: no such file or directory; expected config.json with model.safetensors, a che",
        ),
        ({"num_train_epoch": 3}, 2, "command line: unknown key 'num_train_epoch'; did you mean 'num_train_epochs'?"),
        (
            {"precision": "float16"},
            2,
            "command line: precision: found 'float16': Input should be 'float32', 'mixed_bfl",
        ),
        ({"ranks": "two"}, 2, "--ranks: expected how many ranks to start on this machine, such as --ranks 2"),
    ],
)
def test_a_wrong_setting_is_one_line_and_an_exit_code(place, capsys, tmp_path, changes, code, message):
    found, _, complaint = run(capsys, *command(place, tmp_path / "run", **changes))
    (line,) = complaint
    assert line.startswith(f"tf-bert finetune: {message}")
    assert found == code and not (tmp_path / "run").exists()


def test_weights_that_can_run_code_are_refused_with_the_way_out(place, capsys, tmp_path):
    shutil.copytree(place / "init", tmp_path / "init")
    (tmp_path / "init" / "model.safetensors").rename(tmp_path / "init" / "pytorch_model.bin")
    code, _, complaint = run(capsys, *command(place, tmp_path / "run", init=tmp_path / "init"))
    assert code == 1 and complaint == [
        f"tf-bert finetune: {tmp_path}/init: holds its weights as pytorch_model.bin, expected model.safetensors: such "
        "files are not opened, for they can run code; save the model with safe_serialization=True in `transformers`"
    ]


def test_weights_without_a_vocabulary_are_refused(place, capsys, tmp_path):
    shutil.copytree(place / "init", tmp_path / "init")
    (tmp_path / "init" / "vocab.txt").unlink()
    code, _, complaint = run(capsys, *command(place, tmp_path / "run", init=tmp_path / "init"))
    assert code == 1 and complaint == [
        f"tf-bert finetune: {tmp_path}/init: has no vocabulary; put the vocab.txt that it was trained with beside it"
    ]


def test_another_run_in_the_directory_is_refused_by_name(finished, place, capsys):
    code, _, complaint = run(capsys, *command(place, finished[0], learning_rate="1e-3"))
    assert code == 2 and complaint == [
        f"tf-bert finetune: {finished[0]}: holds a run with learning_rate 0.003, found 0.001; choose another "
        "model_dir, or remove this one to start over"
    ]


def test_a_model_whose_labels_are_not_its_tasks_is_refused(finished, place, capsys, tmp_path):
    shutil.copytree(finished[0] / "model", tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text()
    changed = config.replace('"1": "1"', '"1": "same"').replace('"0": "0"', '"0": "other"')
    assert changed != config
    (tmp_path / "model" / "config.json").write_text(changed)
    code, _, complaint = run(capsys, "evaluate", tmp_path / "model", "--data", place / "glue")
    assert code == 1 and complaint == [
        f"tf-bert evaluate: {tmp_path / 'model'}: its classifier has the labels other, same, but the task has 0, 1; "
        "choose the model of this task"
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("evaluate", "absent", "--data", "glue"),
            1,
            "absent: no such directory; expected a finetuned model's directory",
        ),
        (
            ("evaluate", "init", "--data", "glue"),
            1,
            "init: has no task.json; expected a finetuned model's directory, as",
        ),
        (
            ("evaluate", "finished", "--data", "absent"),
            1,
            "absent: no such file or directory; expected dev.tsv of MRPC",
        ),
        (
            ("evaluate", "finished", "--data", "glue", "--split", "test"),
            1,
            "glue/MRPC/test.tsv: line 2: no label was read; choose a",
        ),
        (
            ("predict", "finished", "--input", "absent"),
            1,
            "absent: no such file or directory; expected test.tsv of MRPC",
        ),
        (
            ("predict", "finished", "--input", "glue", "--split", "tset"),
            2,
            "split: MRPC has no 'tset'; expected one of tr",
        ),
        (
            ("predict", "finished", "--output", "out.txt"),
            2,
            "--output: found out.txt, expected a name that ends with .jso",
        ),
        (("predict", "finished", "--batch_size", "0"), 2, "--batch_size: found 0, expected 1 or more"),
    ],
)
def test_what_cannot_be_evaluated_or_predicted_is_one_line(finished, place, capsys, monkeypatch, words, code, message):
    monkeypatch.chdir(place)
    found, printed, complaint = run(capsys, *words)
    (line,) = complaint
    assert line.startswith(f"tf-bert {words[0]}: {message}")
    assert (found, printed) == (code, [])


# --- the other commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "cls"), [("finetune", FinetuneConfig), ("fetch glue", FetchGlueConfig)])
def test_help_documents_every_field(capsys, words, cls):
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    for field in describe_fields(cls):
        assert f"--{field.key} ({field.default}) {field.doc}" in printed
    assert ("--ranks N Start N ranks on this machine (1)." in printed) == (words == "finetune")


def test_fetch_glue_leaves_files_to_finetune_on(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    words = ["fetch", "glue", "--tasks", "CoLA", "rte", "--output_dir", str(tmp_path), "--published_checksums", "false"]
    with Server().running() as server:
        code, printed, notes = run(capsys, *words, "--base_url", server.url)
    assert code == 0 and printed == [
        "CoLA: train 24, dev 12, test 8 rows",
        "RTE: train 24, dev 12, test 8 rows",
        f"{tmp_path}: complete",
    ]
    assert len(notes) == 6 and notes[0].startswith(f"{tmp_path}/CoLA/train.tsv: found 24 rows, expected 8,551 as pu")
    assert (tmp_path / "RTE" / "dev.tsv").read_bytes() == content_of("RTE", "dev")
    code, _, complaint = run(capsys, *words, "--tasks", "MRCP")
    assert (code, complaint) == (2, ["tf-bert fetch glue: task: found 'MRCP'; did you mean 'MRPC'?"])
