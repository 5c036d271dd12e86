"""tf-models' BertEncoderV2 and pretraining heads with the weights of our model. They run on tf-keras, Keras 2."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.nlp.modeling import layers, networks
from parity import Measured, Rows, measure

from tf_bert.models.pretraining import BertForPretraining


def approximate_gelu(x: Any) -> Any:
    """Model Garden's own "gelu"."""
    return tf_keras.activations.gelu(x, approximate=True)


def exact_gelu(x: Any) -> Any:
    """What Hugging Face calls "gelu"."""
    return tf_keras.activations.gelu(x, approximate=False)


ACTIVATIONS = {"gelu": exact_gelu, "gelu_new": approximate_gelu, "relu": tf.nn.relu}


class ModelGarden:
    """The peer of one of our models.

    Args:
      model: whose shape and weights it takes.
      own_activation: leave the encoder the activation that it has by default.
    """

    def __init__(self, model: BertForPretraining, own_activation: bool = False) -> None:
        config = model.config
        activation = ACTIVATIONS[config.hidden_act]
        self.encoder = networks.BertEncoderV2(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_sequence_length=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            inner_dim=config.intermediate_size,
            output_dropout=0.0,
            attention_dropout=0.0,
            **({} if own_activation else {"inner_activation": activation}),
        )
        ids = tf.zeros((1, 1), tf.int32)
        self.encoder({"input_word_ids": ids, "input_mask": ids + 1, "input_type_ids": ids})
        table = self.encoder.get_embedding_table()
        if not config.tie_word_embeddings:
            table = tf.Variable(tf.zeros((config.vocab_size, config.hidden_size)))
        self.masked_lm = layers.MaskedLM(table, activation=activation)
        self.masked_lm.build(None)
        self.masked_lm.dense.build((None, config.hidden_size))
        self.masked_lm.layer_norm.build((None, config.hidden_size))
        self.next_sentence = layers.ClassificationHead(inner_dim=0, num_classes=2)
        self.next_sentence.out_proj.build((None, config.hidden_size))
        self.variables = self._take_weights(model)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs for padded rows, by our names."""
        encoded = self.encoder(
            {
                "input_word_ids": inputs["input_ids"],
                "input_mask": inputs["input_mask"],
                "input_type_ids": inputs["segment_ids"],
            }
        )
        return {
            "sequence_output": encoded["sequence_output"],
            "pooled_output": encoded["pooled_output"],
            "masked_lm_logits": self.masked_lm(encoded["sequence_output"], inputs["masked_lm_positions"]),
            "next_sentence_logits": self.next_sentence(encoded["pooled_output"]),
        }

    def measure(self, rows: Rows, weights: Mapping[str, np.ndarray] | None) -> Measured:
        """See `Peer`."""
        found = measure(self, self.variables, rows, weights)
        gradients = {}
        for path, parts in found.gradients.items():
            shape = self.shapes[path]
            gradients[path] = np.concatenate([part.reshape(*shape[:-1], -1) for part in parts], axis=-1)
        return Measured(found.outputs, gradients)

    def _take_weights(self, model: BertForPretraining) -> dict[str, list[Any]]:
        """Copies our weights; returns our paths -> the variables that hold them, in order along the last axis."""
        encoder = self.encoder
        norms = {"embeddings/layer_norm": encoder._embedding_norm_layer}
        denses = {"pooler": [encoder._pooler_layer]}
        for i, block in enumerate(encoder._transformer_layers):
            attention = block._attention_layer
            denses |= {
                f"block_{i}/attention/query_key_value": [
                    attention._query_dense,
                    attention._key_dense,
                    attention._value_dense,
                ],
                f"block_{i}/attention/output": [attention._output_dense],
                f"block_{i}/intermediate": [block._intermediate_dense],
                f"block_{i}/output": [block._output_dense],
            }
            norms |= {
                f"block_{i}/attention_layer_norm": block._attention_layer_norm,
                f"block_{i}/output_layer_norm": block._output_layer_norm,
            }
        denses = {f"encoder/{path}": found for path, found in denses.items()}
        denses["masked_lm/transform"] = [self.masked_lm.dense]
        denses["next_sentence/classifier"] = [self.next_sentence.out_proj]
        norms = {f"encoder/{path}": layer for path, layer in norms.items()}
        norms["masked_lm/layer_norm"] = self.masked_lm.layer_norm
        held = {
            "encoder/embeddings/token_embedding": [encoder._embedding_layer.embeddings],
            "encoder/embeddings/position_embedding": [encoder._position_embedding_layer._position_embeddings],
            "encoder/embeddings/segment_embedding": [encoder._type_embedding_layer.embeddings],
            "masked_lm/bias": [self.masked_lm.bias],
        }
        if not model.config.tie_word_embeddings:
            held["masked_lm/output_embedding"] = [self.masked_lm.embedding_table]
        for path, found in denses.items():
            held[f"{path}/kernel"] = [layer.kernel for layer in found]
            held[f"{path}/bias"] = [layer.bias for layer in found]
        for path, layer in norms.items():
            held[f"{path}/gamma"], held[f"{path}/beta"] = [layer.gamma], [layer.beta]
            layer.epsilon = model.config.layer_norm_eps
        held = {f"bert/{path}": found for path, found in held.items()}
        ours = {variable.path: np.asarray(variable) for variable in model.trainable_variables}
        assert held.keys() == ours.keys()
        for path, found in held.items():
            for part, variable in zip(np.split(ours[path], len(found), axis=-1), found, strict=True):
                variable.assign(part.reshape(variable.shape))
        self.shapes = {path: value.shape for path, value in ours.items()}
        return held
