"""Functions with gradients of their own, against automatic differentiation, and dropout against its distribution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_bert.models.dropout import draw_seeds, dropout
from tf_bert.models.gradients import gelu, matmul_by_rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_and_its_gradient_are_those_of_the_library(approximate, dtype):
    """In bfloat16 too they are held against those of float32: rounding may add up to a few units in the last place."""
    x = np.linspace(-12.0, 12.0, 4001, dtype="float32")
    x = np.array(tf.cast(tf.cast(x, dtype), "float32"))  # without the rounding of the input itself
    upstream = np.random.default_rng(0).normal(size=x.shape).astype("float32")
    upstream = np.array(tf.cast(tf.cast(upstream, dtype), "float32"))

    def values(function, dtype):
        given = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = function(given)
        gradient = tape.gradient(y, given, output_gradients=tf.constant(upstream, dtype))
        return np.array(tf.cast(y, "float32")), np.array(tf.cast(gradient, "float32"))

    found = values(lambda z: gelu(z, approximate), dtype)
    expected = values(lambda z: keras.ops.gelu(z, approximate=approximate), "float32")
    for ours, theirs, scale in zip(found, expected, (np.abs(x), np.abs(upstream)), strict=True):
        assert (np.abs(ours - theirs) <= (4e-6 if dtype == "float32" else 2**-6) * (1.0 + scale)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_with_rows_and_their_gradients_are_those_of_matmul(dtype):
    rng = np.random.default_rng(1)
    x, table, upstream = (tf.constant(rng.normal(size=shape), dtype) for shape in ((2, 3, 8), (17, 8), (2, 3, 17)))

    def values(function):
        with tf.GradientTape() as tape:
            tape.watch([x, table])
            y = function(x, table)
        return [y, *tape.gradient(y, [x, table], output_gradients=upstream)]

    expected = values(lambda x, table: keras.ops.matmul(x, keras.ops.transpose(table)))
    for ours, theirs in zip(values(matmul_by_rows), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == dtype
        ours, theirs = np.array(tf.cast(ours, "float32")), np.array(tf.cast(theirs, "float32"))
        np.testing.assert_allclose(ours, theirs, atol=1e-5 if dtype == "float32" else 0.05)


@pytest.mark.parametrize("shape", [(400, 500), (3, 7, 9, 999)])
@pytest.mark.parametrize("rate", [0.1, 0.01, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate, shape):
    seeds = draw_seeds(keras.random.SeedGenerator(3), 2)
    dropped, other = (np.array(dropout(tf.ones(shape), rate, seed)) for seed in seeds)
    share = (dropped == 0.0).mean()
    deviation = np.sqrt(rate * (1.0 - rate) / dropped.size)
    assert abs(share - rate) < 5.0 * deviation
    kept = dropped[dropped != 0.0]
    np.testing.assert_allclose(kept, 1.0 / (1.0 - rate), rtol=2**-15)
    # Elements that share a random word, neighbours, and two seeds are independent.
    flat = (dropped == 0.0).reshape(-1)
    for pairs in ((flat[0:-1:2], flat[1::2]), (flat[1:-1:2], flat[2::2]), (flat, (other == 0.0).reshape(-1))):
        count = min(map(len, pairs))
        both = (pairs[0][:count] & pairs[1][:count]).mean()
        assert abs(both - rate**2) < 6.0 * np.sqrt(rate**2 / count)


def test_dropout_has_no_effect_without_a_seed_or_a_rate():
    x = tf.ones((3, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, draw_seeds(keras.random.SeedGenerator(3), 1)[0]) is x
