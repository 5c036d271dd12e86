"""Small files in the exact format of every GLUE task, traps included, that a small model can learn.

The tables below were written down from the public files, not from `tf_bert.finetuning.tasks`, which is tested with
them. The label of a row is told by a word in its text, and STS-B's score by how many words its texts share.
"""

import random
from dataclasses import dataclass
from pathlib import Path

ROWS = {"train": 24, "dev": 12, "test": 8}

_MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
_MNLI_TRAIN = f"{_MNLI} sentence1 sentence2 label1 gold_label"
_MNLI_DEV = f"{_MNLI} sentence1 sentence2 label1 label2 label3 label4 label5 gold_label"
_MNLI_TEST = f"{_MNLI} sentence1 sentence2"
_STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
_PAIR, _PAIR_TEST = "index sentence1 sentence2 label", "index sentence1 sentence2"
_MRPC = "#1_ID #2_ID #1_String #2_String"  # _ stands for a blank
_QQP = "id qid1 qid2 question1 question2 is_duplicate"

# Task -> file -> its columns; `text1`, `text2` and so on below say what is in them.
COLUMNS = {
    "CoLA": {"train": "source label mark sentence", "dev": "source label mark sentence", "test": "index sentence"},
    "SST-2": {"train": "sentence label", "dev": "sentence label", "test": "index sentence"},
    "MRPC": {"train": f"Quality {_MRPC}", "dev": f"Quality {_MRPC}", "test": f"index {_MRPC}"},
    "QQP": {"train": _QQP, "dev": _QQP, "test": "id question1 question2"},
    "STS-B": {"train": f"{_STSB} score", "dev": f"{_STSB} score", "test": _STSB},
    "MNLI": {
        "train": _MNLI_TRAIN,
        "dev_matched": _MNLI_DEV,
        "dev_mismatched": _MNLI_DEV,
        "test_matched": _MNLI_TEST,
        "test_mismatched": _MNLI_TEST,
    },
    "QNLI": {s: "index question sentence" + (" label" if s != "test" else "") for s in ("train", "dev", "test")},
    "RTE": {"train": _PAIR, "dev": _PAIR, "test": _PAIR_TEST},
    "WNLI": {"train": _PAIR, "dev": _PAIR, "test": _PAIR_TEST},
    "AX": {"test": _PAIR_TEST},
}
LABELS = {
    "MNLI": ("contradiction", "entailment", "neutral"),
    "AX": ("contradiction", "entailment", "neutral"),
    "QNLI": ("entailment", "not_entailment"),
    "RTE": ("entailment", "not_entailment"),
}
_FIRST_TEXTS = ("sentence", "#1 String", "question1", "question", "sentence1")
_SECOND_TEXTS = ("#2 String", "question2", "sentence", "sentence2")
_LABEL_COLUMNS = ("label", "Quality", "is_duplicate", "score", "gold_label")
_TELLING = ("bad", "good", "odd")  # of class 0, 1 and 2
_WORDS = (
    "the",
    "a",
    "small",
    "old",
    "green",
    "river",
    "city",
    "cat",
    "judge",
    "paper",
    "walked",
    "saw",
    "near",
    "again",
)
# Inside texts of QNLI and QQP: what other readers take for the end of a line, and quotes that nobody closes.
_STRAY = ("\u0085", "\u2028", "\r", "\x0b", "\x1c", '"', "'")


@dataclass(frozen=True)
class GlueRow:
    """What a row says: one or two texts and the label as the file has it, or would have if it is a test file."""

    texts: tuple[str, ...]
    label: str


def splits_of(task: str) -> list[str]:
    """The names of a task's splits."""
    return list(COLUMNS[task])


def rows_of(task: str, split: str) -> list[GlueRow]:
    """The rows of a file; the same at every call."""
    draw = random.Random(f"{task} {split}")
    return [_row(task, draw, number) for number in range(ROWS[split.split("_")[0]])]


def _row(task: str, draw: random.Random, number: int) -> GlueRow:
    first, second = (draw.choices(_WORDS, k=draw.randint(4, 9)) for _ in range(2))
    if task == "STS-B":
        shared = number % 6
        return GlueRow((" ".join(first), " ".join(first[:shared] + second[shared:])), f"{shared:.3f}")
    labels = LABELS.get(task, ("0", "1"))
    label = number % len(labels)
    told = second if task not in ("CoLA", "SST-2") else first
    told.insert(draw.randrange(len(told)), _TELLING[label])
    if task in ("QNLI", "QQP"):
        first.insert(2, _STRAY[number % len(_STRAY)])
    if task == "MRPC" and number % 3 == 0:
        first[0] = f'"{first[0]}'
    texts = [" ".join(first), " ".join(second)]
    if task == "SST-2":
        texts[0] += " "  # as in the real files
    return GlueRow(tuple(texts[:1] if task in ("CoLA", "SST-2") else texts), labels[label])


def content_of(task: str, split: str) -> bytes:
    """A file as bytes."""
    columns = [column.replace("_ID", " ID").replace("_String", " String") for column in COLUMNS[task][split].split()]
    lines = [] if task == "CoLA" and split != "test" else ["\t".join(columns)]
    for number, row in enumerate(rows_of(task, split)):
        lines.append("\t".join(_field(column, number, row, columns, split) for column in columns))
    mark = "\ufeff" if task == "MRPC" else ""
    return (mark + "\n".join(lines) + "\n").encode()


def _field(column: str, number: int, row: GlueRow, columns: list[str], split: str) -> str:
    if column in ("index", "id"):
        return str(number)
    if column in _LABEL_COLUMNS:
        return row.label
    if column in ("#1 ID", "#2 ID"):
        return str({"train": 1000, "dev": 3000, "test": 5000}[split] + 2 * number + (column == "#2 ID"))
    texts = [name for name in columns if name in (*_FIRST_TEXTS, *_SECOND_TEXTS)]
    if column in texts:
        return row.texts[texts.index(column)]
    return {"mark": "" if row.label == "1" else "*", "year": "2012"}.get(column, f"{column}-{number} ( a \" ' b )")


def file_of(task: str, split: str) -> str:
    """Where a file lies below the directory of all tasks, as the public download script leaves it."""
    return "diagnostic/diagnostic.tsv" if task == "AX" else f"{task}/{split}.tsv"


def write_glue(directory: Path) -> Path:
    """Writes all files of all tasks below `directory`; returns it."""
    for task in COLUMNS:
        for split in splits_of(task):
            path = directory / file_of(task, split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content_of(task, split))
    return directory
