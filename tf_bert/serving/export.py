"""A model directory to a SavedModel that takes raw text, with everything that serving it needs beside it.

`EXPORT_DIR/<version>/` is what TensorFlow Serving loads. It is written under another name and renamed, so that a
server that watches the directory sees whole versions alone.
"""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_directory
from tf_bert.serving.deployment_files import write_deployment_files, write_sample_request
from tf_bert.serving.exported import Exported
from tf_bert.serving.model_card import ExportFacts, shown_metrics, write_model_card
from tf_bert.serving.network import PRECISIONS
from tf_bert.serving.onnx_model import ONNX_FILE, check_onnx, write_onnx
from tf_bert.serving.opened_model import OpenedModel, open_model
from tf_bert.serving.served_task import TASK_FILE
from tf_bert.serving.signatures import ServedModel
from tf_bert.serving.warmup import LEFT_OUT, write_warmup

LABELS_FILE = "labels.txt"
POOLINGS = ("mean", "cls")

Measure = Callable[[Exported], Mapping[str, float]]
"""Metrics by name of a loaded export."""


def export(
    model_dir: str | Path,
    export_dir: str | Path,
    *,
    version: int | str | None = None,
    precision: str = "float32",
    pooling: str | None = None,
    onnx: bool = False,
    measure: Measure | None = None,
    source: str | None = None,
    notify: Callable[[str], object] = lambda line: None,
) -> Path:
    """Writes a new version of an export.

    Args:
      model_dir: a finetuned model's directory, that of its run, a pretrained model's or an encoder's.
      export_dir: the directory of all versions; it is made, and its name is the model's name for servers.
      version: its number; None: the one after the highest that is there.
      precision: float32; bfloat16, for servers with hardware for it; int8, for small files.
      pooling: mean or cls, how `embed` makes a vector; None: as the model directory says, or else mean.
      onnx: also write the scores of token ids as `model.onnx`.
      measure: gives metrics of the export for its model card, as `finetuning.export_predictor.measure_on` does; if the
        precision is not float32, they are also measured of the same model in float32.
      source: where the model comes from, for its model card; None: from `model_dir`.
      notify: is told what was left out, and what was measured.

    Returns:
      The directory of the version.

    Raises:
      UsageError: if an option or the directory's name cannot be, or the version is there already.
      InputError: if the model directory is damaged or has no task for its head, or the export cannot be written.
    """
    model_dir, export_dir = Path(model_dir), Path(export_dir)
    if precision not in PRECISIONS:
        raise UsageError(f"--precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if pooling not in (None, *POOLINGS):
        raise UsageError(f"--pooling: found {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if onnx:
        check_onnx(precision)
    _check_name(export_dir)
    number = _choose_version(export_dir, version)
    opened = open_model(model_dir, "bfloat16" if precision == "bfloat16" else "float32", pooling)
    directory = export_dir / str(number)
    with atomic_directory(directory) as partial, _reporting_write_errors(directory):
        names = _save(partial, opened, precision, number, onnx)
        if not write_warmup(partial, opened, names):
            notify(LEFT_OUT)
        if opened.task.labels:
            lines = [f"{label}\n" for label in opened.task.labels]
            (partial / LABELS_FILE).write_text("".join(lines), encoding="utf-8")
        if (task_file := opened.directory / TASK_FILE).exists():
            shutil.copyfile(task_file, partial / TASK_FILE)  # who reads files for the export has to know their columns
        write_sample_request(partial, opened)
        measured = _measure(measure, partial, model_dir, precision, pooling)
        for name, values in measured.items():
            notify(f"measured, {name}: {shown_metrics(values)}")
        facts = ExportFacts(number, precision, megabytes(partial), measured, source or str(opened.directory.resolve()))
        write_model_card(partial, opened, facts)
        write_deployment_files(export_dir, opened)
    return directory


def megabytes(directory: Path) -> float:
    """The size of all files below a directory, in 10^6 bytes."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


def _check_name(export_dir: Path) -> None:
    """Raises `UsageError` if the directory's name cannot be a model's name in commands and addresses."""
    name = export_dir.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UsageError(
            f"export_dir: found the name {name!r}, by which servers call the model, expected letters, digits, _, . or "
            "-; choose another"
        )


def _choose_version(export_dir: Path, version: int | str | None) -> int:
    """The number that was asked for, or the next one.

    Raises:
      UsageError: if it is no number, or there already.
      InputError: if the directory is a file.
    """
    if export_dir.exists() and not export_dir.is_dir():
        raise InputError(f"{export_dir}: is a file, expected the directory of the export's versions; choose another")
    # Also a directory that is no export keeps its number: it is not for us to replace.
    taken = sorted(int(path.name) for path in export_dir.glob("*") if path.name.isdecimal())
    if version is None:
        return max(taken, default=0) + 1
    if not re.fullmatch(r"[1-9]\d{0,17}", str(version)):
        raise UsageError(f"--version: found {version!r}, expected a whole number of 1 or more")
    if int(version) in taken:
        raise UsageError(
            f"--version: {export_dir / str(version)} is there already; choose a number above {taken[-1]}, or leave the "
            "option out for the next one"
        )
    return int(version)


def _save(directory: Path, opened: OpenedModel, precision: str, version: int, onnx: bool = False) -> list[str]:
    """Writes the SavedModel; returns the names of its signatures."""
    served = ServedModel(opened, precision == "int8", str(version))
    signatures = served.signatures()
    tf.saved_model.save(served, str(directory), signatures=signatures)
    if onnx:
        write_onnx(directory / ONNX_FILE, served)
    return sorted(signatures)


def _measure(
    measure: Measure | None, directory: Path, model_dir: Path, precision: str, pooling: str | None
) -> dict[str, Mapping[str, float]]:
    """Metrics of an export, and of the same model in float32, by precision."""
    if measure is None:
        return {}
    measured = {precision: measure(Exported(directory))}
    if precision != "float32":
        with tempfile.TemporaryDirectory() as temporary:
            reference = Path(temporary) / "0"
            _save(reference, open_model(model_dir, "float32", pooling), "float32", 0)
            measured["float32"] = measure(Exported(reference))
    return measured


@contextlib.contextmanager
def _reporting_write_errors(directory: Path) -> Iterator[None]:
    """Turns what TensorFlow says of a disk that is full, and the like, into an `InputError`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError, tf.errors.UnknownError) as error:
        reason = str(error.message).splitlines()[0]
        raise InputError(f"{directory}: cannot be written: {reason}; free space or choose another directory") from error
