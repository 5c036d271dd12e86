"""The signatures of an export: what a server offers, by name.

Every kind of model has `serving_default` (texts), `tokens` (rows of ids), `examples` (serialised tf.Example) and
`embed` (texts to vectors); `serving_default` has another name too, where the task has one; and what finds entities has
`words` (texts that are cut into words already). Every input and output is [batch, ...], so that servers can put
requests together, and every signature tells the `model_version`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_bert.serving.answers import Answers, Outputs
from tf_bert.serving.entity_answers import EntityAnswers
from tf_bert.serving.exported import DEFAULT
from tf_bert.serving.graph_inputs import Rows, check_rows
from tf_bert.serving.label_answers import LabelAnswers
from tf_bert.serving.mask_answers import MaskAnswers
from tf_bert.serving.network import Network
from tf_bert.serving.opened_model import OpenedModel
from tf_bert.serving.question_answers import QuestionAnswers
from tf_bert.serving.vectors import Vectors
from tf_bert.tokenization.tokenizer import Tokenizer

ALIASES = {"question_answering": "answer", "entities": "entities", "fill_mask": "fill_mask"}
"""Other names of `serving_default`, by the kind of the task."""


class ServedModel(tf.Module):
    """A model as it is saved.

    Args:
      opened: the model.
      is_quantized: store matrices in int8.
      version: what `model_version` says.
    """

    def __init__(self, opened: OpenedModel, is_quantized: bool, version: str) -> None:
        super().__init__()
        self._task, self._config, self._version = opened.task, opened.model.config, version
        more_inputs = ("masked_lm_positions",) if opened.task.kind == "fill_mask" else ()
        self.network = Network(opened.model, is_quantized, more_inputs)
        # Its tables have to be found when the model is saved.
        self.tokenizer = [part for part in vars(opened.tokenizer).values() if isinstance(part, tf.Module)]
        self._vectors = Vectors(self.network, opened.vectors, opened.vector_length, opened.tokenizer)
        self._answers = self._make_answers(opened.tokenizer)

    def signatures(self) -> dict[str, Any]:
        """Every signature by name, as a concrete function."""
        texts = [tf.TensorSpec([None], tf.string, name) for name in self._task.inputs]
        rows = [tf.TensorSpec([None, None], tf.int32, name) for name in Rows._fields]
        of_texts = tf.function(self._answers.of_texts, input_signature=texts, autograph=False)
        features = {name: tf.io.FixedLenFeature([], tf.string) for name in self._task.inputs}

        def of_examples(examples: tf.Tensor) -> Outputs:
            parsed = tf.io.parse_example(examples, features)
            return of_texts(*(parsed[name] for name in features))

        def of_rows(*ids: tf.Tensor) -> Outputs:
            return self._answers.of_rows(check_rows(Rows(*ids), self._config))

        default = self._function(of_texts, texts)
        found = {
            DEFAULT: default,
            "tokens": self._function(of_rows, rows),
            "examples": self._function(of_examples, [tf.TensorSpec([None], tf.string, "examples")]),
            "embed": self._function(self._vectors.of_texts, [tf.TensorSpec([None], tf.string, "text")]),
        }
        if isinstance(self._answers, EntityAnswers):
            found["words"] = self._function(self._answers.of_words, [tf.TensorSpec([None], tf.string, "words")])
        return {**found, ALIASES[self._task.kind]: default} if self._task.kind in ALIASES else found

    def numbers_of_rows(
        self, input_ids: tf.Tensor, segment_ids: tf.Tensor, input_mask: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """What `tokens` tells, without words; for filling masks `logits` [batch, length, vocab_size] of every token."""
        rows = Rows(input_ids, segment_ids, input_mask)
        if self._task.kind == "fill_mask":
            positions = tf.zeros_like(input_ids) + tf.range(tf.shape(input_ids)[1])
            return {"logits": self.network(rows, masked_lm_positions=positions)["logits"]}
        outputs = self._answers.of_rows(rows)
        return {name: value for name, value in outputs.items() if value.dtype != tf.string}

    def _make_answers(self, tokenizer: Tokenizer) -> Answers:
        task, network = self._task, self.network
        if task.kind == "question_answering":
            return QuestionAnswers(network, task, tokenizer)
        if task.kind == "entities":
            return EntityAnswers(network, task, tokenizer)
        if task.kind == "fill_mask":
            return MaskAnswers(network, task.max_seq_length, tokenizer)
        return self._vectors if task.kind == "embedding" else LabelAnswers(network, task, tokenizer)

    def _function(self, answer: Callable[..., Outputs], inputs: list[tf.TensorSpec]) -> Any:
        def run(*tensors: tf.Tensor) -> Outputs:
            return {**answer(*tensors), "model_version": tf.fill([tf.shape(tensors[0])[0]], self._version)}

        return tf.function(run, autograph=False).get_concrete_function(*inputs)
