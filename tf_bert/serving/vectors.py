"""Vectors of texts, the same as `tf-bert embed` computes."""

import tensorflow as tf

from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows, clean
from tf_bert.serving.label_answers import encode_texts
from tf_bert.serving.network import Network
from tf_bert.serving.portions import by_length
from tf_bert.serving.sentence_settings import SentenceSettings
from tf_bert.tokenization.tokenizer import Tokenizer


class Vectors:
    """`Answers` of an encoder.

    Args:
      network: of any model.
      settings: how token vectors become the vector of a text.
      max_seq_length: tokens of a text that are read.
      tokenizer: of the model.
    """

    def __init__(self, network: Network, settings: SentenceSettings, max_seq_length: int, tokenizer: Tokenizer) -> None:
        self._network, self._settings, self._tokenizer = network, settings, tokenizer
        self._max_seq_length = max_seq_length

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """See `of_rows`."""
        if self._settings.lower_case:
            texts = tuple(tf.strings.lower(clean(text), "utf-8") for text in texts)
        rows = encode_texts(texts, self._tokenizer, self._max_seq_length)
        return {"embedding": by_length(self._vectors, rows, tf.TensorSpec([None, None], tf.float32))}

    def of_rows(self, rows: Rows) -> Outputs:
        """`embedding`, float32 [batch, hidden_size]."""
        return {"embedding": self._vectors(rows)}

    def _vectors(self, rows: Rows) -> tf.Tensor:
        hidden = tf.cast(self._network.encode(rows)["sequence_output"], tf.float32)
        if self._settings.pooling == "cls":
            vectors = hidden[:, 0]
        else:
            real = tf.cast(rows.input_mask, tf.float32)[:, :, None]
            vectors = tf.reduce_sum(hidden * real, axis=1) / tf.reduce_sum(real, axis=1)
        if self._settings.normalize:  # with the least divisor of torch.nn.functional.normalize
            vectors /= tf.maximum(tf.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors
