"""A model directory, opened for an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_bert.config import BertConfig
from tf_bert.errors import InputError
from tf_bert.files import read_json
from tf_bert.models.classification import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from tf_bert.models.directory import LINEAGE_FILE, read_directory
from tf_bert.models.layer import taking_weights
from tf_bert.models.model import BertModel
from tf_bert.models.weights import assign_weights
from tf_bert.serving.mask_answers import MaskedLanguageModel
from tf_bert.serving.sentence_settings import SentenceSettings, choose_length, read_sentence_settings
from tf_bert.serving.served_task import ServedTask, find_model_directory, read_served_task
from tf_bert.tokenization.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class OpenedModel:
    """What an export is made of."""

    directory: Path
    """Of the weights."""
    task: ServedTask
    model: BertModel
    tokenizer: Tokenizer
    """Of operations that every TensorFlow Serving has, unless it is a SentencePiece model."""
    vectors: SentenceSettings
    """How a text becomes a vector."""
    vector_length: int
    """Tokens that are read for it."""
    lineage: dict[str, Any]
    """What the directory says of where its weights come from."""


def open_model(model_dir: Path, precision: str, pooling: str | None = None) -> OpenedModel:
    """Opens a finetuned model, a pretrained one, or an encoder, with the files of sentence-transformers or without.

    Args:
      model_dir: its directory, or that of a finetuning run.
      precision: Keras dtype policy.
      pooling: mean or cls, in the place of what the directory says.

    Raises:
      InputError: if a file is missing or damaged, or the directory has a head but no task for it.
    """
    vectors = read_sentence_settings(find_model_directory(model_dir), pooling)
    directory = vectors.directory
    weights = read_directory(directory)
    task = read_served_task(directory, weights)
    tokenizer = load_tokenizer(directory, portable=True)
    vocabulary = tokenizer.vocabulary
    if len(vocabulary) > weights.config.vocab_size:
        raise InputError(
            f"{vocabulary.source}: holds {len(vocabulary)} tokens, more than the model's vocab_size "
            f"{weights.config.vocab_size}; the two belong to different models"
        )
    model = _make_model(task, weights.config, "float32")
    assign_weights(model, weights)
    if precision != "float32":
        model, whole = _make_model(task, weights.config, precision), model
        for variable, value in zip(model.trainable_variables, whole.trainable_variables, strict=True):
            variable.assign(value)
    lineage = directory / LINEAGE_FILE
    return OpenedModel(
        directory,
        task,
        model,
        tokenizer,
        vectors,
        choose_length(vectors, weights.config.max_position_embeddings, None),
        read_json(lineage) if lineage.exists() else {},
    )


def _make_model(task: ServedTask, config: BertConfig, precision: str) -> BertModel:
    with taking_weights():
        return _new_model(task, config, precision)


def _new_model(task: ServedTask, config: BertConfig, precision: str) -> BertModel:
    if task.kind == "question_answering":
        return BertForQuestionAnswering(config, precision)
    if task.kind == "entities":
        return BertForTokenClassification(config, len(task.labels), precision)
    if task.kind == "fill_mask":
        return MaskedLanguageModel(config, precision)
    if task.kind == "embedding":
        return BertModel(config, precision, parts=("encoder",))
    return BertForSequenceClassification(config, len(task.labels) or 1, precision)
