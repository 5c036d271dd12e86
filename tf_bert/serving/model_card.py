"""`model_card.md` of an export: what it answers, how well, where it comes from, and what it cannot do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_bert import __version__
from tf_bert.serving.opened_model import OpenedModel
from tf_bert.tokenization.sentencepiece import SentencePieceVocabulary

MODEL_CARD_FILE = "model_card.md"

_ANSWERS = {
    "classification": "One of its labels for every {texts}, with a score for each label; the scores sum to 1.",
    "multilabel": "Any number of its labels for every {texts}, with a score from 0 to 1 for each label.",
    "regression": "A number for every {texts}.",
    "question_answering": "The span of a context that answers a question, with its probability and its place.",
    "entities": "The entities in a text, with their types and places.",
    "fill_mask": "The tokens that are most probable under every [MASK] of a text, with their probabilities.",
    "embedding": "A vector for every text.",
}
_PRECISIONS = {
    "float32": "weights and arithmetic in float32.",
    "bfloat16": "weights and arithmetic in bfloat16; attention and scores in float32.",
    "int8": "matrices are stored in int8 with a scale for each output, and are float32 again once a server has loaded "
    "them; arithmetic in float32.",
}


@dataclass(frozen=True)
class ExportFacts:
    """What is known of an export beside its model."""

    version: int
    precision: str
    megabytes: float
    """Of its files."""
    measured: Mapping[str, Mapping[str, float]]
    """Metrics by name, by precision."""
    source: str
    """Where the model was read, or what made it."""


def model_card(opened: OpenedModel, facts: ExportFacts) -> str:
    """Markdown."""
    return "\n".join(_lines(opened, facts)) + "\n"


def _lines(opened: OpenedModel, facts: ExportFacts) -> Iterator[str]:
    task, config = opened.task, opened.model.config
    texts = "pair of texts" if len(task.inputs) == 2 else "text"
    yield from (f"# {task.name}, version {facts.version}", "", _ANSWERS[task.kind].format(texts=texts), "")
    yield from ("## Task", "", f"- kind: {task.kind}", f"- inputs: {', '.join(task.inputs)}")
    if task.labels:
        yield f"- labels, in the order of the scores: {', '.join(task.labels)}"
    yield (
        f"- model: BERT of {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{len(opened.tokenizer.vocabulary):,} tokens, {'uncased' if opened.tokenizer.lower_case else 'cased'}"
    )
    yield f"- precision: {facts.precision}: {_PRECISIONS[facts.precision]}"
    yield f"- size: {facts.megabytes:,.1f} MB"
    yield from ("", "## Metrics", "", *_metrics(opened.lineage.get("metrics"), facts.measured))
    yield from ("", "## Lineage", "", *(list(_tree(_told(opened.lineage))) or ["- not known"]))
    yield f"- exported from {facts.source} by tf_bert {__version__}, TensorFlow {tf.__version__}"
    yield from ("", "## Limits", "", *_limits(opened))


def _metrics(trained: Any, measured: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    if isinstance(trained, dict) and trained:
        for split, values in trained.items():
            yield f"- {split}, when it was trained: {shown_metrics(values)}"
    else:
        yield "- none are recorded with the model"
    for precision, values in measured.items():
        yield f"- measured of the export, {precision}: {shown_metrics(values)}"


def shown_metrics(values: Mapping[str, float]) -> str:
    """Metrics by name, for people; counts have no digits behind the point."""
    return ", ".join(
        f"{name} {int(value):,}" if value == int(value) and value > 1 else f"{name} {value:.4f}"
        for name, value in values.items()
    )


def _told(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """What is told elsewhere is left out."""
    return {key: value for key, value in lineage.items() if key != "metrics"}


def _tree(values: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """A nested list."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if value:
                yield f"{'  ' * depth}- {key}"
                yield from _tree(value, depth + 1)
        elif value is not None:
            yield f"{'  ' * depth}- {key}: {value}"


def _limits(opened: OpenedModel) -> Iterator[str]:
    task = opened.task
    if task.kind == "question_answering":
        yield (
            f"- Questions are cut to {task.span.max_query_length} tokens. Contexts of any length are read, in windows "
            f"of {task.max_seq_length} tokens; time grows with their length."
        )
    elif task.kind == "entities":
        yield (
            f"- Texts of any length are read, in windows of {task.max_seq_length} tokens; time grows with their "
            "length. An entity that reaches over the end of a window may be found in two parts."
        )
    else:
        longer = ", of the longer text first" if len(task.inputs) == 2 else ""
        yield f"- Texts are cut to {task.max_seq_length} tokens{longer}, without a word in the answer."
    yield f"- Vectors (`embed`) read {opened.vector_length} tokens of a text."
    yield "- It knows what was in its training texts: other languages, domains and spellings are answered too, worse."
    yield "- Scores are the model's own and are not calibrated. Biases of the training texts are in the answers."
    if isinstance(opened.tokenizer.vocabulary, SentencePieceVocabulary):
        yield (
            "- The tokenizer is a SentencePiece model: the server needs the operations of TensorFlow Text for it "
            "(SentencepieceOp, SentencepieceTokenizeOp), which the official TensorFlow Serving links."
        )
    else:
        yield "- Every TensorFlow Serving since 2.12 links the operations that it needs, TensorFlow Text's among them."


def write_model_card(directory: Path, opened: OpenedModel, facts: ExportFacts) -> None:
    """Writes it into the directory of a version."""
    (directory / MODEL_CARD_FILE).write_text(model_card(opened, facts), encoding="utf-8")
