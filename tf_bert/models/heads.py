"""Heads over the encoder's outputs (Devlin et al. 2018, section 3.1)."""

from typing import Any

from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.dropout import dropout
from tf_bert.models.gradients import matmul_by_rows
from tf_bert.models.layer import BertLayer, activation, dense, initializer, layer_norm


class MaskedLMHead(BertLayer):
    """Predicts the tokens at chosen positions.

    The output matrix is the token embedding, or, where `tie_word_embeddings` is false, a matrix of the head's own.
    """

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.transform = dense(self.config, self.config.hidden_size, "transform", dtype=self.dtype_policy)
        self.layer_norm = layer_norm(self.config, "layer_norm", dtype=self.dtype_policy)
        self.activation = activation(self.config)

    def build(self, sequence_output_shape: Any = None) -> None:
        self.transform.build((None, self.config.hidden_size))
        self.layer_norm.build((None, self.config.hidden_size))
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")
        if not self.config.tie_word_embeddings:
            self.output_embedding = self.add_weight(
                shape=(self.config.vocab_size, self.config.hidden_size),
                initializer=initializer(self.config),
                name="output_embedding",
            )
        self.built = True

    def call(self, sequence_output: Any, masked_lm_positions: Any, token_embedding: Any, training: bool = False) -> Any:
        """Scores the vocabulary at the masked positions only.

        Args:
          sequence_output: [batch, length, hidden_size].
          masked_lm_positions: integers [batch, predictions].
          token_embedding: [vocab_size, hidden_size], the encoder's.
          training: whether a gradient will be asked for.

        Returns:
          float32 logits [batch, predictions, vocab_size].
        """
        gathered = ops.take_along_axis(sequence_output, masked_lm_positions[:, :, None], axis=1)
        hidden_states = self.layer_norm(self.activation(self.transform(gathered)))
        output_embedding = token_embedding if self.config.tie_word_embeddings else self.output_embedding
        embedding = ops.cast(output_embedding, self.compute_dtype)
        products = (
            matmul_by_rows(hidden_states, embedding)
            if training
            else ops.matmul(hidden_states, ops.transpose(embedding))
        )
        return ops.cast(products, "float32") + ops.cast(self.bias, "float32")


class NextSentenceHead(BertLayer):
    """Whether segment B follows segment A (class 0) or is random (class 1)."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.classifier = dense(self.config, 2, "classifier", dtype=self.dtype_policy)

    def build(self, pooled_output_shape: Any = None) -> None:
        self.classifier.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled_output: Any) -> Any:
        """Pooled outputs [..., hidden_size] to float32 logits [..., 2]."""
        return ops.cast(self.classifier(pooled_output), "float32")


class ClassificationHead(BertLayer):
    """Dropout and an affine map to labels: of examples from `pooled_output`, of tokens from `sequence_output`."""

    def __init__(self, config: BertConfig | dict[str, Any], num_labels: int, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.num_labels = num_labels
        self.dense = dense(self.config, num_labels, "dense", dtype=self.dtype_policy)

    def build(self, hidden_states_shape: Any = None) -> None:
        self.dense.build((None, self.config.hidden_size))
        self.built = True

    def call(self, hidden_states: Any, dropout_seed: Any | None = None) -> Any:
        """Scores the labels.

        Args:
          hidden_states: [..., hidden_size].
          dropout_seed: from `draw_seeds`, or None for no dropout.

        Returns:
          float32 logits [..., num_labels].
        """
        hidden_states = dropout(hidden_states, self.config.hidden_dropout_prob, dropout_seed)
        return ops.cast(self.dense(hidden_states), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_labels": self.num_labels}
