"""A finetuned model's directory: what any model directory has, and the task that it was finetuned for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_bert import __version__
from tf_bert.errors import InputError, UsageError
from tf_bert.files import atomic_directory, read_json, write_json
from tf_bert.finetuning.families import family_from
from tf_bert.finetuning.family import Family
from tf_bert.finetuning.predictor import Predictor
from tf_bert.finetuning.starting import fit_labels
from tf_bert.models.directory import LINEAGE_FILE, read_directory, save_model
from tf_bert.models.layer import taking_weights
from tf_bert.models.model import BertModel
from tf_bert.models.weights import assign_weights
from tf_bert.tokenization.tokenizer import Tokenizer, load_tokenizer, save_tokenizer

TASK_FILE = "task.json"
"""The task, its columns, and how long its texts may be."""
MODEL_DIR = "model"
"""In a run's directory: the model after its last step."""


def write_finetuned_model(
    directory: Path,
    model: BertModel,
    family: Family,
    tokenizer: Tokenizer,
    max_seq_length: int,
    lineage: Mapping[str, Any],
) -> None:
    """Writes weights, configuration with label names, vocabulary, task and lineage, all or nothing.

    Args:
      directory: an older one is replaced.
      model, family, tokenizer: what was trained.
      max_seq_length: tokens of an example.
      lineage: what the weights come from: settings, data, metrics, and the lineage of the weights they started from.
    """
    settings: dict[str, Any] = {"pad_token_id": tokenizer.vocabulary.pad_id, "finetuning_task": family.name}
    if family.problem_type:
        settings["problem_type"] = family.problem_type
    with atomic_directory(directory) as partial:
        save_model(model, partial, settings, family.labels or None)
        save_tokenizer(partial, tokenizer.vocabulary, tokenizer.lower_case, tokenizer.strip_accents)
        write_json(partial / TASK_FILE, {"max_seq_length": max_seq_length, "task": family.settings()})
        versions = {"tf_bert": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
        write_json(partial / LINEAGE_FILE, {**versions, **lineage})


def find_task_file(directory: Path) -> Path:
    """The `TASK_FILE` of a finetuned model's directory, or of that of the run which made it.

    Raises:
      InputError: if there is none.
    """
    if not (directory / TASK_FILE).exists() and (directory / MODEL_DIR / TASK_FILE).exists():
        directory /= MODEL_DIR
    path = directory / TASK_FILE
    if not path.exists():
        found = f"has no {TASK_FILE}" if directory.is_dir() else "no such directory"
        raise InputError(
            f"{directory}: {found}; expected a finetuned model's directory, as `tf-bert finetune` writes it"
        )
    return path


def read_task(path: Path, longest: float = math.inf) -> tuple[Family, int]:
    """The task of a `TASK_FILE`, and how many tokens of an example it reads.

    Args:
      path: the file.
      longest: what these may be at most.

    Raises:
      InputError: if it is damaged.
    """
    content = read_json(path)
    try:
        family, max_seq_length = family_from(content["task"]), int(content["max_seq_length"])
        if not 3 <= max_seq_length <= longest:
            raise ValueError(f"max_seq_length {max_seq_length} of {longest} positions")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise InputError(f"{path}: is not a task that `tf-bert finetune` has written ({error}); restore it") from error
    return family, max_seq_length


def open_finetuned_model(directory: Path, precision: str = "float32") -> Predictor:
    """Opens a finetuned model's directory, or that of the run which made it.

    Raises:
      InputError: if a file is missing or damaged.
    """
    path = find_task_file(directory)
    weights = read_directory(path.parent)
    family, max_seq_length = read_task(path, weights.config.max_position_embeddings)
    with taking_weights():
        model = family.make_model(weights.config, precision, dropout_seed=0)
    assign_weights(model, fit_labels(weights, family.labels, model.num_labels, required=True))
    return Predictor(model, family, load_tokenizer(path.parent), max_seq_length)
