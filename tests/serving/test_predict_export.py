"""`tf-bert predict --export` answers as it does with the model directory that the export was made of."""

import dataclasses
import io
import json
import shutil
import types

import pytest
from finetuning.squad_files import write_squad
from hostile_texts import HOSTILE
from served_models import FAMILIES, WORDS

from tf_bert import cli
from tf_bert.finetuning.export_predictor import measure_on
from tf_bert.finetuning.model_directory import open_finetuned_model
from tf_bert.finetuning.ner import sentences_of
from tf_bert.finetuning.squad import Answer, Question

pytestmark = pytest.mark.slow

# What a line of a TSV can hold.
TEXTS = [text for text in HOSTILE if text.strip() and not set(text) & set("\t\n\0")]
SPLITS = {"pair": "test_matched", "multilabel": "dev", "question": "dev", "question or none": "dev"}
"""Of the files below; others are test files."""


def write_file(directory, kind):
    """A file with the columns of the kind's task."""
    if kind.startswith("question"):
        return write_squad(directory, "dev", "2.0" if FAMILIES[kind].has_impossible else "1.1", questions=8)
    if kind == "entities":
        # Words that are not those of their text: a sentence that is cut anew has other ones.
        rows = [*((word, "O") for word in ("vienna-born", "don't", "U.S.", "\u200b", "Berg")), ("",), ("Anna", "B-PER")]
        rows += [(f"{word}{'.' * (i % 3)}", "O") for i, word in enumerate(WORDS * 4)]
        path = directory / "test.txt"
        path.write_text("".join(f"{' '.join(row)}\n" for row in rows), encoding="utf-8")
        return path
    task = FAMILIES[kind].task
    columns = [*filter(None, [task.index_column]), *task.text_columns]
    labels = [task.label_column] if SPLITS.get(kind) == "dev" else []
    lines = ["\t".join([*columns, *labels])]
    for number, text in enumerate(TEXTS):
        texts = [text, TEXTS[-number]][: len(task.text_columns)]
        lines.append("\t".join([*([f"{number + 7}"] if task.index_column else []), *texts, *("[]" for _ in labels)]))
    path = directory / "test.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def lines_for(kind):
    """What `predict` reads from a pipe."""
    if kind.startswith("question"):
        lines = [f"who saw it ?\t{text} {' '.join(WORDS)}" for text in TEXTS[:12]]
        return [*lines, json.dumps({"question": "where ?", "context": "the castle\tof \ud83d\ude00 vienna"})]
    if kind == "entities":
        return TEXTS
    return [f"{text}\t{TEXTS[-i]}" for i, text in enumerate(TEXTS)]


def predict(capsys, *words):
    """Exit code, and what went to standard output and to standard error."""
    code = cli.main(["predict", *map(str, words)])
    printed, told = capsys.readouterr()
    return code, printed, told


def assert_same(found, expected):
    """Equal, and numbers to 1e-5."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=0, abs=1e-5)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected) and found == expected


def assert_answers_alike(capsys, served, *words, pipe=None, monkeypatch=None):
    """The answers of the model directory, after those of its export were seen to be the same."""
    answers = []
    for which in ([served.model_dir], ["--export", served.version_dir.parent]):
        if pipe is not None:
            monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(pipe)))
        code, printed, told = predict(capsys, *which, *words)
        assert (code, told) == (0, "")
        answers.append([json.loads(line) for line in printed.removesuffix("\n").split("\n")])
    assert_same(answers[1], answers[0])
    return answers[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_files_are_answered_as_by_the_model_directory(served, kind, tmp_path, capsys):
    file = write_file(tmp_path, kind)
    answers = assert_answers_alike(capsys, served(kind), "--input", file, "--split", SPLITS.get(kind, "test"))
    assert len({str(answer) for answer in answers}) > 1


@pytest.mark.parametrize("kind", ["pair", "question or none", "entities"])
def test_pipes_are_answered_as_by_the_model_directory(served, kind, capsys, monkeypatch):
    lines = lines_for(kind)
    pipe = "".join(f"{line}\n" for line in lines).encode()
    answers = assert_answers_alike(capsys, served(kind), "--batch_size", 5, pipe=pipe, monkeypatch=monkeypatch)
    assert len(answers) == len(lines)


def test_a_version_answers_in_a_tsv(served, tmp_path, capsys):
    file, out = write_file(tmp_path, "single"), tmp_path / "out.tsv"
    words = ["--input", file, "--output"]
    assert predict(capsys, served("single").model_dir, *words, tmp_path / "expected.tsv")[0] == 0
    found = predict(capsys, "--export", served("single").version_dir, *words, out)
    assert found == (0, f"{out}: {len(TEXTS)} predictions\n", "")
    tables = [[line.split("\t") for line in path.read_text().splitlines()] for path in (out, tmp_path / "expected.tsv")]
    assert tables[0][0] == tables[1][0] == ["index", "label", "scores"]
    for row, expected in zip(*(table[1:] for table in tables), strict=True):
        assert row[:2] == expected[:2]
        assert_same(json.loads(row[2]), json.loads(expected[2]))


def test_spans_and_entities_are_measured_by_their_own_metrics(served, tmp_path):
    """As the model directory is evaluated, on files where it is right here and wrong there."""
    questions = [Question(str(i), "who saw it ?", f"{text} the castle") for i, text in enumerate(TEXTS[:4])]
    sentences = sentences_of(["anna berg saw it", "the old castle", "vienna"], strip_accents=False)
    for kind, examples in (("question", questions), ("entities", sentences)):
        predictor = open_finetuned_model(served.model(kind))
        answers = list(predictor.predict(examples))
        if kind == "question":
            found = [Answer(answer["answer"] if i else "nothing", answer["start"]) for i, answer in enumerate(answers)]
            labelled = [dataclasses.replace(q, answers=(a,)) for q, a in zip(examples, found, strict=True)]
        else:
            tags = [tuple(answer["tags"]) if i else ("O",) * 4 for i, answer in enumerate(answers)]
            labelled = [dataclasses.replace(s, tags=t) for s, t in zip(examples, tags, strict=True)]
        expected = predictor.evaluate(labelled).values
        assert 0 < expected["f1"] < (100 if kind == "question" else 1)
        found = measure_on(predictor.family, labelled)(served(kind).loaded)
        assert found == pytest.approx({**expected, "examples": len(examples)})


# --- mistakes ------------------------------------------------------------------------------------------------------


def cut_graph(version_dir):
    path = version_dir / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:5000])


def no_variables(version_dir):
    shutil.rmtree(version_dir / "variables")


def cut_variables(version_dir):
    (path,) = (version_dir / "variables").glob("*.data-*")
    path.write_bytes(path.read_bytes()[:100])


def no_task(version_dir):
    (version_dir / "task.json").unlink()


def damaged_task(version_dir):
    (version_dir / "task.json").write_text('{"max_seq_length": 32, "task": {"family": "images"}}')


def other_task(version_dir):
    (version_dir / "task.json").write_text(
        json.dumps({"max_seq_length": 32, "task": FAMILIES["regression"].settings()})
    )


def no_version(version_dir):
    version_dir.rename(version_dir.with_name("first"))


def no_directory(version_dir):
    shutil.rmtree(version_dir.parent)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_graph, r"1: cannot be loaded: "),
        (no_variables, r"1: cannot be loaded: "),
        (cut_variables, r"1: cannot be loaded: "),
        (
            no_task,
            r"1: has no task.json, so it is not of a finetuned model; export one, or ask this one with `tf-bert s",
        ),
        (damaged_task, r"1/task.json: is not a task that `tf-bert finetune` has written ('images'); restore it"),
        (
            other_task,
            r"1: the signature serving_default takes text and tells label, labels, model_version, scores, but STS-B "
            "takes text, text_pair and tells score; export the model again",
        ),
        (no_version, r": holds no version of an export; expected a directory that `tf-bert export` has written"),
        (no_directory, r": no such directory; expected a directory that `tf-bert export` has written"),
    ],
)
def test_an_export_that_is_not_whole_is_one_line(served, tmp_path, capsys, damage, message):
    shutil.copytree(served("single").version_dir, tmp_path / "export" / "1")
    damage(tmp_path / "export" / "1")
    code, printed, told = predict(capsys, "--export", tmp_path / "export", "--input", write_file(tmp_path, "single"))
    assert (code, printed) == (1, "") and told.startswith("tf-bert predict: ") and told.count("\n") == 1
    assert message in told


@pytest.mark.parametrize("kind", ["pretrained", "encoder"])
def test_an_export_without_a_task_is_one_line(served, capsys, kind):
    version_dir = served(kind).version_dir
    assert predict(capsys, "--export", version_dir.parent) == (
        1,
        "",
        f"tf-bert predict: {version_dir}: has no task.json, so it is not of a finetuned model; export one, or ask this "
        "one with `tf-bert serve`\n",
    )


def test_files_and_options_that_do_not_fit_are_one_line(served, tmp_path, capsys, monkeypatch):
    export_dir, file = served("single").version_dir.parent, tmp_path / "test.tsv"
    file.write_text("index\ttext\n0\tthe castle\n")
    code, printed, told = predict(capsys, "--export", export_dir, "--input", file)
    assert (code, printed) == (1, "")
    assert told == (
        f"tf-bert predict: {file}: line 1: has no column 'sentence', found 'index', 'text'; name the right one\n"
    )
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"one\ttwo\n")))
    code, printed, told = predict(capsys, "--export", export_dir)
    assert (code, printed) == (1, "")
    assert told.startswith("tf-bert predict: standard input: line 1: found 2 field(s), expected 1 (sentence)")
    for words, found in (((), "neither"), ((export_dir, "--export", export_dir), "both")):
        assert predict(capsys, *words) == (
            2,
            "",
            f"tf-bert predict: found {found}, expected a model directory or --export EXPORT_DIR; give one of the two\n",
        )
