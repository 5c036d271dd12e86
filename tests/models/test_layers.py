"""What every layer of the model promises, and what packing, masks and dropout do."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from batches import TINY, packed_batch

from tf_bert.models.attention import SelfAttention, attention_bias
from tf_bert.models.embeddings import BertEmbeddings
from tf_bert.models.encoder import BertEncoder, TransformerBlock
from tf_bert.models.heads import MaskedLMHead, NextSentenceHead
from tf_bert.models.layer import activation
from tf_bert.models.pretraining import BertForPretraining

HIDDEN = np.random.default_rng(0).normal(size=(2, 6, TINY.hidden_size)).astype("float32")
IDS = np.arange(12, dtype="int32").reshape(2, 6)
ONES = np.ones_like(IDS)
CALLS = {
    BertEmbeddings: (IDS, ONES, ONES),
    SelfAttention: (HIDDEN, attention_bias(ONES)),
    TransformerBlock: (HIDDEN, attention_bias(ONES)),
    BertEncoder: ({"input_ids": IDS, "input_mask": ONES},),
    MaskedLMHead: (HIDDEN, IDS[:, :3] % 6, np.resize(0.1 * HIDDEN, (TINY.vocab_size, TINY.hidden_size))),
    NextSentenceHead: (HIDDEN[:, 0],),
}


def _outputs(result):
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize("layer_class", CALLS, ids=lambda c: c.__name__)
def test_a_layer_rebuilt_from_its_config_computes_the_same(layer_class):
    layer = layer_class(TINY)
    layer.build()
    rebuilt = layer_class.from_config(layer.get_config())
    rebuilt.build()
    assert [v.shape for v in rebuilt.variables] == [v.shape for v in layer.variables]
    rebuilt.set_weights(layer.get_weights())
    for ours, theirs in zip(_outputs(layer(*CALLS[layer_class])), _outputs(rebuilt(*CALLS[layer_class])), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("layer_class", CALLS, ids=lambda c: c.__name__)
def test_a_layer_in_16_bits_keeps_float32_variables_and_stays_near_float32(layer_class, policy):
    full, half = layer_class(TINY), layer_class(TINY, dtype=policy)
    full.build()
    half.build()
    assert {v.dtype for v in half.trainable_variables} == {"float32"}
    half.set_weights(full.get_weights())
    for wide, narrow in zip(_outputs(full(*CALLS[layer_class])), _outputs(half(*CALLS[layer_class])), strict=True):
        is_logits = layer_class in (MaskedLMHead, NextSentenceHead)
        assert narrow.dtype == ("float32" if is_logits else policy.removeprefix("mixed_"))
        # bfloat16 keeps 8 bits of mantissa; outputs are of order one and pass through a few roundings.
        np.testing.assert_allclose(wide, tf.cast(narrow, "float32"), atol=0.06)


@pytest.mark.parametrize("layer_class", CALLS, ids=lambda c: c.__name__)
def test_every_variable_of_a_layer_gets_a_gradient(layer_class):
    layer = layer_class(TINY)
    layer.build()
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(tf.sin(output)) for output in _outputs(layer(*CALLS[layer_class]))])
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    assert all(np.any(tf.convert_to_tensor(gradient) != 0) for gradient in gradients)


def _model(config=TINY, **kwargs) -> BertForPretraining:
    """A model whose biases and LayerNorms are not at their initial zeros and ones."""
    model = BertForPretraining(config, **kwargs)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if variable.name == "gamma" else 0.0, 0.2, variable.shape))
    return model


def test_a_packed_row_gives_what_its_examples_give_alone():
    model = _model()
    batch = packed_batch(np.random.default_rng(5), rows=6)
    packed = model.encoder(batch)
    examples = 0
    for row in range(6):
        for example in range(1, batch["example_ids"][row].max() + 1):
            inside = np.flatnonzero(batch["example_ids"][row] == example)
            alone = model.encoder(
                {
                    "input_ids": batch["input_ids"][row, inside][None],
                    "segment_ids": batch["segment_ids"][row, inside][None],
                    "input_mask": np.ones((1, len(inside)), "int32"),
                }
            )
            found = packed["sequence_output"].numpy()[row, inside]
            np.testing.assert_allclose(found, alone["sequence_output"][0], atol=1e-5)
            pooled = packed["pooled_output"].numpy()[row, example - 1]
            np.testing.assert_allclose(pooled, alone["pooled_output"][0], atol=1e-5)
            examples += 1
    assert examples > 6, "no row of this batch was packed"


def test_what_stands_under_padding_changes_nothing():
    model = _model()
    batch = packed_batch(np.random.default_rng(5), rows=4)
    other = {name: value.copy() for name, value in batch.items()}
    padding = other["example_ids"] == 0
    assert padding.any()
    other["input_ids"][padding] = 42
    real = ~padding
    ours, theirs = (model.encoder(b)["sequence_output"].numpy()[real] for b in (batch, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_without_a_mask_every_token_is_real():
    encoder = BertEncoder(TINY)
    encoder.build()
    whole, told = encoder({"input_ids": IDS}), encoder({"input_ids": IDS, "input_mask": ONES})
    for name in told:
        np.testing.assert_array_equal(whole[name], told[name])


def test_masked_lm_logits_are_those_of_the_tied_embedding_at_the_masked_positions():
    model = _model()
    batch = packed_batch(np.random.default_rng(6), rows=3)
    logits = model(batch)["masked_lm_logits"].numpy()
    hidden = model.encoder(batch)["sequence_output"].numpy()
    head = model.masked_lm
    transformed = head.layer_norm(keras.ops.gelu(head.transform(hidden), approximate=False)).numpy()
    everywhere = transformed @ model.encoder.embeddings.token_embedding.numpy().T + head.bias.numpy()
    for row in range(3):
        np.testing.assert_allclose(logits[row], everywhere[row, batch["masked_lm_positions"][row]], atol=1e-4)


def test_dropout_zeroes_the_given_share_and_keeps_the_mean():
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.3)
    embeddings = BertEmbeddings(config)
    embeddings.build()
    ids = np.zeros((64, 32), "int32")
    without = embeddings(ids, ids, ids).numpy()
    dropped = embeddings(ids, ids, ids, tf.constant([1, 2], "uint32")).numpy()
    share = np.mean(dropped == 0)
    # 65,536 draws: four standard errors of a share of 0.3 are 0.007.
    assert abs(share - 0.3) < 0.007
    np.testing.assert_allclose(dropped[dropped != 0], (without / 0.7)[dropped != 0], rtol=1e-5)


def test_activation_checkpointing_gives_the_same_loss_and_gradients_with_dropout_on():
    config = dataclasses.replace(TINY, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    batch = packed_batch(np.random.default_rng(8), rows=4)
    results = []
    for checkpointing in (False, True):
        model = _model(config, activation_checkpointing=checkpointing, dropout_seed=11)

        @tf.function
        def loss_and_gradients(model=model):
            with tf.GradientTape() as tape:
                outputs = model(batch, training=True)
                loss = tf.add_n([tf.reduce_mean(tf.square(output)) for output in outputs.values()])
            return loss, [
                tf.convert_to_tensor(g) for g in tape.gradient(loss, [v.value for v in model.trainable_weights])
            ]

        results.append(loss_and_gradients())
    (plain_loss, plain), (recomputed_loss, recomputed) = results
    assert float(plain_loss) == float(recomputed_loss)
    for ours, theirs in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_activations_equal_their_definitions():
    from math import erf, pi, sqrt, tanh

    xs = np.linspace(-4, 4, 33).astype("float32")
    exact = [0.5 * x * (1 + erf(x / sqrt(2))) for x in xs]
    approximate = [0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) for x in xs]
    for name, expected in {"gelu": exact, "gelu_new": approximate, "relu": np.maximum(xs, 0)}.items():
        found = activation(dataclasses.replace(TINY, hidden_act=name))(tf.constant(xs))
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=name)
