"""What a model directory is to answer, read from its files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tf_bert.config import SpanConfig, from_dict
from tf_bert.errors import InputError, UsageError
from tf_bert.files import read_json
from tf_bert.models.weights import Weights

TASK_FILE = "task.json"
"""The task of a finetuned model, its columns, and how long its texts may be."""
MODEL_DIR = "model"
"""In a run's directory: the model after its last step."""

Kind = Literal["classification", "multilabel", "regression", "question_answering", "entities", "fill_mask", "embedding"]
TEXT_KINDS = ("classification", "multilabel", "regression")

_PARTS = {"question_answering": "span", "fill_mask": "masked_lm", "embedding": "encoder"}
_SHORTEST = 8  # as `tf-bert finetune` has it


@dataclass(frozen=True)
class ServedTask:
    """What is answered to what."""

    kind: Kind
    name: str
    """Of the task, for people."""
    inputs: tuple[str, ...]
    """Names of the texts."""
    max_seq_length: int
    """Tokens of a row; longer texts are cut, or read in several rows."""
    labels: tuple[str, ...] = ()
    """Names of the classifier's outputs, in their order."""
    span: SpanConfig = field(default_factory=SpanConfig)
    """Questions: lengths and threshold."""
    has_impossible: bool = False
    """Questions may have no answer (SQuAD 2.0)."""

    @property
    def part(self) -> str:
        """The part of `tf_bert.models.tensors.PARTS` that answers."""
        return _PARTS.get(self.kind, "classifier")


def find_model_directory(directory: Path) -> Path:
    """The directory itself, or the model's inside of the directory of a finetuning run.

    Raises:
      InputError: if there is no such directory.
    """
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory; expected a model directory, as `tf-bert finetune` or `tf-bert pretrain` "
            "writes it"
        )
    below = directory / MODEL_DIR
    return below if not (directory / TASK_FILE).exists() and (below / TASK_FILE).exists() else directory


def read_served_task(directory: Path, weights: Weights) -> ServedTask:
    """The task of a finetuned model; filling masks for a model with a masked-LM head, otherwise vectors.

    Raises:
      InputError: if the directory has a head for a task, but not the task, or the two do not fit.
    """
    path = directory / TASK_FILE
    longest = weights.config.max_position_embeddings
    if path.exists():
        task = _task_from(read_json(path), path, longest)
        _check(task, path, weights)
        return task
    if heads := [part for part in ("classifier", "span") if part in weights.parts]:
        raise InputError(
            f"{directory}: has a {heads[0]}, but no {TASK_FILE}, which says what its texts and labels are; finetune it "
            "here, with this directory as --init, and export what that writes"
        )
    if "masked_lm" in weights.parts:
        return ServedTask("fill_mask", "masked-LM", ("text",), longest)
    return ServedTask("embedding", "text vectors", ("text",), longest)


def _task_from(content: Any, path: Path, longest: int) -> ServedTask:
    try:
        length, settings = int(content["max_seq_length"]), content["task"]
        if not _SHORTEST <= length <= longest:
            raise ValueError(f"max_seq_length {length} of {longest} positions")
        return _FAMILIES[settings["family"]](settings, length)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise InputError(f"{path}: is not a task that `tf-bert finetune` has written ({error}); restore it") from error


def _text_task(settings: Mapping[str, Any], length: int) -> ServedTask:
    inputs = ("text", "text_pair")[: len(settings["text_columns"])]
    kind = settings["kind"]
    if kind not in TEXT_KINDS:
        raise ValueError(f"kind {kind!r}")
    return ServedTask(kind, str(settings["name"]), inputs, length, tuple(map(str, settings["labels"])))


def _question_task(settings: Mapping[str, Any], length: int) -> ServedTask:
    span = from_dict(SpanConfig, settings["span"], where="span")
    return ServedTask(
        "question_answering", "SQuAD", ("question", "context"), length, (), span, bool(settings["has_impossible"])
    )


def _entity_task(settings: Mapping[str, Any], length: int) -> ServedTask:
    return ServedTask("entities", "NER", ("text",), length, tuple(map(str, settings["labels"])))


_FAMILIES = {"text": _text_task, "question_answering": _question_task, "entities": _entity_task}


def _check(task: ServedTask, path: Path, weights: Weights) -> None:
    """Raises `InputError` if the weights are not the task's."""
    if task.part not in weights.parts:
        raise InputError(f"{path.parent}: has no {task.part}, which {path.name} needs; restore the directory")
    if task.part == "span":
        return
    expected = len(task.labels) or 1
    named = weights.labels or task.labels
    if weights.num_labels != expected or (task.labels and named != task.labels):
        raise InputError(
            f"{path}: names the labels {', '.join(task.labels) or '(one number)'}, but the classifier has "
            f"{weights.num_labels} outputs: {', '.join(named) or 'without names'}; the two belong to different models"
        )
    if task.kind in ("classification", "multilabel", "entities") and not task.labels:
        raise InputError(f"{path}: names no labels, expected one for each output of the classifier; restore the file")
