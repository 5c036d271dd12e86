"""The encoder against the same weights in tf-models' BertEncoderV2: forward and gradient."""

import numpy as np
import pytest
import tensorflow as tf

from tf_bert.config import BertConfig
from tf_bert.models.encoder import BertEncoder

modeling = pytest.importorskip("official.nlp.modeling", reason="tf-models-official (extra `interop`) is not installed")
networks = modeling.networks

SHAPES = [
    BertConfig(vocab_size=101, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=70),
    BertConfig(
        vocab_size=53,
        hidden_size=60,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=33,
        max_position_embeddings=40,
        type_vocab_size=3,
        hidden_act="relu",
        layer_norm_eps=1e-6,
    ),
]


def _peer(config: BertConfig):
    """tf-models' encoder of the same shape. It runs on tf-keras, Keras 3's predecessor."""
    import tf_keras

    functions = {"gelu": lambda x: tf_keras.activations.gelu(x, approximate=False), "relu": tf.nn.relu}
    return networks.BertEncoderV2(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_sequence_length=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        inner_dim=config.intermediate_size,
        inner_activation=functions[config.hidden_act],
        output_dropout=0.0,
        attention_dropout=0.0,
    )


def _copy_weights(encoder: BertEncoder, peer) -> dict[str, list]:
    """Randomises every weight of ours (biases and LayerNorm too), gives it to the peer, and returns our variable's
    path -> the peer's variables that hold it, in order along the last axis.
    """
    rng = np.random.default_rng(7)
    ours = {v.path.removeprefix("encoder/"): v for v in encoder.trainable_variables}
    for variable in ours.values():
        noise = rng.normal(0, 0.1, variable.shape)
        variable.assign(noise + (1.0 if variable.name == "gamma" else 0.0))
    pairs = {
        "embeddings/token_embedding": [peer._embedding_layer.embeddings],
        "embeddings/position_embedding": [peer._position_embedding_layer._position_embeddings],
        "embeddings/segment_embedding": [peer._type_embedding_layer.embeddings],
        "embeddings/layer_norm/gamma": [peer._embedding_norm_layer.gamma],
        "embeddings/layer_norm/beta": [peer._embedding_norm_layer.beta],
        "pooler/kernel": [peer._pooler_layer.kernel],
        "pooler/bias": [peer._pooler_layer.bias],
    }
    for i, block in enumerate(peer._transformer_layers):
        attention = block._attention_layer
        projections = [attention._query_dense, attention._key_dense, attention._value_dense]
        prefix = f"block_{i}"
        pairs[f"{prefix}/attention/query_key_value/kernel"] = [p.kernel for p in projections]
        pairs[f"{prefix}/attention/query_key_value/bias"] = [p.bias for p in projections]
        for ours_name, layer in {
            "attention/output": attention._output_dense,
            "intermediate": block._intermediate_dense,
            "output": block._output_dense,
        }.items():
            pairs[f"{prefix}/{ours_name}/kernel"] = [layer.kernel]
            pairs[f"{prefix}/{ours_name}/bias"] = [layer.bias]
        for ours_name, layer in {
            "attention_layer_norm": block._attention_layer_norm,
            "output_layer_norm": block._output_layer_norm,
        }.items():
            pairs[f"{prefix}/{ours_name}/gamma"] = [layer.gamma]
            pairs[f"{prefix}/{ours_name}/beta"] = [layer.beta]
            layer.epsilon = encoder.config.layer_norm_eps
    peer._embedding_norm_layer.epsilon = encoder.config.layer_norm_eps
    assert pairs.keys() == ours.keys()
    for name, theirs in pairs.items():
        for part, variable in zip(np.split(np.asarray(ours[name]), len(theirs), axis=-1), theirs, strict=True):
            variable.assign(part.reshape(variable.shape))
    return pairs


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.num_hidden_layers}x{c.hidden_size}-{c.hidden_act}")
def test_equals_tf_models_with_the_same_weights(config):
    encoder = BertEncoder(config, name="encoder")
    encoder.build()
    peer = _peer(config)
    rng = np.random.default_rng(1)
    batch, length = 4, 23
    input_ids = tf.constant(rng.integers(0, config.vocab_size, (batch, length)), "int32")
    segment_ids = tf.constant(rng.integers(0, config.type_vocab_size, (batch, length)), "int32")
    lengths = np.array([length, 1, 9, 16])  # padding of every amount
    input_mask = tf.constant(np.arange(length)[None] < lengths[:, None], "int32")
    peer({"input_word_ids": input_ids, "input_mask": input_mask, "input_type_ids": segment_ids})
    pairs = _copy_weights(encoder, peer)
    real = tf.cast(input_mask, tf.float32)[:, :, None]
    direction = tf.constant(rng.normal(size=(batch, length, config.hidden_size)), tf.float32) * real

    with tf.GradientTape() as tape:
        ours = encoder({"input_ids": input_ids, "segment_ids": segment_ids, "input_mask": input_mask})
        loss = tf.reduce_sum(ours["sequence_output"] * direction) + tf.reduce_sum(ours["pooled_output"])
    variables = {v.path.removeprefix("encoder/"): v.value for v in encoder.trainable_variables}
    our_gradients = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        theirs = peer({"input_word_ids": input_ids, "input_mask": input_mask, "input_type_ids": segment_ids})
        loss = tf.reduce_sum(theirs["sequence_output"] * direction) + tf.reduce_sum(theirs["pooled_output"])
    their_gradients = tape.gradient(loss, pairs)

    difference = (ours["sequence_output"] - theirs["sequence_output"]) * real
    assert np.abs(difference).max() <= 1e-5
    np.testing.assert_allclose(ours["pooled_output"], theirs["pooled_output"], rtol=0, atol=1e-5)
    for name, parts in their_gradients.items():
        found = np.asarray(tf.convert_to_tensor(our_gradients[name]))
        dense = [np.asarray(tf.convert_to_tensor(part)) for part in parts]
        expected = np.concatenate([part.reshape(*found.shape[:-1], -1) for part in dense], axis=-1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)
