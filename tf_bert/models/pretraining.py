"""Encoder and the two pretraining heads as one model."""

from collections.abc import Mapping
from typing import Any

from tf_bert.config import BertConfig
from tf_bert.models.heads import MaskedLMHead, NextSentenceHead
from tf_bert.models.layer import BertLayer
from tf_bert.models.model import BertModel


class BertForPretraining(BertModel):
    """Masked-LM and next-sentence logits. The arguments are those of `BertModel`."""

    architecture = "BertForPreTraining"

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        precision: str = "float32",
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
    ) -> None:
        parts = ("encoder", "pooler", "masked_lm", "next_sentence")
        super().__init__(config, precision, activation_checkpointing, dropout_seed, parts)

    def make_heads(self, precision: str) -> list[BertLayer]:
        """Masked-LM and next-sentence head."""
        self.masked_lm = MaskedLMHead(self.config, name="masked_lm", dtype=precision)
        self.next_sentence = NextSentenceHead(self.config, name="next_sentence", dtype=precision)
        return [self.masked_lm, self.next_sentence]

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
                encoded["sequence_output"],
                inputs["masked_lm_positions"],
                self.encoder.embeddings.token_embedding,
                training=training,
            ),
            "next_sentence_logits": self.next_sentence(encoded["pooled_output"]),
        }
