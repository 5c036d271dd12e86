"""Token, position and segment embeddings (Devlin et al. 2018, section 3, figure 2)."""

from typing import Any

import keras
from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.dropout import dropout
from tf_bert.models.layer import BertLayer, initializer, layer_norm


class BertEmbeddings(BertLayer):
    """Sum of three embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.layer_norm = layer_norm(self.config, "layer_norm", dtype=self.dtype_policy)

    def build(self, input_ids_shape: Any = None) -> None:
        def table(rows: int, name: str) -> keras.Variable:
            return self.add_weight(
                shape=(rows, self.config.hidden_size),
                initializer=initializer(self.config, in_encoder=True),
                autocast=False,
                name=name,
            )

        self.token_embedding = table(self.config.vocab_size, "token_embedding")
        self.position_embedding = table(self.config.max_position_embeddings, "position_embedding")
        self.segment_embedding = table(self.config.type_vocab_size, "segment_embedding")
        self.layer_norm.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, input_ids: Any, segment_ids: Any, position_ids: Any, dropout_seed: Any | None = None) -> Any:
        """Embeds one batch.

        Args:
          input_ids, segment_ids, position_ids: integers [batch, length].
          dropout_seed: from `draw_seeds`, or None for no dropout.

        Returns:
          [batch, length, hidden_size] in the compute dtype.
        """

        def look_up(table: Any, ids: Any) -> Any:
            # Rows are cast, not the table: its gradient then has the rows that were looked up, in float32.
            return ops.cast(ops.take(table, ids, axis=0), self.compute_dtype)

        # A matrix product with one-hot rows has a dense gradient of two rows; a gather's would be a scatter over
        # every token of the batch.
        segments = ops.one_hot(segment_ids, self.config.type_vocab_size, dtype=self.compute_dtype)
        embedded = (
            look_up(self.token_embedding, input_ids)
            + look_up(self.position_embedding, position_ids)
            + ops.matmul(segments, ops.cast(self.segment_embedding, self.compute_dtype))
        )
        return dropout(self.layer_norm(embedded), self.config.hidden_dropout_prob, dropout_seed)
