"""Predictions as the GLUE site takes them: one TSV for every test file, all in one zip.

The files hold a header `index<TAB>prediction` and label words; STS-B's numbers are clipped to its range. The same
predictions make the same bytes.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_writer, reporting_disk_errors
from tf_bert.finetuning.tasks import Task

NAMES = ("CoLA", "SST-2", "MRPC", "STS-B", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "QQP", "WNLI", "AX")
"""What a whole submission holds, each as NAME.tsv."""


@dataclass(frozen=True)
class Submission:
    """A zip and what is in it: of `NAMES`, those `written` and those `missing`; the site wants all."""

    path: Path
    written: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        lacking = f"; the GLUE site also wants {', '.join(self.missing)}" if self.missing else ""
        return f"{self.path}: predictions for {', '.join(self.written)}{lacking}"


def write_predictions(
    directory: Path, task: Task, split: str, indices: Sequence[str], predictions: np.ndarray | Sequence[float]
) -> Path:
    """Writes one file of a submission, named as the split says; returns its path.

    Args:
      directory: is made if need be.
      task: a task of GLUE.
      split: one of its test splits.
      indices: the rows' names, as `Example.index` has them, in the order of the file.
      predictions: class ids, or for regression numbers, one a row.

    Raises:
      UsageError: if the split is no part of a submission.
      InputError: if a prediction is not finite, or the operating system refuses to write.
    """
    if (name := task.split(split).submission) is None:
        raise UsageError(f"split: {task.name}'s {split} is no part of a GLUE submission; name a test split of GLUE")
    with reporting_disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.tsv"
    rows = zip(indices, _words(task, np.asarray(predictions), path), strict=True)
    with atomic_writer(path) as file:
        file.write(b"index\tprediction\n")
        file.writelines(f"{index}\t{word}\n".encode() for index, word in rows)
    return path


def _words(task: Task, predictions: np.ndarray, path: Path) -> list[str]:
    if task.kind == "classification":
        return [task.labels[number] for number in predictions]
    if not np.all(np.isfinite(predictions)):
        raise InputError(f"{path}: a prediction is not finite, expected numbers; the model has diverged: train it anew")
    if task.score_range:
        predictions = np.clip(predictions, *task.score_range)
    return [f"{number:.3f}" for number in predictions.tolist()]


def write_zip(directory: Path, path: Path) -> Submission:
    """Packs those files of a submission that `directory` has into the zip at `path`.

    Raises:
      InputError: if there is none, or the operating system refuses to read or write.
    """
    written = tuple(name for name in NAMES if (directory / f"{name}.tsv").is_file())
    if not written:
        raise InputError(f"{directory}: has no predictions, expected files such as {NAMES[0]}.tsv; predict first")
    with atomic_writer(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in written:
            # A ZipInfo of our own: the time of writing and the rights of the file would change the bytes.
            packed.writestr(_entry(f"{name}.tsv"), (directory / f"{name}.tsv").read_bytes())
    return Submission(path, written, tuple(name for name in NAMES if name not in written))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # its time is the first of 1980
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
