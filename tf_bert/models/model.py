"""What every model has: an encoder, and heads that its `parts` name."""

from collections.abc import Mapping
from typing import Any

import keras

from tf_bert.config import BertConfig
from tf_bert.models.encoder import BertEncoder
from tf_bert.models.layer import BertLayer


class BertModel(keras.Model):
    """The encoder alone, and the base of models with heads. Its variables exist before the first batch.

    Args:
      config: shape of the encoder.
      precision: Keras dtype policy (float32, mixed_bfloat16, mixed_float16).
      activation_checkpointing, dropout_seed: see `BertEncoder`.
      parts: of `tf_bert.models.tensors.PARTS`; with or without the pooler.
    """

    architecture = "BertModel"
    """Hugging Face's name of the kind of model."""
    num_labels = 0
    """Outputs of the classifier."""

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        precision: str = "float32",
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
        parts: tuple[str, ...] = ("encoder", "pooler"),
    ) -> None:
        super().__init__(name="bert", dtype=precision)
        self.parts = parts
        self.encoder = BertEncoder(
            config, activation_checkpointing, dropout_seed, "pooler" in parts, name="encoder", dtype=precision
        )
        self.config = self.encoder.config
        heads = self.make_heads(precision)
        with keras.name_scope(self.name):
            for layer in (self.encoder, *heads):
                layer.build()
        self.built = True

    def make_heads(self, precision: str) -> list[BertLayer]:
        """Sets the heads as attributes and returns them."""
        return []

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Encodes one batch, see `BertEncoder.call`."""
        outputs: dict[str, Any] = self.encoder(inputs, training=training)
        return outputs
