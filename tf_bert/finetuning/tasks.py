"""What a text task is: its files, columns, labels and metrics, as one row of a table.

GLUE's ten tasks are rows of `TASKS`; `custom_task` makes a row for any other TSV, CSV or JSONL files. What reads
files, scores and writes predictions goes by the row alone.

GLUE: Wang et al. 2019, https://arxiv.org/abs/1804.07461. Labels are in the order of the public TSV files, which is not
everywhere that of other libraries; labels of checkpoints are mapped by name.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tf_bert.errors import UsageError

Kind = Literal["classification", "regression", "multilabel"]


@dataclass(frozen=True)
class Split:
    """One file of a task."""

    name: str
    """train, dev, test; MNLI has dev_matched, dev_mismatched, test_matched and test_mismatched."""
    file: str
    """Its path below the task's directory."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a file without a header; empty: its first line names them, or it is JSONL."""
    has_labels: bool = True
    """False: no labels are read from it, though it may have a column of that name."""
    rows: int | None = None
    """How many rows the published file has; None: not known."""
    submission: str | None = None
    """What its predictions are called in a GLUE submission."""


@dataclass(frozen=True)
class Task:
    """A text task. Columns are found by name, so they may lie differently in every split."""

    name: str
    """MRPC, or what the user calls it."""
    kind: Kind
    """classification: one of `labels`; multilabel: any number of them; regression: a number."""
    labels: tuple[str, ...]
    """Label words, class id 0 first; empty for regression, and as long as they are to be found in the data."""
    splits: tuple[Split, ...]
    """The files."""
    text_columns: tuple[str, ...]
    """One column, or two for pairs of texts."""
    label_column: str
    """The column of labels."""
    index_column: str | None
    """The column that names rows in predictions; None, or a file without it: rows are counted from 0."""
    metrics: tuple[str, ...]
    """Names in `metrics.METRICS`; empty as long as the labels are to be found."""
    primary_metric: str
    """The one of `metrics` by which models are chosen."""
    label_separator: str | None = None
    """multilabel: what is between labels in their column; None: the column holds JSON lists."""
    score_range: tuple[float, float] | None = None
    """regression: predictions are clipped to it where they are written."""
    folders: tuple[str, ...] = ()
    """Names of the task's own directory inside one of several tasks; the first is written, all are read."""
    predicted_by: str | None = None
    """The task whose model predicts this one, which has no training file; None: itself."""

    def split(self, name: str) -> Split:
        """A split by name; raises `UsageError` if there is none."""
        for split in self.splits:
            if split.name == name:
                return split
        known = ", ".join(split.name for split in self.splits)
        raise UsageError(f"split: {self.name} has no {name!r}; expected one of {known}")

    @property
    def dev_splits(self) -> tuple[Split, ...]:
        """The splits to evaluate on: one, but two for MNLI."""
        return tuple(split for split in self.splits if split.name.startswith("dev"))

    @property
    def test_splits(self) -> tuple[Split, ...]:
        """The splits to predict for a submission."""
        return tuple(split for split in self.splits if split.name.startswith("test"))

    @property
    def lacks_labels(self) -> bool:
        """Whether the label words are still to be found in the data; see `examples.find_labels`."""
        return self.kind != "regression" and not self.labels

    def with_labels(self, labels: Sequence[str]) -> "Task":
        """The task with these label words, class id 0 first, and the metrics that fit their number.

        Raises:
          UsageError: if there are too few labels or one comes twice.
        """
        labels = tuple(labels)
        least = 2 if self.kind == "classification" else 1
        if len(labels) < least:
            raise UsageError(f"labels: found {len(labels)}, {list(labels)}, expected at least {least}; name them all")
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise UsageError(f"labels: {twice[0]!r} comes twice; name each label once")
        return _with_metrics(dataclasses.replace(self, labels=labels))


def _with_metrics(task: Task) -> Task:
    """The task with the metrics of its kind, unless it has its own, and the primary one checked."""
    metrics = task.metrics or _metrics_of(task.kind, len(task.labels))
    if task.primary_metric and task.primary_metric not in metrics:
        what = f"{task.kind} with {len(task.labels)} labels" if task.labels else task.kind
        raise UsageError(
            f"primary_metric: found {task.primary_metric!r}; {what} has {', '.join(metrics)}; choose one of them"
        )
    return dataclasses.replace(task, metrics=metrics, primary_metric=task.primary_metric or metrics[0])


def _metrics_of(kind: Kind, number_of_labels: int) -> tuple[str, ...]:
    """The metrics of a task that names none; the first is the primary one."""
    if kind == "regression":
        return ("pearson", "spearman", "mse")
    if kind == "multilabel":
        return ("micro_f1", "exact_match")
    return ("accuracy", "f1" if number_of_labels == 2 else "macro_f1", "matthews")


# --- GLUE ----------------------------------------------------------------------------------------------------------

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("contradiction", "entailment", "neutral")
_COLA_COLUMNS = ("source", "label", "mark", "sentence")  # its train and dev files have no header


def _splits(
    train: int, dev: int, test: int, submission: str, train_columns: tuple[str, ...] = ()
) -> tuple[Split, Split, Split]:
    return (
        Split("train", "train.tsv", train_columns, rows=train),
        Split("dev", "dev.tsv", train_columns, rows=dev),
        Split("test", "test.tsv", has_labels=False, rows=test, submission=submission),
    )


def _glue(
    name: str,
    labels: tuple[str, ...],
    splits: tuple[Split, ...],
    text_columns: tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    primary_metric: str = "accuracy",
    *,
    kind: Kind = "classification",
    label_column: str = "label",
    index_column: str = "index",
    score_range: tuple[float, float] | None = None,
    folders: tuple[str, ...] = (),
    predicted_by: str | None = None,
) -> Task:
    return Task(
        name=name,
        kind=kind,
        labels=labels,
        splits=splits,
        text_columns=text_columns,
        label_column=label_column,
        index_column=index_column,
        metrics=metrics,
        primary_metric=primary_metric,
        score_range=score_range,
        folders=folders or (name,),
        predicted_by=predicted_by,
    )


_PAIR = ("sentence1", "sentence2")

# Row counts: the published files, as tensorflow-datasets and Hugging Face's datasets count them too. The primary
# metrics of MRPC, QQP and STS-B are those that the BERT paper reports (table 1).
TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _glue(
            "CoLA",
            _BINARY,
            _splits(8551, 1043, 1063, "CoLA", _COLA_COLUMNS),
            ("sentence",),
            ("matthews", "accuracy"),
            "matthews",
        ),
        _glue("SST-2", _BINARY, _splits(67349, 872, 1821, "SST-2"), ("sentence",)),
        _glue(
            "MRPC",
            _BINARY,
            _splits(3668, 408, 1725, "MRPC"),
            ("#1 String", "#2 String"),
            ("accuracy", "f1"),
            "f1",
            label_column="Quality",
        ),
        _glue(
            "QQP",
            _BINARY,
            _splits(363846, 40430, 390965, "QQP"),
            ("question1", "question2"),
            ("accuracy", "f1"),
            "f1",
            label_column="is_duplicate",
            index_column="id",
        ),
        _glue(
            "STS-B",
            (),
            _splits(5749, 1500, 1379, "STS-B"),
            _PAIR,
            ("pearson", "spearman", "mse"),
            "spearman",
            label_column="score",
            kind="regression",
            score_range=(0.0, 5.0),
        ),
        _glue(
            "MNLI",
            _NLI,
            (
                Split("train", "train.tsv", rows=392702),
                Split("dev_matched", "dev_matched.tsv", rows=9815),
                Split("dev_mismatched", "dev_mismatched.tsv", rows=9832),
                Split("test_matched", "test_matched.tsv", has_labels=False, rows=9796, submission="MNLI-m"),
                Split("test_mismatched", "test_mismatched.tsv", has_labels=False, rows=9847, submission="MNLI-mm"),
            ),
            _PAIR,
            label_column="gold_label",
        ),
        _glue("QNLI", _ENTAILMENT, _splits(104743, 5463, 5463, "QNLI"), ("question", "sentence")),
        _glue("RTE", _ENTAILMENT, _splits(2490, 277, 3000, "RTE"), _PAIR),
        _glue("WNLI", _BINARY, _splits(635, 71, 146, "WNLI"), _PAIR),
        _glue(
            "AX",
            _NLI,
            (Split("test", "diagnostic.tsv", has_labels=False, rows=1104, submission="AX"),),
            _PAIR,
            ("matthews", "accuracy"),
            "matthews",
            folders=("diagnostic", "AX"),
            predicted_by="MNLI",
        ),
    )
}


def find_task(name: str) -> Task:
    """A GLUE task by name, whatever the case.

    Raises:
      UsageError: if there is none; the nearest name is suggested.
    """
    known = {task.casefold(): task for task in TASKS}
    if name.casefold() in known:
        return TASKS[known[name.casefold()]]
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
    advice = f"did you mean '{known[near[0]]}'?" if near else f"expected one of {', '.join(TASKS)}"
    raise UsageError(f"task: found {name!r}; {advice}")


# --- any other files -----------------------------------------------------------------------------------------------


def custom_task(
    files: Mapping[str, str],
    text_columns: Sequence[str],
    label_column: str,
    kind: Kind = "classification",
    labels: Sequence[str] | None = None,
    *,
    name: str = "custom",
    columns: Sequence[str] = (),
    index_column: str | None = None,
    label_separator: str | None = None,
    score_range: tuple[float, float] | None = None,
    primary_metric: str = "",
) -> Task:
    """A task whose files and columns are named by the user.

    Args:
      files: split -> path, absolute or below the directory that is read: {"train": "train.csv", "dev": "dev.csv"}.
        Names of splits are those of GLUE; labels of a test split are not read. The ending says how a file is read:
        .tsv (quotes are text), .csv (quotes as in spreadsheets), .jsonl.
      text_columns: one column, or two for pairs of texts; for JSONL, keys.
      label_column: the column of labels.
      kind: see `Task`.
      labels: label words in the order of class ids; None: `examples.find_labels` takes them from the training file.
      name: what the task is called in messages and tables.
      columns: names of all columns, where the files have no header.
      index_column: see `Task`.
      label_separator: see `Task`.
      score_range: see `Task`.
      primary_metric: one of the metrics that fit the kind; empty: the first of them.

    Raises:
      UsageError: if the settings contradict each other.
    """
    if len(text_columns) not in (1, 2) or len({*text_columns, label_column}) != len(text_columns) + 1:
        raise UsageError(
            f"text_columns: found {list(text_columns)} beside the label column {label_column!r}; expected one or two "
            "others"
        )
    missing = [column for column in (*text_columns, label_column) if columns and column not in columns]
    if missing:
        raise UsageError(f"columns: found {list(columns)}, without {missing[0]!r}; name all columns of the files")
    if label_separator is not None and (kind != "multilabel" or label_separator in ("", "\t", "\n")):
        raise UsageError(
            f"label_separator: found {label_separator!r} with kind {kind}; expected a character such as ',' and "
            "kind multilabel"
        )
    if kind == "regression" and labels:
        raise UsageError(f"labels: found {list(labels)} with kind regression; leave them out, or choose another kind")
    if score_range and (kind != "regression" or not score_range[0] < score_range[1]):
        raise UsageError(f"score_range: found {score_range} with kind {kind}; expected low < high and kind regression")
    splits = tuple(
        Split(split, file, tuple(columns), has_labels=not split.startswith("test")) for split, file in files.items()
    )
    task = Task(
        name, kind, (), splits, tuple(text_columns), label_column, index_column, (), primary_metric,
        label_separator=label_separator, score_range=score_range,
    )  # fmt: skip
    if kind == "regression":
        return _with_metrics(task)
    return task if labels is None else task.with_labels(labels)
