"""Encoders with a head for a task: labels of examples, labels of tokens, spans of text."""

from collections.abc import Mapping
from typing import Any, ClassVar

from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.dropout import draw_seeds
from tf_bert.models.heads import ClassificationHead
from tf_bert.models.layer import BertLayer
from tf_bert.models.model import BertModel


class _Classifier(BertModel):
    """A classification head over one of the encoder's outputs.

    Args:
      config: shape of the encoder.
      num_labels: outputs of the head; 1 for regression.
      precision, activation_checkpointing, dropout_seed: see `BertModel`.
    """

    encoder_parts: ClassVar[tuple[str, ...]]
    head_input: ClassVar[str]

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        num_labels: int,
        precision: str = "float32",
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
    ) -> None:
        self.num_labels = num_labels
        parts = (*self.encoder_parts, "classifier")
        super().__init__(config, precision, activation_checkpointing, dropout_seed, parts)

    def make_heads(self, precision: str) -> list[BertLayer]:
        """The classifier."""
        self.classifier = ClassificationHead(self.config, self.num_labels, name="classifier", dtype=precision)
        return [self.classifier]

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Scores one batch.

        Args:
          inputs: what `BertEncoder.call` takes.
          training: apply dropout.

        Returns:
          `logits`, float32: [batch, num_labels] of examples, [batch, length, num_labels] of tokens.
        """
        encoded = self.encoder(inputs, training=training)
        seed = draw_seeds(self.encoder.seed_generator, 1)[0] if training else None
        return {"logits": self.classifier(encoded[self.head_input], seed)}


class BertForSequenceClassification(_Classifier):
    """Labels of examples, or one number where num_labels is 1 (Devlin et al. 2018, section 4.1)."""

    architecture = "BertForSequenceClassification"
    encoder_parts = ("encoder", "pooler")
    head_input = "pooled_output"


class BertForTokenClassification(_Classifier):
    """Labels of tokens (Devlin et al. 2018, section 5.3). It has no pooler."""

    architecture = "BertForTokenClassification"
    encoder_parts = ("encoder",)
    head_input = "sequence_output"


class BertForQuestionAnswering(BertModel):
    """Where an answer starts and ends (Devlin et al. 2018, section 4.2). It has no pooler.

    The arguments are those of `BertModel`.
    """

    architecture = "BertForQuestionAnswering"

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        precision: str = "float32",
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
    ) -> None:
        super().__init__(config, precision, activation_checkpointing, dropout_seed, ("encoder", "span"))

    def make_heads(self, precision: str) -> list[BertLayer]:
        """Two scores a token."""
        self.span = ClassificationHead(self.config, 2, name="span", dtype=precision)
        return [self.span]

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Scores one batch.

        Args:
          inputs: what `BertEncoder.call` takes.
          training: apply dropout (in the encoder; the original has none before this head).

        Returns:
          `start_logits` and `end_logits`, float32 [batch, length].
        """
        scores = self.span(self.encoder(inputs, training=training)["sequence_output"])
        start, end = ops.split(scores, 2, axis=-1)
        return {"start_logits": ops.squeeze(start, -1), "end_logits": ops.squeeze(end, -1)}
