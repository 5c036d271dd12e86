"""The BERT encoder: embeddings, post-LayerNorm Transformer blocks and the pooler (Devlin et al. 2018)."""

import functools
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_bert.config import BertConfig
from tf_bert.models.attention import SelfAttention, attention_bias
from tf_bert.models.dropout import draw_seeds, dropout
from tf_bert.models.embeddings import BertEmbeddings
from tf_bert.models.layer import BertLayer, activation, dense, layer_norm

DROPOUTS_PER_BLOCK = 3


class TransformerBlock(BertLayer):
    """Self-attention and feed-forward, each followed by dropout, residual sum and LayerNorm."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        policy = self.dtype_policy
        self.attention = SelfAttention(self.config, name="attention", dtype=policy)
        self.attention_layer_norm = layer_norm(self.config, "attention_layer_norm", dtype=policy)
        intermediate_size, hidden_size = self.config.intermediate_size, self.config.hidden_size
        self.intermediate = dense(self.config, intermediate_size, "intermediate", in_encoder=True, dtype=policy)
        self.output_dense = dense(self.config, hidden_size, "output", in_encoder=True, dtype=policy)
        self.output_layer_norm = layer_norm(self.config, "output_layer_norm", dtype=policy)

    def build(self, hidden_states_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        self.attention.build(hidden)
        self.attention_layer_norm.build(hidden)
        self.intermediate.build(hidden)
        self.output_dense.build((None, None, self.config.intermediate_size))
        self.output_layer_norm.build(hidden)
        self.built = True

    def call(self, hidden_states: Any, bias: Any, dropout_seeds: list[Any] | None = None) -> Any:
        """One block: [batch, length, hidden_size] in and out; `bias` as in `SelfAttention.call`."""
        act = activation(self.config, training=dropout_seeds is not None)
        for_probabilities, for_attention, for_output = dropout_seeds or [None] * DROPOUTS_PER_BLOCK
        rate = self.config.hidden_dropout_prob
        attended = dropout(self.attention(hidden_states, bias, for_probabilities), rate, for_attention)
        hidden_states = self.attention_layer_norm(hidden_states + attended)
        transformed = self.output_dense(act(self.intermediate(hidden_states)))
        return self.output_layer_norm(hidden_states + dropout(transformed, rate, for_output))


class BertEncoder(BertLayer):
    """Token ids to hidden states.

    Args:
      config: shape of the encoder.
      activation_checkpointing: recompute each block's activations in the backward pass (Chen et al. 2016).
      dropout_seed: start of the dropout's random state.
      pooling: have a pooler; without, there is no `pooled_output`.
    """

    def __init__(
        self,
        config: BertConfig | dict[str, Any],
        activation_checkpointing: bool = False,
        dropout_seed: int = 0,
        pooling: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, **kwargs)
        self.activation_checkpointing = activation_checkpointing
        self.dropout_seed = dropout_seed
        self.pooling = pooling
        policy = self.dtype_policy
        self.embeddings = BertEmbeddings(self.config, name="embeddings", dtype=policy)
        self.blocks = [
            TransformerBlock(self.config, name=f"block_{i}", dtype=policy) for i in range(self.config.num_hidden_layers)
        ]
        if pooling:
            self.pooler = dense(self.config, self.config.hidden_size, "pooler", activation="tanh", dtype=policy)
        self.seed_generator = keras.random.SeedGenerator(dropout_seed, name="dropout")

    def build(self, inputs_shape: Any = None) -> None:
        self.embeddings.build()
        for block in self.blocks:
            block.build()
        if self.pooling:
            self.pooler.build((None, self.config.hidden_size))
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Encodes one batch, packed or plain.

        Args:
          inputs: integers [batch, length]: `input_ids`, and
            - plain rows: optionally `input_mask` (1 = real token; without it, all are) and `segment_ids`; or
            - packed rows: `example_ids` (see `attention_bias`), `segment_ids`, `position_ids`, and
              `next_sentence_positions` [batch, examples], the place of every example's `[CLS]`.
          training: apply dropout.

        Returns:
          `sequence_output` [batch, length, hidden_size] and `pooled_output`, [batch, hidden_size] for plain rows
          and [batch, examples, hidden_size] for packed ones, in the compute dtype. Without a pooler, the former alone.
        """
        input_ids = inputs["input_ids"]
        segment_ids = inputs.get("segment_ids", ops.zeros_like(input_ids))
        position_ids = inputs.get("position_ids", ops.arange(ops.shape(input_ids)[1], dtype="int32")[None, :])
        example_ids = inputs.get("example_ids", inputs.get("input_mask"))
        bias = None if example_ids is None else attention_bias(example_ids)

        embedding_seed = draw_seeds(self.seed_generator, 1)[0] if training else None
        hidden_states = self.embeddings(input_ids, segment_ids, position_ids, embedding_seed)
        for block in self.blocks:
            seeds = draw_seeds(self.seed_generator, DROPOUTS_PER_BLOCK) if training else None
            run = functools.partial(block.__call__, dropout_seeds=seeds)
            if self.activation_checkpointing and training:
                run = keras.remat(run)
            hidden_states = run(hidden_states, bias)

        if not self.pooling:
            return {"sequence_output": hidden_states}
        if "next_sentence_positions" in inputs:
            first_tokens = ops.take_along_axis(hidden_states, inputs["next_sentence_positions"][:, :, None], axis=1)
        else:
            first_tokens = hidden_states[:, 0]
        return {"sequence_output": hidden_states, "pooled_output": self.pooler(first_tokens)}

    def get_config(self) -> dict[str, Any]:
        names = ("activation_checkpointing", "dropout_seed", "pooling")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
