"""Guesses of the tokens under every `[MASK]` of a text."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_bert.config import BertConfig
from tf_bert.models.heads import MaskedLMHead
from tf_bert.models.layer import BertLayer
from tf_bert.models.model import BertModel
from tf_bert.serving.answers import Outputs
from tf_bert.serving.graph_inputs import Rows, Segments, clean, join, row_lengths
from tf_bert.serving.network import Network
from tf_bert.tokenization.tokenizer import Tokenizer
from tf_bert.tokenization.vocab import MASK

GUESSES = 5
"""Tokens for every mask."""


class MaskedLanguageModel(BertModel):
    """Encoder and masked-LM head, without what pretraining has besides."""

    architecture = "BertForMaskedLM"

    def __init__(self, config: BertConfig, precision: str) -> None:
        super().__init__(config, precision, parts=("encoder", "masked_lm"))

    def make_heads(self, precision: str) -> list[BertLayer]:
        """The masked-LM head."""
        self.masked_lm = MaskedLMHead(self.config, name="masked_lm", dtype=precision)
        return [self.masked_lm]

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Scores one batch: `logits`, float32 [rows, predictions, vocab_size].

        Args:
          inputs: what `BertEncoder.call` takes, and `masked_lm_positions`, integers [rows, predictions].
          training: apply dropout.
        """
        hidden = self.encoder(inputs, training=training)["sequence_output"]
        embedding = self.encoder.embeddings.token_embedding
        return {"logits": self.masked_lm(hidden, inputs["masked_lm_positions"], embedding)}


class MaskAnswers:
    """`Answers` of a masked language model.

    Args:
      network: of a `MaskedLanguageModel`, with the input `masked_lm_positions`.
      max_seq_length: tokens of a text that are read.
      tokenizer: of the model.
    """

    def __init__(self, network: Network, max_seq_length: int, tokenizer: Tokenizer) -> None:
        self._network, self._max_seq_length, self._tokenizer = network, max_seq_length, tokenizer

    def of_texts(self, *texts: tf.Tensor) -> Outputs:
        """See `of_rows`. Of all special-token strings `[MASK]` alone is no text."""
        (text,) = texts
        mask_id = self._tokenizer.vocabulary.mask_id
        pieces = tf.strings.split(clean(text), MASK)
        tokens = self._tokenizer.tokenize(pieces.flat_values)
        # A mask after every piece, and then not after the last one of a text.
        tokens = tf.concat([tokens, tf.fill([tokens.nrows(), 1], mask_id)], axis=1)
        tokens = pieces.with_flat_values(tokens).merge_dims(1, 2)
        lengths = tf.minimum(row_lengths(tokens) - 1, self._max_seq_length - 2)
        return self.of_rows(join([Segments.of(tokens, lengths)], self._tokenizer.vocabulary))

    def of_rows(self, rows: Rows) -> Outputs:
        """`tokens` and `scores` [batch, masks, guesses], filled up where a row has fewer masks, and `mask_count`."""
        vocabulary = self._tokenizer.vocabulary
        is_mask = (rows.input_ids == vocabulary.mask_id) & (rows.input_mask > 0)
        places = tf.where(is_mask)
        count = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)
        rows_of_batch = tf.shape(is_mask, tf.int64)[0]
        positions = tf.RaggedTensor.from_value_rowids(places[:, 1], places[:, 0], rows_of_batch, validate=False)
        positions = tf.cast(positions.to_tensor(), tf.int32)
        logits = self._network(rows, masked_lm_positions=positions)["logits"][:, :, : len(vocabulary)]
        scores, ids = tf.math.top_k(tf.nn.softmax(logits), min(GUESSES, len(vocabulary)))
        is_real = tf.sequence_mask(count, tf.shape(positions)[1])[:, :, None]
        return {
            "tokens": tf.where(is_real, tf.gather(tf.constant(vocabulary.tokens), ids), ""),
            "scores": tf.where(is_real, scores, 0.0),
            "mask_count": count,
        }
