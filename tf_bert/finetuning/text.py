"""Tasks on one text or a pair: a label, several labels, or a number (GLUE, and files of the user's own)."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pydantic

from tf_bert.config import BertConfig
from tf_bert.errors import InputError
from tf_bert.finetuning.encoding import encode_texts
from tf_bert.finetuning.examples import Example, read_examples, read_stream
from tf_bert.finetuning.family import Outputs
from tf_bert.finetuning.metrics import METRICS, Metrics, compute_metrics
from tf_bert.finetuning.objectives import ClassificationObjective, MultilabelObjective, RegressionObjective
from tf_bert.finetuning.packing import Encoded
from tf_bert.finetuning.tasks import Task
from tf_bert.models.classification import BertForSequenceClassification
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.training.losses import Objective

_OBJECTIVES: dict[str, type[Objective]] = {
    "classification": ClassificationObjective,
    "multilabel": MultilabelObjective,
    "regression": RegressionObjective,
}
_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class TextFamily:
    """A `Family` for one `Task`, whose labels are known."""

    task: Task

    of_tokens = False

    @property
    def name(self) -> str:
        """Of the task."""
        return self.task.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Label words in the order of the classifier's outputs; empty for regression."""
        return self.task.labels

    @property
    def problem_type(self) -> str:
        """Hugging Face's word for the kind of task."""
        return _PROBLEM_TYPES[self.task.kind]

    @property
    def primary_metric(self) -> tuple[str, bool]:
        """The task's, and whether higher is better."""
        return self.task.primary_metric, METRICS[self.task.primary_metric].higher_is_better

    @property
    def dev_splits(self) -> tuple[str, ...]:
        """One, but two for MNLI."""
        return tuple(split.name for split in self.task.dev_splits)

    @functools.cached_property
    def objective(self) -> Objective:
        """The loss of the task's kind."""
        return _OBJECTIVES[self.task.kind]()

    def settings(self) -> dict[str, Any]:
        """See `Family.settings`."""
        return {"family": "text", **dataclasses.asdict(self.task)}

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> "TextFamily":
        """The task that `settings` told of; raises `ValueError` if it is none."""
        try:
            return cls(pydantic.TypeAdapter(Task).validate_python(values))
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error

    def make_model(self, config: BertConfig, precision: str, dropout_seed: int) -> BertForSequenceClassification:
        """A classifier with an output for each label, or with one for regression."""
        return BertForSequenceClassification(config, len(self.labels) or 1, precision, dropout_seed=dropout_seed)

    def read(self, path: str, split: str) -> list[Example]:
        """The examples of a split; raises as `read_examples` does."""
        return list(read_examples(self.task, path, split))

    def read_lines(self, stream: IO[bytes], name: str) -> Iterator[Example]:
        """A text a line, or two with a tab between them."""
        return read_stream(self.task, stream, name, "tsv", columns=self.task.text_columns)

    def encode(
        self, examples: Sequence[Example], tokenizer: Tokenizer, max_seq_length: int, with_targets: bool
    ) -> tuple[Encoded, None]:
        """Token ids, and with targets `labels`: int32 or float32 [examples], float32 [examples, classes]."""
        encoded = encode_texts([example.texts for example in examples], tokenizer, max_seq_length)
        if not with_targets:
            return encoded, None
        labels = _labels(examples)
        if self.task.kind == "multilabel":
            values = np.zeros((len(labels), len(self.labels)), np.float32)
            for row, chosen in enumerate(labels):
                values[row, list(chosen)] = 1.0
        else:
            values = np.array(labels, np.float32 if self.task.kind == "regression" else np.int32)
        return Encoded(encoded.input_ids, encoded.offsets, encoded.first_lengths, {"labels": values}), None

    def decode(self, examples: Sequence[Example], outputs: Outputs, context: None) -> list[dict[str, Any]]:
        """`index`, and `label` with `scores` by label, `labels` with `scores`, or `score`."""
        told = []
        for example, output in zip(examples, outputs, strict=True):
            told.append({"index": example.index, **self._tell(output["logits"].astype(np.float64))})
        return told

    def _tell(self, logits: np.ndarray) -> dict[str, Any]:
        if self.task.kind == "regression":
            return {"score": float(logits[0])}
        if self.task.kind == "multilabel":
            scores = 1.0 / (1.0 + np.exp(-logits))
            chosen = [label for label, score in zip(self.labels, scores, strict=True) if score > 0.5]
            return {"labels": chosen, "scores": dict(zip(self.labels, scores.tolist(), strict=True))}
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
        named = dict(zip(self.labels, scores.tolist(), strict=True))
        return {"label": self.labels[int(logits.argmax())], "scores": named}

    def evaluate(self, examples: Sequence[Example], predictions: Iterable[Mapping[str, Any]]) -> Metrics:
        """The task's metrics; raises `InputError` if an example has no label."""
        labels = _labels(examples)
        ids = {label: number for number, label in enumerate(self.labels)}
        found: list[Any] = []
        for prediction in predictions:
            if self.task.kind == "regression":
                found.append(prediction["score"])
            elif self.task.kind == "multilabel":
                found.append(tuple(ids[label] for label in prediction["labels"]))
            else:
                found.append(ids[prediction["label"]])
        return compute_metrics(self.task, found, labels)


def _labels(examples: Sequence[Example]) -> list[Any]:
    if missing := next((example.place for example in examples if example.label is None), None):
        raise InputError(f"{missing}: no label was read; choose a split that has labels, such as dev, or predict it")
    return [example.label for example in examples]
