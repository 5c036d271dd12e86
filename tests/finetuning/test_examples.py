"""Examples out of files in every format that GLUE has, out of the user's own, and out of damaged ones."""

import io
import json
import os
import threading

import pytest
from glue_files import COLUMNS, file_of, rows_of, splits_of, write_glue

from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.examples import Example, find_labels, read_examples, read_stream
from tf_bert.finetuning.tasks import TASKS, custom_task

FILES = [(task, split) for task in COLUMNS for split in splits_of(task)]


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return write_glue(tmp_path_factory.mktemp("glue"))


def word_of(task, label):
    return f"{label:.3f}" if task.kind == "regression" else task.labels[label]


# --- GLUE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split"), FILES)
def test_every_file_of_glue_says_what_was_written(glue, name, split):
    task, rows = TASKS[name], rows_of(name, split)
    examples = list(read_examples(task, glue, split))
    assert [example.texts for example in examples] == [row.texts for row in rows]
    assert [example.index for example in examples] == [str(number) for number in range(len(rows))]
    first = 1 if name == "CoLA" and split != "test" else 2
    file = glue / file_of(name, split)
    assert [example.place for example in examples] == [f"{file}: line {first + n}" for n in range(len(rows))]
    if split.startswith("test"):
        assert all(example.label is None for example in examples)
    else:
        assert [word_of(task, example.label) for example in examples] == [row.label for row in rows]


@pytest.mark.parametrize("path", [".", "MRPC", "MRPC/dev.tsv"])
def test_a_file_its_directory_and_the_directory_of_all_tasks_are_the_same(glue, path):
    assert list(read_examples(TASKS["MRPC"], glue / path, "dev")) == list(read_examples(TASKS["MRPC"], glue, "dev"))


def test_ax_may_lie_under_its_own_name(glue, tmp_path):
    (tmp_path / "AX").mkdir()
    (tmp_path / "AX" / "diagnostic.tsv").write_bytes((glue / file_of("AX", "test")).read_bytes())
    found = list(read_examples(TASKS["AX"], tmp_path, "test"))
    assert [example.texts for example in found] == [row.texts for row in rows_of("AX", "test")]


@pytest.mark.parametrize(
    ("name", "split", "rows", "share"),
    [
        ("CoLA", "train", 8551, 6023 / 8551),
        ("CoLA", "dev", 1043, 721 / 1043),
        ("CoLA", "test", 1063, None),
        ("SST-2", "train", 67349, 37569 / 67349),
        ("SST-2", "dev", 872, 444 / 872),
        ("SST-2", "test", 1821, None),
        ("WNLI", "train", 634, 311 / 634),  # of 635: the row with index 0 is not in this copy
        ("WNLI", "dev", 71, 31 / 71),
        ("WNLI", "test", 146, None),
        ("MRPC", "train", 3668, None),
        ("MRPC", "dev", 408, None),
        ("MRPC", "test", 1725, None),
    ],
)
def test_the_real_files_have_their_published_rows_and_balance(shared_dir, name, split, rows, share):
    examples = list(read_examples(TASKS[name], shared_dir / "glue", split))
    assert len(examples) == rows
    assert rows == TASKS[name].split(split).rows - ((name, split) == ("WNLI", "train"))
    if share is not None:
        assert sum(example.label for example in examples) / rows == pytest.approx(share, abs=1e-12)
    if split == "test":
        assert all(example.label is None for example in examples)


def test_the_real_paraphrase_corpus_has_its_known_balance(shared_dir):
    # The train and dev file here are a split of their own of the corpus's training set: 2,753 of 4,076 pairs are
    # paraphrases (Dolan and Brockett 2005).
    labels = [e.label for split in ("train", "dev") for e in read_examples(TASKS["MRPC"], shared_dir / "glue", split)]
    assert (sum(labels), len(labels)) == (2753, 4076)


# --- the user's own files ------------------------------------------------------------------------------------------


def write(directory, name, content) -> str:
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(directory)


def simple(file="train.tsv", **settings):
    defaults = {"text_columns": ["text"], "label_column": "label", "labels": ["neg", "pos"]}
    files = {"train": file, "dev": file, "test": file}
    return custom_task(files, **defaults | settings)


def read(directory, content, file="train.tsv", split="train", with_labels=None, **settings):
    write(directory, file, content)
    return list(read_examples(simple(file, **settings), directory, split, with_labels))


def texts_and_labels(examples):
    return [(*example.texts, example.label) for example in examples]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train.tsv", "id\ttext\tlabel\n7\tHe said \"no\t\n"),
        ("train.tsv", "label\tid\ttext\r\npos\t7\tHe said \"no\r\n"),
        ("train.tsv", "\ufeffid\ttext\tlabel\n7\tHe said \"no\tpos"),
        ("train.csv", 'id,text,label\n7,"He said ""no",pos\n'),
        ("train.jsonl", '{"label": "pos", "text": "He said \\"no", "id": "7", "more": [1]}\n'),
        ("train.jsonl", '\ufeff{"id": 7, "text": "He said \\"no", "label": "pos"}\r\n'),
    ],
    ids=["label missing", "windows", "mark", "csv", "jsonl", "jsonl mark"],
)  # fmt: skip
def test_one_row_in_every_format(tmp_path, file, content):
    with_labels = "no\t\n" not in content
    (example,) = read(tmp_path, content, file, with_labels=with_labels, index_column="id")
    assert example == Example(
        f"{tmp_path / file}: line {1 if file.endswith('jsonl') else 2}",
        ('He said "no',),
        1 if with_labels else None,
        "7",
    )


def test_a_quoted_csv_field_holds_commas_tabs_and_line_ends(tmp_path):
    content = 'text,label\n"one, two\tthree\nfour","pos"\r\n"\n\nx",neg\nplain,neg\n'
    examples = read(tmp_path, content, "train.csv")
    assert texts_and_labels(examples) == [("one, two\tthree\nfour", 1), ("\n\nx", 0), ("plain", 0)]
    assert [example.place.rpartition(" ")[2] for example in examples] == ["2", "4", "7"]


def test_columns_are_named_where_a_file_has_no_header(tmp_path):
    examples = read(tmp_path, "pos\tx\ta\nneg\ty\tb\n", columns=["label", "note", "text"])
    assert texts_and_labels(examples) == [("a", 1), ("b", 0)]


def test_pairs_of_texts_come_in_the_order_asked_for(tmp_path):
    (example,) = read(tmp_path, "a\tlabel\tb\n1\tpos\t2\n", text_columns=["b", "a"])
    assert example.texts == ("2", "1")


def test_absolute_paths_need_no_directory(tmp_path):
    write(tmp_path, "x.csv", "text,label\nhello,pos\n")
    assert texts_and_labels(read_examples(simple(str(tmp_path / "x.csv")), ".", "train")) == [("hello", 1)]


def test_labels_are_words(tmp_path):
    content = "\n".join(json.dumps({"text": "x", "label": label}) for label in (1, "1", " 1 ", "01", True, "true"))
    examples = read(tmp_path, content, "train.jsonl", labels=["01", "1", "true"])
    assert [example.label for example in examples] == [1, 1, 1, 0, 2, 2]


@pytest.mark.parametrize(
    ("file", "content", "separator"),
    [
        ("train.tsv", "text\tlabel\nx\tb, a\ny\t\nz\tc,c\n", ","),
        ("train.csv", 'text,label\nx,b; a\ny,\nz,"c;c"\n', ";"),
        ("train.tsv", 'text\tlabel\nx\t["b", "a"]\ny\t[]\nz\t["c", "c"]\n', None),
        ("train.csv", 'text,label\nx,"[""b"", ""a""]"\ny,[]\nz,"[""c""]"\n', None),
        (
            "train.jsonl",
            '{"text": "x", "label": ["b", "a"]}\n{"text": "y", "label": []}\n{"text": "z", "label": ["c"]}\n',
            None,
        ),
    ],
)
def test_several_labels_a_row(tmp_path, file, content, separator):
    settings = {"kind": "multilabel", "labels": ["a", "b", "c"], "label_separator": separator}
    examples = read(tmp_path, content, file, **settings)
    assert texts_and_labels(examples) == [("x", (0, 1)), ("y", ()), ("z", (2,))]
    told = []
    task = find_labels(simple(file, **settings | {"labels": None}), tmp_path, told.append)
    assert task.labels == ("a", "b", "c") and task.metrics == ("micro_f1", "exact_match")


def test_numbers_are_read_as_numbers(tmp_path):
    examples = read(tmp_path, "text\tlabel\na\t3.25\nb\t-1e-3\nc\t 4\n", kind="regression", labels=None)
    assert [example.label for example in examples] == [3.25, -0.001, 4.0]
    content = '{"text": "a", "label": 3}\n{"text": "b", "label": "2.5"}\n'
    examples = read(tmp_path, content, "train.jsonl", kind="regression", labels=None)
    assert [example.label for example in examples] == [3.0, 2.5]


def test_a_single_row_is_enough(tmp_path):
    assert texts_and_labels(read(tmp_path, "text\tlabel\na\tpos\n")) == [("a", 1)]


def test_labels_in_test_files_are_not_read_unless_asked_for(tmp_path):
    content = "text\tlabel\na\tpos\nb\twhat is this\n"
    assert texts_and_labels(read(tmp_path, content, split="test")) == [("a", None), ("b", None)]
    assert texts_and_labels(read(tmp_path, "text\tlabel\na\tpos\n", split="test", with_labels=True)) == [("a", 1)]
    with pytest.raises(InputError, match="line 3: found the label 'what is this'"):
        read(tmp_path, content, split="test", with_labels=True)


def test_a_test_file_of_glue_that_has_labels_after_all_is_read_without_them(tmp_path):
    write(tmp_path, "test.tsv", "index\tsentence1\tsentence2\tlabel\n3\ta\tb\tentailment\n")
    (example,) = read_examples(TASKS["RTE"], tmp_path, "test")
    assert (example.texts, example.label, example.index) == (("a", "b"), None, "3")


def test_empty_lines_at_the_end_are_no_rows(tmp_path):
    assert len(read(tmp_path, "text\tlabel\na\tpos\n\n\r\n\n")) == 1
    assert len(read(tmp_path, "text,label\na,pos\n\n\n", "train.csv")) == 1


def test_half_a_surrogate_pair_becomes_a_character(tmp_path):
    (example,) = read(tmp_path, '{"text": "a\\ud800b \\ud83d\\ude00", "label": "pos"}', "train.jsonl")
    assert example.texts == ("a\ufffdb \U0001f600",)


# --- labels that are not named ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "labels", "told"),
    [
        (["pos", "neg", "pos"], ("neg", "pos"), "neg (1), pos (2)"),
        (["10", "9", "1"], ("1", "9", "10"), "1 (1), 9 (1), 10 (1)"),
        (["10", "9", "x"], ("10", "9", "x"), "10 (1), 9 (1), x (1)"),
    ],
)
def test_labels_are_found_sorted_and_told(tmp_path, words, labels, told):
    write(tmp_path, "train.tsv", "text\tlabel\n" + "".join(f"a\t{word}\n" for word in words))
    lines = []
    task = find_labels(simple(labels=None), tmp_path, lines.append)
    assert task.labels == labels and not task.lacks_labels
    assert lines == [f"{tmp_path / 'train.tsv'}: found {len(labels)} labels in column 'label': {told}"]
    assert [task.labels[example.label] for example in read_examples(task, tmp_path, "train")] == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pos"], "found 'pos' in column 'label', expected two labels or more; name the labels"),
        ([str(n) for n in range(1001)], "column 'label' has more than 1,000 different labels; is it the right column"),
    ],
)
def test_too_few_or_too_many_labels_are_one_line(tmp_path, words, message):
    write(tmp_path, "train.tsv", "text\tlabel\n" + "".join(f"a\t{word}\n" for word in words))
    with pytest.raises(InputError, match=message):
        find_labels(simple(labels=None), tmp_path, print)


def test_labels_have_to_be_known_before_they_are_read(tmp_path):
    with pytest.raises(UsageError, match="labels: those of custom are not known; name them, or find them in the tr"):
        read(tmp_path, "text\tlabel\na\tpos\n", labels=None)


# --- pipes -----------------------------------------------------------------------------------------------------------


def test_lines_of_a_pipe_become_examples_one_by_one():
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as pipe:
        task = TASKS["RTE"]
        examples = read_stream(task, stream, "stdin", "tsv", columns=task.text_columns)
        for number in range(3):
            # Were the next line waited for too, this would never come back.
            pipe.write(f"first {number}\tsecond\n".encode())
            place = f"stdin: line {number + 1}"
            assert next(examples) == Example(place, (f"first {number}", "second"), None, str(number))
        threading.Thread(target=pipe.close).start()
        assert next(examples, None) is None


def test_a_pipe_may_have_a_header_or_be_json():
    content = b'{"id": "q1", "question": "who", "sentence": "he"}\n'
    (example,) = read_stream(TASKS["QNLI"], io.BytesIO(content), "stdin", "jsonl")
    assert (example.texts, example.index) == (("who", "he"), "0")
    (example,) = read_stream(TASKS["QNLI"], io.BytesIO(b"sentence\tindex\tquestion\nhe\tq7\twho\n"), "stdin", "tsv")
    assert (example.texts, example.index) == (("who", "he"), "q7")


def test_an_empty_pipe_is_said():
    with pytest.raises(InputError, match=r"^stdin: has no row, expected one at least$"):
        list(read_stream(TASKS["CoLA"], io.BytesIO(b""), "stdin", "tsv", columns=("sentence",)))


# --- bad input -------------------------------------------------------------------------------------------------------

HEAD = "text\tlabel\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": is empty, expected a line with the names of columns and then rows"),
        ("\ufeff", ": is empty, expected a line"),
        ("\n\n", ": is empty, expected a line"),
        (HEAD, ": has no row, expected one at least"),
        ("text\tLabel\na\tpos\n", ": line 1: has no column 'label', found 'text', 'Label'; name the right one"),
        ("text label\na pos\n", ": line 1: has no column 'text', found 'text label'; name the right one"),
        ("text\tlabel\ttext\na\tpos\tb\n", ": line 1: names the column 'text' twice; rename one of them"),
        (HEAD + "a\tpos\nb\n", r": line 3: found 1 field\(s\), expected 2 \(text, label\); mend or remove the line"),
        (
            HEAD + "a\tb\tpos\n",
            r": line 2: found 3 field\(s\), expected 2 \(text, label\); a tab inside a text has to go, or make",
        ),
        (HEAD + '"a\tb"\tpos\n', r": line 2: found 3 field\(s\), expected 2"),
        (HEAD + "a\tpos\n\nb\tneg\n", ": line 3: is empty, expected a row; remove the line"),
        (HEAD + "a\tmaybe\n", ": line 2: found the label 'maybe' in column 'label', expected one of 'neg', 'pos'"),
        (HEAD + "a\t\n", ": line 2: found the label '' in column 'label'"),
        (HEAD + "a\tPos\n", ": line 2: found the label 'Pos' in column 'label'"),
        (HEAD + "\tpos\n", ": line 2: the text in 'text' is empty; write one or remove the row"),
        (HEAD + " \u3000\tpos\n", ": line 2: the text in 'text' is empty"),
        (
            HEAD.encode() + "na\xefve\tpos\n".encode("latin-1"),
            ": line 2: found byte 0xef at column 3, expected UTF-8 text; convert the file, e.g. with iconv -f LATIN1",
        ),
        (HEAD.encode() + b"a\0b\tpos\n", ": line 2: found a zero byte at column 2, expected UTF-8 text; remove it, or"),
        ((HEAD + "a\tpos\n").encode("utf-16"), ": line 1: found a zero byte at column 4, .* iconv -f UTF-16 -t UTF-8"),
        (HEAD + "x" * (17 << 20), ": line 2: found a line of more than 16 MiB, expected text; is it a binary file?"),
    ],
    ids=lambda value: None if len(value) < 1000 else "long",
)  # fmt: skip
def test_a_damaged_tsv_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'train.tsv'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,label\n"a,pos\n', r": line 2: is not valid CSV \(unexpected end of data\); see that quotes are closed"),
        ('text,label\nb,pos\n"a" b,pos\n', r": line 3: is not valid CSV \(',' expected after '\"'\)"),
        ('text,label\n"' + "a,pos\n" * 50_000, r": line 2: is not valid CSV \(field larger than field limit"),
        (
            "text,label\na,b,pos\n",
            r": line 2: found 3 field\(s\), expected 2 \(text, label\); mend or remove the line$",
        ),
        ("text,label\na,pos\n\nb,neg\n", ": line 3: is empty, expected a row; remove the line"),
        ("text,label\na,pos\n\n,neg\n", ": line 3: is empty"),
        ("", ": is empty, expected a line"),
        ("text,tag\na,b\n", ": line 1: has no column 'label', found 'text', 'tag'"),
    ],
    ids=lambda value: None if len(value) < 1000 else "long",
)
def test_a_damaged_csv_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content, "train.csv")
    assert str(caught.value).startswith(f"{tmp_path / 'train.csv'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": has no row, expected one at least"),
        ('{"text": "a"', r": line 1: is not valid JSON \(Expecting ',' delimiter at column 13\); expected one"),
        ('["a", "pos"]', ": line 1: found a JSON list, expected an object with the keys 'text', 'label'"),
        ('{"label": "pos", "body": "a"}', ": line 1: has no key 'text', found 'body', 'label'; name the right one"),
        ('{"text": 5, "label": "pos"}', ": line 1: 'text' is a int, expected a string"),
        ('{"text": null, "label": "pos"}', ": line 1: 'text' is null, expected a string"),
        ('{"text": "a\\u0000", "label": "pos"}', ": line 1: the text in 'text' has a zero character; remove it"),
        ('{"text": "a", "label": null}', ": line 1: 'label' is null, expected a label"),
        ('{"text": "a", "label": ["pos"]}', ": line 1: 'label' is a list, expected a label"),
        ('{"text": "a", "label": "x"}', ": line 1: found the label 'x' in column 'label', expected one of 'neg',"),
        ('{"text": "a", "label": "pos"}\n \n{}', ": line 2: is empty, expected a JSON object; remove the line"),
        ("[" * 100_000, r": line 1: is not valid JSON \(maximum recursion"),
    ],
    ids=lambda value: None if len(value) < 1000 else "long",
)  # fmt: skip
def test_damaged_json_lines_are_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content, "train.jsonl")
    assert str(caught.value).startswith(f"{tmp_path / 'train.jsonl'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "five", "", "1_0", "1e999"])
def test_a_label_that_is_no_finite_number_is_one_line(tmp_path, value):
    with pytest.raises(InputError) as caught:
        read(tmp_path, f"text\tlabel\na\t1\nb\t{value}\n", kind="regression", labels=None)
    place = f"{tmp_path / 'train.tsv'}: line 3"
    assert str(caught.value) == f"{place}: 'label' is {value!r}, expected a finite number; mend or remove the row"


@pytest.mark.parametrize("value", ["NaN", "true", "null", "[1]", '{"a": 1}', "1" + "0" * 400])
def test_a_json_label_that_is_no_finite_number_is_one_line(tmp_path, value):
    with pytest.raises(InputError, match=r"line 1: 'label' is .*, expected a finite number; mend or remove the row"):
        read(tmp_path, f'{{"text": "a", "label": {value}}}', "train.jsonl", kind="regression", labels=None)


@pytest.mark.parametrize("value", ["a, b", '{"a": 1}', '"a"', "[[[", ""])
def test_several_labels_that_are_no_list_are_one_line(tmp_path, value):
    with pytest.raises(InputError, match=r"line 2: found .* in column 'label', expected a JSON list of labels such as"):
        read(tmp_path, f"text\tlabel\nx\t{value}\n", kind="multilabel", labels=["a", "b"])


def test_an_unknown_label_among_several_is_one_line(tmp_path):
    with pytest.raises(InputError, match="line 2: found the label 'd' in column 'label', expected one of 'a', 'b'"):
        read(tmp_path, "text\tlabel\nx\ta,d\n", kind="multilabel", labels=["a", "b"], label_separator=",")


def test_many_known_labels_are_not_all_listed(tmp_path):
    with pytest.raises(InputError, match=r"'l18', 'l19', \.\.\. \(30 in all\); mend the row or the list of labels$"):
        read(tmp_path, "text\tlabel\nx\tq\n", labels=[f"l{n}" for n in range(30)])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: no such file or directory; expected dev.tsv of CoLA, or a directory with it"),
        (".", r": has no dev\.tsv, the dev file of CoLA; found 'MRPC', 'dev\.csv'; name the right directory"),
        ("MRPC", r"MRPC: has no dev\.tsv, the dev file of CoLA; the directory is empty; name the right directory"),
    ],
)
def test_a_missing_file_is_said_with_what_is_there(tmp_path, path, message):
    (tmp_path / "MRPC").mkdir()
    write(tmp_path, "dev.csv", "x")
    with pytest.raises(InputError, match=message):
        list(read_examples(TASKS["CoLA"], tmp_path / path, "dev"))


def test_a_missing_file_in_the_tasks_own_directory_is_said_with_what_is_there(tmp_path):
    (tmp_path / "CoLA").mkdir()
    write(tmp_path / "CoLA", "train.tsv", "x")
    with pytest.raises(InputError, match=r"CoLA: has no dev\.tsv, the dev file of CoLA; found 'train\.tsv'; name"):
        list(read_examples(TASKS["CoLA"], tmp_path, "dev"))


@pytest.mark.parametrize(("name", "found"), [("train.txt", "ends with '.txt'"), ("train", "has no ending")])
def test_an_ending_that_says_nothing_is_said(tmp_path, name, found):
    with pytest.raises(UsageError, match=f"{name}: the name {found}, expected .tsv, .csv or .jsonl; rename the file"):
        read(tmp_path, "text\tlabel\na\tpos\n", name)


def test_a_file_that_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(InputError, match=r"/proc/self/mem: cannot be read: Input/output error"):
        list(read_stream(simple(), open("/proc/self/mem", "rb"), "/proc/self/mem", "tsv"))  # noqa: SIM115
