"""Multi-head self-attention (Vaswani et al. 2017, section 3.2), with one projection for query, key and value."""

import math
from typing import Any

import keras
from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.dropout import dropout
from tf_bert.models.layer import BertLayer, dense

# Added to the logits of pairs that must not attend. Finite in float16, and a row without any allowed pair (padding)
# stays finite after the softmax.
MASKED_LOGIT = -1e4


def attention_bias(example_ids: Any) -> Any:
    """Block-diagonal attention: a token sees the tokens of its own example.

    Args:
      example_ids: integers [batch, length]; 0 is padding, 1, 2, ... number a row's examples.

    Returns:
      float32 [batch, 1, length, length]: 0 where attention is allowed, `MASKED_LOGIT` elsewhere.
    """
    same_example = ops.equal(example_ids[:, :, None], example_ids[:, None, :])
    real = ops.greater(example_ids, 0)[:, None, :]
    allowed = ops.cast(ops.logical_and(same_example, real), "float32")
    return ((1.0 - allowed) * MASKED_LOGIT)[:, None, :, :]


class SelfAttention(BertLayer):
    """Attention and its output projection, without the residual connection."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        hidden_size = self.config.hidden_size
        policy = self.dtype_policy
        self.query_key_value = dense(self.config, 3 * hidden_size, "query_key_value", in_encoder=True, dtype=policy)
        self.output_projection = dense(self.config, hidden_size, "output", in_encoder=True, dtype=policy)

    def build(self, hidden_states_shape: Any = None) -> None:
        shape = (None, None, self.config.hidden_size)
        self.query_key_value.build(shape)
        self.output_projection.build(shape)
        self.built = True

    def call(self, hidden_states: Any, bias: Any, dropout_seed: Any | None = None) -> Any:
        """Attends.

        Args:
          hidden_states: [batch, length, hidden_size].
          bias: [batch, 1, length, length], from `attention_bias`; None: every token sees all of its row.
          dropout_seed: from `draw_seeds`, or None for no dropout on the probabilities.

        Returns:
          [batch, length, hidden_size] in the compute dtype.
        """
        length, heads = ops.shape(hidden_states)[1], self.config.num_attention_heads
        head_size = self.config.hidden_size // heads
        # Split on the last axis: indexing a fused tensor on another axis costs a strided-slice gradient.
        query, key, value = (
            ops.reshape(x, (-1, length, heads, head_size))
            for x in ops.split(self.query_key_value(hidden_states), 3, axis=-1)
        )
        rate = self.config.attention_probs_dropout_prob
        if keras.config.backend() == "jax" and (dropout_seed is None or rate == 0.0):
            # Flash attention (Dao et al. 2022) where the device has it, which drops nothing. A bias would cost it a
            # gradient of the bias.
            mask = None if bias is None else ops.equal(bias, 0.0)
            context = ops.dot_product_attention(query, key, value, mask=mask)
        else:
            context = self._attend(query, key, value, bias, dropout_seed)
        return self.output_projection(ops.reshape(context, (-1, length, self.config.hidden_size)))

    def _attend(self, query: Any, key: Any, value: Any, bias: Any, dropout_seed: Any | None) -> Any:
        """Sums of values [batch, length, heads, head size], weighted by a softmax in float32."""
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
        query = query * (1.0 / math.sqrt(query.shape[-1]))
        logits = ops.cast(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))), "float32")
        if bias is not None:
            # Keras hands it over in the compute dtype, in which 0 and a large negative number lose nothing.
            logits = logits + ops.cast(bias, "float32")
        probabilities = ops.cast(ops.softmax(logits, axis=-1), self.compute_dtype)
        probabilities = dropout(probabilities, self.config.attention_probs_dropout_prob, dropout_seed)
        return ops.transpose(ops.matmul(probabilities, value), (0, 2, 1, 3))
