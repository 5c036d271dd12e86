"""Labels with scores, or a number, for texts and pairs."""

import tensorflow as tf

from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows, Segments, join, row_lengths, truncate
from tf_bert.serving.network import Network
from tf_bert.serving.portions import by_length
from tf_bert.serving.served_task import ServedTask
from tf_bert.tokenization.tokenizer import Tokenizer


class LabelAnswers:
    """`Answers` of a classifier of texts.

    Args:
      network: of a `BertForSequenceClassification`.
      task: a classification, multilabel or regression task.
      tokenizer: of the model.
    """

    def __init__(self, network: Network, task: ServedTask, tokenizer: Tokenizer) -> None:
        self._network, self._task, self._tokenizer = network, task, tokenizer

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """See `of_rows`."""
        rows = encode_texts(texts, self._tokenizer, self._task.max_seq_length)
        logits = tf.TensorSpec([None, len(self._task.labels) or 1], tf.float32)
        return self._tell(by_length(lambda some: self._network(some)["logits"], rows, logits))

    def of_rows(self, rows: Rows) -> Outputs:
        """`score`; or `scores` and `labels` [batch, classes], with `label` or, of several labels, `predicted`."""
        return self._tell(self._network(rows)["logits"])

    def _tell(self, logits: tf.Tensor) -> Outputs:
        if self._task.kind == "regression":
            return {"score": logits[:, 0]}
        names = label_names(self._task, tf.shape(logits)[0])
        if self._task.kind == "multilabel":
            return {"scores": tf.sigmoid(logits), "labels": names, "predicted": logits > 0.0}
        label = tf.gather(tf.constant(self._task.labels), tf.argmax(logits, axis=-1))
        return {"scores": tf.nn.softmax(logits), "labels": names, "label": label}


def encode_texts(texts: tuple[tf.Tensor, ...], tokenizer: Tokenizer, max_seq_length: int) -> Rows:
    """Rows of texts or pairs, string [batch] each, cut as finetuning cuts them and padded to the longest."""
    tokens = [tokenizer.tokenize(column) for column in texts]
    kept = truncate([row_lengths(column) for column in tokens], max_seq_length - 1 - len(tokens))
    segments = [Segments.of(column, lengths) for column, lengths in zip(tokens, kept, strict=True)]
    return join(segments, tokenizer.vocabulary)


def label_names(task: ServedTask, batch: tf.Tensor) -> tf.Tensor:
    """The label names for every example, string [batch, classes]."""
    return tf.tile(tf.constant([task.labels]), [batch, 1])
