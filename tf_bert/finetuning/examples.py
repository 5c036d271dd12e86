"""Examples of a text task: one or two texts and a label, read from files or a pipe and checked.

Examples come as they are read, so files of any size and pipes that go on are possible.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tf_bert.errors import InputError, UsageError
from tf_bert.finetuning.tables import FileFormat, Row, format_of, quoted, read_rows
from tf_bert.finetuning.tasks import Split, Task

Label = int | float | tuple[int, ...] | None
"""A class id; a number for regression; ascending class ids for multilabel; None where no label was read."""

_MAX_LABELS = 1000


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task."""

    place: str
    """File and line, for messages."""
    texts: tuple[str, ...]
    """One text or two."""
    label: Label
    """See `Label`."""
    index: str
    """How the file names the row, or its number, from 0, if it does not."""


def read_examples(task: Task, path: str | Path, split: str, with_labels: bool | None = None) -> Iterator[Example]:
    """Examples of one split, in the order of the file.

    Args:
      task: what to read.
      path: the split's file; or the task's directory, or one that holds it, as GLUE's does.
      split: train, dev, test, ... as `task.splits` has them.
      with_labels: whether labels are read; None: as the split says, which is no for test files.

    Raises:
      UsageError: if the task has no such split, or its labels are not known yet.
      InputError: if the file is missing, cannot be read, lacks a column, or a row of it is not as it must be.
    """
    file, found = find_file(task, path, split), task.split(split)
    labelled = found.has_labels if with_labels is None else with_labels
    read_label = _label_reader(task) if labelled else None
    return _examples(task, _file_rows(file, found, _columns(task, labelled)), str(file), read_label)


def read_stream(
    task: Task,
    stream: IO[bytes],
    name: str,
    file_format: FileFormat,
    columns: tuple[str, ...] = (),
    with_labels: bool = False,
) -> Iterator[Example]:
    """Examples of an open file or a pipe, each as soon as its line is there.

    Args:
      task: what to read.
      stream: a file or pipe of bytes, such as `sys.stdin.buffer`.
      name: what messages call it.
      file_format: tsv, csv or jsonl.
      columns: names of all columns where there is no header; `task.text_columns` for lines of texts alone.
      with_labels: whether labels are read.

    Raises:
      UsageError: if labels are to be read that are not known yet.
      InputError: as `read_examples`.
    """
    read_label = _label_reader(task) if with_labels else None
    rows = read_rows(stream, name, file_format, *_columns(task, with_labels), columns)
    return _examples(task, rows, name, read_label)


def _columns(task: Task, with_labels: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that have to be there, texts first, and those that may be."""
    required = (*task.text_columns, task.label_column) if with_labels else task.text_columns
    return required, (task.index_column,) if task.index_column else ()


def _file_rows(file: Path, split: Split, columns: tuple[tuple[str, ...], tuple[str, ...]]) -> Iterator[Row]:
    try:
        stream = open(file, "rb")  # noqa: SIM115 - the next line closes it
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    with stream:
        yield from read_rows(stream, str(file), format_of(file), *columns, split.columns)


def _examples(
    task: Task, rows: Iterator[Row], name: str, read_label: Callable[[Any, str], Label] | None
) -> Iterator[Example]:
    texts = len(task.text_columns)
    for count, (number, values) in enumerate(rows):
        place = f"{name}: line {number}"
        index = values[-1] if task.index_column else None
        yield Example(
            place,
            tuple(_text(value, column, place) for value, column in zip(values, task.text_columns, strict=False)),
            read_label(values[texts], place) if read_label else None,
            str(count if index is None else index),
        )


def find_file(task: Task, path: str | Path, split: str) -> Path:
    """The file of a split: `path` itself, or below it.

    Raises:
      UsageError: if the task has no such split.
      InputError: if there is no such file.
    """
    path = Path(path)
    wanted = task.split(split).file
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory; expected {wanted} of {task.name}, or a directory with it")
    places = [path, *(path / folder for folder in task.folders)]
    for place in places:
        if (place / wanted).is_file():
            return place / wanted
    searched = [place for place in places if place.is_dir()][-1]
    names = sorted(entry.name for entry in searched.iterdir())
    found = f"found {quoted(names)}" if names else "the directory is empty"
    raise InputError(f"{searched}: has no {wanted}, the {split} file of {task.name}; {found}; name the right directory")


def find_labels(task: Task, path: str | Path, notify: Callable[[str], object], split: str = "train") -> Task:
    """The task with the labels that its training file has, sorted, those of digits by number.

    Args:
      task: a task whose labels were not named.
      path: as for `read_examples`.
      notify: is told which labels were found and how often.
      split: the split to search.

    Raises:
      InputError: as `read_examples`; also if there is one label only, or more than a thousand.
    """
    file, found = find_file(task, path, split), task.split(split)
    counts: Counter[str] = Counter()
    for number, (value,) in _file_rows(file, found, ((task.label_column,), ())):
        counts.update(_words(task, value, f"{file}: line {number}"))
        if len(counts) > _MAX_LABELS:
            raise InputError(
                f"{file}: column {task.label_column!r} has more than {_MAX_LABELS:,} different labels; is it the right "
                "column, and the kind not regression? or name the labels"
            )
    if len(counts) < 2:
        raise InputError(
            f"{file}: found {quoted(list(counts))} in column {task.label_column!r}, expected two labels or more; name "
            "the labels"
        )
    numbers = all(word.isdecimal() for word in counts)
    labels = sorted(counts, key=lambda word: (int(word), word)) if numbers else sorted(counts)
    told = ", ".join(f"{label} ({counts[label]:,})" for label in labels)
    notify(f"{file}: found {len(labels)} labels in column {task.label_column!r}: {told}")
    return task.with_labels(labels)


# --- one value -----------------------------------------------------------------------------------------------------


def _text(value: Any, column: str, place: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else f"a {type(value).__name__}"
        raise InputError(f"{place}: {column!r} is {found}, expected a string")
    if not value.strip():
        raise InputError(f"{place}: the text in {column!r} is empty; write one or remove the row")
    if "\0" in value:
        raise InputError(f"{place}: the text in {column!r} has a zero character; remove it")
    # JSON can spell half of a surrogate pair, which no encoding can write.
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _label_reader(task: Task) -> Callable[[Any, str], Label]:
    """Makes labels of the values of the label column; raises `InputError` naming the place."""
    if task.kind == "regression":
        return lambda value, place: _number(value, task.label_column, place)
    if task.lacks_labels:
        raise UsageError(f"labels: those of {task.name} are not known; name them, or find them in the training file")
    ids = {label: number for number, label in enumerate(task.labels)}

    def known(word: str, place: str) -> int:
        if word not in ids:
            raise InputError(
                f"{place}: found the label {word!r} in column {task.label_column!r}, expected one of "
                f"{quoted(task.labels)}; mend the row or the list of labels"
            )
        return ids[word]

    def one(value: Any, place: str) -> Label:
        return known(_words(task, value, place)[0], place)

    def several(value: Any, place: str) -> Label:
        return tuple(sorted({known(word, place) for word in _words(task, value, place)}))

    return several if task.kind == "multilabel" else one


def _words(task: Task, value: Any, place: str) -> list[str]:
    """The label words in a value of the label column: one, or for multilabel any number."""
    if task.kind != "multilabel":
        return [_word(value, task.label_column, place)]
    if isinstance(value, str) and task.label_separator is not None:
        return [word.strip() for word in value.split(task.label_separator)] if value.strip() else []
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise InputError(
            f"{place}: found {value!r} in column {task.label_column!r}, expected a JSON list of labels such as "
            '["a", "b"]; or name the label_separator'
        )
    return [_word(word, task.label_column, place) for word in value]


def _word(value: Any, column: str, place: str) -> str:
    """A label as a word, as it would stand in a TSV."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    found = "null" if value is None else f"a {type(value).__name__}"
    raise InputError(f"{place}: {column!r} is {found}, expected a label")


def _number(value: Any, column: str, place: str) -> float:
    try:
        if isinstance(value, bool | list | dict | None) or "_" in str(value):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{place}: {column!r} is {value!r}, expected a finite number; mend or remove the row")
    return number
