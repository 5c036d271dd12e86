"""Encoder and the two pretraining heads as one model."""

from collections.abc import Mapping
from typing import Any

import keras

from tf_bert.config import BertConfig
from tf_bert.models.encoder import BertEncoder
from tf_bert.models.heads import MaskedLMHead, NextSentenceHead


class BertForPretraining(keras.Model):
    """Masked-LM and next-sentence logits. Built on construction: its variables exist before the first batch.

    Args:
      config: shape of the encoder.
      precision: Keras dtype policy (float32, mixed_bfloat16, mixed_float16).
      activation_checkpointing, dropout_seed: see `BertEncoder`.
    """

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        precision: str = "float32",
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
        name: str = "bert",
    ) -> None:
        super().__init__(name=name, dtype=precision)
        self.encoder = BertEncoder(config, activation_checkpointing, dropout_seed, name="encoder", dtype=precision)
        self.config = self.encoder.config
        self.masked_lm = MaskedLMHead(self.config, name="masked_lm", dtype=precision)
        self.next_sentence = NextSentenceHead(self.config, name="next_sentence", dtype=precision)
        with keras.name_scope(name):
            for layer in (self.encoder, self.masked_lm, self.next_sentence):
                layer.build()
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Scores one batch.

        Args:
          inputs: what `BertEncoder.call` takes, and `masked_lm_positions`, integers [batch, predictions].
          training: apply dropout.

        Returns:
          `masked_lm_logits` float32 [batch, predictions, vocab_size] and `next_sentence_logits` float32
          [batch, examples, 2] ([batch, 2] for plain rows).
        """
        encoded = self.encoder(inputs, training=training)
        return {
            "masked_lm_logits": self.masked_lm(
                encoded["sequence_output"], inputs["masked_lm_positions"], self.encoder.embeddings.token_embedding
            ),
            "next_sentence_logits": self.next_sentence(encoded["pooled_output"]),
        }
